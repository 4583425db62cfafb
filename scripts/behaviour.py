"""Writes the tables in docs/ that are made from the code.

The text between `<!-- table: NAME -->` and `<!-- end -->` in a page is replaced. The tables are
`policy MODULE` (defaults of its policies), `constants PATH …` (public constants with a docstring,
in a package or module), `errors` (the declared errors) and `metrics` (the metrics of
CollectMetrics), `capabilities` (what the built-in sources can do).
"""

import ast
import asyncio
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NamedTuple, get_origin, get_type_hints

from msgspec import Struct

from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._cluster.node import NodeState
from aiostream_ds._grafana.metrics import ClusterGauges, Gauges, exposition
from aiostream_ds._telemetry import Counters
from aiostream_ds.errors import PluginError
from aiostream_ds.sources.builtin_plugin import SOURCES
from aiostream_ds.sources.capabilities import Ability, Capabilities, stream_capabilities

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "aiostream_ds"
PAGES = ("docs/authorization.md", "docs/behaviour.md", "docs/errors.md", "docs/sources.md")

_TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.S)

Rows = Iterator[Sequence[str]]


class Described(NamedTuple):
    """One constant or field."""

    name: str
    default: Any
    description: str


def described(module: ModuleType) -> Iterator[Described]:
    """Every annotated constant of a module, then every field of its structs, in source order."""
    for name, hint in get_type_hints(module, include_extras=True).items():
        if get_origin(hint) is Annotated:
            yield Described(name, getattr(module, name), hint.__metadata__[0].description)
    for owner in vars(module).values():
        if not isinstance(owner, type) or not issubclass(owner, Struct):
            continue
        if owner.__module__ != module.__name__:
            continue
        hints = get_type_hints(owner, include_extras=True)
        for name, value in zip(owner.__struct_fields__, owner.__struct_defaults__, strict=True):
            description = hints[name].__metadata__[0].description
            yield Described(f"{owner.__name__}.{name}", value, description)


def policy(module: str) -> Rows:
    """Every option of a module's policies with its default."""
    yield "Name", "Default", "Meaning"
    for item in described(import_module(f"aiostream_ds.{module.replace('/', '.')}")):
        if item.name not in ("Policy.buffer", "Policy.replay"):
            yield f"`{item.name}`", show(item.default), item.description


def constants(*paths: str) -> Rows:
    """`NAME = value` with a docstring, in modules or packages."""
    yield "Name", "Value", "Meaning", "Where"
    for path in paths:
        found = PACKAGE / path
        files = sorted(found.rglob("*.py")) if found.is_dir() else [found.with_suffix(".py")]
        for file in files:
            for name, value, text in documented(ast.parse(file.read_text("utf-8"))):
                yield f"`{name}`", value, text, f"`{file.relative_to(PACKAGE).as_posix()}`"


def documented(module: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Name, value and docstring of a module's public constants."""
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
        with suppress(NameError, AttributeError):  # not an expression of numbers and strings
            known[target.id] = eval(source, {"__builtins__": {}}, known)
        text = after.value if isinstance(after, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            yield target.id, show(known.get(target.id), source), " ".join(text.value.split())


def errors() -> Rows:
    """Each declared error and its results."""
    yield "Raise", "Query, resource", "Source", "Subscribe, publish", "In a stream"
    declared = PluginError.__subclasses__()
    for kind in (kind for kind in declared if kind.__module__ == PluginError.__module__):
        refused = kind.subscribe_status or f"gRPC error {kind.grpc_status}"
        stream = "reported once, not retried" if kind.permanent else "retried after `Retry`"
        yield f"`{kind.__name__}`", str(kind.status), kind.source, refused, stream
    yield (
        "anything else",
        "500",
        "plugin",
        "gRPC error INTERNAL",
        "a bug: error sent, next run delayed",
    )


def metrics() -> Rows:
    """The project's metrics, without those of the process."""
    loop = asyncio.new_event_loop()
    node = NodeState("", False, "", 0.0, 0.0, frozenset(), *[0] * 7)
    gauges = Gauges.of(ChannelRegistry(loop=loop))._replace(cluster=ClusterGauges(node, {}, 0, 0))
    text = exposition(gauges, Counters()).decode()
    loop.close()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    yield "Name", "Type", "Meaning"
    for name, meaning in re.findall(r"^# HELP (aiostream_ds_\S+) (.+)$", text, re.M):
        yield f"`{name}`", kinds[name], meaning


def capabilities() -> Rows:
    """What each stream of the built-in plugin can do."""
    yield "`source`", "Query types", "History", "Resume", "Event times", "Publish"
    for source, place in SOURCES.items():
        module, _, name = place.partition(":")
        streams: dict[Capabilities, list[str]] = {}
        for stream, can in stream_capabilities(getattr(import_module(module), name)).items():
            streams.setdefault(can, []).append(f"`{stream}`")
        for can, names in streams.items():
            abilities = map(ability, (can.history, can.resume, can.event_time, can.publish))
            yield f"`{source}`", ", ".join(names), *abilities


def ability(value: Ability) -> str:
    return value if isinstance(value, str) else "yes" if value else "–"


TABLES: dict[str, Callable[..., Rows]] = {
    "policy": policy,
    "constants": constants,
    "errors": errors,
    "metrics": metrics,
    "capabilities": capabilities,
}


def show(value: Any, source: str = "") -> str:
    """A value as Markdown; an expression that is not a simple value as in the source."""
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
    """The page with new tables.

    Raises:
        KeyError: A table is unknown.
    """

    def table(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        head, *rows = TABLES[name](*arguments)
        lines = [head, ["---"] * len(head), *rows]
        cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
        text = "\n".join(f"| {' | '.join(line)} |" for line in cells)
        return f"{match[1]}{text}\n{match[3]}"

    return _TABLE.sub(table, page)


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write the pages, or report which are stale; returns the exit status."""
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
