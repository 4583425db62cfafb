"""Bodies of pushes in every format, with the rows that they have."""

import io
import json
from typing import Any

import cbor2
import msgspec
import pyarrow as pa
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pyarrow import ipc

T = 1_700_000_000_000
NS = T * 1_000_000

ROWS: list[dict[str, Any]] = [
    {"time": T, "celsius": 21.5, "place": "attic"},
    {"time": T + 1, "celsius": 22.0, "place": "cellar"},
]
LINES = f"climate,place=attic celsius=21.5 {NS}\nclimate,place=cellar celsius=22 {NS + 1_000_000}\n"
CSV = f"time,celsius,place\n{T},21.5,attic\n{T + 1},22,cellar\n"


def arrow(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


ARROW = arrow(
    pa.table(
        {
            "time": pa.array([T, T + 1], pa.timestamp("ms", "UTC")),
            "celsius": [21.5, 22.0],
            "place": pa.array(["attic", "cellar"]).dictionary_encode(),
        }
    )
)

PLAIN = [
    ("application/json", json.dumps(ROWS).encode()),
    ("application/x-ndjson", "\n".join(map(json.dumps, ROWS)).encode()),
    ("text/csv", CSV.encode()),
    ("application/msgpack", msgspec.msgpack.encode(ROWS)),
    ("application/cbor", cbor2.dumps(ROWS)),
    ("application/vnd.apache.arrow.stream", ARROW),
]
"""The same rows in every format without labels."""


def point(value: float, place: str, at: int = NS) -> dict[str, Any]:
    return {
        "asDouble": value,
        "timeUnixNano": str(at),
        "attributes": [{"key": "place", "value": {"stringValue": place}}],
    }


def export(*metrics: dict[str, Any], **resource: str) -> dict[str, Any]:
    attributes = [
        {"key": key.replace("_", "."), "value": {"stringValue": value}}
        for key, value in resource.items()
    ]
    return {
        "resourceMetrics": [
            {"resource": {"attributes": attributes}, "scopeMetrics": [{"metrics": [*metrics]}]}
        ]
    }


def gauge(name: str, *points: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "gauge": {"dataPoints": [*points]}}


def protobuf(value: dict[str, Any]) -> bytes:
    from google.protobuf.json_format import ParseDict

    encoded: bytes = ParseDict(value, ExportMetricsServiceRequest()).SerializeToString()
    return encoded
