"""Pushes rows from any program into panels: to a data source `push` of Grafana, or to the console.

    with Push(path="lab/run-1") as push:
        push.send({"loss": 0.1})

`AsyncPush` is the same for asyncio. Needs msgspec, orjson and urllib3, and imports nothing else;
pyarrow only when a table is sent.
"""

from aiostream_ds.push.clients import AsyncPush, Push
from aiostream_ds.push.delivery import PushCounts
from aiostream_ds.push.rejections import PushError, PushRejected, PushUnsent

__all__ = ["AsyncPush", "Push", "PushCounts", "PushError", "PushRejected", "PushUnsent"]
