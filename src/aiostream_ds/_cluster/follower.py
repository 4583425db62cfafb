"""The gap rule: events and pages of a log in, each message once and in order out. No I/O.

Notifications are fast and may be missed; the log is the truth. An event is accepted if its entry
follows the last one that was accepted, by its id and by its message. Otherwise the log is read:

    after `position`   entries were missed
    as a changed log   it is not the one that was read before: the engine has lost entries; or this
                       reader joins. See `changed_log`

What is delivered of an accepted message: see `message_delivery`.
"""

from collections.abc import Callable

from msgspec import structs

from aiostream_ds._cluster.changed_log import ChangedLog
from aiostream_ds._cluster.engine import START, Entry, EntryId, LogPage
from aiostream_ds._cluster.entries import (
    NO_MESSAGE,
    ChannelMessage,
    EntryCodec,
    MessageId,
    TermStart,
    schema_hash,
)
from aiostream_ds._cluster.kept_messages import KeptMessages
from aiostream_ds._cluster.known_schemas import KnownSchemas
from aiostream_ds._cluster.log_requests import LogRead, SchemaRead, SourceRead
from aiostream_ds._cluster.message_delivery import MessageDelivery
from aiostream_ds._cluster.sharing import Incoming, Outgoing

__all__ = ["LogFollower"]

_EVENTS = 64  # events that are kept while the log is read
_STARTS = 64  # starts of terms that are known


class LogFollower:
    """The state of one reader of a log.

    Attributes:
        position: the last entry that was read.
        term: of the owner; 0: not known.
        owner: name of a node; empty: not known.
        request: what has to be read before events are accepted again. None: nothing.
        regressed: whether the log was found to be another one than what was read: it ends before
            `position`, or has other entries. Set back by the user of this class.
        ended: whether the source of the owner has ended.
        known_end: the last entry that is known to exist.
        last: the last message that is in the log, as far as it was read; for the source. If the
            last entry cannot be read, its payload, and the cursors of the message before.
        last_time: when its owner has appended it, in milliseconds since the epoch.
        unreadable: entries that were skipped since they cannot be read.
    """

    __slots__ = (
        "_changed_log",
        "_codec",
        "_delivery",
        "_end",
        "_events",
        "_is_fill_refused",
        "_is_first",
        "_kept",
        "_may_have_holes",
        "_missing_schema",
        "_reset",
        "_rest",
        "_runs",
        "_schemas",
        "_tip",
        "_tip_schema",
        "ended",
        "known_end",
        "last",
        "last_time",
        "owner",
        "position",
        "regressed",
        "request",
        "term",
        "unreadable",
    )

    def __init__(
        self,
        codec: EntryCodec,
        deliver: Callable[[Incoming], None],
        reset: Callable[[str], None],
    ) -> None:
        self._codec, self._reset = codec, reset
        self.position = self.known_end = START
        self.term, self.owner = 0, ""
        self.request: LogRead | SchemaRead | SourceRead | None = None
        self.regressed = self.ended = False
        self.last: Incoming | None = None
        self.last_time = 0
        self.unreadable = 0
        self._delivery = MessageDelivery(deliver, reset)
        self._schemas = KnownSchemas()
        self._kept = KeptMessages()
        self._changed_log = ChangedLog(codec, self._delivery, self._kept, self._accept_start)
        self._tip = NO_MESSAGE  # the last message in the log that was read
        self._tip_schema = 0
        self._runs: list[int] = []  # of the starts of terms that were read
        self._missing_schema = 0
        self._rest: LogPage | None = None  # of a page that needs this schema
        self._events: list[tuple[Entry, int]] = []
        self._end = b""  # the payload of the entry at `position`, if it is of a message
        self._may_have_holes = False  # the log, up to its end: it is not read again for these
        self._is_first = False  # whether no message of this log was read
        self._is_fill_refused = False  # the source does not have the rows that are missing

    # -- at first --------------------------------------------------------------------------------

    def join(self, last: EntryId, tail: int) -> None:
        """Read the end of the log; `joined` then returns its last messages."""
        self.stop_reading()
        self._delivery.join(tail)
        self.known_end = last
        self.request = self._changed_log.begin(last, tail + 1)
        self.regressed = False

    def joined(self) -> list[Incoming]:
        """The last messages of the log, when `request` is None after `join`. From here on,
        messages are delivered."""
        return self._delivery.joined()

    # -- what arrives ----------------------------------------------------------------------------

    def event(self, entry: Entry, reads: int = 0) -> None:
        """An entry was appended. `reads`: of the log since it was first seen."""
        if self.request is not None:
            self._keep_event(entry, reads)
            self.known_end = max(self.known_end, entry.id)
            return
        if entry.previous == self.position and entry.id > self.position:
            if self._accept(entry):
                self.known_end = max(self.known_end, entry.id)
                return
        elif reads > 1:
            return  # the log does not have it: the engine has lost it
        elif entry.id > self.position:
            self.request = LogRead(self.position)
        elif (entry.id == self.position and entry.payload == self._end) or self._is_known(entry):
            return
        else:  # an older id that was not read: the log is another one
            self._read_changed_log(entry.id)
        self._keep_event(entry, reads)
        self.known_end = max(self.known_end, entry.id)

    def _keep_event(self, entry: Entry, reads: int) -> None:
        """Look at it again when the log was read."""
        self._events.append((entry, reads))
        del self._events[:-_EVENTS]

    def _is_known(self, entry: Entry) -> bool:
        content = self._codec.decode(entry.payload)
        if isinstance(content, TermStart):
            return content.run in self._runs
        return content is None or self.has_received(content.id)

    def page(self, page: LogPage) -> None:
        """The answer to a `LogRead`."""
        if not isinstance(self.request, LogRead):
            return
        if self._changed_log.is_reading:
            found = self._changed_log.page(page)
            if isinstance(found, LogRead):
                self.request = found
            else:
                self._accept_changed_log(found)
        elif page.last < self.position:
            self._read_changed_log(page.last)
        elif page.entries and not page.truncated and page.start != self.position:
            self._read_changed_log(page.last)
        else:
            self._may_have_holes = self._may_have_holes or page.truncated
            self._page_after_position(page)

    def schema(self, data: bytes | None) -> None:
        """The answer to a `SchemaRead`."""
        if not isinstance(self.request, SchemaRead):
            return
        self._schemas.set_answer(self._missing_schema, data)
        rest, self._rest = self._rest, None
        if rest is None:
            self.request = LogRead(self.position)
        else:
            self._page_after_position(rest)

    def filled(self) -> None:
        """The answer to a `SourceRead`: `deliver_local` was called with what was read. If that
        is not enough, rows are missing."""
        if isinstance(self.request, SourceRead):
            self._is_fill_refused = not self.has_rows_until(self.request.until)
            self.request = LogRead(self.position)

    def compare_end(self, last: EntryId, before: EntryId) -> None:
        """Compare with the end of the log. `before`: `position` when it was asked for."""
        if self.request is not None:
            return
        self.known_end = max(self.known_end, last)
        if last < before:
            self._read_changed_log(last)
        elif last > self.position:
            self.request = LogRead(self.position)

    def reconnected(self) -> None:
        """Events may have been missed, and the engine may have lost entries."""
        if self.request is None:
            self.request = LogRead(self.position)

    def owned_by(self, node: str, term: int) -> None:
        """The answer to `take` has an owner that is not known from the log yet."""
        self.owner, self.term = node, term

    def stop_reading(self) -> None:
        """Need nothing; `join` or `rejoin` begin again."""
        self.request = self._rest = None
        self._is_fill_refused = self._may_have_holes = False
        self._changed_log.stop()
        self._delivery.stop_skipping()
        self._events.clear()

    # -- what was received -----------------------------------------------------------------------

    @property
    def delivered(self) -> Incoming | None:
        """The last message with cursors that was delivered."""
        return self._delivery.delivered

    def has_received(self, id: MessageId) -> bool:
        return self._delivery.has_received(id)

    def has_rows_until(self, cursor: int) -> bool:
        cursors = self._delivery.cursors
        return cursors is not None and cursors.last >= cursor

    # -- of the owner ----------------------------------------------------------------------------

    def message(self, id: MessageId, outgoing: Outgoing, time: int) -> ChannelMessage:
        """The next message of the log."""
        body, hashed = self._schemas.current, self._schemas.hash
        if outgoing.schema is not None and outgoing.schema is not body:
            body, hashed = outgoing.schema, schema_hash(outgoing.schema)
        if hashed == self._tip_schema:
            body = None
        # if it does not name the last one, others see by its cursors what they lack
        before = NO_MESSAGE if self._log_lacks_rows_before(outgoing) else self._tip
        return ChannelMessage(id, before, time, hashed, body, outgoing.cursors, outgoing.payload)

    def _log_lacks_rows_before(self, outgoing: Outgoing) -> bool:
        """Whether this node alone has delivered rows before these: while the engine was away, or in
        entries that the engine has lost and another owner has written otherwise."""
        mine, its = self._delivery.cursors, outgoing.cursors
        logged = self.last and self.last.cursors
        if mine is None or its is None or not logged or logged.epoch != its.epoch:
            return False
        return logged.last < its.prev <= mine.last

    def appended(self, entry: Entry, message: ChannelMessage) -> None:
        """An entry of this node is in the log."""
        if self.request is None and entry.previous == self.position and entry.id > self.position:
            self.position = entry.id
            self.known_end = max(self.known_end, entry.id)
            self._end = entry.payload
            self._accept_message(message, self._tip == self._delivery.last_id)
        elif entry.id > self.position:
            self.event(entry)

    def skipped(self, message: ChannelMessage) -> None:
        """A message will not be in the log. The next one names it, so that others notice."""
        self._tip, self._tip_schema = message.id, 0
        self._delivery.last_id = message.id
        self._kept.drop(message.id)

    def lost_messages(self) -> list[ChannelMessage]:
        """The kept messages that were not found in the log after a loss, when all of it was read,
        in the order in which they have to be appended again."""
        return self._kept.lost

    def again(self, message: ChannelMessage) -> ChannelMessage:
        """A lost message, with its schema if the log does not have it."""
        if message.schema == self._tip_schema or message.schema_body is not None:
            return message
        return structs.replace(message, schema_body=self.schema_of(message))

    def schema_of(self, message: ChannelMessage) -> bytes | None:
        """The schema of a message; None: it has none, or it is not known any more."""
        return self._schemas.of(message)

    # -- without the engine ----------------------------------------------------------------------

    def deliver_local(self, outgoing: Outgoing) -> None:
        """Deliver a message that is not for the log."""
        schemas = self._schemas
        if outgoing.schema is not None and outgoing.schema is not schemas.current:
            schemas.set(schema_hash(outgoing.schema), outgoing.schema)
        message = Incoming(outgoing.payload, schemas.current, outgoing.cursors)
        self._delivery.deliver_local(message)

    def rejoin(self, last: EntryId) -> None:
        """The engine is back: read the log on."""
        self.stop_reading()
        is_new = self.position == START
        skips = self._delivery.rejoin(is_new=is_new)
        if skips or is_new or last < self.position:
            self._read_changed_log(last)
        else:
            self.known_end = last
            self.request = LogRead(self.position)
        self.regressed = False

    # -- the log ---------------------------------------------------------------------------------

    def _read_changed_log(self, last: EntryId) -> None:
        """Read a log whose entries may not be those that were read before."""
        self.regressed = True
        self.known_end = last
        self.request = self._changed_log.begin(last)

    def _accept_changed_log(self, page: LogPage) -> None:
        """Go on with these entries."""
        self.position, self.known_end = page.start, page.last
        self._tip, self._tip_schema = NO_MESSAGE, 0
        self._is_first = self._may_have_holes = True
        self._page_after_position(page)

    def _page_after_position(self, page: LogPage) -> None:
        for index, entry in enumerate(page.entries):
            if not self._accept(entry):
                if isinstance(self.request, SchemaRead):
                    self._rest = page._replace(entries=page.entries[index:])
                return
            if self.ended:
                self.request = None
                return
        self.known_end = max(self.known_end, page.last)
        if page.entries and self.position < self.known_end:
            self.request = LogRead(self.position)
            return
        self._end_of_log_reached()

    def _end_of_log_reached(self) -> None:
        self.request = None
        self._may_have_holes = False
        self.known_end = self.position
        self._delivery.end_reached()
        events, self._events = self._events, []
        for entry, reads in events:
            if entry.id > self.position:
                self.event(entry, reads + 1)

    # -- an entry --------------------------------------------------------------------------------

    def _accept(self, entry: Entry) -> bool:
        """Whether the entry was accepted; otherwise `request` has what to read."""
        content = self._codec.decode(entry.payload)
        if content is None:
            self._accept_unreadable(entry)
            return True
        if isinstance(content, TermStart):
            self._accept_start(entry.id, content)
            return True
        delivery, schemas = self._delivery, self._schemas
        is_contiguous = content.before == self._tip
        if not is_contiguous and not self._may_have_holes and not self._is_first:
            if not delivery.has_received(content.id):
                # ids may be those of a term that the engine has lost, and given out again
                self._read_changed_log(entry.id)
                return False
        if content.schema != schemas.hash and schemas.lacks(content):
            self._missing_schema = content.schema
            self.request = SchemaRead()
            return False
        follows = is_contiguous and self._tip == delivery.last_id
        if not self._is_fill_refused and delivery.lacks_rows_before(content, follows):
            assert content.cursors is not None
            self.request = SourceRead(content.cursors.prev)
            return False
        self._set_position(entry.id)
        self._end = entry.payload
        self._accept_message(content, follows)
        return True

    def _accept_unreadable(self, entry: Entry) -> None:
        self.unreadable += 1
        self._set_position(entry.id)
        # the source must not go on after the message before: its numbers are given
        cursors = None if self.last is None else self.last.cursors
        self.last = Incoming(entry.payload, None, cursors)
        self._reset("an entry of the log cannot be read: it is of another version or key")

    def _accept_start(self, id: EntryId, start: TermStart) -> None:
        self.position = id
        self.term, self.owner = id.term, start.node
        if start.run not in self._runs:
            self._runs.append(start.run)
            del self._runs[:-_STARTS]

    def _set_position(self, id: EntryId) -> None:
        self.position = id
        if id.term > self.term:  # the log has lost its first entry, which names the owner
            self.term, self.owner = id.term, ""

    def _accept_message(self, message: ChannelMessage, follows: bool) -> None:
        """`follows`: it follows the last message that was received."""
        delivery, schemas = self._delivery, self._schemas
        before, self._tip, self._tip_schema = self._tip, message.id, message.schema
        self._is_first = False
        if message.schema != schemas.hash:
            schemas.set(message.schema, message.schema_body)
        incoming = Incoming(message.payload, schemas.current, message.cursors)
        if delivery.has_received(message.id):
            if before == delivery.last_id:  # all of the log up to here was received
                delivery.last_id = message.id
            self._kept.found(message)
            self._set_last(incoming, message.time)
            return
        delivery.add(message, follows)
        self._is_fill_refused = False
        self._kept.add(message)
        self._set_last(incoming, message.time)
        if not message.payload and delivery.is_delivering:
            self.ended = True
        else:
            delivery.receive(incoming)

    def _set_last(self, message: Incoming, time: int) -> None:
        if message.payload:
            self.last = message
        self.last_time = time
