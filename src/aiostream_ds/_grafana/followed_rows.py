"""`DataSource.follow`: the rows of a running stream, for another stream of the same data source.

A follower is one more subscriber of the channel: the registry runs each stream once, for viewers
and followers together, and ends it when the last one has left.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anyio

from aiostream_ds._author_threads import in_stream_thread, next_in_thread
from aiostream_ds._channels.channel import Channel
from aiostream_ds._channels.exceptions import (
    ChannelError,
    ShuttingDown,
    StreamFailed,
    Superseded,
)
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.registry import ChannelRegistry
from aiostream_ds._channels.status import Status
from aiostream_ds._channels.subscription import Subscription
from aiostream_ds._encoding.field_names import base_name
from aiostream_ds._encoding.table_rows import python_values
from aiostream_ds._frames import json
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._grafana.channel_request import ChannelRequest, resolve_channel
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grafana.replay import RowReplay
from aiostream_ds._grafana.stream_runs import join
from aiostream_ds._run_scope import RunScope, close_with_run, current_run
from aiostream_ds._telemetry import Counters
from aiostream_ds.errors import BadQuery, UpstreamError

__all__ = ["RETIRED_PAUSE", "FollowedRows", "Following", "rows_of"]

RETIRED_PAUSE = 0.5
"""Seconds after which a follower ends whose instance was replaced, or whose plugin is ending: a
loop in a task of `lifespan` that follows again and again does not use a whole processor."""


class Following:
    """Who follows whom, among the channels of one registry."""

    def __init__(self, registry: ChannelRegistry, counters: Counters) -> None:
        self._registry = registry
        self._replay = RowReplay(registry, counters)
        self._counters = counters
        self._followed: dict[ChannelKey, list[ChannelKey]] = {}

    def join(self, follower: ChannelKey | None, request: ChannelRequest) -> Subscription:
        """Subscribe to a channel for another one, or for code that is not a stream (None).

        Raises:
            RuntimeError: the follower would follow itself, directly or through others.
            ChannelError: as `ChannelRegistry.join`.
        """
        if follower is not None:
            self._check_circle(follower, request.key)
        subscription = join(self._registry, self._replay, request, self._counters, with_status=True)
        if follower is not None:
            self._followed.setdefault(follower, []).append(request.key)
        return subscription

    def left(self, follower: ChannelKey | None, key: ChannelKey) -> None:
        """The follower has left the channel."""
        if follower is not None:
            keys = self._followed[follower]
            keys.remove(key)
            if not keys:
                del self._followed[follower]

    def status(self, key: ChannelKey) -> Status | None:
        """The status of a channel, without what concerns its own subscribers only."""
        channel = self._registry.peek(key)
        if channel is None or channel.status is None:
            return None
        return channel.statuses.current_of_source

    def _check_circle(self, follower: ChannelKey, key: ChannelKey) -> None:
        way = self._way(key, follower)
        if way is not None:
            shown = " → ".join(repr(each.path) for each in (follower, *way))
            raise RuntimeError(f"the stream {follower.path!r} must not follow itself: {shown}")

    def _way(self, start: ChannelKey, end: ChannelKey) -> list[ChannelKey] | None:
        """The channels from `start`, each of which follows the next one, to `end`. Each channel is
        visited once: many ways may lead to it."""
        ways = {start: [start]}
        found = [start]
        for key in found:
            if key == end:
                return ways[key]
            for each in self._followed.get(key, ()):
                if each not in ways:
                    ways[each] = [*ways[key], each]
                    found.append(each)
        return None


class FollowedRows:
    """The rows of one channel as dicts: an async iterator, or an iterator in the thread of a stream
    that is a `def`. See `DataSource.follow`.

    It subscribes when its first row is awaited. One task reads it.
    """

    def __init__(self, following: Following, instance: Instance, path: str) -> None:
        self._subscription: Subscription | None = None  # first: `__del__` reads it
        self._following = following
        self._instance = instance
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._run = current_run()
        self._shown = _ShownStatus(self._run, path)
        self._key: ChannelKey | None = None  # of the channel, while this is subscribed to it
        self._is_closed = False
        self._rows: deque[dict[str, Any]] = deque()
        close_with_run(self)

    def __aiter__(self) -> "FollowedRows":
        return self

    def __iter__(self) -> "FollowedRows":
        return self

    def __next__(self) -> dict[str, Any]:
        if in_stream_thread():  # a row that was received needs no answer of the event loop
            with suppress(IndexError):
                return self._rows.popleft()
        return next_in_thread(self)

    async def __anext__(self) -> dict[str, Any]:
        while not self._rows:
            if self._is_closed:
                raise StopAsyncIteration
            try:
                subscription = self._subscription or await self._join()
                is_open = await subscription.wait()
            except (Superseded, ShuttingDown):  # the follower itself is being ended
                self._leave()
                raise StopAsyncIteration from None
            except ChannelError as error:
                self._leave()
                raise self._failure(error) from error.__cause__
            self._pass_status()
            for _, packet in subscription.receive_nowait():
                if packet.rows:
                    self._rows.extend(rows_of(json.decode_rows([packet], packet.schema)))
            if not is_open:
                self._leave()
        return self._rows.popleft()

    async def aclose(self) -> None:
        """Leave the channel. A second call does nothing."""
        self._rows.clear()
        self._leave()

    def __del__(self) -> None:
        if self._subscription is not None:
            try:
                self._loop.call_soon_threadsafe(
                    _leave,
                    self._following,
                    self._follower,
                    self._key,
                    self._subscription,
                    self._shown,
                )
            except RuntimeError:
                pass  # the event loop is closed, and the registry with it

    @property
    def _follower(self) -> ChannelKey | None:
        return self._run.channel.key if self._run is not None else None

    async def _join(self) -> Subscription:
        await self._instance.wait_until_open()
        if self._instance.is_retired:  # a task of its lifespan, which a newer stream would hold
            await anyio.sleep(RETIRED_PAUSE)
            raise Superseded(f"{self._path}: the settings have changed")
        request = resolve_channel(self._instance, self._path)
        if request.exact:
            raise BadQuery(f"expected the path of a stream without 'x/', got {self._path!r}")
        try:
            subscription = self._following.join(self._follower, request)
        except (ShuttingDown, Superseded):
            await anyio.sleep(RETIRED_PAUSE)
            raise
        self._key, self._subscription = request.key, subscription
        self._pass_status()
        return subscription

    def _leave(self) -> None:
        self._is_closed = True
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            _leave(self._following, self._follower, self._key, subscription, self._shown)

    def _failure(self, error: ChannelError) -> UpstreamError:
        """What the follower gets for an error of the channel: it is retried, and joins again."""
        failure = UpstreamError(f"the followed stream {self._path!r}: {error}")
        failure._is_logged = isinstance(error, StreamFailed)  # the stream itself has logged it
        return failure

    def _pass_status(self) -> None:
        """Show the viewers of the follower why the followed stream has no rows."""
        if self._key is not None:
            self._shown.set(self._following.status(self._key))


def _leave(
    following: Following,
    follower: ChannelKey | None,
    key: ChannelKey | None,
    subscription: Subscription,
    shown: "_ShownStatus",
) -> None:
    if key is not None:
        following.left(follower, key)
    subscription.leave()
    shown.set(None)


class _ShownStatus:
    """The status of a followed stream, in the status of the stream that follows it."""

    __slots__ = ("_path", "_run")

    def __init__(self, run: RunScope | None, path: str) -> None:
        self._run = run
        self._path = path

    def set(self, status: Status | None) -> None:
        """Show this status. None: the stream is healthy, or is not followed any more."""
        run = self._run
        if run is None or (status is None and not run.followed):
            return
        if status is None:
            run.followed.pop(self, None)
        else:
            run.followed[self] = Status(status.severity, f"{self._path}: {status.text}")
        channel: Channel = run.channel
        if not channel.open:
            return
        if run.followed:
            channel.statuses.set("followed", next(iter(run.followed.values())))
        else:
            channel.statuses.clear("followed")


def rows_of(frame: Frame) -> Iterator[dict[str, Any]]:
    """The rows of a frame as dicts. Times are datetimes in UTC; of a frame with labels, each series
    is a row of its own, with its labels as columns."""
    columns = [_values(field) for field in frame.fields]
    series: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for index, field in enumerate(frame.fields):
        series.setdefault(tuple(sorted(field.labels.items())), []).append(index)
    names = [base_name(field.name, field.labels) for field in frame.fields]
    if series.keys() <= {()}:
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))
        return
    common = series.pop((), [])
    for values in zip(*columns, strict=True):
        shared = {names[index]: values[index] for index in common}
        for labels, indexes in series.items():
            own = {names[index]: values[index] for index in indexes}
            if any(value is not None for value in own.values()):
                yield {**shared, **dict(labels), **own}


def _values(field: Field) -> list[Any]:
    values = python_values(field)
    if field.type is FieldType.ENUM and field.config is not None and field.config.type is not None:
        enum = field.config.type.enum
        texts = enum.text if enum is not None else ()
        return [
            texts[value] if value is not None and value < len(texts) else value for value in values
        ]
    return values
