"""How long a store keeps rows and idempotency keys."""

import math
from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["KEYS", "KEY_SECONDS", "Retention"]

KEYS: Annotated[
    int,
    Meta(description="Idempotency keys that a store remembers for each channel, the newest ones."),
] = 100_000

KEY_SECONDS: Annotated[
    float, Meta(description="Seconds for which a store remembers an idempotency key.")
] = 86_400.0


class Retention(Struct, frozen=True, kw_only=True):
    """How many rows a store keeps. The oldest ones of a channel are removed first.

    `total_bytes` is a bound of all channels together: the channel that has most loses rows first.
    The newest rows of a channel, a block of up to some 100 KB or one larger row, are kept however
    large they are; but not for `total_bytes`, if no channel has older ones. The rows that were
    stored last of all are always kept. Bytes are those of the rows as they are stored, which are
    compressed, and 80 for each idempotency key; the file has some 10 % more. Where bytes are
    exceeded, keys are forgotten with their rows.

    Raises:
        ValueError: a bound is not above 0, or the seconds are not a number.
    """

    seconds: float = 30 * 86_400.0
    """Seconds since a row was stored, whatever its own time is; `math.inf`: no bound."""
    rows: int = 10_000_000
    """Rows of each channel."""
    bytes: int = 1 << 30
    """Bytes of each channel."""
    total_bytes: int = 4 << 30
    """Bytes of all channels together."""

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and not math.isnan(self.seconds)):
            raise ValueError(f"seconds must be above 0, got {self.seconds!r}")
        for name in ("rows", "bytes", "total_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
