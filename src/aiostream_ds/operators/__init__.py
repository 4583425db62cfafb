"""Operators for derived streams: windows by time, joins, and a timeout around the next row.

    async for bar in ohlc(self.follow("trades"), 1.0, volume="size"):
        yield bar

A source is an async iterable, such as `DataSource.follow`, a subscription of a `Broadcast`, the
messages of an `Upstream` or an async generator; or a list of rows, for a history. Each is read in a
task of its own, from its first row to its `finally`, up to `READ_AHEAD` rows ahead.

An operator is an async iterator that one task reads. It starts to read with its first row, is
cancelled without a loss of rows (also by a timeout around `anext`), and ends with the run of the
stream that made it. An error of a source is raised after the rows before it.

Rows are mappings or objects with attributes. Windows begin at multiples of their length since 1970
in UTC.

reading        reads the sources, each in a task of its own
joins          several sources as one, and a timeout around the next row
windows        windows by the rows' own times
aggregates     one row for each window and series
accumulators   how the values of a window become one
row_values     the values of mappings and of objects
"""

from aiostream_ds.operators.accumulators import Aggregate
from aiostream_ds.operators.aggregates import ohlc, resample
from aiostream_ds.operators.joins import combine_latest, merge, with_timeout
from aiostream_ds.operators.reading import READ_AHEAD, Operator
from aiostream_ds.operators.windows import Window, tumbling

__all__ = [
    "READ_AHEAD",
    "Aggregate",
    "Operator",
    "Window",
    "combine_latest",
    "merge",
    "ohlc",
    "resample",
    "tumbling",
    "with_timeout",
]
