"""Who has pushed what: lines of the audit log, at a bounded rate, and counts."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import current_counters
from aiostream_ds.models import User
from aiostream_ds.sources.push.push_answers import PushResult
from aiostream_ds.sources.push.push_errors import PushRefused

__all__ = ["AUDIT_INTERVAL", "PushAudit"]

audit = get_logger("aiostream_ds.audit")

AUDIT_INTERVAL = 60.0
"""Minimum seconds between two audit lines about the pushes of one login to one path."""

PAIRS = 1_000
"""Pairs of a login and a path whose lines are kept apart; those beyond share their lines."""

_SHOWN = 200  # characters of a login or path


class _Pushes:
    """What was pushed since the last line."""

    __slots__ = ("accepted", "at", "refusals", "rejected", "repeated")

    def __init__(self) -> None:
        self.at = -AUDIT_INTERVAL
        self.accepted = self.rejected = self.repeated = self.refusals = 0


class PushAudit:
    """The pushes to one data source. The counts are since its settings were saved."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._counters = current_counters()
        self._pushes: OrderedDict[tuple[str, str], _Pushes] = OrderedDict()
        self.accepted = self.rejected = self.refusals = 0
        """Rows that were stored, rows that were not, and pushes that were refused."""
        self.last_refusal = self.last_rejection = ""

    def taken(self, user: User | None, path: str, result: PushResult) -> None:
        """A body was decoded, and its rows are stored."""
        found = self._of(user, path)
        if result.repeated:
            found.repeated += result.taken
            self._counters.count_pushed("repeated", result.taken)
        else:
            found.accepted += result.taken
            self.accepted += result.taken
            self._counters.count_pushed("accepted", result.taken)
        found.rejected += result.bad
        self.rejected += result.bad
        if result.refused:
            self.last_rejection = result.refused[-1].reason
        self._counters.count_pushed("rejected", result.bad)
        self._log(found, user, path, "")

    def refused(self, user: User | None, path: str, error: PushRefused) -> None:
        """A body was refused as a whole."""
        self.refusals += 1
        self.last_refusal = error.message
        self._counters.count_push_refused(error.status)
        found = self._of(user, path)
        found.refusals += 1
        self._log(found, user, path, f"; the last one, {error.status}: {error.message}")

    def _of(self, user: User | None, path: str) -> _Pushes:
        key = _login(user), path
        if key not in self._pushes and len(self._pushes) >= PAIRS:
            oldest = next(iter(self._pushes))
            if self._clock() < self._pushes[oldest].at + AUDIT_INTERVAL:
                key = "(others)", ""
            else:
                del self._pushes[oldest]
        found = self._pushes.setdefault(key, _Pushes())
        self._pushes.move_to_end(key)
        return found

    def _log(self, found: _Pushes, user: User | None, path: str, reason: str) -> None:
        now = self._clock()
        if now < found.at + AUDIT_INTERVAL:
            return
        found.at = now
        parts = [f"rows {found.accepted:,}"]
        for count, words in (
            (found.repeated, "repeated"),
            (found.rejected, "not taken"),
            (found.refusals, "pushes refused"),
        ):
            if count:
                parts.append(f"{words} {count:,}")
        found.accepted = found.rejected = found.repeated = found.refusals = 0
        audit.info(
            "%r has pushed to %r: %s%s", _login(user), path[:_SHOWN], ", ".join(parts), reason
        )


def _login(user: User | None) -> str:
    return "" if user is None else user.login[:_SHOWN]
