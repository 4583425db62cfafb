"""Thinning: which rows of a long range stay."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.thinning import Thinner, lines

NAN = math.nan


def frame_of(rows, **options):
    """A frame of rows (time, value, …); columns `a`, `b` …"""
    times, *columns = zip(*rows, strict=True) if rows else [()]
    fields = [
        Field("abcdefgh"[n], list(values), FieldType.FLOAT64, nullable=True)
        for n, values in enumerate(columns)
    ]
    return Frame(Field("time", list(times), FieldType.TIME), *fields, **options)


def rows_of(frame):
    return list(zip(*(field.values for field in frame.fields), strict=True))


def thinned(rows, points, *, span=None, page=1_000_000):
    span = rows[-1][0] - rows[0][0] if span is None else span
    thinner = Thinner(points, span)
    for end in range(len(rows), 0, -page):
        thinner.add(frame_of(rows[max(0, end - page) : end]))
    assert thinner.rows == len(rows)
    return rows_of(thinner.frame())


def is_subsequence(part, whole):
    rest = iter(repr(row) for row in whole)
    return all(repr(row) in rest for row in part)


VALUES = st.one_of(st.integers(-9, 9).map(float), st.just(None), st.just(NAN), st.floats(-1e9, 1e9))


@st.composite
def histories(draw):
    columns = draw(st.integers(1, 4))
    gaps = draw(st.lists(st.sampled_from([0, 1, 1, 1, 7, 500]), min_size=1, max_size=200))
    time, rows = 1_700_000_000_000, []
    for gap in gaps:
        time += gap
        rows.append((time, *(draw(VALUES) for _ in range(columns))))
    return rows


@given(histories(), st.integers(1, 60), st.integers(1, 50), st.sampled_from([None, 10, 10**7]))
def test_at_most_points_rows_stay_unchanged_and_in_order_with_the_last_and_the_first(
    rows, points, page, span
):
    found = thinned(rows, points, span=span, page=page)
    assert is_subsequence(found, rows)
    assert len(found) <= points
    assert repr(found[-1]) == repr(rows[-1])
    if points > 1:
        assert repr(found[0]) == repr(rows[0])
    if len(rows) <= points:
        assert len(found) == len(rows)


@given(histories(), st.integers(30, 60), st.integers(1, 50))
def test_the_lowest_and_highest_value_of_each_column_stay(rows, points, page):
    found = thinned(rows, points, page=page)
    for before, after in zip(
        list(zip(*rows, strict=True))[1:], list(zip(*found, strict=True))[1:], strict=True
    ):
        values = [value for value in before if value is not None and value == value]
        if values:
            assert {min(values), max(values)} <= set(after)


@pytest.mark.slow
def test_each_narrow_peak_stays_at_its_time():
    rows = [(n * 1000, 100.0 if n % 4000 == 77 else math.sin(n / 500)) for n in range(86_400)]
    found = thinned(rows, 1000, page=20_000)
    assert [row for row in found if row[1] == 100.0] == [row for row in rows if row[1] == 100.0]
    assert 700 < len(found) <= 1000


@pytest.mark.slow
def test_the_rows_that_stay_are_spread_over_the_whole_range():
    rows = [(n * 1000, (n * 7919) % 1009 / 7, (n * 104_729) % 997 / 3) for n in range(86_400)]
    found = thinned(rows, 1000, page=20_000)
    times = [row[0] for row in found]
    gaps = [later - time for time, later in pairwise(times)]
    assert max(gaps) <= 1.1 * 86_400_000 / 250


def test_a_pause_of_the_rows_stays():
    rows = [(n * 1000, float(n % 7)) for n in range(20_000) if not 8_000 < n < 12_000]
    found = thinned(rows, 500, page=3_000)
    assert not [row for row in found if 8_000_000 < row[0] < 12_000_000]
    assert {8_000_000, 12_000_000} & {row[0] for row in found}


def test_a_column_without_values_for_longer_than_a_bucket_has_none_there():
    rows = [(n * 1000, None if 5_000 <= n < 8_000 else n % 10 / 1) for n in range(20_000)]
    found = thinned(rows, 500, page=3_000)
    assert [row for row in found if row[1] is None]


@pytest.mark.slow
def test_the_same_rows_stay_when_the_range_moves_by_a_row():
    rows = [(n * 1000, (n * 7919) % 1009 / 7) for n in range(40_000)]
    first = thinned(rows[:30_000], 1000, span=30_000_000, page=20_000)
    second = thinned(rows[100:30_100], 1000, span=30_000_000, page=20_000)
    common = {row for row in first if row[0] >= 200_000}
    assert len(common - set(second)) <= 12


def test_rows_that_occupy_a_part_of_a_range_are_not_thinned_to_its_pixels():
    rows = [(n * 1000, (n * 7919) % 1009 / 7) for n in range(3_600)]
    assert len(thinned(rows, 1000, span=86_400_000)) > 500


def test_rows_out_of_order_and_without_a_time_are_kept_in_their_order():
    rows = [(None if n % 50 == 0 else (n ^ 3) * 1000, float(n % 13)) for n in range(5_000)]
    found = thinned(rows, 300, span=5_000_000)
    assert is_subsequence(found, rows) and len(found) <= 300


@pytest.mark.slow
def test_memory_does_not_grow_with_the_range():
    thinner = Thinner(100, 10**9)
    for page in range(50, 0, -1):
        rows = [(page * 2 * 10**7 + n * 10**4, float((n * 7919) % 1009)) for n in range(2_000)]
        thinner.add(frame_of(rows))
        assert thinner.values <= 3 * 8 * 100 + 1
    assert (thinner.rows, thinner.frame().rows <= 100) == (100_000, True)


def test_columns_of_earlier_pages_follow_those_of_the_newest():
    thinner = Thinner(10, 1000)
    thinner.add(Frame(Field("time", [5, 6], FieldType.TIME), Field("a", [1.0, 2.0]), name="new"))
    thinner.add(Frame(Field("time", [1], FieldType.TIME), Field("b", ["x"]), Field("a", [3])))
    found = thinner.frame()
    assert [(field.name, field.values) for field in found.fields] == [
        ("time", [1, 5, 6]),
        ("a", [3.0, 1.0, 2.0]),
        ("b", ["x", None, None]),
    ]
    assert (found.name, found.fields[2].nullable) == ("new", True)


def test_an_array_of_numpy_is_thinned_as_a_list_is():
    numpy = pytest.importorskip("numpy")
    times = [n * 1000 for n in range(5_000)]
    values = [(n * 7919) % 1009 / 7 for n in range(5_000)]
    frame = Frame(
        Field("time", numpy.array(times, "datetime64[ms]")), Field("a", numpy.array(values))
    )
    found = Thinner(100, 5_000_000).add(frame).frame()
    expected = thinned(list(zip(times, values, strict=True)), 100, span=5_000_000)
    columns = [field.values.tolist() for field in found.fields]
    assert [list(column) for column in zip(*expected, strict=True)] == columns


def test_lines_are_the_columns_of_numbers_of_rows_with_a_time():
    time = Field("time", [1], FieldType.TIME)
    fields = [Field("n", [1]), Field("up", [True]), Field("s", ["a"]), Field("id", [7])]
    assert lines(Frame(time, *fields), {"id"}) == ["n", "up"]
    assert lines(Frame(time, fields[2])) == lines(Frame(*fields)) == lines(Frame()) == []
