"""The decorators of a data source: `@stream` and its hooks, `@query`, `@resource`; `LiveChannel`.

A decorator only stores a `HandlerInfo`; `_routing/compiler.py` collects them when the class is
created. A hook stores the name of its stream on its own function and never changes the stream
object: otherwise a subclass would change its base class.
"""

from aiostream_ds.decorators.stream_decorator import (
    CursorStream,
    HandlerInfo,
    HookInfo,
    LiveChannel,
    ResourceInfo,
    Rows,
    Stream,
    StreamKeywords,
    StreamOptions,
    handler_info,
    query,
    resource,
    stream,
)

__all__ = [
    "CursorStream",
    "HandlerInfo",
    "HookInfo",
    "LiveChannel",
    "ResourceInfo",
    "Rows",
    "Stream",
    "StreamKeywords",
    "StreamOptions",
    "handler_info",
    "query",
    "resource",
    "stream",
]
