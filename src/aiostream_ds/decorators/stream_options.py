"""The options of a stream."""

import re
from collections.abc import Sequence
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

import msgspec

from aiostream_ds._channels.policy import Buffer, Policy, Replay, Retry, RowOrder, SchemaPolicy

if TYPE_CHECKING:
    from aiostream_ds.access import Allow
    from aiostream_ds.stores import Retention

__all__ = ["LOGS", "Share", "StreamKeywords", "StreamOptions"]

LOGS = "logs"
"""The panel of log lines."""

_PANEL = re.compile(r"[A-Za-z0-9-]+")

Share = Literal["process", "cluster"]
"""For whom a channel has one run of its stream: the viewers of one Grafana server, or of all."""


class StreamKeywords(TypedDict, total=False):
    """The options of `@stream`, except `cursor`, on which the type of the method depends.

    Defaults and checks are in the field of the same name: of `Policy` for what concerns the
    channel, else of `StreamOptions`.
    """

    linger: float
    """Seconds that the stream runs after its last viewer left. Default: 0."""
    buffer: Buffer
    """The limits of the queue of a slow subscriber."""
    retry: Retry
    """The back-off after the method raised UpstreamError."""
    replay: Replay
    """How many rows a stream without a cursor keeps in memory. None are kept if it has a history
    and no panel of it is exact."""
    schema: SchemaPolicy
    """What happens to dicts with many columns or with values of another type; labels of series."""
    order: RowOrder | None
    """What happens to rows that arrive late or twice. Default: they are sent as they arrive."""
    stale: float
    """Seconds without a row after which viewers see the stream as stale. Default: 0, never."""
    flush: float
    """Seconds for which rows are collected into one packet. Default: 0."""
    max_hz: float
    """Most packets of single rows per second. Default: 0, no limit."""
    status_column: str | None
    """The name of a string column with the stream's status, for panels that are not exact. A
    change of the status is sent as a row of its own if no other row follows. Default: no column."""
    thin: bool
    """Whether a history of more rows than the panel draws is thinned by time. If not, its newest
    rows are drawn. Default: True."""
    panel: str
    """The id of the Grafana panel that suits the rows, such as "logs", "table", "stat" or a
    plugin's: Explore draws it, and a new panel suggests it. The lines of "logs" are not thinned.
    Default: Grafana decides by the columns; "logs" for rows of `LogLine`."""
    store: "Retention"
    """Records the rows: they are stored in `DataSource.store_directory` before viewers get them,
    which then have a history and are exact over reloads and restarts. Default: not recorded."""
    keep_running: float
    """Seconds that a stream with a `store` is recorded after its last viewer left, also over
    changes of the settings and restarts; of at most `KEPT_STREAMS` (100) streams of a data source.
    Default: 0, as long as `linger` states."""
    share: Share
    """Whether the viewers of all Grafana servers of a cluster share one run of the stream, or those
    of one server only. A cluster needs `cluster_url` in grafana.ini. Default: "process"."""
    allow: "Sequence[Allow]"
    """Rules for who may follow, query and publish, in addition to hooks. Default: everybody."""


class StreamOptions(Policy, frozen=True, kw_only=True, dict=True):
    """The checked options of one stream: the policy of its channels, and what concerns its rows.

    Raises:
        TypeError: an option has another type, or two options exclude each other.
        ValueError: a number of the policy is out of its bounds.
    """

    cursor: str | tuple[str, str] | None = None
    retry: Retry = Retry()
    replay: Replay = Replay()
    schema: SchemaPolicy = SchemaPolicy()
    order: RowOrder | None = None
    status_column: str | None = None
    thin: bool = True
    panel: str = ""
    store: Any = None
    keep_running: float = 0.0
    share: Share = "process"
    allow: tuple[Any, ...] = ()

    @cached_property
    def policy(self) -> Policy:
        """The delivery policy of this stream's channels, without a replay buffer."""
        return msgspec.structs.replace(self.policy_with_replay, replay=None)

    @cached_property
    def policy_with_replay(self) -> Policy:
        """The same with the replay buffer: for a stream that has no history of its own."""
        return Policy(**{name: getattr(self, name) for name in Policy.__struct_fields__})

    def __post_init__(self) -> None:
        _expect("buffer", self.buffer, Buffer)
        _expect("retry", self.retry, Retry)
        _expect("replay", self.replay, Replay)
        _expect("schema", self.schema, SchemaPolicy)
        _expect("thin", self.thin, bool)
        if self.order is not None:
            _expect("order", self.order, RowOrder)
        if not isinstance(self.panel, str) or (self.panel and not _PANEL.fullmatch(self.panel)):
            raise TypeError(f'panel must be the id of a panel, such as "logs", got {self.panel!r}')
        if self.share not in get_args(Share):
            expected = " or ".join(map(repr, get_args(Share)))
            raise TypeError(f"share must be {expected}, got {self.share!r}")
        super().__post_init__()
        if self.allow != ():
            from aiostream_ds.access import check_rules  # few streams have rules

            msgspec.structs.force_setattr(self, "allow", check_rules(self.allow))
        column = self.status_column
        if column is not None and (not isinstance(column, str) or column in ("", "time")):
            raise TypeError(f"status_column must be a name other than 'time', got {column!r}")
        if self.cursor is not None:
            self._check_cursor()
        if self.store is not None:
            self._check_store()
        seconds = self.keep_running
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"keep_running must be a number of seconds, got {seconds!r}")
        if not 0 <= seconds < inf:
            raise ValueError(
                f"keep_running must be a finite number of seconds of at least 0, got {seconds!r}"
            )
        if seconds and self.store is None:
            raise TypeError(
                "expected a store for keep_running, got none: nobody would see the rows"
            )

    def _check_store(self) -> None:
        from aiostream_ds.stores import CURSOR_COLUMN, Retention  # few streams have a store

        _expect("store", self.store, Retention)
        for name, given, why in (
            ("a cursor", self.cursor is not None, "the store numbers the rows"),
            ("an order", self.order is not None, "rows are stored as they arrive"),
            ("a replay", self.replay != Replay(), "the store keeps the rows"),
            ("flush or max_hz", self.is_paced, "rows are sent when they are committed"),
            ('share="cluster"', self.share != "process", "a store is of one Grafana server"),
        ):
            if given:
                raise TypeError(f"expected {name} or a store, got both; use one: {why}")
        msgspec.structs.force_setattr(self, "cursor", CURSOR_COLUMN)

    def _check_cursor(self) -> None:
        names = (self.cursor,) if isinstance(self.cursor, str) else self.cursor
        if not (isinstance(names, tuple) and all(isinstance(n, str) and n for n in names)):
            raise TypeError(
                f"cursor must be the name of a column, or a tuple of two, got {self.cursor!r}"
            )
        if not isinstance(self.cursor, str) and (len(names) != 2 or names[0] == names[1]):
            raise TypeError(f"cursor must have one or two different columns, got {self.cursor!r}")
        if self.order is not None:
            raise TypeError(
                "expected an order or a cursor, got both; use one: the history would return the"
                " rows that the order leaves out"
            )
        if not set(names).isdisjoint(self.schema.labels):
            raise TypeError(
                f"schema.labels must be other columns than the cursor, got {self.schema.labels!r}"
            )


def _expect(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {value!r}")
