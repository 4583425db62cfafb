"""Rows as lines of JSON, with the time of each."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import msgspec

from aiostream_ds._encoding.row_kinds import opener, row_kind
from aiostream_ds._short_repr import short_repr

__all__ = ["PushTimeUnit", "RowJson", "time_key"]

PushTimeUnit = Literal["auto", "s", "ms", "us", "ns"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_LIMITS = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
"""The units of `auto`, as the source has them: a number below the limit has the unit."""

_TIME_NAMES = frozenset({"time", "timestamp", "@timestamp", "datetime", "date", "ts"})
"""In lower case: keys that the source takes for the time of a row without the key `time`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

KINDS = (
    "a dict, a dataclass, a named tuple, a Struct, an attrs or pydantic object, a mapping, a table"
    " or a list of rows"
)


class RowJson:
    """Encodes rows. Thread-safe.

    Args:
        time: the key of a row's time. Without a key `time`, the only one named like a time has it.
        unit: the unit of a time that is a number; auto: that of its size, as the source has it.
        add_time: whether a row without a time gets the current one.

    Raises:
        ValueError: `unit` is not one of these, or `time` is empty.
    """

    def __init__(self, time: str = "time", unit: PushTimeUnit = "s", add_time: bool = True) -> None:
        if unit not in get_args(PushTimeUnit):
            units = ", ".join(get_args(PushTimeUnit))
            raise ValueError(f"time_unit must be one of {units}, got {unit!r}")
        if not isinstance(time, str) or not time:
            raise ValueError(f"time must be the key of the time, got {time!r}")
        self._time = time
        self._unit = unit
        self._add_time = add_time
        self._encoder = msgspec.json.Encoder(enc_hook=_builtin, decimal_format="number")

    def encode(self, rows: Any) -> list[bytes]:
        """The lines of a row, or of a list of rows, without line ends.

        Raises:
            TypeError: it is not a row, or JSON cannot have one of its values.
            ValueError: the time is not one, or a row has no values.
        """
        open_rows = opener(type(rows))
        if open_rows is not None:
            return [self._line(row) for row in open_rows(rows)]
        return [self._line(rows)]

    def _line(self, row: Any) -> bytes:
        values = _as_dict(row)
        key = time_key(values, self._time)
        time = self._time_of(key, values.get(key))
        if time is not None:
            values[key] = time
        if len(values) - (key in values) < 1:
            raise ValueError(f"a row must have a value, got {short_repr(row)}")
        try:
            return self._encoder.encode(values)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{_name_bad(self._encoder, values)}: {error}") from None

    def _time_of(self, key: str, time: Any) -> str | None:
        if time is None:
            return _text(datetime.now(UTC)) if self._add_time else None
        if isinstance(time, str):
            return time  # ISO 8601: the server reads it
        if type(time).__module__ == "numpy":
            time = _builtin(time)
        if isinstance(time, datetime):
            if time.tzinfo is None:
                raise ValueError(
                    f"{key} must have a time zone, such as datetime.now(UTC), got {time!r}"
                )
            return _text(time.astimezone(UTC))
        if isinstance(time, bool) or not isinstance(time, int | float):
            raise TypeError(
                f"{key} must be a datetime with a time zone, a number or ISO 8601, got"
                f" {short_repr(time)}"
            )
        unit: str = self._unit
        if unit == "auto":
            unit = next((each for limit, each in _LIMITS if abs(time) < limit), "ns")
        try:
            return _text(_EPOCH + timedelta(seconds=time / _PER_SECOND[unit]))
        except (OverflowError, ValueError):
            raise ValueError(
                f"{key} must be a time in the years 1 to 9999 in {unit}, got {time!r};"
                " set time_unit"
            ) from None


def time_key(names: Collection[Any], time: str) -> str:
    """The key of the time: `time`, or if that is not there but "time", the only one that is named
    like a time, as the source finds it."""
    if time in names or time != "time":
        return time
    found = [name for name in names if isinstance(name, str) and name.lower() in _TIME_NAMES]
    return found[0] if len(found) == 1 else time


def _text(time: datetime) -> str:
    return time.isoformat(timespec="microseconds")


def _as_dict(row: Any) -> dict[str, Any]:
    kind = row_kind(type(row))
    if kind is None:
        raise TypeError(f"a row must be {KINDS}, got {short_repr(row)}")
    if kind.names is not None and not isinstance(row, dict):
        return {name: getattr(row, name) for name in kind.names}
    return dict(row) if kind.to_dict is None else kind.to_dict(row)


def _builtin(value: Any) -> Any:
    """A value of numpy, pandas, PyTorch and other libraries, as JSON has it."""
    if isinstance(value, datetime):
        return None if value != value else value.isoformat()  # NaT
    dtype = getattr(value, "dtype", None)
    if getattr(dtype, "kind", "") == "M":
        whole = value.astype("datetime64[us]").tolist()
        return whole if value.shape else _aware(whole)
    if hasattr(value, "item") and getattr(value, "shape", None) in ((), (1,)):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"JSON has no {type(value).__qualname__}, got {short_repr(value)}")


def _aware(time: Any) -> Any:
    return time.replace(tzinfo=UTC) if isinstance(time, datetime) else None  # NaT


def _name_bad(encoder: msgspec.json.Encoder, values: dict[str, Any]) -> str:
    """The first key whose value cannot be encoded."""
    for key, value in values.items():
        try:
            encoder.encode({key: value})
        except Exception:
            return short_repr(key)
    return "the row"
