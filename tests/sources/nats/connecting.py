"""The source against a server: settings, streams, and clients that publish."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import msgspec

from aiostream_ds import Frame, PluginError
from aiostream_ds._nats.nats_connection import NatsConnection
from aiostream_ds._nats.nats_servers import NatsLogin, NatsServer
from aiostream_ds.sources.nats import Nats as Source
from aiostream_ds.sources.nats.connection_settings import NatsAccess
from aiostream_ds.sources.nats.server_link import ServerLink, flush
from aiostream_ds.testing import Viewer, serve_in_memory
from tests.servers import Nats, certificates
from tests.servers.nats import client_context
from tests.waiting import until as until


class NatsToRead(Nats):
    """A server whose user may do what the source needs."""

    RIGHTS: ClassVar[Mapping[str, Sequence[str]]] = {
        "publish": [
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.CONSUMER.CREATE.>",
            "$JS.API.CONSUMER.MSG.NEXT.>",
            "$JS.API.CONSUMER.DELETE.>",
        ],
        "subscribe": ["_INBOX.>", "home.>", "n"],
    }
    """The rights that docs/sources.md asks for, with two subjects."""

    rights = RIGHTS

    def make_stream(self, name: str = "ORDERS", **changes: Any) -> None:
        """A new stream with the subjects `orders.>`, instead of one of the same name."""
        self.call(f"$JS.API.STREAM.DELETE.{name}")
        config = {"name": name, "subjects": ["orders.>"], "storage": "file", **changes}
        answer = self.call(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode())
        assert "error" not in answer, answer

    def purge_stream(self, name: str = "ORDERS", **arguments: Any) -> None:
        answer = self.call(f"$JS.API.STREAM.PURGE.{name}", json.dumps(arguments).encode())
        assert answer.get("success"), answer

    def consumer_count(self, name: str = "ORDERS") -> int:
        return int(self.call(f"$JS.API.STREAM.INFO.{name}")["state"]["consumer_count"])


def settings_for(server: Any, **changes: Any) -> dict[str, Any]:
    """As the user who may only read. `port` is that of a proxy."""
    scheme = "nats" if server.tls is None else "tls"
    port = changes.pop("port", server.port)
    found: dict[str, Any] = {"servers": f"{scheme}://127.0.0.1:{port}", "user": server.user}
    if server.tls:
        found |= {"caCertificate": certificates().ca}
    return found | changes


def serving(server: Any, password: str = Nats.user_password, **changes: Any) -> Any:
    """A Grafana with the source."""
    secrets = {"password": password} if password else {}
    return serve_in_memory(Source, settings=settings_for(server, **changes), secrets=secrets)


class Publisher:
    """A client that may publish; it connects again after an outage."""

    def __init__(self, *servers: Nats) -> None:
        has_tls = servers[0].tls is not None
        login = NatsLogin(servers[0].admin, servers[0].password)
        places = [NatsServer("127.0.0.1", each.port, has_tls, "127.0.0.1") for each in servers]
        self.link = ServerLink(NatsAccess(places, login, client_context() if has_tls else None))

    async def publish(
        self, subject: str, payload: Any, headers: Mapping[str, str] | None = None
    ) -> None:
        """Publish, and wait until the server has processed it: bytes as they are, anything else as
        JSON."""
        async with self.link.connection() as connection:
            await connection.publish(subject, encoded_payload(payload), headers or {})
            await flush(connection)

    async def store(self, *numbers: int, subject: str = "orders.eu") -> None:
        """Store numbered messages, each once, also if an answer was lost."""
        left = list(numbers)
        while left:
            try:
                async with self.link.connection() as connection:
                    await asyncio.gather(*(self._store(connection, subject, n) for n in left))
                return
            except PluginError:
                await asyncio.sleep(0.02)

    @staticmethod
    async def _store(connection: NatsConnection, subject: str, number: int) -> None:
        payload, headers = encoded_payload({"n": number}), {"Nats-Msg-Id": f"{subject} {number}"}
        try:
            with anyio.fail_after(2.0):
                (answer,) = await connection.request(subject, payload, headers)
        except TimeoutError:  # of a cluster whose leader has gone
            raise PluginError("not stored: no answer") from None
        if answer.status or b'"error"' in answer.payload:
            raise PluginError(f"not stored: {answer}")


def encoded_payload(payload: Any) -> bytes:
    return payload if isinstance(payload, bytes) else json.dumps(payload).encode()


@asynccontextmanager
async def publishing(*servers: Nats) -> AsyncIterator[Publisher]:
    publisher = Publisher(*servers)
    try:
        yield publisher
    finally:
        await publisher.link.close()


def encoded(name: str) -> str:
    """A name as a channel's path has it."""
    return base64.urlsafe_b64encode(name.encode()).rstrip(b"=").decode()


def messages_of(stream: str = "ORDERS", filter: str = ">") -> str:
    """The path of a stream."""
    return f"messages/{encoded(stream)}/{encoded(filter)}"


def subjects_of(subject: str) -> str:
    """The path of a subject."""
    return f"subjects/{encoded(subject)}"


def columns(frame: Frame) -> dict[str, list[Any]]:
    """The values by the names of columns; those of a series have its label in the name, as in exact
    panels."""
    found = {}
    for field in frame.fields:
        labels = ", ".join(f'{name}="{value}"' for name, value in (field.labels or {}).items())
        name = f"{field.name} {{{labels}}}" if labels and "{" not in field.name else field.name
        found[name] = list(field.values)
    return found


def number_of(subject: str = "orders.eu") -> str:
    """The name of the column `n` of a subject."""
    return f'n {{subject="{subject}"}}'


def statuses(viewer: Viewer) -> list[dict[str, str] | None]:
    """The statuses that an exact viewer has received."""
    found = [msgspec.json.decode(packet) for packet in viewer.packets]
    return [message["status"] for message in found if "status" in message]


def status_texts(viewer: Viewer) -> str:
    return " | ".join(each["text"] for each in statuses(viewer) if each)


def numbers(viewer: Viewer) -> list[int]:
    """The numbers of all series that a viewer has received, also an exact one without a frame."""
    first = 2 if "messages/" in viewer.path else 1  # after the time, and the sequence
    found = [msgspec.json.decode(packet).get("data", {}) for packet in viewer.packets]
    columns = [column for data in found for column in data.get("values", ())[first:]]
    return [int(value) for column in columns for value in column if isinstance(value, int | float)]


async def first_row(viewer: Viewer, write: Callable[[int], Awaitable[None]]) -> None:
    """Write numbered rows until the stream runs and the viewer gets one, and all after it."""
    number = 0
    while not numbers(viewer):
        await write(number)
        number += 1
        await asyncio.sleep(0.05)
