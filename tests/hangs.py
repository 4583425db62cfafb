"""A test that hangs fails once its time is up, and is the only one that does.

pytest-timeout raises an error wherever the process is at that time. In a callback of an event loop,
or in a task that is not the test's, the loop keeps that error and goes on, for ever. So the loop is
stopped instead. What the test has left is cancelled: in the fast loop the tests of a module share
an event loop.
"""

import asyncio
import faulthandler
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from aiostream_ds.testing.virtual_loop import _START, VirtualLoop

__all__ = [
    "end_callbacks",
    "end_tasks",
    "pytest_runtest_makereport",
    "pytest_runtest_teardown",
    "pytest_timeout_set_timer",
    "pytest_unconfigure",
    "renew",
]

_ITERATIONS = 20  # of the event loop, in which cancelled tasks may end
_LAST_ITERATIONS = 1_000  # in which callbacks may end, as those of a transport that closes
_SECONDS = 2.0  # in which cancelled tasks of a failed test may end
_AGAIN = 5.0  # seconds in which an event loop stops, unless code blocks it
_LATER = 0.1  # seconds after which it is seen again whether a test runs
_PHASE = pytest.CallInfo.from_call.__func__.__code__
_END = 60.0  # seconds in which the process ends after the last test
_settings = pytest.StashKey[Any]()
_time_is_up = pytest.StashKey[str]()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Iterator[None]:
    """Stop a running event loop; raise the error only without one, or if code blocks it."""
    answer = yield
    item.stash[_settings] = settings
    fail = signal.getsignal(signal.SIGALRM)
    if not callable(fail):  # the other method of pytest-timeout
        return answer
    stopped: list[asyncio.AbstractEventLoop] = []

    def stop() -> None:
        try:
            fail(signal.SIGALRM, None)  # prints the stacks of other threads; returns in a debugger
        except pytest.fail.Exception as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            item.stash[_time_is_up] = str(error)
            stopped[0].stop()

    def end(number: int, frame: FrameType | None) -> None:
        loop = asyncio._get_running_loop()
        if not _is_in_phase(frame):
            signal.setitimer(signal.ITIMER_REAL, _LATER)
        elif loop is None or stopped:
            fail(number, frame)
        else:
            stopped.append(loop)
            loop.call_soon_threadsafe(stop)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    signal.signal(signal.SIGALRM, end)
    return answer


def _is_in_phase(frame: FrameType | None) -> bool:
    """Whether a test or its fixtures run: an error in a report would end the run of all tests."""
    while frame is not None and frame.f_code is not _PHASE:
        frame = frame.f_back
    return frame is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """The error of a loop that was stopped does not say why."""
    if call.excinfo is not None and _time_is_up in item.stash:
        call.excinfo.value.add_note(item.stash[_time_is_up])
        del item.stash[_time_is_up]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """A failure ends the timer; what it has left may hang in the fixtures' ends."""
    settings = item.stash.get(_settings, None)
    if settings is not None and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        item.ihook.pytest_timeout_set_timer(item=item, settings=settings)
    return (yield)


def pytest_unconfigure() -> None:
    """Python waits for threads before it ends: one that a test has left would hang it."""
    sys.stdout.flush()  # nobody else does, if that ends it
    faulthandler.dump_traceback_later(_END, exit=True, file=sys.__stderr__)


def end_tasks(loop: asyncio.AbstractEventLoop, before: set[asyncio.Task[Any]]) -> str:
    """Let the tasks end that a test has cancelled; cancel others, and describe them."""
    for _ in range(_ITERATIONS):
        left = asyncio.all_tasks(loop) - before
        if not left:
            return ""
        loop.run_until_complete(asyncio.sleep(0))
    description = f"the test left {len(left)} tasks: " + "\n".join(map(repr, left))
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.wait(left, timeout=_SECONDS))
    return description


def end_callbacks(loop: asyncio.AbstractEventLoop) -> str:
    """Let callbacks run; cancel timers, and callbacks without an end, which are described."""
    for _ in range(_LAST_ITERATIONS):
        if not loop._ready:
            break
        loop.run_until_complete(asyncio.sleep(0))
    endless = tuple(loop._ready)
    description = "the test left callbacks: " + "\n".join(map(repr, endless)) if endless else ""
    for handle in (*endless, *loop._scheduled):
        handle.cancel()
    return description


def renew(loop: asyncio.AbstractEventLoop) -> None:
    """Leave an event loop as a new one is."""
    loop.set_exception_handler(None)
    loop.set_task_factory(None)
    if isinstance(loop, VirtualLoop):
        loop._now = _START
