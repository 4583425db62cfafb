"""Random histories of a cluster, with the real node, member and follower over a model engine.

A history has processes that crash, stop and are cut off, an engine that restarts, loses writes and
notifications and whose clock is set, and viewers that come and go. The upstream is numbered and can
be read again. `History.run` raises `Broken` if an invariant does not hold:

    exact      each viewer gets each number once and in order, from its first one to the end
    writer     one connection appends in a term, and nobody when it is over
    owner      a channel with a viewer and a reachable engine has an owner within lease + 1 s
    upstream   an upstream without a viewer ends after its grace
    one        when all has come to rest, one node reads an upstream with viewers
    served     a viewer whose process runs is not without rows for long, also without the engine
    alone      two nodes do not own a channel at the same time, unless the engine lost writes, or
               the lease of one was ended since its connections were closed
"""

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from aiostream_ds._cluster import node as real_node
from aiostream_ds._cluster.node_options import NodeOptions
from aiostream_ds._cluster.sharing import Incoming, Outgoing, Role
from aiostream_ds._frames.packet import CursorRange
from tests.cluster import model_engine as real_engine
from tests.cluster.frozen_loop import FrozenLoop

LEASE = 1.5
LONGEST_CHECK = 6.0
GRACE = 1.0
WITHOUT_OWNER = LEASE + 1.0
WITHOUT_VIEWER = GRACE + LEASE + 1.5  # presence of a dead node lasts as long as its lease
WITHOUT_ROWS = 8.0
UNTIL_HEARD = 1.0  # seconds until an owner whose lease had ended knows of the next one
CHECK = 0.2  # seconds between two checks


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Parts:
    """The modules that a history uses, for planted faults."""

    node: ModuleType = real_node
    engine: ModuleType = real_engine


@dataclass(frozen=True)
class Scenario:
    """What may happen in a history. Weights of the actions, and sizes."""

    nodes: int = 3
    channels: int = 2
    seconds: float = 14.0
    rate: float = 5.0  # rows a second
    latency: float = 0.004
    missed: float = 0.0
    entries: int = 400
    tail: int = 100  # messages that a process reads when it joins
    actions: dict[str, int] = field(
        default_factory=lambda: {
            "view": 6,
            "leave": 3,
            "crash": 3,
            "stop": 3,
            "cut": 2,
            "outage": 1,
            "restart": 1,
            "lose": 2,
            "evict": 1,
            "disconnect": 2,
            "slow": 1,
            "clock": 1,
        }
    )
    channels_of_node: int = 0  # that a node seems to have besides
    is_numbered: bool = True  # else it cannot be read again
    knows_watchers: bool = True  # whether a crash can be noticed before the end of a lease


class Upstream:
    """A numbered source: at each time, so many rows have been produced."""

    def __init__(self, history: "History", channel: str) -> None:
        self.history, self.channel = history, channel
        self.began = history.loop.time()
        self.ends_at: float | None = None
        self.runs: dict[object, Process] = {}  # open ones

    def total(self) -> int:
        now = self.history.loop.time()
        if self.ends_at is not None:
            now = min(now, self.ends_at)
        return int((now - self.began) * self.history.scenario.rate)

    def source(self, process: "Process") -> Any:
        """A source for one process."""

        async def read(resume: Incoming | None) -> AsyncGenerator[Outgoing, None]:
            run = object()
            self.runs[run] = process
            try:
                random = self.history.random
                await asyncio.sleep(random.choice([0.0, 0.01, 0.2]))
                cursor = self.total()
                if resume is not None and resume.cursors is not None:
                    cursor = resume.cursors.last
                while True:
                    last = min(self.total(), cursor + 20)
                    if last > cursor:
                        schema = b"schema %d" % (last // 50)
                        yield self.message(cursor, last, schema)
                        cursor = last
                    await asyncio.sleep(random.choice([0.05, 0.2, 0.5]))
            finally:
                self.runs.pop(run, None)

        return read

    def message(self, prev: int, last: int, schema: bytes) -> Outgoing:
        payload = b"%d %d" % (prev, last)
        if self.history.scenario.is_numbered:
            return Outgoing(payload, schema, CursorRange("e", prev, last))
        return Outgoing(payload, schema)


class Viewer:
    """The subscribers of one channel on one process: a Sink that checks what it gets."""

    def __init__(self, process: "Process", channel: str) -> None:
        self.process, self.channel = process, channel
        self.history = process.history
        self.cursor: int | None = None
        self.role_now = Role.JOINING
        self.is_wanted = True
        self.has_joined = False
        self.resets: list[str] = []
        self.since = self.received_at = self.history.loop.time()

    def joined(self, schema: bytes | None, tail: Sequence[Incoming]) -> None:
        if self.has_joined:
            self.history.fail("joined twice")
        self.has_joined = True
        for message in tail:
            prev, last = map(int, message.payload.split())
            prev = max(prev, message.after or 0)
            if self.cursor is not None and prev != self.cursor and self.is_exact:
                self.fail(f"the tail continues at {prev} after {self.cursor}")
            self.cursor = last

    @property
    def is_exact(self) -> bool:
        return self.history.scenario.is_numbered

    def receive(self, message: Incoming) -> None:
        if not self.has_joined:
            self.fail("a message before joined")
        prev, last = map(int, message.payload.split())
        if message.schema is None or not message.schema.startswith(b"schema "):
            self.fail(f"the schema {message.schema!r}")
        if self.is_exact:
            if message.schema != b"schema %d" % (last // 50):
                self.fail(f"{message.schema!r} for {last}")
            if message.after is not None:
                prev = max(prev, message.after)
            if self.cursor is not None and prev != self.cursor:
                self.fail(f"the next message has {prev} to {last} after {self.cursor}")
        elif self.cursor is not None and prev < self.cursor:
            self.fail(f"{prev} to {last} again after {self.cursor}")
        self.cursor = last
        self.received_at = self.history.loop.time()
        self.history.received += 1

    def reset(self, reason: str) -> None:
        self.resets.append(reason)
        self.history.resets += 1
        if not self.is_exact:
            self.cursor = None

    def role(self, role: Role, owner: str) -> None:
        self.role_now = role
        if role is Role.OWNER:
            self.history.without_owner[self.channel] = None  # also if it dies before the next check

    def degraded(self, reason: str | None) -> None:
        self.history.degradations += reason is not None
        if not self.is_exact:
            self.cursor = None  # what comes is of another run

    def fail(self, text: str) -> None:
        if not self.process.is_dead:
            self.history.fail(f"{self.process.name} {self.channel}: {text}")


class Process:
    """One process of a server: a node and its viewers."""

    def __init__(self, history: "History", server: int, number: int) -> None:
        self.history = history
        self.name = f"n{server}-{number}"
        self.engine = history.parts.engine.ModelEngine(
            history.server, seed=history.random.getrandbits(32)
        )
        self.engine.latency = (history.scenario.latency / 4, history.scenario.latency)
        self.engine.missed = history.scenario.missed
        self.viewers: dict[str, Viewer] = {}
        self.runs: dict[str, asyncio.Task[Any]] = {}
        self.is_dead = self.is_ready = False
        self.usable_since = self.runs_since = history.loop.time()
        self.ends = asyncio.Event()
        skew = history.random.uniform(-500, 500)
        loop = history.loop
        options = NodeOptions(
            lease=LEASE,
            grace=GRACE,
            longest_check=LONGEST_CHECK,
            tail=history.scenario.tail,
            clock=lambda: loop.time() + skew,
            wall_clock=lambda: loop.time() + skew / 20,
            random=random.Random(history.random.getrandbits(32)),
        )
        self.node = history.parts.node.ClusterNode(self.engine, self.name, options)
        if more := history.scenario.channels_of_node:
            self.node.channel_count = lambda: more
        self.task = loop.task_of(self.name, self.run())

    async def run(self) -> None:
        async with self.node:
            self.is_ready = True
            await self.ends.wait()

    @property
    def is_stopped(self) -> bool:
        return self.history.loop.is_stopped(self.name)

    @property
    def is_usable(self) -> bool:
        """Whether nothing is wrong with it now."""
        return (
            not self.is_dead
            and self.is_ready
            and not self.is_stopped
            and not self.engine.is_cut
            and self.history.server.is_up
        )

    def disturbed(self) -> None:
        self.usable_since = self.history.loop.time()

    def view(self, channel: str) -> None:
        """A subscriber comes."""
        self.history.without_viewer[channel] = None  # also if it leaves before the next check
        viewer = self.viewers.get(channel)
        if viewer is not None:
            if not viewer.is_wanted:
                viewer.is_wanted = True
                viewer.since = self.history.loop.time()
                self.node.set_subscribed(channel, True)
            return
        if not self.is_ready or self.is_dead or channel in self.runs:
            return
        self.viewers[channel] = Viewer(self, channel)
        self.runs[channel] = self.history.loop.task_of(self.name, self.share(channel))

    async def share(self, channel: str) -> None:
        viewer = self.viewers[channel]
        source = self.history.upstreams[channel].source(self)
        try:
            if not viewer.is_wanted:  # it has left before this began, as a session does
                return
            await self.node.run_channel(channel, source, viewer)
            if viewer.is_wanted and not self.ends.is_set():
                # it was wanted again too late: as when Grafana subscribes again
                self.history.loop.call_later(0.01, self.view, channel)
        except Exception as error:
            if not self.is_dead:
                self.history.fail(f"{self.name} {channel}: run_channel raised {error!r}")
        finally:
            if self.viewers.get(channel) is viewer:
                del self.viewers[channel]
            self.runs.pop(channel, None)

    def leave(self, channel: str, cancelled: bool) -> None:
        """The last subscriber goes."""
        viewer = self.viewers.get(channel)
        if viewer is None:
            return
        viewer.is_wanted = False
        if cancelled:
            self.runs[channel].cancel()
        else:
            self.node.set_subscribed(channel, False)

    def kill(self) -> None:
        """kill -9."""
        self.is_dead = True
        self.engine.is_dead = True
        self.engine.disconnect(again=False)
        self.history.server.connections.pop(self.engine, None)
        for upstream in self.history.upstreams.values():
            for run in [run for run, owner in upstream.runs.items() if owner is self]:
                del upstream.runs[run]
        self.history.loop.stop_node(self.name)

    async def stop(self) -> None:
        """End it, or what is left of it."""
        self.history.loop.continue_node(self.name)
        if self.is_dead:
            self.task.cancel()
            for run in self.runs.values():
                run.cancel()
        self.ends.set()
        tasks = [self.task, *self.runs.values()]
        await asyncio.wait(tasks, timeout=60)
        if left := [task for task in tasks if not task.done()]:
            self.history.fail(f"{self.name} does not end: {left}")
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() and not self.is_dead:
                self.history.fail(f"{self.name} raised {task.exception()!r}")


class History:
    """One random history."""

    def __init__(self, seed: int, scenario: Scenario, parts: Parts | None = None) -> None:
        self.random = random.Random(seed)
        self.seed, self.scenario, self.parts = seed, scenario, parts or Parts()
        self.loop = FrozenLoop()
        self.loop.set_exception_handler(lambda _, context: self.fault(context))
        self.server = self.parts.engine.ModelServer(entries=scenario.entries)
        self.server.knows_watchers = scenario.knows_watchers
        self.processes: dict[int, Process] = {}
        self.dead: list[Process] = []
        self.numbers = itertools.count()
        self.failures: list[str] = []
        self.log: list[str] = []
        self.received = self.resets = self.degradations = 0
        self.takeovers: list[float] = []
        self.has_lost = False
        self.allowance = 0.0  # seconds by which the engine's clock was set back
        self.with_two: dict[str, float] = {}
        self.without_owner: dict[str, float | None] = {}
        self.without_viewer: dict[str, float | None] = {}

    def fault(self, context: dict[str, Any]) -> None:
        self.fail(f"{context.get('message')}: {context.get('exception')!r}")

    def fail(self, text: str) -> None:
        self.failures.append(f"{self.loop.time() - 1000:.3f}: {text}")

    def note(self, text: str) -> None:
        self.log.append(f"{self.loop.time() - 1000:.3f} {text}")

    def run(self) -> "History":
        try:
            self.loop.run_until_complete(self.play())
            self.loop.settle()
            if left := asyncio.all_tasks(self.loop):
                self.fail(f"tasks are left: {left}")
        finally:
            self.loop.close()
        if self.failures:
            raise Broken("\n".join([f"seed {self.seed}", *self.log, *self.failures[:5]]))
        return self

    async def play(self) -> None:
        names = [f"c{number}" for number in range(self.scenario.channels)]
        self.upstreams = {name: Upstream(self, name) for name in names}
        for number in range(self.scenario.nodes):
            self.start(number)
        await asyncio.sleep(0.1)
        checks = asyncio.create_task(self.check_always())
        ends_at = self.loop.time() + self.scenario.seconds
        names_of_actions = list(self.scenario.actions)
        weights = list(self.scenario.actions.values())
        for process in self.processes.values():
            for channel in names:
                if self.random.random() < 0.7:
                    process.view(channel)
        while self.loop.time() < ends_at and not self.failures:
            await asyncio.sleep(self.random.choice([0.0, 0.05, 0.3, 1.0, 2.0]))
            [action] = self.random.choices(names_of_actions, weights)
            getattr(self, f"do_{action}")()
        await self.come_to_rest()
        checks.cancel()
        await asyncio.gather(checks, return_exceptions=True)
        self.check_writers()
        for process in [*self.processes.values(), *self.dead]:
            await process.stop()
        for channel, upstream in self.upstreams.items():
            if upstream.runs:
                self.fail(f"{channel}: an upstream is still open")

    def start(self, number: int) -> None:
        self.processes[number] = Process(self, number, next(self.numbers))

    async def come_to_rest(self) -> None:
        """Heal everything; all viewers then receive everything."""
        self.note("heal")
        self.heal_engine()
        for process in self.processes.values():
            self.heal(process)
            process.engine.missed = 0.0
        await asyncio.sleep(10 + self.allowance)
        for upstream in self.upstreams.values():
            upstream.ends_at = self.loop.time()
        await asyncio.sleep(2)
        for process in self.processes.values():
            for channel, viewer in process.viewers.items():
                total = self.upstreams[channel].total()
                if viewer.is_wanted and viewer.cursor != total and self.scenario.is_numbered:
                    viewer.fail(f"received until {viewer.cursor} of {total} as {viewer.role_now}")
        for channel, upstream in self.upstreams.items():
            viewers = [p.viewers.get(channel) for p in self.processes.values()]
            expected = int(any(viewer and viewer.is_wanted for viewer in viewers))
            if len(upstream.runs) != expected:
                readers = [process.name for process in upstream.runs.values()]
                self.fail(f"{channel} is read by {readers}, and there should be {expected} of them")

    # -- what happens ----------------------------------------------------------------------------

    def some_process(self) -> Process:
        return self.random.choice(list(self.processes.values()))

    def some_channel(self) -> str:
        return self.random.choice(list(self.upstreams))

    def do_view(self) -> None:
        process, channel = self.some_process(), self.some_channel()
        if not process.is_stopped:
            process.view(channel)
            self.note(f"view {process.name} {channel}")

    def do_leave(self) -> None:
        process, channel = self.some_process(), self.some_channel()
        if not process.is_stopped:
            cancelled = self.random.random() < 0.5
            process.leave(channel, cancelled)
            self.note(f"leave {process.name} {channel} {cancelled=}")

    def do_crash(self) -> None:
        number = self.random.choice(list(self.processes))
        process = self.processes.pop(number)
        channels = [name for name, viewer in process.viewers.items() if viewer.is_wanted]
        for name in self.upstreams:
            if self.server.owner(name) == process.name:
                self.without_owner[name] = None  # others wait for the end of its lease, too
        process.kill()
        self.dead.append(process)
        self.start(number)
        started = self.processes[number]
        self.note(f"crash {process.name}, start {started.name}")
        for channel in channels:  # the browsers come back
            self.loop.call_later(self.random.uniform(0.1, 3.0), started.view, channel)

    def do_stop(self) -> None:
        process = self.some_process()
        if process.is_stopped:
            return
        seconds = self.random.choice([0.2, 1.0, 1.4, 2.0, 5.0])
        self.note(f"stop {process.name} {seconds}")
        self.loop.stop_node(process.name)
        self.loop.call_later(seconds, self.go_on, process)

    def go_on(self, process: Process) -> None:
        if not process.is_dead and process.is_stopped:
            self.note(f"continue {process.name}")
            self.loop.continue_node(process.name)
            process.disturbed()
            process.runs_since = self.loop.time()

    def do_cut(self) -> None:
        process = self.some_process()
        if process.engine.is_cut:
            return
        seconds = self.random.choice([0.2, 1.0, 2.0, 5.0])
        self.note(f"cut {process.name} {seconds}")
        process.engine.is_cut = True
        self.loop.call_later(seconds, self.heal, process)

    def heal(self, process: Process) -> None:
        self.go_on(process)
        process.engine.latency = (self.scenario.latency / 4, self.scenario.latency)
        if process.engine.is_cut and not process.is_dead:
            process.engine.is_cut = False
            process.engine.disconnect()
        process.disturbed()

    def do_outage(self) -> None:
        seconds = self.random.choice([0.2, 1.0, 2.0, 4.0])
        self.note(f"outage {seconds}")
        self.server.is_up = False
        self.loop.call_later(seconds, self.heal_engine)

    def heal_engine(self) -> None:
        if not self.server.is_up:
            self.server.is_up = True
            self.server.disconnect_all()
        self.engine_disturbed()

    def engine_disturbed(self) -> None:
        for process in self.processes.values():
            process.disturbed()

    def do_restart(self) -> None:
        keep = self.random.random() < 0.5
        self.note(f"restart {keep=}")
        self.has_lost = self.has_lost or not keep
        self.server.restart(keep=keep)
        self.engine_disturbed()

    def do_lose(self) -> None:
        count = self.random.choice([1, 2, 5, 20, 100])
        self.note(f"lose {count}")
        self.has_lost = True
        self.server.lose_writes(count)
        self.engine_disturbed()

    def do_evict(self) -> None:
        channel = self.some_channel()
        self.note(f"evict {channel}")
        self.has_lost = True
        self.server.evict(channel)
        self.engine_disturbed()

    def do_disconnect(self) -> None:
        process = self.some_process()
        self.note(f"disconnect {process.name}")
        if not process.is_dead:
            process.engine.disconnect()
            process.disturbed()

    def do_reset(self) -> None:
        """A network that closes the connections of a process, and takes no new ones for a time."""
        process = self.some_process()
        if process.engine.is_cut:
            return
        seconds = self.random.choice([0.05, 0.3, 0.8, 1.2, 3.0])
        self.note(f"reset {process.name} {seconds}")
        process.engine.is_cut = True
        process.engine.disconnect()
        self.loop.call_later(seconds, self.heal, process)

    def do_slow(self) -> None:
        process = self.some_process()
        self.note(f"slow {process.name}")
        process.engine.latency = (0.0, 0.3)
        process.disturbed()
        self.loop.call_later(2.0, self.heal, process)

    def do_clock(self) -> None:
        seconds = self.random.choice([-5.0, -1.0, 1.0, 5.0])
        self.note(f"clock {seconds}")
        self.server.clock += seconds
        self.has_lost = self.has_lost or seconds > 0  # leases end early
        self.allowance += max(-seconds, 0.0)
        self.engine_disturbed()

    # -- invariants ------------------------------------------------------------------------------

    async def check_always(self) -> None:
        while True:
            await asyncio.sleep(CHECK)
            for channel in self.upstreams:
                self.check_owner(channel)
                self.check_rows(channel)
                self.check_upstream(channel)

    def members(self, channel: str) -> list[tuple[Process, Any]]:
        found = []
        for process in self.processes.values():
            member = process.node._members.get(channel)
            if member is not None:
                found.append((process, member))
        return found

    def check_owner(self, channel: str) -> None:
        now = self.loop.time()
        members = self.members(channel)
        owners = [p for p, m in members if m.role is Role.OWNER and m.term and not p.is_stopped]
        sure = [p for p in owners if p.node.lease.may_write and not self.server.was_ended(p.name)]
        sure = [p for p in sure if not p.engine.is_cut]  # one that is cannot hear of the next one
        if self.has_lost or len(sure) < 2:
            self.with_two[channel] = now
        elif now - self.with_two.get(channel, now) > UNTIL_HEARD:
            self.fail(f"{channel} has {len(owners)} owners: {[p.name for p in owners]}")
        waiting = [
            max(process.usable_since, viewer.since)
            for process in self.processes.values()
            if process.is_usable and (viewer := process.viewers.get(channel)) and viewer.is_wanted
        ]
        if owners or not waiting:
            before = self.without_owner.get(channel)
            if owners and before is not None:
                self.takeovers.append(now - max(before, min(waiting, default=now)))
            self.without_owner[channel] = None
            return
        since = self.without_owner.get(channel)
        self.without_owner[channel] = since = now if since is None else since
        limit = WITHOUT_OWNER + self.allowance + CHECK
        if self.scenario.missed:
            limit += LONGEST_CHECK  # a resignation may be missed
        if now - max(since, min(waiting)) > limit:
            self.fail(f"{channel} has had no owner for {now - max(since, min(waiting)):.2f} s")

    def check_rows(self, channel: str) -> None:
        now = self.loop.time()
        for process in self.processes.values():
            viewer = process.viewers.get(channel)
            if viewer is None or not viewer.is_wanted or process.is_stopped:
                continue
            if (
                now - max(viewer.since, viewer.received_at, process.runs_since)
                > WITHOUT_ROWS + self.allowance
            ):
                viewer.fail(f"no rows since {viewer.received_at - 1000:.3f}")

    def check_upstream(self, channel: str) -> None:
        now = self.loop.time()
        if any(
            (viewer := process.viewers.get(channel)) and viewer.is_wanted
            for process in self.processes.values()
        ):
            self.without_viewer[channel] = None
            return
        since = self.without_viewer.get(channel)
        self.without_viewer[channel] = since = now if since is None else since
        for process in self.upstreams[channel].runs.values():
            if not process.is_usable:
                continue
            limit = WITHOUT_VIEWER + self.allowance
            if now - max(since, process.usable_since) > limit:
                self.fail(f"{process.name} {channel}: an upstream without a viewer")

    def check_writers(self) -> None:
        if self.server.late:
            self.fail(f"an entry in a term that is over: {self.server.late[0]}")
        for channel, entries in self.server.appended.items():
            writers: dict[tuple[int, bytes], set[int]] = {}
            for entry, client, start in entries:
                writers.setdefault((entry.id.term, start), set()).add(id(client))
            for (term, _), found in writers.items():
                if len(found) > 1:
                    self.fail(f"{channel}: {len(found)} writers in term {term}")
