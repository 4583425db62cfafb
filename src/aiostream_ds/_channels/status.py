"""How a stream is doing, as its viewers are to see it: its status.

    live ⇄ stale 42 s, dropped 120, reconnecting (3), refused, or what the author says

A channel that is plainly live and has no rule of its own for silence has nothing of this. Imports
its own room and `frames`; what a loop is, only by its timers.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, get_args

from msgspec import Struct

from aiostream_ds._channels.policy import DROPS_SHOWN
from aiostream_ds._frames.packet import Packet, Schema

__all__ = ["Cause", "Severity", "Status", "StatusPacket", "Statuses", "partition", "status_packet"]

Severity = Literal["info", "warning", "error"]

Cause = Literal["refused", "reconnecting", "author", "stale", "dropped"]
"""Why a stream is not plainly live; of two that are equally severe the first one is shown."""

_CAUSES: tuple[Cause, ...] = get_args(Cause)
_RANK = {"error": 0, "warning": 1, "info": 2}


class Status(Struct, frozen=True):
    """How a stream is doing. Yield one to tell its viewers; a plain `Status()` says: live again.

        yield Status("warning", "the pump is being serviced")

    Panels in exact mode show it as a notice; in others it is a column, when the stream has one.

    Raises:
        ValueError: `severity` is not one of the three, or `text` is no text.
    """

    severity: Severity = "info"
    text: str = ""

    def __post_init__(self) -> None:
        if self.severity not in _RANK:
            allowed = ", ".join(_RANK)
            raise ValueError(f"Status.severity is {self.severity!r}; allowed are {allowed}")
        if not isinstance(self.text, str):
            raise ValueError(f"Status.text is {self.text!r}; allowed is a text")


class StatusPacket(Packet, frozen=True, eq=False, gc=False, kw_only=True):
    """What an author says amid the rows: no rows, no schema."""

    status: Status


def status_packet(status: Status) -> StatusPacket:
    """A status on its way through the channel."""
    return StatusPacket(_UNKNOWN, b"", 0, status=status)


_UNKNOWN = Schema(b"", "")


def partition(
    packets: Sequence[Packet],
) -> tuple[list[Status], tuple[Packet, ...], int, Packet | None]:
    """What packets of one call hold: the statuses; the packets with rows, and their bytes; the last
    one that is no status."""
    said: list[Status] = []
    filled: list[Packet] = []
    last, size = None, 0
    for packet in packets:
        if isinstance(packet, StatusPacket):
            said.append(packet.status)
            continue
        last = packet
        if packet.rows:
            filled.append(packet)
            size += len(packet.data)
    return said, tuple(filled), size, last


class Timer(Protocol):
    """A timer that runs."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """The clock and the timers of an event loop."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer: ...


class Statuses:
    """All that is to be told of one channel at a moment, by its cause.

    `changed` is called when something else is to be told. `stale` is after how many seconds
    without rows the channel is stale; 0: never.
    """

    __slots__ = (
        "_changed",
        "_dropped_packets",
        "_dropped_rows",
        "_drops_timer",
        "_last_drop",
        "_last_row",
        "_loop",
        "_on_caught_up",
        "_repeat_timer",
        "_settle_timer",
        "_stale",
        "_stale_timer",
        "_told",
        "is_quiet",
        "repeat",
    )

    def __init__(
        self,
        loop: Loop,
        changed: Callable[[], None],
        on_caught_up: Callable[[int, int], None],
        stale: float = 0.0,
    ) -> None:
        self._loop = loop
        self._changed = changed
        self._on_caught_up = on_caught_up
        self._told: dict[Cause, Status] = {}
        self.repeat = 0.0  # seconds after which `changed` is called again while not live; 0: never
        self._repeat_timer: Timer | None = None
        self.is_quiet = False  # what is emitted meanwhile are no rows of the upstream's
        self._dropped_rows = self._dropped_packets = 0
        self._last_drop = 0.0
        self._drops_timer: Timer | None = None
        self._stale = stale
        self._last_row = loop.time()
        self._stale_timer: Timer | None = None
        self._settle_timer: Timer | None = None
        if stale:
            self._watch_silence()

    @property
    def shown(self) -> Status | None:
        """What viewers are to see now; None: it is live."""
        return self._shown(())

    @property
    def shown_with_rows(self) -> Status | None:
        """The same for the moment in which rows come: they end what has kept them away."""
        return self._shown(("reconnecting", "stale"))

    @property
    def causes(self) -> tuple[Cause, ...]:
        """All that is the matter now."""
        return tuple(self._told)

    def tell(self, cause: Cause, status: Status) -> None:
        """Something is the matter."""
        if self._told.get(cause) != status:
            self._told[cause] = status
            self._watch_words()
            self._changed()

    def settle_after(self, seconds: float) -> None:
        """The upstream is tried again: it runs if nothing is heard for so long, rows or errors."""
        self.unsettle()
        self._settle_timer = self._loop.call_at(
            self._loop.time() + seconds, self.withdraw, "reconnecting"
        )

    def unsettle(self) -> None:
        """It does not run."""
        if self._settle_timer is not None:
            self._settle_timer.cancel()
            self._settle_timer = None

    def says(self, status: Status) -> None:
        """The author has said how the stream is doing: it runs, then."""
        self.withdraw("reconnecting")
        if status.text:
            self.tell("author", status)
        else:
            self.withdraw("author", "stale")

    def withdraw(self, *causes: Cause) -> None:
        """It is not any more."""
        found = [self._told.pop(cause, None) for cause in causes]
        if any(status is not None for status in found):
            self._changed()

    def rows_came(self) -> None:
        """The stream has emitted rows: whatever was wrong with its upstream is over."""
        if self.is_quiet:
            return
        self._last_row = self._loop.time()
        told = self._told
        if told and ("reconnecting" in told or "stale" in told):
            self.withdraw("reconnecting", "stale")
        if self._stale and self._stale_timer is None:
            self._watch_silence()

    def dropped(self, rows: int, packets: int) -> bool:
        """A reader has lost rows. Whether an episode begins with it."""
        begins = not self._dropped_packets
        self._dropped_rows += rows
        self._dropped_packets += packets
        self._last_drop = self._loop.time()
        if begins:
            self._watch_drops()
            self.tell("dropped", Status("warning", "dropped"))
        return begins

    def close(self) -> None:
        """The stream is over: its timers with it."""
        timers = self._drops_timer, self._stale_timer, self._settle_timer, self._repeat_timer
        for timer in timers:
            if timer is not None:
                timer.cancel()
        if self._dropped_packets:
            self._end_drops()

    def _shown(self, without: Sequence[Cause]) -> Status | None:
        found = [cause for cause in _CAUSES if cause in self._told and cause not in without]
        if not found:
            return None
        return self._worded(min(found, key=lambda cause: _RANK[self._told[cause].severity]))

    def _repeat(self) -> None:
        self._repeat_timer = None
        if self._told:
            self._watch_words()
            self._changed()

    def _watch_words(self) -> None:
        if self.repeat and self._repeat_timer is None:
            due = self._loop.time() + self.repeat
            self._repeat_timer = self._loop.call_at(due, self._repeat)

    def _worded(self, cause: Cause) -> Status:
        status = self._told[cause]
        if cause == "dropped":
            return Status(status.severity, f"dropped {self._dropped_rows}")
        if cause == "stale":
            silence = self._loop.time() - self._last_row
            return Status(status.severity, f"stale {silence:.0f} s")
        return status

    def _watch_drops(self) -> None:
        due = self._last_drop + DROPS_SHOWN
        self._drops_timer = self._loop.call_at(due, self._look_at_drops, due)

    def _look_at_drops(self, due: float) -> None:
        self._drops_timer = None
        if self._last_drop + DROPS_SHOWN > due:
            self._watch_drops()
        else:
            self._end_drops()

    def _end_drops(self) -> None:
        rows, packets = self._dropped_rows, self._dropped_packets
        self._dropped_rows = self._dropped_packets = 0
        self._on_caught_up(rows, packets)
        self.withdraw("dropped")

    def _watch_silence(self) -> None:
        due = self._last_row + self._stale
        self._stale_timer = self._loop.call_at(due, self._look_at_silence, due)

    def _look_at_silence(self, due: float) -> None:
        self._stale_timer = None
        if self._last_row + self._stale > due:
            self._watch_silence()
        else:
            self.tell("stale", Status("warning", "stale"))
