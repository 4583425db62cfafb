"""What a host must not send: malformed requests, and floods of frames that cost more than they say.

A used up budget raises, of which h2 makes a GOAWAY ENHANCE_YOUR_CALM. All of it is O(1) and asks
the clock once a read. What an honest host does a lot of has no budget: to reset streams that are
answered or not young any more, and WINDOW_UPDATE. Knows the insides of h2 (4.3, 4.4):
tests/http2/test_rate_limits.py fails when an upgrade moves what this relies on.
Imports nothing of the project.
"""

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event
from h2.exceptions import DenialOfServiceError
from h2.frame_buffer import FrameBuffer

__all__ = ["RateLimits", "GuardedConnection", "malformed"]

FLOOD_PERIOD = 10.0
"""Seconds for which a budget lasts. After a quiet time a burst may use it twice."""

RESET_LIMIT = 10_000
"""Streams that a host may open and reset within `RESET_GRACE` unanswered, and requests that we
reset."""

RESET_GRACE = 1.0
"""Seconds after which a stream that has no answer yet may be reset as often as the host likes."""

CONTROL_LIMIT = 100_000
"""PING and empty DATA frames. No new budget comes while the host does not read what we answer."""

SETTINGS_LIMIT = 100
"""SETTINGS frames, of which each may cost a look at every open stream."""

CONTINUATION_LIMIT = 16
"""CONTINUATION frames of one request, whose headers may have 64 KiB in all."""

_PSEUDO = frozenset({":method", ":scheme", ":path"})
_CONNECTION = frozenset(
    {"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"}
)


class _Budget:
    """So many in a period. The clock is asked when the budget is used up, not each time."""

    __slots__ = ("_begun", "_clock", "_left", "_limit", "_what")

    def __init__(self, limit: int, what: str, clock: Callable[[], float]) -> None:
        self._limit = self._left = limit
        self._what = what
        self._clock = clock
        self._begun = clock()

    def spend(self, *, renew: bool = True) -> None:
        if self._left:
            self._left -= 1
            return
        now = self._clock()
        if not renew or now - self._begun < FLOOD_PERIOD:
            raise DenialOfServiceError(f"more than {self._limit:,} {self._what}")
        self._begun, self._left = now, self._limit - 1


class RateLimits:
    """What one connection's host may still send. Each method raises DenialOfServiceError.

    `stalled` is True while the host reads so slowly that writing has been paused.
    """

    __slots__ = ("_clock", "_control", "_mark", "_old", "_resets", "_settings", "_turn", "stalled")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._resets = _Budget(RESET_LIMIT, "streams reset at once and unanswered", clock)
        self._control = _Budget(CONTROL_LIMIT, "PING and empty DATA frames", clock)
        self._settings = _Budget(SETTINGS_LIMIT, "SETTINGS frames", clock)
        self._old = self._mark = 0  # streams up to `_old` are not young any more
        self._turn = clock() + RESET_GRACE
        self.stalled = False

    def begin_read(self, highest: int) -> None:
        """Bytes have come; `highest` is the number of the youngest stream before them."""
        now = self._clock()
        if now >= self._turn:
            # no read for a whole YOUNG: every stream is older than that
            self._old = highest if now >= self._turn + RESET_GRACE else self._mark
            self._mark = highest
            self._turn = now + RESET_GRACE

    def count_reset(self, number: int) -> None:
        """The host has reset a stream that had no answer yet."""
        if number > self._old:
            self._resets.spend()

    def count_refusal(self) -> None:
        """We have reset a stream for what the host sent on it."""
        self._resets.spend()

    def count_control(self) -> None:
        """A PING, or DATA of no bytes that does not end its stream."""
        self._control.spend(renew=not self.stalled)

    def count_settings(self) -> None:
        """A SETTINGS frame."""
        self._settings.spend()


class GuardedConnection(H2Connection):
    """h2, but a connection whose host floods ends."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)  # finds the methods below by their names
        self.floods = RateLimits()
        self.incoming_buffer = _Frames(server=True)

    def receive_data(self, data: Any) -> list[Event]:
        """Raises DenialOfServiceError, and other ProtocolErrors, with a GOAWAY ready to send."""
        self.floods.begin_read(self.highest_inbound_stream_id)
        return super().receive_data(data)

    def _receive_rst_stream_frame(self, frame: Any) -> Any:
        stream = self.streams.get(frame.stream_id)
        if stream is not None and not stream.state_machine.headers_sent:
            self.floods.count_reset(frame.stream_id)
        return super()._receive_rst_stream_frame(frame)

    def _receive_ping_frame(self, frame: Any) -> Any:
        self.floods.count_control()
        return super()._receive_ping_frame(frame)

    def _receive_data_frame(self, frame: Any) -> Any:
        if not frame.data and "END_STREAM" not in frame.flags:
            self.floods.count_control()
        return super()._receive_data_frame(frame)

    def _receive_settings_frame(self, frame: Any) -> Any:
        self.floods.count_settings()
        return super()._receive_settings_frame(frame)


class _Frames(FrameBuffer):
    def _update_header_buffer(self, f: Any) -> Any:
        if len(self._headers_buffer) > CONTINUATION_LIMIT:  # the HEADERS frame is in it, too
            what = f"more than {CONTINUATION_LIMIT} CONTINUATION frames of one request"
            raise DenialOfServiceError(what)
        return super()._update_header_buffer(f)


def malformed(headers: Iterable[tuple[str, str]]) -> str | None:
    """Why these are no request's headers (RFC 9113, 8.2 and 8.3), or None."""
    names = []
    for name, value in headers:
        names.append(name)
        if name == "te" and value != "trailers":
            return f"te is {value!r}; it must be 'trailers'"
        if not value and name == ":path":
            return ":path is empty"
    return _malformed_names(tuple(names))


@lru_cache(maxsize=64)  # a host has few sets of names; an entry may have 64 KiB
def _malformed_names(names: tuple[str, ...]) -> str | None:
    pseudo = [name for name in names if name[:1] == ":"]
    if set(pseudo) - {":authority"} != _PSEUDO or len(set(pseudo)) != len(pseudo):
        return f"the pseudo-headers are {pseudo!r}; :method, :scheme and :path must be there once"
    if tuple(pseudo) != names[: len(pseudo)]:
        return "a pseudo-header follows a header"
    for name in names:
        if not name or name != name.lower() or not name.isascii() or not name.isprintable():
            return f"a header is called {name!r}; names are lower-case ASCII"
        if " " in name:
            return f"a header is called {name!r}; names have no blanks"
        if name in _CONNECTION:
            return f"the header {name!r} has no place in HTTP/2"
    return None
