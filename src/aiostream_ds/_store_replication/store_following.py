"""How a store follows the log that several servers share: what it applies, and where its place is.

Entries that continue the chain are stored; others are void. After a start, a lost connection, or
losses of the engine the store is compared with the log: it goes on where it was, goes back to the
last common entry, or is filled from another server.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

from aiostream_ds._cluster.engine import START, Appended, Entry, EntryId, Event, Reconnected
from aiostream_ds._cluster.message_cipher import UnreadableMessage
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_requests import NodeRequests
from aiostream_ds._loggers import get_logger
from aiostream_ds._store_replication.store_chain import META, StoreChain, StoreLink
from aiostream_ds._store_replication.store_entries import (
    NO_TAG,
    StoreEntry,
    StoreEntryCodec,
    new_tag,
)
from aiostream_ds._store_replication.store_filling import StoreFiller, other_history
from aiostream_ds._store_replication.store_places import (
    Place,
    before,
    line_from,
    overlap,
    place_of,
    successor_of,
    without_void,
)
from aiostream_ds._store_replication.store_recovery import recovered_batches
from aiostream_ds._store_replication.store_writing import RECOVERED, EntryWriter
from aiostream_ds._store_replication.void_entries import SHARED_OWNER, VoidEntries
from aiostream_ds.stores.sqlite_store import SqliteStore
from aiostream_ds.stores.sqlite_writer import ReplicaBatch

__all__ = ["ReadEntry", "StoreFollower"]

log = get_logger(__name__)

_PAGE = 100  # entries that are read at once, and applied in one transaction
_WARNED = 1_000  # entries that cannot be read, and are not reported again


class ReadEntry(NamedTuple):
    """An entry and what it has; None: it cannot be read."""

    entry: Entry
    content: StoreEntry | None


class StoreFollower:
    """Keeps a store where the log is.

    Args:
        name: of the channel in the engine.
        store: opened by the caller.
        node: this process in the cluster.
        requests: those to and from other nodes.
        codec: of the entries.
        writer: writes the rows again that the log has lost.

    Attributes:
        chain, lasts: what the store has: its entries, and the last cursor of each channel.
        seen: the last entry of the log that was looked at.
        must_link: compare the store with the whole log.
        must_read: the log has entries after `seen`.
        void: the decisions of the log.
        filler: asks other servers for what this one lacks, and answers them.
    """

    def __init__(
        self,
        name: str,
        store: SqliteStore,
        node: ClusterNode,
        requests: NodeRequests,
        codec: StoreEntryCodec,
        writer: EntryWriter,
    ) -> None:
        self.name, self.store = name, store
        self.chain = StoreChain({})
        self.lasts: dict[str, int] = {}
        self.seen = START
        self.must_link, self.must_read = True, False
        self.filler = StoreFiller(self, requests, node, codec)
        self.void = VoidEntries(name, node.engine, codec, self.filler)
        self._node, self._codec, self._writer = node, codec, writer
        self._events: deque[Entry] = deque()
        self._warned: OrderedDict[EntryId, None] = OrderedDict()

    async def load(self) -> None:
        """Read how far the store is. Raises StoreError."""
        stored = await self.store.read_meta(META)
        self._writer.load(stored.pop(RECOVERED, None))
        self.chain = StoreChain(stored)
        self.lasts = {each.channel: each.last for each in await self.store.channels()}

    @property
    def has_more(self) -> bool:
        """Whether the log may have what was not applied."""
        return self.must_link or self.must_read or bool(self._events)

    async def step(self) -> None:
        """Go on with the log. Raises EngineError, StoreError and UnreadableMessage."""
        if self.must_link:
            await self.link()
        elif self.has_more:
            await self.advance()
        if self.void.undecided:
            await self.void.decide(self.void.undecided)
            self.must_read = True

    def on_event(self, event: Event) -> None:
        """An event of the log."""
        if isinstance(event, Reconnected):
            self.must_link = True
            self._events.clear()
        elif isinstance(event, Appended):
            known = self._events[-1].id if self._events else self.seen
            if event.entry.id <= known:
                return
            if event.entry.previous == known and len(self._events) < _PAGE:
                self._events.append(event.entry)
            else:
                self.must_read = True

    async def written(self, entry: Entry, content: StoreEntry) -> None:
        """This server has written an entry. Raises StoreError."""
        if entry.previous == self.seen and not self.must_link:
            self._events.clear()
            await self.apply([ReadEntry(entry, content)])
        else:
            self.must_read = True

    # -- applying the log ----------------------------------------------------------------------

    async def advance(self) -> None:
        """Apply the entries after those that were seen."""
        while self._events:
            entries = list(self._events)
            self._events.clear()
            await self.apply(self._decoded(entries))
        while self.must_read and not self.void.undecided:
            page = await self._node.engine.read(self.name, self.seen, _PAGE)
            if page.truncated or page.last < self.seen:
                self.must_link = True
            if self.must_link:
                return
            self.must_read = not page.is_end
            await self.apply(self._decoded(page.entries))

    def _decoded(self, entries: Sequence[Entry]) -> list[ReadEntry]:
        return [ReadEntry(entry, self._content(entry)) for entry in entries]

    def _content(self, entry: Entry) -> StoreEntry | None:
        try:
            found = self._codec.decode(entry.payload)
        except UnreadableMessage as error:
            if entry.id not in self._warned:
                log.warning("an entry of a shared store cannot be read: %s", error)
                self._warned[entry.id] = None
                if len(self._warned) > _WARNED:
                    self._warned.popitem(last=False)
            return None
        return found

    async def apply(self, entries: Sequence[ReadEntry]) -> None:
        """Store what follows the last entry of the chain; others are void, or known. Ends with the
        first entry of which it has to be decided whether it is void."""
        self.void.learn((entry.id, content) for entry, content in entries)
        if await self._rewind_void():
            return
        batches: list[ReplicaBatch] = []
        meta: dict[str, bytes | None] = {}
        applied: list[StoreEntry] = []
        chain, seen = self.chain.copy(), self.seen
        for entry, content in entries:
            if content is None and self._is_undecided(entry.id):
                break
            is_void = entry.id in self.void
            if content is not None and not is_void and chain.continues_with(content):
                batches += content.replica_batches()
                meta |= chain.add(content, entry.id)
                applied.append(content)
            seen = entry.id
        if applied:
            await self._store(chain, batches, meta | self._writer.found(applied))
        self.seen = max(self.seen, seen)
        await self._writer.stored([content.tag for content in applied])
        left = [entry.id for entry, content in entries if content is None and entry.id > seen]
        self.void.undecided = [id for id in left if self._is_undecided(id)]
        if self.void.undecided:
            self.must_read = True

    def _is_undecided(self, id: EntryId) -> bool:
        """Of an entry that cannot be read: the store may have it since this server had its key."""
        return id not in self.void and not self.chain.has(id)

    async def _rewind_void(self) -> bool:
        """Whether the store had entries that others have found void meanwhile, and has them no
        more: the log has to be read again from the first one on."""
        new, self.void.new = self.void.new, {}
        if not new:
            return False
        forgotten = [id for id, by in new.items() if self.chain.may_have_forgotten(id, by)]
        if forgotten:
            await self._remember(sorted(forgotten))
            self.void.new = {}
        void = next((link for link in self.chain.links.values() if link.id in self.void), None)
        if void is None:
            return False
        tag = self.chain.before(void)
        if tag is None:
            raise other_history(self.store)
        await self.rewind(tag)
        self.seen = before(void.id)
        self.must_read = True
        self._events.clear()
        return True

    async def _remember(self, void: Sequence[EntryId]) -> None:
        """Find out by the log whether the store has one of these entries, which are older than its
        oldest link. Raises StoreError if the log does not reach back so far: nothing can be
        undone."""
        oldest = next(iter(self.chain.links.values()))
        places, _ = await self._places(before(void[0]))
        for id in void:
            line = line_from(places, id, oldest.tag)
            if line is None:
                raise other_history(self.store)
            if line:
                older = [StoreLink(each.tag, each.first, each.id, each.ids) for each in line[:-1]]
                self.chain.remember(older, line[0].after)
                return

    async def _store(
        self, chain: StoreChain, batches: Sequence[ReplicaBatch], meta: dict[str, bytes | None]
    ) -> None:
        """Store batches with the chain that they lead to. Other servers may ask for both: they
        change together."""
        epoch = "" if chain.epoch == self.chain.epoch else chain.epoch
        missing = await self.store.replicate(batches, meta, epoch=epoch)
        self.chain = chain
        for batch in batches:
            self.lasts[batch.channel] = max(self.lasts.get(batch.channel, 0), batch.last)
        if missing:
            chain.missing += missing
            await self.store.replicate([], chain.end())
            log.error("%d rows were pushed while this server was away; it lacks them", missing)

    # -- comparing the store with the log ------------------------------------------------------

    async def link(self) -> None:
        """Find the place of the store in the log, after a start, a lost connection, or lost
        entries."""
        await self._node.engine.enter(self.name, self._node.name)
        self.must_link = self.must_read = False
        self._events.clear()
        self.void.forget()
        self.seen = START
        try:
            if not await self._link_by_id():
                await self._link_by_tags()
        except BaseException:
            self.must_link = True
            raise

    async def _link_by_id(self) -> bool:
        """Whether the last entry of the store is where it was."""
        chain = self.chain
        if chain.id == START:
            return False
        page = await self._node.engine.read(self.name, before(chain.id), _PAGE)
        if not page.entries or page.entries[0].id != chain.id:
            return False
        entries = self._decoded(page.entries)
        own = entries[0].content
        if own is not None and own.tag != chain.tag:
            return False
        self.must_read = not page.is_end
        await self.apply(entries)
        return True

    async def _link_by_tags(self) -> None:
        found, unreadable = await self._places()
        places = without_void(found, self.void)
        chain = self.chain
        undecided = [id for id in unreadable if self._is_undecided(id)]
        if not places:
            await self.void.decide(undecided)
            await self._begin_log()
            return
        tags = [place.tag for place in places]
        if chain.tag in tags:
            self._read_from(places[tags.index(chain.tag)].id)
            return
        # the store may lack an entry that cannot be read and comes first: it is decided before
        successor = successor_of(places, chain.tag)
        if successor is not None:
            self._read_from(min([places[successor].id, *undecided]))
            return
        known = [number for number, tag in enumerate(tags) if chain.knows(tag)]
        if known:
            await self._rebase(tags[known[-1]], places[known[-1]].id)
            return
        for place in places:
            if chain.tag != NO_TAG and chain.knows(place.after):
                await self._rebase(place.after, min([place.id, *undecided]))
                return
        if await self.filler.fill():
            self.must_link = True
            return
        self._skip_to(places)

    async def _places(self, after: EntryId = START) -> tuple[list[Place], list[EntryId]]:
        """The entries of the log after an id, of a chain or void; and what cannot be read. It is
        read page by page: the rows of all its entries may be more than this process has memory
        for."""
        found: list[Place] = []
        unreadable: list[EntryId] = []
        while True:
            page = await self._node.engine.read(self.name, after, _PAGE)
            for entry, content in self._decoded(page.entries):
                if content is None:
                    unreadable.append(entry.id)
                elif content.void:
                    self.void.learn([(entry.id, content)])
                else:
                    found.append(place_of(entry.id, content))
            if page.is_end:
                return found, unreadable
            after = page.entries[-1].id

    def _read_from(self, first: EntryId) -> None:
        """Apply the log from an entry on, as the next steps."""
        self.seen = before(first)
        self.must_read = True

    async def _begin_log(self) -> None:
        """The log is empty: new, or lost; or it has nothing that can be read. What other servers
        have is fetched first."""
        if self.chain.tag == NO_TAG:
            self.must_link = await self.filler.fill()
            return
        entry = StoreEntry(new_tag(), self.chain.tag, self.chain.epoch, [])
        await self._node.engine.take(self.name, SHARED_OWNER, self._codec.encode(entry))
        self.must_link = True

    async def _rebase(self, tag: bytes, first: EntryId) -> None:
        """The log does not have the last entries of the store, and may have others instead: apply
        these, from an entry on, and write the rows again."""
        await self.rewind(tag)
        self._read_from(first)

    async def rewind(self, tag: bytes) -> None:
        """Go back to an entry; the rows after it are written to the log again."""
        links = self.chain.after(tag)
        found = await recovered_batches(self.store, links, self.lasts)
        rows = sum(piece.rows for each in found for piece in each.pieces)
        log.warning("the cluster has lost %d rows of this server; they are shared again", rows)
        chain = self.chain.copy()
        lasts = chain.rewind(tag)
        meta = {**chain.end(), RECOVERED: self._writer.recovered(found)}
        await self.store.replicate([], meta, rewind=lasts)
        self.chain = chain
        self.lasts |= lasts
        self._writer.write_again(found)

    def _skip_to(self, places: Sequence[Place]) -> None:
        """No other server has what is missing: go on with what is in the log."""
        parents = {place.after for place in places}
        start = next((n for n, place in enumerate(places) if place.tag in parents), 0)
        place = places[start]
        if place.epoch != self.chain.epoch and overlap(places[start:], self.lasts):
            raise other_history(self.store)
        self.chain.adopt(place.after, START, self.chain.epoch, [])
        self._read_from(place.id)
