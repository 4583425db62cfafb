"""The tables of the documentation that are made from the code, so that they cannot lie.

A page holds `<!-- table: NAME -->` … `<!-- end -->`; what stands between them is replaced. The
tables: `policy MODULE` (what its policies default to), `constants ROOM …` (public constants that a
text follows), `errors` (the mapping of declared errors) and `metrics` (what CollectMetrics gives
out).
"""

import ast
import asyncio
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from aiostream_ds._channels.described import described
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._grafana.metrics import exposition
from aiostream_ds._telemetry import Counters
from aiostream_ds.errors import PluginError

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "aiostream_ds"
PAGES = ("docs/authorization.md", "docs/behaviour.md", "docs/errors.md")

_TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.S)

Rows = Iterator[Sequence[str]]


def policy(place: str) -> Rows:
    """Every number of a module's policies with its default."""
    yield "Name", "Default", "Meaning"
    for item in described(import_module(f"aiostream_ds.{place.replace('/', '.')}")):
        if item.name not in ("Policy.buffer", "Policy.replay"):
            yield f"`{item.name}`", show(item.default), item.description


def constants(*places: str) -> Rows:
    """`NAME = value` with a text behind it, in files or rooms below the package."""
    yield "Name", "Value", "Meaning", "Where"
    for place in places:
        found = PACKAGE / place
        files = sorted(found.rglob("*.py")) if found.is_dir() else [found.with_suffix(".py")]
        for file in files:
            for name, value, text in documented(ast.parse(file.read_text("utf-8"))):
                yield f"`{name}`", value, text, f"`{file.relative_to(PACKAGE).as_posix()}`"


def documented(module: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Name, value and text of a module's public constants."""
    known: dict[str, Any] = {"len": len}
    for node, after in zip(module.body, module.body[1:], strict=False):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if not isinstance(target, ast.Name) or not target.id.isupper() or target.id[0] == "_":
            continue
        source = ast.unparse(value)
        with suppress(NameError, AttributeError):  # it is made of more than numbers and texts
            known[target.id] = eval(source, {"__builtins__": {}}, known)
        text = after.value if isinstance(after, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            yield target.id, show(known.get(target.id), source), " ".join(text.value.split())


def errors() -> Rows:
    """Each declared error and what it becomes."""
    yield "Raise", "Query, resource", "Source", "Subscribe, publish", "In a stream"
    declared = PluginError.__subclasses__()
    for kind in (kind for kind in declared if kind.__module__ == PluginError.__module__):
        refused = kind.subscribe_status or f"gRPC error {kind.grpc_status}"
        stream = "said once, then silence" if kind.permanent else "run again after `Retry`"
        yield f"`{kind.__name__}`", str(kind.status), kind.source, refused, stream
    yield "anything else", "500", "plugin", "gRPC error INTERNAL", "a bug: told, then delayed"


def metrics() -> Rows:
    """The project's own metrics, without those of the process."""
    loop = asyncio.new_event_loop()
    text = exposition(ChannelRegistry(loop=loop), Counters()).decode()
    loop.close()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    yield "Name", "Type", "Meaning"
    for name, meaning in re.findall(r"^# HELP (aiostream_ds_\S+) (.+)$", text, re.M):
        yield f"`{name}`", kinds[name], meaning


TABLES: dict[str, Callable[..., Rows]] = {
    "policy": policy,
    "constants": constants,
    "errors": errors,
    "metrics": metrics,
}


def show(value: Any, source: str = "") -> str:
    """A value for a reader: thousands apart; what is no number as the source has it."""
    if not source and (value is None or value == ()):
        return "–"
    if isinstance(value, tuple):
        return ", ".join(f"`{each!r}`" for each in value)
    if isinstance(value, bool | str):
        return f"`{value!r}`"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else f"`{source}`"


def fill(page: str) -> str:
    """The page with its tables made anew. Raises KeyError for a table that is not known."""

    def table(match: re.Match[str]) -> str:
        name, *places = match[2].split()
        head, *rows = TABLES[name](*places)
        lines = [head, ["---"] * len(head), *rows]
        cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
        text = "\n".join(f"| {' | '.join(line)} |" for line in cells)
        return f"{match[1]}{text}\n{match[3]}"

    return _TABLE.sub(table, page)


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write the pages, or say which are stale; returns the exit status."""
    stale = []
    for name in PAGES:
        path = root / name
        before = path.read_text("utf-8")
        after = fill(before)
        if before != after:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(after, "utf-8")
    if stale and "--check" in arguments:
        print(f"stale: {', '.join(stale)}; run scripts/behaviour", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
