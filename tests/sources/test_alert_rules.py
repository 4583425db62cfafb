"""Alert rules on the shipped sources: each query type has answers that Grafana's alerting takes.

The conformance tests ask Grafana's own classification; these cover every query type.
"""

import json
import time

import anyio
import psutil
import pytest

from aiostream_ds._frames.columns import FLOATS, RANGES
from aiostream_ds._frames.frame import FieldType
from aiostream_ds._grafana.catalog import load
from aiostream_ds.sources.builtin_plugin import SOURCES
from aiostream_ds.testing import QueryFailed, serve_in_memory

pytestmark = pytest.mark.slow  # every source

ALERT = {"FromAlert": "true"}
NUMBERS = {*FLOATS, *RANGES} - {FieldType.TIME}
WITH_SERVERS = ("redis", "nats", "postgres")
"""Sources whose folders have alert rules of their own, with real servers."""
QUERY_TYPES = [
    (source, query_type)
    for source, target in SOURCES.items()
    if source not in WITH_SERVERS
    for query_type, stream in load(target)._ds_plan.streams.items()
    if stream.panel != "logs"
]
LIVE_ONLY = {  # sources without a history, and their settings
    "recorded": {},
    "http": {"url": "http://127.0.0.1:9/"},
    "mqtt": {"host": "127.0.0.1", "port": 9},
    "websocket": {"url": "ws://127.0.0.1:9/"},
}
LINES = {  # times in ms from now
    "a.ndjson": [
        {"time": -2000, "v": 1, "ok": True, "level": "info"},
        {"time": -1000, "v": "offline", "load": 2.5, "deep": {"x": 1}},
        {"time": 0, "offset": 3, "v": 3},
    ],
    "empty.ndjson": [],
    "text.ndjson": [{"time": 0, "level": "info"}],
}


@pytest.fixture
def settings(tmp_path):
    now = time.time_ns() // 1_000_000
    for name, lines in LINES.items():
        rows = [line | {"time": now + line["time"]} for line in lines]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recording").write_text(
        json.dumps({"recording": 1, "path": "a", "started": now}) + "\n"
    )
    return {"directory": str(tmp_path), "file": str(tmp_path / "recording"), "interval": 0.1}


async def ask(grafana, query):
    """The frames for an alert rule, which has no user."""
    return await grafana.query(query, user=None, headers=ALERT)


def check(frames):
    """Grafana refuses a text or bool column, an empty one, and two series with equal labels."""
    labels = []
    for frame in frames:
        times, *values = frame.fields
        assert times.type is FieldType.TIME and times.values
        assert [value.type for value in values if value.type not in NUMBERS] == []
        labels += [frozenset((value.labels or {}).items()) for value in values]
        assert not frame.meta or (not frame.meta.channel and not frame.meta.custom)
    assert len(labels) == len(set(labels)) > 0


@pytest.mark.parametrize("exact", [False, True], ids=["stock", "exact"])
@pytest.mark.parametrize(("source", "query_type"), QUERY_TYPES)
async def test_each_query_type_of_each_source_can_be_alerted_on(
    source, query_type, exact, settings
):
    if query_type == "disk" and not psutil.disk_io_counters():
        pytest.skip("this machine has no disk counters")
    query = {"queryType": query_type, "exact": exact}
    if source == "file":
        query["file"] = "a.ndjson"
    if source == "mqtt":
        query["topic"] = "home/+"
    if source == "push":
        query["path"] = "lab/run-1"
    settings |= LIVE_ONLY.get(source, {})
    async with serve_in_memory(load(SOURCES[source]), settings=settings) as grafana:
        if source == "push":
            await grafana.resource(
                "push/lab/run-1", method="POST", body=b'{"loss": 0.5, "at": "a"}'
            )
        frames = await ask(grafana, query)
        if source in LIVE_ONLY:  # no data
            assert not any(frame.fields for frame in frames)
            return
        for _ in range(100):
            if frames[0].fields:
                break
            await anyio.sleep(0.05)
            frames = await ask(grafana, query)
    check(frames)


async def test_lines_of_text_cannot_be_alerted_on(settings):
    async with serve_in_memory(load(SOURCES["file"]), settings=settings) as grafana:
        with pytest.raises(QueryFailed, match="a time and a column of numbers, got timestamp"):
            await ask(grafana, {"queryType": "lines", "file": "a.ndjson"})


async def test_an_alert_on_a_file_has_its_numbers_by_name(settings):
    async with serve_in_memory(load(SOURCES["file"]), settings=settings) as grafana:
        frames = await ask(grafana, {"queryType": "rows", "file": "a.ndjson"})
        series = {frame.fields[1].labels["name"]: list(frame.fields[1].values) for frame in frames}
        assert series == {
            "v": [1, None, 3],
            "ok": [1, None, None],
            "load": [None, 2.5, None],
            "offset_": [None, None, 3],
        }
        (empty,) = await ask(grafana, {"queryType": "rows", "file": "empty.ndjson"})
        assert not empty.fields
        with pytest.raises(QueryFailed, match="a time and a column of numbers"):
            await ask(grafana, {"queryType": "rows", "file": "text.ndjson"})
