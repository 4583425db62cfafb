"""`aiostream-ds new [NAME]`: creates a project that runs. Asks for missing arguments."""

import argparse
import keyword
import os
import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from aiostream_ds._installation import install_command
from aiostream_ds.cli.target import CommandError

__all__ = ["KINDS", "arguments", "run"]

KINDS = {
    "code": "values that Python code computes or reads",
    "file": "a growing file, one JSON object a line",
    "command": "the output of a program",
}
"""What the data source reads; each has a folder of templates."""

_TEMPLATES = Path(__file__).with_name("templates")

_TARGETS: dict[str, str] = {
    "source.py": "{module}.py",
    "test.py": "test_{module}.py",
    "sample.ndjson": "{module}.ndjson",
    "ci.yml": ".github/workflows/tests.yml",
    "gitignore": ".gitignore",
}
"""Template → path in the project, unless it is the template's name."""


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("name", nargs="?", help="the name of the data source and of its folder")
    command.add_argument("--reads", choices=KINDS, help="what the data source reads")


def run(parsed: argparse.Namespace) -> int:
    """Ask, write the files, print the next command."""
    name = parsed.name or _ask("Name", _validated_name)
    words = _words(name)
    reads = parsed.reads or _pick()
    folder = Path(name)
    if os.path.lexists(folder):  # also a link to nowhere
        raise CommandError(f"{name!r} exists; use another name")
    try:
        for file, text in make_files(words, reads).items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise CommandError(f"{name!r} cannot be made: {error.strerror}") from None
    module = "_".join(words)
    print(f"Created {name}/: {module}.py, its test, pyproject.toml, README and CI.\n")
    print(f"  cd {name}")
    if any(find_spec(package) is None for package in _NEEDED):
        print(f"  {install_command('console', 'testing')}")
    print(f"  aiostream-ds dev {module}.py")
    return 0


_NEEDED = ("starlette", "uvicorn", "watchfiles", "pytest", "pytest_asyncio")
"""Packages of the extras console and testing."""


def make_files(words: list[str], reads: str) -> dict[str, str]:
    """The project's files: path → content."""
    module = "_".join(words)
    values = {
        "module": module,
        "class": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
        "project": "-".join(words),
        "install": install_command("console", "testing"),
    }
    found = {}
    for folder in ("common", reads):
        for template in sorted((_TEMPLATES / folder).glob("*.tmpl")):
            name = template.name.removesuffix(".tmpl")
            path = _TARGETS.get(name, name).format(module=module)
            found[path] = _fill(template.read_text("utf-8"), values)
    return found


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _words(name: str) -> list[str]:
    """The words of a name, in lower case.

    Raises:
        CommandError: They are not the name of a new Python module.
    """
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
    module = "_".join(words)
    if not re.fullmatch(r"[A-Za-z][\w-]*", name) or not name.isascii() or keyword.iskeyword(module):
        raise CommandError(
            f"name must be letters, digits, - and _, with a letter first, got {name!r}"
        )
    if module in sys.stdlib_module_names or module in ("aiostream_ds", "anyio", "test"):
        raise CommandError(
            f"name must not be that of a module of Python or aiostream_ds, got {module!r}"
        )
    return words


def _validated_name(text: str) -> str:
    _words(text)
    return text


def _pick() -> str:
    kinds = list(KINDS)
    print("What does the data source read?")
    for number, (kind, text) in enumerate(KINDS.items(), 1):
        print(f"  {number}  {kind}: {text}")

    def picked(text: str) -> str:
        kind = kinds[int(text) - 1] if text in ("1", "2", "3") else text or kinds[0]
        if kind not in KINDS:
            raise CommandError(f"expected 1, 2 or 3, got {text!r}")
        return kind

    return _ask("1, 2 or 3", picked)


def _ask(question: str, check: Callable[[str], str]) -> str:
    while True:
        try:
            answer = input(f"{question}: ").strip()
        except EOFError:
            raise CommandError("expected NAME and --reads; stdin is not a terminal") from None
        try:
            return check(answer)
        except CommandError as error:
            print(error)
