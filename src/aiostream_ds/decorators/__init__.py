"""The decorators of a data source: `@stream` and its hooks, `@query`, `@resource`; `LiveChannel`.

A decorator only stores a `HandlerInfo`; `_routing/compiler.py` collects them when the class is
created. A hook stores the name of its stream on its own function and never changes the stream
object: otherwise a subclass would change its base class.

stream_options     the options of a stream
handler_info       what a decorator stores on a method
stream_decorator   `@stream`, and the hooks of a stream
query_decorators   `@query`, `@resource`, `LiveChannel`
"""

from aiostream_ds.decorators.handler_info import (
    HandlerInfo,
    HookInfo,
    ResourceInfo,
    handler_info,
)
from aiostream_ds.decorators.query_decorators import LiveChannel, query, resource
from aiostream_ds.decorators.stream_decorator import CursorStream, Rows, Stream, stream
from aiostream_ds.decorators.stream_options import StreamKeywords, StreamOptions

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
