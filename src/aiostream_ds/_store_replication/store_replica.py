"""A store of rows that several servers share: each has the same rows with the same cursors.

    append ─▶ entry ─▶ the log of the engine ─▶ applied to the store of each server ─▶ acknowledged
                                        │
    events, or a read of the log ◀──────┘

There is no owner: every server writes entries (`store_writing`), which name the one before them.
One that was overtaken is void, and its rows are written again. So a server decides what an entry
contains, such as whether a key is known, when it has all entries before it (`store_following`).

An entry that no server can read is void, too: it was written by a program without the key, or was
damaged. The server asks the others whether they have read it: then it lacks their rows, and neither
stores nor writes any after it. Otherwise it writes the decision to the log, see `void_entries`.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import anyio

from aiostream_ds._author_code import contained, describe
from aiostream_ds._cluster.engine import EngineError, Entry, EntryId, EntryTooLarge, Event
from aiostream_ds._cluster.message_cipher import Cipher, UnreadableMessage
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_requests import NodeRequests
from aiostream_ds._loggers import get_logger
from aiostream_ds._store_replication.store_entries import StoreEntryCodec
from aiostream_ds._store_replication.store_filling import NotVoid
from aiostream_ds._store_replication.store_following import StoreFollower
from aiostream_ds._store_replication.store_writing import EntryWriter
from aiostream_ds._store_replication.void_entries import SHARED_OWNER
from aiostream_ds._store_replication.waiting_batches import parts_of
from aiostream_ds.stores import AppendResult, StoreError
from aiostream_ds.stores.sqlite_store import SqliteStore, check_batch, pieces_of

__all__ = ["WAITING_BYTES", "WAIT_SECONDS", "StoreReplica"]

log = get_logger(__name__)

WAIT_SECONDS = 8.0
"""Seconds in which rows must be in the log and in the store; else the push is refused for now."""

WAITING_BYTES = 32 << 20
"""Bytes of rows that wait from which on further ones are refused for now."""

_CHECK = 3.0  # seconds without an event until the end of the log is compared
_RETRY = 0.3  # seconds after an error of the engine


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
        codec: of the entries.
        follower: applies the log to the store.
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
        self.store = store
        self.codec = StoreEntryCodec(name, cipher)
        self._node = node
        self._writer = EntryWriter(store)
        self.follower = StoreFollower(name, store, node, requests, self.codec, self._writer)
        self._wake = anyio.Event()
        self._has_caught_up = anyio.Event()

    @property
    def missing(self) -> int:
        """Rows that other servers may have, and this one does not."""
        return self.follower.chain.missing

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
            last = self.follower.lasts.get(channel, 0)
            return AppendResult(last + 1, last)
        parts = parts_of(await pieces_of(rows))
        if self._writer.waiting_bytes > WAITING_BYTES:
            reason = self.problem or "the cluster is slower than they arrive"
            raise StoreError(f"too many rows wait to be stored on all servers: {reason}")
        waiting = self._writer.add(channel, parts, key)
        self._wake.set()
        results = []
        with anyio.move_on_after(WAIT_SECONDS):
            for each in waiting:
                await each.done.wait()
        for each in waiting:
            if each.result is None:
                self._writer.give_up(each, self.problem or "no answer in time")
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
        return await self.follower.filler.answer(question)

    # -- the task ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the log, and write to it, until cancelled.

        Raises:
            ConfigError, UpstreamError: the store cannot be opened.
        """
        is_own = self.store.path is not None  # one in memory belongs to the data source
        async with self.store if is_own else nullcontext():
            await self.follower.load()
            self._node.listen(self.name, self._on_event)
            try:
                while True:
                    await self._run_step()
            finally:
                self._writer.close()
                with anyio.move_on_after(1, shield=True):
                    await self._leave()

    async def _leave(self) -> None:
        try:
            # with other settings, another store of this name may have begun
            if await self._node.stop_listening(self.name, self._on_event):
                await self._node.engine.leave(self.name, self._node.name)
        except EngineError as error:
            log.info("a shared store has not left the cluster: %s", error)

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
        self.follower.must_link = True
        if isinstance(error, StoreError):
            self._writer.fail(reason)
        await self.follower.load()
        await anyio.sleep(_CHECK if isinstance(error, NotVoid) else _RETRY)

    async def _step(self) -> None:
        await self.follower.step()
        if self.follower.has_more:
            return
        if self._writer.has_rows:
            await self._write()
            self.problem = ""
            return
        self.problem = ""
        self._has_caught_up.set()
        with anyio.move_on_after(_CHECK) as timeout:
            await self._wake.wait()
        self._wake = anyio.Event()
        if timeout.cancelled_caught:
            self.follower.must_read = True

    def _on_event(self, event: Event) -> None:
        self.follower.on_event(event)
        self._wake.set()

    async def _write(self) -> None:
        """Write the first batches that wait as one entry."""
        written = await self._writer.next_entry(self.follower.chain, self.follower.lasts)
        if written is None:
            return
        payload = self.codec.encode(written.entry)
        try:
            taken = await self._node.engine.take(self.name, SHARED_OWNER, payload)
        except EntryTooLarge as error:
            self._writer.too_large(written.group, error)
            return
        self._writer.written()
        if not taken.taken:
            raise EngineError(f"{self.name} belongs to the node {taken.node}")
        entry = Entry(EntryId(taken.term, 0), taken.last, payload)
        await self.follower.written(entry, written.entry)
