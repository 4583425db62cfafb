"""The source `http`: messages of an HTTP answer that does not end.

Server-Sent Events, or lines such as NDJSON. A connection belongs to one channel. Events with ids
resume after an outage where they ended.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, ClassVar, Literal

import anyio
from msgspec import Meta

from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.errors import ConfigError, UpstreamError
from aiostream_ds.models import Health, User
from aiostream_ds.sources.capabilities import DeclaredCapabilities, stream_capabilities
from aiostream_ds.sources.decoding import DecodingSettings, MessageDecoder, with_labels
from aiostream_ds.sources.form_sections import ADVANCED, MESSAGES
from aiostream_ds.sources.health_report import health_report
from aiostream_ds.sources.http.answer_reader import (
    ACCEPT,
    AnswerReader,
    Framing,
    HttpMessage,
    open_reader,
)
from aiostream_ds.sources.http_client.channel_runs import ChannelRuns
from aiostream_ds.sources.http_client.client import HttpClient, HttpSettings
from aiostream_ds.sources.http_client.recent_values import RecentValues
from aiostream_ds.sources.http_client.templates import (
    MessageTemplate,
    UrlTemplate,
    parse_parameters,
)
from aiostream_ds.sources.sharing_settings import SharingSettings

__all__ = ["Http", "HttpSourceSettings"]

HEALTH_WAIT = 3.0
"""Seconds in which Save & test waits for a message."""

Row = dict[str, Any]


class HttpSourceSettings(DecodingSettings, HttpSettings, SharingSettings):
    """A server whose answer is a stream of messages."""

    url: Annotated[str, Meta(examples=["https://example.com/events/{topic}"])]
    """The address. {NAME} in its path or query is a placeholder, which a query fills."""
    method: Literal["GET", "POST"] = "GET"
    """The method of the request."""
    body: Annotated[str, Meta(extra_json_schema={"format": "textarea"})] = ""
    """The body of a POST, as JSON or text. It may have placeholders, too."""
    framing: Framing = "auto"
    """How messages are separated: sse for Server-Sent Events, lines for one message a line, such as
    NDJSON. auto uses the media type of the answer."""
    idle_timeout: Annotated[float, Meta(ge=0, le=86_400), ADVANCED] = 300.0
    """Seconds without a byte after which the server is asked again; 0: never."""
    sequence: Annotated[str, MESSAGES] = ""
    """A column of numbers that increase by one from row to row. With it, rows that an outage has
    lost are counted and named."""
    test_parameters: str = ""
    """The parameters of the request that Save & test makes, if url or body have placeholders."""


Parameters = Annotated[
    str | None,
    Meta(
        description="The values of the placeholders of url and body: VALUE for one, NAME=VALUE&…"
        " for several"
    ),
]
EventType = Annotated[
    str | None, Meta(description="Only Server-Sent Events of this type; empty: all")
]


class Http(DataSource[HttpSourceSettings]):
    """Messages of an HTTP answer that does not end: Server-Sent Events, NDJSON and other lines.

    Query type `messages`, fields `parameters` (the values of the placeholders of the URL) and
    `event` (the type of Server-Sent Events).
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        "messages": {"event_time": "if messages have one", "resume": "with ids of events"}
    }

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Check the settings and open the client; requests are made by streams."""
        settings = self.settings
        self._url = UrlTemplate(settings.url, ("http", "https"))
        self._body = MessageTemplate(settings.body, "body")
        if settings.body and settings.method != "POST":
            raise ConfigError(f"method must be POST, because body is set; got {settings.method!r}")
        self._names = tuple(dict.fromkeys((*self._url.names, *self._body.names)))
        self._runs = ChannelRuns(settings, settings.sequence)
        limit = f"expected at most {settings.max_message:,} bytes"
        self._too_long = f"{limit}, which the setting maxMessage allows, got more"
        self._parameters, self._events = RecentValues(), RecentValues()
        async with HttpClient(settings, self._url) as self._client:
            yield

    def _is_shared(self, declared: str) -> bool:
        return self.settings.share or super()._is_shared(declared)

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        return with_labels(declared, self.settings)

    # a value that does not fit its column is left out: one bad message must not end the stream
    @stream("messages/{parameters:any?}/{event:any?}", schema=SchemaPolicy(conflict="null"))
    async def messages(
        self, parameters: Parameters = None, event: EventType = None
    ) -> Rows[list[Row] | Status]:
        """The messages of one answer, as they arrive.

        It is requested again when it ends. What was sent in between may be missing; events with an
        id are requested from the last one on.
        """
        address = parameters or ""
        with self._runs.begin((parameters, event), address) as run:
            if (changed := run.waiting()) is not None:
                yield changed
                await run.wait()
            async with self._open(parameters, run.last_event_id) as (reader, chunks):
                run.reconnect = lambda: reader.reconnect
                if (changed := run.connected(resumes=bool(run.last_event_id))) is not None:
                    yield changed
                async for messages in chunks:
                    rows = self._rows(run.decoder, messages, reader, event, address)
                    if rows:
                        yield rows
                    if (changed := run.received(rows)) is not None:
                        yield changed
                    run.last_event_id = reader.last_event_id

    @messages.subscribe
    async def may_read(
        self, user: User | None, parameters: str | None = None, event: str | None = None
    ) -> None:
        """Refuse parameters that do not fit the placeholders."""
        self._fill(parameters)

    @messages.suggest("parameters")
    async def suggest_parameters(self, typed: str) -> list[str]:
        """The parameters of the streams that ran last; the names of the placeholders."""
        form = "&".join(f"{name}=" for name in self._names)
        return self._parameters.containing(typed, *([form] if len(self._names) > 1 else ()))

    @messages.suggest("event")
    async def suggest_events(self, typed: str) -> list[str]:
        """The types of events that were received."""
        return self._events.containing(typed)

    async def health(self) -> Health:
        """Request a stream, and wait for a message; fails if the server does not send one.

        With placeholders it needs `test_parameters`; without them only the server is tried.
        """
        parameters = self.settings.test_parameters or None
        if self._names and parameters is None:
            text = await self._try_server()
        else:
            text = await self._try_stream(parameters)
        able = stream_capabilities(type(self))["messages"].text()
        details = {"parameters": list(self._names), **self._runs.details()}
        return health_report([text], self._runs.findings(), [f"messages {able}"], details)

    # -- requests ------------------------------------------------------------------------------

    def _fill(self, parameters: str | None) -> tuple[str, bytes | None]:
        """The URL and the body. Raises BadQuery."""
        values = parse_parameters(parameters, self._names)
        body = self._body.fill(values).encode() if self.settings.body else None
        return self._url.fill(values), body

    def _headers(self, last_event_id: str) -> dict[str, str]:
        """What is sent besides the headers of the settings, which come first; but after an event
        with an id, that replaces one of the settings, from which a stream begins."""
        headers = {"Accept": ACCEPT[self.settings.framing], "Cache-Control": "no-store"}
        if self.settings.body:
            kind = "application/json" if self._body.is_json else "text/plain; charset=utf-8"
            headers["Content-Type"] = kind
        set_by_admin = {name.lower() for name in self.settings.headers}
        found = {name: value for name, value in headers.items() if name.lower() not in set_by_admin}
        return found | ({"Last-Event-ID": last_event_id} if last_event_id else {})

    @asynccontextmanager
    async def _open(
        self, parameters: str | None, last_event_id: str
    ) -> AsyncGenerator[tuple[AnswerReader, AsyncGenerator[Sequence[HttpMessage]]]]:
        """Request a stream: its reader, and its messages."""
        url, body = self._fill(parameters)
        settings = self.settings
        async with self._client.open(
            settings.method,
            url,
            headers=self._headers(last_event_id),
            body=body,
            idle=settings.idle_timeout or None,
        ) as response:
            if parameters:
                self._parameters.add(parameters)
            reader = open_reader(
                settings.framing,
                response.headers.get("Content-Type", ""),
                settings.max_message,
                last_event_id,
                self._events.add,
            )
            async with aclosing(self._read(response, reader)) as chunks:
                yield reader, chunks

    async def _read(
        self, response: Any, reader: AnswerReader
    ) -> AsyncGenerator[Sequence[HttpMessage]]:
        """The messages of each chunk. Raises UpstreamError at the end of the answer."""
        while True:
            with self._client.translated(self.settings.idle_timeout):
                chunk = await response.content.readany()
            if not chunk:
                break
            if messages := reader.feed(chunk):
                yield messages
        if messages := reader.end():
            yield messages
        raise UpstreamError(f"{self._client.server} has ended its answer")

    def _rows(
        self,
        decoder: MessageDecoder,
        messages: Sequence[HttpMessage],
        reader: AnswerReader,
        event: str | None,
        address: str,
    ) -> list[Row]:
        rows: list[Row] = []
        for data, kind in messages:
            if event is not None and kind != event:
                continue
            if data is None:
                decoder.add_bad(address, self._too_long, b"")
                continue
            extra = {"event": kind} if event is None and kind and kind != "message" else {}
            rows += decoder.rows(data, extra, address=address, content_type=reader.content_type)
        return rows

    # -- Save & test ---------------------------------------------------------------------------

    async def _try_stream(self, parameters: str | None) -> str:
        """Request a stream, and read until a message has a row."""
        server = f"{self._client.server}{self._client.route}"
        async with self._open(parameters, "") as (reader, chunks):
            decoder = MessageDecoder(self.settings)
            kind = "Server-Sent Events" if reader.content_type == "" else "lines"
            with anyio.move_on_after(HEALTH_WAIT):
                async for messages in chunks:
                    if rows := self._rows(decoder, messages, reader, None, ""):
                        columns = ", ".join(name for name in rows[0] if name != "time")
                        return f"{server} sends {kind}; the first row has {columns}"
                    if decoder.errors.messages:
                        raise UpstreamError(f"{server} sends {kind}; {decoder.errors.text()}")
        return f"{server} answers with {kind}, without a message in {HEALTH_WAIT:g} s"

    async def _try_server(self) -> str:
        """Reach the server and present the credentials, without a stream."""
        await self._client.probe()
        server = f"{self._client.server}{self._client.route}"
        return f"{server} answers; set testParameters to try a stream"
