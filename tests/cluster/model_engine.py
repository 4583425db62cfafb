"""An engine in memory: what Redis and NATS promise, and how they fail.

Commands are atomic in the server. Between a node and the server there is latency; requests and
answers get lost when the connection breaks; a promoted replica lacks the last writes.
"""

import asyncio
import contextvars
import itertools
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from aiostream_ds._cluster.engine import (
    READ_BYTES,
    START,
    Appended,
    EngineError,
    Entry,
    EntryId,
    EntryTooLarge,
    Event,
    Fenced,
    LogLost,
    LogPage,
    Ownership,
    Reconnected,
    Resigned,
    Sent,
    Watched,
)

_JOURNAL = 5_000  # writes that a promoted replica may lack


class _Channel:
    """What the server keeps of a channel."""

    def __init__(self) -> None:
        self.node = ""
        self.term = 0
        self.start = b""  # the first payload of the term
        self.taken_after = START  # the last entry before the term
        self.log: deque[Entry] = deque()
        self.removed = START  # the last entry that was removed from the log
        self.schema: bytes | None = None
        self.members: set[str] = set()

    @property
    def last(self) -> EntryId:
        return self.log[-1].id if self.log else START


class ModelServer:
    """The server, its clock and its failures.

    Attributes:
        entries: bound of a log.
        largest: bound of an entry, in bytes.
        knows_watchers: whether it answers who watches a channel.
        work: seconds that it takes for a command, one after another; `read_work`: for a read.
        clock: seconds that are added to the clock of the loop: the server's clock may be set.
        appended: each entry that was ever in a log, by channel, with the connection that has
            appended it and the first payload of the term, for checks.
        late: entries that were appended in a term that was over, for checks.
        operations: how many there were, by name.
    """

    def __init__(self, *, entries: int = 1000, largest: int = 1_000_000) -> None:
        self.entries, self.largest = entries, largest
        self.work = self.read_work = self.busy_until = 0.0
        self.clock = 0.0
        self.is_up = self.knows_watchers = True
        self.channels: dict[str, _Channel] = {}
        self.leases: dict[str, float] = {}  # when they end
        self.renewed: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.connections: dict[ModelEngine, None] = {}
        self.watchers: dict[str, dict[ModelEngine, None]] = {}
        self.client: ModelEngine | None = None  # of the command that runs
        self.appended: dict[str, list[tuple[Entry, ModelEngine | None, bytes]]] = {}
        self.late: list[str] = []
        self.operations: dict[str, int] = {}
        self._journal: deque[Callable[[], Any]] = deque(maxlen=_JOURNAL)

    def time(self) -> float:
        return asyncio.get_running_loop().time() + self.clock

    # -- commands --------------------------------------------------------------------------------

    def renew(self, node: str, seconds: float) -> None:
        before, renewed = self.leases.get(node, 0.0), self.renewed.get(node, 0.0)

        def undo() -> None:
            self.leases[node], self.renewed[node] = before, renewed

        self._journal.append(undo)
        self.leases[node], self.renewed[node] = self.time() + seconds, self.time()

    def release(self, node: str) -> None:
        self.renew(node, 0.0)

    def nodes(self) -> Mapping[str, float]:
        now = self.time()
        return {node: now - self.renewed[node] for node, end in self.leases.items() if end > now}

    def end_lease(self, node: str, age: float) -> None:
        if self.time() - self.renewed.get(node, math.inf) >= age:
            self.leases[node] = 0.0
            self.ended[node] = self.time()

    def was_ended(self, node: str) -> bool:
        """Whether the lease of a node was ended by another one lately, for checks."""
        return self.time() - self.ended.get(node, -math.inf) < 3.0

    def is_alive(self, node: str) -> bool:
        return self.leases.get(node, 0.0) > self.time()

    def take(self, channel: str, node: str, payload: bytes) -> Ownership:
        found = self._channel(channel)
        if found.node == node and found.start == payload:
            return Ownership(node, found.term, True, found.taken_after)
        if found.node not in ("", node) and self.is_alive(found.node):
            return Ownership(found.node, found.term, False, found.last)
        before = found.node, found.term, found.taken_after, found.start
        term = max(int(self.time() * 1000), found.last.term + 1, found.term + 1)
        found.node, found.term, found.taken_after = node, term, found.last

        def undo() -> None:
            found.node, found.term, found.taken_after, found.start = before

        entry = Entry(EntryId(term, 0), found.last, payload)
        self._append(channel, found, entry, undo)
        return Ownership(node, term, True, entry.previous)

    def resign(self, channel: str, node: str, term: int) -> None:
        found = self._channel(channel)
        if (found.node, found.term) == (node, term):
            found.node = ""
            self._journal.append(lambda: setattr(found, "node", node))
            self._publish(channel, Resigned(channel, term))

    def append(self, channel: str, entry: Entry, schema: bytes | None, start: bytes | None) -> None:
        found = self._channel(channel)
        if len(entry.payload) > self.largest:
            raise EntryTooLarge(f"{len(entry.payload)} bytes")
        if found.last == entry.id and found.log[-1] == entry:
            return
        if found.last >= entry.id:
            raise Fenced(f"{channel}: the log ends with {found.last}")
        if start not in (None, found.start) and found.last.term == entry.id.term:
            raise Fenced(f"{channel}: the term {entry.id.term} is of {found.node}")
        if found.last != entry.previous:
            raise LogLost(f"{channel}: the log ends with {found.last}")
        before = found.schema
        if schema is not None:
            found.schema = schema
        self._append(channel, found, entry, lambda: setattr(found, "schema", before))

    def _append(
        self, channel: str, found: _Channel, entry: Entry, undo: Callable[[], object]
    ) -> None:
        if found.last >= entry.id:
            self.late.append(f"{channel}: {entry.id} after {found.last}")
        found.log.append(entry)
        if entry.id.number == 0:
            found.start = entry.payload
        self.appended.setdefault(channel, []).append((entry, self.client, found.start))

        def undo_all() -> None:
            undo()
            if found.log and found.log[-1] == entry:
                found.log.pop()

        self._journal.append(undo_all)
        while len(found.log) > self.entries:
            found.removed = found.log.popleft().id
        self._publish(channel, Appended(channel, entry))

    def send(self, channel: str, payload: bytes) -> None:
        if len(payload) > self.largest:
            raise EntryTooLarge(f"{len(payload)} bytes")
        self._publish(channel, Sent(channel, payload))

    def watched(self, channel: str) -> bool:
        self._publish(channel, Sent(channel, b""))
        return bool(self.watchers.get(channel))

    def read(self, channel: str, after: EntryId, limit: int) -> LogPage:
        found = self._channel(channel)
        if not found.log:
            return LogPage([], START, after < found.removed)
        page = []
        for entry in reversed(found.log):  # most reads are of the end
            if entry.id <= after:
                break
            page.append(entry)
        page = page[::-1][:limit]
        sizes = itertools.accumulate(len(entry.payload) for entry in page)
        page = page[: 1 + sum(size < READ_BYTES for size in sizes)]
        return LogPage(page, found.last, after < found.removed)

    def schema(self, channel: str) -> bytes | None:
        return self._channel(channel).schema

    def enter(self, channel: str, node: str) -> None:
        members = self._channel(channel).members
        if node not in members:
            members.add(node)
            self._journal.append(lambda: members.discard(node))

    def leave(self, channel: str, node: str) -> None:
        members = self._channel(channel).members
        if node in members:
            members.discard(node)
            self._journal.append(lambda: members.add(node))

    def members(self, channel: str) -> frozenset[str]:
        now, leases = self.time(), self.leases
        return frozenset(n for n in self._channel(channel).members if leases.get(n, 0.0) > now)

    def _channel(self, channel: str) -> _Channel:
        if channel not in self.channels:
            self.channels[channel] = _Channel()
        return self.channels[channel]

    def _publish(self, channel: str, event: Event) -> None:
        for connection in tuple(self.watchers.get(channel, ())):
            connection.notify(event)

    def owner(self, channel: str) -> str:
        """The node that has taken a channel, whether it is alive or not; empty: none."""
        return self._channel(channel).node

    # -- failures --------------------------------------------------------------------------------

    def evict(self, channel: str) -> None:
        """Remove a log, as a server that is out of memory does."""
        found = self._channel(channel)
        found.log.clear()
        found.removed = START

    def lose_writes(self, count: int) -> None:
        """Promote a replica that lacks the last writes."""
        for _ in range(min(count, len(self._journal))):
            self._journal.pop()()
        self.disconnect_all()

    def restart(self, *, keep: bool) -> None:
        """Start again: with what was written, or empty."""
        self._journal.clear()
        if not keep:
            self.channels.clear()
            self.leases.clear()
        self.disconnect_all()

    def disconnect_all(self) -> None:
        for connection in tuple(self.connections):
            connection.disconnect()


def _fail(answer: asyncio.Future[Any], reason: str) -> None:
    if not answer.done():
        answer.set_exception(EngineError(reason))


class ModelEngine:
    """The connection of a node to a ModelServer.

    Attributes:
        latency: seconds of one way; each message has another one, between the two bounds.
        missed: probability that a notification gets lost without a lost connection.
        timeout: seconds after which a call without an answer is an error.
        is_cut: whether nothing passes between this node and the server.
        is_dead: whether the process is gone: nothing that it does has an effect.
    """

    name = "model"

    def __init__(self, server: ModelServer, *, seed: int = 0) -> None:
        self.server = server
        self.latency = (0.0, 0.0)
        self.missed = 0.0
        self.timeout = 2.0
        self.reconnect = 0.1
        self.is_cut = self.is_dead = False
        self._random = random.Random(seed)
        self._watched: dict[str, None] = {}
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._sent_at = self._answers_at = self._arrives_at = 0.0  # of the last of each
        self._epoch = 0  # of the connection
        self._is_connected = False
        self._calls: dict[asyncio.Future[Any], None] = {}

    async def open(self) -> None:
        if not self._is_reachable:
            raise EngineError("cannot connect")
        self.server.connections[self] = None
        self._is_connected = True

    async def aclose(self) -> None:
        self.disconnect(again=False)
        self.server.connections.pop(self, None)

    @property
    def _is_reachable(self) -> bool:
        return self.server.is_up and not self.is_cut and not self.is_dead

    def disconnect(self, *, again: bool = True) -> None:
        """Break the connection: calls without an answer fail, notifications get lost."""
        self._epoch += 1
        self._is_connected = False
        for channel in self._watched:
            self.server.watchers.get(channel, {}).pop(self, None)
        for call in tuple(self._calls):
            _fail(call, "the connection was lost")
        if again:
            self._connect_later()

    def _connect_later(self) -> None:
        asyncio.get_running_loop().call_later(
            self.reconnect, self._connect, self._epoch, context=contextvars.Context()
        )

    def _connect(self, epoch: int) -> None:
        if epoch != self._epoch or self._is_connected:
            return
        if not self._is_reachable:
            if not self.is_dead:
                self._connect_later()
            return
        self._is_connected = True
        for channel in self._watched:
            self.server.watchers.setdefault(channel, {})[self] = None
        self._deliver(Reconnected())

    def notify(self, event: Event) -> None:
        """Called by the server for a channel that this node watches."""
        if self._is_reachable and self._random.random() >= self.missed:
            self._arrives_at = self._schedule(self._arrives_at, self._arrive, event, self._epoch)

    def _schedule(self, not_before: float, callback: Callable[..., None], *arguments: Any) -> float:
        """Call back after the time of one way, in order. Not in the context of the running task:
        what is on its way arrives also if its node stops."""
        loop = asyncio.get_running_loop()
        # a loop does not keep the order of what is due at one time
        when = max(loop.time() + self._delay(), math.nextafter(not_before, math.inf))
        loop.call_at(when, callback, *arguments, context=contextvars.Context())
        return when

    def _arrive(self, event: Event, epoch: int) -> None:
        if epoch == self._epoch and self._is_reachable:
            self._deliver(event)

    def _deliver(self, event: Event) -> None:
        self._events.append(event)
        self._arrived.set()

    def _delay(self) -> float:
        low, high = self.latency
        return self._random.uniform(low, high) if high else 0.0

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One request and its answer. After a failure the request may have had its effect."""
        name = function.__name__
        self.server.operations[name] = self.server.operations.get(name, 0) + 1
        if not self._is_connected:
            await asyncio.sleep(0)
            raise EngineError("not connected")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._calls[answer] = None
        deadline = loop.call_later(self.timeout, _fail, answer, "no answer")
        self._sent_at = self._schedule(
            self._sent_at, self._request_arrives, self._epoch, answer, function, arguments
        )
        try:
            return await answer
        finally:
            deadline.cancel()
            self._calls.pop(answer, None)

    def _request_arrives(
        self,
        epoch: int,
        answer: asyncio.Future[Any],
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        if epoch != self._epoch or not self._is_reachable:
            return
        server, loop = self.server, asyncio.get_running_loop()
        if not server.work:
            self._run(epoch, answer, function, arguments)
            return
        work = server.read_work if function == server.read else server.work
        server.busy_until = max(loop.time(), server.busy_until) + work
        loop.call_at(server.busy_until, self._run, epoch, answer, function, arguments)

    def _run(
        self,
        epoch: int,
        answer: asyncio.Future[Any],
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        result: Any = None
        error: Exception | None = None
        self.server.client = self
        try:
            result = function(*arguments)
        except Exception as caught:
            error = caught
        self._answers_at = self._schedule(
            self._answers_at, self._answer_arrives, epoch, answer, result, error
        )

    def _answer_arrives(
        self, epoch: int, answer: asyncio.Future[Any], result: Any, error: Exception | None
    ) -> None:
        if epoch != self._epoch or not self._is_reachable or answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    # -- the interface ---------------------------------------------------------------------------

    async def renew(self, node: str, seconds: float) -> None:
        await self._call(self.server.renew, node, seconds)

    async def release(self, node: str) -> None:
        await self._call(self.server.release, node)

    async def nodes(self) -> Mapping[str, float]:
        nodes: Mapping[str, float] = await self._call(self.server.nodes)
        return nodes

    async def end_lease(self, node: str, age: float) -> None:
        await self._call(self.server.end_lease, node, age)

    async def take(self, channel: str, node: str, payload: bytes) -> Ownership:
        taken: Ownership = await self._call(self.server.take, channel, node, payload)
        return taken

    async def resign(self, channel: str, node: str, term: int) -> None:
        await self._call(self.server.resign, channel, node, term)

    async def append(
        self, channel: str, entry: Entry, schema: bytes | None = None, start: bytes | None = None
    ) -> None:
        await self._call(self.server.append, channel, entry, schema, start)

    async def read(self, channel: str, after: EntryId, limit: int) -> LogPage:
        page: LogPage = await self._call(self.server.read, channel, after, limit)
        return page

    async def send(self, channel: str, payload: bytes) -> None:
        await self._call(self.server.send, channel, payload)

    async def schema(self, channel: str) -> bytes | None:
        schema: bytes | None = await self._call(self.server.schema, channel)
        return schema

    async def enter(self, channel: str, node: str) -> None:
        await self._call(self.server.enter, channel, node)

    async def leave(self, channel: str, node: str) -> None:
        await self._call(self.server.leave, channel, node)

    async def members(self, channel: str) -> frozenset[str]:
        found: frozenset[str] = await self._call(self.server.members, channel)
        return found

    async def watched(self, channel: str) -> Watched:
        if not self.server.knows_watchers:
            raise EngineError("no right to ask who watches a channel")
        connection = self._epoch
        return Watched(connection, await self._call(self.server.watched, channel))

    async def watch(self, channel: str) -> None:
        self._watched[channel] = None
        await self._call(self._watch, channel)

    def _watch(self, channel: str) -> None:
        if channel in self._watched and self._is_connected:
            self.server.watchers.setdefault(channel, {})[self] = None

    async def unwatch(self, channel: str) -> None:
        self._watched.pop(channel, None)
        self.server.watchers.get(channel, {}).pop(self, None)

    async def events(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                yield self._events.popleft()
            self._arrived.clear()
            await self._arrived.wait()
