"""The answers of queries as protobuf's bytes, made by hand: a frame in them may have many megabytes
and the message classes copy it several times. Here it is not copied: answers are lists of pieces.

The field numbers are those of `DataResponse`, `QueryDataResponse`, `QueryChunkedDataResponse` and
`SubscribeStreamResponse`, the call that each viewer makes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Answer", "Piece", "chunks", "query_data", "subscribe_stream"]

Piece = bytes | memoryview
"""A part of a frame's bytes."""

_UNSIGNED = (1 << 64) - 1


class Answer(NamedTuple):
    """What one query is answered: frames, each in pieces, or an error; `form` is how they are
    encoded, as Grafana numbers it."""

    status: int
    frames: Sequence[Sequence[Piece]] = ()
    error: str = ""
    source: str = ""
    form: int = 0


def query_data(answers: Mapping[str, Answer]) -> list[Piece]:
    """A `QueryDataResponse`, in pieces: the answer of each query by its refId."""
    reply: list[Piece] = []
    for ref_id, answer in answers.items():
        body: list[Piece] = []
        for frame in answer.frames:
            body += _head(1, sum(map(len, frame))), *frame
        body += (
            _text(2, answer.error),
            _number(4, answer.status),
            _text(5, answer.source),
            _number(6, answer.form),
        )
        size = sum(map(len, body))
        key, head = _text(1, ref_id), _head(2, size)
        reply += _head(1, len(key) + len(head) + size), key, head, *body
    return reply


def chunks(ref_id: str, answer: Answer) -> Iterator[list[Piece]]:
    """The `QueryChunkedDataResponse`s of one query, in pieces: one for each frame, or one for its
    error."""
    name = _text(1, ref_id)
    end = b"".join(
        (
            _text(4, answer.error),
            _number(5, answer.status),
            _text(6, answer.source),
            _number(7, answer.form),
        )
    )
    if answer.error or answer.source:
        yield [name, end]
    for number, frame in enumerate(answer.frames):
        frame_id = _text(2, str(number))
        yield [name, frame_id, _head(3, sum(map(len, frame))), *frame, end]


def subscribe_stream(status: int, data: bytes) -> bytes:
    """A `SubscribeStreamResponse`."""
    return _number(1, status) + (_head(2, len(data)) + data if data else b"")


def _varint(number: int) -> bytes:
    if 0 <= number < 128:
        return bytes((number,))
    number &= _UNSIGNED
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _head(field: int, size: int) -> bytes:
    return bytes((field << 3 | 2,)) + _varint(size)


def _text(field: int, text: str) -> bytes:
    data = text.encode()
    return _head(field, len(data)) + data if data else b""


def _number(field: int, number: int) -> bytes:
    return bytes((field << 3,)) + _varint(number) if number else b""
