"""Grafana's stream manager: one RunStream per channel, presence checks, retries.

The rules are those of pkg/services/live/runstream. `grafana.py` adds the calls of a dashboard.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from grpclib.client import Channel, UnaryStreamMethod
from grpclib.exceptions import GRPCError, StreamTerminatedError

from aiostream_ds._loggers import get_logger
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.models import User

__all__ = [
    "CHECK_INTERVAL",
    "EMPTY_CHECKS",
    "PacketSink",
    "StreamManager",
    "uncancel_on_disconnect",
]

log = get_logger(__name__)

CHECK_INTERVAL = 5.0
"""Seconds between Grafana's presence checks of a channel (live/runstream/manager.go)."""

EMPTY_CHECKS = 3
"""Successive checks without a subscriber after which RunStream is cancelled."""

FAST_FAILURE = 0.1
"""Seconds; after a RunStream that ran longer, Grafana calls it again at once."""

RETRY_DELAYS = (0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)
"""Seconds that Grafana waits after one, two, … successive RunStreams that failed sooner."""


class PacketSink(Protocol):
    """Receives a channel's packets: a `Viewer`, or a page of the console."""

    def push(self, payload: bytes) -> None:
        """A packet arrived."""

    def end(self) -> None:
        """The stream method returned: there are no more packets."""


class _RunStreamCall:
    """One RunStream of a channel, with the user of its first subscription."""

    def __init__(self, path: str, user: User | None) -> None:
        self.path = path
        self.user = user
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()


class StreamManager:
    """The subscribers of each path and its RunStream.

    `reading_delay` is the number of seconds that this Grafana waits after each packet: it makes a
    slow subscriber.
    """

    _channel: Channel

    def __init__(self, tasks: TaskGroup) -> None:
        self.reading_delay = 0.0
        self._tasks = tasks
        self._runs: dict[str, _RunStreamCall] = {}
        self._viewers: dict[str, set[PacketSink]] = {}

    def context(self, user: User | None) -> pb.PluginContext:
        """The plugin context of a call by `user`."""
        raise NotImplementedError

    def _join(self, path: str, sink: PacketSink, user: User | None) -> None:
        if path not in self._runs:
            self._start(path, user)
        self._viewers.setdefault(path, set()).add(sink)

    def _leave(self, path: str, sink: PacketSink) -> None:
        viewers = self._viewers.get(path)
        if viewers is not None:
            viewers.discard(sink)
            if not viewers:
                del self._viewers[path]

    def _start(self, path: str, user: User | None) -> None:
        run = self._runs[path] = _RunStreamCall(path, user)
        self._tasks.start_soon(self._run, run)
        self._tasks.start_soon(self._watch, run)

    async def _run(self, run: _RunStreamCall) -> None:
        fast_failures = 0
        try:
            with run.scope:
                while True:
                    started = anyio.current_time()
                    try:
                        with uncancel_on_disconnect():
                            await self._receive(run)
                        for viewer in tuple(self._viewers.get(run.path, ())):
                            viewer.end()
                        return  # as in Grafana, viewers stay subscribed and get nothing more
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

    async def _receive(self, run: _RunStreamCall) -> None:
        rpc = UnaryStreamMethod(
            self._channel, "/pluginv2.Stream/RunStream", pb.RunStreamRequest, pb.StreamPacket
        )
        async with rpc.open() as call:
            request = pb.RunStreamRequest(plugin_context=self.context(run.user), path=run.path)
            await call.send_message(request, end=True)
            async for packet in call:
                for viewer in tuple(self._viewers.get(run.path, ())):
                    viewer.push(packet.data)
                # with a stream that never waits, a cancellation would not be delivered otherwise
                await anyio.lowlevel.checkpoint()
                if self.reading_delay:
                    await anyio.sleep(self.reading_delay)

    async def _watch(self, run: _RunStreamCall) -> None:
        empty = 0
        while not run.ended.is_set():
            with anyio.move_on_after(CHECK_INTERVAL):
                await run.ended.wait()
            empty = 0 if self._viewers.get(run.path) else empty + 1
            if empty == EMPTY_CHECKS:
                run.scope.cancel()


@contextmanager
def uncancel_on_disconnect() -> Iterator[None]:
    """Undo grpclib's cancellation of the current task when a connection is lost.

    grpclib cancels the task and does not call `uncancel`; anyio would then mistake its own next
    cancellation for an external one.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    except StreamTerminatedError:
        while task is not None and task.cancelling() > before:
            task.uncancel()
        raise
