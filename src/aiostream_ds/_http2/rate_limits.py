"""Rate limits on frames that cost the server more than they cost the host.

Exceeding a limit ends the connection with GOAWAY ENHANCE_YOUR_CALM. Every check is O(1), and the
clock is read once per received chunk. Frames of normal use are not limited: WINDOW_UPDATE, which
has no answer, RST_STREAM of streams that have an answer or are older than `RESET_GRACE`, and PING
that waits for the answer of the last one.
"""

import time
from collections.abc import Callable

from aiostream_ds._http2.protocol_errors import RateLimitExceeded

__all__ = ["RateLimits"]

RATE_LIMIT_PERIOD = 10.0
"""Seconds in which a limit may be used up once. After an idle period a burst may use it twice."""

RESET_LIMIT = 10_000
"""Streams in a period that the host opens and resets without an answer within `RESET_GRACE`, and
streams that the server resets because of what the host has sent."""

RESET_GRACE = 1.0
"""Seconds after which a stream without an answer may be reset without being counted."""

CONTROL_LIMIT = 100_000
"""PING and empty DATA frames in a period. The limit is not renewed while the host does not read the
replies."""

UNCOUNTED_PINGS = 2
"""PING frames of each received chunk that are not counted while the host reads. To measure the
connection, grpc-go sends one as soon as the last is answered: thousands in a second while a stream
is at full speed. Another one keeps the connection alive."""

SETTINGS_LIMIT = 100
"""SETTINGS frames in a period; each may change the window of every open stream."""

CONTINUATION_LIMIT = 16
"""CONTINUATION frames of one request, whose headers may have 64 KiB in total."""


class _Limit:
    """At most `limit` in a period. Reads the clock only when the limit is used up."""

    __slots__ = ("_clock", "_limit", "_period_start", "_remaining", "_what")

    def __init__(self, limit: int, what: str, clock: Callable[[], float]) -> None:
        self._limit = self._remaining = limit
        self._what = what
        self._clock = clock
        self._period_start = clock()

    def count(self, *, renew: bool = True) -> None:
        if self._remaining:
            self._remaining -= 1
            return
        now = self._clock()
        if not renew or now - self._period_start < RATE_LIMIT_PERIOD:
            raise RateLimitExceeded(f"more than {self._limit:,} {self._what}")
        self._period_start, self._remaining = now, self._limit - 1


class RateLimits:
    """The limits of one connection. Each `count_` method raises RateLimitExceeded when its limit
    is exceeded.

    `paused` is True while writing is paused because the host reads too slowly.
    """

    __slots__ = (
        "_clock",
        "_control",
        "_newest",
        "_next_grace",
        "_past_grace",
        "_resets",
        "_settings",
        "_uncounted_pings",
        "paused",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._resets = _Limit(RESET_LIMIT, "streams reset at once and unanswered", clock)
        self._control = _Limit(CONTROL_LIMIT, "PING and empty DATA frames", clock)
        self._settings = _Limit(SETTINGS_LIMIT, "SETTINGS frames", clock)
        self._past_grace = 0  # streams up to this identifier are older than RESET_GRACE
        self._newest = 0  # the highest identifier when `_next_grace` was set
        self._next_grace = clock() + RESET_GRACE
        self._uncounted_pings = 0
        self.paused = False

    def begin_read(self, highest: int) -> None:
        """Call before received bytes are processed. `highest` is the highest stream identifier
        so far."""
        self._uncounted_pings = UNCOUNTED_PINGS
        now = self._clock()
        if now >= self._next_grace:
            # nothing received for a whole RESET_GRACE: every stream is older than that
            idle = now >= self._next_grace + RESET_GRACE
            self._past_grace = highest if idle else self._newest
            self._newest = highest
            self._next_grace = now + RESET_GRACE

    def count_reset(self, number: int) -> None:
        """The host has reset a stream that had no answer yet."""
        if number > self._past_grace:
            self._resets.count()

    def count_error_reset(self) -> None:
        """The server has reset a stream because of what the host sent on it."""
        self._resets.count()

    def count_ping(self) -> None:
        """A PING."""
        if self._uncounted_pings and not self.paused:
            self._uncounted_pings -= 1
        else:
            self.count_control()

    def count_control(self) -> None:
        """An empty DATA frame that does not end its stream, or a PING that is counted."""
        self._control.count(renew=not self.paused)

    def count_settings(self) -> None:
        """A SETTINGS frame."""
        self._settings.count()
