"""Rows of every kind as lines of JSON, with their times."""

import json
from collections import namedtuple
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import NamedTuple
from uuid import UUID

import msgspec
import numpy
import pandas
import pydantic
import pytest

from aiostream_ds.push.row_json import RowJson

AT = datetime(2026, 11, 29, 12, 0, 0, 250_000, UTC)


def rows(row, **options):
    return [json.loads(line) for line in RowJson(**options).encode(row)]


def values(row):
    (found,) = rows(row, add_time=False)
    return found


@dataclass
class Reading:
    loss: float
    step: int = 3


class Loss(msgspec.Struct):
    loss: float


class Model(pydantic.BaseModel):
    loss: float


class Pair(NamedTuple):
    loss: float


class Colour(Enum):
    RED = "red"


Plain = namedtuple("Plain", "loss")


class Tensor:
    """What a tensor of PyTorch with one element has."""

    shape = ()

    def item(self):
        return 0.5


@pytest.mark.parametrize(
    "row, expected",
    [
        ({"loss": 0.5}, {"loss": 0.5}),
        (Reading(0.5), {"loss": 0.5, "step": 3}),
        (Loss(0.5), {"loss": 0.5}),
        (Model(loss=0.5), {"loss": 0.5}),
        (Pair(0.5), {"loss": 0.5}),
        (Plain(0.5), {"loss": 0.5}),
        ({"loss": numpy.float32(0.5)}, {"loss": 0.5}),
        ({"loss": numpy.int64(3), "ok": numpy.bool_(True)}, {"loss": 3, "ok": True}),
        ({"loss": numpy.array(0.5)}, {"loss": 0.5}),
        ({"loss": numpy.array([0.5, 1.5])}, {"loss": [0.5, 1.5]}),
        ({"loss": Tensor()}, {"loss": 0.5}),
        ({"loss": Decimal("0.5")}, {"loss": 0.5}),
        ({"loss": float("nan"), "x": float("inf")}, {"loss": None, "x": None}),
        ({"colour": Colour.RED}, {"colour": "red"}),
        ({"id": UUID(int=1)}, {"id": "00000000-0000-0000-0000-000000000001"}),
        ({"head": {"loss": 0.5}}, {"head": {"loss": 0.5}}),
        ({"at": AT}, {"at": "2026-11-29T12:00:00.250000Z"}),
        ({"at": pandas.Timestamp(AT)}, {"at": "2026-11-29T12:00:00.250000+00:00"}),
        ({"at": pandas.NaT, "x": 1}, {"at": None, "x": 1}),
        ({"at": numpy.datetime64("2026-11-29T12:00:00")}, {"at": "2026-11-29T12:00:00Z"}),
    ],
)
def test_a_row_of_any_kind_becomes_json(row, expected):
    assert values(row) == expected


def test_a_list_is_a_line_for_each_row():
    assert len(RowJson().encode([{"n": 1}, Reading(0.5)])) == 2
    records = numpy.array([(1, 0.5), (2, 0.25)], dtype=[("n", "i4"), ("loss", "f8")])
    assert rows(records, add_time=False) == [{"n": 1, "loss": 0.5}, {"n": 2, "loss": 0.25}]


def test_the_row_of_the_program_stays_unchanged():
    row = {"loss": 0.5}
    RowJson().encode(row)
    assert row == {"loss": 0.5}


@pytest.mark.parametrize(
    "time, unit",
    [
        (AT, "s"),
        (AT.astimezone(timezone(timedelta(hours=5))), "s"),
        (pandas.Timestamp(AT), "s"),
        (numpy.datetime64("2026-11-29T12:00:00.250"), "s"),
        (AT.timestamp(), "s"),
        (numpy.float64(AT.timestamp()), "s"),
        (int(AT.timestamp() * 1000), "ms"),
        (numpy.int64(AT.timestamp() * 1000), "ms"),
        (int(AT.timestamp() * 1_000_000), "us"),
        (int(AT.timestamp() * 1000) * 1_000_000, "ns"),
    ],
)
def test_a_time_is_a_datetime_or_a_number_of_the_stated_unit(time, unit):
    (row,) = rows({"time": time, "n": 1}, unit=unit)
    assert datetime.fromisoformat(row["time"]) == AT


def test_a_text_is_left_to_the_server():
    assert rows({"time": "2026-11-29", "n": 1})[0]["time"] == "2026-11-29"


def test_a_row_without_a_time_gets_that_of_the_call():
    before = datetime.now(UTC)
    row, other = rows([{"n": 1}, {"n": 2, "time": None}])
    assert before <= datetime.fromisoformat(row["time"]) <= datetime.now(UTC)
    assert other["time"] >= row["time"]
    assert rows({"n": 1}, add_time=False) == [{"n": 1}]


@pytest.mark.parametrize("key", ["timestamp", "ts", "@timestamp", "Time", "date"])
def test_the_only_key_that_is_named_like_a_time_has_it(key):
    assert rows({key: AT, "n": 1}) == [{key: "2026-11-29T12:00:00.250000+00:00", "n": 1}]
    (row,) = rows({key: 0, "n": 1, "Datetime": "x"})  # two of them: neither
    assert row.keys() == {key, "n", "Datetime", "time"} and row[key] == 0


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
def test_the_unit_can_be_found_by_the_size(factor):
    (row,) = rows({"ts": int(AT.timestamp()) * factor, "n": 1}, unit="auto")
    assert datetime.fromisoformat(row["ts"]) == AT.replace(microsecond=0)


def test_the_key_of_the_time_can_be_another():
    (row,) = rows({"at": AT, "time": "noon"}, time="at")
    assert row == {"at": "2026-11-29T12:00:00.250000+00:00", "time": "noon"}


@pytest.mark.parametrize(
    "row, text",
    [
        (3, "a row must be a dict"),
        ("text", "a row must be a dict"),
        (None, "a row must be a dict"),
        ({}, "a row must have a value"),
        ({"time": 5}, "a row must have a value"),
        ({"time": datetime(2026, 1, 1), "n": 1}, "time must have a time zone"),
        ({"time": True, "n": 1}, "time must be a datetime with a time zone, a number"),
        ({"time": AT.timestamp() * 1000, "n": 1}, "in the years 1 to 9999 in s, got"),
        ({"time": float("nan"), "n": 1}, "time must be"),
        ({"time": 10**400, "n": 1}, "time must be"),
        ({"good": 1, "bad": object()}, "'bad': JSON has no object"),
        ({"bad": 1 << 70_000}, "'bad'"),
        ({("a", 1): 1}, "('a', 1)"),
        ({"text": "\ud800"}, "'text'"),
    ],
)
def test_what_is_not_a_row_is_an_error_that_names_it(row, text):
    with pytest.raises((TypeError, ValueError, OverflowError)) as error:
        RowJson().encode(row)
    assert text in str(error.value)


@pytest.mark.parametrize("options", [{"unit": "m"}, {"time": ""}, {"time": 3}])
def test_a_bad_option_is_an_error(options):
    with pytest.raises(ValueError, match="must be"):
        RowJson(**options)
