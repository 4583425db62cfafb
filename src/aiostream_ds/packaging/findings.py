"""Findings, progress lines and the one exception of this package."""

import sys
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import IO, NamedTuple

__all__ = ["Finding", "Level", "PackagingError", "Progress", "megabytes", "worst"]


class PackagingError(Exception):
    """A package cannot be made or read; the message names the bad value and what was expected."""


class Level(StrEnum):
    """The severity of a finding. Error: Grafana refuses the plugin, or the plugin fails."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """The result of one check. `cure` is what to do about it."""

    level: Level
    subject: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.subject}: {self.text}"
        return f"{line}\n{'':8} cure: {self.cure}" if self.cure else line


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of the findings; OK if there are none."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)


def megabytes(size: int) -> str:
    """A number of bytes as text: `1.5 MB`, or `1.5 kB` below 100,000."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


class Progress:
    """Prints the steps of a build, with the seconds since its start, and warnings."""

    def __init__(self, to: IO[str] | None = None, *, quiet: bool = False) -> None:
        self._to = to or sys.stderr
        self._quiet = quiet
        self._started = time.monotonic()
        self.warnings: list[str] = []

    def log(self, text: str) -> None:
        """Print a step, unless `quiet`."""
        if not self._quiet:
            print(f"[{time.monotonic() - self._started:5.1f} s] {text}", file=self._to, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning, `quiet` or not."""
        self.warnings.append(text)
        print(f"warning: {text}", file=self._to, flush=True)
