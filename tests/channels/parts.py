"""The modules that run a channel, as they are or with one planted fault, and a stream for tests."""

import ast
import gc
import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import orjson

import aiostream_ds
from aiostream_ds._channels import channel, memory_pool, paced, registry, subscription
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._streams import producer

SCHEMA = Schema(b'{"fields":[]}', "s")


class Parts(NamedTuple):
    """One set of modules that belong together."""

    memory: Any
    subscription: Any
    channel: Any
    paced: Any
    registry: Any
    producer: Any

    def stream(self, generator: Callable[[], AsyncGenerator[Any, None]], **sizes: int) -> Any:
        """A runner that encodes each batch of rows as one packet."""
        return self.producer.drive(generator, encode, **sizes)


REAL = Parts(memory_pool, subscription, channel, paced, registry, producer)
NAMES = {
    "memory": "aiostream_ds._channels.memory_pool",
    "subscription": "aiostream_ds._channels.subscription",
    "channel": "aiostream_ds._channels.channel",
    "paced": "aiostream_ds._channels.paced",
    "registry": "aiostream_ds._channels.registry",
    "producer": "aiostream_ds._streams.producer",
}


class Fault(NamedTuple):
    """A change of one function: each piece of syntax `old` becomes `new`.

    `function` is the module in `Parts` and the qualified name. `old` is an expression, a statement
    or consecutive statements, and must occur in the function exactly once. Comments and formatting
    do not matter.
    """

    function: str
    edits: tuple[tuple[str, str], ...]


def planted(fault: Fault | None) -> Parts:
    """Fresh copies of the modules, with one fault.

    Raises:
        LookupError: the function or the syntax to replace does not exist, or exists twice.
    """
    trees = {short: module_tree(short) for short in NAMES}
    if fault is not None:
        short = fault.function.partition(":")[0]
        trees[short] = faulty_tree(fault)
    before = {name: sys.modules[name] for name in NAMES.values()}
    made: dict[str, ModuleType] = {}
    try:
        for short, name in NAMES.items():
            made[short] = sys.modules[name] = ModuleType(name)
            exec(compile(trees[short], f"<planted {short}>", "exec"), made[short].__dict__)
    finally:
        sys.modules.update(before)
    # the registry imports it on demand, when the real one is back
    made["registry"].__dict__["_channel_class"] = lambda policy: (
        made["paced"].PacedChannel if policy.is_paced else made["channel"].Channel
    )
    return Parts(**made)


def module_tree(short: str) -> ast.Module:
    """The syntax tree of a module in `Parts`."""
    path = Path(aiostream_ds.__file__).parent.parent.joinpath(*NAMES[short].split("."))
    return parse(path.with_suffix(".py").read_text("utf-8"))


def parse(source: str) -> ast.Module:
    gc.disable()  # in CPython 3.11 a collection during ast.parse can raise SystemError (gh-106905)
    try:
        return ast.parse(source)
    finally:
        gc.enable()


def faulty_tree(fault: Fault) -> ast.Module:
    """The syntax tree of the module in which the fault is, with the fault."""
    short, _, function = fault.function.partition(":")
    if short not in NAMES:
        raise LookupError(f"module must be one of {', '.join(NAMES)}, got {short!r}")
    tree = module_tree(short)
    plant(tree, function, fault.edits)
    return tree


def plant(tree: ast.Module, function: str, edits: Iterable[tuple[str, str]]) -> None:
    """Apply the edits of a fault to a function of a module."""
    scope: Any = tree
    for name in function.split("."):
        inner = [node for node in scope.body if getattr(node, "name", None) == name]
        if len(inner) != 1:
            raise LookupError(f"{function}: found {len(inner)} times {name!r}")
        scope = inner[0]
    for old, new in edits:
        count = _replace(scope, parse(old).body, parse(new).body)
        if count != 1:
            raise LookupError(f"{function}: found {count} times {old!r}")
    ast.fix_missing_locations(tree)


def _replace(scope: ast.AST, old: list[ast.stmt], new: list[ast.stmt]) -> int:
    """Replace syntax, and return how often it was found."""
    count = 0
    expression = _expression(old)
    wanted = [ast.dump(each) for each in old]
    for node in list(ast.walk(scope)):
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                for at in range(len(value) - len(old), -1, -1):
                    part = value[at : at + len(old)]
                    if all(isinstance(each, ast.stmt) for each in part) and wanted == [
                        ast.dump(each) for each in part
                    ]:
                        value[at : at + len(old)] = new
                        count += 1
                    elif expression is not None and _is(part[0], expression):
                        value[at] = _expression(new, required=True)
                        count += 1
            elif expression is not None and _is(value, expression):
                if not isinstance(node, ast.Expr):  # a statement is replaced as such, above
                    setattr(node, field, _expression(new, required=True))
                    count += 1
    return count


def _expression(body: list[ast.stmt], *, required: bool = False) -> ast.expr | None:
    if len(body) == 1 and isinstance(body[0], ast.Expr):
        return body[0].value
    if required:
        raise LookupError(f"expected an expression, got {ast.unparse(body[0])!r}")
    return None


def _is(node: Any, expression: ast.expr) -> bool:
    return isinstance(node, ast.expr) and ast.dump(node) == ast.dump(expression)


def encode(rows: list[Any], stamps: list[int] | None = None) -> list[Packet]:
    """All rows in one packet of one column; the row "bad" cannot be encoded."""
    if "bad" in rows:
        raise TypeError("row 'bad' cannot be encoded")
    return [packet(rows)] if rows else []


def packet(rows: Iterable[Any], schema: Schema = SCHEMA) -> Packet:
    """One packet of these rows."""
    rows = list(rows)
    return Packet(schema, orjson.dumps([rows]), len(rows))


def rows_of(received: Iterable[tuple[Schema | None, Packet]]) -> list[Any]:
    """The rows of what `receive_nowait` returned."""
    return [row for _, packet in received for row in orjson.loads(packet.data)[0]]
