"""The page of all messages of the code: what it raises, and what it logs as a warning or an error.

They are read from the source code, so that the page has what the code has. What a message fills in
is `…`.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "aiostream_ds"

LEVELS = ("warning", "error", "exception", "critical")
SHORTEST = 12
"""Letters that a message has at least besides what it fills in: shorter ones identify nothing."""

GROUPS = {
    "Sources of the built-in plugin": ("sources", "_redis", "_nats"),
    "Command line": ("cli", "packaging", "console", "_installation.py"),
    "Push": ("push",),
    "Cluster": ("_cluster",),
    "Stores": ("stores",),
    "Process, Grafana and connections": (
        "_process",
        "_grpc",
        "_http2",
        "_grafana",
        "_tls.py",
        "_connection_errors.py",
    ),
    "Tests": ("testing",),
}
"""Caption → parts of the package. The parts that are named nowhere are what an author meets."""
AUTHORS = "Data sources: classes, streams, rows and settings"

HEAD = """# Error messages

All messages of errors, and of warnings in the log, as they are in the code of this version. Paste
a line of the log, of a panel or of a terminal:

<div id="message-search"></div>

`…` stands for what a message fills in. Messages name what to do;
[Troubleshooting](troubleshooting.md) begins with what a panel shows.
"""


class Message(NamedTuple):
    """A message of the code."""

    text: str
    kind: str
    """The class of the error, or `log`."""
    file: str
    """Within the package."""


def messages() -> Iterator[Message]:
    """All of them, in the order of the code."""
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        if name.startswith("_pb/"):
            continue
        for kind, node in texts(ast.parse(file.read_text("utf-8"))):
            text = without_formats(template(node)) if kind == "log" else template(node)
            text = re.sub("…+", "…", " ".join(text.split()))
            if sum(map(str.isalpha, text)) >= SHORTEST:
                yield Message(text, kind, name)


def texts(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The kind and the text of each `raise Kind(text)` and `log.warning(text)`."""
    for node in ast.walk(module):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            kind, call = ast.unparse(node.exc.func), node.exc
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr not in LEVELS or ast.unparse(node.func.value) not in (
                "log",
                "logger",
            ):
                continue
            kind, call = "log", node
        else:
            continue
        if call.args:
            yield kind.rpartition(".")[2], call.args[0]


def template(node: ast.expr) -> str:
    """The text of an expression, with `…` for what it fills in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(template(value) for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
    return "…"


def without_formats(text: str) -> str:
    """The text of a log call, with `…` for `%s`, `%.2f` …"""
    return re.sub(r"%(?:[-+ #0-9.]*[sdrfgxi]|(%))", lambda found: found[1] or "…", text)


def group_of(file: str) -> str:
    """The caption for a file of the package."""
    for caption, parts in GROUPS.items():
        if any(file == part or file.startswith(f"{part}/") for part in parts):
            return caption
    return AUTHORS


def page() -> str:
    """The page, in Markdown."""
    groups: dict[str, dict[tuple[str, str], set[str]]] = {name: {} for name in (AUTHORS, *GROUPS)}
    for message in messages():
        files = groups[group_of(message.file)].setdefault((message.text, message.kind), set())
        files.add(message.file)
    parts = [HEAD]
    for caption, found in groups.items():
        parts += [f"\n## {caption}\n", "| Message | Raised as | In |", "| --- | --- | --- |"]
        for (text, kind), files in sorted(found.items(), key=lambda item: item[0][0].lower()):
            shown = "log" if kind == "log" else f"`{kind}`"
            where = ", ".join(f"`{file}`" for file in sorted(files))
            parts.append(f"| {code(text)} | {shown} | {where} |")
    return "\n".join(parts) + "\n"


def code(text: str) -> str:
    """A text as code in a cell of a table."""
    text = text.replace("|", "\\|")
    ticks = "``" if "`" in text else "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"
