"""Any history of joins, leaves, authors and subscribers, and the invariants after each event.

The rules are synchronous functions, so the machine owns its loop: it calls the registry outside the
loop, and `step`, `settle` and `advance` run the loop. The numbers in comments are the nine promises
of docs/internals.md.
"""

import asyncio
import itertools
import sys
from collections import deque
from typing import Any, ClassVar, NamedTuple

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from aiostream_ds._channels import exceptions
from aiostream_ds._channels.observer import Observer
from aiostream_ds._channels.policy import Buffer, Policy
from aiostream_ds._channels.status import Status, status_packet
from aiostream_ds._frames.packet import CursorRange, Packet, Schema
from aiostream_ds.testing.virtual_loop import VirtualLoop
from tests.channels.parts import REAL, Parts

KEYS = (("i", "a"), ("i", "b"), ("j", "a"))
SCHEMAS = tuple(Schema(b"%d" % number, str(number)) for number in range(3))
MANNERS = (
    "clean",
    "awaits in finally",
    "longer than the close timeout in finally",
    "raises in finally",
    "yields in finally",
    "catches errors",
    "suppresses one cancellation",
    "suppresses all cancellations",
)
FULL = ("drop_oldest", "latest", "block", "fail")
ROWS = 10  # bound of a queue
BATCH = 4  # yields in a packet
HEAVY = 3  # rows in one heavy yield
PAGE = 8  # rows of a gap in one emit
STATUSES = 8  # rows of the status column in one queue
CLOSE_TIMEOUT = 5
FREE, STEP = 16, 32  # bytes of a queue that need no memory, and that it reserves at a time

COMMANDS = st.one_of(
    st.tuples(st.just("rows"), st.sampled_from([1, 2, 5, 9, 30])),
    st.tuples(st.just("slow rows"), st.integers(1, 5), st.sampled_from([0, 1])),
    st.tuples(st.just("heavy"), st.integers(1, 6)),
    st.tuples(
        st.just("rows, then"),
        st.integers(1, 6),
        st.sampled_from(["raise", "return", "bad", "schema"]),
    ),
    st.tuples(st.just("status"), st.sampled_from(["", "night", "away"])),
    st.tuples(st.just("cursors"), st.integers(1, 3)),
    st.sampled_from(
        [("schema",), ("raise",), ("return",), ("bad",), ("timeout",), ("stray cancel",), ("exit",)]
    ),
)


class Numbered(NamedTuple):
    """What an author yields: its run, the first number, how many rows it is, and their schema."""

    run: int
    first: int
    count: int
    schema: int


class Gap:
    """An object that an author yields: the cursor moves on without a row."""


class Author:
    """One run of one author's generator, which gets commands from the machine.

    It first emits `fill` pages of rows, as those of an outage, and with a status column a row of
    its own for each status. Rows of the column have negative numbers.
    """

    numbers = itertools.count()

    def __init__(
        self,
        machine: "RegistryMachine",
        key: Any,
        manner: str,
        generation: int,
        fill: int = 0,
        has_column: bool = False,
    ) -> None:
        self.machine, self.key, self.manner, self.generation = machine, key, manner, generation
        self.fill, self.has_column = fill, has_column
        self.filling = False
        self.text: str | None = None  # of the last row of the status column
        self.cursor = 0
        self.emitted: list[int] = []  # all rows in order, those of the status column too
        self.number = next(self.numbers)
        self.commands: deque[tuple[Any, ...]] = deque()
        self.wake: asyncio.Future[None] | None = None
        self.schema = 0
        self.yielded: list[int] = []  # each row, in order
        self.encoded: list[int] = []  # those that were emitted
        self.due: int | None = None  # rows before the first thing that ends the run
        self.causes: set[str] = set()
        self.starts = self.ends = self.suppressed = 0
        self.abandoned = self.returned = self.removed = False

    def command(self, command: tuple[Any, ...]) -> None:
        self.commands.append(command)
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)

    async def next_command(self) -> tuple[Any, ...]:
        while not self.commands:
            self.wake = asyncio.get_running_loop().create_future()
            try:
                await self.wake
            finally:
                self.wake = None
        return self.commands.popleft()

    def row(self, count: int = 1) -> Numbered:
        first = len(self.yielded)
        self.yielded.extend(range(first, first + count))
        return Numbered(self.number, first, count, self.schema)

    def run(self, drive: Any) -> Any:
        """A runner that fills a gap, runs the generator, and has a status column."""

        async def run(channel: Any) -> None:
            if self.has_column:
                channel.on_status = lambda: self.send_status(channel)
            self.filling = True
            for _ in range(self.fill):
                channel.emit(*self.encode([self.row(PAGE)]))
                await channel.pace()
            self.filling = False
            await drive(channel)

        return run

    def send_status(self, channel: Any) -> None:
        text = channel.status and channel.status.text
        if text == self.text:
            return
        self.text = text
        number = sum(number < 0 for number in self.emitted)
        channel.emit(self.packet([-1 - number], self.schema))

    def packet(self, numbers: list[int], schema: int) -> Packet:
        before, self.cursor = self.cursor, self.cursor + len(numbers)
        self.emitted.extend(numbers)
        data = orjson.dumps([[self.number, schema, number] for number in numbers])
        cursors = CursorRange("", before, self.cursor)
        return Packet(SCHEMAS[schema], data, len(numbers), cursors)

    def suppresses(self) -> bool:
        if self.manner == "suppresses one cancellation":
            return not self.suppressed
        return self.manner == "suppresses all cancellations" and not self.machine.free

    def ends_by(self, cause: str) -> None:
        self.causes.add(cause)
        if self.due is None:
            self.due = len(self.yielded)

    async def rows(self) -> Any:
        machine = self.machine
        self.starts += 1
        if machine.live[self.key] is not None:  # promise 1
            machine.fault(f"two live generators of {self.key}")
        machine.live[self.key] = self
        try:
            while True:
                try:
                    command, *numbers = await self.next_command()
                    if command == "rows, then":
                        for _ in range(numbers[0]):
                            yield self.row()
                        command = numbers[1]
                    if command == "rows":
                        for _ in range(numbers[0]):
                            yield self.row()
                    elif command == "slow rows":
                        for _ in range(numbers[0]):
                            yield self.row()
                            await asyncio.sleep(numbers[1])
                    elif command == "heavy":
                        for _ in range(numbers[0]):
                            yield self.row(HEAVY)
                    elif command == "status":
                        yield Status("info", numbers[0])
                    elif command == "cursors":
                        for _ in range(numbers[0]):
                            yield Gap()
                            await asyncio.sleep(0)
                    elif command == "schema":
                        self.schema = (self.schema + 1) % len(SCHEMAS)
                    elif command == "raise":
                        if self.manner != "catches errors":
                            self.ends_by("raised")
                        raise ValueError("raised")
                    elif command == "exit":
                        self.ends_by("exit")
                        sys.exit("exit")
                    elif command == "return":
                        self.ends_by("returned")
                        self.returned = True
                        return
                    elif command == "bad":
                        self.ends_by("bad")
                        yield "bad"
                    elif command == "stray cancel":
                        other = asyncio.get_running_loop().create_future()
                        other.cancel()
                        if not self.suppresses():
                            self.ends_by("stray")
                        await other
                    elif command == "timeout":
                        self.causes.add("scope")
                        try:
                            async with asyncio.timeout(0.5):
                                while True:
                                    yield self.row()
                                    await asyncio.sleep(0.2)
                        except TimeoutError:
                            pass
                except asyncio.CancelledError:
                    if not self.suppresses():
                        raise
                    self.suppressed += 1
                    if self.manner == "suppresses one cancellation":
                        self.commands.appendleft(("rows", 1))
                except ValueError:
                    if self.manner != "catches errors":
                        raise
        finally:
            try:
                if self.manner in ("awaits in finally", "suppresses one cancellation"):
                    await asyncio.sleep(1)
                elif self.manner == "longer than the close timeout in finally":
                    try:
                        await asyncio.sleep(CLOSE_TIMEOUT + 3)
                    except asyncio.CancelledError:
                        pass
                elif self.manner == "yields in finally":
                    if isinstance(sys.exc_info()[1], GeneratorExit):
                        self.causes.add("scope")
                        self.abandoned = True  # what follows this yield can never run
                        machine.live[self.key] = None
                        yield "lost"
                    else:
                        row = self.row()
                        if self.due is not None and "bad" not in self.causes:
                            self.due += 1
                        yield row
            finally:
                if not self.abandoned:
                    self.ends += 1
                    machine.live[self.key] = None
                    if self.manner == "raises in finally":
                        self.causes.add("finally")
                        raise RuntimeError("finally")

    def encode(self, rows: list[Any]) -> list[Packet]:
        if "bad" in rows:
            raise TypeError("bad")
        packets: list[Packet] = []
        for kind, group in itertools.groupby(rows, key=_kind):
            if kind is Status:
                packets += map(status_packet, group)
            elif kind is Gap:
                for _ in group:
                    self.cursor += 1
                    cursors = CursorRange("", self.cursor, self.cursor)
                    packets.append(Packet(SCHEMAS[self.schema], b"", 0, cursors))
            else:
                numbers = [n for row in group for n in range(row[1], row[1] + row[2])]
                self.encoded.extend(numbers)
                packets.append(self.packet(numbers, kind))
        return packets


def _kind(row: Any) -> Any:
    """The class of an object that is not a row; the schema of a row."""
    return row[3] if isinstance(row, tuple) else type(row)


class Subscriber:
    """One subscription, received from by a rule of the machine or by a task."""

    def __init__(self, machine: "RegistryMachine", subscription: Any, author: Author) -> None:
        self.machine, self.subscription, self.author = machine, subscription, author
        self.full = subscription._buffer.full
        self.base = len(author.emitted)
        self.exact = subscription.exact
        self.cursor = -1
        self.waits_since: float | None = None  # seen by this class: never earlier than it is
        self.counts = subscription.statistics()
        self.received: list[int] = []
        self.schema: Schema | None = None
        self.error: Any = None
        self.over = self.left = False
        self.received_at = machine.loop.time()
        self.task: asyncio.Task[None] | None = None

    def record(self, received: list[tuple[Schema | None, Packet]]) -> None:
        if received:
            self.received_at = self.machine.loop.time()
        for schema, packet in received:
            if schema is not None:
                self.schema = schema
            assert packet.rows or self.exact, "a packet without rows"
            assert packet.cursors.last >= self.cursor, "cursors go backwards"
            self.cursor = packet.cursors.last
            if not packet.rows:
                continue
            assert self.schema is packet.schema, "rows without their schema"  # promise 3
            for number, schema_number, row in orjson.loads(packet.data):
                assert SCHEMAS[schema_number] is self.schema, "a row under another schema"
                assert number == self.author.number, "a row of another run"
                self.received.append(row)
        order = iter(self.author.emitted[self.base :])
        assert all(row in order for row in self.received), "rows out of order"  # promise 4

    async def receive(self) -> None:
        try:
            async for received in self.subscription:
                self.record(received)
            self.over = True
        except exceptions.ChannelError as error:
            self.error = error
        finally:
            self.subscription.leave()

    def receive_the_end(self) -> None:
        """Receive the rest and the end of an ended subscription without a task."""
        self.record(self.subscription.receive_nowait())
        try:
            self.subscription.wait().send(None)
        except StopIteration as stop:
            if stop.value:  # the status has changed
                self.receive_the_end()
            else:
                self.over = True
        except exceptions.ChannelError as error:
            self.error = error
        else:
            raise AssertionError("an ended subscription waits")

    def check(self) -> None:
        counts = self.subscription.statistics()
        if self.left:
            return
        attached = self.subscription._channel is not None
        if attached:  # promise 4
            emitted = len(self.author.emitted) - self.base
            total = counts.sent_rows + counts.dropped_rows + counts.queued_rows
            assert total == emitted, f"{emitted} rows emitted, {total} accounted for"
        if self.full == "latest":
            assert counts.queued_packets <= 1
        else:
            most = max(ROWS, BATCH * HEAVY, PAGE) + STATUSES
            if self.full == "block":
                most = ROWS + BATCH * HEAVY + HEAVY + STATUSES
            queue = self.subscription.queue
            assert not any(not a.rows and not b.rows for a, b in itertools.pairwise(queue)), (
                "packets without rows fill the queue"
            )
            assert counts.queued_rows <= most, f"{counts.queued_rows} rows wait"
        keeps_up = self.task is not None and self.full != "latest" and not self.machine.is_limited
        if keeps_up or (self.full == "block" and not self.subscription.stalled):
            assert counts.dropped_rows == 0, "a subscriber that keeps up lost rows"
        with_rows = [packet for packet in self.subscription.queue if packet.rows]
        if with_rows and attached:
            newest = orjson.loads(with_rows[-1].data)[-1][2]
            assert newest == self.author.emitted[-1], "the newest rows were dropped"
        if counts.dropped_rows == 0:
            expected = self.author.emitted[self.base :][: len(self.received)]
            assert self.received == expected, "rows differ from those emitted"
        self.check_the_stall_clock(counts)

    def check_the_stall_clock(self, counts: Any) -> None:
        """A queue does not overflow after the stall timeout: the subscription is ended."""
        before, self.counts = self.counts, counts
        taken = counts.sent_packets != before.sent_packets
        now = self.machine.loop.time()
        if taken or not self.subscription.queue:
            self.waits_since = None
        elif self.waits_since is None:
            self.waits_since = self.checked_at = now
        elif self.subscription._channel is not None:
            timeout = self.subscription._buffer.stall_timeout
            is_late = self.checked_at - self.waits_since >= timeout
            assert not is_late or counts.dropped_packets == before.dropped_packets, (
                "a stalled subscription drops packets"
            )
        self.checked_at = now

    def check_the_end(self) -> None:
        """The reason of the end is right, and no row before the end was lost."""
        author, error = self.author, self.error
        if self.over:
            assert author.returned, "a subscription ended as after a return"  # promise 9
        elif isinstance(error, exceptions.StreamFailed):
            cause = error.__cause__
            known = {
                ValueError: "raised",
                TypeError: "bad",
                SystemExit: "exit",
                self.machine.parts.producer.YieldInScope: "scope",
            }
            if isinstance(cause.__cause__, SystemExit):
                cause = cause.__cause__
            name = known.get(type(cause), "finally" if str(cause) == "finally" else "stray")
            assert name in author.causes, f"got {cause!r}, the author did {author.causes}"
        elif isinstance(error, exceptions.Superseded):
            assert author.generation < self.machine.most[author.key[0]] or author.removed
        elif isinstance(error, exceptions.SlowSubscriber):
            assert self.full == "fail" and (self.task is None or self.machine.is_limited)
        elif isinstance(error, exceptions.StalledSubscriber):
            silent = self.machine.loop.time() - self.received_at
            assert self.task is None and silent >= self.subscription._buffer.stall_timeout
        elif isinstance(error, exceptions.StreamStuck):
            assert self.machine.observer.stuck
        else:
            assert isinstance(error, exceptions.ShuttingDown) and self.machine.closed, repr(error)
        if (self.over or isinstance(error, exceptions.StreamFailed)) and author.due is not None:
            assert author.encoded[: author.due] == author.yielded[: author.due], (
                "rows before the end were lost"
            )
            if self.subscription.statistics().dropped_rows == 0:
                assert self.received == author.emitted[self.base :][: len(self.received)], (
                    "rows are missing"
                )
                due = set(author.yielded[: author.due]) - set(author.emitted[: self.base])
                assert due <= set(self.received), "rows before the end are lost"


def _observer(parts: Parts, machine: "RegistryMachine") -> Any:
    class Watch(Observer):
        def __init__(self) -> None:
            self.starts = self.ends = self.joins = self.leaves = self.stuck = 0

        def on_start(self, key: Any) -> None:
            self.starts += 1
            channel = machine.registry._open[key]
            if channel.generation < machine.known.get(key.instance, 0):
                machine.fault("a stream of older settings starts")

        def on_end(self, key: Any, error: BaseException | None) -> None:
            self.ends += 1

        def on_join(self, key: Any) -> None:
            self.joins += 1

        def on_leave(self, key: Any) -> None:
            self.leaves += 1

        def on_stuck(self, key: Any, seconds: float) -> None:
            self.stuck += 1

    return Watch()


class RegistryMachine(RuleBasedStateMachine):
    """All rules; subclasses bring other `parts`."""

    parts: ClassVar[Parts] = REAL
    subscribers = Bundle("subscribers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.faults: list[str] = []
        self.loop.set_exception_handler(lambda _, context: self.fault(str(context)))
        self.live: dict[Any, Author | None] = dict.fromkeys(KEYS)
        self.known: dict[str, int] = {}  # the newest settings that the registry has seen
        self.most: dict[str, int] = {"i": 0, "j": 0}
        self.authors: dict[Any, Author] = {}  # by channel
        self.all: list[Subscriber] = []
        self.free = self.closed = False
        self.observer = _observer(self.parts, self)
        self.memory = self.parts.memory.MemoryPool(free=FREE, step=STEP)
        self.is_limited = False  # by memory: then subscribers that keep up may lose rows
        self.registry = self.parts.registry.ChannelRegistry(
            close_timeout=CLOSE_TIMEOUT,
            observer=self.observer,
            loop=self.loop,
            memory=self.memory,
        )

    @initialize(limits=st.sampled_from([None, None, (64, 1000), (1000, 64), (200, 100)]))
    def limit_memory(self, limits):  # type: ignore[no-untyped-def]
        self.is_limited = limits is not None
        if limits is not None:
            self.memory.limit, self.memory._instance_limit = limits

    def fault(self, text: str) -> None:
        self.faults.append(text)

    @rule(
        target=subscribers,
        key=st.sampled_from(KEYS),
        manner=st.sampled_from(MANNERS),
        by_task=st.booleans(),
        full=st.sampled_from(FULL),
        linger=st.sampled_from([0, 0, 3]),
        older=st.integers(0, 1),
        exact=st.booleans(),
        fill=st.sampled_from([0, 0, 0, 4]),
        has_column=st.booleans(),
        pace=st.sampled_from([{}, {}, {"flush": 0.5}, {"max_hz": 2}]),
        stall_timeout=st.sampled_from([60, 3]),
    )
    def join(  # type: ignore[no-untyped-def]
        self,
        key,
        manner,
        by_task,
        full,
        linger,
        older,
        exact,
        fill,
        has_column,
        pace,
        stall_timeout,
    ):
        registry = self.registry
        key = self.parts.channel.ChannelKey(*key)
        generation = max(0, self.most[key.instance] - older)
        author = Author(self, key, manner, generation, fill, has_column)
        run = author.run(self.parts.producer.drive(author.rows, author.encode, rows=BATCH))
        buffer = Buffer(rows=ROWS, full=full, stall_timeout=stall_timeout)
        policy = Policy(buffer, linger=linger, **pace)
        try:
            subscription = registry.join(key, run, policy, generation, exact=exact)
        except exceptions.StreamStuck:
            assert registry._closing[key].stuck
            return multiple()
        except exceptions.Superseded:
            assert generation < self.known[key.instance] and key not in registry._open
            return multiple()
        self.known[key.instance] = max(generation, self.known.get(key.instance, 0))
        channel = registry.peek(key)
        assert subscription._channel is channel and not (channel.task and channel.task.done())
        author = self.authors.setdefault(channel, author)
        assert author.generation >= generation, "older settings won"
        assert not author.ends, "joined a stream that is over"  # promise 8
        subscriber = Subscriber(self, subscription, author)
        self.all.append(subscriber)
        if by_task:
            subscriber.task = self.loop.create_task(subscriber.receive())
        return subscriber

    @rule(subscriber=subscribers, times=st.integers(1, 2))
    def leave(self, subscriber, times):  # type: ignore[no-untyped-def]
        if subscriber.task is None:
            subscriber.left = True
        for _ in range(times):
            if subscriber.task is not None:
                subscriber.left = subscriber.left or not subscriber.task.done()
                subscriber.task.cancel()
            else:
                subscriber.subscription.leave()

    @rule(subscriber=subscribers)
    def receive(self, subscriber):  # type: ignore[no-untyped-def]
        if subscriber.task is None:
            subscriber.record(subscriber.subscription.receive_nowait())

    @rule(key=st.sampled_from(KEYS), command=COMMANDS, before=st.booleans(), after=st.booleans())
    def author_does(self, key, command, before, after):  # type: ignore[no-untyped-def]
        if before:
            self.loop.settle()
        author = self.live[key] or next(filter(None, self.live.values()), None)
        if author is not None:
            author.command(command)
        if after:
            self.loop.settle()

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 40), drain=st.booleans())
    def burst(self, key, count, drain):  # type: ignore[no-untyped-def]
        self.author_does(key, ("rows", count), True, True)
        for subscriber in self.all if drain else ():
            if subscriber.author.key == key and subscriber.task is None and not subscriber.left:
                subscriber.record(subscriber.subscription.receive_nowait())
                self.loop.settle()

    @rule()
    def step(self):  # type: ignore[no-untyped-def]
        self.loop.step()

    @rule(seconds=st.sampled_from([0, 0.3, 1, 4, 6, 30]))
    def advance(self, seconds):  # type: ignore[no-untyped-def]
        self.loop.advance(seconds)

    @rule(instance=st.sampled_from("ij"), supersede=st.booleans())
    def change_settings(self, instance, supersede):  # type: ignore[no-untyped-def]
        self.most[instance] += 1
        if supersede:
            self.registry.supersede(instance, self.most[instance])
            self.known[instance] = self.most[instance]
            for key, channel in self.registry._open.items():
                assert key.instance != instance or channel.generation >= self.known[instance]

    @rule(instance=st.sampled_from("ij"))
    def remove_instance(self, instance):  # type: ignore[no-untyped-def]
        for author in self.authors.values():
            author.removed |= author.key[0] == instance
        self.registry.close_instance(instance)
        self.known.pop(instance, None)
        assert all(key.instance != instance for key in self.registry._open)

    @invariant()
    def holds(self):  # type: ignore[no-untyped-def]
        assert not self.faults, self.faults
        state = self.parts.channel.State
        opened, closing = self.registry._open, self.registry._closing
        for key, channel in opened.items():
            assert channel.open or channel.state is state.OPENING
            assert bool(channel._subscriptions) == (channel.state is not state.LINGERING)
            assert (channel.state is state.OPENING) == (key in closing)
            assert all(subscriber._channel is channel for subscriber in channel._subscriptions)
        for channel in closing.values():
            assert channel.state is state.CLOSING and not channel._subscriptions
        for subscriber in self.all:
            feed = subscriber.subscription._channel
            if feed is not None:  # promise 6
                assert opened.get(subscriber.author.key) is feed
                assert subscriber.subscription in feed._subscriptions
            subscriber.check()
            if (
                subscriber.task is not None
                and subscriber.task.done()
                and not subscriber.task.cancelled()
            ):
                subscriber.task.result()
        for author in self.authors.values():
            assert author.ends <= author.starts <= 1  # promise 2
        self.check_the_memory()
        assert self.registry.running == self.observer.starts - self.observer.ends
        assert self.registry.subscriptions == self.observer.joins - self.observer.leaves

    def check_the_memory(self) -> None:
        """What the queues have reserved is what the pools count, and enough for what they hold."""
        reserved = dict.fromkeys("ij", 0)
        for subscriber in self.all:
            each = subscriber.subscription
            assert each._reserved_bytes >= each._queued_bytes + each._held_bytes
            assert not each._is_refused or each.queue
            if subscriber.left and subscriber.task is None:
                assert each._reserved_bytes == FREE, "a subscription that was left has memory"
            reserved[subscriber.author.key.instance] += each._reserved_bytes - FREE
        for instance, size in reserved.items():
            assert self.registry.memory_of(instance).used == size, "memory of an instance"
        assert self.memory.used == sum(reserved.values()), "memory of the process"

    @rule()
    def no_row_is_held_back_from_demand(self):  # type: ignore[no-untyped-def]
        self.loop.settle()
        state = self.parts.channel.State
        for subscriber in self.all:
            feed = subscriber.subscription._channel
            if feed is None or feed.state is not state.RUNNING:
                continue
            author = subscriber.author
            if author.filling:
                continue
            assert self.live[author.key] is author or author.abandoned  # promise 6
            if not subscriber.subscription.queue and not feed._policy.is_paced:
                assert author.encoded == author.yielded, (
                    "a subscriber has demand, and rows are held back"
                )  # promise 7
        self.loop.advance(300)
        for channel in self.registry._open.values():
            assert channel.open, "a subscriber waits for a stream that does not start"
            author = self.authors[channel]
            if channel._subscriptions and all(
                not subscriber.queue for subscriber in channel._subscriptions
            ):
                assert not author.commands, "no subscriber is slow, and the author is paused"
                assert author.encoded == author.yielded, "rows that are due are held back"

    def teardown(self) -> None:
        self.free = True
        try:
            if not self.faults:
                self._close()
        finally:
            self.loop.close()

    def _close(self) -> None:
        self.loop.settle()
        self.closed = True
        left = self.loop.run_until_complete(self.registry.aclose(100))
        assert left == ()
        self.loop.settle()
        for subscriber in self.all:
            if subscriber.task is not None:
                assert subscriber.task.done()
            elif not subscriber.left:
                subscriber.receive_the_end()
            subscriber.check()
            if not subscriber.left:
                subscriber.check_the_end()
        assert not asyncio.all_tasks(self.loop)  # promise 5
        assert not self.faults, self.faults
        assert not any(self.live.values())
        for author in self.authors.values():
            assert author.ends == author.starts or author.abandoned  # promise 2
        for subscriber in self.all:
            subscriber.subscription.leave()
        self.check_the_memory()
        assert self.memory.used == 0
        assert not self.registry._open and not self.registry._closing
        assert self.registry.running == self.registry.subscriptions == 0
