"""The log of a channel: its newest rows, numbered, for viewers that come later or were cut off.

    1 … first − 1   forgotten        first … last   kept        last + 1   the next row

`Log` is the interface, `MemoryLog` keeps packets in memory, as they were emitted and encoded once.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate, chain, count
from math import inf
from typing import NamedTuple, Protocol

from aiostream_ds._channels.clock import Clock, Timer
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Replay
from aiostream_ds._frames.packet import Packet

__all__ = ["Log", "LogFactory", "LogSlice", "LogStore", "MemoryLog", "memory_logs"]

_OVERHEAD = 200
"""Bytes that a kept packet takes besides its data."""


class LogSlice(NamedTuple):
    """Consecutive packets of a log, oldest first, and the cursors of the rows that were asked for.

    The rows have the cursors prev < cursor <= last. The first `skip` rows of the first packet are
    before them; rows of the last packet may be after them. `truncated`: some of the rows are
    forgotten, or the cursor is not one of this log.
    """

    packets: Sequence[Packet]
    skip: int
    prev: int
    last: int
    truncated: bool


class Log(Protocol):
    """The numbered rows of one channel: rows are appended, the oldest are forgotten.

    The first row ever has the cursor 1. `append` is called in the event loop for each emit, so it
    must not wait; `after` may wait for a disk or a network.
    """

    @property
    def epoch(self) -> str:
        """The name of the numbering. Cursors of two epochs cannot be compared."""

    @property
    def generation(self) -> int:
        """The generation of the settings for which the log was made; it may be for later ones, too,
        that are equal."""

    @property
    def keep(self) -> float:
        """Seconds for which the log is kept when no stream appends to it."""

    @property
    def first(self) -> int:
        """The cursor of the oldest kept row; `last` + 1 when there is none."""

    @property
    def last(self) -> int:
        """The cursor of the newest row; 0 before the first."""

    def append(self, packets: Sequence[Packet], rows: int, size: int, now: float) -> None:
        """Number and keep packets that were emitted at `now`; `rows` and `size` are their sums.

        The packets stay unchanged, and the newest one is kept however large it is.
        """

    async def refresh(self) -> None:
        """Called before a query or a new subscription reads `epoch`, `first` and `last`: a log that
        other processes write may read them now."""

    async def after(self, cursor: int, now: float, upto: int | None = None) -> LogSlice:
        """The kept rows with cursors above `cursor`, up to and including `upto`.

        When rows after `cursor` are forgotten, the slice begins with the oldest kept row.
        """


LogFactory = Callable[[ChannelKey, Replay, int], Log]
"""Makes the log of a channel: from its key, the bounds, and the generation of its settings."""


def memory_logs() -> LogFactory:
    """A factory of `MemoryLog`s. No two logs have the same epoch, also those of other processes."""
    process, numbers = os.urandom(4).hex(), count(1)

    def make_log(key: ChannelKey, replay: Replay, generation: int) -> Log:
        return MemoryLog(replay, f"{process}{next(numbers):x}", generation)

    return make_log


class MemoryLog:
    """A `Log` in memory, within the bounds of a `Replay`; the newest packet is always kept."""

    __slots__ = (
        "_batches",
        "_checkpoints",
        "_newest",
        "_next_checkpoint",
        "_replay",
        "_rows",
        "_size",
        "_start",
        "epoch",
        "generation",
        "last",
    )

    def __init__(self, replay: Replay, epoch: str, generation: int = 0) -> None:
        self.epoch = epoch
        self.generation = generation
        self.last = 0
        self._replay = replay
        self._batches: list[Sequence[Packet]] = []  # a deque takes 760 bytes for one packet
        self._start = 0  # the index of the first batch that is not forgotten
        self._checkpoints: list[tuple[float, int]] = []  # once a second: time and last cursor
        self._newest = self._next_checkpoint = -inf
        self._rows = self._size = 0

    @property
    def keep(self) -> float:
        """See `Log.keep`."""
        return self._replay.keep

    @property
    def first(self) -> int:
        """See `Log.first`."""
        return self.last - self._rows + 1

    def append(self, packets: Sequence[Packet], rows: int, size: int, now: float) -> None:
        """See `Log.append`."""
        replay = self._replay
        self.last += rows
        size += _OVERHEAD * len(packets)
        if len(packets) > 1 and (rows > replay.rows or size > replay.bytes):
            # A burst of small packets. What is not kept is freed while the processor has it in its
            # cache, and its memory is there for the next batch.
            packets = _newest(packets, replay)
            rows, size = _sums(packets)
            self._batches, self._start, self._rows, self._size = [], 0, 0, 0
        self._batches.append(packets)
        self._rows = rows = self._rows + rows
        self._size = size = self._size + size
        if rows > replay.rows or size > replay.bytes:
            self._forget_surplus()
        self._newest = now
        if now >= self._next_checkpoint:
            self._next_checkpoint = now + 1
            self._forget_expired(now)
            self._checkpoints.append((now, self.last))

    async def refresh(self) -> None:
        """See `Log.refresh`. Never waits."""

    async def after(self, cursor: int, now: float, upto: int | None = None) -> LogSlice:
        """See `Log.after`. Never waits."""
        self._forget_expired(now)
        last = self.last if upto is None else max(min(self.last, upto), 0)
        truncated = cursor < self.first - 1 or cursor > self.last
        prev = self.first - 1 if truncated else cursor
        found: list[Packet] = []
        skip = 0
        before = self.first - 1
        for packet in chain.from_iterable(self._batches):
            if before + packet.rows > prev and before < last:
                if not found:
                    skip = prev - before
                found.append(packet)
            before += packet.rows
        return LogSlice(found, skip, prev, max(prev, last), truncated)

    def _forget_expired(self, now: float) -> None:
        oldest = now - self._replay.seconds
        checkpoints = self._checkpoints
        while checkpoints and (checkpoints[0][0] < oldest or checkpoints[0][1] < self.first):
            _, last = checkpoints.pop(0)
            while self._rows and self.first <= last:
                self._forget()
        if self._newest < oldest:  # also what was appended after the last checkpoint
            while self._start < len(self._batches):
                self._forget()

    def _forget_surplus(self) -> None:
        """Forget what is beyond the bounds; the newest packet is kept."""
        replay = self._replay
        while self._rows > replay.rows or self._size > replay.bytes:
            if len(self._batches) - self._start == 1:
                break
            self._forget()

    def _forget(self) -> None:
        batch = self._batches[self._start]
        self._batches[self._start] = ()
        self._start += 1
        if 2 * self._start >= len(self._batches):
            del self._batches[: self._start]
            self._start = 0
        rows, size = _sums(batch)
        self._rows -= rows
        self._size -= size


def _sums(packets: Sequence[Packet]) -> tuple[int, int]:
    """The rows of packets, and the bytes that they count for."""
    size = sum([len(packet.data) for packet in packets]) + _OVERHEAD * len(packets)
    return sum([packet.rows for packet in packets]), size


def _newest(packets: Sequence[Packet], replay: Replay) -> Sequence[Packet]:
    """As many of the newest packets as the bounds allow, at least one."""
    newest = packets[::-1][: 1 + replay.bytes // _OVERHEAD]
    rows = accumulate([packet.rows for packet in newest])
    sizes = accumulate([len(packet.data) + _OVERHEAD for packet in newest])
    fitting = bisect_right(list(rows), replay.rows), bisect_right(list(sizes), replay.bytes)
    return packets[-max(1, min(fitting)) :]


class LogStore:
    """The logs of all channels. One that no stream appends to is dropped after `Log.keep` seconds.

    Args:
        clock: the event loop.
        make_log: makes the log of a channel.
    """

    def __init__(self, clock: Clock, make_log: LogFactory) -> None:
        self._clock = clock
        self._make_log = make_log
        self._logs: dict[ChannelKey, Log] = {}
        self._generations: dict[ChannelKey, int] = {}  # of the newest settings that it is for
        self._timers: dict[ChannelKey, Timer] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._logs

    def get(
        self,
        key: ChannelKey,
        replay: Replay,
        generation: int,
        make_log: LogFactory | None = None,
        *,
        is_used: bool = False,
    ) -> Log:
        """The log of a channel; a new one when there is none, or when the settings are newer.

        A new log is dropped after `Log.keep` seconds, unless a stream uses it.
        """
        found = self._logs.get(key)
        if found is None or self.generation(key) < generation:
            make_log = make_log or self._make_log
            found = self._logs[key] = make_log(key, replay, generation)
            self._generations[key] = found.generation
            if not is_used:
                self.release(key)
        return found

    def generation(self, key: ChannelKey) -> int:
        """The generation of the settings that the log of a channel is for."""
        return self._generations[key]

    def keep(self, instance: Hashable, before: int, generation: int) -> None:
        """The settings of a generation are as those before: logs for these are for them, too."""
        for key in self._logs:
            if key.instance == instance and self._generations[key] >= before:
                self._generations[key] = max(self._generations[key], generation)

    def retain(self, key: ChannelKey) -> None:
        """Keep the log: a stream appends to it."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def release(self, key: ChannelKey) -> None:
        """Drop the log after `Log.keep` seconds: no stream appends to it any more."""
        found = self._logs.get(key)
        if found is not None:
            self.retain(key)
            self._timers[key] = self._clock.call_later(found.keep, self._drop, key)

    def close(self) -> None:
        """Drop all logs and timers."""
        for key in tuple(self._timers):
            self.retain(key)
        self._logs.clear()
        self._generations.clear()

    def _drop(self, key: ChannelKey) -> None:
        self._timers.pop(key, None)
        self._logs.pop(key, None)
        self._generations.pop(key, None)
