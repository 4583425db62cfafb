"""What a `LogFollower` has to read before it accepts events again."""

from typing import NamedTuple

from aiostream_ds._cluster.engine import EntryId

__all__ = ["LogRead", "SchemaRead", "SourceRead"]

_PAGE = 256  # entries of a read


class LogRead(NamedTuple):
    """`Engine.read` is needed."""

    after: EntryId
    limit: int = _PAGE


class SchemaRead(NamedTuple):
    """`Engine.schema` is needed."""


class SourceRead(NamedTuple):
    """The log lacks rows that subscribers have not received: the source has to be read from the
    last message that was delivered to this cursor, for this node only."""

    until: int
