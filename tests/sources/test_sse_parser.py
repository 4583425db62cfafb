"""Server-Sent Events by the WHATWG's HTML standard; the examples of its section 9.2.6 first."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds.sources.http.lines import LineSplitter
from aiostream_ds.sources.http.sse_parser import SseEvent, SseParser


class Event(NamedTuple):
    """An event with its data as text."""

    type: str
    data: str | None
    id: str


def texts(events: Sequence[SseEvent]) -> list[Event]:
    return [Event(e.type, None if e.data is None else e.data.decode(), e.id) for e in events]


def parse(*chunks: bytes, limit: int = 1_000, last: str = "") -> tuple[list[Event], SseParser]:
    parser = SseParser(limit, last)
    return [event for chunk in chunks for event in texts(parser.feed(chunk))], parser


def data(*chunks: bytes) -> list[str | None]:
    return [event.data for event in parse(*chunks)[0]]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"]),
        (b"data\n\ndata\ndata\n\ndata:", ["", "\n"]),
        (b"data:test\n\ndata: test\n\n", ["test", "test"]),
        (b"data:  two spaces\n\n", [" two spaces"]),
        (b"\xef\xbb\xbfdata: after a BOM\n\n", ["after a BOM"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: two BOMs\n\ndata: b\n\n", ["b"]),
        (b"data: a\r\rdata: b\r\n\r\ndata: c\n\n", ["a", "b", "c"]),
        (b"data: a\r\n\ndata: b\n\r\n", ["a", "b"]),
        (b"data: a:b: c\n\n", ["a:b: c"]),
        (b"Data: no\n data: no\ndata : no\ndata: yes\n\n", ["yes"]),
        (b"data: \xff\xe2\x82\n\n", ["\ufffd\ufffd"]),
        (b"data: a\x0bb\x0cc\x1cd\xc2\x85e\n\n", ["a\x0bb\x0cc\x1cd\x85e"]),
        (b"data: \xe2\x80\xa8 ends nothing\n\n", ["\u2028 ends nothing"]),
        (b"data: cut", []),
        (b"data: cut\n", []),
        (b"event: only\n\n", []),
        (b"\n\n\n", []),
        (b"", []),
    ],
)
def test_events_are_those_of_the_standard(stream, expected):
    assert data(stream) == expected


def test_a_comment_is_counted_and_ids_and_types_are_read():
    stream = (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third\n\n"
    )
    events, parser = parse(stream)
    assert events == [
        ("message", "first event", "1"),
        ("message", "second event", ""),
        ("message", " third", ""),
    ]
    assert (parser.comments, parser.last_event_id) == (1, "")


def test_a_type_lasts_for_one_event_and_an_id_until_the_next():
    events, parser = parse(b"event: add\nid: 7\ndata: 1\n\ndata: 2\n\nevent\ndata: 3\n\nid: 8\n\n")
    assert events == [("add", "1", "7"), ("message", "2", "7"), ("message", "3", "7")]
    assert parser.last_event_id == "8", "also of a block without data"


def test_an_id_counts_when_its_event_is_complete():
    parser = SseParser(100, "1")
    parser.feed(b"id: 2\ndata: cut")
    assert parser.last_event_id == "1"
    assert parser.feed(b"\n\n")[0].id == parser.last_event_id == "2"


def test_an_id_with_a_null_is_ignored_and_the_id_of_the_last_connection_stays():
    events, _ = parse(b"id: a\0b\ndata: 1\n\n", last="5")
    assert events == [("message", "1", "5")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"100", 100),
        (b"0", 0),
        (b"-1", None),
        (b"1.5", None),
        (b"1e3", None),
        (b"", None),
        (b" 3", None),
        ("٣".encode(), None),
        (b"9" * 30, None),
    ],
)
def test_a_reconnection_time_is_digits(value, expected):
    assert parse(b"retry: " + value + b"\n")[1].retry == expected


def test_an_event_above_the_limit_is_known_but_not_kept():
    big, small = b"x" * 1_001, b"y" * 1_000
    events, _ = parse(
        b"id: 1\ndata: " + big + b"\n\nid: 2\ndata: " + small + b"\n\n"
        b"id: 3\ndata: " + small + b"\ndata:\n\nid: 4\n" + b": " + b"c" * 2_000 + b"\ndata: 5\n\n"
    )
    assert [(event.id, event.data and len(event.data)) for event in events] == [
        ("1", None),
        ("2", 1_000),
        ("3", None),
        ("4", None),
    ]


@pytest.mark.slow
def test_what_is_too_long_takes_no_memory():
    parser = SseParser(1_000)
    for _ in range(1_000):
        assert parser.feed(b"data: " + b"x" * 100_000) == []
    splitter = parser._lines
    assert sum(map(len, splitter._pending)) <= 1_006
    assert [event.data for event in parser.feed(b"\n\ndata: next\n\n")] == [None, b"next"]


PIECES = [
    b"data: ",
    b"data",
    b"id: ",
    b"event: x",
    b"retry: 5",
    b":",
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"1",
    "é€".encode(),
    b"\xef\xbb\xbf",
    b" ",
    b"\0",
]


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.integers(0, 2**32))
def test_chunks_of_any_size_give_the_same_events(pieces, seed):
    stream = b"".join(pieces)
    cut = random.Random(seed)
    chunks, at = [], 0
    while at < len(stream):
        size = cut.choice((0, 1, 1, 2, 5))
        chunks.append(stream[at : at + size])
        at += size
    whole, one = parse(stream)
    parts, other = parse(*chunks)
    assert parts == whole
    assert (other.last_event_id, other.retry) == (one.last_event_id, one.retry)
    assert whole == reference(stream)


def reference(stream: bytes) -> list[Event]:
    """The algorithm of the standard, line by line, over the whole stream."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    events, data, kind, last = [], "", "", ""
    for line in lines:
        if line == "":
            if data:
                events.append(Event(kind or "message", data.removesuffix("\n"), last))
            data = kind = ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line.startswith(":"):
            continue
        if name == "event":
            kind = value
        elif name == "data":
            data += value + "\n"
        elif name == "id" and "\0" not in value:
            last = value
    return events


def lines(*chunks: bytes, limit: int = 100) -> tuple[list[bytes | None], list[bytes | None]]:
    splitter = LineSplitter(limit)
    return [line for chunk in chunks for line in splitter.feed(chunk)], splitter.rest()


def test_lines_end_with_lf_or_crlf_and_a_last_one_needs_none():
    assert lines(b"a\r\nb\nc\rd\n", b"e") == ([b"a", b"b", b"c\rd"], [b"e"])
    assert lines(b"a", b"", b"b\r", b"\n\n") == ([b"ab", b""], [])
    assert lines(b"") == ([], [])


def test_a_line_above_the_limit_is_none():
    assert lines(b"x" * 101, b"\ny\n", b"z" * 100 + b"\n") == ([None, b"y", b"z" * 100], [])
    assert lines(b"x" * 60, b"x" * 60) == ([], [None])
