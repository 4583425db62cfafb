"""What happens when a run of a stream fails.

UpstreamError      transient: the method is called again after the stream's back-off, without limit
other PluginError  permanent: logged once; the channel stays open and sends no rows until Grafana
                   cancels it (ending it would unsubscribe the viewers, an error would be retried)
anything else      a bug: logged with its traceback; subscribers get the error at once. Grafana also
                   calls again at once, so the next run is delayed, longer after each failure

Viewers see the first two as the channel's status.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from logging import DEBUG, ERROR, WARNING
from math import inf
from typing import Any

import anyio

from aiostream_ds._author_code import contained
from aiostream_ds._channels.channel import Channel, Runner
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import HEALTHY_AFTER, Retry
from aiostream_ds._channels.status import Status
from aiostream_ds._loggers import get_logger
from aiostream_ds._run_scope import RunScope
from aiostream_ds._streams.bug_delays import BUG_RETRY, BugDelays
from aiostream_ds._streams.gap_filling import GapFiller
from aiostream_ds._streams.producer import Encode, MakeProducer, ReadInThread, drive
from aiostream_ds._telemetry import Counters, use_counters
from aiostream_ds._thread_limits import run_in_thread
from aiostream_ds.decorators import StreamOptions
from aiostream_ds.errors import PluginError, unwrap

__all__ = ["supervise"]

log = get_logger(__name__)


def supervise(
    open_rows: Callable[[], AsyncGenerator[Any, None]],
    encode: Encode,
    key: ChannelKey,
    options: StreamOptions,
    delays: BugDelays,
    counters: Counters,
    prepare: Callable[[Channel], Awaitable[None]] | None = None,
    filler: GapFiller | None = None,
    declare: Callable[[Exception], Exception] = lambda error: error,
    read_in_thread: ReadInThread = run_in_thread,
    make_producer: MakeProducer | None = None,
) -> Runner:
    """A runner that runs the author's method, and runs it again after transient errors.

    Args:
        open_rows: creates the generator; called for each run.
        encode: see `Encode`.
        key: the channel.
        options: the stream's options. Their order remembers the rows of earlier runs: rows that
            are yielded again are late, or have known keys.
        delays: the delays after bugs.
        counters: where errors and retries are counted.
        prepare: awaited before each run; its errors are handled as the method's.
        filler: see `drive`.
        read_in_thread: see `drive`.
        make_producer: see `drive`.
        declare: returns the error to handle in place of the method's; see `declared_errors`.
    """

    drive_once = drive(
        open_rows,
        encode,
        order=options.order,
        counters=counters,
        filler=filler,
        read_in_thread=read_in_thread,
        make_producer=make_producer,
        stamps=options.cursor is None,  # a history, which cursors need, has times
        **_batch_limits(options),
    )
    return _Supervisor(drive_once, key, options.retry, delays, counters, prepare, declare)


def _batch_limits(options: StreamOptions) -> dict[str, int]:
    """The maximum size of a packet: a stream that collects rows may fill a subscription's queue."""
    if not options.is_paced:
        return {}
    return {"rows": options.buffer.rows, "batch_bytes": options.buffer.bytes}


class _Supervisor:
    """The runs of one channel: consecutive failures, log lines and the status.

    An object with slots, as thousands of channels have one.
    """

    __slots__ = (
        "_channel",
        "_counters",
        "_declare",
        "_delays",
        "_drive_once",
        "_failures",
        "_has_bug",
        "_key",
        "_prepare",
        "_retry",
        "_started",
    )

    _channel: Channel
    _failures: int

    def __init__(
        self,
        drive_once: Runner,
        key: ChannelKey,
        retry: Retry,
        delays: BugDelays,
        counters: Counters,
        prepare: Callable[[Channel], Awaitable[None]] | None,
        declare: Callable[[Exception], Exception],
    ) -> None:
        self._drive_once = drive_once
        self._key = key
        self._retry = retry
        self._delays = delays
        self._counters = counters
        self._prepare = prepare
        self._declare = declare
        self._started = 0.0
        self._has_bug = False

    async def __call__(self, channel: Channel) -> None:
        self._channel = channel
        self._failures = 0  # those of an earlier channel do not count: a cluster reuses a runner
        scope = RunScope(channel)
        scope.enter()
        use_counters(self._counters)
        if self._key in self._delays:
            await self._wait_after_bug()
        while True:
            self._begin()
            try:
                if self._prepare is not None:
                    await self._prepare(channel)
                await self._drive_once(channel)
                return
            except BaseException as error:
                wait = self._handle(error)
                if wait is None:
                    raise
            finally:
                self._end()
                await scope.aclose()
            await (anyio.sleep_forever() if wait == inf else anyio.sleep(wait))

    @property
    def _extra(self) -> dict[str, str]:
        return {"path": self._key.path}

    async def _wait_after_bug(self) -> None:
        wait = self._delays.pending(self._key, self._channel.time())
        if wait > 0:
            log.info("the stream failed before; it starts in %.1f s", wait, extra=self._extra)
            text = f"failed; starts again in {wait:.0f} s"
            self._channel.statuses.set("reconnecting", Status("error", text))
            await anyio.sleep(wait)
            self._channel.statuses.clear("reconnecting")

    def _begin(self) -> None:
        self._started = self._channel.time()
        if self._failures:
            self._channel.statuses.recover_after(self._retry.max_delay)
        elif self._key in self._delays:
            _ = self._channel.statuses  # they remember when rows were sent

    def _was_healthy(self, retry: Retry) -> bool:
        """Whether this run, if it is not the first, sent rows for a while or was long."""
        if self._channel.time() - self._started > retry.max_delay:
            return True
        return self._channel.statuses.last_row - self._started >= HEALTHY_AFTER

    def _handle(self, error: BaseException) -> float | None:
        """Log and count an error. Returns the seconds until the next run; inf: wait until the
        channel closes; None: the stream ends with this error."""
        if not self._channel.open:
            return None  # it was cancelled: an error is not a reason to run again
        failure = contained(error, requested=False)
        if failure is None:
            return None
        failure = self._declare(failure)
        declared = unwrap(failure)
        if not isinstance(declared, PluginError):
            self._has_bug = True
            self._counters.count_error("bug")
            log.error("stream failed", exc_info=failure, extra=self._extra)
            return None
        if declared.permanent:
            self._counters.count_error("permanent")
            self._channel.statuses.set("refused", Status("error", declared.message))
            log.log(
                DEBUG if declared._is_logged else ERROR,
                "stream refused: %s; no rows until the settings change or its viewers leave",
                declared,
                exc_info=None if declared._is_logged else declared.__cause__,
                extra=self._extra,
            )
            return inf
        self._failures = 1 if self._was_healthy(self._retry) else self._failures + 1
        wait = self._retry.delay(self._failures)
        self._set_reconnecting(declared.message)
        self._counters.count_error("transient")
        self._counters.retries += 1
        is_first = self._failures == 1 and not declared._is_logged
        log.log(
            DEBUG if declared._is_logged else WARNING,
            "stream interrupted: %s; retry in %.1f s (attempt %d)",
            declared,
            wait,
            self._failures,
            exc_info=declared.__cause__ if is_first else None,  # the same traceback each time
            extra=self._extra,
        )
        return wait

    def _set_reconnecting(self, reason: str) -> None:
        statuses = self._channel.statuses
        statuses.cancel_recovery()
        statuses.clear("stale")
        text = f"reconnecting ({self._failures}): {reason}"
        statuses.set("reconnecting", Status("warning", text))

    def _end(self) -> None:
        if self._has_bug or self._channel.failed:  # failed: a row could not be encoded
            self._has_bug = False
            healthy = self._was_healthy(BUG_RETRY)
            self._delays.failed(self._key, self._channel.time(), healthy=healthy)
