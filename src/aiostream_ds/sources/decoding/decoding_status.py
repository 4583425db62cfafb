"""The status of a stream with messages that are not rows."""

from aiostream_ds._channels.status import Status

__all__ = ["STATUS_INTERVAL", "STATUS_SHOWN", "DecodingStatus"]

STATUS_INTERVAL = 10.0
"""Minimum seconds between two texts of the status of a stream with bad messages."""

STATUS_SHOWN = 30.0
"""Seconds without a bad message after which the stream is healthy again, with its next message."""


class DecodingStatus:
    """The status of one stream."""

    __slots__ = ("_bad", "_bad_at", "_changed_at", "is_shown")

    def __init__(self) -> None:
        self.is_shown = False
        self._bad = 0
        self._bad_at = self._changed_at = 0.0

    def change(self, good: int, bad: int, last: tuple[str, str], now: float) -> Status | None:
        """The new status, or None.

        Args:
            good, bad: the rows so far, and what was left out: messages and rows.
            last: the address and the reason of what was left out last.
        """
        if bad > self._bad:
            self._bad, self._bad_at = bad, now
            if self.is_shown and now - self._changed_at < STATUS_INTERVAL:
                return None
            self.is_shown, self._changed_at = True, now
            address, reason = last
            where = f" of {address}" if address else ""
            return Status(
                "warning",
                f"{bad:,} of {bad + good:,} messages and rows left out; the last{where}: {reason}",
            )
        if self.is_shown and now - self._bad_at >= STATUS_SHOWN:
            self.is_shown = False
            return Status()
        return None
