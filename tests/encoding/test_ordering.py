"""RowOrder: which rows are sent, held and dropped."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from aiostream_ds._channels.policy import RowOrder
from aiostream_ds._encoding import ordering
from aiostream_ds._encoding.ordering import Sorter, check_order, passes_all_rows
from aiostream_ds._frames.frame import Field, FieldType, Frame, FrameError
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Row

T0 = datetime(2024, 5, 1, tzinfo=UTC)
MS = 1_714_521_600_000  # the same in Unix ms


class Reading(Row):
    time: int
    sensor: str = "a"
    value: float = 0.0


class Event(Row):
    name: str
    begun: datetime | None


class Sighting(Row):
    seen: datetime
    time: datetime


class Stage:
    """A sorter and the rows that it has sent."""

    def __init__(self, **options):
        self.counters = Counters()
        self.sorter = Sorter(RowOrder(**options), self.counters)
        self.out = []

    def feed(self, *rows, now=0.0):
        self.sorter.feed(rows, now, self.out)
        return self

    def release(self, now):
        self.out += self.sorter.release(now)
        return self

    @property
    def dropped(self):
        return self.counters.dropped


def at(*times, **columns):
    return [{"time": time, **columns} for time in times]


def times_of(rows):
    return [row["time"] for row in rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"late": "keep"}, "RowOrder.late must be one of pass, drop, hold, got 'keep'"),
        ({"hold": -1}, "RowOrder.hold must be a number of at least 0, got -1"),
        ({"hold": math.nan}, "RowOrder.hold must be a number of at least 0, got nan"),
        ({"keys": 0}, "RowOrder.keys must be an integer of at least 1, got 0"),
        ({"by": "sensor"}, "RowOrder.by must be a tuple of column names, each once, got 'sensor'"),
        ({"by": ["sensor"]}, "RowOrder.by must be a tuple of column names, "),
        ({"key": ("id", "id")}, "RowOrder.key must be .* each once, got "),
        ({"key": ("",)}, "RowOrder.key must be a tuple of column names, "),
        ({"key": (1,)}, "RowOrder.key must be a tuple of column names, "),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RowOrder(**options)


def test_an_order_without_rules_passes_all_rows():
    assert passes_all_rows(RowOrder()) and passes_all_rows(RowOrder(by=("a",)))
    assert not passes_all_rows(RowOrder(late="drop")) and not passes_all_rows(RowOrder(key=("a",)))
    rows = [*at(3, 1), Reading.from_columns(time=[1], sensor=["a"], value=[1.0])]
    assert Stage().feed(*rows).out == rows


def test_drop_drops_a_row_older_than_the_newest_before_it():
    stage = Stage(late="drop").feed(*at(1, 3, 2, 3, 4, 0))
    assert times_of(stage.out) == [1, 3, 3, 4] and stage.dropped == {"late": 2}


def test_each_series_is_ordered_separately():
    rows = [Reading(5, "a"), Reading(1, "b"), Reading(4, "a"), Reading(2, "b")]
    stage = Stage(late="drop", by=("sensor",)).feed(*rows)
    assert [(row.time, row.sensor) for row in stage.out] == [(5, "a"), (1, "b"), (2, "b")]
    assert stage.dropped == {"late": 1}


def test_several_columns_and_missing_keys_may_identify_a_series():
    rows = [*at(5, host="x", disk=1), *at(4, host="x", disk=2), *at(3, host="x"), *at(4, host="x")]
    assert Stage(late="drop", by=("host", "disk")).feed(*rows).out == rows


def test_hold_sends_rows_in_order_once_a_row_newer_by_the_hold_arrives():
    stage = Stage(late="hold", hold=1.0).feed(*at(1000, 1500, 1200, 1100))
    assert stage.out == [] and stage.sorter.held == 4
    stage.feed(*at(2150))
    assert times_of(stage.out) == [1000, 1100] and stage.sorter.held == 3
    stage.feed(*at(9000))
    assert times_of(stage.out) == [1000, 1100, 1200, 1500, 2150] and stage.dropped == {}


def test_hold_drops_a_row_older_than_one_that_was_sent():
    stage = Stage(late="hold", hold=1.0).feed(*at(1000, 2500, 900, 1000, 1400))
    assert times_of(stage.out) == [1000, 1000, 1400] and stage.dropped == {"late": 1}


def test_held_rows_are_sent_when_they_are_due_oldest_first_with_older_rows_of_their_series():
    stage = Stage(late="hold", hold=1.0, by=("sensor",))
    stage.feed(Reading(300, "a"), Reading(250, "b"), now=10.0)
    stage.feed(Reading(100, "a"), Reading(400, "a"), Reading(90, "b"), now=10.5)
    assert stage.sorter.due == 11.0 and stage.release(10.9).out == []
    stage.release(11.0)
    assert [row.time for row in stage.out] == [90, 100, 250, 300] and stage.sorter.due == 11.5
    stage.release(11.5)
    assert [row.time for row in stage.out][4:] == [400] and stage.sorter.due is None


def test_the_held_row_that_arrived_first_is_due_next():
    stage = Stage(late="hold", hold=1.0).feed(*at(1000), now=10.0).feed(*at(1500), now=10.5)
    assert stage.sorter.due == 11.0
    assert times_of(stage.feed(*at(2200), now=10.75).out) == [1000] and stage.sorter.due == 11.5
    assert times_of(stage.feed(*at(9000), now=11.25).out) == [1000, 1500, 2200]
    assert stage.sorter.due == 12.25


def test_a_row_older_than_one_that_is_due_now_is_late():
    stage = Stage(late="hold", hold=1.0).feed(*at(500), now=1.0).feed(*at(400, 600), now=2.0)
    assert times_of(stage.out) == [500] and stage.dropped == {"late": 1}


def test_rows_of_one_time_keep_their_order():
    stage = Stage(late="hold").feed(*[{"time": 5, "n": n} for n in range(50)]).release(math.inf)
    assert [row["n"] for row in stage.out] == list(range(50))


def test_a_row_without_a_time_is_never_late_and_never_held():
    for late in ("drop", "hold"):
        row = {"value": 1}
        stage = Stage(late=late).feed(*at(5), row, {"time": None}, Event("x", None))
        assert stage.out[-3:] == [row, {"time": None}, Event("x", None)] and stage.dropped == {}


@pytest.mark.parametrize(
    "time", ["12:00", True, 1.5, datetime(2024, 5, 1), math.nan, np.datetime64("NaT", "ns")]
)
def test_a_row_with_an_invalid_time_is_passed_to_the_encoder(time):
    row = {"time": time}
    assert Stage(late="hold").feed(row).out == [row]


class Gap(datetime):
    """Like pandas.NaT: a datetime that equals nothing."""

    def __eq__(self, other):
        return False

    def __ne__(self, other):
        return True

    __hash__ = None


def test_a_row_with_nat_is_never_late():
    row = {"time": Gap(1970, 1, 1, tzinfo=UTC)}
    assert Stage(late="drop").feed(*at(MS), row, *at(MS)).out == [*at(MS), row, *at(MS)]


def test_times_are_compared_in_microseconds():
    late = T0 + timedelta(microseconds=1)
    rows = [{"time": late}, {"time": MS}, {"time": T0}, {"time": MS + 1}]
    stage = Stage(late="drop").feed(*rows)
    assert stage.out == [rows[0], rows[3]] and stage.dropped == {"late": 2}


def test_the_time_is_the_column_time_or_the_first_datetime():
    second = timedelta(seconds=1)
    rows = [{"a": T0 - second, "time": T0}, {"a": T0, "time": T0 - second}, {"x": 1, "b": T0}]
    stage = Stage(late="drop").feed(*rows)
    assert stage.out == [rows[0], rows[2]]
    events = [Event("x", T0), Event("y", T0 - second)]
    assert Stage(late="drop").feed(*events).out == events[:1]
    sightings = [Sighting(T0, T0 - second), Sighting(T0 - second, T0)]
    assert Stage(late="drop").feed(*sightings).out == sightings
    frame = Frame(Field("a", [T0, T0 - second]), Field("time", [T0 - second, T0]))
    assert Stage(late="drop").feed(frame).out == [frame]


def test_a_second_row_of_one_key_is_dropped_for_each_value_of_late():
    for late in ("pass", "drop", "hold"):
        stage = Stage(late=late, key=("id",))
        stage.feed(*at(1, id="x"), *at(2, id="y"), *at(3, id="x"), *at(1, id="x")).release(math.inf)
        assert [row["id"] for row in stage.out] == ["x", "y"]
        assert stage.dropped == {"duplicate": 2}


def test_a_row_without_any_column_of_the_key_is_not_a_duplicate():
    rows = [{"value": 1}, {"value": 1}, {"id": None}, {"id": 1, "value": 2}]
    assert Stage(key=("id",)).feed(*rows).out == rows
    assert Stage(key=("id", "other")).feed(*rows, {"id": 1}).out == rows


def test_the_key_of_a_late_row_is_not_remembered():
    stage = Stage(late="drop", key=("id",)).feed(*at(5, id=1), *at(4, id=2), *at(6, id=2))
    assert times_of(stage.out) == [5, 6] and stage.dropped == {"late": 1}


def test_the_number_of_keys_is_limited_and_the_oldest_is_forgotten_first():
    stage = Stage(key=("id",), keys=2).feed(*({"id": n} for n in (1, 2, 1, 3, 1, 3)))
    assert [row["id"] for row in stage.out] == [1, 2, 3, 1]


def test_the_held_rows_of_an_evicted_series_are_sent(monkeypatch):
    monkeypatch.setattr(ordering, "ORDER_SERIES", 2)
    stage = Stage(late="hold", by=("sensor",))
    stage.feed(Reading(2, "a"), Reading(5, "b"), Reading(1, "a"), Reading(9, "c"))
    assert [row.time for row in stage.out] == [5], "b was silent longest"
    stage.release(math.inf)
    assert [row.time for row in stage.out] == [5, 1, 2, 9] and stage.sorter.due is None
    stage.feed(Reading(4, "b")).release(math.inf)
    assert stage.out[-1].time == 4, "the new series has no newest time"


def test_rows_counts_the_rows_of_lists_and_blocks():
    block = Reading.from_columns(time=[9, 9], sensor=["a", "b"], value=[1.0, 2.0])
    stage = Stage(late="drop").feed([*at(1, 2)], (*at(1, 3),), block)
    assert times_of(stage.out[:-1]) == [1, 2, 3] and stage.out[-1] is block
    assert stage.sorter.rows == 6


def test_an_object_that_is_not_a_row_keeps_its_place():
    other = object()
    stage = Stage(late="hold").feed(*at(2, 1), other, *at(3), "junk")
    assert stage.out == [*at(1, 2), other, *at(3), "junk"]


def columns_of(out):
    return [[np.asarray(b.values[0]).astype("i8").tolist(), list(b.values[1])] for b in out]


@pytest.mark.parametrize("late", ["drop", "hold"])
@pytest.mark.parametrize("make", [list, lambda v: np.array(v, "M8[ms]"), np.array])
def test_columns_are_split_into_the_rows_that_may_be_sent(late, make):
    def block(*times):
        return Reading.from_columns(
            time=make(list(times)), sensor=[f"s{t}" for t in times], value=np.arange(len(times))
        )

    whole = block(1, 2, 3)
    stage = Stage(late=late, hold=0.0).feed(whole, block(2, 4, 3, 5), block(1, 2))
    assert stage.out[0] is whole
    rest = [[each[0] for each in columns_of(stage.out[1:])], stage.dropped]
    assert rest == [[[4, 5]], {"late": 4}]
    assert stage.out[1].values[1] == ["s4", "s5"] and list(stage.out[1].values[2]) == [1, 3]


def test_held_columns_are_sent_in_the_order_of_their_rows():
    one = Reading.from_columns(time=[5, 1, 3], sensor=["a", "b", "c"], value=[1.0, 2.0, 3.0])
    two = Reading.from_columns(time=[2, 6], sensor=["d", "e"], value=[4.0, 5.0])
    stage = Stage(late="hold").feed(one, two, Reading(4)).release(math.inf)
    found = stage.out[:3] + stage.out[4:]
    assert columns_of(found) == [
        [[1], ["b"]],
        [[2], ["d"]],
        [[3], ["c"]],
        [[5], ["a"]],
        [[6], ["e"]],
    ]
    assert stage.out[3] == Reading(4)
    stage = Stage(late="hold").feed(one).release(math.inf)
    assert columns_of(stage.out) == [[[1, 3, 5], ["b", "c", "a"]]]


def test_columns_and_frames_have_series_and_keys():
    block = Reading.from_columns(time=[5, 4, 3, 6], sensor=["a", "b", "a", "b"], value=[0, 0, 1, 0])
    stage = Stage(late="drop", by=("sensor",), key=("sensor", "value")).feed(block)
    assert columns_of(stage.out) == [[[5, 4], ["a", "b"]]]
    assert stage.dropped == {"late": 1, "duplicate": 1}
    frame = Frame(Field("id", [1, 2, 1, None, None]))
    assert Stage(key=("id",)).feed(frame).out[0].fields[0].values == [1, 2, None, None]
    frame = Frame(frame.fields[0], Field("id", [1, 1, 1, 1, 1], labels={"k": "v"}))
    assert Stage(key=("id",)).feed(frame).out[0].rows == 4, "the first field of a name counts"
    frame = Frame(Field("x", [None, None, 1, 1]), Field("y", [None, None, None, None]))
    assert Stage(key=("x", "y")).feed(frame).out[0].fields[0].values == [None, None, 1]


def test_a_part_of_a_frame_keeps_name_labels_and_nanos():
    micro = timedelta(microseconds=1)
    times = Field("when", [T0, T0 + 2 * micro, T0 + micro, T0 + 3 * micro])
    notes = Field("text", ["a", "b", "c", None], labels={"k": "v"})
    stage = Stage(late="drop").feed(Frame(times, notes, name="log", ref_id="B"))
    (frame,) = stage.out
    assert (frame.name, frame.ref_id) == ("log", "B") and stage.dropped == {"late": 1}
    when, text = frame.fields
    assert when.nanos == [0, 2000, 3000] and list(when.values) == [MS] * 3
    assert text.values == ["a", "b", None] and text.labels == {"k": "v"} and text.nullable
    assert Stage(key=("when",)).feed(Frame(times)).out[0].rows == 4, "they differ below the ms"


def test_a_frame_without_a_time_and_a_block_without_rows_are_never_late():
    frame, block = Frame(Field("x", [1])), Reading.from_columns(time=[], sensor=[], value=[])
    stage = Stage(late="hold").feed(Reading(5), frame, block)
    assert stage.out == [frame, block]


def test_rows_of_a_block_without_a_time_are_never_late():
    times = Field("time", [MS + 1, None, MS, MS + 2], FieldType.TIME)
    stage = Stage(late="drop").feed(Frame(times))
    assert stage.out[0].fields[0].values == [MS + 1, None, MS + 2]


@pytest.mark.parametrize(
    "row",
    [Reading(1), Reading.from_columns(time=[1], sensor=["a"], value=[1.0]), Frame(Field("x", [1]))],
)
@pytest.mark.parametrize("option", ["by", "key"])
def test_the_error_for_a_missing_column_names_it(row, option):
    with pytest.raises(TypeError, match=rf"Order.{option} must name columns of .*, got 'sensr'"):
        Stage(late="drop", **{option: ("sensr",)}).feed(row)
    with pytest.raises(TypeError, match=r"of Reading \(time, sensor, value\), got 'sensr'"):
        check_order(RowOrder(**{option: ("sensr",)}), Reading)


@pytest.mark.parametrize("option", ["by", "key"])
def test_the_error_for_an_unhashable_value_names_it_and_earlier_rows_are_sent(option):
    stage = Stage(late="drop", **{option: ("tags",)})
    with pytest.raises(TypeError, match=rf"Order.{option} must name .*, got tags with \['x'\]"):
        stage.feed(*at(1, tags="x"), *at(2, tags=["x"]), *at(3, tags="y"))
    assert times_of(stage.out) == [1]


def test_a_naive_time_in_a_block_is_refused():
    with pytest.raises(FrameError, match="expected a datetime with a time zone, got"):
        Stage(late="drop").feed(
            Reading.from_columns(time=[datetime(2024, 5, 1)], sensor=["a"], value=[1.0])
        )


def test_the_number_of_held_rows_is_limited_and_the_first_is_sent_early():
    counters = Counters()
    sorter = Sorter(RowOrder(late="hold", hold=100, rows=3), counters)
    out = []
    for second in (5, 3, 4):
        sorter.feed([{"time": second * 1000, "n": second}], 0.0, out)
    assert out == [] and sorter.held == 3
    sorter.feed([{"time": 6_000, "n": 6}], 0.0, out)
    assert [row["n"] for row in out] == [3, 4, 5], (
        "5 arrived first, and older rows are sent before it"
    )
    assert sorter.held == 1 and counters.dropped == {}
    sorter.feed([{"time": 2_000, "n": 2}], 0.0, out)
    assert counters.dropped == {"late": 1}
    assert sorter.release(float("inf")) == [{"time": 6_000, "n": 6}] and sorter.held == 0
