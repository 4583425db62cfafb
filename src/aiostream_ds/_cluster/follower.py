"""The gap rule: events and pages of a log in, each message once and in order out. No I/O.

Notifications are fast and may be missed; the log is the truth. An event is accepted if its entry
follows the last one that was accepted, by its id and by its message. Otherwise the log is read:

    after `position`   entries were missed
    near its end       the log is not the one that was read before: the engine has lost entries;
                       or this reader joins
    from the start     what is near its end does not connect to what was received

A log that is read from the start has messages of the time before this reader came. The first one
that was received is searched for; those before it are older.

Whether a message was received does not depend on the entry in which it is: see `entries`. With
cursors, of a source that can be read again, rows are compared by their cursors.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from msgspec import structs

from aiostream_ds._cluster.engine import LARGEST_NUMBER, START, Entry, EntryId, LogPage
from aiostream_ds._cluster.entries import (
    NO_MESSAGE,
    ChannelMessage,
    EntryCodec,
    MessageId,
    TermStart,
    schema_hash,
)
from aiostream_ds._cluster.kept_messages import KeptMessages
from aiostream_ds._cluster.log_requests import LogRead, SchemaRead, SourceRead
from aiostream_ds._cluster.sharing import Incoming, Outgoing
from aiostream_ds._frames.packet import CursorRange

__all__ = ["LogFollower"]

_PAGE = 256  # entries of a read
_NEAR = 64  # entries before the end of a log, from where one is read that has changed
_STEPS = 8  # entries without a message, after which a log is read from its start
_EVENTS = 64  # events that are kept while the log is read
_RUNS = 512  # runs whose messages are known as received: more than a log has
_STARTS = 64
_SCHEMAS = 4
_GONE = b""  # a schema that nobody has any more: messages that need it are skipped


class _Older(NamedTuple):
    """What a log has before the first message that was received: the run of its last term there,
    and whether it has messages."""

    run: int
    has_messages: bool


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
        delivered: the last message with cursors that was delivered.
        last_time: when its owner has appended it, in milliseconds since the epoch.
        unreadable: entries that were skipped since they cannot be read.
    """

    __slots__ = (
        "_codec",
        "_cursors",
        "_deliver",
        "_end",
        "_events",
        "_has_delivered",
        "_is_after_local",
        "_is_changed",
        "_is_fill_refused",
        "_is_first",
        "_is_near",
        "_is_new_log",
        "_is_skipping",
        "_joined_at",
        "_kept",
        "_last_id",
        "_local_without_cursors",
        "_missing_schema",
        "_received",
        "_reset",
        "_rest",
        "_runs",
        "_schema",
        "_schema_hash",
        "_schemas",
        "_searched",
        "_tail",
        "_tip",
        "_tip_schema",
        "delivered",
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
        self._codec, self._deliver, self._reset = codec, deliver, reset
        self.position = self.known_end = START
        self.term, self.owner = 0, ""
        self.request: LogRead | SchemaRead | SourceRead | None = None
        self.regressed = self.ended = False
        self.last: Incoming | None = None
        self.delivered: Incoming | None = None
        self.last_time = 0
        self.unreadable = 0
        self._tip = NO_MESSAGE  # the last message in the log that was read
        self._last_id = NO_MESSAGE  # the last message that was delivered
        self._received: dict[int, int] = {}  # the highest number of each run
        self._runs: list[int] = []  # of the starts of terms that were read
        self._cursors: CursorRange | None = None  # of what was delivered
        self._schema: bytes | None = None
        self._schema_hash = self._tip_schema = 0
        self._schemas: dict[int, bytes] = {}
        self._missing_schema = 0
        self._rest: LogPage | None = None  # of a page that needs this schema
        self._events: list[tuple[Entry, int]] = []
        self._end = b""  # the payload of the entry at `position`, if it is of a message
        self._kept = KeptMessages()
        self._has_delivered = False
        self._is_new_log = self._is_near = False  # how the log is being read
        self._searched: _Older | None = None  # from the start, for a message that was received
        self._joined_at = START  # what was before is older than this reader
        self._is_changed = False  # the log that is read: a hole is not a reason to read it again
        self._is_first = False  # whether no message of this log was read
        self._is_skipping = self._is_fill_refused = self._is_after_local = False
        self._local_without_cursors = False
        self._tail: deque[Incoming] | None = None

    # -- at first --------------------------------------------------------------------------------

    def join(self, last: EntryId, tail: int) -> None:
        """Read the end of the log; `joined` then returns its last messages."""
        self.stop_reading()
        self._tail = deque(maxlen=tail)
        self.known_end = last
        self._read_changed_log(last, tail + 1)
        self.regressed = False

    def joined(self) -> list[Incoming]:
        """The last messages of the log, when `request` is None after `join`. From here on,
        messages are delivered."""
        tail, self._tail = self._tail, None
        return list(tail or ())

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
            self.request = LogRead(self.position, _PAGE)
        elif (entry.id == self.position and entry.payload == self._end) or self._is_known(entry):
            return
        else:  # an older id that was not read: the log is another one
            self._read_changed_log(entry.id, _NEAR)
        self._keep_event(entry, reads)
        self.known_end = max(self.known_end, entry.id)

    def _keep_event(self, entry: Entry, reads: int) -> None:
        """Look at it again when the log was read."""
        self._events.append((entry, reads))
        del self._events[:-_EVENTS]

    def page(self, page: LogPage) -> None:
        """The answer to a `LogRead`."""
        request = self.request
        if not isinstance(request, LogRead):
            return
        if self._is_new_log:
            self._page_of_changed_log(page)
        elif page.last < self.position:
            self.regressed = True
            self._read_changed_log(page.last, _NEAR)
        elif page.entries and not page.truncated and page.entries[0].previous != self.position:
            self._read_changed_log(page.last, _NEAR)
        else:
            self._is_changed = self._is_changed or page.truncated
            self._page_after_position(page)

    def schema(self, data: bytes | None) -> None:
        """The answer to a `SchemaRead`."""
        if not isinstance(self.request, SchemaRead):
            return
        if data is not None:
            self._remember_schema(data)
        if self._missing_schema not in self._schemas:
            self._schemas[self._missing_schema] = _GONE
        rest, self._rest = self._rest, None
        if rest is None:
            self.request = LogRead(self.position, _PAGE)
        else:
            self._page_after_position(rest)

    def filled(self) -> None:
        """The answer to a `SourceRead`: `deliver_local` was called with what was read. If that
        is not enough, rows are missing."""
        if isinstance(self.request, SourceRead):
            self._is_fill_refused = not self.has_rows_until(self.request.until)
            self.request = LogRead(self.position, _PAGE)

    def has_rows_until(self, cursor: int) -> bool:
        return self._cursors is not None and self._cursors.last >= cursor

    def compare_end(self, last: EntryId, before: EntryId) -> None:
        """Compare with the end of the log. `before`: `position` when it was asked for."""
        if self.request is not None:
            return
        self.known_end = max(self.known_end, last)
        if last < before:
            self.regressed = True
            self._read_changed_log(last, _NEAR)
        elif last > self.position:
            self.request = LogRead(self.position, _PAGE)

    def reconnected(self) -> None:
        """Events may have been missed, and the engine may have lost entries."""
        if self.request is None:
            self.request = LogRead(self.position, _PAGE)

    def owned_by(self, node: str, term: int) -> None:
        """The answer to `take` has an owner that is not known from the log yet."""
        self.owner, self.term = node, term

    def stop_reading(self) -> None:
        """Need nothing; `join` or `rejoin` begin again."""
        self.request = self._rest = None
        self._is_fill_refused = False
        self._is_new_log = self._is_near = self._is_changed = self._is_skipping = False
        self._searched = None
        self._events.clear()

    # -- of the owner ----------------------------------------------------------------------------

    def message(self, id: MessageId, outgoing: Outgoing, time: int) -> ChannelMessage:
        """The next message of the log."""
        body, hashed = self._schema, self._schema_hash
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
        mine, its, logged = self._cursors, outgoing.cursors, self.last and self.last.cursors
        if mine is None or its is None or not logged or logged.epoch != its.epoch:
            return False
        return logged.last < its.prev <= mine.last

    def appended(self, entry: Entry, message: ChannelMessage) -> None:
        """An entry of this node is in the log."""
        if self.request is None and entry.previous == self.position and entry.id > self.position:
            self.position = entry.id
            self.known_end = max(self.known_end, entry.id)
            self._end = entry.payload
            self._accept_message(message, is_contiguous=True)
        elif entry.id > self.position:
            self.event(entry)

    def skipped(self, message: ChannelMessage) -> None:
        """A message will not be in the log. The next one names it, so that others notice."""
        self._tip, self._tip_schema = message.id, 0
        self._last_id = message.id
        self._kept.drop(message.id)

    def has_received(self, id: MessageId) -> bool:
        return id.number <= self._received.get(id.run, 0)

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
        return message.schema_body or self._schemas.get(message.schema) or None

    # -- without the engine ----------------------------------------------------------------------

    def deliver_local(self, outgoing: Outgoing) -> None:
        """Deliver a message that is not for the log."""
        if outgoing.schema is not None and outgoing.schema is not self._schema:
            self._set_schema(schema_hash(outgoing.schema), outgoing.schema)
        self._is_after_local = True
        if outgoing.cursors is None and self._cursors is None:
            self._local_without_cursors = True
        self._deliver_new(outgoing.payload, outgoing.cursors)

    def rejoin(self, last: EntryId) -> None:
        """The engine is back: read the log on."""
        self.stop_reading()
        self.known_end = last
        if self._local_without_cursors or (self.position == START and self._cursors is None):
            self._is_skipping = True
            self._read_changed_log(last, _NEAR)
        elif last < self.position or self.position == START:
            self._read_changed_log(last, _NEAR)
        else:
            self.request = LogRead(self.position, _PAGE)
        self.regressed = False

    # -- the log ---------------------------------------------------------------------------------

    def _read_changed_log(self, last: EntryId, near: int) -> None:
        """Read a log whose entries may not be those that were read before: so many before the last
        one."""
        self._is_new_log = self.regressed = True
        self.known_end = last
        self._read_before(last, near)

    def _read_before(self, last: EntryId, near: int) -> None:
        """Read a log near its end, or from its start if the last term is short. Who joins, and
        wants one message only, reads the last term then."""
        after = START
        if last.number > near:
            after = EntryId(last.term, last.number - near)
        elif last > START and self._tail is not None and self._tail.maxlen == 1:
            after = EntryId(last.term - 1, LARGEST_NUMBER)
        if after > START:
            self._is_near = True
            self.request = LogRead(after, _PAGE)
        else:
            self._read_from_start()

    def _read_from_start(self) -> None:
        self._is_near = False
        self._searched = _Older(0, False) if self._received else None
        self.request = LogRead(START, _PAGE)

    def _page_of_changed_log(self, page: LogPage) -> None:
        if self._is_near and self._needs_earlier(page):
            self._read_earlier(page)
        elif self._searched is None:
            self._accept_changed_log(page)
        else:
            self._search(self._searched, page)

    def _read_earlier(self, page: LogPage) -> None:
        """The end of the log has no message, or none that connects to what was received."""
        before = page.entries[0].previous if page.entries else START
        is_joining = self._tail is not None and len(page.entries) < _STEPS
        if is_joining and before > START and not page.truncated:
            self._read_before(before, 1)
        else:
            self._read_from_start()

    def _search(self, older: "_Older", page: LogPage) -> None:
        """Go on with the first message that was received before."""
        for index, entry in enumerate(page.entries):
            content = self._codec.decode(entry.payload)
            if isinstance(content, TermStart):
                self._accept_start(entry.id, content)
                older = older._replace(run=content.run)
            elif content is not None and self.has_received(content.id):
                if older.has_messages and content.id.run != older.run:
                    # it was appended again, so that those before it may be new
                    self._may_have_missed_some()
                self._accept_changed_log(page._replace(entries=page.entries[index:]))
                return
            elif content is not None:
                older = older._replace(has_messages=True)
        if not page.is_end:
            self._searched = older
            self.request = LogRead(page.entries[-1].id, _PAGE)
        else:
            self._accept_other_log(older.has_messages)

    def _accept_other_log(self, has_messages: bool) -> None:
        """Nothing that was received is in the log: read what has come since this reader joined."""
        if not has_messages:
            self._kept.doubt(None)
        else:
            self._kept.forget()  # other readers see, too, that it is another log
            if self._joined_at > START:
                self._may_have_missed_some()
        self._searched = None
        self.request = LogRead(self._joined_at, _PAGE)

    def _may_have_missed_some(self) -> None:
        if self._cursors is None and self._has_delivered and not self._is_skipping:
            self._has_delivered = False  # the next message has nothing to follow
            self._reset("the log has changed: messages in it may not have been received")

    def _accept_changed_log(self, page: LogPage) -> None:
        self._is_new_log = self._is_near = False
        self._searched = None
        self.position = page.entries[0].previous if page.entries else page.last
        if not self._received:
            self._joined_at = self.position
        self.known_end = page.last
        self._tip, self._tip_schema = NO_MESSAGE, 0
        self._is_first = True
        for entry in page.entries:
            content = self._codec.decode(entry.payload)
            if isinstance(content, ChannelMessage) and self.has_received(content.id):
                self._kept.doubt(content.id)
                break
        self._is_changed = True
        self._page_after_position(page)

    def _needs_earlier(self, page: LogPage) -> bool:
        """Whether the end of a log does not connect to what was received."""
        for entry in page.entries:
            content = self._codec.decode(entry.payload)
            if isinstance(content, ChannelMessage):
                if self._tail is not None or self._is_skipping or not self._has_delivered:
                    return False
                return not self.has_received(content.id) and self._is_hole(content)
        return True

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
            self.request = LogRead(self.position, _PAGE)
            return
        self._end_of_log_reached()

    def _end_of_log_reached(self) -> None:
        self.request = None
        self._is_changed = False
        self.known_end = self.position
        if self._is_skipping:
            self._is_skipping = False
            if self._local_without_cursors:
                self._local_without_cursors = False
                self._reset("the engine was away: this node had an upstream of its own")
        events, self._events = self._events, []
        for entry, reads in events:
            if entry.id > self.position:
                self.event(entry, reads + 1)

    def _is_known(self, entry: Entry) -> bool:
        content = self._codec.decode(entry.payload)
        if isinstance(content, TermStart):
            return content.run in self._runs
        return content is None or self.has_received(content.id)

    def _accept(self, entry: Entry) -> bool:
        """Whether the entry was accepted; otherwise `request` has what to read."""
        content = self._codec.decode(entry.payload)
        if content is None:
            self.unreadable += 1
            self._set_position(entry.id)
            # the source must not go on after the message before: its numbers are given
            cursors = None if self.last is None else self.last.cursors
            self.last = Incoming(entry.payload, None, cursors)
            self._reset("an entry of the log cannot be read: it is of another version or key")
            return True
        if isinstance(content, TermStart):
            self._accept_start(entry.id, content)
            return True
        is_contiguous = content.before == self._tip
        may_skip = self._is_changed or self._is_first or self.has_received(content.id)
        if not is_contiguous and not may_skip:
            # ids may be those of a term that the engine has lost, and given out again
            self._read_changed_log(entry.id, _NEAR)
            return False
        if content.schema not in (0, self._schema_hash) and content.schema_body is None:
            if content.schema not in self._schemas:
                self._missing_schema = content.schema
                self.request = SchemaRead()
                return False
        if not self._is_fill_refused and self._lacks_rows_before(content, is_contiguous):
            assert content.cursors is not None
            self.request = SourceRead(content.cursors.prev)
            return False
        self._set_position(entry.id)
        self._end = entry.payload
        self._accept_message(content, is_contiguous=is_contiguous)
        return True

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

    def _accept_message(self, message: ChannelMessage, *, is_contiguous: bool) -> None:
        before, self._tip, self._tip_schema = self._tip, message.id, message.schema
        self._is_first = False
        if message.schema != self._schema_hash:
            self._set_schema(message.schema, message.schema_body)
        has_all = before == self._last_id  # of the log up to here
        if self.has_received(message.id):
            if has_all:
                self._last_id = message.id
            self._kept.found(message)
            self._set_last(message)
            return
        if self._is_missing_some(message, is_contiguous and has_all):
            self._reset("entries of the log were removed or lost before they were received")
        self._is_after_local = self._is_fill_refused = False
        self._set_received(message.id)
        self._kept.add(message)
        self._set_last(message)
        if self._tail is not None or self._is_skipping:
            self._pass(Incoming(message.payload, self._schema, message.cursors))
        elif not message.payload:
            self.ended = True
        elif self._schema is _GONE:
            if _rows_after(self._cursors, Incoming(b"", None, message.cursors)) is not None:
                self._reset("the schema of a message is gone")
        else:
            self._deliver_new(message.payload, message.cursors)

    def _pass(self, message: Incoming) -> None:
        """Count a message as delivered, and keep it for `joined`, if that is still to come, without
        the rows that the log had before: an entry that was written again after a loss may come
        after later ones."""
        self._has_delivered = True
        fresh = _rows_after(self._cursors, message)
        if fresh is None:
            return
        has_rows = bool(message.payload) and message.schema is not _GONE
        if self._tail is not None:
            if _is_apart(self._cursors, message.cursors) or message.schema is _GONE:
                self._tail.clear()
            if has_rows:
                self._tail.append(fresh)
        self._cursors = message.cursors or self._cursors
        if has_rows and message.cursors:
            self.delivered = fresh

    def _lacks_rows_before(self, message: ChannelMessage, is_contiguous: bool) -> bool:
        """Whether rows before a message are missing that the source may have."""
        mine, its = self._cursors, message.cursors
        if mine is None or its is None or mine.epoch != its.epoch or its.prev <= mine.last:
            return False
        follows = is_contiguous and self._tip == self._last_id
        return not self.has_received(message.id) and self._is_missing_some(message, follows)

    def _is_missing_some(self, message: ChannelMessage, follows: bool) -> bool:
        """Whether messages were missed before this one. `follows`: it follows the last one of the
        log that was delivered."""
        is_new = self._has_delivered and not self._is_skipping and self._tail is None
        follows = follows and not self._is_after_local
        return is_new and not follows and self._is_hole(message)

    def _is_hole(self, message: ChannelMessage) -> bool:
        """Whether messages before this one were missed, of a message that was not received."""
        mine, its = self._cursors, message.cursors
        if mine is not None and its is not None and mine.epoch == its.epoch:
            return its.prev > mine.last
        return message.before != self._last_id or message.before == NO_MESSAGE

    def _deliver_new(self, payload: bytes, cursors: CursorRange | None) -> None:
        """Deliver what of a payload was not delivered yet."""
        self._has_delivered = True
        incoming = _rows_after(self._cursors, Incoming(payload, self._schema, cursors))
        if incoming is not None:
            if cursors is not None:
                self._cursors, self.delivered = cursors, incoming
            self._deliver(incoming)

    def _set_last(self, message: ChannelMessage) -> None:
        if message.payload:
            self.last = Incoming(message.payload, self._schema, message.cursors)
        self.last_time = message.time

    def _set_received(self, id: MessageId) -> None:
        self._last_id = id
        if id.run not in self._received and len(self._received) >= _RUNS:
            del self._received[next(iter(self._received))]
        self._received[id.run] = id.number

    # -- schemas ---------------------------------------------------------------------------------

    def _set_schema(self, hashed: int, body: bytes | None) -> None:
        self._schema_hash = hashed
        if not hashed:
            self._schema = None
            return
        if body is not None:
            self._remember_schema(body)
        self._schema = self._schemas.get(hashed, _GONE)

    def _remember_schema(self, body: bytes) -> None:
        if len(self._schemas) >= _SCHEMAS:
            del self._schemas[next(iter(self._schemas))]
        self._schemas[schema_hash(body)] = body


def _rows_after(mine: CursorRange | None, message: Incoming) -> Incoming | None:
    """A message without the rows up to a cursor; None: it has no others."""
    its = message.cursors
    if mine is None or its is None or mine.epoch != its.epoch or its.prev >= mine.last:
        return message
    if its.last <= mine.last:
        return None
    return message._replace(after=mine.last)


def _is_apart(mine: CursorRange | None, its: CursorRange | None) -> bool:
    """Whether rows between two messages are missing."""
    if mine is None or its is None:
        return False
    return mine.epoch != its.epoch or its.prev > mine.last
