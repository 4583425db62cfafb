"""What an author may say about a stream beside its path: `@stream(…)`'s keyword arguments.

Imports channels.
"""

from typing import Any

import msgspec

from aiostream_ds._channels.policy import Buffer, Policy, Replay, Retry, RowOrder, SchemaPolicy

__all__ = ["StreamOptions"]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one stream, checked. `stream` says what each means.

    Raises:
        TypeError: an option is of a kind that it cannot be, or two do not go together.
        ValueError: `linger`, `stale`, `flush` or `max_hz` is no number from 0 on.
    """

    linger: float = 0.0
    buffer: Buffer = Buffer()
    retry: Retry = Retry()
    replay: Replay = Replay()
    schema: SchemaPolicy = SchemaPolicy()
    order: RowOrder | None = None
    cursor: str | None = None
    stale: float = 0.0
    flush: float = 0.0
    max_hz: float = 0.0
    status_column: str | None = None
    allow: tuple[Any, ...] = ()

    @property
    def policy(self) -> Policy:
        """How a channel of this stream treats its readers; what is kept is not in it."""
        return Policy(
            buffer=self.buffer, linger=self.linger,
            stale=self.stale, flush=self.flush, max_hz=self.max_hz,
        )  # fmt: skip

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and not (name == "order" and value is None):
                raise TypeError(f"{name} is {value!r}; allowed is a {kind.__name__}")
        _ = self.policy
        if self.allow != ():
            from aiostream_ds.access import check_rules  # few streams have rules

            msgspec.structs.force_setattr(self, "allow", check_rules(self.allow))
        column = self.status_column
        if column is not None and (not isinstance(column, str) or column in ("", "time")):
            raise TypeError(f"status_column is {column!r}; allowed is a name other than 'time'")
        if self.cursor is None:
            return
        if not isinstance(self.cursor, str) or not self.cursor:
            raise TypeError(f"cursor is {self.cursor!r}; allowed is the name of a column")
        if self.order is not None:
            raise TypeError(
                "order and cursor are two orders; allowed is one of them: what an order leaves out"
                " the history would bring back"
            )
        if self.schema.labels:
            raise TypeError("schema has labels, and the rows have a cursor; allowed is one of them")


_KINDS = {
    "buffer": Buffer,
    "retry": Retry,
    "replay": Replay,
    "schema": SchemaPolicy,
    "order": RowOrder,
}
