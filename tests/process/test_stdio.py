"""How a stream of bytes becomes the texts of log lines; the rest needs a process of its own."""

import json
import logging

import pytest

from aiostream_ds._process.stdio import PIECE, _pieces
from aiostream_ds._telemetry import JsonLines


@pytest.mark.parametrize(
    ("chunks", "texts"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"on", b"e\ntw", b"o"], ["one", "two"]),
        ([b"\n\none\r\n\n"], ["one"]),
        (["ü".encode()[:1], "ü".encode()[1:] + b"\n"], ["ü"]),
        ([b"a\xffb\n"], ["a\\xffb"]),
        ([b"cut \xc3"], ["cut \\xc3"]),
        ([], []),
    ],
)
def test_lines_are_found_whatever_the_chunks(chunks, texts):
    assert list(_pieces(iter(chunks))) == texts


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 1_000_000])
@pytest.mark.parametrize("chunk", [1_000, 65_536])
def test_a_long_line_comes_in_pieces_and_whole(size, chunk):
    data = b"x" * size + b"\nend"
    chunks = (data[at : at + chunk] for at in range(0, len(data), chunk))
    *pieces, end = _pieces(chunks)
    assert (sum(map(len, pieces)), end) == (size, "end")
    assert max(map(len, pieces)) <= PIECE


def test_a_line_without_end_does_not_wait_for_one():
    def chunks():
        yield b"x" * (PIECE + 1)
        pytest.fail("the full piece was not given out first")

    assert len(next(_pieces(chunks()))) == PIECE


@pytest.mark.parametrize("character", ["\0", "\U0001f600", "\udcff", '"', "x"])
def test_the_longest_piece_is_a_json_line_that_hclogs_reader_takes_whole(character):
    text = character * PIECE
    record = logging.LogRecord("aiostream_ds.output", logging.INFO, "", 0, "%s", (text,), None)
    line = JsonLines().format(record)
    assert len(line.encode("utf-8", "backslashreplace")) < 60 * 1024
    # a lone surrogate, which no UTF-8 can hold, is written out
    assert json.loads(line)["@message"] == text.encode("utf-8", "backslashreplace").decode()
