"""How lines and messages become rows: the settings that all sources share."""

from typing import Annotated, Literal

from aiostream_ds.settings import Settings, section

__all__ = ["Kind", "RowSettings", "TimeUnit"]

Kind = Literal["number", "text", "boolean"]
TimeUnit = Literal["auto", "s", "ms", "us", "ns"]

_SECTION = section("Time and columns")


class RowSettings(Settings):
    """How a line or a message becomes a row."""

    time: Annotated[str, _SECTION] = "time"
    """The key or column of the event time: ISO 8601 (UTC without an offset), an HTTP date or a
    number since 1970. Without a key `time`, the only one named like a time (`Time`, `timestamp`,
    `ts` …) has it."""
    time_unit: Annotated[TimeUnit, _SECTION] = "auto"
    """The unit of such a number. auto: s below 1e11, ms below 1e14, µs below 1e17, else ns, which
    is correct for times from 1973 on."""
    columns: Annotated[dict[str, Kind], _SECTION] = {}
    """Columns of a fixed type, present in each row. A value that is missing or of another type is
    empty."""
    others: Annotated[bool, _SECTION] = True
    """Whether to include the other columns."""
