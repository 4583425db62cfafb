"""The streams that this process shares with the other processes of a cluster.

A session takes part in one channel. It begins with the first subscriber of this node, and ends when
no node has subscribers, another node owns the channel, or the settings change: the owner goes on
for viewers of other nodes when its own have left.
"""

import os
from contextlib import aclosing
from functools import partial

import anyio
from anyio.abc import TaskGroup
from msgspec.structs import replace

from aiostream_ds._author_code import contained, describe
from aiostream_ds._channels.channel import Channel, Runner
from aiostream_ds._channels.exceptions import ChannelError, ShuttingDown, Superseded
from aiostream_ds._channels.log import Log
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Policy, Replay
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._cluster.channel_names import channel_name
from aiostream_ds._cluster.engine import EngineError
from aiostream_ds._cluster.log_reading import read_log
from aiostream_ds._cluster.message_cipher import Cipher
from aiostream_ds._cluster.node import ClusterNode
from aiostream_ds._cluster.node_requests import NodeRequests
from aiostream_ds._cluster.packet_codec import PacketCodec
from aiostream_ds._cluster.shared_log import SharedLog
from aiostream_ds._grafana.channel_counts import CountingObserver
from aiostream_ds._grafana.channel_request import ChannelRequest
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.shared_channel import SharedChannel, SharedStream
from aiostream_ds._grafana.shared_publishing import PUBLISH_KIND, PublishHandler
from aiostream_ds._grafana.shared_stores import SharedStores
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import Counters
from aiostream_ds.errors import ConfigError

__all__ = ["SharedStreams", "is_shared"]

log = get_logger(__name__)

READ_TIMEOUT = 2.0
"""Seconds in which the engine must return the log of a channel for a query."""


def is_shared(request: ChannelRequest) -> bool:
    """Whether a stream is to be shared: by its option, or by a setting of the data source."""
    return request.instance.source._is_shared(request.stream.options.share)


class SharedStreams:
    """The shared streams of one process.

    Not thread-safe: use it in the event loop's thread.

    Args:
        node: this process in the cluster. `open` enters it.
        tasks: where sessions run.
        counters: counts the runs of streams, and errors.
        cipher: encrypts the messages, if the cluster has a key.

    Attributes:
        stores: the stores of rows that are shared.
        requests: those to and from other nodes.
        inner: the registry in which the streams run whose channels this node owns.
        problem: why nothing is shared; empty if the cluster can be used.
    """

    def __init__(
        self,
        node: ClusterNode,
        tasks: TaskGroup,
        counters: Counters,
        cipher: Cipher | None = None,
    ) -> None:
        self.node = node
        self.problem = ""
        self._opened = anyio.Event()
        self._leaving = anyio.Event()
        self._left = anyio.Event()
        self.inner = ChannelRegistry(observer=_RunObserver(counters))
        self.requests = NodeRequests(node, tasks, cipher)
        self.stores = SharedStores(node, self.requests, tasks, cipher)
        self.requests.handle(PUBLISH_KIND, PublishHandler(self))
        self._tasks = tasks
        self._counters = counters
        self._cipher = cipher
        self._sessions: dict[str, _Session] = {}
        self._watched: set[Instance] = set()  # their sessions end with them
        self._is_closed = False

    def shares(self, request: ChannelRequest) -> bool:
        """Whether a stream is shared."""
        return not self.problem and is_shared(request)

    @property
    def why_not_shared(self) -> str:
        """Why nothing is shared at the moment; empty if the cluster is reached."""
        if self.problem or not self._opened.is_set():
            return self.problem
        state = self.node.state
        return "" if state.connected else f"the cluster cannot be reached: {state.reason}"

    def instance_of(self, name: str) -> Instance | None:
        """The data source of a channel in which this node takes part."""
        session = self._sessions.get(name)
        return None if session is None or session.is_ending else session.instance

    def name(self, instance: Instance, path: str) -> str:
        """The channel's name in the engine."""
        return channel_name(instance.identity, path, is_readable=self._cipher is None)

    def policies(self, policy: Policy) -> tuple[Policy, Policy]:
        """How the viewers' channel and the channel of the author's stream treat their subscribers.

        Rows are collected, and the author waits, for the engine; a slow viewer of one node neither
        blocks the author nor delays other nodes.
        """
        buffer = policy.buffer
        if buffer.full == "block":
            buffer = replace(buffer, full="drop_oldest")
        viewers = replace(policy, buffer=buffer, flush=0.0, max_hz=0.0)
        stream = replace(policy, linger=0.0, stale=0.0, replay=None)
        return viewers, stream

    def runner(self, request: ChannelRequest, stream: SharedStream) -> Runner:
        """The runner of the viewers' channel of a shared stream."""
        name = self.name(request.instance, request.path)

        async def run(channel: Channel) -> None:
            while True:
                session = await self._session(name, request.instance, stream)
                session.attach(channel)
                try:
                    if await session.wait():
                        return
                finally:
                    session.detach(channel)

        return run

    def log(self, instance: Instance, key: ChannelKey, replay: Replay, generation: int) -> Log:
        """The log of a channel whose rows have no cursor. A `LogFactory` from the second argument
        on."""
        session = self._sessions.get(self.name(instance, key.path))
        if session is not None and session.instance is instance and session.row_log is not None:
            return session.row_log
        read = partial(self._read_log, self.name(instance, key.path))
        return SharedLog(replay, os.urandom(6).hex(), generation, read)

    async def _read_log(self, name: str, row_log: SharedLog) -> None:
        """Append what the engine has to a log. Without the engine it stays as it is."""
        await self._opened.wait()
        if self.problem or self.node.state.reason:
            return
        codec = PacketCodec(name, self._cipher)
        try:
            with anyio.fail_after(READ_TIMEOUT):
                async with aclosing(read_log(self.node, name, codec)) as pages:
                    async for schema, messages in pages:
                        if row_log.is_live:  # the node follows the channel now
                            return
                        row_log.schema = schema
                        for message in messages:
                            row_log.append_message(message, self.inner.loop.time())
        except (EngineError, TimeoutError) as error:
            log.info("the log of a shared channel cannot be read: %s", error)

    async def _session(self, name: str, instance: Instance, stream: SharedStream) -> "_Session":
        """The session of a channel, which begins if there is none. One of older settings ends."""
        await self._opened.wait()
        if self._is_closed:
            raise ShuttingDown("the plugin is stopping")
        if self.problem:  # Grafana calls again, and then the stream is not shared
            raise Superseded(f"the cluster cannot be used: {self.problem}")
        while True:
            found = self._sessions.get(name)
            if found is None:
                break
            if found.instance is instance and not found.is_ending:
                return found
            found.cancel()
            await found.wait_until_closed()
        channel = SharedChannel(stream, self.inner, PacketCodec(name, self._cipher), self._counters)
        session = _Session(self.node, name, instance, channel, stream, self._counters)
        self._sessions[name] = session
        self._tasks.start_soon(self._run, name, session)
        if instance not in self._watched:
            self._watched.add(instance)
            self._tasks.start_soon(self._end_with_settings, instance)
        return session

    async def _end_with_settings(self, instance: Instance) -> None:
        """One task for all sessions of an instance: there may be thousands."""
        await instance.wait_until_retired()
        self._watched.discard(instance)
        for session in tuple(self._sessions.values()):
            if session.instance is instance:
                session.cancel()

    async def _run(self, name: str, session: "_Session") -> None:
        try:
            with session.instance.in_use():
                await session.run()
        finally:
            if self._sessions.get(name) is session:
                del self._sessions[name]

    async def take_part(self) -> None:
        """Be a node of the cluster, until `aclose`. Streams wait until it is opened. They go on
        without the cluster if it cannot be used, or the node has failed."""
        try:
            async with self.node:
                self._opened.set()
                try:
                    await self._leaving.wait()
                except BaseException:  # before the node ends what runs on it, which begins again
                    self.problem = "the node of the cluster has failed"
                    raise
        except ConfigError as error:
            self.problem = str(error)
            log.error("the cluster cannot be used, streams are not shared: %s", error)
        except BaseException as caught:
            failure = contained(caught)
            if failure is None:
                raise
            first = _first(failure) if isinstance(failure, ExceptionGroup) else failure
            self.problem = f"the node of the cluster has failed: {describe(first)}"
            log.error("%s; streams are not shared", self.problem, exc_info=failure)
        finally:
            self._opened.set()
            self._left.set()

    async def aclose(self, seconds: float) -> None:
        """End all sessions, so that other nodes take the channels of this one, then the streams,
        and leave the cluster. Gives up after so many seconds."""
        self._is_closed = True
        sessions = list(self._sessions.values())
        for session in sessions:
            session.cancel()
        with anyio.move_on_after(seconds):
            for session in sessions:
                await session.wait_until_closed()
            await self.inner.aclose(seconds)
            self._leaving.set()
            await self._left.wait()


class _Session:
    """Takes part in one channel, with the settings of one instance."""

    def __init__(
        self,
        node: ClusterNode,
        name: str,
        instance: Instance,
        channel: SharedChannel,
        stream: SharedStream,
        counters: Counters,
    ) -> None:
        self.instance = instance
        self._path = stream.key.path
        self._counters = counters
        self.row_log = stream.row_log
        self._node = node
        self._name = name
        self._channel = channel
        self._attached: Channel | None = None
        self._is_running = False
        self._scope = anyio.CancelScope()
        self._closed = anyio.Event()
        self._error: Exception | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the session was cancelled, or is over."""
        return self._scope.cancel_called or self._closed.is_set() or self.instance.is_retired

    def attach(self, channel: Channel) -> None:
        """This node has subscribers, which the channel has."""
        self._attached = channel
        self._channel.attach(channel)
        self._set_subscribed(subscribed=True)

    def detach(self, channel: Channel) -> None:
        """The channel has ended."""
        if self._attached is not channel:
            return
        self._attached = None
        self._channel.detach()
        self._set_subscribed(subscribed=False)

    def _set_subscribed(self, *, subscribed: bool) -> None:
        if self._is_running:
            self._node.set_subscribed(self._name, subscribed)

    def cancel(self) -> None:
        """Leave the channel of the cluster."""
        self._scope.cancel()

    async def run(self) -> None:
        """Take part until the session is over."""
        try:
            with self._scope:
                await self._take_part()
        except Exception as error:
            self._error = error
            self._report(error)
        finally:
            self._closed.set()

    def _report(self, error: Exception) -> None:
        """Log what the author's stream has not raised itself: that is logged where it runs."""
        extra = {"path": self._path}
        if isinstance(error, ChannelError):
            self._counters.count_error("transient")
            log.warning("a shared stream has ended: %s", describe(error), extra=extra)
            return
        self._counters.count_error("bug")
        log.error("a shared stream has failed", exc_info=error, extra=extra)

    async def _take_part(self) -> None:
        if self.row_log is not None:
            await self.row_log.refresh()  # more than the tail that the node reads
        if self._attached is None:  # its channel has ended meanwhile
            return
        self._is_running = True
        try:
            # rows with cursors are in the history: their newest position is needed
            tail = 1 if self.row_log is None else None
            await self._node.run_channel(self._name, self._channel.messages, self._channel, tail)
        finally:
            self._is_running = False
            if self.row_log is not None:
                self.row_log.is_live = False

    async def wait(self) -> bool:
        """Wait until the session is over. Returns whether the author's stream has returned; if not,
        the session has ended because there were no subscribers. Raises what the stream has raised.

        Raises:
            Superseded: the settings have changed, or the plugin stops.
        """
        await self._closed.wait()
        if self._error is not None:
            raise self._error
        if self._scope.cancel_called:
            raise Superseded("the settings have changed")
        return self._channel.has_ended

    async def wait_until_closed(self) -> None:
        """Wait until the session is over."""
        await self._closed.wait()


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("expected an exception group with an exception")


class _RunObserver(CountingObserver):
    """Counts the runs of the streams themselves: their packets are counted where they are emitted
    to viewers."""

    def on_emit(self, key: ChannelKey, packets: int, rows: int, size: int) -> None:
        """Not counted."""
