"""Properties of a `RowOrder` for generated rows: which rows are sent, in which order, and when."""

import math

from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._channels.policy import RowOrder
from aiostream_ds._encoding.ordering import Sorter
from aiostream_ds._telemetry import Counters
from aiostream_ds.rows import Row

ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 6_000)),  # time, ms
        st.sampled_from("ab"),  # series
        st.integers(0, 40),  # id
        st.floats(0, 1.5),  # seconds to the next row
        st.sampled_from(["dict", "row", "block", "list"]),
    ),
    max_size=25,
)


class Item(Row):
    number: int
    series: str
    id: int
    time: int | None


def make(kind, *values):
    item = Item(*values)
    columns = dict(zip(Item.__struct_fields__, values, strict=True))
    if kind == "dict":
        return columns
    if kind == "block":
        return Item.from_columns(**{name: [value] for name, value in columns.items()})
    return [item] if kind == "list" else item


def numbers(out):
    """The unique numbers of these rows."""
    found = []
    for each in out:
        if isinstance(each, dict):
            found.append(each["number"])
        else:
            found += each.values[0] if hasattr(each, "values") else [each.number]
    return found


RULES = st.builds(
    RowOrder,
    late=st.sampled_from(["pass", "drop", "hold"]),
    by=st.sampled_from([(), ("series",)]),
    key=st.sampled_from([(), ("id",), ("id", "series")]),
    hold=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)


class Run:
    """A sorter that is called when a row is due, and the rows that it has sent, with the time."""

    def __init__(self, order):
        self.counters = Counters()
        self.sorter = Sorter(order, self.counters)
        self.sent = []

    def feed(self, yields, now):
        out = []
        self.sorter.feed(yields, now, out)
        self.sent += [(number, now) for number in numbers(out)]

    def wait(self, until):
        while (due := self.sorter.due) is not None and due <= until:
            self.sent += [(number, due) for number in numbers(self.sorter.release(due))]

    def check_that_no_row_is_lost(self, count):
        dropped = sum(self.counters.dropped.values())
        assert len(self.sent) + dropped + self.sorter.held == count


@given(rows=ROWS, order=RULES)
def test_rows_are_neither_lost_nor_duplicated_nor_held_longer_than_hold(rows, order):
    run, now, arrivals = Run(order), 0.0, []
    for number, (time, series, id_, wait, kind) in enumerate(rows):
        arrivals.append(now)
        run.feed([make(kind, number, series, id_, time)], now)
        now += wait
        run.wait(now)
        run.check_that_no_row_is_lost(number + 1)
    run.wait(math.inf)
    assert run.sorter.held == 0
    run.check_that_no_row_is_lost(len(rows))
    assert len({number for number, _ in run.sent}) == len(run.sent)
    for number, at in run.sent:
        assert arrivals[number] <= at <= arrivals[number] + order.hold


@given(rows=ROWS, order=RULES)
def test_sent_rows_have_unique_keys_and_are_sorted_within_their_series(rows, order):
    run, now = Run(order), 0.0
    for number, (time, series, id_, wait, kind) in enumerate(rows):
        run.feed([make(kind, number, series, id_, time)], now)
        now += wait
        run.wait(now)
    run.wait(math.inf)
    sent = [number for number, _ in run.sent]
    columns = [{"time": time, "series": series, "id": id_} for time, series, id_, *_ in rows]
    if order.key:
        keys = [tuple(columns[number][name] for name in order.key) for number in sent]
        assert len(set(keys)) == len(keys)
    if order.late != "hold":
        assert sent == sorted(sent), "they keep their order"
    if order.late != "pass":
        for series in "ab" if order.by else ["ab"]:
            own = [columns[number] for number in sent]
            times = [each["time"] for each in own if each["series"] in series]
            times = [time for time in times if time is not None]
            assert times == sorted(times)
    else:
        assert "late" not in run.counters.dropped


@given(rows=ROWS, order=RULES)
def test_rows_in_one_call_are_sent_as_if_they_were_in_several_calls(rows, order):
    yields = [
        make(kind, n, series, id_, time) for n, (time, series, id_, _, kind) in enumerate(rows)
    ]
    singly, together = Run(order), Run(order)
    for each in yields:
        singly.feed([each], 0.0)
    together.feed(yields, 0.0)
    for run in (singly, together):
        run.wait(math.inf)
    assert singly.sent == together.sent
    assert singly.counters.dropped == together.counters.dropped
