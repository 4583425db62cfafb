"""Grafana's stream manager, played: one RunStream a channel, presence checks, retries.

`grafana.py` adds what a dashboard does. The rules are those of pkg/services/live/runstream.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from grpclib.client import Channel, UnaryStreamMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.models import User

__all__ = [
    "CHECK_INTERVAL",
    "EMPTY_CHECKS",
    "Follower",
    "StreamManager",
    "cancellations_put_right",
]

log = logging.getLogger(__name__)

CHECK_INTERVAL = 5.0
"""Seconds between two looks of Grafana's at who follows a channel (live/runstream/manager.go)."""

EMPTY_CHECKS = 3
"""Looks in a row that find nobody before RunStream is cancelled."""

FAST_FAILURE = 0.1
"""Seconds; a RunStream that fails later than this is called again at once."""

RETRY_DELAYS = (0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
"""Seconds that Grafana waits after one, two, … RunStreams in a row that failed faster."""


class Follower(Protocol):
    """Who is told what a channel brings: a `Viewer`, or a page of the console."""

    def push(self, payload: bytes) -> None:
        """One packet."""

    def end(self) -> None:
        """The stream has ended by its author's return: nothing more comes."""


class _Run:
    """One RunStream of a channel, with the identity of whoever came first."""

    def __init__(self, path: str, user: User | None) -> None:
        self.path = path
        self.user = user
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class StreamManager:
    """Who follows which path, and the RunStream of each path. `reading_delay`: seconds that this
    Grafana takes over each packet, for tests of what becomes of rows that nobody fetches."""

    _channel: Channel

    def __init__(self, tasks: TaskGroup) -> None:
        self.reading_delay = 0.0
        self._tasks = tasks
        self._runs: dict[str, _Run] = {}
        self._viewers: dict[str, set[Follower]] = {}

    def context(self, user: User | None) -> pb.PluginContext:
        """The plugin context of a call by `user`."""
        raise NotImplementedError

    def _join(self, path: str, follower: Follower, user: User | None) -> None:
        """Somebody who was let in follows the path from now on."""
        if path not in self._runs:
            self._start(path, user)
        self._viewers.setdefault(path, set()).add(follower)

    def _leave(self, path: str, follower: Follower) -> None:
        viewers = self._viewers.get(path)
        if viewers is not None:
            viewers.discard(follower)
            if not viewers:
                del self._viewers[path]

    def _start(self, path: str, user: User | None) -> None:
        run = self._runs[path] = _Run(path, user)
        self._tasks.start_soon(self._run, run)
        self._tasks.start_soon(self._watch, run)

    async def _run(self, run: _Run) -> None:
        fast_failures = 0
        try:
            with run.scope:
                while True:
                    started = anyio.current_time()
                    try:
                        with cancellations_put_right():
                            await self._receive(run)
                        for viewer in tuple(self._viewers.get(run.path, ())):
                            viewer.end()
                        return  # as in Grafana: who still looks stays subscribed, and sees nothing
                    except (GRPCError, StreamTerminatedError) as error:
                        log.debug("RunStream %s ended: %r", run.path, error)
                    if anyio.current_time() - started < FAST_FAILURE:
                        delay = RETRY_DELAYS[min(fast_failures, len(RETRY_DELAYS) - 1)]
                        await anyio.sleep(delay)
                        fast_failures += 1
                    else:
                        fast_failures = 0
        finally:
            run.ended.set()
            if self._runs.get(run.path) is run:
                del self._runs[run.path]

    async def _receive(self, run: _Run) -> None:
        rpc = UnaryStreamMethod(
            self._channel, "/pluginv2.Stream/RunStream", pb.RunStreamRequest, pb.StreamPacket
        )
        async with rpc.open() as call:
            request = pb.RunStreamRequest(plugin_context=self.context(run.user), path=run.path)
            await call.send_message(request, end=True)
            async for packet in call:
                for viewer in tuple(self._viewers.get(run.path, ())):
                    viewer.push(packet.data)
                # a stream that never waits keeps this task's future done whenever a cancellation
                # could be delivered: here it is heeded
                await anyio.lowlevel.checkpoint()
                if self.reading_delay:
                    await anyio.sleep(self.reading_delay)

    async def _watch(self, run: _Run) -> None:
        empty = 0
        while not run.ended.is_set():
            with anyio.move_on_after(CHECK_INTERVAL):
                await run.ended.wait()
            empty = 0 if self._viewers.get(run.path) else empty + 1
            if empty == EMPTY_CHECKS:
                run.scope.cancel()


@contextmanager
def cancellations_put_right() -> Iterator[None]:
    """grpclib ends a call whose connection is lost by cancelling its task, and leaves that counted:
    anyio would take the next cancellation for one from outside."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except StreamTerminatedError:
        while task is not None and task.cancelling() > before:
            task.uncancel()
        raise
