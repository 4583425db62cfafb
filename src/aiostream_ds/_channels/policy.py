"""Every number of the rooms `channels` and the pump: buffers, retries, limits and timeouts.

Values are frozen and checked when they are made. Each constant and each field carries one line of
description that `described.py` gives out, so that docs/behaviour.md is generated and cannot lie.
"""

import math
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

__all__ = [
    "BATCH_ROWS",
    "CLOSE_TIMEOUT",
    "HIGH_WATER_TURNS",
    "DROPS_SHOWN",
    "FIRST_BATCH",
    "ORDER_SERIES",
    "SCHEMA_REPEAT",
    "SCHEMA_SHOWN",
    "TURN_BYTES",
    "Buffer",
    "Conflict",
    "Full",
    "Late",
    "RowOrder",
    "Policy",
    "Replay",
    "Retry",
    "SchemaPolicy",
]

CLOSE_TIMEOUT: Annotated[
    float,
    Meta(
        description="Seconds after which a stream that was told to end is cancelled a second time;"
        " after twice as long again it counts as stuck."
    ),
] = 1.0

BATCH_ROWS: Annotated[
    int,
    Meta(description="Most rows that are merged into one packet while the author does not wait."),
] = 1_000

TURN_BYTES: Annotated[
    int,
    Meta(description="Encoded bytes after which a stream that never waits gives others a turn."),
] = 64 * 1024

FIRST_BATCH: Annotated[
    int,
    Meta(description="Most yields in the first packet of a run, before their size is known."),
] = 64

HIGH_WATER_TURNS: Annotated[
    int,
    Meta(
        description="Turns of the event loop that a stream which never waits gives a half-full"
        " reader before rows may be dropped."
    ),
] = 8

DROPS_SHOWN: Annotated[
    float,
    Meta(
        description="Seconds without a drop after which a reader that was behind has caught up:"
        " then the log says what was dropped."
    ),
] = 10.0

SCHEMA_REPEAT: Annotated[
    float,
    Meta(description="Seconds after which rows carry the schema again, to repair a lost one."),
] = 30.0

SCHEMA_SHOWN: Annotated[
    float,
    Meta(description="Seconds after a subscription until when all packets carry the schema."),
] = 1.0

Conflict = Literal["fail", "text", "null"]
"""What happens to a value of another type than its column's."""

Late = Literal["pass", "drop", "hold"]
"""What happens to a row that is older than one before it."""

ORDER_SERIES: Annotated[
    int,
    Meta(
        description="Most series whose order one stream keeps; the one that was silent longest is"
        " forgotten first."
    ),
] = 10_000

Full = Literal["drop_oldest", "latest", "block", "fail"]
"""What happens when a reader's mailbox is full."""


def _check_int(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; allowed is a whole number of at least {least}")


def _check_float(name: str, value: object, least: float, most: float = math.inf) -> None:
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not least <= value <= most
    ):
        top = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name} is {value!r}; allowed is a number of at least {least:g}{top}")


class Buffer(Struct, frozen=True):
    """The bounds of one reader's mailbox, and what happens when it is full.

    The newest batch always stays, even one that is larger than the bounds: it is what a reader
    that keeps up is about to fetch.

    Raises:
        ValueError: a bound below 1, a `full` that is not one of the four, or a `stall_timeout`
            that is no number of seconds.
    """

    rows: Annotated[int, Meta(description="Most rows that wait for one reader.")] = 10_000
    bytes: Annotated[int, Meta(description="Most encoded bytes that wait for one reader.")] = (
        1 << 20
    )
    full: Annotated[
        Full,
        Meta(
            description="When a reader is behind: drop_oldest drops its oldest packets, latest"
            " keeps one packet, block makes the author wait, fail ends this reader."
        ),
    ] = "drop_oldest"
    stall_timeout: Annotated[
        float,
        Meta(
            description="Seconds after which a reader whose mailbox is full and who has taken"
            " nothing is ended; Grafana calls again."
        ),
    ] = 60.0

    def __post_init__(self) -> None:
        _check_int("Buffer.rows", self.rows, 1)
        _check_int("Buffer.bytes", self.bytes, 1)
        _check_float("Buffer.stall_timeout", self.stall_timeout, 0.0)
        if self.full not in get_args(Full):
            allowed = ", ".join(get_args(Full))
            raise ValueError(f"Buffer.full is {self.full!r}; allowed are {allowed}")


class Retry(Struct, frozen=True):
    """How long a stream whose outside system failed waits before it is run again.

    Raises:
        ValueError: a delay that is no number of seconds, `max_delay` below `min_delay`, a factor
            below 1, a jitter outside 0 to 1 or a `fill` that is neither true nor false.
    """

    min_delay: Annotated[float, Meta(description="Seconds before the first retry.")] = 0.5
    max_delay: Annotated[float, Meta(description="Most seconds between two retries.")] = 30.0
    factor: Annotated[float, Meta(description="Each delay is this many times the last.")] = 2.0
    jitter: Annotated[
        float,
        Meta(description="Share of a delay that chance may take away, so that not all come back"
             " at once."),
    ] = 0.2  # fmt: skip
    fill: Annotated[
        bool,
        Meta(
            description="Whether the rows of an outage are asked of the history before the method"
            " is called again; only of a stream with a cursor."
        ),
    ] = True

    def __post_init__(self) -> None:
        _check_float("Retry.min_delay", self.min_delay, 0.0)
        _check_float("Retry.max_delay", self.max_delay, self.min_delay)
        _check_float("Retry.factor", self.factor, 1.0)
        _check_float("Retry.jitter", self.jitter, 0.0, 1.0)
        if not isinstance(self.fill, bool):
            raise ValueError(f"Retry.fill is {self.fill!r}; allowed are True and False")

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row.

        Raises:
            ValueError: `failures` is below 1.
        """
        _check_int("failures", failures, 1)
        try:
            seconds = min(self.max_delay, self.min_delay * float(self.factor) ** (failures - 1))
        except OverflowError:
            seconds = self.max_delay
        from random import random  # seldom, and not at the start

        return seconds * (1.0 - self.jitter * random())


class Replay(Struct, frozen=True):
    """How many of its newest rows a channel keeps in memory: its ring.

    Queries of a stream without history are answered from it, and viewers of an exact panel find
    there what they missed. It stays for a while after its stream has ended.

    Raises:
        ValueError: a bound below 1, or seconds that are no number.
    """

    rows: Annotated[int, Meta(description="Most rows that a channel keeps.")] = 1_000
    bytes: Annotated[int, Meta(description="Most encoded bytes that a channel keeps.")] = 1 << 16
    seconds: Annotated[float, Meta(description="Seconds after which a kept row is forgotten.")] = (
        900.0
    )
    keep: Annotated[
        float,
        Meta(description="Seconds that the rows stay after the stream has ended."),
    ] = 60.0

    def __post_init__(self) -> None:
        _check_int("Replay.rows", self.rows, 1)
        _check_int("Replay.bytes", self.bytes, 1)
        _check_float("Replay.seconds", self.seconds, 0.0)
        _check_float("Replay.keep", self.keep, 0.0)


class Policy(Struct, frozen=True):
    """How one channel treats its readers.

    Raises:
        ValueError: a number of seconds that is none, a `buffer` that is no Buffer, or a `replay`
            that is no Replay.
    """

    buffer: Annotated[Buffer, Meta(description="The mailbox of each reader.")] = Buffer()
    linger: Annotated[
        float,
        Meta(description="Seconds that a stream runs on after its last reader has left."),
    ] = 0.0
    replay: Annotated[
        Replay | None,
        Meta(description="The ring of a stream without history; none: nothing is kept."),
    ] = None
    stale: Annotated[
        float,
        Meta(description="Seconds without rows after which a stream is shown as stale; 0: never."),
    ] = 0.0
    flush: Annotated[
        float,
        Meta(description="Seconds for which rows are collected for one packet."),
    ] = 0.0
    max_hz: Annotated[
        float,
        Meta(
            description="Most packets of single rows in a second; 0: as many as come. A packet that"
            " has as many rows or bytes as the mailbox may hold leaves earlier."
        ),
    ] = 0.0

    @property
    def is_paced(self) -> bool:
        """Whether packets wait although a reader could have them."""
        return bool(self.flush or self.max_hz)

    def __post_init__(self) -> None:
        if not isinstance(self.buffer, Buffer):
            raise ValueError(f"Policy.buffer is {self.buffer!r}; allowed is a Buffer")
        _check_float("Policy.linger", self.linger, 0.0)
        for name in ("stale", "flush", "max_hz"):
            _check_float(f"Policy.{name}", getattr(self, name), 0.0)
        if not isinstance(self.replay, Replay | None):
            raise ValueError(f"Policy.replay is {self.replay!r}; allowed is a Replay or None")


class SchemaPolicy(Struct, frozen=True):
    """How the rows of one channel become columns.

    Raises:
        ValueError: `columns` or `series` below 1, a `conflict` that is not one of the three, or
            `labels` that are no names, each once.
    """

    columns: Annotated[
        int,
        Meta(
            description="Most columns that dicts bring, beside the time; the values of keys beyond"
            " are left out and counted."
        ),
    ] = 500
    conflict: Annotated[
        Conflict,
        Meta(
            description="A value of another type than its column's: fail ends the stream with an"
            " error, null leaves the value out and counts it, text makes the column one of texts."
        ),
    ] = "fail"
    series: Annotated[
        int,
        Meta(
            description="Most series of a channel with labels; rows of series beyond are left out"
            " and counted."
        ),
    ] = 500
    labels: Annotated[
        tuple[str, ...],
        Meta(
            description="Keys that tell the series of one channel apart: each series gets columns"
            " of its own, with these as their labels."
        ),
    ] = ()

    def __post_init__(self) -> None:
        _check_int("SchemaPolicy.columns", self.columns, 1)
        _check_int("SchemaPolicy.series", self.series, 1)
        if self.conflict not in get_args(Conflict):
            allowed = ", ".join(get_args(Conflict))
            raise ValueError(f"SchemaPolicy.conflict is {self.conflict!r}; allowed are {allowed}")
        names = self.labels
        if (
            not isinstance(names, tuple)
            or not all(isinstance(name, str) and name for name in names)
            or len(set(names)) != len(names)
            or "time" in names
        ):
            raise ValueError(
                f"SchemaPolicy.labels is {names!r}; allowed is a tuple of names, each once,"
                " without 'time'"
            )


class RowOrder(Struct, frozen=True):
    """In which order the rows of one stream go out, by their own time, and which are left out.

    A row's time is its column `time`, or without one its first datetime. A row without a time is
    stamped when it is sent and is never late.

    Raises:
        ValueError: a `late` that is not one of the three, `hold` that is no number of seconds,
            `keys` below 1, or `by` or `key` that are no tuple of names, each once.
    """

    late: Annotated[
        Late,
        Meta(
            description="A row older than one of its series before it: pass sends it all the same,"
            " drop leaves it out and counts it, hold keeps rows for a while to put them in order."
        ),
    ] = "pass"
    hold: Annotated[
        float,
        Meta(
            description="Seconds of the rows' own time that hold lets a row be late, and the"
            " longest that a row waits for others."
        ),
    ] = 1.0
    rows: Annotated[
        int,
        Meta(
            description="Most rows that hold keeps, of all series; when there are more, the one"
            " that came first goes before its time."
        ),
    ] = 10_000
    by: Annotated[
        tuple[str, ...],
        Meta(description="Columns that tell series apart: each series has an order of its own."),
    ] = ()
    key: Annotated[
        tuple[str, ...],
        Meta(
            description="Columns that tell rows apart: a second row of one key is left out and"
            " counted."
        ),
    ] = ()
    keys: Annotated[
        int, Meta(description="Most keys that are remembered; the oldest is forgotten first.")
    ] = 10_000

    def __post_init__(self) -> None:
        if self.late not in get_args(Late):
            allowed = ", ".join(get_args(Late))
            raise ValueError(f"RowOrder.late is {self.late!r}; allowed are {allowed}")
        _check_float("RowOrder.hold", self.hold, 0.0)
        _check_int("RowOrder.rows", self.rows, 1)
        _check_int("RowOrder.keys", self.keys, 1)
        for name, value in (("by", self.by), ("key", self.key)):
            if (
                not isinstance(value, tuple)
                or not all(isinstance(column, str) and column for column in value)
                or len(set(value)) != len(value)
            ):
                raise ValueError(
                    f"RowOrder.{name} is {value!r}; allowed is a tuple of column names, each once"
                )
