"""The sources `http` and `websocket` with a server, and what their viewers see."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aiostream_ds import DataSource
from aiostream_ds.testing import Grafana, Viewer, serve_in_memory
from tests import waiting
from tests.servers.web import WebServer

until = partial(waiting.until, seconds=10.0)


@asynccontextmanager
async def serving(
    kind: type[DataSource[Any]],
    scheme: str,
    server: WebServer,
    path: str,
    secrets: Mapping[str, str],
    **settings: Any,
) -> AsyncIterator[Grafana]:
    """A data source of this server, or of the `port` of a proxy of it."""
    scheme += "s" if server.tls else ""
    url = f"{scheme}://127.0.0.1:{settings.pop('port', server.port)}{path}"
    found = {"url": url, "proxy": "none", **settings}
    async with serve_in_memory(kind, settings=found, secrets=secrets) as grafana:
        yield grafana


def statuses(viewer: Viewer) -> list[str | None]:
    """The texts of the statuses that an exact viewer has received; None: healthy."""
    found = [json.loads(packet) for packet in viewer.packets]
    return [m["status"] and m["status"]["text"] for m in found if "status" in m]
