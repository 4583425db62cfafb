"""The source `nats`: subjects of NATS, and streams of JetStream."""

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Annotated, Any, ClassVar

import anyio.to_thread
import msgspec
from msgspec import Meta
from msgspec.structs import replace

from aiostream_ds._channels.policy import Retry, SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.config import Notice
from aiostream_ds._loggers import get_logger
from aiostream_ds._nats.nats_protocol import NatsMessage
from aiostream_ds._telemetry import current_counters
from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, resource, stream
from aiostream_ds.errors import BadQuery, ConfigError, PermissionDenied, PluginError, UpstreamError
from aiostream_ds.models import Health, Request, User
from aiostream_ds.rows import CURSOR_LIMIT, Cursor, HistoryPage, HistoryRange
from aiostream_ds.sources.capabilities import DeclaredCapabilities, stream_capabilities
from aiostream_ds.sources.decoding import MessageDecoder, MessageErrors, with_labels
from aiostream_ds.sources.event_lag import KnownLags
from aiostream_ds.sources.gaps import Gaps, now_ms
from aiostream_ds.sources.health_report import health_report
from aiostream_ds.sources.nats.connection_settings import NatsSettings, access_of
from aiostream_ds.sources.nats.jetstream_api import (
    StreamFacts,
    check_readable,
    check_stream_name,
    read_stream,
    stream_names,
    subjects_of,
)
from aiostream_ds.sources.nats.live_messages import live_messages
from aiostream_ds.sources.nats.sequence_position import (
    BEGINNING,
    SequenceChange,
    SequencePosition,
)
from aiostream_ds.sources.nats.sequenced_rows import SEQUENCE, SequencedRows
from aiostream_ds.sources.nats.server_check import check_server
from aiostream_ds.sources.nats.server_link import LackingRight, ServerLink
from aiostream_ds.sources.nats.stream_history import StreamHistory
from aiostream_ds.sources.nats.subject_filters import (
    EVERYTHING,
    SubjectQuery,
    check_subject,
    check_subject_filter,
    is_match,
    read_subject_query,
)
from aiostream_ds.sources.nats.subjects_seen import SubjectsSeen
from aiostream_ds.sources.panel_status import SHOWN, PanelStatus

__all__ = ["Nats", "SubjectPublication"]

log = get_logger(__name__)

LINGER = 10.0
"""Seconds for which a subject stays subscribed after its last viewer has left."""

POSITIONS = 1_000
"""Streams whose last position is remembered, to count messages that are removed."""

SUBJECTS = 1_000
"""Subjects of a stream that are suggested; of a stream with more, its filters are."""

SubjectText = Annotated[
    str,
    Meta(description="A subject, as home.kitchen.climate; home.*.climate, home.>, home.{place}.>"),
]
StreamName = Annotated[str, Meta(description="The name of a stream of JetStream, as ORDERS")]
StreamFilter = Annotated[
    str, Meta(description="A subject of the stream, as orders.*.new; > for all of them")
]


class SubjectPublication(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a panel publishes."""

    payload: Any = ""
    """A text as it is; any other value as JSON."""


class Nats(DataSource[NatsSettings]):
    """Subjects of NATS, and streams of JetStream, with one connection for all panels.

    Query types: `messages` with the fields `stream`, the name of a stream, and `filter`, a subject:
    history and exact panels. `subjects` with the field `subject`: what is published to a subject
    from now on. Each subject is a series, with the label `subject`; tokens in braces are labels
    instead: `home.{place}.{sensor}`.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        "messages": {"event_time": True},
        "subjects": {"event_time": "if messages have one", "publish": "where allowed"},
    }

    def __init__(self) -> None:
        self.errors = MessageErrors()
        self._positions: OrderedDict[tuple[str, str], SequencePosition] = OrderedDict()
        self._lags = KnownLags()
        self._shorter: dict[str, int] = {}
        self._gaps = Gaps("NATS keeps nothing of what is published to subjects without a stream")
        self._lost_messages = 0

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Nothing is connected before it is needed."""
        settings = self.settings
        MessageDecoder(settings, self.errors)  # raises for invalid settings
        if settings.discover:
            _check_setting("discover", settings.discover)
        for subject in settings.publish:
            _check_setting("publish", subject)
        access = await anyio.to_thread.run_sync(access_of, settings, limiter=self.threads)
        self._link = ServerLink(access)
        self._seen = SubjectsSeen(self._link, settings.discover)
        try:
            yield
        finally:
            await self._link.close()

    def _is_shared(self, declared: str) -> bool:
        return self.settings.share or super()._is_shared(declared)

    def _schema_policy(self, stream: str, declared: SchemaPolicy) -> SchemaPolicy:
        return with_labels(declared, self.settings)

    # -- streams of JetStream ------------------------------------------------------------------

    @stream(
        "messages/{stream:any}/{filter:any}",
        cursor=SEQUENCE,
        retry=Retry(fill=False),
        schema=SchemaPolicy(conflict="null", labels=("subject",), series=2_000, columns=5_000),
    )
    async def messages(
        self, after: Cursor, stream: StreamName, filter: StreamFilter = EVERYTHING
    ) -> Rows[list[dict[str, Any]] | Cursor | Status]:
        """The messages of a stream after a cursor; waits for a stream that does not exist yet."""
        query = self._query(stream, filter)
        rows, status = SequencedRows(self.settings, self.errors, query), PanelStatus()
        position, epoch = self._position(stream, query.filter, after), after.epoch
        live = live_messages(self._link, stream, query.filter, position)
        async with aclosing(live) as parts:
            async for part in parts:
                missing = f"no stream {stream!r} yet; rows appear when it exists"
                status.set("missing", Status("info", missing if part.is_missing else ""))
                if part.change is not None:
                    self._show(part.change, stream, status)
                    if part.change.restart == "shorter" and epoch == self._epoch(stream, epoch):
                        self._shorter[stream] = self._shorter.get(stream, 0) + 1
                    epoch = self._epoch(stream, position.created)
                    yield Cursor(epoch, part.change.upto)
                elif not part.messages and epoch != self._epoch(stream, position.created):
                    epoch = self._epoch(stream, position.created)  # another run has noticed it
                    yield Cursor(epoch, position.last)
                if found := rows.rows(part.messages):
                    yield found
                status.set("decoding", rows.status)
                if (changed := status.change()) is not None:
                    yield changed

    @messages.subscribe
    async def may_read(self, user: User | None, stream: str, filter: str = EVERYTHING) -> None:
        """Refuse what cannot be a stream or a subject, before the server is asked."""
        self._query(stream, filter)

    @messages.last
    async def newest_sequence(self, stream: str, filter: str = EVERYTHING) -> Cursor:
        """The sequence of the newest message of the stream."""
        self._query(stream, filter)
        async with self._link.connection() as connection:
            facts = await read_stream(connection, stream)
        if facts is None:
            return Cursor("", BEGINNING)
        last = min(facts.last, CURSOR_LIMIT - 1)  # the run that begins there states it
        return Cursor(self._epoch(stream, facts.created), last)

    @messages.history
    async def messages_history(
        self, span: HistoryRange, stream: str, filter: str = EVERYTHING
    ) -> HistoryPage:
        """The messages of a time range, by the times at which they were stored, or those after a
        sequence."""
        query = self._query(stream, filter)
        rows, bad = SequencedRows(self.settings, self.errors, query), self.errors.messages
        async with self._link.connection() as connection:
            facts = await read_stream(connection, stream)
            if facts is None:
                text = f"no stream {stream!r} yet; rows appear when it exists"
                return HistoryPage([], last=BEGINNING, notices=(_warning(text),))
            check_readable(stream, facts)
            history = StreamHistory(self._link, connection, stream, query.filter, facts)
            is_truncated = False
            if span.after is None:
                found = await history.newest(span, rows.rows, self._lags.of(stream))
                self._lags.add(stream, rows.lag)
            else:
                after = max(span.after, BEGINNING)
                found = await history.after(after, span.upto, span.limit, rows.rows)
                is_truncated = self._is_truncated(stream, query.filter, after, facts)
        notice = self.errors.notice() if self.errors.messages > bad else None
        return HistoryPage(
            found.rows,
            epoch=self._epoch(stream, facts.created),
            truncated=is_truncated,
            last=found.last,
            notices=found.notices if notice is None else (*found.notices, notice),
        )

    @messages.suggest("stream")
    async def suggest_streams(self, typed: str) -> list[str]:
        """The names of streams that contain the typed text."""
        async with self._link.connection() as connection:
            return (await stream_names(connection, typed))[0]

    @messages.suggest("filter")
    async def suggest_filters(self, typed: str, stream: str) -> list[str]:
        """The subjects of the stream that contain the typed text."""
        check_stream_name(stream)
        async with self._link.connection() as connection:
            found = await subjects_of(connection, stream, SUBJECTS)
        return [subject for subject in (EVERYTHING, *found) if typed in subject]

    # -- subjects ------------------------------------------------------------------------------

    # a value that does not fit its column is left out: one message must not end the stream
    @stream(
        "subjects/{subject:any}",
        linger=LINGER,
        schema=SchemaPolicy(conflict="null", labels=("subject",), series=2_000, columns=5_000),
    )
    async def subjects(self, subject: SubjectText) -> Rows[list[dict[str, Any]] | Status]:
        """What is published to a subject, or to all subjects that match, from now on."""
        query = read_subject_query(subject)
        decoder = MessageDecoder(self.settings, self.errors)
        status = PanelStatus()
        is_subscribed = False
        try:
            async with self._link.follow(query.filter) as messages:
                is_subscribed = True
                if (gap := self._gaps.end(subject)) is not None:
                    status.set("gap", Status("warning", gap.text), SHOWN)
                if (changed := status.change()) is not None:
                    yield changed
                while True:
                    message = await status.next_message(messages)
                    if message is not None and (found := _rows(decoder, query, message)):
                        yield found
                    status.set("decoding", decoder.status())
                    if (changed := status.change()) is not None:
                        yield changed
        except UpstreamError:
            self._gaps.begin(subject, self._link.received_until if is_subscribed else None)
            raise

    @subjects.subscribe
    async def may_follow(self, user: User | None, subject: str) -> None:
        """Refuse what is not a subject, before the server is asked."""
        read_subject_query(subject)

    @subjects.publish
    async def publish_message(
        self, data: SubjectPublication, user: User | None, subject: str
    ) -> None:
        """Publish to the subject of the channel, if the setting `publish` allows it.

        Grafana answers with a status only; the log has the reason.
        """
        try:
            await self._publish_allowed(subject, data, user)
        except PluginError as error:
            log.warning("%s", error.message)
            raise

    @resource("publish/{subject:any}", method="POST")
    async def publish_by_http(self, subject: str, request: Request) -> dict[str, Any]:
        """As `publish_message`; answered with the reason if it is refused."""
        return await self._publish_allowed(subject, request.json(SubjectPublication), request.user)

    async def _publish_allowed(
        self, subject: str, data: SubjectPublication, user: User | None
    ) -> dict[str, Any]:
        check_subject(subject)
        allowed = self.settings.publish
        if not any(is_match(each, subject) for each in allowed):
            raise PermissionDenied(
                f"the setting publish allows {', '.join(allowed) or 'no subject'}, got {subject!r}"
            )
        text = data.payload
        payload = text.encode() if isinstance(text, str) else msgspec.json.encode(text)
        try:
            await self._link.publish(subject, payload)
        except LackingRight as error:
            raise PermissionDenied(error.message) from error
        who = user.login if user else "nobody"
        log.info("published %d bytes to %r for %r", len(payload), subject, who)
        return {"subject": subject, "bytes": len(payload)}

    @subjects.suggest("subject")
    async def suggest_subjects(self, typed: str) -> list[str]:
        """The subjects that have messages and contain the typed text, if the setting `discover`
        allows looking for them."""
        try:
            found = await self._seen.subjects()
        except PluginError as error:
            log.debug("no subjects to suggest: %s", error.message)
            return []
        return [subject for subject in found if typed in subject]

    # -- Save & test ---------------------------------------------------------------------------

    async def health(self) -> Health:
        """Connect, log in and try what streams need; report what the source can do."""
        report = await check_server(self._link)
        problems = [*report.problems, self.errors.text(), self._gaps.text()]
        if self._lost_messages:
            problems.append(f"{self._lost_messages:,} messages were removed before they were read")
        details = {
            **self.errors.details(),
            "gaps": self._gaps.details(),
            "messages_lost": self._lost_messages,
        }
        found, allowed = stream_capabilities(type(self)), ", ".join(self.settings.publish)
        publish = f"to {allowed}" if allowed else False
        found["subjects"] = replace(found["subjects"], publish=publish)
        more = [f"{name} {can.text()}" for name, can in found.items()]
        return health_report(report.found, problems, more, details)

    # -- helpers -------------------------------------------------------------------------------

    @staticmethod
    def _query(stream: str, filter: str) -> SubjectQuery:
        check_stream_name(stream)
        return read_subject_query(filter)

    def _epoch(self, stream: str, created: str) -> str:
        """The name of the numbering of the messages of a stream that was created then, or that had
        this name of a numbering."""
        count, created = self._shorter.get(stream, 0), created.partition(" ")[0]
        return f"{created} {count}" if count else created

    def _position(self, stream: str, filter: str, after: Cursor) -> SequencePosition:
        """Where a run starts: where the last run is, if it has read as far. Each run has a
        position of its own: channels whose queries differ in the names of labels have one filter.
        """
        position = SequencePosition(
            after.epoch.partition(" ")[0], after.value, has_filter=filter != EVERYTHING
        )
        known = self._positions.pop((stream, filter), None)
        if known is not None and (known.created, known.last) == (position.created, position.last):
            position.complete = known.complete
        self._positions[stream, filter] = position
        while len(self._positions) > POSITIONS:
            self._positions.popitem(last=False)
        return position

    def _is_truncated(self, stream: str, filter: str, after: int, facts: StreamFacts) -> bool:
        """Whether messages after a sequence were removed; of some subjects, whether some may have
        been."""
        known = self._positions.get((stream, filter))
        if known is not None and known.created == facts.created and after >= known.last:
            after = max(after, known.complete)
        return facts.first > after + 1

    def _show(self, change: SequenceChange, stream: str, status: PanelStatus) -> None:
        """Count a change, and set the status that follows from it."""
        if change.restart == "found":
            return
        counters, lost = current_counters(), change.lost or 0
        counters.gaps += 1
        counters.rows_missing += lost
        self._lost_messages += lost
        status.set("lost", Status("warning", _lost(change, stream)), SHOWN)


def _check_setting(name: str, subject: str) -> None:
    """Check a subject of a setting. Raises ConfigError."""
    try:
        check_subject_filter(subject)
    except BadQuery as error:
        raise ConfigError(f"{name}: {error.message}") from None


def _rows(
    decoder: MessageDecoder, query: SubjectQuery, message: NatsMessage
) -> list[dict[str, Any]]:
    """The rows of a message; none of what the server sends to a reader of a stream, which a
    wildcard gets, too."""
    subject = message.subject
    if not query.is_for(subject, message.reply):
        return []
    return decoder.rows(
        message.payload,
        query.columns(subject),
        now_ms(),
        address=subject,
        content_type=message.headers.get("Content-Type", ""),
    )


def _lost(change: SequenceChange, stream: str) -> str:
    if change.restart == "new":
        return f"the stream {stream!r} was made again; what was not read of the old one is lost"
    if change.restart == "shorter":
        return f"the newest messages of {stream!r} are gone: the server has lost them"
    if change.lost is None:
        return f"messages of {stream!r} may have been removed before they were read"
    if change.lost == 1:
        return f"1 message of {stream!r} was removed before it was read"
    return f"{change.lost:,} messages of {stream!r} were removed before they were read"


def _warning(text: str) -> Notice:
    return Notice(severity="warning", text=text)
