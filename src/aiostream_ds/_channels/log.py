"""The newest rows of one channel, kept for those who come late or were cut off: its ring.

    1 … first − 1   forgotten        first … last   kept        last + 1   the next row

Rows are numbered from 1, by the process and not by their source, so another process has another
`epoch`. Packets are kept as they were emitted, encoded once. Imports `frames` and its own room.
"""

import os
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from math import inf
from typing import Any, NamedTuple, Protocol

from aiostream_ds._channels.policy import Replay
from aiostream_ds._frames.packet import Packet

__all__ = ["LogSlice", "Ring", "Rings"]

_OVERHEAD = 200
"""Bytes that a kept packet takes besides its data."""


class LogSlice(NamedTuple):
    """Packets of a ring, oldest first; of the first one `skip` rows do not belong to the answer.

    `prev` is the number before the first row, or where the answer begins when there is none.
    """

    packets: Sequence[Packet]
    skip: int
    prev: int
    last: int
    truncated: bool


class Ring:
    """The numbered rows of one channel within the bounds of a `Replay`; the newest batch stays."""

    __slots__ = (
        "_batches",
        "_marks",
        "_newest",
        "_next_mark",
        "_replay",
        "_rows",
        "_size",
        "epoch",
        "generation",
        "last",
    )

    def __init__(self, replay: Replay, epoch: str, generation: int = 0) -> None:
        self.epoch = epoch
        self.generation = generation
        self.last = 0
        self._replay = replay
        self._batches: deque[Sequence[Packet]] = deque()
        self._marks: list[tuple[float, int]] = []  # once a second: which row was the last
        self._newest = self._next_mark = -inf
        self._rows = self._size = 0

    @property
    def keep(self) -> float:
        """Seconds that it stays when no stream fills it."""
        return self._replay.keep

    @property
    def first(self) -> int:
        """The number of the oldest kept row; one above `last` when there is none."""
        return self.last - self._rows + 1

    def append(self, packets: Sequence[Packet], rows: int, size: int, now: float) -> None:
        """Keep packets that were emitted at `now`, and forget what is too old or too much."""
        replay = self._replay
        self._batches.append(packets)
        self.last += rows
        self._rows += rows
        self._size += size + _OVERHEAD * len(packets)
        while self._rows > replay.rows or self._size > replay.bytes:
            if len(self._batches) == 1:
                break
            self._forget()
        self._newest = now
        if now >= self._next_mark:
            self._next_mark = now + 1
            self._forget_old(now)
            self._marks.append((now, self.last))

    def after(self, cursor: int, now: float, upto: int | None = None) -> LogSlice:
        """The kept rows with numbers above `cursor`, up to `upto`.

        `truncated`: some of them are kept no more, or `cursor` is not of this ring.
        """
        self._forget_old(now)
        last = self.last if upto is None else max(min(self.last, upto), 0)
        truncated = cursor < self.first - 1 or cursor > self.last
        prev = self.first - 1 if truncated else cursor
        found: list[Packet] = []
        skip = 0
        number = self.first - 1
        for packet in chain.from_iterable(self._batches):
            if number + packet.rows > prev and number < last:
                if not found:
                    skip = prev - number
                found.append(packet)
            number += packet.rows
        return LogSlice(found, skip, prev, max(prev, last), truncated)

    def _forget_old(self, now: float) -> None:
        oldest = now - self._replay.seconds
        marks = self._marks
        while marks and (marks[0][0] < oldest or marks[0][1] < self.first):
            _, last = marks.pop(0)
            while self._batches and self.first <= last:
                self._forget()
        if self._newest < oldest:  # all of the last second, too
            while self._batches:
                self._forget()

    def _forget(self) -> None:
        batch = self._batches.popleft()
        for packet in batch:
            self._rows -= packet.rows
            self._size -= len(packet.data) + _OVERHEAD


class _Timer(Protocol):
    def cancel(self) -> None: ...


class _Loop(Protocol):
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> _Timer: ...


class Rings:
    """The rings of all channels. One stays for `Replay.keep` seconds after its stream has ended."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._rings: dict[Hashable, Ring] = {}
        self._timers: dict[Hashable, _Timer] = {}
        self._process = os.urandom(4).hex()
        self._made = 0

    def __contains__(self, key: object) -> bool:
        return key in self._rings

    def get(self, key: Hashable, replay: Replay, generation: int) -> Ring:
        """The ring of this channel; a new one when there is none, or newer settings ask.

        Whoever does not `hold` it finds it for `keep` seconds.
        """
        ring = self._rings.get(key)
        if ring is None or ring.generation < generation:
            self._made += 1
            ring = self._rings[key] = Ring(replay, f"{self._process}{self._made:x}", generation)
            self.release(key)
        return ring

    def hold(self, key: Hashable) -> None:
        """A stream fills it: it stays."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def release(self, key: Hashable) -> None:
        """No stream fills it any more: it goes after its time."""
        ring = self._rings.get(key)
        if ring is not None:
            self.hold(key)
            self._timers[key] = self._loop.call_later(ring.keep, self._drop, key)

    def close(self) -> None:
        """Forget them all."""
        for key in tuple(self._timers):
            self.hold(key)
        self._rings.clear()

    def _drop(self, key: Hashable) -> None:
        self._timers.pop(key, None)
        self._rings.pop(key, None)
