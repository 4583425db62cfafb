"""The metadata that names the panel of a stream's rows, and the look of its columns."""

from datetime import UTC, datetime

import anyio
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    FieldConfig,
    HistoryPage,
    LogLine,
    Rows,
    SchemaPolicy,
    Threshold,
    Thresholds,
    stream,
)
from aiostream_ds.testing import serve_in_memory

CELSIUS = FieldConfig(
    unit="celsius",
    decimals=1,
    min=-40,
    max=80,
    display_name="Temperature",
    thresholds=Thresholds(
        mode="absolute",
        steps=(Threshold(value=None, color="green"), Threshold(value=60, color="red")),
    ),
)
LOOKS = SchemaPolicy(fields={"celsius": CELSIUS})


class Panels(DataSource):
    @stream("table", panel="table")
    async def table(self):
        yield {"n": 1}
        await anyio.sleep_forever()

    @stream("stat", panel="stat")
    async def stat(self):
        yield {"n": 1}
        await anyio.sleep_forever()

    @stream("texts", panel="logs")
    async def texts(self):
        yield {"body": "x"}
        await anyio.sleep_forever()

    @stream("none")
    async def none(self):
        yield {"n": 1}
        await anyio.sleep_forever()

    @stream("tail")
    async def tail(self) -> Rows[LogLine]:
        yield LogLine(datetime.now(UTC), "x")
        await anyio.sleep_forever()

    @tail.history
    async def tail_history(self, span):
        start = span.start.timestamp()
        seconds = int(span.end.timestamp() - start)
        return [
            LogLine(datetime.fromtimestamp(start + n / 10, UTC), f"line {n}")
            for n in range(10 * seconds)[-span.limit :]
        ]


async def meta_of(grafana, path):
    (frame,) = await grafana.query({"queryType": path})
    return frame.meta


@pytest.mark.parametrize(
    "path, kind, plugin",
    [("table", "table", ""), ("stat", "", "stat"), ("texts", "logs", ""), ("none", "", "")],
)
async def test_a_stream_names_the_panel_that_suits_it(path, kind, plugin):
    async with serve_in_memory(Panels) as grafana:
        meta = await meta_of(grafana, path)
        assert meta.preferred_visualisation_type == kind
        assert meta.preferred_visualisation_plugin_id == plugin
        assert meta.type == ""


async def test_rows_of_log_line_are_a_frame_of_log_lines_for_the_logs_panel():
    async with serve_in_memory(Panels) as grafana:
        meta = await meta_of(grafana, "tail")
        assert (meta.preferred_visualisation_type, meta.type) == ("logs", "log-lines")
        assert meta.type_version == (0, 0)


async def test_the_lines_of_a_log_are_not_thinned():
    async with serve_in_memory(Panels) as grafana:
        (frame,) = await grafana.query({"queryType": "tail"}, max_data_points=50)
        bodies = list(frame.fields[1].values)
        last = int(bodies[-1].removeprefix("line "))
        assert bodies == [f"line {n}" for n in range(last - 49, last + 1)]


class Looks(DataSource):
    @stream("grows", schema=LOOKS)
    async def grows(self):
        yield {"celsius": 20}
        yield {"celsius": 20.5, "volts": 1.5}
        yield {"watts": 1.5, "celsius": 21}
        await anyio.sleep_forever()

    @stream("series", schema=SchemaPolicy(labels=("host",), fields={"celsius": CELSIUS}))
    async def series(self):
        yield {"time": 1_700_000_000_000, "celsius": 20.5, "host": "a"}
        yield {"time": 1_700_000_001_000, "celsius": 20.5, "host": "b"}
        await anyio.sleep_forever()

    @stream("ids", cursor="n", schema=SchemaPolicy(fields={"n": FieldConfig(unit="none")}))
    async def ids(self, after: Cursor):
        yield {"n": 1}
        await anyio.sleep_forever()

    @ids.history
    async def ids_history(self, span):
        return HistoryPage([], last=0)


def configs(viewer):
    return {field.name: field.config for field in viewer.fields}


async def test_the_look_of_a_column_survives_changes_of_the_schema():
    async with serve_in_memory(Looks) as grafana:
        viewer = await grafana.follow("grows")
        await viewer.take(3)
        assert configs(viewer) == {"time": None, "celsius": CELSIUS, "volts": None, "watts": None}


async def test_each_series_has_the_look_of_its_column():
    async with serve_in_memory(Looks) as grafana:
        viewer = await grafana.follow("series")
        await viewer.take(2)
        found = [each for name, each in configs(viewer).items() if name != "time"]
        assert [(each.unit, each.decimals, each.max) for each in found] == [("celsius", 1, 80)] * 2
        assert [each.display_name for each in found] == ["Temperature a", "Temperature b"]
        assert [each.custom for each in found] == [{"spanNulls": True}] * 2


async def test_a_cursor_column_keeps_its_look_and_is_hidden():
    async with serve_in_memory(Looks) as grafana:
        viewer = await grafana.follow("ids")
        await viewer.take(1)
        config = configs(viewer)["n"]
        assert config.unit == "none"
        assert config.custom["hideFrom"]["viz"]
