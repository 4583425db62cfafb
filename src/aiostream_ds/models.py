"""Grafana's requests as frozen structs: the caller, the request, and the answers of an author.

Independent of protobuf and of a running server.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, dataclass_transform

import msgspec

from aiostream_ds._frames.times import EPOCH
from aiostream_ds.errors import BadQuery
from aiostream_ds.settings import FrozenMeta, convert

__all__ = [
    "Health",
    "InstanceSettings",
    "PluginContext",
    "Query",
    "Request",
    "Response",
    "TimeRange",
    "User",
]


class User(msgspec.Struct, frozen=True, kw_only=True):
    """The signed-in user of a call. Background work (alerting) has no user: hooks receive None."""

    login: str = ""
    name: str = ""
    email: str = ""
    role: str = ""
    """"Viewer", "Editor" or "Admin"; Grafana may add others."""


class InstanceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One configured data source as Grafana describes it, without secrets."""

    org_id: int = 0
    """Of the organization. Data sources of two organizations may have the same uid."""
    uid: str = ""
    name: str = ""
    id: int = 0
    url: str = ""
    user: str = ""
    database: str = ""
    basic_auth_enabled: bool = False
    basic_auth_user: str = ""
    updated_ms: int = 0
    """When an admin last saved it, in Unix ms; negative (Go's zero time) if never."""


class PluginContext(msgspec.Struct, frozen=True, kw_only=True):
    """The caller, the configured data source that is called, and Grafana's configuration."""

    plugin_id: str = ""
    plugin_version: str = ""
    org_id: int = 0
    namespace: str = ""
    user: User | None = None
    user_agent: str = ""
    grafana_config: Mapping[str, str] = {}
    instance: InstanceSettings | None = None


class TimeRange(msgspec.Struct, frozen=True, kw_only=True):
    """The time range of a panel, in Unix ms; `start` and `end` are aware datetimes."""

    from_ms: int = 0
    to_ms: int = 0

    @property
    def start(self) -> datetime:
        """The earlier bound, in UTC.

        Raises:
            BadQuery: it is outside the years 1 to 9999.
        """
        return _datetime(self.from_ms)

    @property
    def end(self) -> datetime:
        """The later bound, in UTC.

        Raises:
            BadQuery: it is outside the years 1 to 9999.
        """
        return _datetime(self.to_ms)


def _datetime(ms: int) -> datetime:
    try:
        return EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        raise BadQuery(f"expected a time in the years 1 to 9999, got {ms} ms") from None


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Query(msgspec.Struct, metaclass=FrozenMeta, rename="camel", frozen=True, kw_only=True):
    """One query of a panel. Subclass it to add fields, which the query editor fills in.

    Give each added field a default: saved dashboards contain queries of older versions of the
    class.
    """

    ref_id: str = "A"
    query_type: str = ""
    max_data_points: int = 100
    """How many rows the panel can draw."""
    interval_ms: int = 1000
    """Milliseconds between two points at that many rows."""
    time_range: TimeRange = TimeRange()
    with_streaming: bool = True
    """Whether the panel subscribes to the channel after the history."""
    exact: bool = False
    """Whether the live rows must continue the history without a missing or duplicate row."""


class Health(msgspec.Struct, frozen=True):
    """The answer to Save & test: green if `ok`, else red, with a message and details."""

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
        """The parameters of the URL. Raises BadQuery when the URL is malformed."""
        from urllib.parse import parse_qs, urlsplit  # resources only

        try:
            return parse_qs(urlsplit(self.url).query, keep_blank_values=True)
        except ValueError as error:  # such as "//]"
            raise BadQuery(f"the URL must be valid, got {self.url[:80]!r}: {error}") from None

    def header(self, name: str, default: str = "") -> str:
        """The first value of a header. The name is case-insensitive."""
        return next(
            (v[0] for k, v in self.headers.items() if k.lower() == name.lower() and v), default
        )

    def json(self, kind: Any = Any) -> Any:
        """The body, decoded as `kind`.

        Raises:
            BadQuery: the body is not JSON, or does not fit `kind`.
        """
        try:
            value = msgspec.json.decode(self.body)
        except (ValueError, RecursionError) as error:  # also: bytes that are not UTF-8
            raise BadQuery(f"the request body is not JSON: {error}") from None
        try:
            return convert(value, kind)
        except ValueError as error:
            raise BadQuery(f"request body: {error}") from None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a `@resource`, where JSON with status 200 is not enough.

    Raises:
        ValueError: `status` is not from 100 to 599.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str | list[str]] = {}

    def __post_init__(self) -> None:
        if not 100 <= self.status <= 599:
            # Grafana passes it to Go's response writer, which panics on any other status.
            raise ValueError(f"the response status must be from 100 to 599, got {self.status}")
