"""The pages of the API reference, from the public names and their docstrings."""

import builtins
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from docutils.nodes import Text
from msgspec import NODEFAULT, Meta, Struct
from sphinx.addnodes import pending_xref

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "aiostream_ds"

MODULES = {
    "aiostream_ds.operators": "Operators of derived streams",
    "aiostream_ds.stores": "Stores",
    "aiostream_ds.push": "The push client",
    "aiostream_ds.testing": "Tests",
    "aiostream_ds.testing.suite": "A suite of tests for every data source",
    "aiostream_ds.testing.faults": "Upstream systems that fail",
}
"""Public modules besides the package, and their titles."""

HEAD = """{title}
{line}

{text}

"""
LEAD = """Everything that ``from aiostream_ds import …`` offers, by subject, from the docstrings of
the code. The other public modules have pages of their own; what begins with an underscore is
private.
"""


def groups() -> list[tuple[str, list[str]]]:
    """The public names of the package, by the comments in its `__all__`."""
    text = (PACKAGE / "__init__.py").read_text("utf-8").partition("__all__ = [")[2]
    found: list[tuple[str, list[str]]] = []
    for comment, name in re.findall(r"^    (?:# (.+)|\"(\w+)\",)$", text, re.M):
        if comment:
            found.append((comment, []))
        else:
            found[-1][1].append(name)
    return found


def write(folder: Path) -> None:
    """Write the pages into a new folder."""
    folder.mkdir()
    pages = []
    for title, names in groups():
        name = re.sub(r"\W+", "-", title.lower())
        pages.append(name)
        (folder / f"{name}.rst").write_text(group_page(title, names), "utf-8")
    for module, title in MODULES.items():
        name = module.rpartition("aiostream_ds.")[2].replace(".", "-")
        pages.append(name)
        (folder / f"{name}.rst").write_text(module_page(module, title), "utf-8")
    tree = ".. toctree::\n   :maxdepth: 1\n\n" + "".join(f"   {name}\n" for name in pages)
    index = HEAD.format(title="API", line="=" * 3, text=LEAD) + tree
    (folder / "index.rst").write_text(index, "utf-8")


def group_page(title: str, names: list[str]) -> str:
    """The page of a group of names of the package."""
    package = importlib.import_module("aiostream_ds")
    text = HEAD.format(title=title, line="=" * len(title), text="")
    return text + "".join(directive(package, name) for name in names)


def module_page(module: str, title: str) -> str:
    """The page of a public module."""
    found = importlib.import_module(module)
    lines = with_code_blocks((inspect.getdoc(found) or "").splitlines())
    text = f"``{module}``. " + "\n".join(lines)
    page = HEAD.format(title=title, line="=" * len(title), text=text)
    shown = {
        id(getattr(importlib.import_module("aiostream_ds"), n)) for _, ns in groups() for n in ns
    }
    names = [name for name in found.__all__ if id(getattr(found, name)) not in shown]
    return page + "".join(directive(found, name) for name in names)


def directive(module: ModuleType, name: str) -> str:
    """What makes Sphinx document a name."""
    value = getattr(module, name)
    place = f"{module.__name__}.{name}"
    if isinstance(value, type) and issubclass(value, BaseException):
        return f".. autoexception:: {place}\n   :members:\n   :show-inheritance:\n\n"
    if isinstance(value, type):
        fields = ", ".join(getattr(value, "__struct_fields__", ()))
        hidden = f"   :exclude-members: {fields}\n" if fields else ""
        return f".. autoclass:: {place}\n   :members:\n{hidden}\n"
    if inspect.isroutine(value):
        return f".. autofunction:: {place}\n\n"
    return f".. autodata:: {place}\n   :no-value:\n\n"


def setup(app: Any) -> None:
    """Called by Sphinx's configuration."""
    # before napoleon, which reads Args and Raises
    app.connect("autodoc-process-docstring", edit_docstring, priority=400)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("doctree-read", unlink_builtins)


def edit_docstring(
    app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Make blocks of indented code, and add the fields of a Struct."""
    lines[:] = with_code_blocks(lines)
    if what in ("attribute", "property", "data"):
        lines.insert(0, "")  # otherwise napoleon takes the text before a colon for a type
    if isinstance(value, type) and issubclass(value, Struct) and value.__struct_fields__:
        lines += ["", *field_lines(value)]


def short_signature(
    app: Any, what: str, name: str, value: Any, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """The fields of a Struct without their types, which the list of fields has."""
    if not isinstance(value, type) or not issubclass(value, Struct):
        return None
    found = [
        name + ("" if default is NODEFAULT else f"={shown_value(default)}")
        for name, default in fields(value)
    ]
    return f"({', '.join(found)})", ""


def with_code_blocks(lines: list[str]) -> list[str]:
    """The lines with a directive before each block that is indented after a blank line."""
    found: list[str] = []
    outer, code = 0, False  # the indentation of the last line of text; whether this line is code
    for before, line in zip(["text", *lines], lines, strict=False):
        if line.strip():
            indent = len(line) - len(line.lstrip())
            if not code and indent > outer and not before.strip():
                found += [f"{' ' * outer}.. code-block:: python", ""]
                code = True
            elif indent <= outer:
                code = False
            if not code:
                outer = indent
        found.append(line)
    return found


def unlink_builtins(app: Any, doctree: Any) -> None:
    """Types such as `bytes` are not the members with their name."""
    for reference in list(doctree.findall(pending_xref)):
        if reference.get("reftarget") in vars(builtins):
            reference.replace_self(Text(reference["reftarget"]))


def fields(struct: type[Struct]) -> list[tuple[str, Any]]:
    """The fields of a Struct with their defaults."""
    names, defaults = struct.__struct_fields__, struct.__struct_defaults__
    required = (NODEFAULT,) * (len(names) - len(defaults))
    return list(zip(names, required + defaults, strict=True))


def shown_value(default: Any) -> str:
    """A default as in code; `…` for one that is made for each object."""
    return "…" if type(default).__name__ == "Factory" else repr(default)


def field_lines(struct: type[Struct]) -> list[str]:
    """A list of the fields of a Struct, in reStructuredText."""
    hints = get_type_hints(struct, include_extras=True)
    found = []
    for field, _ in fields(struct):
        hint, text = hints[field], ""
        if get_origin(hint) is Annotated:
            hint, *rest = get_args(hint)
            text = next((m.description for m in rest if isinstance(m, Meta) and m.description), "")
        found.append(f"* ``{field}: {name_of(hint)}``" + (f": {text}" if text else ""))
    return found


def name_of(hint: Any) -> str:
    """A type as a reader knows it."""
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
