"""Notifications that were sent while nothing listened: a gap that viewers see."""

from datetime import UTC, datetime

from aiostream_ds._channels.status import Status
from aiostream_ds._telemetry import current_counters

__all__ = ["SHOWN", "MissedNotifications"]

SHOWN = 30.0
"""Seconds for which a panel shows a gap."""


class MissedNotifications:
    """The gaps of all channels of a data source."""

    def __init__(self) -> None:
        self._lost: dict[str, datetime] = {}
        self.gaps = 0

    def lost(self, channel: str, since: datetime) -> None:
        """The channel is no longer listened to, and a stream still has viewers."""
        self._lost.setdefault(channel, since)

    def stopped(self, channel: str) -> None:
        """The stream has no viewers any more."""
        self._lost.pop(channel, None)

    def listening(self, channel: str) -> Status | None:
        """The channel is listened to again. Returns the status of the gap, if there is one."""
        begin = self._lost.pop(channel, None)
        if begin is None:
            return None
        self.gaps += 1
        current_counters().gaps += 1
        between = f"{begin:%H:%M:%S} and {datetime.now(UTC):%H:%M:%S}"
        return Status("warning", f"notifications between {between} UTC may be missing")
