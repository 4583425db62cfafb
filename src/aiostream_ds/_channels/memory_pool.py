"""Limits of the bytes that the queues of many subscriptions hold together.

Each subscription has its own bounds, but a thousand slow ones would hold a thousand times as much.
Each queue reserves bytes from the pool of its instance, in steps; the pool of an instance reserves
them from that of the process. The first bytes of each queue are free, so that a common queue, of a
packet or two, never asks.
"""

from collections.abc import Callable
from typing import Self

from aiostream_ds._channels.policy import INSTANCE_QUEUE_BYTES, QUEUE_BYTES

__all__ = ["FREE_BYTES", "STEP_BYTES", "MemoryPool"]

FREE_BYTES = 16 * 1024
"""Bytes of each subscription that count against no limit."""

STEP_BYTES = 64 * 1024
"""Bytes that a subscription reserves at a time."""

_RECOVERED = 0.75
"""A pool that was exhausted is not any more once it is used to this part."""


class MemoryPool:
    """Bytes that the queues of a process, or of one instance, have reserved.

    Not thread-safe: use it in the event loop's thread.

    Args:
        limit: the number of bytes above which nothing more can be reserved.
        instance_limit: the limit of each pool that `of_instance` makes.
        free: see FREE_BYTES.
        step: see STEP_BYTES.

    Attributes:
        used: the reserved bytes. They may exceed the limit by the newest packets of slow
            subscribers, which are always queued.
        on_exhausted: called when a reservation is refused, if none was refused before, or since the
            pool was used to 75 % or less.
    """

    __slots__ = (
        "__weakref__",
        "_instance_limit",
        "_is_exhausted",
        "_parent",
        "free",
        "limit",
        "on_exhausted",
        "step",
        "used",
    )

    def __init__(
        self,
        limit: int = QUEUE_BYTES,
        instance_limit: int = INSTANCE_QUEUE_BYTES,
        *,
        free: int = FREE_BYTES,
        step: int = STEP_BYTES,
    ) -> None:
        self.limit = limit
        self.free = free
        self.step = step
        self.used = 0
        self.on_exhausted: Callable[[], None] = lambda: None
        self._instance_limit = instance_limit
        self._is_exhausted = False
        self._parent: MemoryPool | None = None

    def of_instance(self) -> Self:
        """A pool of one instance, which reserves from this one."""
        pool = type(self)(self._instance_limit, free=self.free, step=self.step)
        pool._parent = self
        return pool

    def size_for(self, size: int) -> int:
        """What a subscription that holds `size` bytes reserves: the free bytes and whole steps."""
        return self.free + -(-max(0, size - self.free) // self.step) * self.step

    def reserve(self, size: int) -> bool:
        """Reserve bytes, if this and the process's limit allow it."""
        parent = self._parent
        if self.used + size > self.limit:
            self._refuse()
            return False
        if parent is not None and not parent.reserve(size):
            return False
        self.used += size
        return True

    def overdraw(self, size: int) -> None:
        """Reserve bytes whatever the limits are."""
        self.used += size
        if self._parent is not None:
            self._parent.overdraw(size)

    def release(self, size: int) -> None:
        """Give reserved bytes back."""
        self.used -= size
        if self._is_exhausted and self.used <= self.limit * _RECOVERED:
            self._is_exhausted = False
        if self._parent is not None:
            self._parent.release(size)

    def _refuse(self) -> None:
        if not self._is_exhausted:
            self._is_exhausted = True
            self.on_exhausted()
