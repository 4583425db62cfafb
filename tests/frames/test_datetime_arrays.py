"""Datetimes as an array have the milliseconds of the exact path, or are left to it."""

import sys
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._frames.datetime_arrays import datetimes_array
from aiostream_ds._frames.times import read_datetimes

START = datetime(2026, 3, 1, tzinfo=UTC)
BERLIN = timezone(timedelta(hours=1))


class NoOffset(tzinfo):
    """A zone with which a datetime is naive."""

    def utcoffset(self, _value):
        return None


fractions = st.integers(0, 999).map(lambda ms: timedelta(milliseconds=ms))
seconds = st.integers(0, 2**32 - 1).map(lambda s: timedelta(seconds=s))
zones = st.sampled_from(
    [
        UTC,
        BERLIN,
        timezone(timedelta(hours=5, minutes=30)),
        ZoneInfo("Europe/Dublin"),
        ZoneInfo("Africa/Monrovia"),
    ]
)
uncommon_zones = st.sampled_from(
    [
        None,
        NoOffset(),
        timezone(timedelta(microseconds=7)),
        timezone(-timedelta(seconds=1, hours=9)),
    ]
)
moments = st.builds(
    lambda second, fraction, zone: (
        datetime(1970, 1, 1, tzinfo=UTC) + second + fraction
    ).astimezone(zone),
    seconds,
    fractions,
    zones,
)
others = st.datetimes(timezones=zones | uncommon_zones)


def whole(value):
    return value.replace(microsecond=0)


@given(st.lists(moments, min_size=1, max_size=90), st.integers(0, 89))
def test_times_in_milliseconds_are_an_array(values, index):
    values = [each if each.microsecond else each + timedelta(milliseconds=1) for each in values]
    if len(values) > 1:
        values[index % len(values)] = whole(values[index % len(values)])
    times, nanos = read_datetimes(values)
    assert nanos is None
    assert datetimes_array(values).tolist() == times


@given(st.lists(moments.map(whole), min_size=1, max_size=90))
def test_times_in_whole_seconds_are_an_array(values):
    assert datetimes_array(values).tolist() == read_datetimes(values)[0]


@given(st.lists(moments | moments.map(whole) | others, min_size=1, max_size=90))
def test_other_times_are_left_to_the_exact_path(values):
    found = datetimes_array(values)
    if found is not None:
        assert (found.tolist(), None) == read_datetimes(values)


def test_many_whole_seconds_among_others_are_left_to_the_exact_path():
    values = [START + timedelta(milliseconds=500 * n) for n in range(64)]
    assert datetimes_array(values) is None


def test_a_second_whose_bytes_look_like_a_timestamp_is_read():
    value = datetime.fromtimestamp(0xD6FFD6FF, UTC)
    values = [value + timedelta(milliseconds=1)] * 20
    values[3] = value
    assert datetimes_array(values).tolist() == read_datetimes(values)[0]


@pytest.mark.parametrize(
    "value",
    [
        START.replace(tzinfo=None),
        START.replace(tzinfo=NoOffset()),
        datetime.min.replace(tzinfo=BERLIN),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
        START + timedelta(microseconds=1),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(2263, 1, 1, tzinfo=UTC),
        datetime(2600, 1, 1, tzinfo=UTC),
    ],
    ids=[
        "naive",
        "no offset",
        "before the year 1",
        "after the year 9999",
        "microseconds",
        "before 1970",
        "beyond the limit",
        "beyond 34 bits",
    ],
)
def test_an_uncommon_time_among_others_is_left_to_the_exact_path(value):
    assert datetimes_array([START, value, START]) is None


def test_without_numpy_there_is_no_array(monkeypatch):
    assert isinstance(datetimes_array([START]), np.ndarray)
    monkeypatch.delitem(sys.modules, "numpy")
    assert datetimes_array([START]) is None


def test_no_times_are_no_array():
    assert datetimes_array([]) is None
