"""Tables of libraries that have types, where an author gives them. Never run."""
# pyright: strict

from datetime import UTC, datetime

import duckdb
import polars as pl

from aiostream_ds import (
    DataSource,
    Field,
    FieldConfig,
    Frame,
    HistoryPage,
    HistoryRange,
    LiveChannel,
    Query,
    Rows,
    Table,
    query,
    stream,
)


def measured(when: datetime) -> pl.DataFrame:
    return pl.DataFrame({"time": [when], "celsius": [20.5]})


class Tables(DataSource):
    @stream("polars")
    async def polars(self) -> Rows[pl.DataFrame]:
        yield measured(datetime.now(UTC))

    @polars.history
    async def past(self, history_range: HistoryRange) -> pl.DataFrame:
        return measured(history_range.start)

    @stream("any")
    async def any(self) -> Rows[Table]:
        yield measured(datetime.now(UTC))
        yield duckdb.connect().table("readings")

    @any.history
    async def page(self, history_range: HistoryRange) -> HistoryPage:
        return HistoryPage(measured(history_range.start))

    @query
    async def one(self, q: Query) -> duckdb.DuckDBPyRelation:
        return duckdb.connect().table("readings")

    @query
    async def several(self, q: Query) -> list[Frame | pl.DataFrame | LiveChannel]:
        frame = Frame.from_table(
            measured(q.time_range.start), config={"celsius": FieldConfig(unit="celsius")}
        )
        live = LiveChannel(Tables.polars).with_history(measured(q.time_range.start))
        return [frame, measured(q.time_range.end), live]

    @query
    async def named(self, q: Query) -> dict[str, Table]:
        return {"now": measured(q.time_range.end)}

    @query
    async def by_hour(self, q: Query) -> dict[str, pl.DataFrame]:
        return {"now": measured(q.time_range.end)}

    @query
    async def column(self, q: Query) -> Frame:
        return Frame(Field("n", pl.Series([1, 2])))
