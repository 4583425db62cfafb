"""Streams with `keep_running`: they go on after their last viewer left, over changes of the
settings and restarts of the plugin.

    watched ──last viewer leaves──▶ kept until a time ──▶ ended
                                      └─ settings change, restart: started again until that time

Which streams these are is a note in the store of the data source.
"""

import time
from collections.abc import Callable
from typing import Annotated, cast

import anyio
import msgspec
from msgspec import Meta

from aiostream_ds._channels.channel import State
from aiostream_ds._channels.exceptions import ChannelError
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._grafana.channel_request import ChannelRequest, resolve_channel
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import NotFound, PluginError
from aiostream_ds.stores import SqliteStore, StoreError

__all__ = ["KEPT_STREAMS", "KeptStreams"]

log = get_logger(__name__)

KEPT_STREAMS: Annotated[
    int,
    Meta(
        description="Streams without viewers of one data source that `keep_running` keeps; of more,"
        " the one ends first that was left first."
    ),
] = 100

_NOTE = "kept streams"
_WATCHED = 0.0
_OPENING_CHECK = 0.1  # seconds
_LAST_WRITE = 1.0  # seconds

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, float]).decode


class KeptStreams:
    """The kept streams of one instance of a data source.

    Args:
        instance: the instance, which is open.
        join: subscribes to a channel, which starts its stream.
    """

    def __init__(self, instance: Instance, join: Callable[[ChannelRequest], Subscription]) -> None:
        self._instance = instance
        self._join = join
        self._registry: ChannelRegistry = instance.registry
        self._store = cast("SqliteStore", instance.source.row_store)
        self._until: dict[str, float] = {}  # by path: Unix seconds; _WATCHED: it has viewers
        self._changed = anyio.Event()
        instance.registry.lingering[instance.key] = self._linger

    async def run(self) -> None:
        """Start the streams again that were kept, and keep the note of them, until cancelled."""
        try:
            await self._run()
        finally:
            await self._write_rest()
            lingering, key = self._registry.lingering, self._instance.key
            if self._instance.is_retired and lingering.get(key) == self._linger:
                del lingering[key]

    async def _run(self) -> None:
        note = await self._store.note(_NOTE)
        kept = _decode(note) if note else {}
        async with anyio.create_task_group() as tasks:
            for path, until in self._to_resume(kept)[:KEPT_STREAMS]:
                self._until.setdefault(path, until)
                tasks.start_soon(self._resume, path)
            while True:
                await self._write()
                await self._changed.wait()

    async def _write_rest(self) -> None:
        """Write what has changed since the last note."""
        if not self._changed.is_set():
            return
        try:
            with anyio.move_on_after(_LAST_WRITE, shield=True):
                await self._write()
        except StoreError as error:
            log.warning("the note of kept streams was not written: %s", error)

    def _to_resume(self, kept: dict[str, float]) -> list[tuple[str, float]]:
        """The paths of the note whose time is not over, and that time; the last one first."""
        now = time.time()
        known = [(path, until, self._seconds(path)) for path, until in kept.items()]
        found = [
            (path, now + seconds if until == _WATCHED else min(until, now + seconds))
            for path, until, seconds in known
            if seconds
        ]
        return sorted((each for each in found if each[1] > now), key=lambda each: -each[1])

    def watched(self, path: str) -> None:
        """A viewer has joined the channel of a stream with `keep_running`."""
        if self._until.get(path) != _WATCHED:
            self._set(path, _WATCHED)

    async def _write(self) -> None:
        self._changed = anyio.Event()
        now = time.time()
        self._until = {p: t for p, t in self._until.items() if t == _WATCHED or t > now}
        await self._store.write_note(_NOTE, _encode(self._until).decode())

    def _set(self, path: str, until: float) -> None:
        self._until[path] = until
        self._changed.set()

    def _seconds(self, path: str) -> float:
        """`keep_running` of the stream of a path; 0 if there is none."""
        try:
            stream, _ = self._instance.source._ds_plan.match(path)
        except NotFound:
            return 0.0
        return stream.options.keep_running

    def _linger(self, key: ChannelKey, seconds: float) -> float:
        """The last viewer of a channel has left: how long its stream goes on."""
        kept = self._seconds(key.path)
        if not kept:
            return seconds
        now = time.time()
        until = self._until.get(key.path, _WATCHED)
        if until == _WATCHED:  # else it was started again, and has the rest of its time
            until = now + kept
            self._set(key.path, until)
            self._end_oldest()
        return max(seconds, until - now)

    def _end_oldest(self) -> None:
        kept = {path: until for path, until in self._until.items() if until != _WATCHED}
        for path in sorted(kept, key=kept.__getitem__)[: len(kept) - KEPT_STREAMS]:
            del self._until[path]
            channel = self._registry.peek(ChannelKey(self._instance.key, path))
            if channel is not None and channel.state is State.LINGERING:
                log.warning(
                    "a stream without viewers has ended: more than %d are kept running",
                    KEPT_STREAMS,
                    extra={"path": path},
                )
                channel.close()

    async def _resume(self, path: str) -> None:
        try:
            subscription = self._join(resolve_channel(self._instance, path))
        except (ChannelError, PluginError) as error:
            log.warning("a kept stream was not started again: %s", error, extra={"path": path})
            return
        key = ChannelKey(self._instance.key, path)
        # a channel without subscribers does not wait for the end of the former one
        while (channel := self._registry.peek(key)) is not None and channel.state is State.OPENING:  # noqa: ASYNC110
            await anyio.sleep(_OPENING_CHECK)
        subscription.leave()
