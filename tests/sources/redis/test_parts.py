"""The parts that need no server: positions, pages, statuses, names."""

import random
from fnmatch import fnmatchcase

import anyio
import pytest

from aiostream_ds import BadQuery, ConfigError
from aiostream_ds._redis.servers import Address, read_addresses
from aiostream_ds.sources.decoding import DecodingSettings, MessageDecoder, MessageErrors
from aiostream_ds.sources.redis.entry_reader import PAGE_BYTES, PAGE_ENTRIES, PageSize, last_id
from aiostream_ds.sources.redis.entry_rows import EntryRows
from aiostream_ds.sources.redis.positions import (
    BEGINNING,
    LARGEST,
    Change,
    Position,
    StreamInfo,
    before,
    format_id,
    next_id,
    parse_id,
)
from aiostream_ds.sources.redis.redis_health import events_warning
from aiostream_ds.sources.redis.redis_names import escape_glob, patterns_of
from aiostream_ds.sources.redis.redis_settings import RedisSettings
from aiostream_ds.sources.redis.resumption import SECONDS, Resumption
from aiostream_ds.sources.redis.stream_set import STREAMS, split_names

pytestmark = pytest.mark.slow  # every case of what servers send


@pytest.mark.parametrize("id", [(0, 0), (0, 1), (5, 0), (1_700_000_000_000, 3), (5, LARGEST)])
def test_ids_are_read_as_they_are_written(id):
    assert parse_id(format_id(id).encode()) == id
    assert before(next_id(id)) == id
    assert before(id) < id < next_id(id)


def test_the_beginning_is_before_every_id():
    assert format_id(BEGINNING) == "0-0" and next_id(BEGINNING) == (0, 0)
    assert before((0, 0)) == BEGINNING < (0, 0)


def info(first, last, length, added):
    return StreamInfo(length, first, last, added)


@pytest.mark.parametrize(
    ("position", "found", "change", "after"),
    [
        # the next entry to read follows directly, or there is none
        (Position((5, 0), 10), info((1, 0), (9, 0), 8, 14), None, ((5, 0), 10)),
        (Position((5, 0), 10), info((1, 0), (5, 0), 10, 10), None, ((5, 0), 10)),
        (Position((5, 0)), info((1, 0), (5, 0), 10, 10), None, ((5, 0), 10)),
        # all that was read, and no more, was trimmed
        (Position((5, 0), 10), info((6, 0), (9, 0), 4, 14), None, ((5, LARGEST), 10)),
        # three entries after the position were trimmed
        (Position((5, 0), 10), info((8, 0), (9, 0), 2, 15), Change(3, (7, LARGEST)), None),
        (Position((5, 0), 10), info(None, (9, 0), 0, 14), Change(4, (9, 0)), ((9, 0), 14)),
        # an entry was added and trimmed within one transaction
        (Position((5, 0), 10), info((5, 0), (5, 0), 1, 11), Change(1, None), ((5, 0), 11)),
        # without counts nobody knows whether something was between
        (Position((5, 0)), info((8, 0), (9, 0), 2, None), Change(None, (7, LARGEST)), None),
        (Position(BEGINNING), info((8, 0), (9, 0), 2, 2), None, (BEGINNING, 0)),
        # the stream was made again: the count restarts
        (Position((5, 0), 10), info((8, 0), (9, 0), 2, 2), Change(None, (7, LARGEST)), None),
        # the ids restart
        (Position((5, 0), 10), info((1, 0), (2, 0), 2, 2), Change(None, None, True), ((2, 0), 2)),
    ],
)
def test_a_position_is_compared_with_its_stream(position, found, change, after):
    assert position.compare(found) == change
    if after is not None:
        assert (position.id, position.added) == after
    assert position.compare(found) is None, "a change is reported once"


def test_entries_that_are_read_are_counted():
    position = Position((5, 0), 10)
    position.advance((9, 0), 4)
    assert position.compare(info((9, 0), (9, 0), 1, 14)) is None
    assert position.compare(info((9, 0), (9, 0), 1, 16)) == Change(2)


def entries(count, size):
    return [[b"1-0", [b"f", b"x" * size]]] * count


def test_pages_grow_with_small_entries_and_shrink_with_large_ones():
    page = PageSize()
    first = page.count
    for _ in range(10):
        page.adapt(entries(page.count, 10))
    assert first <= 10 < page.count == PAGE_ENTRIES
    for _ in range(10):
        page.adapt(entries(page.count, PAGE_BYTES))
    assert page.count == 1
    page.adapt(entries(1, 10 * PAGE_BYTES))
    assert page.count == 1


def test_a_page_that_is_not_full_changes_nothing():
    page = PageSize()
    before = page.count
    page.adapt(entries(before - 1, 1))
    assert page.count == before


def test_an_id_that_no_cursor_can_be_is_named():
    assert last_id([[b"7-3", []]]) == (7, 3)
    with pytest.raises(BadQuery, match="got 18446744073709551615-1"):
        last_id([[b"18446744073709551615-1", []]])


@pytest.mark.virtual
async def test_a_run_that_has_failed_is_resumed_once_and_for_a_while():
    kept: Resumption[int] = Resumption()
    assert kept.take("a") is None
    kept.keep("a", 1)
    assert (kept.take("a"), kept.take("a")) == (1, None)
    kept.keep("a", 2)
    await anyio.sleep(SECONDS + 1)
    assert kept.take("a") is None


@pytest.mark.parametrize("name", ["a", "a*b", "a?[b]", "a\\b", "[^a]", "ü:✓"])
def test_an_escaped_name_is_a_pattern_of_this_name_only(name):
    pattern = escape_glob(name)
    translated = pattern.replace("\\\\", "\0")
    for char in "*?[]^":
        translated = translated.replace(f"\\{char}", f"[{char}]" if char != "^" else char)
    assert fnmatchcase(name.replace("\\", "\0"), translated)
    assert not fnmatchcase(name.replace("\\", "\0") + "x", translated)


def test_patterns_are_made_of_common_beginnings():
    names = ["sensors:1", "sensors:2", "news.eu", "alone", ":x"]
    assert patterns_of(names) == ["sensors:*", "news.*"]


def test_the_names_of_several_streams_have_commas_between_them():
    assert split_names("a, b ,a,,c:*") == ["a", "b", "c:*"]
    for text in ("", " , ", ",".join(map(str, range(STREAMS + 1)))):
        with pytest.raises(BadQuery, match="streams must be 1 to 100 names"):
            split_names(text)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("here", [("here", 6379)]),
        ("10.0.0.1:7000", [("10.0.0.1", 7000)]),
        ("a, b:1 ,[::1]:2,::1", [("a", 6379), ("b", 1), ("::1", 2), ("::1", 6379)]),
        ("[fe80::1]", [("fe80::1", 6379)]),
    ],
)
def test_addresses_are_names_with_or_without_a_port(text, addresses):
    assert read_addresses(text, 6379) == [Address(*each) for each in addresses]


@pytest.mark.parametrize("text", ["", "a,,b", "redis://a", "a b", "a:", "a:0", "a:65536", "[::1"])
def test_what_is_not_an_address_is_refused(text):
    with pytest.raises(ConfigError, match="host must be|port in host must be"):
        read_addresses(text, 6379)


@pytest.mark.parametrize(
    ("flags", "is_on"),
    [("", False), ("KE", False), ("K", False), ("Eg$", False), ("AKE", True), ("Kx", True)],
)
def test_keyspace_events_need_k_and_a_class_of_events(flags, is_on):
    assert (events_warning(flags) is None) == is_on


@pytest.mark.parametrize(
    "settings",
    [{}, {"columns": {"n": "text"}}, {"labels": ["n"]}, {"time": "n"}, {"others": False}],
)
def test_fields_of_bytes_and_of_texts_are_the_same_rows(settings):
    """Fields of bytes have a fast path."""
    random.seed(4)
    names = ["n", "price", "time", "ts", "id_ms", "", "ü", "x" * 300]
    texts = ["1", "-1.5e3", "1_0", "nan", "", " ", "buy", "1700000000000", "inf", "2026-01-01", "✓"]
    for _ in range(2_000):
        chosen = random.sample(names, random.randrange(5))
        fields = {name: random.choice(texts) for name in chosen}
        found = []
        for each in (fields, {k.encode(): v.encode() for k, v in fields.items()}):
            decoder = MessageDecoder(DecodingSettings(**settings))
            rows = decoder.field_rows(each, {"id_ms": 1}, 7)
            found.append((rows, decoder.errors.messages, decoder.errors.values))
        assert found[0] == found[1], fields


def test_an_entry_with_a_field_too_often_is_bad():
    errors = MessageErrors()
    rows = EntryRows(RedisSettings(host="x"), errors)
    entries = [[b"1-0", [b"v", b"1"] * 20], [b"2-0", [b"v", b"1"] * 50_000]]
    (row,) = rows.with_name("s", entries)
    assert (row["v"], row["v" + "_" * 19]) == (1.0, 1.0)
    assert errors.messages == 1
    assert "at most 20 values of one name" in errors.by_address["s"].reason
