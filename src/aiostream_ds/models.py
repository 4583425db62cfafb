"""Grafana's request words as frozen structs: who asks, for what, and what an author answers with.

Nothing here knows protobuf or a running server. Imports: msgspec, ground, frames, settings.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, Self, TypeVar, dataclass_transform
from urllib.parse import parse_qs, urlsplit

import msgspec

from aiostream_ds.errors import BadQuery
from aiostream_ds.settings import FrozenMeta, convert

__all__ = [
    "CURSOR_LIMIT",
    "Columns",
    "Health",
    "InstanceSettings",
    "HistoryPage",
    "PluginContext",
    "Cursor",
    "Query",
    "Request",
    "Response",
    "Row",
    "HistoryRange",
    "TimeRange",
    "User",
]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """The signed-in user of a call. Background work (alerting) has none: hooks get None then."""

    login: str = ""
    name: str = ""
    email: str = ""
    role: str = ""
    """"Viewer", "Editor" or "Admin"; treat it as an open set."""


class InstanceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One configured data source as Grafana describes it, secrets not included."""

    uid: str = ""
    name: str = ""
    id: int = 0
    url: str = ""
    user: str = ""
    database: str = ""
    basic_auth_enabled: bool = False
    basic_auth_user: str = ""
    updated_ms: int = 0
    """When an admin last saved it, Unix ms; negative (Go's zero time) when never."""


class PluginContext(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, for which configured data source, with which Grafana."""

    plugin_id: str = ""
    plugin_version: str = ""
    org_id: int = 0
    namespace: str = ""
    user: User | None = None
    user_agent: str = ""
    grafana_config: Mapping[str, str] = {}
    instance: InstanceSettings | None = None


class TimeRange(msgspec.Struct, frozen=True, kw_only=True):
    """The time range of a panel. Bounds are Unix ms on the wire, aware datetimes to read."""

    from_ms: int = 0
    to_ms: int = 0

    @property
    def start(self) -> datetime:
        """The earlier bound, in UTC. Raises BadQuery when it lies outside datetime's years."""
        return _moment(self.from_ms)

    @property
    def end(self) -> datetime:
        """The later bound, in UTC. Raises BadQuery when it lies outside datetime's years."""
        return _moment(self.to_ms)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(ms: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        raise BadQuery(f"the time {ms} ms is outside the years 1 to 9999") from None


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Query(msgspec.Struct, metaclass=FrozenMeta, rename="camel", frozen=True, kw_only=True):
    """One query of a panel. Subclass it for own fields; they come from the panel's query editor.

    Give every own field a default: saved dashboards hold queries of older versions of the class.
    """

    ref_id: str = "A"
    query_type: str = ""
    max_data_points: int = 100
    """How many rows the panel can draw."""
    interval_ms: int = 1000
    """The time between two points at that many rows."""
    time_range: TimeRange = TimeRange()
    with_streaming: bool = True
    """Whether the panel is to follow the channel after the history."""
    exact: bool = False
    """Whether the live rows are to join the history with nothing missing and nothing doubled."""


CURSOR_LIMIT = 1 << 53
"""Cursors are below it, from 0 on: a browser holds whole numbers exactly only so far."""


class HistoryRange(msgspec.Struct, frozen=True, kw_only=True):
    """What a `history` hook is asked for: rows of a time span, or rows behind a cursor.

    Without `after`: the rows with start <= time <= end, at most `limit`. When there are more, the
    newest count: the live rows continue them. With `after`, which only a stream with a cursor is
    asked: the rows with cursor > after, and <= `upto` if it is given, whatever their time; when
    there are more than `limit`, the oldest count. Always oldest first.
    """

    start: datetime
    end: datetime
    limit: int
    after: int | None = None
    upto: int | None = None


class Cursor(NamedTuple):
    """A place in a numbered stream: right behind the row with this cursor, -1 for its beginning.

    `epoch` names the numbering, in the same words on every Grafana server. A stream that has a
    cursor is started behind one, and may yield one: the rows that follow come behind it. So it says
    that numbers start anew (a file was replaced, a table emptied), or that it has left rows out.
    """

    epoch: str
    cursor: int


class Row(msgspec.Struct, gc=False):
    """A row with a schema that is known before the first one is yielded.

        class Reading(Row):
            time: datetime
            celsius: Annotated[float, FieldConfig(unit="celsius")]
            note: str | None = None

    Types: bool, int, float, str, datetime (aware), dict or list (as JSON), each also `| None`.
    Without a datetime field a column `time` is put in front and stamped when the row is sent.
    """

    @classmethod
    def from_columns(cls, **columns: Any) -> "Columns[Self]":
        """Many rows at once, each field as a list or a one-dimensional numpy array of its values.

            yield Reading.from_columns(time=times, celsius=temperatures, note=[None] * len(times))

        One packet, without an object for each row. Times are aware datetimes, datetime64 arrays
        or Unix milliseconds. The values are kept, not copied: do not change them afterwards.

        Raises:
            TypeError: a field is missing or unknown.
            ValueError: the columns are not equally long.
        """
        return Columns(cls, columns)


RowT = TypeVar("RowT", bound=Row)


class Columns(Generic[RowT]):
    """Many rows of one class, by column; made by `Row.from_columns`, whose errors it raises."""

    __slots__ = ("kind", "rows", "values")

    def __init__(self, kind: type[RowT], columns: Mapping[str, Any]) -> None:
        names = kind.__struct_fields__
        if tuple(columns) != names:
            if columns.keys() != set(names):
                raise TypeError(
                    f"{kind.__qualname__}.from_columns got {', '.join(columns) or 'nothing'}; "
                    f"it takes each of {', '.join(names)}"
                )
            columns = {name: columns[name] for name in names}
        self.kind = kind
        self.values = values = list(columns.values())
        self.rows = rows = len(values[0]) if values else 0
        for each in values:
            if len(each) != rows:
                lengths = dict(zip(names, map(len, values), strict=True))
                raise ValueError(
                    f"{kind.__qualname__}.from_columns got columns of the lengths {lengths}; "
                    "all must be equally long"
                )

    def __repr__(self) -> str:
        return f"Columns({self.kind.__qualname__}, {self.rows} rows)"


class HistoryPage(msgspec.Struct, frozen=True):
    """What a `history` hook of a stream with a cursor may return instead of its rows alone.

    `epoch` names the numbering, as in `Cursor`. `truncated`: rows behind `span.after` were there
    once and cannot be read any more. `last` is up to where this page tells everything, when that is
    known and beyond its last row.
    """

    rows: Any
    """Rows of one kind (a list of them, `Columns`, or a `Frame`), oldest first."""
    epoch: str = ""
    truncated: bool = False
    last: int | None = None


class Health(msgspec.Struct, frozen=True):
    """The answer to Save & test: green when `ok`, else red, with a message and details."""

    ok: bool = True
    message: str = "OK"
    details: dict[str, Any] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request to a `@resource`, as Grafana forwards it."""

    method: str = "GET"
    path: str = ""
    url: str = ""
    headers: Mapping[str, list[str]] = {}
    body: bytes = b""
    user: User | None = None

    @property
    def query(self) -> dict[str, list[str]]:
        """The URL's parameters."""
        return parse_qs(urlsplit(self.url).query, keep_blank_values=True)

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header, whatever its case."""
        return next(
            (v[0] for k, v in self.headers.items() if k.lower() == name.lower() and v), default
        )

    def json(self, kind: Any = Any) -> Any:
        """The body, decoded as `kind`. Raises BadQuery when it is no JSON or does not fit."""
        try:
            value = msgspec.json.decode(self.body)
        except (ValueError, RecursionError) as error:  # also: text that is no UTF-8
            raise BadQuery(f"the request body is not JSON: {error}") from None
        try:
            return convert(value, kind)
        except ValueError as error:
            raise BadQuery(f"request body: {error}") from None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What a `@resource` answers when JSON with status 200 is not enough."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str | list[str]] = {}

    def __post_init__(self) -> None:
        if not 100 <= self.status <= 599:
            # Grafana hands the number to Go's response writer, which panics on anything else.
            raise ValueError(f"the response status {self.status} is none of 100 to 599")
