"""How a byte stream is split into log lines. The rest is in test_handshake.py."""

import json
import logging

import pytest

from aiostream_ds._process.stdio import LINE_LIMIT, _split_lines
from aiostream_ds._telemetry import JsonLines


@pytest.mark.parametrize(
    ("chunks", "lines"),
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
def test_lines_do_not_depend_on_the_chunks(chunks, lines):
    assert list(_split_lines(iter(chunks))) == lines


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT, 1_000_000]
)
@pytest.mark.parametrize("chunk", [1_000, 65_536])
def test_a_long_line_is_split_and_complete(size, chunk):
    data = b"x" * size + b"\nend"
    chunks = (data[at : at + chunk] for at in range(0, len(data), chunk))
    *parts, end = _split_lines(chunks)
    assert (sum(map(len, parts)), end) == (size, "end")
    assert max(map(len, parts)) <= LINE_LIMIT


def test_a_long_line_is_split_before_it_ends():
    def chunks():
        yield b"x" * (2 * LINE_LIMIT)  # its end may be the beginning of a secret of another test
        pytest.fail("expected a full part first")

    # a part does not end within a secret; those of other tests may still exist
    assert LINE_LIMIT - 1_000 < len(next(_split_lines(chunks()))) <= LINE_LIMIT


@pytest.mark.parametrize("character", ["\0", "\U0001f600", "\udcff", '"', "x"])
def test_the_longest_part_is_a_json_line_that_fits_hclogs_buffer(character):
    text = character * LINE_LIMIT
    record = logging.LogRecord("aiostream_ds.output", logging.INFO, "", 0, "%s", (text,), None)
    line = JsonLines().format(record)
    assert len(line.encode("utf-8", "backslashreplace")) < 60 * 1024
    # a lone surrogate, which UTF-8 cannot encode, is escaped
    assert json.loads(line)["@message"] == text.encode("utf-8", "backslashreplace").decode()
