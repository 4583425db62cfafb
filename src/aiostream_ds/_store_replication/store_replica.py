"""A store of rows that several servers share: each has the same rows with the same cursors.

    append ─▶ entry ─▶ the log of the engine ─▶ applied to the store of each server ─▶ acknowledged
                                        │
    events, or a read of the log ◀──────┘

There is no owner: every server writes entries, which name the one before them. One that was
overtaken is void, and its rows are written again. So a server decides what an entry contains, such
as whether a key is known, when it has all entries before it.

An entry that no server can read is void, too: it was written by a program without the key, or was
damaged. The server asks the others whether they have read it: then it lacks their rows, and neither
stores nor writes any after it. Otherwise it writes the decision to the log, see `void_entries`.
"""

import os
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import anyio
import msgspec

from aiostream_ds._author_code import contained, describe
from aiostream_ds._cluster.engine import (
    START,
    Appended,
    EngineError,
    Entry,
    EntryId,
    EntryTooLarge,
    Event,
    Reconnected,
)
from aiostream_ds._cluster.message_cipher import Cipher, UnreadableMessage
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_requests import NodeRequests
from aiostream_ds._loggers import get_logger
from aiostream_ds._store_replication.store_chain import META, StoreChain
from aiostream_ds._store_replication.store_entries import (
    NO_TAG,
    StoreEntry,
    StoreEntryCodec,
    new_tag,
)
from aiostream_ds._store_replication.store_filling import NotVoid, StoreFiller, other_history
from aiostream_ds._store_replication.store_places import (
    Place,
    before,
    overlap,
    place_of,
    successor_of,
    without_void,
)
from aiostream_ds._store_replication.store_recovery import RecoveredBatch, recovered_batches
from aiostream_ds._store_replication.void_entries import SHARED_OWNER, VoidEntries
from aiostream_ds._store_replication.waiting_batches import GROUP_BYTES, WaitingBatch, parts_of
from aiostream_ds.stores import AppendResult, StoreError
from aiostream_ds.stores.channel_tables import now_ms
from aiostream_ds.stores.sqlite_store import SqliteStore, check_batch, key_digest, pieces_of
from aiostream_ds.stores.sqlite_writer import ReplicaBatch

__all__ = ["WAITING_BYTES", "WAIT_SECONDS", "StoreReplica"]

log = get_logger(__name__)

WAIT_SECONDS = 8.0
"""Seconds in which rows must be in the log and in the store; else the push is refused for now."""

WAITING_BYTES = 32 << 20
"""Bytes of rows that wait from which on further ones are refused for now."""

_PAGE = 100  # entries that are read at once, and applied in one transaction
_CHECK = 3.0  # seconds without an event until the end of the log is compared
_RETRY = 0.3  # seconds after an error of the engine
_ATTEMPTS = 32  # entries whose fate is not known yet
_WARNED = 1_000  # entries that cannot be read, and are not reported again
_RECOVERED = f"{META}recovered"


class _Read(NamedTuple):
    entry: Entry
    content: StoreEntry | None  # None: it cannot be read


class StoreReplica:
    """Keeps a store equal to those of the other servers, as long as `run` runs.

    Not thread-safe: use it in the event loop's thread.

    Args:
        name: of the channel in the engine.
        store: opened by `run`.
        node: this process in the cluster.
        requests: those to and from other nodes.
        cipher: encrypts what is in the engine, if the cluster has a key.

    Attributes:
        problem: why rows cannot be stored at the moment; empty if they can.
    """

    def __init__(
        self,
        name: str,
        store: SqliteStore,
        node: ClusterNode,
        requests: NodeRequests,
        cipher: Cipher | None,
    ) -> None:
        self.name = name
        self.problem = "the server joins the cluster"
        self.chain = StoreChain({})
        self.lasts: dict[str, int] = {}
        self.store = store
        self._node = node
        self._codec = StoreEntryCodec(name, cipher)
        self._filler = StoreFiller(self, requests, node, self._codec)
        self._void = VoidEntries(name, node.engine, self._codec, self._filler)
        self._waiting: deque[WaitingBatch] = deque()
        self._attempts: dict[bytes, list[tuple[WaitingBatch, ReplicaBatch]]] = {}
        self._group_bytes = GROUP_BYTES
        self._events: deque[Entry] = deque()
        self._seen = START  # the last entry of the log that was looked at
        self._warned: OrderedDict[EntryId, None] = OrderedDict()
        self._must_read = False
        self._must_link = True  # compare the store with the whole log
        self._wake = anyio.Event()
        self._has_caught_up = anyio.Event()

    @property
    def missing(self) -> int:
        """Rows that other servers may have, and this one does not."""
        return self.chain.missing

    # -- called by the data source -------------------------------------------------------------

    async def append(
        self, channel: str, rows: Sequence[Mapping[str, Any]], key: str | None
    ) -> AppendResult:
        """Store rows on all servers. When it returns, they are in the log of the engine, and
        committed on this server.

        Raises:
            TypeError, ValueError: a row cannot be stored.
            StoreError: the rows are not stored, or it is not known whether: the cluster cannot be
                reached, or the disk is full.
        """
        check_batch(channel, key)
        if not rows:
            last = self.lasts.get(channel, 0)
            return AppendResult(last + 1, last)
        parts = parts_of(await pieces_of(rows))
        if sum(each.size for each in self._waiting) > WAITING_BYTES:
            reason = self.problem or "the cluster is slower than they arrive"
            raise StoreError(f"too many rows wait to be stored on all servers: {reason}")
        waiting = []
        for number, part in enumerate(parts):
            digest = None if key is None else key_digest(key, number)
            waiting.append(WaitingBatch(channel, part, digest))
        self._waiting.extend(waiting)
        self._wake.set()
        results = []
        with anyio.move_on_after(WAIT_SECONDS):
            for each in waiting:
                await each.done.wait()
        for each in waiting:
            if each.result is None:
                self._waiting = deque(w for w in self._waiting if w is not each)
                reason = self.problem or "no answer in time"
                each.finish(StoreError(f"the rows are not stored on all servers: {reason}"))
            if isinstance(each.result, Exception):
                raise each.result
            assert each.result is not None
            results.append(each.result)
        return AppendResult(
            results[0].first, results[-1].last, all(each.repeated for each in results)
        )

    async def wait_until_caught_up(self, seconds: float) -> None:
        """Wait until the store had all that the log has, for so many seconds at most: viewers who
        come from another server would find fewer rows than they have."""
        with anyio.move_on_after(seconds):
            await self._has_caught_up.wait()

    async def answer(self, question: bytes) -> bytes:
        """Answer another server that lacks rows."""
        return await self._filler.answer(question)

    # -- the task ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the log, and write to it, until cancelled.

        Raises:
            ConfigError, UpstreamError: the store cannot be opened.
        """
        is_own = self.store.path is not None  # one in memory belongs to the data source
        async with self.store if is_own else nullcontext():
            await self._load()
            self._node.listen(self.name, self._on_event)
            try:
                while True:
                    await self._run_step()
            finally:
                for each in self._waiting:
                    each.finish(StoreError("the store is closed"))
                with anyio.move_on_after(1, shield=True):
                    await self._leave()

    async def _leave(self) -> None:
        try:
            # with other settings, another store of this name may have begun
            if await self._node.stop_listening(self.name, self._on_event):
                await self._node.engine.leave(self.name, self._node.name)
        except EngineError as error:
            log.info("a shared store has not left the cluster: %s", error)

    async def _load(self) -> None:
        stored = await self.store.read_meta(META)
        kept = stored.pop(_RECOVERED, None)
        self.chain = StoreChain(stored)
        self.lasts = {each.channel: each.last for each in await self.store.channels()}
        if kept is not None and not any(each.old_first for each in self._waiting):
            found = msgspec.msgpack.decode(kept, type=list[RecoveredBatch])
            self._wait_again(found)

    async def _run_step(self) -> None:
        try:
            await self._step()
        except (EngineError, StoreError, UnreadableMessage) as error:
            await self._failed(str(error), error)
        except BaseException as caught:
            failure = contained(caught)
            if failure is None:
                raise
            log.error("a shared store has failed; it is tried again", exc_info=failure)
            await self._failed(describe(failure), failure)

    async def _failed(self, reason: str, error: Exception) -> None:
        if not self.problem:
            log.warning("rows are not shared with other servers at the moment: %s", reason)
        self.problem = reason
        self._must_link = True
        if isinstance(error, StoreError):
            for each in self._waiting:
                if each.old_first is None:
                    each.finish(StoreError(reason))
            self._forget_finished()
        await self._load()
        await anyio.sleep(_CHECK if isinstance(error, NotVoid) else _RETRY)

    async def _step(self) -> None:
        if self._must_link:
            await self._link()
        elif self._must_read or self._events:
            await self._advance()
        if self._void.undecided:
            await self._void.decide(self._void.undecided)
            self._must_read = True
        if self._must_link or self._must_read or self._events:
            return
        if self._waiting:
            await self._write()
            self.problem = ""
            return
        self.problem = ""
        self._has_caught_up.set()
        with anyio.move_on_after(_CHECK) as timeout:
            await self._wake.wait()
        self._wake = anyio.Event()
        if timeout.cancelled_caught:
            self._must_read = True

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Reconnected):
            self._must_link = True
            self._events.clear()
        elif isinstance(event, Appended):
            known = self._events[-1].id if self._events else self._seen
            if event.entry.id <= known:
                return
            if event.entry.previous == known and len(self._events) < _PAGE:
                self._events.append(event.entry)
            else:
                self._must_read = True
        self._wake.set()

    # -- following the log ---------------------------------------------------------------------

    async def _advance(self) -> None:
        """Apply the entries after those that were seen."""
        while self._events:
            entries = list(self._events)
            self._events.clear()
            await self._apply(self._decoded(entries))
        while self._must_read and not self._void.undecided:
            page = await self._node.engine.read(self.name, self._seen, _PAGE)
            if page.truncated or page.last < self._seen:
                self._must_link = True
            if self._must_link:
                return
            self._must_read = not page.is_end
            await self._apply(self._decoded(page.entries))

    def _decoded(self, entries: Sequence[Entry]) -> list[_Read]:
        return [_Read(entry, self._content(entry)) for entry in entries]

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

    async def _apply(self, entries: Sequence[_Read]) -> None:
        """Store what follows the last entry of the chain; others are void, or known. Ends with the
        first entry of which it has to be decided whether it is void."""
        self._void.learn(content for _, content in entries)
        if await self._rewind_void():
            return
        batches: list[ReplicaBatch] = []
        meta: dict[str, bytes | None] = {}
        applied: list[bytes] = []
        chain, seen = self.chain.copy(), self._seen
        for entry, content in entries:
            if content is None and self._is_undecided(entry.id):
                break
            is_void = entry.id in self._void
            if content is not None and not is_void and chain.continues_with(content):
                batches += content.replica_batches()
                meta |= chain.add(content, entry.id)
                applied.append(content.tag)
            seen = entry.id
        if applied:
            await self._store(chain, batches, meta)
        self._seen = max(self._seen, seen)
        for tag in applied:
            await self._finish(self._attempts.pop(tag, []))
        left = [entry.id for entry, content in entries if content is None and entry.id > seen]
        self._void.undecided = [id for id in left if self._is_undecided(id)]
        if self._void.undecided:
            self._must_read = True

    def _is_undecided(self, id: EntryId) -> bool:
        """Of an entry that cannot be read: the store may have it since this server had its key."""
        return id not in self._void and not self.chain.has(id)

    async def _rewind_void(self) -> bool:
        """Whether the store had entries that others have found void meanwhile, and has them no
        more: the log has to be read again from the first one on."""
        if not self._void.has_new:
            return False
        self._void.has_new = False
        void = next((link for link in self.chain.links.values() if link.id in self._void), None)
        if void is None:
            return False
        tag = self.chain.before(void)
        if tag is None:
            raise other_history(self.store)
        await self.rewind(tag)
        self._seen = before(void.id)
        self._must_read = True
        self._events.clear()
        return True

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

    async def _finish(self, stored: list[tuple[WaitingBatch, ReplicaBatch]]) -> None:
        """An entry of this server is in the log and in the store."""
        for each, batch in stored:
            each.finish(AppendResult(batch.first, batch.last))
        if stored:
            await self._forget_recovered(any(each.old_first for each, _ in stored))
            self._forget_finished()

    async def _forget_recovered(self, some_are_stored: bool) -> None:
        left = any(each.old_first and each.result is None for each in self._waiting)
        if some_are_stored and not left:
            await self.store.replicate([], {_RECOVERED: None})

    def _forget_finished(self) -> None:
        self._waiting = deque(each for each in self._waiting if each.result is None)

    # -- writing to the log --------------------------------------------------------------------

    async def _write(self) -> None:
        """Write the first batches that wait as one entry."""
        group, known = await self._group()
        epoch = self.chain.epoch or os.urandom(6).hex()
        lasts: dict[str, int] = {}
        batches: list[ReplicaBatch] = []
        now = now_ms()
        for each in group:
            first = lasts.get(each.channel, self.lasts.get(each.channel, 0)) + 1
            batches.append(ReplicaBatch(each.channel, first, each.pieces, each.key, now))
            lasts[each.channel] = batches[-1].last
        pairs = list(zip(group, batches, strict=True))
        has_moved = any(each.old_first not in (None, batch.first) for each, batch in pairs)
        if has_moved or any(each.has_moved for each in known):
            epoch = os.urandom(6).hex()  # viewers have seen other cursors of these rows
        if not batches and epoch == self.chain.epoch:
            return
        tag = new_tag()
        entry = StoreEntry.of(tag, self.chain.tag, epoch, batches)
        self._attempts[tag] = pairs
        while len(self._attempts) > _ATTEMPTS:
            del self._attempts[next(iter(self._attempts))]
        await self._take(entry, group)

    async def _group(self) -> tuple[list[WaitingBatch], list[WaitingBatch]]:
        """The batches for one entry; and those whose keys are known, which are done."""
        group: list[WaitingBatch] = []
        size = 0
        keys: set[tuple[str, bytes]] = set()
        for each in self._waiting:
            if group and size + each.size > self._group_bytes:
                break
            if each.key is not None and (each.channel, each.key) in keys:
                continue  # known when the first one is stored
            if each.key is not None:
                keys.add((each.channel, each.key))
            group.append(each)
            size += each.size
        found = await self.store.find_keys(list(keys)) if keys else {}
        repeated = [e for e in group if e.key is not None and (e.channel, e.key) in found]
        for each in repeated:
            assert each.key is not None
            each.finish(AppendResult(*found[each.channel, each.key], repeated=True))
        if repeated:
            await self._forget_recovered(any(each.old_first for each in repeated))
            self._forget_finished()
        return [each for each in group if each.result is None], repeated

    async def _take(self, content: StoreEntry, group: list[WaitingBatch]) -> None:
        payload = self._codec.encode(content)
        try:
            taken = await self._node.engine.take(self.name, SHARED_OWNER, payload)
        except EntryTooLarge as error:
            if len(group) > 1:
                self._group_bytes = 1
                return
            group[0].finish(ValueError(f"a row is too large for the cluster: {error}"))
            self._forget_finished()
            return
        self._group_bytes = GROUP_BYTES
        if not taken.taken:
            raise EngineError(f"{self.name} belongs to the node {taken.node}")
        if taken.last == self._seen and not self._must_link:
            self._events.clear()
            entry = Entry(EntryId(taken.term, 0), taken.last, payload)
            await self._apply([_Read(entry, content)])
        else:
            self._must_read = True

    # -- comparing the store with the log ------------------------------------------------------

    async def _link(self) -> None:
        """Find the place of the store in the log, after a start, a lost connection, or lost
        entries."""
        await self._node.engine.enter(self.name, self._node.name)
        self._must_link = self._must_read = False
        self._events.clear()
        self._void.forget()
        self._seen = START
        try:
            if not await self._link_by_id():
                await self._link_by_tags()
        except BaseException:
            self._must_link = True
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
        self._must_read = not page.is_end
        await self._apply(entries)
        return True

    async def _link_by_tags(self) -> None:
        places, unreadable = await self._places()
        chain = self.chain
        undecided = [id for id in unreadable if self._is_undecided(id)]
        if not places:
            await self._void.decide(undecided)
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
        if await self._filler.fill():
            self._must_link = True
            return
        self._skip_to(places)

    async def _places(self) -> tuple[list[Place], list[EntryId]]:
        """What is in the log and counts, as far as that depends on the log; and what cannot be
        read. It is read page by page: the rows of all its entries may be more than this process has
        memory for."""
        found: list[Place] = []
        unreadable: list[EntryId] = []
        after = START
        while True:
            page = await self._node.engine.read(self.name, after, _PAGE)
            for entry, content in self._decoded(page.entries):
                if content is None:
                    unreadable.append(entry.id)
                elif content.void:
                    self._void.learn([content])
                else:
                    found.append(place_of(entry.id, content))
            if page.is_end:
                return without_void(found, self._void), unreadable
            after = page.entries[-1].id

    def _read_from(self, first: EntryId) -> None:
        """Apply the log from an entry on, as the next steps."""
        self._seen = before(first)
        self._must_read = True

    async def _begin_log(self) -> None:
        """The log is empty: new, or lost; or it has nothing that can be read. What other servers
        have is fetched first."""
        if self.chain.tag == NO_TAG:
            self._must_link = await self._filler.fill()
            return
        entry = StoreEntry(new_tag(), self.chain.tag, self.chain.epoch, [])
        await self._node.engine.take(self.name, SHARED_OWNER, self._codec.encode(entry))
        self._must_link = True

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
        kept = [each for each in self._waiting if each.old_first is not None]
        again = [RecoveredBatch(e.channel, e.old_first or 0, e.pieces, e.key) for e in kept]
        chain = self.chain.copy()
        lasts = chain.rewind(tag)
        meta = {**chain.end(), _RECOVERED: msgspec.msgpack.encode(again + found)}
        await self.store.replicate([], meta, rewind=lasts)
        self.chain = chain
        self.lasts |= lasts
        self._wait_again(found)

    def _wait_again(self, found: Sequence[RecoveredBatch]) -> None:
        """Batches of this server that the others do not have come first."""
        again = [WaitingBatch(each.channel, each.pieces, each.key, each.first) for each in found]
        self._waiting = deque([*again, *self._waiting])

    def _skip_to(self, places: Sequence[Place]) -> None:
        """No other server has what is missing: go on with what is in the log."""
        parents = {place.after for place in places}
        start = next((n for n, place in enumerate(places) if place.tag in parents), 0)
        place = places[start]
        if place.epoch != self.chain.epoch and overlap(places[start:], self.lasts):
            raise other_history(self.store)
        self.chain.adopt(place.after, START, self.chain.epoch, [])
        self._read_from(place.id)
