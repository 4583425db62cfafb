"""The status of a stream that its viewers see.

    healthy ⇄ stale 42 s, dropped 120, reconnecting (3): …, refused, or a status from the author

A healthy channel without a limit for silence has no `Statuses` object.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

from msgspec import Struct

from aiostream_ds._channels.clock import Clock, Timer
from aiostream_ds._channels.policy import GAP_SHOWN, LAG_END
from aiostream_ds._frames.packet import Packet, Schema
from aiostream_ds._redaction import redact_start

__all__ = ["Cause", "Severity", "Status", "StatusPacket", "Statuses", "partition", "status_packet"]

Severity = Literal["info", "warning", "error"]

Cause = Literal[
    "refused", "reconnecting", "author", "followed", "cluster", "store", "stale", "dropped", "gap"
]
"""Why a stream is degraded. Of two causes with the same severity the first one here is shown."""

_CAUSES: tuple[Cause, ...] = get_args(Cause)
STATUS_LIMIT = 1_000
"""Characters of a status that viewers see; exact panels get it repeatedly."""

_RANK = {"error": 0, "warning": 1, "info": 2}


class Status(Struct, frozen=True):
    """The status of a stream. Yield one to show it to the viewers; `Status()` means healthy again.

        yield Status("warning", "maintenance until 14:00")

    Panels in exact mode show it as a notice; in others it is a column, when the stream has one.

    Raises:
        ValueError: `severity` is not one of the three, or `text` is not a string.
    """

    severity: Severity = "info"
    text: str = ""

    def __post_init__(self) -> None:
        if self.severity not in _RANK:
            expected = ", ".join(_RANK)
            raise ValueError(f"Status.severity must be one of {expected}, got {self.severity!r}")
        if not isinstance(self.text, str):
            raise ValueError(f"Status.text must be a string, got {self.text!r}")


class StatusPacket(Packet, frozen=True, eq=False, gc=False, kw_only=True):
    """A status that the author yielded: a packet without rows and schema."""

    status: Status


def status_packet(status: Status) -> StatusPacket:
    """A status as a packet, so that it keeps its position among the rows."""
    return StatusPacket(_UNKNOWN, b"", 0, status=status)


_UNKNOWN = Schema(b"", "")


def partition(
    packets: Sequence[Packet],
) -> tuple[list[Status], tuple[Packet, ...], int, Packet | None]:
    """The statuses; the packets with rows, and their bytes; the last packet without a status."""
    statuses: list[Status] = []
    with_rows: list[Packet] = []
    last, size = None, 0
    for packet in packets:
        if isinstance(packet, StatusPacket):
            statuses.append(packet.status)
            continue
        last = packet
        if packet.rows:
            with_rows.append(packet)
            size += len(packet.data)
    return statuses, tuple(with_rows), size, last


class Statuses:
    """The active statuses of one channel, by cause.

    Args:
        clock: the event loop.
        changed: called when the set of active statuses has changed.
        on_caught_up: called when drops have ended, with the numbers of dropped rows and packets.
        stale: seconds without rows after which the channel is stale; 0: never.

    Attributes:
        repeat: seconds after which `changed` is called again while the channel is degraded; 0:
            never.
        last_row: when the upstream system's last rows were emitted; at first the time of creation.
        ignores_next: set for rows that are emitted next and only carry a status: they do not come
            from the upstream system.
    """

    __slots__ = (
        "_active",
        "_changed",
        "_clock",
        "_dropped_packets",
        "_dropped_rows",
        "_drops_timer",
        "_gap_timer",
        "_last_drop",
        "_on_caught_up",
        "_recovery_timer",
        "_repeat_timer",
        "_stale",
        "_stale_timer",
        "ignores_next",
        "last_row",
        "repeat",
    )

    def __init__(
        self,
        clock: Clock,
        changed: Callable[[], None],
        on_caught_up: Callable[[int, int], None],
        stale: float = 0.0,
    ) -> None:
        self._clock = clock
        self._changed = changed
        self._on_caught_up = on_caught_up
        self._active: dict[Cause, Status] = {}
        self.repeat = 0.0
        self._repeat_timer: Timer | None = None
        self.ignores_next = False
        self._dropped_rows = self._dropped_packets = 0
        self._last_drop = 0.0
        self._drops_timer: Timer | None = None
        self._gap_timer: Timer | None = None
        self._stale = stale
        self.last_row = clock.time()
        self._stale_timer: Timer | None = None
        self._recovery_timer: Timer | None = None
        if stale:
            self._start_stale_timer()

    @property
    def current(self) -> Status | None:
        """The most severe status; None: the stream is healthy."""
        return self._most_severe(())

    @property
    def current_with_rows(self) -> Status | None:
        """The status that the channel has after rows: they end an outage and silence."""
        return self._most_severe(("reconnecting", "stale"))

    @property
    def current_of_source(self) -> Status | None:
        """The status without what concerns some subscribers only: that they lag."""
        return self._most_severe(("dropped",))

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The causes of all active statuses."""
        return tuple(self._active)

    def set(self, cause: Cause, status: Status) -> None:
        """Activate a status, with its text redacted and cut. The same status again does nothing."""
        status = Status(status.severity, redact_start(status.text, STATUS_LIMIT))
        if self._active.get(cause) != status:
            self._active[cause] = status
            self._start_repeat_timer()
            self._changed()

    def clear(self, *causes: Cause) -> None:
        """Deactivate the statuses of these causes."""
        found = [self._active.pop(cause, None) for cause in causes]
        if any(status is not None for status in found):
            self._changed()

    def set_by_author(self, status: Status) -> None:
        """Activate what the author yielded, or deactivate it if it has no text.

        It also ends an outage: the stream runs.
        """
        self.clear("reconnecting")
        if status.text:
            self.set("author", status)
        else:
            self.clear("author", "stale")

    def recover_after(self, seconds: float) -> None:
        """The stream runs again: end the outage after so many seconds without rows and errors."""
        self.cancel_recovery()
        self._recovery_timer = self._clock.call_at(
            self._clock.time() + seconds, self.clear, "reconnecting"
        )

    def cancel_recovery(self) -> None:
        """The stream has failed again: undo `recover_after`."""
        if self._recovery_timer is not None:
            self._recovery_timer.cancel()
            self._recovery_timer = None

    def rows_emitted(self) -> None:
        """The stream has emitted rows: this ends an outage and silence."""
        if self.ignores_next:
            self.ignores_next = False
            return
        self.last_row = self._clock.time()
        active = self._active
        if active and ("reconnecting" in active or "stale" in active):
            self.clear("reconnecting", "stale")
        if self._stale and self._stale_timer is None:
            self._start_stale_timer()

    def rows_dropped(self, rows: int, packets: int) -> bool:
        """A subscriber has lost rows. Returns whether none had lost rows before, or drops had
        ended."""
        begins = not self._dropped_packets
        self._dropped_rows += rows
        self._dropped_packets += packets
        self._last_drop = self._clock.time()
        if begins:
            self._start_drops_timer()
            self.set("dropped", Status("warning", "dropped"))
        return begins

    def rows_missing(self) -> None:
        """All viewers miss rows; they see it for a while."""
        if self._gap_timer is not None:
            self._gap_timer.cancel()
        due = self._clock.time() + GAP_SHOWN
        self._gap_timer = self._clock.call_at(due, self.clear, "gap")
        self.set("gap", Status("warning", "rows are missing"))

    def close(self) -> None:
        """The stream has ended: cancel the timers, and end the drops."""
        for timer in (
            self._drops_timer,
            self._gap_timer,
            self._stale_timer,
            self._recovery_timer,
            self._repeat_timer,
        ):
            if timer is not None:
                timer.cancel()
        if self._dropped_packets:
            self._end_drops()

    def _most_severe(self, without: Sequence[Cause]) -> Status | None:
        found = [cause for cause in _CAUSES if cause in self._active and cause not in without]
        if not found:
            return None
        return self._with_text(min(found, key=lambda cause: _RANK[self._active[cause].severity]))

    def _with_text(self, cause: Cause) -> Status:
        status = self._active[cause]
        if cause == "dropped":
            return Status(status.severity, f"dropped {self._dropped_rows}")
        if cause == "stale":
            silence = self._clock.time() - self.last_row
            return Status(status.severity, f"stale {silence:.0f} s")
        return status

    def _start_repeat_timer(self) -> None:
        if self.repeat and self._repeat_timer is None:
            due = self._clock.time() + self.repeat
            self._repeat_timer = self._clock.call_at(due, self._repeat)

    def _repeat(self) -> None:
        self._repeat_timer = None
        if self._active:
            self._start_repeat_timer()
            self._changed()

    def _start_drops_timer(self) -> None:
        due = self._last_drop + LAG_END
        self._drops_timer = self._clock.call_at(due, self._check_drops, due)

    def _check_drops(self, due: float) -> None:
        self._drops_timer = None
        if self._last_drop + LAG_END > due:
            self._start_drops_timer()
        else:
            self._end_drops()

    def _end_drops(self) -> None:
        rows, packets = self._dropped_rows, self._dropped_packets
        self._dropped_rows = self._dropped_packets = 0
        self._on_caught_up(rows, packets)
        self.clear("dropped")

    def _start_stale_timer(self) -> None:
        due = self.last_row + self._stale
        self._stale_timer = self._clock.call_at(due, self._check_silence, due)

    def _check_silence(self, due: float) -> None:
        self._stale_timer = None
        if self.last_row + self._stale > due:
            self._start_stale_timer()
        else:
            self.set("stale", Status("warning", "stale"))
