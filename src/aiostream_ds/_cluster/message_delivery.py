"""Which messages a node has received, and what of the next one its subscribers get: each row once.

Whether a message was received does not depend on the entry in which it is: see `entries`. With
cursors, of a source that can be read again, rows are compared by their cursors.
"""

from collections import deque
from collections.abc import Callable

from aiostream_ds._cluster.entries import NO_MESSAGE, ChannelMessage, MessageId
from aiostream_ds._cluster.known_schemas import GONE
from aiostream_ds._cluster.sharing import Incoming
from aiostream_ds._frames.packet import CursorRange

__all__ = ["MessageDelivery"]

_RUNS = 512  # runs whose messages are known as received: more than a log has


class MessageDelivery:
    """Delivers the messages of a log, and those of an upstream of this node's own.

    Messages are delivered at once, but from `join` to `joined` the newest ones are kept, and after
    `rejoin` those up to the end of the log may be skipped.

    Args:
        deliver: called with each message.
        reset: called with the reason if messages are missing before the next one.

    Attributes:
        last_id: the message of the log that the next one has to follow.
        cursors: of what was delivered, kept or skipped.
        delivered: the last message with cursors that was delivered.
    """

    __slots__ = (
        "_deliver",
        "_has_delivered",
        "_is_after_local",
        "_is_skipping",
        "_local_without_cursors",
        "_received",
        "_reset",
        "_tail",
        "cursors",
        "delivered",
        "last_id",
    )

    def __init__(self, deliver: Callable[[Incoming], None], reset: Callable[[str], None]) -> None:
        self._deliver, self._reset = deliver, reset
        self.last_id = NO_MESSAGE
        self.cursors: CursorRange | None = None
        self.delivered: Incoming | None = None
        self._received: dict[int, int] = {}  # the highest number of each run
        self._tail: deque[Incoming] | None = None
        self._has_delivered = False  # a message that the next one has to follow
        self._is_skipping = self._is_after_local = False
        self._local_without_cursors = False

    # -- from the start, and after an outage -----------------------------------------------------

    def join(self, tail: int) -> None:
        """Keep the newest messages from now on, at most so many."""
        self._tail = deque(maxlen=tail)

    def joined(self) -> list[Incoming]:
        """What was kept. From now on messages are delivered."""
        tail, self._tail = self._tail, None
        return list(tail or ())

    def rejoin(self, *, is_new: bool) -> bool:
        """Go on after an outage. Returns whether the messages up to the end of the log are skipped,
        since nothing shows which were received. `is_new`: the log was never read."""
        self._is_skipping = self._local_without_cursors or (is_new and self.cursors is None)
        return self._is_skipping

    def stop_skipping(self) -> None:
        """The log is not read on now: `rejoin` follows."""
        self._is_skipping = False

    def end_reached(self) -> None:
        """The log was read to its end."""
        if self._is_skipping:
            self._is_skipping = False
            if self._local_without_cursors:
                self._local_without_cursors = False
                self._reset("the engine was away: this node had an upstream of its own")

    @property
    def is_joining(self) -> bool:
        """Whether messages are kept for `joined`."""
        return self._tail is not None

    @property
    def needs_newest_only(self) -> bool:
        """Whether it is one message that is kept."""
        return self._tail is not None and self._tail.maxlen == 1

    @property
    def is_delivering(self) -> bool:
        """Whether messages are delivered, not kept or skipped."""
        return self._tail is None and not self._is_skipping

    # -- what was received -----------------------------------------------------------------------

    @property
    def has_received_some(self) -> bool:
        return bool(self._received)

    def has_received(self, id: MessageId) -> bool:
        return id.number <= self._received.get(id.run, 0)

    def connects(self, message: ChannelMessage) -> bool:
        """Whether a log may be read from this message on."""
        if not self._has_delivered or not self.is_delivering or self.has_received(message.id):
            return True
        return not self._is_hole(message)

    def lacks_rows_before(self, message: ChannelMessage, follows: bool) -> bool:
        """Whether rows before a message are missing that the source may have. `follows`: see
        `add`."""
        mine, its = self.cursors, message.cursors
        if mine is None or its is None or mine.epoch != its.epoch or its.prev <= mine.last:
            return False
        return not self.has_received(message.id) and self._is_missing_some(message, follows)

    def _is_missing_some(self, message: ChannelMessage, follows: bool) -> bool:
        if follows and not self._is_after_local:
            return False
        return self._has_delivered and self.is_delivering and self._is_hole(message)

    def _is_hole(self, message: ChannelMessage) -> bool:
        """Whether messages before this one were missed, of a message that was not received."""
        mine, its = self.cursors, message.cursors
        if mine is not None and its is not None and mine.epoch == its.epoch:
            return its.prev > mine.last
        return message.before != self.last_id or message.before == NO_MESSAGE

    def may_have_missed_some(self) -> None:
        """The log has changed: there may be messages in it that were not received, and that are not
        known by their cursors."""
        if self.cursors is None and self._has_delivered and not self._is_skipping:
            self._has_delivered = False  # the next message has nothing to follow
            self._reset("the log has changed: messages in it may not have been received")

    # -- the next message ------------------------------------------------------------------------

    def add(self, message: ChannelMessage, follows: bool) -> None:
        """Count a message as received that was not yet, and report what is missing before it.

        Args:
            message: the next one.
            follows: whether it follows `last_id` in the log.
        """
        if self._is_missing_some(message, follows):
            self._reset("entries of the log were removed or lost before they were received")
        self._is_after_local = False
        id = self.last_id = message.id
        if id.run not in self._received and len(self._received) >= _RUNS:
            del self._received[next(iter(self._received))]
        self._received[id.run] = id.number

    def receive(self, message: Incoming) -> None:
        """Deliver a message that was counted by `add`, or keep or skip it."""
        if self._tail is not None or self._is_skipping:
            self._pass(message)
        elif message.schema is not GONE:
            self._deliver_new(message)
        elif _rows_after(self.cursors, message) is not None:
            self._reset("the schema of a message is gone")

    def deliver_local(self, message: Incoming) -> None:
        """Deliver a message that is not of the log."""
        self._is_after_local = True
        if message.cursors is None and self.cursors is None:
            self._local_without_cursors = True
        self._deliver_new(message)

    def _deliver_new(self, message: Incoming) -> None:
        """Deliver what of a message was not delivered yet."""
        self._has_delivered = True
        fresh = _rows_after(self.cursors, message)
        if fresh is not None:
            if fresh.cursors is not None:
                self.cursors, self.delivered = fresh.cursors, fresh
            self._deliver(fresh)

    def _pass(self, message: Incoming) -> None:
        """Count a message as delivered, and keep it for `joined`, if that is still to come, without
        the rows that the log had before: an entry that was written again after a loss may come
        after later ones."""
        self._has_delivered = True
        fresh = _rows_after(self.cursors, message)
        if fresh is None:
            return
        has_rows = bool(message.payload) and message.schema is not GONE
        if self._tail is not None:
            if _is_apart(self.cursors, message.cursors) or message.schema is GONE:
                self._tail.clear()
            if has_rows:
                self._tail.append(fresh)
        self.cursors = message.cursors or self.cursors
        if has_rows and message.cursors:
            self.delivered = fresh


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
