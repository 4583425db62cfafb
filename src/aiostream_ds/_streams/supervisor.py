"""What happens when a run of a stream fails. A channel that people watch is never silently dead.

UpstreamError   passing: the method is called again, after the stream's back-off, without end
other PluginError lasting: said once; the channel stays open and silent until Grafana cancels it
                  (ending it would leave the viewers unsubscribed, an error would be retried)
anything else     a bug: logged with its traceback, readers get the error at once. Grafana calls
                  again at once too, so the next run waits first, longer after each failure

Viewers see the first two as the channel's status. Imports channels, the pump and the ground.
"""

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from math import inf
from typing import Any

import anyio

from aiostream_ds._channels.channel import Channel, Runner
from aiostream_ds._channels.observer import ChannelKey
from aiostream_ds._channels.policy import Retry
from aiostream_ds._channels.status import Status
from aiostream_ds._stream_options import StreamOptions
from aiostream_ds._streams.producer import Encode, drive
from aiostream_ds._telemetry import Counters, redact
from aiostream_ds.errors import PluginError, unwrap

__all__ = ["BUG_RETRY", "BugDelays", "supervise"]

log = logging.getLogger(__name__)

BUG_RETRY = Retry(min_delay=0.5, max_delay=30.0)
"""The back-off after a bug. Grafana itself restarts at once a stream that ran for over 100 ms."""

_PLAIN = StreamOptions()

_REMEMBERED = 1_000
"""Channels whose failures are remembered; the oldest is forgotten first."""


class BugDelays:
    """How long the next run of each channel waits after a bug in the one before."""

    __slots__ = ("_failures",)

    def __init__(self) -> None:
        self._failures: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def failed(self, key: Hashable, ran: float, now: float) -> None:
        """One more failure; after a run longer than the longest wait, the first again."""
        count = self._failures.pop(key, (0, 0.0))[0]
        count = 1 if ran > BUG_RETRY.max_delay else count + 1
        self._failures[key] = count, now + BUG_RETRY.delay(count)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def pending(self, key: Hashable, now: float) -> float:
        """Seconds that a run which starts now has to wait."""
        found = self._failures.get(key)
        return max(0.0, found[1] - now) if found is not None else 0.0


def supervise(
    open_rows: Callable[[], AsyncGenerator[Any, None]],
    encode: Encode,
    key: ChannelKey,
    retry: Retry,
    delays: BugDelays,
    counters: Counters,
    prepare: Callable[[Channel], Awaitable[None]] | None = None,
    options: StreamOptions = _PLAIN,
) -> Runner:
    """A runner that drives the author's method, and drives it again as its errors ask.

    `prepare` comes before each time; its errors count as the method's. The order of `options` knows
    the rows of the runs before: those that come again after an error are late, or of known keys.
    """

    async def supervised(channel: Channel) -> None:
        run = _Run(channel, key, retry, delays, counters)
        await run.wait_for_turn()
        drive_once = drive(
            open_rows, encode, order=options.order, counters=counters, **_sizes(options)
        )
        while True:
            run.begin()
            try:
                if prepare is not None:
                    await prepare(channel)
                await drive_once(channel)
                return
            except (Exception, SystemExit, anyio.get_cancelled_exc_class()) as error:
                wait = run.explain(error)
                if wait is None:
                    raise
            finally:
                run.settle()
            await (anyio.sleep_forever() if wait == inf else anyio.sleep(wait))

    return supervised


def _sizes(options: StreamOptions) -> dict[str, int]:
    """How large a packet may be: of a stream that collects rows, as large as a mailbox."""
    if not options.policy.is_paced:
        return {}
    return {"rows": options.buffer.rows, "batch_bytes": options.buffer.bytes}


class _Run:
    """What one run has to say and to remember."""

    __slots__ = (
        "_bad",
        "_channel",
        "_counters",
        "_delays",
        "_failures",
        "_key",
        "_retry",
        "_started",
        "_where",
    )

    def __init__(
        self,
        channel: Channel,
        key: ChannelKey,
        retry: Retry,
        delays: BugDelays,
        counters: Counters,
    ) -> None:
        self._channel = channel
        self._key = key
        self._retry = retry
        self._delays = delays
        self._counters = counters
        self._where = {"path": key.path}
        self._started = 0.0
        self._failures = 0
        self._bad = False

    async def wait_for_turn(self) -> None:
        wait = self._delays.pending(self._key, anyio.current_time())
        if wait > 0:
            log.info("the stream failed before; it starts in %.1f s", wait, extra=self._where)
            text = f"failed; starts again in {wait:.0f} s"
            self._channel.statuses.set("reconnecting", Status("error", text))
            await anyio.sleep(wait)
            self._channel.statuses.clear("reconnecting")

    def begin(self) -> None:
        self._started = anyio.current_time()
        if self._failures:
            self._channel.statuses.recover_after(self._retry.max_delay)

    def explain(self, error: BaseException) -> float | None:
        """Say what happened. Seconds until the next try, inf for a silent one; None: it is over."""
        if not self._channel.open:
            return None  # it was told to end; whatever it raises then is no reason to go on
        declared = unwrap(error)
        if not isinstance(declared, PluginError):
            self._bad = True
            self._counters.count_error("bug")
            log.error("stream failed", exc_info=error, extra=self._where)
            return None
        if declared.permanent:
            self._counters.count_error("permanent")
            self._channel.statuses.set("refused", Status("error", redact(declared.message)))
            log.error(
                "stream refused: %s; silent until the settings change or its viewers leave",
                declared, exc_info=declared.__cause__, extra=self._where,
            )  # fmt: skip
            return inf
        lasted = anyio.current_time() - self._started > self._retry.max_delay
        self._failures = 1 if lasted else self._failures + 1
        wait = self._retry.delay(self._failures)
        self._tell_outage()
        self._counters.count_error("transient")
        self._counters.retries += 1
        log.warning(
            "stream interrupted: %s; again in %.1f s (attempt %d)",
            declared, wait, self._failures, exc_info=declared.__cause__, extra=self._where,
        )  # fmt: skip
        return wait

    def _tell_outage(self) -> None:
        statuses = self._channel.statuses
        statuses.cancel_recovery()
        statuses.clear("stale")
        statuses.set("reconnecting", Status("warning", f"reconnecting ({self._failures})"))

    def settle(self) -> None:
        if self._bad or self._channel.failed:  # failed: a row of it cannot be encoded
            self._bad = False
            now = anyio.current_time()
            self._delays.failed(self._key, now - self._started, now)
