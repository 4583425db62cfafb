"""A Python class is a Grafana streaming data source. The public names; each is documented where it
is defined, and docs/ tells the story."""

import importlib
import typing

from msgspec import Meta

from aiostream_ds._channels.policy import Buffer, Replay, Retry, RowOrder, SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.config import FieldConfig, FrameMeta
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._process.runtime import serve
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import LiveChannel, Rows, query, resource, stream
from aiostream_ds.errors import (
    BadQuery,
    ConfigError,
    NotFound,
    PermissionDenied,
    PluginError,
    QuotaExceeded,
    UpstreamError,
)
from aiostream_ds.models import (
    Columns,
    Cursor,
    Health,
    HistoryPage,
    HistoryRange,
    InstanceSettings,
    Query,
    Request,
    Response,
    Row,
    TimeRange,
    User,
)
from aiostream_ds.settings import Secret, Settings, secret

if typing.TYPE_CHECKING:
    from aiostream_ds.access import Allow, Quota
    from aiostream_ds.upstream import Upstream

_SELDOM = {
    "Allow": "aiostream_ds.access",
    "Quota": "aiostream_ds.access",
    "Upstream": "aiostream_ds.upstream",
}
"""Names that few plugins use: their modules are loaded when they are."""


def __getattr__(name: str) -> typing.Any:
    if name not in _SELDOM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_SELDOM[name]), name)


__all__ = [
    "Allow",
    "BadQuery",
    "Buffer",
    "Columns",
    "ConfigError",
    "Cursor",
    "DataSource",
    "Field",
    "FieldConfig",
    "FieldType",
    "Frame",
    "FrameMeta",
    "Health",
    "HistoryPage",
    "HistoryRange",
    "InstanceSettings",
    "LiveChannel",
    "Meta",
    "NotFound",
    "PermissionDenied",
    "PluginError",
    "Query",
    "Quota",
    "QuotaExceeded",
    "Replay",
    "Request",
    "Response",
    "Retry",
    "Row",
    "RowOrder",
    "Rows",
    "SchemaPolicy",
    "Secret",
    "Settings",
    "Status",
    "TimeRange",
    "Upstream",
    "UpstreamError",
    "User",
    "query",
    "resource",
    "secret",
    "serve",
    "stream",
]
