"""Rows as lines of JSON, with the time of each."""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from aiostream_ds._encoding.row_kinds import opener, row_kind
from aiostream_ds._short_repr import short_repr

__all__ = ["PushTimeUnit", "RowJson"]

PushTimeUnit = Literal["s", "ms", "us", "ns"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

KINDS = (
    "a dict, a dataclass, a named tuple, a Struct, an attrs or pydantic object, a mapping, a table"
    " or a list of rows"
)


class RowJson:
    """Encodes rows. Thread-safe.

    Args:
        time: the key of a row's time.
        unit: the unit of a time that is a number.
        add_time: whether a row without a time gets the current one.

    Raises:
        ValueError: `unit` is not one of the four, or `time` is empty.
    """

    def __init__(self, time: str = "time", unit: PushTimeUnit = "s", add_time: bool = True) -> None:
        if unit not in _PER_SECOND:
            raise ValueError(f"time_unit must be one of {', '.join(_PER_SECOND)}, got {unit!r}")
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
        time = self._time_of(values)
        if time is not None:
            values[self._time] = time
        if len(values) - (self._time in values) < 1:
            raise ValueError(f"a row must have a value, got {short_repr(row)}")
        try:
            return self._encoder.encode(values)
        except (TypeError, ValueError, RecursionError, OverflowError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{_name_bad(self._encoder, values)}: {error}") from None

    def _time_of(self, values: dict[str, Any]) -> str | None:
        time = values.get(self._time)
        if time is None:
            return _text(datetime.now(UTC)) if self._add_time else None
        if isinstance(time, str):
            return time  # ISO 8601: the server reads it
        if type(time).__module__ == "numpy":
            time = _builtin(time)
        if isinstance(time, datetime):
            if time.tzinfo is None:
                raise ValueError(
                    f"{self._time} must have a time zone, such as datetime.now(UTC), got {time!r}"
                )
            return _text(time.astimezone(UTC))
        if isinstance(time, bool) or not isinstance(time, int | float):
            raise TypeError(
                f"{self._time} must be a datetime with a time zone, a number or ISO 8601, got"
                f" {short_repr(time)}"
            )
        try:
            return _text(_EPOCH + timedelta(seconds=time / _PER_SECOND[self._unit]))
        except (OverflowError, ValueError):
            raise ValueError(
                f"{self._time} must be a time in the years 1 to 9999 in {self._unit}, got {time!r};"
                " set time_unit"
            ) from None


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
