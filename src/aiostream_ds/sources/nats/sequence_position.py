"""Where a reader is in a stream, and what was removed before it was read.

The sequences of a stream have no gaps when they are given. A gap in those that are read is of
messages that were removed, unless only some subjects are read, or the stream keeps only the newest
messages of each subject or is a mirror: then only what the first message shows is known.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aiostream_ds.sources.nats.jetstream_api import StreamFacts
from aiostream_ds.sources.nats.ordered_consumer import StreamMessage

__all__ = ["BEGINNING", "SequenceChange", "SequencePosition", "StreamPart"]

BEGINNING = 0
"""Before the first message of a stream."""


class SequenceChange(NamedTuple):
    """What a comparison with the stream has found. Messages up to `upto` are not read.

    `lost`: how many were removed before they were read; None if it is not known. `restart`: how the
    numbering restarts: "new" if the stream is another one than before, "shorter" if its newest
    messages are gone, "found" if there was none before; "" if it goes on.
    """

    upto: int
    lost: int | None = None
    restart: str = ""


class StreamPart(NamedTuple):
    """Messages in order. `change` comes before them; `is_missing`: there is no stream (yet)."""

    messages: Sequence[StreamMessage] = ()
    change: SequenceChange | None = None
    is_missing: bool = False


class SequencePosition:
    """Where a reader is in one stream.

    Attributes:
        created: when the stream was created; empty if there was none.
        last: the sequence of the last message that was read, or after which reading began.
        complete: up to which sequence nothing of the filter is unread; at least `last`.
        has_filter: whether only some subjects are read.
    """

    __slots__ = ("_checked", "_is_numbered", "complete", "created", "has_filter", "last")

    def __init__(self, created: str, last: int, *, has_filter: bool) -> None:
        self.created = created
        self.last = self.complete = max(last, BEGINNING)
        self.has_filter = has_filter
        self._is_numbered = not has_filter
        self._checked: int | None = None

    def begin(self, facts: StreamFacts) -> SequenceChange | None:
        """Compare with the stream before it is read; the position moves after what is gone. None:
        nothing has changed."""
        self._is_numbered = not (self.has_filter or facts.has_gaps)
        self._checked = None
        if facts.created != self.created:
            restart = "new" if self.created else "found"
            self.created = facts.created
            self._move(facts.first - 1)
            return SequenceChange(self.last, restart=restart)
        if facts.last < max(self.last, self.complete):
            self._move(facts.last)
            return SequenceChange(self.last, restart="shorter")
        missing = facts.first - 1 - max(self.last, self.complete)
        if missing <= 0:
            return None
        self._move(facts.first - 1)
        return SequenceChange(self.last, missing if self._is_numbered else None)

    def _move(self, last: int) -> None:
        self.last = self.complete = max(last, BEGINNING)

    def read(self, messages: Sequence[StreamMessage]) -> Iterator[StreamPart]:
        """The messages, divided where others between them were removed."""
        start = 0
        for index, message in enumerate(messages):
            missing = message.sequence - 1 - max(self.last, self.complete)
            if missing > 0 and self._is_numbered:
                if index > start:
                    yield StreamPart(messages[start:index])
                yield StreamPart(change=SequenceChange(message.sequence - 1, missing))
                start = index
            self._move(message.sequence)
        if start < len(messages):
            yield StreamPart(messages[start:])

    def check(self, facts: StreamFacts) -> None:
        """The stream was like this before the next pull begins."""
        self._checked = facts.last

    def reached_end(self) -> None:
        """A pull has ended because there were no more messages."""
        if self._checked is not None:
            self.complete = max(self.complete, self._checked)
            self._checked = None
