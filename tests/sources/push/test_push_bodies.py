"""The bodies of pushes: rows of every format, bad rows by their index, limits, hostile bodies."""

import gzip
import io
import json
import random
import tracemalloc
import zlib
from array import array
from datetime import UTC, date, datetime
from decimal import Decimal
from struct import pack, unpack_from
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from aiostream_ds.errors import ConfigError
from aiostream_ds.models import Request
from aiostream_ds.sources.push import otlp_metrics, otlp_protobuf, push_rows
from aiostream_ds.sources.push.push_body import PushBody, body_kind, read_body
from aiostream_ds.sources.push.push_errors import PushRefused
from aiostream_ds.sources.push.push_rows import (
    PUSH_ROWS,
    REFUSED_SHOWN,
    BodyDecoder,
    DecodedBody,
)
from aiostream_ds.sources.push.push_settings import PushSettings
from aiostream_ds.sources.push.tag_columns import with_tag_columns

from .bodies import ARROW, LINES, NS, PLAIN, ROWS, T, arrow, export, gauge, point, protobuf

NOW = 1_800_000_000_000
"""The time of arrival."""


def decode(payload: bytes, content_type: str = "", **settings: Any) -> DecodedBody:
    made = PushSettings(**settings)
    body = PushBody(body_kind(content_type, made.format), payload)
    return BodyDecoder(made).rows(body, NOW)


def rows(payload: bytes, content_type: str = "", **settings: Any) -> list[dict[str, Any]]:
    found = decode(payload, content_type, **settings)
    assert not found.refused, found.refused
    return found.rows


def refusal(payload: bytes, content_type: str = "", **settings: Any) -> tuple[int, str]:
    with pytest.raises(PushRefused) as caught:
        decode(payload, content_type, **settings)
    return caught.value.status, caught.value.message


def read(body: bytes, encoding: str = "", limit: int = 4_000_000) -> bytes:
    headers = {"Content-Encoding": [encoding]} if encoding else {}
    return read_body(Request(headers=headers, body=body), "json", limit).payload


# -- formats ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type, payload", PLAIN)
def test_each_format_has_the_same_rows(content_type, payload):
    assert rows(payload, content_type) == ROWS


@pytest.mark.parametrize(
    "content_type", ["", "text/plain; charset=utf-8", "application/x-www-form-urlencoded"]
)
def test_the_format_is_found_by_the_content_if_the_type_names_none(content_type):
    for named, payload in PLAIN[:4]:
        assert rows(payload, content_type) == ROWS, named
    assert rows(b'{"celsius": 21}', content_type) == [{"time": NOW, "celsius": 21.0}]


def test_tags_of_line_protocol_are_labels():
    assert rows(LINES.encode()) == [
        {"time": T, "measurement": "climate", "tags": {"place": "attic"}, "celsius": 21.5},
        {"time": T + 1, "measurement": "climate", "tags": {"place": "cellar"}, "celsius": 22.0},
    ]


def test_with_labels_of_the_settings_tags_are_columns():
    (first, _) = rows(LINES.encode(), labels=["place"])
    assert first == {"time": T, "measurement": "climate", "place": "attic", "celsius": 21.5}


@pytest.mark.parametrize("label", ["time", "cursor", ""])
def test_the_time_and_the_cursor_cannot_be_labels(label):
    with pytest.raises(ConfigError, match="labels must be names of columns other than"):
        BodyDecoder(PushSettings(labels=["place", label]))


def test_an_object_tags_in_json_is_labels_and_other_objects_are_columns():
    body = b'{"time": 1700000000, "tags": {"place": "attic", "level": 2}, "in": {"celsius": 21}}'
    (row,) = rows(body)
    assert row == {"time": T, "tags": {"place": "attic", "level": "2"}, "in.celsius": 21.0}
    assert with_tag_columns([row]) == [
        {"time": T, "place": "attic", "level": "2", "in.celsius": 21.0}
    ]


def test_a_tag_with_the_name_of_a_column_has_another_one():
    flat = with_tag_columns([{"time": 1, "tags": {"time": "a", "v": "b", "tags": "c"}, "v": 2.0}])
    assert flat == [{"time": 1, "time_": "a", "v_": "b", "tags": "c", "v": 2.0}]


def test_a_column_with_the_name_of_the_cursor_has_another_one():
    assert rows(b'{"cursor": 7, "v": 1}') == [{"time": NOW, "cursor_": 7.0, "v": 1.0}]


def test_rows_are_selected_by_the_settings():
    body = b'{"id": "d1", "data": [{"v": 1}, {"v": 2}]}'
    found = rows(body, rows_path="$.data[*]", paths={"id": "$.id"}, columns={"v": "text"})
    assert [(row["id"], row["v"]) for row in found] == [("d1", "1"), ("d1", "2")]


def test_an_empty_body_has_no_rows():
    for body in (b"", b" \n", b"[]", b"\n\n"):
        assert rows(body) == []


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x", "x", "a/b+xml"])
def test_other_content_types_are_refused(kind):
    status, message = refusal(b"{}", kind)
    assert status == 415 and "application/json" in message and kind.partition(";")[0] in message


# -- bad rows --------------------------------------------------------------------------------------

BAD = [
    ("application/json", b'[{"v": 1}, {"v": 2, "time": "soon"}, {"v": 3}]', "soon"),
    ("application/json", b'[{"v": 1}, 7, {"v": 3}]', "only objects or arrays"),
    ("application/x-ndjson", b'{"v": 1}\n{"v": \n{"v": 3}\n', "invalid JSON"),
    ("application/x-ndjson", b'{"v": 1}\nnonsense\n{"v": 3}\n', "invalid JSON"),
    ("", b'{"v": 1}\n{"v": \n{"v": 3}\n', "invalid JSON"),
    ("text/csv", b'v,w\n1,a\n"2"x,b\n3,c\n', "expected after"),
    ("text/csv", b"v,w\n1,a\n2\n3,c\n", "expected 2 cells, got 1"),
    ("", b"m v=1\nm v=\nm v=3\n", "expected a number"),
]


@pytest.mark.parametrize("content_type, body, reason", BAD)
def test_a_bad_row_does_not_lose_its_neighbours(content_type, body, reason):
    found = decode(body, content_type)
    assert [row["v"] for row in found.rows] == [1.0, 3.0]
    ((row),) = found.refused
    assert (row.row, found.bad) == (1, 1) and reason in row.reason


@pytest.mark.parametrize(
    "value, reason",
    [
        ("[1" + "0" * 30 + "]", "a number in 'v' is too large"),
        ("[" * 40 + "]" * 40, "at most 32 levels"),
        ('{"a":' * 70 + "1" + "}" * 70, "at most 32 levels"),
        ("[" + "0," * 100_001 + "0]", "at most 100,000 values"),
    ],
)
def test_a_row_that_could_not_be_read_again_does_not_lose_its_neighbours(value, reason):
    found = decode(f'[{{"v": 1}}, {{"v": {value}}}, {{"v": 3}}]'.encode(), "application/json")
    assert [row["v"] for row in found.rows] == [1.0, 3.0]
    assert found.refused[0].row == 1 and reason in found.refused[0].reason


@pytest.mark.parametrize("content_type", ["", "application/json", "application/x-ndjson"])
def test_a_first_line_that_is_bad_does_not_lose_the_others(content_type):
    found = decode(b'{"v": \n{"v": 2}\n{"v": 3}\n', content_type)
    assert [row["v"] for row in found.rows] == [2.0, 3.0]
    assert [each.row for each in found.refused] == [0]


@pytest.mark.parametrize("signal", ["resourceSpans", "resourceLogs"])
def test_other_signals_of_otlp_are_refused(signal):
    status, message = refusal(json.dumps({signal: []}).encode())
    assert (status, "expected metrics of OTLP" in message) == (415, True)


def test_reasons_are_bounded_and_all_bad_rows_are_counted():
    found = decode(b"[" + b'{"time": "x", "v": 1},' * 5_000 + b'{"v": 1}]')
    assert (len(found.rows), found.bad, len(found.refused)) == (1, 5_000, REFUSED_SHOWN)


def test_values_that_do_not_have_their_type_are_left_out_and_counted():
    found = decode(b'[{"v": "a"}, {"v": 2}]', columns={"v": "number"})
    assert ([row["v"] for row in found.rows], found.values_left_out) == ([None, 2.0], 1)


@pytest.mark.parametrize(
    "body",
    [b'{"a": ', b'{"a": 1}}', b"[1, 2", b"\xff\xfe{", b"[" * 100_000],
)
def test_a_body_that_is_not_json_is_refused(body):
    status, reason = refusal(body, "application/json")
    assert status == 400 and reason.startswith("invalid JSON")


@pytest.mark.parametrize(
    "time, unit, expected",
    [
        (1_700_000_000, "auto", T),
        (1_700_000_000, "s", T),
        (NS, "ns", T),
        ("2023-11-14T22:13:20Z", "auto", T),
        (1_700_000_000, "ms", 1_700_000_000),
        (0, "auto", 0),
        (-1, "s", -1000),
    ],
)
def test_times_have_the_unit_of_the_settings(time, unit, expected):
    body = json.dumps({"time": time, "v": 1}).encode()
    assert rows(body, time_unit=unit)[0]["time"] == expected


@pytest.mark.parametrize("time", [1e300, -1e300, 10**18, "", "32.13.2024", [], {}, True, "9" * 200])
def test_times_that_are_none_are_bad_rows(time):
    found = decode(json.dumps([{"time": time, "v": 1}, {"v": 2}]).encode(), time_unit="s")
    assert [row["v"] for row in found.rows][-1] == 2.0
    assert found.bad == 1 or time == {}, found


# -- OTLP ------------------------------------------------------------------------------------------

EXPORT = export(
    gauge("celsius", point(21.5, "attic"), point(22.0, "cellar")),
    gauge("humidity", point(40, "attic")),
    {
        "name": "latency",
        "histogram": {
            "aggregationTemporality": 2,
            "dataPoints": [
                {
                    "timeUnixNano": str(NS),
                    "count": "3",
                    "sum": 6.5,
                    "bucketCounts": ["1", "2"],
                    "explicitBounds": [1.0],
                }
            ],
        },
    },
    {
        "name": "size",
        "summary": {
            "dataPoints": [
                {
                    "timeUnixNano": str(NS),
                    "count": "2",
                    "sum": 3.0,
                    "quantileValues": [{"quantile": 0.99, "value": 2.5}],
                }
            ]
        },
    },
    {"name": "total", "sum": {"dataPoints": [{"asInt": "9007199254740993"}]}},
    service_name="house",
    telemetry_sdk_name="otel",
)


@pytest.mark.parametrize("encoding", ["json", "protobuf"])
def test_points_of_one_time_and_attributes_are_one_row(encoding):
    if encoding == "json":
        found = decode(json.dumps(EXPORT).encode(), "application/json")
    else:
        found = decode(protobuf(EXPORT), "application/x-protobuf")
    assert found.is_otlp and not found.refused
    service = {"service.name": "house"}
    attic, cellar, no_place, total = found.rows
    assert attic == {
        "time": T,
        "tags": {**service, "place": "attic"},
        "celsius": 21.5,
        "humidity": 40.0,
    }
    assert cellar["celsius"] == 22.0
    assert no_place["tags"] == service and no_place["time"] == T
    assert (no_place["latency.count"], no_place["latency.sum"]) == (3.0, 6.5)
    assert [*map(int, no_place["latency.bucketCounts"])] == [1, 2]
    assert (no_place["size.count"], no_place["size.0.99"]) == (2.0, 2.5)
    assert (total["time"], total["total"]) == (NOW, 9007199254740993.0)


def test_the_attributes_of_otlp_are_columns_with_labels_of_the_settings():
    (row, _) = rows(
        json.dumps(export(gauge("celsius", point(1, "attic"), point(2, "cellar")))).encode(),
        labels=["place"],
    )
    assert row == {"time": T, "place": "attic", "celsius": 1.0}


@pytest.mark.parametrize(
    "bad, reason",
    [
        ({"asDouble": "much"}, "expected a number in asDouble, got 'much'"),
        ({"asInt": "1e3"}, "expected an integer of 64 bits in asInt, got '1e3'"),
        ({"asInt": 2**70}, "expected an integer of 64 bits"),
        ({}, "expected a value in a point of celsius, got none"),
        ({"asDouble": 1, "flags": 1}, "has no recorded value"),
        ({"asDouble": 1, "timeUnixNano": "9" * 30}, "integer of 64 bits in timeUnixNano"),
        ({"asDouble": 1, "attributes": [{"key": 5}]}, "expected the key of an attribute, got 5"),
        (7, "expected objects in dataPoints, got 7"),
        (
            {
                "asDouble": 1,
                "attributes": [
                    {"key": "a", "value": {"stringValue": text}} for text in ("x", "x", "y")
                ],
            },
            "the attribute a has several values, 'x' and 'y'",
        ),
        (
            {
                "quantileValues": [
                    {"quantile": 0.9999999, "value": 2},
                    {"quantile": 0.99999991, "value": 3},
                ]
            },
            "the point has several values of the quantile 1 of celsius",
        ),
    ],
)
def test_a_bad_point_does_not_lose_its_neighbours(bad, reason):
    found = decode(json.dumps(export(gauge("celsius", bad, point(1, "attic")))).encode())
    assert len(found.rows) == 1 and found.bad == 1
    assert reason in found.refused[0].reason


def test_what_is_repeated_with_one_value_or_is_no_label_does_not_matter():
    value = {"stringValue": "x"}
    exported = export(gauge("celsius", point(1, "attic")))
    exported["resourceMetrics"][0]["resource"] = {
        "attributes": [
            {"key": "os", "value": value},
            {"key": "os", "value": {"stringValue": "y"}},
            {"key": "host.name", "value": value},
            {"key": "host.name", "value": value},
        ]
    }
    found = decode(json.dumps(exported).encode())
    assert found.rows[0]["tags"] == {"host.name": "x", "place": "attic"} and not found.bad


@pytest.mark.parametrize(
    "value",
    [
        {"resourceMetrics": [1, None, {"resource": 3, "scopeMetrics": [4, {"metrics": {}}]}]},
        {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "x"}, {"gauge": {}}]}]}]},
        {"resourceMetrics": [{"resource": {"attributes": [[]]}}]},
    ],
)
def test_an_export_of_another_shape_has_reasons(value):
    found = decode(json.dumps(value).encode())
    assert found.is_otlp and not found.rows and found.bad


def test_many_empty_resources_and_metrics_are_refused(monkeypatch):
    monkeypatch.setattr(otlp_metrics, "METRICS_LIMIT", 100)
    for value in ({"resourceMetrics": [{}] * 101}, export(*[{"name": "x"}] * 99)):
        status, message = refusal(json.dumps(value).encode())
        assert status == 400 and "at most 100 resources, scopes and metrics" in message


def test_a_point_that_repeats_another_one_is_refused():
    latency = {"name": "latency", "histogram": {"dataPoints": [{"count": 3, "sum": 1}] * 2}}
    latency["histogram"]["dataPoints"][1] = {"min": 7, "sum": 2}
    found = decode(json.dumps(export(gauge("v", *[{"asInt": 1}] * 4_000), latency)).encode())
    assert found.rows == [
        {"time": NOW, "tags": {}, "v": 1.0, "latency.count": 3.0, "latency.sum": 1.0}
    ]
    assert found.bad == 4_000
    assert found.refused[0].reason == "the point repeats v of the same time and attributes"


def test_a_metric_with_the_name_of_a_label_has_another_one():
    body = json.dumps(export(gauge("place", point(1, "attic")), gauge("time", point(2, "attic"))))
    assert rows(body.encode(), labels=["place"]) == [
        {"time": T, "place": "attic", "place_": 1.0, "time_": 2.0}
    ]


def test_points_are_counted_while_they_are_read(monkeypatch):
    monkeypatch.setattr(push_rows, "PUSH_ROWS", 10)
    for points in ([{"asInt": 1}] * 11, [{}] * 11, [point(1, str(n)) for n in range(11)]):
        unread = gauge("x", {"asInt": "1" * 30})
        status, message = refusal(json.dumps(export(gauge("v", *points), unread)).encode())
        assert status == 413 and "at most 10 rows" in message
    many = export(*[gauge(f"v{n}", *[point(1, str(n)) for n in range(10)]) for n in range(20)])
    assert [len(row) for row in rows(json.dumps(many).encode())] == [22] * 10


@pytest.mark.parametrize("name", ["x" * 201, "x" * 500_000, [1] * 200_000])
def test_a_long_name_is_not_repeated_by_each_point(name):
    points = [{"count": 1, "timeUnixNano": str(NS + n * 1_000_000)} for n in range(5_000)]
    metric = {"name": name, "histogram": {"dataPoints": points}}
    found = decode(json.dumps(export(metric)).encode())
    assert (found.rows, found.bad) == ([], 5_000)
    assert "name of a metric" in found.refused[0].reason
    assert sum(len(each.reason) for each in found.refused) < 200_000


def test_a_long_attribute_of_a_resource_is_not_repeated_by_each_row():
    value = export(gauge("v", point(1, "a"), point(2, "b")), service_name="x" * 1_001)
    for settings in ({}, {"labels": ["place"]}):
        found = decode(json.dumps(value).encode(), **settings)
        assert (found.rows, found.bad) == ([], 1)
        assert "the attribute service.name of a resource" in found.refused[0].reason


def splits(name: str) -> dict[str, Any]:
    """Objects in each other in all ways that make the same dotted name."""
    found: dict[str, Any] = {".".join(name): 1}
    for end in range(1, len(name)):
        found[".".join(name[:end])] = splits(name[end:])
    return found


REPEATED_NAMES = [
    ("text/csv", f"{','.join('x' * 50_000)}\n{','.join('1' * 50_000)}\n".encode(), 1),
    ("text/csv", f"v,{','.join(f'x {n}' for n in range(9_999))}{',x' * 30_000}".encode(), 0),
    ("application/json", json.dumps(splits("abcdefghijklmno")).encode(), 0),
    ("application/json", json.dumps({"a.b": 1, "a": {"b": 2}, "a.b_": 3}).encode(), 1),
    ("", b"m " + b",".join([b"v=1"] * 50_000), 1),
    ("", b"m" + b"".join(b",v%s=1" % (b"_" * n) for n in range(21, -1, -1)) + b" v=1", 0),
]


@pytest.mark.slow
@pytest.mark.parametrize("content_type, body, taken", REPEATED_NAMES, ids=range(6))
def test_the_time_for_repeated_names_grows_with_the_size_of_the_body(content_type, body, taken):
    found = decode(body, content_type, labels=["place"])
    assert len(found.rows) == taken
    assert all("at most 20 values of one name" in each.reason for each in found.refused)


def test_protobuf_that_is_none_is_refused():
    assert refusal(b"\xff\xff\xff", "application/x-protobuf")[0] == 400
    assert rows(b"", "application/x-protobuf") == []


def test_many_empty_messages_of_protobuf_are_refused(monkeypatch):
    monkeypatch.setattr(otlp_protobuf, "ELEMENTS_LIMIT", 1_000)
    status, message = refusal(b"\x0a\x00" * 2_000, "application/x-protobuf")
    assert (status, "at most 1,000 parts" in message) == (400, True)


# -- Arrow -----------------------------------------------------------------------------------------


def test_values_of_arrow_are_those_of_json():
    table = pa.table(
        {
            "time": pa.array([datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)], pa.timestamp("ns")),
            "n": pa.array([7], pa.uint8()),
            "on": [True],
            "day": [date(2026, 1, 2)],
            "price": pa.array([Decimal("1.25")]),
            "head": [{"a": 1, "b": {"c": "x"}}],
            "list": [[1, 2]],
            "none": pa.array([None], pa.float64()),
        }
    )
    (row,) = rows(arrow(table), "application/vnd.apache.arrow.stream")
    assert row == {
        "time": T,
        "n": 7.0,
        "on": True,
        "day": "2026-01-02",
        "price": 1.25,
        "head.a": 1.0,
        "head.b.c": "x",
        "list": [1, 2],
        "none": None,
    }


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("setting", ["s", "auto"])
def test_timestamps_of_arrow_have_their_own_unit(unit, setting):
    factor = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
    at = pa.array([round(T * factor)], pa.timestamp(unit, "Europe/Berlin"))
    table = arrow(pa.table({"time": at, "v": [1.0]}))
    assert rows(table, "application/vnd.apache.arrow.stream", time_unit=setting)[0]["time"] == T


def big_dictionary() -> bytes:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int8()), ["x" * 10_000])
    return arrow(pa.table({"v": column}))


def shared_columns(count: int, length: int = 20_000) -> bytes:
    """Columns of integers that all have the bytes of the first one."""
    data = pa.py_buffer(array("q", range(length)))
    column = pa.Array.from_buffers(pa.int64(), length, [None, data])
    batch = pa.record_batch({f"c{n}": column for n in range(count)})
    schema, message = batch.schema.serialize().to_pybytes(), batch.serialize().to_pybytes()
    (end,) = unpack_from("<i", message, 4)
    metadata, size = message[: 8 + end], 8 * length
    for n in range(1, count):
        at = metadata.rindex(pack("<qq", n * size, size))
        metadata = metadata[:at] + pack("<qq", 0, size) + metadata[at + 16 :]
    metadata = metadata.replace(pack("<q", count * size), pack("<q", size))
    return schema + metadata + message[8 + end :][:size] + b"\xff\xff\xff\xff\0\0\0\0"


def dictionary_again() -> bytes:
    """Batches without rows, each of which has a large dictionary."""
    column = pa.DictionaryArray.from_arrays(pa.array([1], pa.int8()), ["x" * 1_000_000, "y"])
    (batch,) = pa.table({"v": column}).to_batches()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(600):
            writer.write_batch(batch.slice(0, 0))
    return sink.getvalue()


FLAGS = pa.array([True] * PUSH_ROWS)
STRUCTS = pa.StructArray.from_arrays([FLAGS] * 200, [str(n) for n in range(200)])

ARROW_BAD = [
    (b"", "expected an Arrow IPC stream"),
    (b"ARROW1\0\0", "expected an Arrow IPC stream"),
    (ARROW[:-40], "expected an Arrow IPC stream"),
    (arrow(pa.table({"v": ["x" * 100_000]}), compression="zstd"), "without compression"),
    (arrow(pa.table({"v": ["x" * 100_000]}), compression="lz4"), "without compression"),
    (arrow(pa.table({"v": pa.nulls(2)})), "the column 'v' must have numbers"),
    (arrow(pa.table({"v": pa.nulls(PUSH_ROWS + 1, pa.float64())})), "expected fewer rows"),
    (arrow(pa.table({"v": pa.array([b"x"])})), "the column 'v' must have numbers"),
    (arrow(pa.table([[1], [2]], names=["v", "v"])), "columns of different names"),
    (big_dictionary(), "expected fewer bytes of text"),
    (shared_columns(100), "expected columns with bytes of their own"),
    (shared_columns(3, 1_000), "expected columns with bytes of their own"),
    (arrow(pa.table({f"c{n}": [1] for n in range(501)})), "at most 500 columns, got 501"),
    (arrow(pa.table({f"c{n}": FLAGS for n in range(201)})), "at most 4,000,000 values"),
    (arrow(pa.table({"s": STRUCTS})), "at most 4,000,000 values"),
    (dictionary_again(), "expected fewer batches with a large dictionary"),
]


@pytest.mark.parametrize("body, reason", ARROW_BAD, ids=range(len(ARROW_BAD)))
def test_arrow_that_is_none_or_would_expand_is_refused(body, reason):
    status, message = refusal(body, "application/vnd.apache.arrow.stream")
    assert status == 400 and reason in message


def test_parts_of_tables_are_taken_with_any_size_of_batches():
    table = pa.table(
        {
            "v": pa.array(range(1_000)),
            "text": pa.array([f"x{n}" for n in range(1_000)]),
            "flag": pa.array([n % 3 == 0 for n in range(1_000)]),
            "none": pa.nulls(1_000, pa.float64()),
            "key": pa.array([f"k{n % 7}" for n in range(1_000)]).dictionary_encode(),
            "list": pa.array([[n, n + 1] for n in range(1_000)]),
            "struct": pa.array([{"a": n, "b": "x"} for n in range(1_000)]),
        }
    )
    for first, count, size in ((0, 1, 1), (990, 10, 3), (17, 500, 7), (17, 500, 500), (3, 0, 1)):
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(first, count), max_chunksize=size)
        found = rows(sink.getvalue(), "application/vnd.apache.arrow.stream")
        assert [row["v"] for row in found] == [*range(first, first + count)]
        assert [row["key"] for row in found] == [f"k{n % 7}" for n in range(first, first + count)]


@pytest.mark.slow
def test_the_time_for_a_long_name_does_not_grow_with_the_rows():
    long = "x" * 3_000_000
    body = arrow(pa.table({long: [True] * PUSH_ROWS, "v": [True] * PUSH_ROWS}))
    found = decode(body, "application/vnd.apache.arrow.stream")
    assert (len(found.rows), found.values_left_out) == (PUSH_ROWS, PUSH_ROWS)
    fields = pa.StructArray.from_arrays([pa.array([1])] * 5_000, [f"f{n}" for n in range(5_000)])
    body = arrow(pa.table({long: fields, "v": [1]}))
    found = decode(body, "application/vnd.apache.arrow.stream")
    assert (found.rows, found.values_left_out) == ([{"time": NOW, "v": 1.0}], 1)


# -- compression -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", " gzip , identity"])
def test_gzip_is_taken(encoding):
    assert read(gzip.compress(b"{}"), encoding) == b"{}"
    assert read(gzip.compress(b"{") + gzip.compress(b"}") + b"\0\0", encoding) == b"{}"


def test_both_forms_of_deflate_are_taken():
    raw = zlib.compressobj(wbits=-15)
    assert read(zlib.compress(b"{}"), "deflate") == b"{}"
    assert read(raw.compress(b"{}") + raw.flush(), "deflate") == b"{}"


@pytest.mark.parametrize(
    "body, encoding, status, reason",
    [
        (b"{}", "br", 415, "gzip, deflate or none, got 'br'"),
        (b"{}", "gzip", 400, "expected a body in gzip"),
        (gzip.compress(b"{}", mtime=0)[:-5], "gzip", 400, "got one that is cut"),
        (gzip.compress(b"{}", mtime=0) + b"{}", "gzip", 400, "expected a body in gzip"),
        (zlib.compress(b"{}") + b"x", "deflate", 400, "expected the end of the body"),
        (gzip.compress(b"", mtime=0) * 101, "gzip", 400, "at most 100 members"),
        (
            b"x" * 5_000,
            "",
            413,
            "at most 4,000 bytes, which the setting maxMessage allows, got 5,000",
        ),
        (gzip.compress(b"x" * 5_000, mtime=0), "gzip", 413, "more after decompression"),
        (
            gzip.compress(gzip.compress(b"x" * 50_000, mtime=0), mtime=0),
            "gzip, gzip",
            413,
            "after decompression",
        ),
    ],
)
def test_what_cannot_be_decompressed_is_refused(body, encoding, status, reason):
    with pytest.raises(PushRefused) as caught:
        read(body, encoding, limit=4_000)
    assert caught.value.status == status and reason in caught.value.message


@pytest.mark.slow
def test_a_body_that_expands_without_end_takes_no_more_memory_than_the_limit():
    bomb = zlib.compressobj(1, wbits=31)
    parts = [bomb.compress(bytes(1 << 20)) for _ in range(200)]
    body = b"".join(parts) + bomb.flush()
    assert len(body) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(PushRefused, match="after decompression"):
            read(body, "gzip", limit=2_000_000)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


# -- limits and noise ------------------------------------------------------------------------------


@pytest.mark.slow
def test_more_rows_than_the_limit_are_refused_as_a_whole():
    body = b"[" + b'{"v":1},' * PUSH_ROWS + b'{"v":1}]'
    status, message = refusal(body)
    assert status == 413 and f"at most {PUSH_ROWS:,} rows" in message
    assert len(rows(body[:-9] + b"]")) == PUSH_ROWS


SEEDS = [
    *[payload for _, payload in PLAIN],
    LINES.encode(),
    protobuf(EXPORT),
    json.dumps(EXPORT).encode(),
]
TYPES = [*[kind for kind, _ in PLAIN], "", "application/x-protobuf"]


@pytest.mark.parametrize("seed", range(8))
def test_noise_is_refused_or_has_rows_that_can_be_encoded(seed):
    chosen = random.Random(seed)
    for _ in range(150):
        body = bytearray(chosen.choice(SEEDS))
        for _ in range(chosen.randrange(1, 8)):
            at = chosen.randrange(len(body))
            match chosen.randrange(4):
                case 0:
                    body[at] = chosen.randrange(256)
                case 1:
                    del body[at : at + chosen.randrange(1, 20)]
                case 2:
                    body[at:at] = body[: chosen.randrange(1, 30)]
                case 3:
                    body[at:at] = bytes(chosen.randrange(256) for _ in range(4))
            body = body or bytearray(b"x")
        try:
            found = decode(bytes(body), chosen.choice(TYPES))
        except PushRefused as error:
            assert error.status in (400, 413) and error.message
            continue
        assert len(msgspec.json.encode(found.rows)) > 1
        for row in found.rows:
            assert type(row["time"]) is int and len(row) > 1 and "cursor" not in row
