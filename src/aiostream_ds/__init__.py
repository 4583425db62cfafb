"""A Python class is a Grafana streaming data source. The public names; each is documented where it
is defined, and docs/ tells the story."""

import importlib
import typing

from msgspec import Meta

from aiostream_ds.channels.policy import Buffer, Order, Replay, Retry, SchemaPolicy
from aiostream_ds.channels.status import Status
from aiostream_ds.errors import (
    BadQuery,
    ConfigError,
    DownstreamError,
    NotFound,
    PermissionDenied,
    PluginError,
    QuotaExceeded,
)
from aiostream_ds.frames.config import FieldConfig, FrameMeta
from aiostream_ds.frames.frame import Field, FieldType, Frame
from aiostream_ds.grafana.runtime import serve
from aiostream_ds.plugin.datasource import DataSource
from aiostream_ds.plugin.marks import Live, Rows, query, resource, stream
from aiostream_ds.plugin.model import (
    Columns,
    Health,
    InstanceSettings,
    Page,
    Position,
    Query,
    Request,
    Response,
    Row,
    Span,
    TimeRange,
    User,
)
from aiostream_ds.plugin.settings import Secret, Settings, secret

if typing.TYPE_CHECKING:
    from aiostream_ds.plugin.access import Allow, Quota
    from aiostream_ds.plugin.upstream import Upstream

_SELDOM = {
    "Allow": "aiostream_ds.plugin.access",
    "Quota": "aiostream_ds.plugin.access",
    "Upstream": "aiostream_ds.plugin.upstream",
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
    "DataSource",
    "DownstreamError",
    "Field",
    "FieldConfig",
    "FieldType",
    "Frame",
    "FrameMeta",
    "Health",
    "InstanceSettings",
    "Live",
    "Meta",
    "NotFound",
    "Order",
    "Page",
    "PermissionDenied",
    "PluginError",
    "Position",
    "Query",
    "Quota",
    "QuotaExceeded",
    "Replay",
    "Request",
    "Response",
    "Retry",
    "Row",
    "Rows",
    "SchemaPolicy",
    "Secret",
    "Settings",
    "Span",
    "Status",
    "TimeRange",
    "Upstream",
    "User",
    "query",
    "resource",
    "secret",
    "serve",
    "stream",
]
