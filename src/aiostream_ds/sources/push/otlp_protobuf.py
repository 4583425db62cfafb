"""OTLP metrics in protobuf, as the values that their JSON form has.

The package opentelemetry-proto is imported at the first such body.
"""

from typing import Any

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.push.push_errors import PushRefused

__all__ = ["ELEMENTS_LIMIT", "export_of_protobuf"]

ELEMENTS_LIMIT = 300_000
"""Maximum number of messages and values in a body: a message of two bytes takes a hundred times as
much memory when it is decoded."""


def export_of_protobuf(payload: bytes) -> dict[str, Any]:
    """An ExportMetricsServiceRequest in the form of its JSON.

    Raises:
        PushRefused: the package is not installed.
        BadRecord: the payload is not such a message, or has too many parts.
    """
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
            ExportMetricsServiceRequest,
        )
    except ImportError:
        raise PushRefused(
            415,
            "OTLP in protobuf needs the package opentelemetry-proto, which is not installed: pip"
            " install 'aiostream-ds[otlp]', or send OTLP in JSON",
        ) from None
    request = ExportMetricsServiceRequest()
    try:
        request.ParseFromString(payload)
    except DecodeError:
        raise BadRecord("expected an ExportMetricsServiceRequest in protobuf") from None
    found: dict[str, Any] = _object(request, [ELEMENTS_LIMIT])
    found.setdefault("resourceMetrics", [])
    return found


def _object(message: Any, free: list[int]) -> dict[str, Any]:
    """The fields that are set; `free` has the number of elements that there may still be."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name == "exemplars":
            continue
        is_message = field.message_type is not None
        if hasattr(value, "append"):
            free[0] -= len(value)
            if free[0] < 0:
                raise BadRecord(f"expected at most {ELEMENTS_LIMIT:,} parts in a body, got more")
            found[field.json_name] = [_object(v, free) for v in value] if is_message else [*value]
        else:
            found[field.json_name] = _object(value, free) if is_message else value
    return found
