"""The source against a server: settings, and clients that write."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from aiostream_ds import Frame
from aiostream_ds.sources.redis import Redis as Source
from aiostream_ds.testing import Viewer, serve_in_memory
from tests.servers import Redis, certificates
from tests.waiting import until as until


def admin(server: Redis, **options: Any) -> Client:
    """A client that may write. It repeats no command."""
    tls = {"ssl": True, "ssl_ca_data": certificates().ca} if server.tls else {}
    return Client(
        host="127.0.0.1",
        port=server.port,
        password=server.password,
        retry=Retry(NoBackoff(), 0),
        **tls,
        **options,
    )


def settings_for(server: Redis, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "user": server.reader}
    if server.tls:
        found |= {"tls": True, "caCertificate": certificates().ca}
    return found | changes


def serving(server: Redis, password: str = Redis.reader_password, **changes: Any) -> Any:
    """A Grafana with the source, as the user who may only read."""
    return serve_in_memory(
        Source, settings=settings_for(server, **changes), secrets={"password": password}
    )


def columns(frame: Frame) -> dict[str, list[Any]]:
    return {field.name: list(field.values) for field in frame.fields}


def encoded(name: str) -> str:
    """A name as a channel's path has it."""
    return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()


def statuses(viewer: Viewer) -> list[dict[str, str] | None]:
    """The statuses that an exact viewer has received."""
    found = [msgspec.json.decode(packet) for packet in viewer.packets]
    return [message["status"] for message in found if "status" in message]


async def first_row(viewer: Viewer, write: Callable[[int], Awaitable[None]]) -> dict[str, Any]:
    """Write numbered rows until the stream runs and the viewer gets one, and all after it."""
    number = 0
    while not viewer.rows:
        await write(number)
        number += 1
        await asyncio.sleep(0.05)
    return await viewer.next()
