"""What Grafana's alerting makes of the answers: the host classifies frames with the Go SDK."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.encoding.row_examples import MAKERS

from .driver import Host

pytestmark = [pytest.mark.go, pytest.mark.timeout(60)]

ROW_KINDS = Path(__file__).parent / "plugins/row_kinds.py"

NOW = int(time.time() * 1000)
BUILTIN = "from aiostream_ds.sources.builtin_plugin import main; main()"
AUTHOR = """
from datetime import UTC, datetime
import pyarrow as pa
from aiostream_ds import DataSource, Field, Frame, Query, SchemaPolicy, query, serve, stream

ROWS = [
    {"time": %d + n, "host": "ab"[n %% 2], "cpu": n, "ok": n > 1, "text": "x"} for n in range(6)
]

class Rows(Query):
    n: int = 0
    texts: bool = False

class Author(DataSource):
    @stream("columns/{n:int}", status_column="status")
    async def columns(self, n: int):
        yield {}

    @columns.history
    async def columns_past(self, history_range, n: int):
        return ROWS[:n]

    @stream("series/{n:int}", schema=SchemaPolicy(labels=("host",)))
    async def series(self, n: int):
        yield {}

    @series.history
    async def series_past(self, history_range, n: int):
        return ROWS[:n]

    @query
    async def table(self, q: Rows):
        table = pa.Table.from_pylist(ROWS[:q.n], pa.schema(
            {"time": "timestamp[ms]", "cpu": "int16", "ok": "bool", "text": "string"}
        ))
        return table if q.texts else table.drop_columns(["text"])

    @stream("tables/{n:int}")
    async def tables(self, n: int):
        yield []

    @tables.history
    async def tables_past(self, history_range, n: int):
        return pa.Table.from_pylist(ROWS[:n])

serve(Author)
"""


async def ask(
    binary: Path, program: str, settings: dict[str, Any], query: dict[str, Any]
) -> dict[str, Any]:
    """The answer of an alert rule's query, once there is data."""
    context = {"jsonData": settings}
    message = {"json": query, "from": NOW - 600_000, "to": NOW + 600_000}
    async with Host(binary) as host:
        await host.start(sys.executable, "-c", program)
        for _ in range(200):  # 40 s: a busy machine starts slowly
            answer = await host.call("alert", ctx=context, queries=[message])
            one: dict[str, Any] = answer["responses"]["A"]
            if one["series"] or query.get("n") == 0:
                break
            await anyio.sleep(0.2)
    return one


@pytest.mark.parametrize(
    ("source", "query", "names"),
    [
        ("demo", {"queryType": "walk"}, [None]),
        ("host", {"queryType": "cpu"}, ["busy", "user", "system", "iowait", "load"]),
        ("file", {"queryType": "rows", "file": "log.ndjson"}, ["value", "level"]),
    ],
)
async def test_an_alert_rule_can_evaluate_each_source(
    host_binary: Path, tmp_path: Path, source: str, query: dict[str, Any], names: list[str | None]
) -> None:
    row = {"time": NOW, "value": 1.5, "level": 3, "text": "a line", "ok": True}
    (tmp_path / "log.ndjson").write_text(json.dumps(row) + "\n")
    settings = {"source": source, "directory": str(tmp_path)}
    answer = await ask(host_binary, BUILTIN, settings, {**query, "exact": True})
    assert answer["error"] == ""
    found = [(each["labels"] or {}).get("name") for each in answer["series"]]
    assert [name for name in found if name != "ok"] == names
    assert set(answer["types"]) == {"wide"}


async def test_an_alert_rule_reads_text_columns_and_a_status_column_as_absent(
    host_binary: Path,
) -> None:
    query = {"queryType": "columns", "n": 6}
    answer = await ask(host_binary, AUTHOR % NOW, {}, query)
    assert answer["error"] == ""
    assert answer["series"] == [
        {"name": "cpu", "labels": {"name": "cpu"}, "values": [0, 1, 2, 3, 4, 5]},
        {"name": "ok", "labels": {"name": "ok"}, "values": [0, 0, 1, 1, 1, 1]},
    ]


@pytest.mark.parametrize("kind", ["table", "tables"])
async def test_an_alert_rule_reads_the_numbers_of_a_table(host_binary: Path, kind: str) -> None:
    answer = await ask(host_binary, AUTHOR % NOW, {}, {"queryType": kind, "n": 6})
    assert answer["error"] == ""
    assert set(answer["types"]) == {"wide"}
    assert answer["series"] == [
        {"name": "cpu", "labels": {"name": "cpu"}, "values": [0, 1, 2, 3, 4, 5]},
        {"name": "ok", "labels": {"name": "ok"}, "values": [0, 0, 1, 1, 1, 1]},
    ]


async def test_an_alert_rule_gets_the_texts_of_a_query_as_they_are(host_binary: Path) -> None:
    query = {"queryType": "table", "n": 6, "texts": True}
    answer = await ask(host_binary, AUTHOR % NOW, {}, query)
    assert answer["types"] == ["long"]


async def test_an_alert_rule_reads_each_series_by_its_labels(host_binary: Path) -> None:
    answer = await ask(host_binary, AUTHOR % NOW, {}, {"queryType": "series", "n": 6})
    assert answer["error"] == ""
    values = {(s["labels"]["host"], s["labels"]["name"]): s["values"] for s in answer["series"]}
    assert values["a", "cpu"] == [0, 2, 4]
    assert values["b", "ok"] == [0, 1, 1]


@pytest.mark.parametrize("kind", ["columns", "series", "table", "tables"])
async def test_an_empty_history_is_no_data_to_an_alert_rule(host_binary: Path, kind: str) -> None:
    answer = await ask(host_binary, AUTHOR % NOW, {}, {"queryType": kind, "n": 0})
    assert (answer["error"], answer["types"], answer["series"]) == ("", ["not"], [])


@pytest.mark.slow
async def test_an_alert_rule_can_evaluate_rows_of_each_kind(host_binary: Path) -> None:
    kinds = [*MAKERS, "Columns", "Frame", "pyarrow", "pandas", "polars"]
    streams = {f"stream {kind}": {"queryType": "rows", "kind": kind} for kind in kinds}
    queries = {f"query {kind}": {"queryType": "answer", "kind": kind} for kind in kinds}
    messages = [
        {"refId": name, "json": query, "from": NOW - 600_000, "to": NOW + 600_000}
        for name, query in (streams | queries).items()
    ]
    async with Host(host_binary) as host:
        await host.start(sys.executable, ROW_KINDS, str(NOW))
        answers = (await host.call("alert", ctx={}, queries=messages))["responses"]
    counted = [{"name": "celsius", "labels": None, "values": [0, 1, 2]}]
    wide = {"error": "", "types": ["wide"], "series": counted}
    assert {name: answers[name] for name in streams} == dict.fromkeys(streams, wide)
    assert {name: answers[name]["types"] for name in queries} == dict.fromkeys(queries, ["long"])
