"""A virtual event loop in which the tasks of a node can be stopped, as SIGSTOP stops a process.

What belongs to a node runs in a context in which `NODE` is its name. While the node is stopped, its
callbacks and timers wait; the clock goes on, and so does what is not of the node.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from aiostream_ds.testing.virtual_loop import VirtualLoop

NODE: contextvars.ContextVar[str] = contextvars.ContextVar("NODE", default="")


class FrozenLoop(VirtualLoop):
    """`stop_node` and `continue_node` are SIGSTOP and SIGCONT."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        super().__init__()
        self._poll = self._selector.select  # type: ignore[has-type]
        self._selector.select = self._jump

    def _jump(self, timeout: float | None = None) -> list[Any]:
        """No thread and no socket wakes this loop: do not ask the system."""
        if timeout is None or self._until is not None:
            return self._poll(timeout)  # type: ignore[no-any-return]
        self._now += max(timeout, 0.0)
        return []

    def task_of(self, node: str, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """A task of a node."""
        context = contextvars.Context()
        context.run(NODE.set, node)
        return self.create_task(work, context=context)

    def stop_node(self, node: str) -> None:
        self._waiting.setdefault(node, [])

    def continue_node(self, node: str) -> None:
        for again in self._waiting.pop(node, ()):
            again()

    def is_stopped(self, node: str) -> bool:
        return node in self._waiting

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        context = contextvars.copy_context() if context is None else context
        node = context.get(NODE, "")
        if not node:
            return super().call_soon(callback, *args, context=context)
        handles: list[asyncio.Handle] = []
        handles.append(
            super().call_soon(self._guard, node, handles, callback, args, context, context=context)
        )
        return handles[0]

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        context = contextvars.copy_context() if context is None else context
        node = context.get(NODE, "")
        if not node:
            return super().call_at(when, callback, *args, context=context)
        handles: list[asyncio.Handle] = []
        timer = super().call_at(
            when, self._guard, node, handles, callback, args, context, context=context
        )
        handles.append(timer)
        return timer

    def _guard(
        self,
        node: str,
        handles: list[asyncio.Handle],
        callback: Any,
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        waiting = self._waiting.get(node)
        if waiting is None:
            callback(*args)
            return

        def again() -> None:
            super(FrozenLoop, self).call_soon(self._again, node, handles, callback, args, context)

        waiting.append(again)

    def _again(
        self,
        node: str,
        handles: list[asyncio.Handle],
        callback: Any,
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        if not handles[0].cancelled():  # by what ran before it
            context.run(self._guard, node, handles, callback, args, context)
