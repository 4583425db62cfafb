"""Contains what an author's code raises: it must not end more than the call in which it runs.

It may raise anything: `sys.exit()`, KeyboardInterrupt, the panic of a Rust extension, a timeout of
gevent, groups of these. None is an Exception, so each would pass every handler and end the
process. A task or future that the author awaits and that was cancelled looks like a cancellation of
the current task, and would end it without a word.

The runtime cancels a task by `cancel` or by a cancel scope of anyio, and this passes at once.
Nobody has requested any other cancellation.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any
from weakref import WeakSet

import anyio

from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import PluginError, UpstreamError

__all__ = [
    "cancel",
    "contained",
    "describe",
    "is_cancel_requested",
    "isolate",
    "keep_running",
    "message_of",
    "stack_of",
    "to_plugin_error",
]

log = get_logger(__name__)

_cancelled: "WeakSet[asyncio.Task[Any]]" = WeakSet()


def cancel(task: "asyncio.Task[Any]") -> None:
    """Cancel a task of the runtime."""
    _cancelled.add(task)
    task.cancel()


def _running_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs: Python ends what is left of it
        return None


def is_cancel_requested() -> bool:
    """Whether the runtime has cancelled the running task, or a cancel scope that it is in."""
    task = _running_task()
    return task is None or task in _cancelled or anyio.current_effective_deadline() == -inf


def contained(error: BaseException, *, requested: bool | None = None) -> Exception | None:
    """The error to handle in place of `error`, which an author's code has raised.

    An Exception with a message is returned as it is; anything else as the cause of a RuntimeError.
    None: `error` must pass, as it is a cancellation that was requested, or the end of the
    coroutine.

    Args:
        error: what was raised.
        requested: whether the running task is being cancelled; by default `is_cancel_requested()`.
    """
    if isinstance(error, Exception):
        return error if _is_printable(error) else _failure(error, describe(error))
    if isinstance(error, BaseExceptionGroup):
        _, others = error.split(asyncio.CancelledError)
        if isinstance(others, Exception):
            return contained(others)
        is_cancellation = others is None
    else:
        is_cancellation = isinstance(error, asyncio.CancelledError)
    if is_cancellation and (is_cancel_requested() if requested is None else requested):
        return None
    task = _running_task()
    if isinstance(error, GeneratorExit) and task is None:
        return None  # the event loop is gone: Python closes the coroutine
    while is_cancellation and task is not None and task.uncancel():
        pass  # what the author has requested of this task ends here
    return _failure(error, _explain(error, is_cancellation=is_cancellation))


def _failure(cause: BaseException, text: str) -> RuntimeError:
    failure = RuntimeError(text)
    failure.__cause__ = cause
    return failure


def _is_printable(error: BaseException) -> bool:
    try:
        return isinstance(str(error), str)
    except BaseException:
        return False


def _explain(error: BaseException, *, is_cancellation: bool) -> str:
    if is_cancellation:
        return "the author's code cancelled itself, or awaited a task or future that was cancelled"
    if isinstance(error, SystemExit):
        return f"the author's code called sys.exit({error.code!r})"
    return f"the author's code raised {describe(error)}"


def describe(error: BaseException) -> str:
    """An error's class and message, also if the message cannot be made."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException as failure:
        return f"{name} (its message raises {type(failure).__name__})"
    return f"{name}: {text}" if text else name


def message_of(error: BaseException) -> str:
    """An error's message; its class if it has none, or if the message cannot be made."""
    try:
        return str(error) or type(error).__name__
    except BaseException:  # an author's `__str__` may raise anything
        return describe(error)


def to_plugin_error(error: BaseException, name: str) -> PluginError:
    """The error for the subscribers of what has this name: the author's PluginError, else a
    transient error."""
    if isinstance(error, PluginError):
        return error
    shown = UpstreamError(f"{name} failed: {message_of(error)}")
    shown.__cause__ = error
    return shown


@contextmanager
def isolate() -> Iterator[None]:
    """Raise what `contained` returns: around code of an author that runs in the current task."""
    try:
        yield
    except BaseException as error:
        found = contained(error)
        if found is None or found is error:
            raise
        try:
            raise found
        finally:
            del found  # error → traceback → this frame → error would be a cycle


async def keep_running(work: Callable[[], Awaitable[object]]) -> None:
    """Await `work()`, of the runtime; again each time that an author's code cancels the task, as
    one does that cancels all tasks. anyio would cancel the task group."""
    while True:
        try:
            await work()
            return
        except asyncio.CancelledError as error:
            task = _running_task()
            if task is None or is_cancel_requested():
                raise
            log.error("an author's code has cancelled a task of the runtime", exc_info=error)
            while task.uncancel():
                pass


_DEPTH = 50
"""Most frames of a stack."""


def stack_of(task: "asyncio.Task[Any]") -> str:
    """Where a task waits, as a traceback shows it: through coroutines and async generators."""
    lines: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None and len(lines) < _DEPTH:
        frame = None
        for kind, inner in (("cr", "await"), ("gi", "yieldfrom"), ("ag", "await")):
            frame = getattr(waiting, f"{kind}_frame", None)
            if frame is not None:
                waiting = getattr(waiting, f"{kind}_{inner}")
                break
        if frame is None:  # what awaits an async generator does not name it
            found = gc.get_referents(waiting)
            waiting = next((each for each in found if hasattr(each, "ag_frame")), None)
            continue
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno}, in {code.co_name}')
        waiting = frame.f_locals.get("work") if code.co_name == "_observe_waits" else waiting
    return "\n".join(lines)
