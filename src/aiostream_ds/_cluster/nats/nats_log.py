"""The logs of channels: who may append, appending, and reading.

The owner of a channel is in the headers of the last message of its log. A message is stored only
if the last message of the subject is still the one that its sender has seen: taking a channel, and
appending in a term, is one compare-and-set operation on one subject.
"""

import asyncio
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import TypeGuard

from aiostream_ds._cluster.engine import (
    LARGEST_NUMBER,
    READ_BYTES,
    START,
    EngineError,
    Entry,
    EntryId,
    EntryTooLarge,
    Fenced,
    LogLost,
    LogPage,
    Ownership,
)
from aiostream_ds._cluster.nats.nats_entries import (
    HEADER_BYTES,
    LogMessage,
    SchemaPlace,
    foreign_message,
    log_message,
)
from aiostream_ds._cluster.nats.nats_jetstream import (
    JetStream,
    JetStreamError,
    NotExpected,
    StoredMessage,
)
from aiostream_ds._cluster.nats.nats_subjects import Subjects
from aiostream_ds._cluster.nats.nats_tails import (
    KnownSequences,
    LastMessages,
    Tail,
    Tails,
    tail_after,
)

__all__ = ["ChannelLogs"]

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_TOO_LARGE = 10_054
_BATCH = 500
"""Most messages of one request."""

_NEAR = 8
"""Entries before the one that is searched for, which may be read with it."""

_LAG = 0.02
"""Seconds until a replica that lacks the newest messages is asked again."""


class ChannelLogs:
    """Operations on the log stream. They raise EngineError.

    Args:
        entries: bound of a log, in messages.
        valid_nodes: asks for the nodes with a valid lease.
        now: the time of the server in seconds, roughly.
        lost: called when the server is found to have lost messages.
        timeout: seconds until a replica that lags is an error.
    """

    def __init__(
        self,
        jetstream: JetStream,
        subjects: Subjects,
        *,
        entries: int,
        valid_nodes: Callable[[], Awaitable[Container[str]]],
        now: Callable[[], float],
        lost: Callable[[], None],
        timeout: float,
    ) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._entries = entries
        self._valid_nodes = valid_nodes
        self._now = now
        self._lost = lost
        self._timeout = timeout
        self._tails = Tails()  # of the channels that this node owns
        self._ends = Tails()  # of those that it watches
        self._lasts = LastMessages()
        self._watched: set[str] = set()
        self._sequences = KnownSequences()
        self._highest = 0

    # -- ownership -----------------------------------------------------------------------------

    async def take(self, channel: str, node: str, payload: bytes) -> Ownership:
        """See `Engine.take`."""
        started = self._time()
        alive: Container[str] = ()
        end = self._ends.get(channel, self._jetstream.connection_number)
        if end is not None and end.node != node:  # else it may be the same call again
            if end.node:
                alive = await self._valid_nodes()
            if end.node not in alive:
                try:
                    return await self._take_after(channel, node, payload, end)
                except NotExpected:  # there are later messages
                    pass
        while True:
            connection = self._jetstream.connection_number
            last = await self._last(channel)
            if last is not None and last.node not in ("", node):
                if last.node not in alive:
                    alive = await self._valid_nodes()
                if last.node in alive:
                    self._remember_last(channel, last, connection)
                    return Ownership(last.node, last.id.term, False, last.id)
            schema = await self._schema_of(last)
            if last is not None and last.node == node:
                first = last if not last.first else await self._message(last.first)
                if first is not None and first.payload == payload:
                    self._tails.set(channel, tail_after(last, schema, connection))
                    return Ownership(node, last.id.term, True, first.previous)
            try:
                tail = tail_after(last, schema, connection)
                return await self._take_after(channel, node, payload, tail)
            except NotExpected:  # another node was faster
                self._check_time(channel, started)

    def _remember_last(self, channel: str, last: LogMessage, connection: int) -> None:
        """The next read need not ask for it, if later messages are seen."""
        end = self._ends.get(channel, connection)
        if channel in self._watched and (end is None or end.sequence <= last.sequence):
            self._lasts.set(channel, last, connection, self._time())

    async def _take_after(self, channel: str, node: str, payload: bytes, tail: Tail) -> Ownership:
        """Begin a term after the end of the log.

        Raises:
            NotExpected: it is not the end.
            EngineError: the server has lost messages meanwhile; the term may have begun.
        """
        term = max(int(self._now() * 1000), tail.id.term + 1)
        message = LogMessage(0, EntryId(term, 0), tail.id, node, 0, None, None, payload)
        try:
            await self._store(channel, message, tail, None)
        except LogLost as error:
            raise EngineError(str(error)) from error
        return Ownership(node, term, True, tail.id)

    async def resign(self, channel: str, node: str, term: int) -> None:
        """See `Engine.resign`."""
        started = self._time()
        while True:
            connection = self._jetstream.connection_number
            last = await self._last(channel)
            if last is None or (last.node, last.id.term) != (node, term):
                return
            resignation = last._replace(node="", schema=None, place=None, payload=b"")
            try:
                await self._store(channel, resignation, tail_after(last, None, connection), None)
            except NotExpected:
                self._check_time(channel, started)
                continue
            self._tails.remove(channel)
            return

    def _time(self) -> float:
        return asyncio.get_running_loop().time()

    def _check_time(self, channel: str, started: float) -> None:
        """Called when the end of a log has changed meanwhile."""
        if self._time() - started > self._timeout:
            raise EngineError(f"{channel}: other messages were faster for {self._timeout} s")

    # -- appending -----------------------------------------------------------------------------

    async def append(
        self, channel: str, entry: Entry, schema: bytes | None, start: bytes | None = None
    ) -> None:
        """See `Engine.append`."""
        started = self._time()
        tail = self._tails.get(channel, self._jetstream.connection_number)
        if tail is None or tail.id != entry.previous or tail.id.term != entry.id.term:
            tail = await self._checked_tail(channel, entry, start)
        while tail is not None:
            message = LogMessage(
                0, entry.id, entry.previous, tail.node, tail.first, None, None, entry.payload
            )
            try:
                await self._store(channel, message, tail, schema)
                return
            except NotExpected:
                self._check_time(channel, started)
                tail = await self._checked_tail(channel, entry, start)

    async def _checked_tail(self, channel: str, entry: Entry, start: bytes | None) -> Tail | None:
        """The end of the log, after which an entry may be appended; None if it is in the log.

        Raises:
            Fenced: the log ends with a later entry, or with another one of this id, or its term
                has begun with another payload.
            LogLost: it ends before `entry.previous`.
        """
        connection = self._jetstream.connection_number
        self._tails.remove(channel)
        last = await self._last(channel)
        if last is None:
            raise LogLost(f"{channel}: the log is gone")
        tail = tail_after(last, await self._schema_of(last), connection)
        if last.id == entry.id and last.payload == entry.payload and last.node:
            self._tails.set(channel, tail)
            return None
        if last.id >= entry.id or not last.node:
            raise Fenced(f"{channel}: the log ends with {_text(last.id)}")
        if last.id != entry.previous:
            raise LogLost(
                f"{channel}: the log ends with {_text(last.id)}, before {_text(entry.previous)}"
            )
        if start is not None and last.id.term == entry.id.term:
            first = last if not last.first else await self._message(last.first)
            if first is not None and first.payload != start:
                raise Fenced(f"{channel}: the term {last.id.term} is of {last.node}")
        return tail

    async def _store(
        self, channel: str, message: LogMessage, tail: Tail, schema: bytes | None
    ) -> None:
        """Store a message after the end of the log, and with a schema if it is given or would be
        removed soon. Raises NotExpected."""
        bound = self._jetstream.max_payload - HEADER_BYTES
        if schema is None and tail.schema is None and self._is_due(tail.place):
            tail = tail._replace(schema=await self._schema_at(tail.place))
        message = self._with_schema(message, tail, schema, bound)
        data = message.stored_payload()
        if len(data) > bound:
            raise self._too_large(channel, len(data), bound)
        highest = self._highest
        try:
            sequence = await self._jetstream.publish(
                self._subjects.log_of(channel),
                data,
                {**message.headers(), _EXPECTED: str(tail.sequence)},
                connection_number=tail.connection,
            )
        except JetStreamError as error:
            if error.number == _TOO_LARGE:
                raise self._too_large(channel, len(data), bound) from None
            raise
        kept = message.schema or tail.schema
        stored = message._replace(sequence=sequence)
        self._lasts.remove(channel)
        self._tails.set(channel, tail_after(stored, kept, tail.connection))
        if sequence > highest:
            self._highest = max(self._highest, sequence)
        else:
            self._highest = sequence  # else each message up to the former one would be a loss
            await self._check_after_loss(channel, message, tail)

    def _with_schema(
        self, message: LogMessage, tail: Tail, schema: bytes | None, bound: int
    ) -> LogMessage:
        if schema is not None:
            return message._replace(schema=schema)
        place, known = tail.place, tail.schema
        if place is None:
            return message
        is_due = message.id.number == 0 or self._is_due(place)
        if known is not None and is_due and len(known) + len(message.payload) <= bound:
            return message._replace(schema=known)
        return message._replace(place=place)

    def _is_due(self, place: SchemaPlace | None) -> TypeGuard[SchemaPlace]:
        """Whether the message with the schema will be removed soon."""
        return place is not None and place.age >= self._entries // 2

    def _too_large(self, channel: str, size: int, bound: int) -> EntryTooLarge:
        return EntryTooLarge(f"{channel}: expected an entry of at most {bound} bytes, got {size}")

    async def _check_after_loss(self, channel: str, message: LogMessage, tail: Tail) -> None:
        """The server has lost messages, and uses their sequences again: the one after which this
        message was stored may have been that of another node's message."""
        self.forget()
        self._lost()
        if tail.sequence:
            found = await self._message(tail.sequence)
            if found is None or found.id != message.previous:
                raise LogLost(f"{channel}: the server has lost entries")

    # -- reading -------------------------------------------------------------------------------

    async def read(self, channel: str, after: EntryId, limit: int) -> LogPage:
        """See `Engine.read`."""
        last = self._lasts.get(channel, self._jetstream.connection_number, self._time())
        if last is None or last.id <= after:
            last = await self._last(channel)
        if last is None:
            return LogPage([], START, False)
        if last.id <= after:
            return LogPage([], last.id, False)
        entries = await self._guessed_entries(channel, after, limit, last)
        if entries is None:
            start = 1 if after == START else await self._sequence_after(channel, after, last)
            entries = await self._entries_from(channel, start, after, limit, last)
        return LogPage(entries, last.id, bool(entries) and entries[0].previous > after)

    async def schema(self, channel: str) -> bytes | None:
        """See `Engine.schema`."""
        last = self._lasts.get(channel, self._jetstream.connection_number, self._time())
        return await self._schema_of(last or await self._last(channel))

    def forget(self) -> None:
        """The server may have lost messages: look before the next append."""
        self._tails.clear()
        self._ends.clear()
        self._lasts.clear()
        self._sequences.clear()

    def saw(self, channel: str, message: LogMessage) -> None:
        """A watched channel has a new message: it may be asked for what follows it, and it can be
        taken without a question for the end of its log."""
        connection = self._jetstream.connection_number
        self._highest = max(self._highest, message.sequence)
        self._lasts.remove(channel)
        if message.node:
            self._sequences.add(channel, message.id, message.sequence)
        own = self._tails.get(channel, connection)
        if own is None or own.node != message.node:
            self._ends.set(channel, tail_after(message, message.schema, connection))

    def watched(self, channel: str) -> None:
        """All later messages of the channel are seen."""
        self._watched.add(channel)

    def unwatched(self, channel: str) -> None:
        """Messages of the channel are not seen any more."""
        self._watched.discard(channel)
        self._ends.remove(channel)
        self._lasts.remove(channel)

    async def _guessed_entries(
        self, channel: str, after: EntryId, limit: int, last: LogMessage
    ) -> list[Entry] | None:
        """Entries after an id, from a sequence that is not searched for. None: it cannot be
        guessed, or the guess was too high, or too low by too many messages."""
        guess = self._likely_sequence(channel, after, last)
        if guess is None:
            return None
        start, spare = guess
        page = await self._page(channel, start, limit + 2 * spare)
        entries = self._entries_of(channel, page, after)
        if not entries or entries[0].previous > after:  # there may be others before it
            return None
        rest = await self._entries_from(
            channel,
            page[-1].sequence + 1,
            entries[-1].id,
            limit - len(entries),
            last,
            READ_BYTES - _size(entries),
        )
        return (entries + rest)[:limit]

    async def _entries_from(
        self,
        channel: str,
        start: int,
        after: EntryId,
        limit: int,
        last: LogMessage,
        most: int = READ_BYTES,
    ) -> list[Entry]:
        """Entries after an id, from a sequence on that is not above theirs: up to the last one that
        is known to be there, or to so many bytes."""
        entries: list[Entry] = []
        started = self._time()
        while len(entries) < limit and most > 0 and start <= last.sequence:
            page = await self._page(channel, start, limit - len(entries))
            if page:
                found = self._entries_of(channel, page, after)
                start = page[-1].sequence + 1
                after = found[-1].id if found else after
                entries += found
                most -= _size(found)
                continue
            if await self._message(last.sequence) is None:
                break  # removed meanwhile
            if self._time() - started > self._timeout:
                raise EngineError(f"{channel}: a replica lacks entries for {self._timeout} s")
            await asyncio.sleep(_LAG)
        return entries[:limit]

    async def _page(self, channel: str, start: int, entries: int) -> Sequence[StoredMessage]:
        """Messages of a channel from a sequence on that have so many entries, if there are."""
        count = min(entries + 2, _BATCH)  # one may be a resignation, and one is before the first
        return await self._jetstream.page(
            self._subjects.log_stream, self._subjects.log_of(channel), start, count
        )

    def _entries_of(
        self, channel: str, page: Sequence[StoredMessage], after: EntryId
    ) -> list[Entry]:
        """The entries after an id. A message of an older term, after a loss of writes, is none."""
        entries: list[Entry] = []
        for message in map(_decoded, page):
            if message is not None and message.node and message.id > after:
                after = message.id
                entries.append(message.entry)
                self._sequences.add(channel, message.id, message.sequence)
        return entries

    def _likely_sequence(
        self, channel: str, after: EntryId, last: LogMessage
    ) -> tuple[int, int] | None:
        """A sequence that is probably not above that of an id, and by how many messages of the
        channel it may be below. It was seen lately, or there were as many messages of other
        channels between any two of its term."""
        known = self._sequences.get(channel, after)
        if known is not None and known <= last.sequence:
            return known, 0
        if after == (last.id.term - 1, LARGEST_NUMBER):
            return last.first or last.sequence, 0
        if after.term != last.id.term or not last.first:
            return None
        spare = max((last.id.number - after.number) // 4, _NEAR)
        number = max(after.number - spare, 0)
        return last.first + (last.sequence - last.first) * number // last.id.number, spare

    async def _sequence_after(self, channel: str, after: EntryId, last: LogMessage) -> int:
        """A sequence from which all messages after an id follow, and few before it.

        Sequences are those of the stream, with other channels between. The message is searched for,
        in the last term if it is of that.
        """
        start = await self._start_of_term(last)
        if start is None:
            return await self._search(channel, after, EntryId(0, 0), 1, last)
        if start.previous <= after < start.id:
            return start.sequence
        if after < start.id:
            return await self._search(channel, after, EntryId(0, 0), 1, start)
        return await self._search(channel, after, start.id, start.sequence + 1, last)

    async def _start_of_term(self, last: LogMessage) -> LogMessage | None:
        """The first entry of the term of a message, if it is still there."""
        if not last.first:
            return last if last.node else None
        found = await self._message(last.first)
        return found if found is not None and found.id == (last.id.term, 0) else None

    async def _search(
        self, channel: str, after: EntryId, before: EntryId, low: int, last: LogMessage
    ) -> int:
        """Search from a sequence on, before which the message with the id `before` is. In one term
        the numbers show how far away it is."""
        subject, high, highest = self._subjects.log_of(channel), last.sequence, last.id
        is_estimated = True
        while low < high and not 0 <= _distance(before, after) <= _NEAR:
            middle = (low + high) // 2
            if is_estimated and before.term == highest.term:
                part = (_distance(before, after) - _NEAR / 2) / _distance(before, highest)
                middle = min(max(low + int((high - low) * part), low), high - 1)
            is_estimated = not is_estimated  # rows may come in bursts
            stored = await self._jetstream.get(
                self._subjects.log_stream, seq=middle, next_by_subj=subject
            )
            message = _decoded(stored)
            if message is None or message.id > after:
                high, highest = middle, after if message is None else message.id
            else:
                low, before = message.sequence + 1, message.id
        return low

    async def _last(self, channel: str) -> LogMessage | None:
        """The last message of a log."""
        subject = self._subjects.log_of(channel)
        stored = await self._jetstream.last(self._subjects.log_stream, subject)
        if stored is None:
            return None
        return _decoded(stored) or await self._before_foreign(channel, stored.sequence)

    async def _before_foreign(self, channel: str, sequence: int) -> LogMessage:
        """What stands for a message of another program at the end of a log: that the owner of the
        last entry has resigned. The log is searched for that, until an engine appends to it."""
        stream, subject = self._subjects.log_stream, self._subjects.log_of(channel)
        start, last = 1, START
        while page := await self._jetstream.page(stream, subject, start, _BATCH):
            last = max((m.id for m in map(_decoded, page) if m is not None), default=last)
            start = page[-1].sequence + 1
        return foreign_message(sequence)._replace(id=last)

    async def _message(self, sequence: int) -> LogMessage | None:
        return _decoded(await self._jetstream.get(self._subjects.log_stream, seq=sequence))

    async def _schema_of(self, message: LogMessage | None) -> bytes | None:
        """The schema that the channel has after a message."""
        if message is None or message.schema is not None or message.place is None:
            return None if message is None else message.schema
        return await self._schema_at(message.place)

    async def _schema_at(self, place: SchemaPlace) -> bytes | None:
        found = await self._message(place.sequence)
        return None if found is None else found.schema


def _decoded(stored: StoredMessage | None) -> LogMessage | None:
    if stored is None:
        return None
    return log_message(stored.sequence, stored.headers, stored.payload)


def _size(entries: Sequence[Entry]) -> int:
    return sum(len(entry.payload) for entry in entries)


def _distance(one: EntryId, other: EntryId) -> int:
    """How many entries it is from one to another one of its term; -1: of another term."""
    return other.number - one.number if one.term == other.term else -1


def _text(id: EntryId) -> str:
    return f"{id.term}-{id.number}"
