"""Whether the logs of all channels in an engine show one writer in each term."""

from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any, cast

from aiostream_ds._cluster.cluster_settings import cluster_access, cluster_settings
from aiostream_ds._cluster.engine import START, Engine, Entry
from aiostream_ds._cluster.entries import ChannelMessage, EntryCodec, TermStart

__all__ = ["check_logs"]

_PAGE = 250


async def check_logs(url: str) -> Counter[str]:
    """Count the terms and messages of all logs.

    Raises AssertionError if an entry does not follow the one before, or is of another writer than
    the first entry of its term.
    """
    settings = cluster_settings({"GF_PLUGIN_CLUSTER_URL": url})
    assert settings is not None
    engine = cast("Any", cluster_access(settings).engine)
    counts: Counter[str] = Counter()
    try:
        await engine.open_to_look()
        for channel in (await engine.overview()).channels:
            log = _Log(channel.channel)
            async for entry in _entries(engine, channel.channel):
                log.check(entry)
            counts.update(channels=1, terms=log.terms, messages=log.messages, again=log.again)
    finally:
        await engine.aclose()
    return counts


async def _entries(engine: Engine, channel: str) -> AsyncGenerator[Entry, None]:
    after = START
    while True:
        page = await engine.read(channel, after, _PAGE)
        for entry in page.entries:
            yield entry
        if page.is_end:
            return
        after = page.entries[-1].id


class _Log:
    """The entries of a log, oldest first. The first ones may have been removed.

    Attributes:
        again: messages of earlier terms that were written again, since the engine had lost them.
    """

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._before: Entry | None = None
        self._run = self._number = 0  # of the term, if its first entry was read
        self._runs: set[int] = set()
        self.terms = self.messages = self.again = 0
        self._decode = EntryCodec().decode

    def check(self, entry: Entry) -> None:
        """The next entry. Raises AssertionError."""
        where = f"{self._channel}: {tuple(entry.id)}"
        if self._before is not None:
            assert entry.previous == self._before.id < entry.id, f"{where}: {entry.previous}"
            if entry.id.term != self._before.id.term:
                self._run = 0
        self._before = entry
        content = self._decode(entry.payload)
        if isinstance(content, TermStart):
            assert entry.id.number == 0, f"{where}: a second first entry"
            assert content.run not in self._runs, f"{where}: the identity of another term"
            self._run, self._number = content.run, 0
            self._runs.add(content.run)
            self.terms += 1
            return
        assert content is not None, f"{where}: it cannot be read"
        self.messages += 1
        self._check_message(where, entry, content)

    def _check_message(self, where: str, entry: Entry, message: ChannelMessage) -> None:
        run, number = message.id
        if not self._run:  # the first entry of this term was removed
            assert not self.terms, f"{where}: a term without its first entry"
            self._runs.add(run)
        elif run == self._run:
            assert number == self._number + 1, f"{where}: {number} after {self._number}"
            self._number = number
        else:
            self.again += 1
            assert entry.id.number > 0 and run in self._runs, f"{where}: of an unknown writer"
