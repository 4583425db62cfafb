"""The answers to a push: JSON; to OTLP what OTLP/HTTP states, in the encoding of the request."""

import msgspec

from aiostream_ds._grpc.framing import bytes_header, varint_field
from aiostream_ds.models import Response
from aiostream_ds.sources.push.push_errors import PushRefused
from aiostream_ds.sources.push.push_rows import RowRefusal

__all__ = ["PushResult", "refused", "taken"]

_JSON = {"Content-Type": "application/json"}
_PROTOBUF = {"Content-Type": "application/x-protobuf"}

_CODES = {400: 3, 403: 7, 413: 3, 415: 3, 429: 8, 503: 14}
"""Codes of google.rpc.Status."""


class PushResult(msgspec.Struct, omit_defaults=True):
    """What became of a body."""

    taken: int
    """Rows that are stored; of a repeated batch, those that had been."""
    refused: list[RowRefusal]
    """Rows that are not stored: the first ones, with their index and reason."""
    more_refused: int = 0
    """Rows that are not stored and not in `refused`."""
    values_left_out: int = 0
    """Values of stored rows that do not have the fixed type of their column, or are beyond a
    limit."""
    repeated: bool = False
    """Whether the batch had been stored before, by its idempotency key."""
    last: int | None = None
    """The cursor of the last row of the batch."""
    message: str = ""
    """The first reason in words, if rows are not stored."""
    warnings: list[str] = []
    """What is taken and probably not meant."""

    @property
    def bad(self) -> int:
        """The number of rows that are not stored."""
        return len(self.refused) + self.more_refused


def taken(result: PushResult, otlp: str) -> Response:
    """The answer with the rows that were taken and those that were not; 400 if none was.

    Args:
        otlp: "json" or "protobuf" for OTLP, else "".
    """
    is_bad = result.bad > 0 and not result.taken
    if otlp and not is_bad:
        return _otlp_success(result, otlp)
    if otlp == "protobuf":
        return Response(status=400, headers=_PROTOBUF, body=_rpc_status(400, result.message))
    status = 400 if is_bad else 200
    return Response(status=status, headers=_JSON, body=msgspec.json.encode(result))


def _otlp_success(result: PushResult, otlp: str) -> Response:
    """An ExportMetricsServiceResponse; with what was rejected, or a warning."""
    text = result.message or "; ".join(result.warnings)
    if otlp == "json":
        partial = {"rejectedDataPoints": str(result.bad), "errorMessage": text}
        answer = {"partialSuccess": partial} if text else {}
        return Response(headers=_JSON, body=msgspec.json.encode(answer))
    message = b""
    if text:
        encoded = text.encode()
        partial_success = varint_field(1, result.bad) + bytes_header(2, len(encoded)) + encoded
        message = bytes_header(1, len(partial_success)) + partial_success
    return Response(headers=_PROTOBUF, body=message)


def refused(error: PushRefused, otlp: str) -> Response:
    """The answer to a push of which nothing was stored."""
    if otlp == "protobuf":
        body, headers = _rpc_status(error.status, error.message), _PROTOBUF
    else:
        body, headers = msgspec.json.encode({"message": error.message}), _JSON
    return Response(status=error.status, headers={**headers, **error.headers}, body=body)


def _rpc_status(status: int, text: str) -> bytes:
    encoded = text.encode()
    code = varint_field(1, _CODES.get(status, 2))
    return code + bytes_header(2, len(encoded)) + encoded
