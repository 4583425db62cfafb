"""`HistoryRange.select`: the rows of a range, of rows in memory."""

import sqlite3
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from aiostream_ds import HistoryRange

START = datetime(2024, 1, 1, tzinfo=UTC)
END = START + timedelta(seconds=10)
MS = 1_704_067_200_000


@dataclass
class Step:
    time: datetime
    step: int


def times(unit):
    return [{"time": START + n * unit, "n": n} for n in range(-2, 13)]


def wanted(**options):
    return HistoryRange(**({"start": START, "end": END, "limit": 100} | options))


def numbers(rows, column="n"):
    return [row[column] for row in rows]


def test_without_a_cursor_both_ends_of_the_time_range_belong_to_it():
    rows = times(timedelta(seconds=1))
    assert numbers(wanted().select(rows)) == list(range(11))
    assert numbers(wanted(limit=3).select(rows)) == [8, 9, 10]


@pytest.mark.parametrize("ms", [MS + 123, float(MS + 123)])
def test_unix_milliseconds_are_compared_exactly(ms):
    moment = START + timedelta(milliseconds=123)
    rows = [{"time": ms - 1, "n": 0}, {"time": ms, "n": 1}, {"time": ms + 1, "n": 2}]
    assert numbers(wanted(start=moment, end=moment).select(rows)) == [1]


def test_the_column_of_the_time_may_have_another_name():
    rows = [{"at": START, "n": 1}, {"at": END + timedelta(seconds=1), "n": 2}]
    assert numbers(wanted().select(rows, time="at")) == [1]


@pytest.mark.parametrize(
    ("after", "upto", "limit", "found"),
    [
        (-1, None, 100, list(range(10))),
        (3, None, 100, [4, 5, 6, 7, 8, 9]),
        (3, None, 2, [4, 5]),
        (3, 5, 100, [4, 5]),
        (-1, 0, 100, [0]),
        (3, 3, 100, []),
        (9, None, 100, []),
        (99, None, 100, []),
    ],
)
def test_with_a_cursor_the_oldest_rows_after_it_whatever_their_time(after, upto, limit, found):
    rows = [{"n": n} for n in range(10)]
    asked = wanted(after=after, upto=upto, limit=limit)
    assert numbers(asked.select(rows, cursor="n")) == found
    assert numbers(asked.select(deque(rows), cursor="n")) == found


def test_pairs_and_texts_are_ordered_by_their_numbers():
    pairs = [{"a": 5, "b": 9}, {"a": 5, "b": 10}, {"a": 6, "b": 0}]
    texts = [{"id": f"{row['a']}-{row['b']}"} for row in pairs]
    after = wanted(after=(5, 9), upto=(6, 0))
    assert after.select(pairs, cursor=("a", "b")) == pairs[1:]
    assert wanted(after=(-1, -1)).select(pairs, cursor=("a", "b")) == pairs
    assert wanted(after="5-9", upto="5-10").select(texts, cursor="id") == texts[1:2]
    assert wanted(after="").select(texts, cursor="id") == texts


def test_rows_may_be_objects():
    rows = [Step(START, 1), Step(END, 2)]
    assert wanted(after=1).select(rows, cursor="step") == rows[1:]
    assert wanted(end=START).select(rows) == rows[:1]


def test_rows_may_be_records_of_a_database():
    with closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute(f"select {MS} as time, 1 as n union select {MS + 1}, 2").fetchall()
    assert numbers(wanted(limit=1).select(rows)) == [2]
    assert numbers(wanted(after=1).select(rows, cursor="n")) == [2]
    with pytest.raises(TypeError, match="a row must have the column 'ms'"):
        wanted().select(rows, time="ms")


def test_a_missing_column_is_an_error_that_names_it():
    with pytest.raises(TypeError, match="a row must have the column 'time', got {'n': 1}; name"):
        wanted().select([{"n": 1}])
    with pytest.raises(TypeError, match="a row must have the column 'step', got {'n': 1}"):
        wanted(after=0).select([{"n": 1}], cursor="step")
    with pytest.raises(TypeError, match="the column of the cursor for a range after one, got None"):
        wanted(after=0).select([{"n": 1}])


def test_no_rows_are_no_rows():
    assert wanted().select([]) == wanted(after=1).select([], cursor="n") == []
