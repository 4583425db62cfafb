"""The modules that run a channel, as they are or with one planted fault, and a stream for tests."""

import sys
from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import orjson

import aiostream_ds
from aiostream_ds._channels import channel, registry, subscription
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._streams import producer

SCHEMA = Schema(b'{"fields":[]}', "s")


class Parts(NamedTuple):
    """One set of modules that belong together."""

    subscription: Any
    channel: Any
    registry: Any
    producer: Any

    def stream(self, generator: Callable[[], AsyncGenerator[Any, None]], **sizes: int) -> Any:
        """A runner that encodes each batch of rows as one packet."""
        return self.producer.drive(generator, encode, **sizes)


REAL = Parts(subscription, channel, registry, producer)
NAMES = {
    "subscription": "aiostream_ds._channels.subscription",
    "channel": "aiostream_ds._channels.channel",
    "registry": "aiostream_ds._channels.registry",
    "producer": "aiostream_ds._streams.producer",
}


def planted(part: str, old: str, new: str) -> Parts:
    """The same modules with one piece of source replaced; `old` must stand there exactly once."""
    root = Path(aiostream_ds.__file__).parent.parent
    before = {name: sys.modules[name] for name in NAMES.values()}
    made: dict[str, ModuleType] = {}
    try:
        for short, name in NAMES.items():
            path = root.joinpath(*name.split(".")).with_suffix(".py")
            source = path.read_text()
            if short == part:
                if source.count(old) != 1:
                    raise ValueError(f"{old!r} stands {source.count(old)} times in {part}")
                source = source.replace(old, new)
            made[short] = sys.modules[name] = ModuleType(name)
            exec(compile(source, f"<planted {part}>", "exec"), made[short].__dict__)
    finally:
        sys.modules.update(before)
    return Parts(**made)


def encode(rows: list[Any]) -> list[Packet]:
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
