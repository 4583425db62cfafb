"""Times and limits of a node, and what it counts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random, SystemRandom

from aiostream_ds._cluster.lease import clock

__all__ = ["NodeCounters", "NodeOptions"]


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """How a node behaves. All times are in seconds.

    Attributes:
        lease: for which a renewal is valid; it is renewed three times in this time.
        margin: before the end of its lease a node stops writing.
        grace: an upstream goes on for so long without subscribers on any node.
        tail: the most messages that `Sink.joined` gets.
        check: after so much silence a node compares its position with the log's end; then at
            growing intervals.
        longest_check: the longest of these, unless the node has too many channels for it.
        resume_within: an upstream that nobody has read for longer begins now, not where it ended.
        clock: counts also while the machine is suspended.
        wall_clock: seconds since the epoch.
        random: for delays, and identities of terms.
    """

    lease: float = 1.5
    margin: float = 0.3
    grace: float = 2.0
    tail: int = 100
    check: float = 1.5
    longest_check: float = 6.0
    resume_within: float = 60.0
    clock: Callable[[], float] = clock
    wall_clock: Callable[[], float] = time.time
    random: Random = field(default_factory=SystemRandom)

    def __post_init__(self) -> None:
        if not 0 < self.margin < self.lease:
            raise ValueError(
                f"margin must be between 0 and the lease ({self.lease} s), got {self.margin}"
            )
        if not 0 <= self.tail <= 250:
            raise ValueError(f"tail must be from 0 to 250, got {self.tail}")
        for name in ("grace", "check", "longest_check", "resume_within"):
            value = getattr(self, name)
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0 seconds, got {value}")


@dataclass
class NodeCounters:
    """Counters of a node; `NodeState` describes them."""

    takeovers: int = 0
    fencings: int = 0
    losses: int = 0
    fills: int = 0
    resets: int = 0
    degraded: int = 0
    too_large: int = 0
