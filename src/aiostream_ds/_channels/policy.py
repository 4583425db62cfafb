"""Every number of channels and streams: buffers, retries, limits and timeouts.

Values are frozen and validated when they are created; the bounds of a number are `ge` and `le` of
its `Meta`. Each constant and each field has a one-line description, from which scripts/behaviour
generates docs/behaviour.md.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from aiostream_ds._frames.config import FieldConfig

__all__ = [
    "AHEAD_BYTES",
    "BATCH_BYTES",
    "BATCH_ROWS",
    "BROWSER_QUEUE",
    "CLOSE_TIMEOUT",
    "DEMAND_WAIT",
    "FIRST_BATCH",
    "GAP_SHOWN",
    "HEALTHY_AFTER",
    "HIGH_WATER_ITERATIONS",
    "INSTANCE_QUEUE_BYTES",
    "LAG_END",
    "ORDER_SERIES",
    "PACKET_BYTES",
    "PATIENCE",
    "QUEUE_BYTES",
    "ROW_BYTES",
    "SCHEMA_ALWAYS",
    "SCHEMA_REPEAT",
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
        description="Seconds after which a closing stream is cancelled a second time; after twice"
        " as long again it is stuck."
    ),
] = 1.0

BATCH_ROWS: Annotated[
    int,
    Meta(description="Maximum number of rows in one packet while the author does not wait."),
] = 1_000

BATCH_BYTES: Annotated[
    int,
    Meta(
        description="Encoded bytes after which a stream that never waits yields to the event loop."
    ),
] = 128 * 1024

PACKET_BYTES: Annotated[
    int,
    Meta(
        description="Encoded bytes above which rows are sent in several packets: Grafana"
        " disconnects a browser for which more than 1 MiB is queued."
    ),
] = 256 * 1024

BROWSER_QUEUE: Annotated[
    int,
    Meta(
        description="Encoded bytes of one row above which the log has a warning, once for a stream:"
        " Grafana 9.4 disconnects each browser that gets a larger packet."
    ),
] = 1 << 20

ROW_BYTES: Annotated[
    int,
    Meta(
        description="Maximum number of encoded bytes of one row; a larger one is an error. It is"
        " four times what Grafana queues for a browser by default (4 MiB; 9.4: 1 MiB)."
    ),
] = 16 << 20

QUEUE_BYTES: Annotated[
    int,
    Meta(
        description="Encoded bytes that the queues of all subscriptions of the process may hold,"
        " beyond 16 KiB of each. `queue_mib` in grafana.ini changes it."
    ),
] = 256 << 20

INSTANCE_QUEUE_BYTES: Annotated[
    int,
    Meta(
        description="The same for the subscriptions of one data source."
        " `datasource_queue_mib` in grafana.ini changes it."
    ),
] = 64 << 20

FIRST_BATCH: Annotated[
    int,
    Meta(description="Maximum number of yields in the first packet of a run: sizes are unknown."),
] = 64

HEALTHY_AFTER: Annotated[
    float,
    Meta(
        description="Seconds after its start from which a run that sends rows is healthy: its next"
        " failure counts as the first. The same for the connection of an `Upstream`."
    ),
] = 3.0

HIGH_WATER_ITERATIONS: Annotated[
    int,
    Meta(
        description="Iterations of the event loop for which a stream that never waits pauses when"
        " a subscription is half full, before rows may be dropped."
    ),
] = 8

PATIENCE: Annotated[
    float,
    Meta(
        description="Seconds for which rows of an outage wait for a subscriber that lags and takes"
        " nothing."
    ),
] = 1.0

DEMAND_WAIT: Annotated[
    float,
    Meta(
        description="Seconds for which a stream with the buffer `block` that never waits pauses"
        " after a packet that no subscriber has taken, while the queues of its data source hold"
        " more than AHEAD_BYTES."
    ),
] = 0.01

AHEAD_BYTES: Annotated[
    int,
    Meta(
        description="Encoded bytes that streams with the buffer `block` that never wait queue in a"
        " data source before they pause: what is written soon is still in the processor's cache."
    ),
] = 256 * 1024

LAG_END: Annotated[
    float,
    Meta(
        description="Seconds without a drop after which a lagging subscriber has caught up; then"
        " the log has the number of dropped rows."
    ),
] = 10.0

GAP_SHOWN: Annotated[
    float,
    Meta(description="Seconds for which viewers see that a stream has left out missing rows."),
] = 30.0

SCHEMA_REPEAT: Annotated[
    float,
    Meta(description="Seconds after which rows carry the schema again, in case one was lost."),
] = 30.0

SCHEMA_ALWAYS: Annotated[
    float,
    Meta(description="Seconds after a subscription in which all packets carry the schema."),
] = 1.0

Conflict = Literal["fail", "text", "null"]
"""What happens to a value whose type is not its column's."""

Late = Literal["pass", "drop", "hold"]
"""What happens to a row that is older than an earlier row of its series."""

ORDER_SERIES: Annotated[
    int,
    Meta(
        description="Maximum number of series whose order one stream remembers; the least recently"
        " seen is forgotten first."
    ),
] = 10_000

Full = Literal["drop_oldest", "latest", "block", "fail"]
"""What happens when a subscription's queue is full."""


def _check_int(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def _check_float(name: str, value: object, least: float, most: float = math.inf) -> None:
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not math.isfinite(value)
        or not least <= value <= most
    ):
        top = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name} must be a number of at least {least:g}{top}, got {value!r}")


def _check_numbers(owner: type[Struct], policy: Struct) -> None:
    """Check the fields that `owner` declares with the lower bound `ge` and the upper bound `le`."""
    for field, kind, least, most in _number_fields(owner):
        name, value = f"{owner.__name__}.{field}", getattr(policy, field)
        if kind is int:
            _check_int(name, value, int(least))
        else:
            _check_float(name, value, least, most)


@cache
def _number_fields(owner: type[Struct]) -> list[tuple[str, type, float, float]]:
    """Name, type, lower and upper bound of each field with a lower bound."""
    found = []
    for name, annotation in owner.__annotations__.items():
        kind, meta = annotation.__origin__, annotation.__metadata__[0]
        if meta.ge is not None:
            found.append((name, kind, meta.ge, math.inf if meta.le is None else meta.le))
    return found


def _check_choice(name: str, value: object, choices: object) -> None:
    if value not in get_args(choices):
        expected = ", ".join(get_args(choices))
        raise ValueError(f"{name} must be one of {expected}, got {value!r}")


def _is_configs(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(config, FieldConfig) for name, config in value.items()
    )


def _is_names(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and all(isinstance(name, str) and name for name in value)
        and len(set(value)) == len(value)
    )


class Buffer(Struct, frozen=True):
    """The bounds of one subscription's queue, and what happens when it is full.

    The newest batch is never dropped, even if it is larger than the bounds: a subscriber that keeps
    up is about to receive it.

    Raises:
        ValueError: a bound below 1, a `full` that is not one of the four, or a `stall_timeout`
            that is not a finite number of at least 0.
    """

    rows: Annotated[
        int, Meta(ge=1, description="Maximum number of rows queued for one subscriber.")
    ] = 10_000
    bytes: Annotated[
        int, Meta(ge=1, description="Maximum number of encoded bytes queued for one subscriber.")
    ] = 1 << 20
    full: Annotated[
        Full,
        Meta(
            description="When a subscriber lags: drop_oldest drops its oldest packets, latest keeps"
            " one packet, block makes the author wait, fail ends the subscription."
        ),
    ] = "drop_oldest"
    stall_timeout: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds after which a subscription is ended whose queue overflows if"
            " nothing was taken from it since its first packet; Grafana calls again.",
        ),
    ] = 60.0

    def __post_init__(self) -> None:
        _check_numbers(Buffer, self)
        _check_choice("Buffer.full", self.full, Full)


class Retry(Struct, frozen=True):
    """The back-off of a stream after an UpstreamError.

    Raises:
        ValueError: a delay that is not a finite number of at least 0, `max_delay` below
            `min_delay`, a factor below 1, a jitter outside 0 to 1, or a `fill` that is not a bool.
    """

    min_delay: Annotated[float, Meta(ge=0, description="Seconds before the first retry.")] = 0.5
    max_delay: Annotated[float, Meta(ge=0, description="Maximum seconds between two retries.")] = (
        30.0
    )
    factor: Annotated[
        float, Meta(ge=1, description="Each delay is the previous one times this factor.")
    ] = 2.0
    jitter: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Fraction of a delay by which it is shortened at random, so that not all"
            " streams retry at once.",
        ),
    ] = 0.2
    fill: Annotated[
        bool,
        Meta(
            description="Whether the rows that the method misses are read from the history, after"
            " an outage and before its first row; only for a stream with a cursor."
        ),
    ] = True

    def __post_init__(self) -> None:
        _check_numbers(Retry, self)
        _check_float("Retry.max_delay", self.max_delay, self.min_delay)
        if not isinstance(self.fill, bool):
            raise ValueError(f"Retry.fill must be True or False, got {self.fill!r}")

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many consecutive failures.

        Raises:
            ValueError: `failures` is below 1.
        """
        _check_int("failures", failures, 1)
        try:
            seconds = min(self.max_delay, self.min_delay * float(self.factor) ** (failures - 1))
        except OverflowError:
            seconds = self.max_delay
        from random import random  # rarely used: imported on demand

        return seconds * (1.0 - self.jitter * random())


class Replay(Struct, frozen=True):
    """How many of its newest rows a channel keeps in its log.

    Queries of a stream without history are answered from the log, and exact panels read from it
    what they missed. It is kept for a while after the stream has ended.

    Raises:
        ValueError: a bound below 1, or seconds that are not a finite number of at least 0.
    """

    rows: Annotated[int, Meta(ge=1, description="Maximum number of rows in the log.")] = 1_000
    bytes: Annotated[int, Meta(ge=1, description="Maximum number of encoded bytes in the log.")] = (
        1 << 16
    )
    seconds: Annotated[
        float, Meta(ge=0, description="Seconds after which a row in the log is forgotten.")
    ] = 900.0
    keep: Annotated[
        float,
        Meta(ge=0, description="Seconds for which the log is kept after the stream has ended."),
    ] = 60.0

    def __post_init__(self) -> None:
        _check_numbers(Replay, self)


class Policy(Struct, frozen=True):
    """How one channel treats its subscribers.

    `StreamOptions` inherits the fields: each is an option of `@stream`.

    Raises:
        ValueError: seconds that are not a finite number of at least 0, a `buffer` that is not a
            Buffer, or a `replay` that is not a Replay.
    """

    buffer: Annotated[Buffer, Meta(description="The queue of each subscription.")] = Buffer()
    linger: Annotated[
        float,
        Meta(
            ge=0, description="Seconds for which a stream runs after its last subscriber has left."
        ),
    ] = 0.0
    replay: Annotated[
        Replay | None,
        Meta(description="The log of a stream without history; none: nothing is kept."),
    ] = None
    stale: Annotated[
        float,
        Meta(ge=0, description="Seconds without rows after which a stream is stale; 0: never."),
    ] = 0.0
    flush: Annotated[
        float,
        Meta(ge=0, description="Seconds for which rows are collected for one packet."),
    ] = 0.0
    max_hz: Annotated[
        float,
        Meta(
            ge=0,
            description="Maximum number of packets of single rows in a second; 0: no limit. A"
            " packet with as many rows or bytes as the queue may hold is sent earlier.",
        ),
    ] = 0.0

    @property
    def is_paced(self) -> bool:
        """Whether packets are delayed although a subscriber has demand."""
        return bool(self.flush or self.max_hz)

    def __post_init__(self) -> None:
        _check_numbers(Policy, self)
        if not isinstance(self.buffer, Buffer):
            raise ValueError(f"Policy.buffer must be a Buffer, got {self.buffer!r}")
        if not isinstance(self.replay, Replay | None):
            raise ValueError(f"Policy.replay must be a Replay or None, got {self.replay!r}")


class SchemaPolicy(Struct, frozen=True):
    """How the rows of one channel become columns.

    Raises:
        ValueError: `columns` or `series` below 1, a `forget` that is not a finite number of at
            least 0, a `conflict` that is not one of the three, `labels` that are not a tuple of
            different names, or `fields` that are not a dict of FieldConfig by key.
    """

    columns: Annotated[
        int,
        Meta(
            ge=1,
            description="Maximum number of columns inferred from dict rows, the time not counted;"
            " with labels, each value of each series is one. Values of further keys are left out"
            " and counted.",
        ),
    ] = 500
    conflict: Annotated[
        Conflict,
        Meta(
            description="A value whose type is not its column's: fail ends the stream with an"
            " error, null leaves the value out and counts it, text changes the column to strings."
        ),
    ] = "fail"
    series: Annotated[
        int,
        Meta(
            ge=1,
            description="Maximum number of series of a channel with labels; rows of further series"
            " are left out and counted.",
        ),
    ] = 500
    forget: Annotated[
        float,
        Meta(
            ge=0,
            description="Seconds without live rows after which a series with its columns is"
            " forgotten, if a new one needs the place.",
        ),
    ] = 3600.0
    labels: Annotated[
        tuple[str, ...],
        Meta(
            description="Keys that identify the series of a row: each series gets columns of its"
            " own, with these as their labels. A key with a dict, such as tags, stands for the"
            " keys of the dict."
        ),
    ] = ()
    fields: Annotated[
        Mapping[str, FieldConfig],
        Meta(
            description="How panels show the columns of dict rows, by key: units, decimals, limits,"
            " thresholds, names. A class of rows has them in its annotations."
        ),
    ] = {}

    def __post_init__(self) -> None:
        _check_numbers(SchemaPolicy, self)
        _check_choice("SchemaPolicy.conflict", self.conflict, Conflict)
        if not _is_configs(self.fields):
            raise ValueError(
                "SchemaPolicy.fields must be a dict with a FieldConfig for each key, got"
                f" {self.fields!r}"
            )
        if not _is_names(self.labels) or "time" in self.labels:
            raise ValueError(
                "SchemaPolicy.labels must be a tuple of names, each once, without 'time',"
                f" got {self.labels!r}"
            )


class RowOrder(Struct, frozen=True):
    """In which order the rows of one stream are sent, by their own time, and which are left out.

    A row's time is its column `time`, or without one its first datetime. A row without a time gets
    the time at which it is yielded and is never late.

    Raises:
        ValueError: a `late` that is not one of the three, a `hold` that is not a finite number of
            at least 0, `rows` or `keys` below 1, or `by` or `key` that are not a tuple of different
            names.
    """

    late: Annotated[
        Late,
        Meta(
            description="A row that is older than an earlier row of its series: pass sends it, drop"
            " leaves it out and counts it, hold delays rows for a while to sort them."
        ),
    ] = "pass"
    hold: Annotated[
        float,
        Meta(
            ge=0,
            description="With hold, the seconds by which a row may be late in the rows' own time,"
            " and the maximum seconds for which a row is delayed.",
        ),
    ] = 1.0
    rows: Annotated[
        int,
        Meta(
            ge=1,
            description="With hold, the maximum number of delayed rows of all series; when there"
            " are more, the row that came first is sent early.",
        ),
    ] = 10_000
    by: Annotated[
        tuple[str, ...],
        Meta(description="Columns that identify a row's series; each series has its own order."),
    ] = ()
    key: Annotated[
        tuple[str, ...],
        Meta(
            description="Columns that identify a row; a second row with one key is left out and"
            " counted."
        ),
    ] = ()
    keys: Annotated[
        int,
        Meta(ge=1, description="Maximum number of remembered keys; the oldest is forgotten first."),
    ] = 10_000

    def __post_init__(self) -> None:
        _check_numbers(RowOrder, self)
        _check_choice("RowOrder.late", self.late, Late)
        for name, value in (("by", self.by), ("key", self.key)):
            if not _is_names(value):
                raise ValueError(
                    f"RowOrder.{name} must be a tuple of column names, each once, got {value!r}"
                )
