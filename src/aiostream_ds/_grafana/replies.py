"""Responses with frames as protobuf bytes, encoded by hand: a frame may have many megabytes, and
the message classes copy it several times. Here it is not copied: a response is a list of pieces.

The field numbers are those of `DataResponse`, `QueryDataResponse`, `QueryChunkedDataResponse` and
`SubscribeStreamResponse`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from aiostream_ds._grpc.framing import bytes_header, varint_field

__all__ = ["Answer", "Piece", "chunks", "query_data", "subscribe_stream"]

Piece = bytes | memoryview
"""A part of a message's bytes."""


class Answer(NamedTuple):
    """The answer to one query: encoded frames, each a sequence of pieces, or an error.

    `form` is the encoding of the frames, a `DataFrameFormat`.
    """

    status: int
    frames: Sequence[Sequence[Piece]] = ()
    error: str = ""
    source: str = ""
    form: int = 0


def query_data(answers: Mapping[str, Answer]) -> list[Piece]:
    """A `QueryDataResponse` in pieces, from the answers by refId."""
    response: list[Piece] = []
    for ref_id, answer in answers.items():
        is_error = answer.error or answer.source
        tail = _failed(answer) if is_error else _ending(answer.status, answer.form)
        body: list[Piece] = []
        size = len(tail)
        for frame in answer.frames:
            length = len(frame[0]) if len(frame) == 1 else sum(map(len, frame))
            start = bytes_header(1, length)
            size += len(start) + length
            body.append(start)
            body += frame
        body.append(tail)
        key = _string(1, ref_id)
        start = bytes_header(2, size)
        whole = bytes_header(1, len(key) + len(start) + size)
        response.append(b"%b%b%b" % (whole, key, start))
        response += body
    return response


@lru_cache(maxsize=64)
def _ending(status: int, form: int) -> bytes:
    """The fields after the frames of an answer without an error."""
    return varint_field(4, status) + varint_field(6, form)


def _failed(answer: Answer) -> bytes:
    source = _string(5, answer.source)
    fields = _string(2, answer.error), varint_field(4, answer.status), source
    return b"".join((*fields, varint_field(6, answer.form)))


def chunks(ref_id: str, answer: Answer) -> Iterator[list[Piece]]:
    """The `QueryChunkedDataResponse`s of one query, in pieces: one a frame, or its error."""
    key = _string(1, ref_id)
    tail = b"".join(
        (
            _string(4, answer.error),
            varint_field(5, answer.status),
            _string(6, answer.source),
            varint_field(7, answer.form),
        )
    )
    if answer.error or answer.source:
        yield [key, tail]
    for number, frame in enumerate(answer.frames):
        frame_id = _string(2, str(number))
        yield [key, frame_id, bytes_header(3, sum(map(len, frame))), *frame, tail]


def subscribe_stream(status: int, data: bytes) -> bytes:
    """A `SubscribeStreamResponse`."""
    return varint_field(1, status) + (bytes_header(2, len(data)) + data if data else b"")


def _string(field: int, text: str) -> bytes:
    data = text.encode()
    return bytes_header(field, len(data)) + data if data else b""
