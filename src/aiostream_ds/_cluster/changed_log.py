"""From where a log is read that may not be the one that was read before. No I/O.

It is read near its end. If the first message there does not connect to what was received, it is
read from its start, where it has messages of the time before this reader came. The first one that
was received is searched for; those before it are older.
"""

from collections.abc import Callable, Generator

from aiostream_ds._cluster.engine import LARGEST_NUMBER, START, EntryId, LogPage
from aiostream_ds._cluster.entries import ChannelMessage, EntryCodec, TermStart
from aiostream_ds._cluster.kept_messages import KeptMessages
from aiostream_ds._cluster.log_requests import LogRead
from aiostream_ds._cluster.message_delivery import MessageDelivery

__all__ = ["ChangedLog"]

_NEAR = 64  # entries before the end of a log, from where it is read
_STEPS = 8  # entries without a message, after which a log is read from its start

_Steps = Generator[LogRead, LogPage, LogPage]  # what to read, its answer, and the result


class ChangedLog:
    """Reads a log up to the entries with which its reader goes on.

    Args:
        codec: decodes entries.
        delivery: what was received.
        kept: what the engine may have lost.
        on_start: called with each start of a term among the entries that are older.
    """

    __slots__ = ("_codec", "_delivery", "_joined_at", "_kept", "_on_start", "_steps")

    def __init__(
        self,
        codec: EntryCodec,
        delivery: MessageDelivery,
        kept: KeptMessages,
        on_start: Callable[[EntryId, TermStart], None],
    ) -> None:
        self._codec, self._delivery, self._kept = codec, delivery, kept
        self._on_start = on_start
        self._joined_at = START  # what was before is older than this reader
        self._steps: _Steps | None = None

    @property
    def is_reading(self) -> bool:
        """Whether `page` gets the answer to a `LogRead`."""
        return self._steps is not None

    def begin(self, last: EntryId, near: int = _NEAR) -> LogRead:
        """What to read first: as a rule so many entries before the last one."""
        self._steps = self._read(last, near)
        return next(self._steps)

    def page(self, page: LogPage) -> LogRead | LogPage:
        """What to read next; or the entries with which the reader goes on, and the reading has
        ended."""
        assert self._steps is not None
        try:
            return self._steps.send(page)
        except StopIteration as ended:
            self._steps = None
            found: LogPage = ended.value
            return found

    def stop(self) -> None:
        """There will not be an answer."""
        self._steps = None

    def _read(self, last: EntryId, near: int) -> _Steps:
        page = yield from self._find(last, near)
        if not self._delivery.has_received_some:
            self._joined_at = page.start
        for entry in page.entries:
            content = self._codec.decode(entry.payload)
            if isinstance(content, ChannelMessage) and self._delivery.has_received(content.id):
                self._kept.doubt(content.id)
                break
        return page

    def _find(self, last: EntryId, near: int) -> _Steps:
        """Read near the end, and from the start if that does not connect to what was received."""
        while (after := self._near_end(last, near)) > START:
            page = yield LogRead(after)
            if not self._needs_earlier(page):
                return page
            if not self._delivery.is_joining or len(page.entries) >= _STEPS or page.truncated:
                break
            last, near = page.entries[0].previous if page.entries else START, 1
        if self._delivery.has_received_some:
            return (yield from self._search())
        return (yield LogRead(START))

    def _near_end(self, last: EntryId, near: int) -> EntryId:
        """After which entry to read; START if the last term is short. Who joins, and wants one
        message only, reads the last term then."""
        if last.number > near:
            return EntryId(last.term, last.number - near)
        if last > START and self._delivery.needs_newest_only:
            return EntryId(last.term - 1, LARGEST_NUMBER)
        return START

    def _needs_earlier(self, page: LogPage) -> bool:
        """Whether these have no message, or none that connects to what was received."""
        for entry in page.entries:
            content = self._codec.decode(entry.payload)
            if isinstance(content, ChannelMessage):
                return not self._delivery.connects(content)
        return True

    def _search(self) -> _Steps:
        """Find the first message that was received before; else go on from where this reader has
        joined."""
        run, has_older = 0, False  # of the last term, and whether there is an older message
        after = START
        while True:
            page = yield LogRead(after)
            for index, entry in enumerate(page.entries):
                content = self._codec.decode(entry.payload)
                if isinstance(content, TermStart):
                    self._on_start(entry.id, content)
                    run = content.run
                elif content is not None and self._delivery.has_received(content.id):
                    if has_older and content.id.run != run:
                        # it was appended again, so that those before it may be new
                        self._delivery.may_have_missed_some()
                    return page._replace(entries=page.entries[index:])
                elif content is not None:
                    has_older = True
            if page.is_end:
                break
            after = page.entries[-1].id
        if not has_older:
            self._kept.doubt(None)
        else:
            self._kept.forget()  # other readers see, too, that it is another log
            if self._joined_at > START:
                self._delivery.may_have_missed_some()
        return (yield LogRead(self._joined_at))
