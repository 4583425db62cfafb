"""Write a Grafana streaming data source plugin as a Python class.

The names are listed by how soon an author needs them. Each is imported when it is first used: a
program that only pushes rows loads nothing else.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
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
    from aiostream_ds.access import Allow, Quota
    from aiostream_ds.broadcast import Broadcast
    from aiostream_ds.console.background import show
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
    from aiostream_ds.settings import Secret, Settings, secret, section
    from aiostream_ds.stores import Retention
    from aiostream_ds.upstream import Upstream

_MODULES = {
    "aiostream_ds._channels.policy": "Buffer Replay Retry RowOrder SchemaPolicy",
    "aiostream_ds._channels.status": "Status",
    "aiostream_ds._declared_errors": "DeclaredErrors",
    "aiostream_ds._frames.columns": "FieldType FrameError",
    "aiostream_ds._frames.config": "DataLink EnumConfig FieldConfig FrameMeta Inspect InternalLink"
    " LinkRange LinkTransformation MappingResult Notice RangeMapping RangeOptions SpecialMapping"
    " SpecialOptions Stat Threshold Thresholds TypeConfig ValueMapping",
    "aiostream_ds._frames.dataframes": "Table",
    "aiostream_ds._frames.frame": "Field Frame",
    "aiostream_ds._process.entry": "serve",
    "aiostream_ds.access": "Allow Quota",
    "aiostream_ds.broadcast": "Broadcast",
    "aiostream_ds.console.background": "show",
    "aiostream_ds.datasource": "DataSource",
    "aiostream_ds.decorators": "LiveChannel Rows query resource stream",
    "aiostream_ds.errors": "BadQuery ConfigError NotFound PermissionDenied PluginError"
    " QuotaExceeded UpstreamError",
    "aiostream_ds.models": "Health InstanceSettings Query Request Response TimeRange User",
    "aiostream_ds.rows": "Columns Cursor HistoryPage HistoryRange LogLine Row",
    "aiostream_ds.settings": "Secret Settings secret section",
    "aiostream_ds.stores": "Retention",
    "aiostream_ds.upstream": "Upstream",
    "msgspec": "Meta",
}
"""The names of each module."""

_LAZY = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> typing.Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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
    "section",
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
