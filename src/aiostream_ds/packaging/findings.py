"""What the room says: its one error, findings, and progress."""

import sys
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import IO, NamedTuple

__all__ = ["Finding", "Level", "PackagingError", "Progress", "megabytes", "worst"]


class PackagingError(Exception):
    """It cannot be done; the message names what is wrong and what would be right."""


class Level(StrEnum):
    """How bad a finding is: an error makes Grafana refuse the plugin, or the plugin fail."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One line: what was looked at, and what was found. `cure` is what to do about it."""

    level: Level
    subject: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.subject}: {self.text}"
        return f"{line}\n{'':8} cure: {self.cure}" if self.cure else line


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among them."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)


def megabytes(size: int) -> str:
    """A size as people say it."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


class Progress:
    """Lines that say what is being done, with the seconds since the start."""

    def __init__(self, to: IO[str] | None = None, *, quiet: bool = False) -> None:
        self._to = to or sys.stderr
        self._quiet = quiet
        self._began = time.monotonic()
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        """One step begins, or is done."""
        if not self._quiet:
            print(f"[{time.monotonic() - self._began:5.1f} s] {text}", file=self._to, flush=True)

    def warn(self, text: str) -> None:
        """What the user should know, and is told in any case."""
        self.warnings.append(text)
        print(f"warning: {text}", file=self._to, flush=True)
