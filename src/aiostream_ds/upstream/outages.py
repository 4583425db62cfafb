"""Failed connections of an upstream: the delays, one log line for each outage, and the error for
subscribers.

    healthy ──▶ outage ⇄ next attempt ──▶ healthy
       └──────────┴─ a permanent error: refused, until the settings change
"""

import anyio

from aiostream_ds._author_code import to_plugin_error
from aiostream_ds._channels.policy import Retry
from aiostream_ds._declared_errors import ErrorTable
from aiostream_ds._loggers import get_logger
from aiostream_ds.errors import PluginError, copy_error, unwrap

__all__ = ["Outages", "worth_traceback"]

log = get_logger(__name__)


class Outages:
    """The consecutive failures of one upstream, which logs itself as `name`."""

    __slots__ = (
        "_declared",
        "_error",
        "_failures",
        "_name",
        "_not_before",
        "_retry",
        "_since",
        "_type",
    )

    def __init__(self, name: str, retry: Retry, declared: ErrorTable) -> None:
        self._name = name
        self._declared = declared
        self._retry = retry
        self._failures = 0
        self._since = self._not_before = 0.0
        self._error: PluginError | None = None
        self._type: type[BaseException] | None = None

    @property
    def wait(self) -> float:
        """Seconds until the next attempt to connect."""
        return max(0.0, self._not_before - anyio.current_time())

    @property
    def refusal(self) -> PluginError | None:
        """The permanent error after which nothing is tried again."""
        return self._error if self._error is not None and self._error.permanent else None

    @property
    def error(self) -> PluginError | None:
        """Why a connection cannot be opened now: the last error, until the next attempt."""
        return self.refusal or (self._error if self.wait else None)

    def failed(self, raised: Exception) -> PluginError:
        """A connection could not be opened, or was lost. Returns the error for its subscribers."""
        error, kind = unwrap(self._declared.find(raised, self._name)), type(unwrap(raised))
        shown = copy_error(to_plugin_error(error, self._name))
        vars(shown)["_is_logged"] = True
        self._failures += 1
        delay = self._retry.delay(self._failures)
        now = anyio.current_time()
        self._not_before = now + delay
        if self._error is None:
            self._since = now
        if shown.permanent:
            log.error(
                "%s: refused: %s; it is not tried again until the settings change",
                self._name,
                shown,
                exc_info=worth_traceback(error),
            )
        elif kind is not self._type:  # texts may differ at each attempt
            log.warning(
                "%s: no connection: %s; it is retried after %.1f s, then after longer delays",
                self._name,
                shown,
                delay,
                exc_info=worth_traceback(error),
            )
        else:
            log.debug("%s: attempt %d failed: %s", self._name, self._failures, shown)
        self._error, self._type = shown, kind
        return shown

    def recovered(self) -> None:
        """The connection is healthy."""
        if self._error is not None:
            log.info(
                "%s: connected again, %.1f s after the first of %d failures",
                self._name,
                anyio.current_time() - self._since,
                self._failures,
            )
        self._error = self._type = None
        self._failures = 0


def worth_traceback(error: BaseException) -> BaseException | None:
    """The error whose traceback is worth a place in the log."""
    return error.__cause__ if isinstance(error, OSError | PluginError) else error
