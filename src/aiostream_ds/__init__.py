"""Write a Grafana streaming data source plugin as a Python class.

The names are listed by how soon an author needs them.
"""

import importlib
import typing

from msgspec import Meta

from aiostream_ds._channels.policy import Buffer, Replay, Retry, RowOrder, SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds._declared_errors import DeclaredErrors
from aiostream_ds._frames.columns import FieldType, FrameError
from aiostream_ds._frames.config import (
    DataLink,
    EnumConfig,
    FieldConfig,
    FrameMeta,
    Inspect,
    InternalLink,
    LinkRange,
    LinkTransformation,
    MappingResult,
    Notice,
    RangeMapping,
    RangeOptions,
    SpecialMapping,
    SpecialOptions,
    Stat,
    Threshold,
    Thresholds,
    TypeConfig,
    ValueMapping,
)
from aiostream_ds._frames.dataframes import Table
from aiostream_ds._frames.frame import Field, Frame
from aiostream_ds._process.entry import serve
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
    Health,
    InstanceSettings,
    Query,
    Request,
    Response,
    TimeRange,
    User,
)
from aiostream_ds.rows import Columns, Cursor, HistoryPage, HistoryRange, LogLine, Row
from aiostream_ds.settings import Secret, Settings, secret

if typing.TYPE_CHECKING:
    from aiostream_ds.access import Allow, Quota
    from aiostream_ds.broadcast import Broadcast
    from aiostream_ds.console.background import show
    from aiostream_ds.stores import Retention
    from aiostream_ds.upstream import Upstream

_LAZY = {
    "Allow": "aiostream_ds.access",
    "Broadcast": "aiostream_ds.broadcast",
    "Quota": "aiostream_ds.access",
    "Retention": "aiostream_ds.stores",
    "Upstream": "aiostream_ds.upstream",
    "show": "aiostream_ds.console.background",
}
"""Names that few plugins use, and the modules that are imported when they are."""


def __getattr__(name: str) -> typing.Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


__all__ = [
    # A data source and its handlers
    "DataSource",
    "stream",
    "query",
    "resource",
    "serve",
    "show",
    # Rows
    "Rows",
    "Row",
    "LogLine",
    "Columns",
    "Cursor",
    "HistoryRange",
    "HistoryPage",
    # Settings
    "Settings",
    "Secret",
    "secret",
    "Meta",
    # Requests and answers
    "Query",
    "TimeRange",
    "LiveChannel",
    "Request",
    "Response",
    "Health",
    "User",
    "InstanceSettings",
    # Upstream systems, callbacks and threads
    "Upstream",
    "Broadcast",
    # Policies of a stream
    "Buffer",
    "Retry",
    "Replay",
    "Retention",
    "RowOrder",
    "SchemaPolicy",
    "Status",
    # Access
    "Allow",
    "Quota",
    # Frames
    "Frame",
    "Field",
    "FieldType",
    "Table",
    # How Grafana displays a field
    "FieldConfig",
    "Thresholds",
    "Threshold",
    "ValueMapping",
    "RangeMapping",
    "RangeOptions",
    "SpecialMapping",
    "SpecialOptions",
    "MappingResult",
    "DataLink",
    "InternalLink",
    "LinkRange",
    "LinkTransformation",
    "TypeConfig",
    "EnumConfig",
    # What a frame states about itself
    "FrameMeta",
    "Notice",
    "Inspect",
    "Stat",
    # Errors
    "PluginError",
    "BadQuery",
    "PermissionDenied",
    "NotFound",
    "QuotaExceeded",
    "ConfigError",
    "UpstreamError",
    "DeclaredErrors",
    "FrameError",
]
