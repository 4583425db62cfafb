"""What a run of a stream has opened and must not outlive it: subscriptions, reads in progress.

An `async for` does not close its iterator when the loop is left early. A resource that registers
itself here is closed when the run ends, if the garbage collector has not been faster.
"""

from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakSet

from aiostream_ds._author_code import contained
from aiostream_ds._loggers import get_logger

__all__ = ["RunScope", "close_with_run", "current_run"]

log = get_logger(__name__)


class Closable(Protocol):
    """What can be closed. A second call does nothing."""

    async def aclose(self) -> None:
        """Close it."""


class RunScope:
    """The scope of the runs of one channel. Entering it makes it the current one of the task.

    Attributes:
        channel: the channel into which the runs emit.
    """

    __slots__ = ("_followed", "_open", "channel")

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self._followed: dict[Any, Any] | None = None  # few runs follow something
        self._open: WeakSet[Closable] | None = None  # few runs open something

    def enter(self) -> None:
        """Make this the scope of the running task, and of the tasks that it starts."""
        _CURRENT.set(self)

    @property
    def followed(self) -> dict[Any, Any]:
        """The statuses of the streams that the run follows, by follower."""
        if self._followed is None:
            self._followed = {}
        return self._followed

    def add(self, resource: Closable) -> None:
        """Close `resource` when the current run ends."""
        if self._open is None:
            self._open = WeakSet()
        self._open.add(resource)

    async def aclose(self) -> None:
        """The run has ended: close what it has left open, also when it is cancelled meanwhile. An
        error is logged."""
        cancelled: BaseException | None = None
        while self._open:
            try:
                await self._open.pop().aclose()
            except BaseException as error:
                failure = contained(error)
                if failure is None:
                    cancelled = error
                else:
                    log.error("closing what a stream had opened failed", exc_info=failure)
        if cancelled is not None:
            raise cancelled


_CURRENT: "ContextVar[RunScope | None]" = ContextVar("run_scope", default=None)


def current_run() -> RunScope | None:
    """The scope of the stream whose run called this; None outside of a run."""
    return _CURRENT.get()


def close_with_run(resource: Closable) -> None:
    """Close `resource` at the end of the run that called this. Does nothing outside of a run."""
    scope = _CURRENT.get()
    if scope is not None:
        scope.add(resource)
