"""Many series in one channel: rows of one time are one row, and silent series are forgotten."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds import Field, Frame, Row, SchemaPolicy
from aiostream_ds._encoding import series
from aiostream_ds._encoding.field_names import disambiguate_fields
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json
from aiostream_ds._telemetry import Counters
from tests.counting import steps_of

MS = 1_700_000_000_000


class Sample(Row):
    time: int
    host: str
    cpu: float
    note: str | None = None


def encoder(counters=None, **options):
    return RowEncoder(None, SchemaPolicy(labels=("host",), **options), counters)


def table(encoder, *rows):
    """The columns of the single packet of these rows."""
    (packet,) = encoder.encode(list(rows))
    frame = json.decode(b'{"schema":%b,"data":%b}' % (packet.schema.body, packet.data))
    assert frame.rows == packet.rows
    return {field.name: list(field.values) for field in frame.fields}


def tick(hosts, at, values=1):
    names = [f"v{n}" for n in range(values)]
    return [
        {"time": at, "host": f"h{n}"} | dict.fromkeys(names, float(n) + 0.5) for n in range(hosts)
    ]


@pytest.fixture
def clock(monkeypatch):
    """Moves the time by which series are silent."""
    now = [1000.0]
    monkeypatch.setattr(series.time, "monotonic", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


# -- rows of one time ------------------------------------------------------------------------------


def test_rows_of_one_time_are_one_row():
    assert table(encoder(), *tick(2, 1), *tick(2, 2)) == {
        "time": [1, 2],
        'v0 {host="h0"}': [0.5, 0.5],
        'v0 {host="h1"}': [1.5, 1.5],
    }


def test_rows_of_one_time_that_are_not_next_to_each_other_are_one_row():
    rows = [row for n in range(2) for row in (tick(2, 1)[n], tick(2, 2)[n])]
    assert table(encoder(), *rows)["time"] == [1, 2]


def test_rows_of_a_row_class_and_of_one_time_are_one_row():
    made = RowEncoder(Sample, SchemaPolicy(labels=("host",)))
    found = table(made, *(Sample(time=1, host=host, cpu=1.0) for host in "ab"))
    assert found == {"time": [1], 'cpu {host="a"}': [1.0], 'cpu {host="b"}': [1.0]}


def test_rows_without_a_time_that_are_sent_together_are_one_row():
    found = table(encoder(), {"host": "a", "cpu": 1}, {"host": "b", "cpu": 2})
    assert len(found.pop("time")) == 1
    assert found == {'cpu {host="a"}': [1], 'cpu {host="b"}': [2]}


def test_a_second_row_of_a_series_with_the_same_time_stays_a_row():
    rows = [{"time": 1, "host": host, "cpu": n} for n, host in enumerate("aba")]
    found = table(encoder(), *rows)
    assert found == {"time": [1, 1], 'cpu {host="a"}': [0, 2], 'cpu {host="b"}': [1, None]}


def test_two_values_of_a_series_with_the_same_time_are_one_row():
    rows = [{"time": 1, "host": "a", "cpu": 1}, {"time": 1, "host": "a", "memory": 2}]
    assert table(encoder(), *rows)["time"] == [1]


def test_rows_that_differ_in_a_second_time_are_not_one_row():
    day = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {"time": MS, "host": "a", "cpu": 1, "seen": day},
        {"time": MS, "host": "b", "cpu": 2, "seen": day.replace(year=2027)},
    ]
    assert table(encoder(), *rows)["time"] == [MS, MS]


def test_a_time_that_cannot_be_compared_is_refused_as_ever():
    with pytest.raises(TypeError, match="column 'time'"):
        encoder().encode([{"time": [1], "host": "a", "cpu": 1}])


def test_a_history_has_one_row_for_each_time():
    frame = encoder(columns=1000).frame([row for at in range(20) for row in tick(200, at)])
    assert (frame.rows, len(frame.fields)) == (20, 201)


def test_a_packet_grows_with_its_values_and_not_with_their_square():
    sizes = []
    for hosts in (100, 200, 400):
        (packet,) = encoder(columns=1000).encode(tick(hosts, 1, values=2))
        sizes.append(len(packet.data))
    assert sizes[2] < 4.5 * sizes[0]
    assert sizes[2] < 20 * 400


# -- silent series ---------------------------------------------------------------------------------


def test_a_new_series_replaces_a_silent_one(clock):
    counters = Counters()
    made = encoder(counters, series=2, forget=60)
    table(made, *tick(2, 1))
    clock(30)
    table(made, {"time": 2, "host": "h1", "v0": 1.0})
    clock(31)
    found = table(made, {"time": 3, "host": "new", "v0": 1.0})
    assert list(found) == ["time", 'v0 {host="h1"}', 'v0 {host="new"}']
    assert not any(counters.dropped.values())


def test_series_that_are_not_silent_are_not_forgotten(clock):
    counters = Counters()
    made = encoder(counters, series=2, forget=60)
    table(made, *tick(2, 1))
    clock(59)
    assert made.encode([{"time": 3, "host": "new", "v0": 1.0}]) == []
    assert counters.dropped["series"] == 1


def test_silent_series_stay_below_the_limit(clock):
    made = encoder(series=3, forget=60)
    table(made, *tick(2, 1))
    clock(1000)
    assert len(table(made, {"time": 3, "host": "new", "v0": 1.0})) == 4


def test_a_forgotten_series_comes_back(clock):
    made = encoder(series=2, forget=60)
    table(made, *tick(2, 1))
    clock(61)
    table(made, {"time": 2, "host": "new", "v0": 1.0})
    assert list(table(made, {"time": 3, "host": "h0", "v0": 1.0}))[1:] == [
        'v0 {host="new"}',
        'v0 {host="h0"}',
    ]


@pytest.mark.slow
def test_pods_that_come_and_go_are_never_dropped(clock):
    counters = Counters()
    made = encoder(counters, series=10, columns=20, forget=60)
    for pod in range(300):
        clock(10)
        found = table(made, {"time": pod, "host": f"pod{pod}", "cpu": 1.0, "memory": 2.0})
        assert len(found) <= 21
    assert not any(counters.dropped.values())


def test_silent_series_are_replaced_when_the_columns_are_too_many(clock):
    counters = Counters()
    made = encoder(counters, columns=4, forget=60)
    table(made, *tick(2, 1, values=2))
    clock(61)
    assert len(table(made, *tick(1, 2, values=2), {"time": 2, "host": "x", "v0": 1.0})) == 4
    assert not any(counters.dropped.values())


def test_a_batch_that_fails_forgets_no_columns_of_living_series(clock):
    made = encoder(series=2, forget=60)
    table(made, *tick(2, 1))
    clock(61)
    with pytest.raises(TypeError):
        made.encode([{"time": 2, "host": "new", "v0": object()}])
    names = list(table(made, {"time": 3, "host": "h1", "v0": 2.0}))
    assert 'v0 {host="h1"}' in names


def test_live_series_replace_those_of_a_history(clock):
    counters = Counters()
    made = encoder(counters, series=3, forget=60)
    table(made, {"time": 9, "host": "live", "v0": 1.0})
    made.frame(tick(5, 1))
    found = table(made, {"time": 10, "host": "new", "v0": 1.0})
    assert 'v0 {host="live"}' in found and 'v0 {host="new"}' in found
    assert not any(counters.dropped.values())


def test_live_series_replace_those_of_a_history_that_a_thread_has_encoded(clock):
    made = encoder(series=3, forget=60)
    table(made, {"time": 9, "host": "live", "v0": 1.0})
    thread = made.copy()
    thread.frame(tick(5, 1))
    made.adopt(thread)
    found = table(made, {"time": 10, "host": "new", "v0": 1.0})
    assert list(found) == ["time", 'v0 {host="live"}', 'v0 {host="new"}']


# -- many fields of one name -----------------------------------------------------------------------


@pytest.mark.slow
def test_fields_of_one_name_are_renamed_in_linear_time():
    def steps(count):
        labels = [{"host": str(n)} for n in range(count)]
        frame = Frame(*(Field("v", [1.0], labels=each) for each in labels))
        return steps_of(lambda: disambiguate_fields(frame))

    assert steps(2000) < 12 * steps(200)


# -- labels that are mappings ----------------------------------------------------------------------


def tagged(**options):
    return RowEncoder(None, SchemaPolicy(labels=("name", "tags"), **options))


def fields_of(encoder, *rows):
    (packet,) = encoder.encode(list(rows))
    frame = json.decode(b'{"schema":%b,"data":%b}' % (packet.schema.body, packet.data))
    return {field.name: (dict(field.labels), list(field.values)) for field in frame.fields[1:]}


def test_a_label_with_a_mapping_stands_for_its_keys():
    found = fields_of(
        tagged(),
        {"time": MS, "name": "cpu", "tags": {"host": "a", "core": 0}, "usage": 0.5},
        {"time": MS, "name": "cpu", "tags": {"core": 0, "host": "a"}, "idle": 0.25},
        {"time": MS, "name": "cpu", "tags": {"host": "b"}, "usage": 0.75},
        {"time": MS, "name": "mem", "tags": {}, "usage": 1.0},
        {"time": MS, "name": None, "tags": None, "usage": 2.0},
    )
    assert found == {
        'usage {core="0", host="a", name="cpu"}': (
            {"core": "0", "host": "a", "name": "cpu"},
            [0.5],
        ),
        'idle {core="0", host="a", name="cpu"}': (
            {"core": "0", "host": "a", "name": "cpu"},
            [0.25],
        ),
        'usage {host="b", name="cpu"}': ({"host": "b", "name": "cpu"}, [0.75]),
        'usage {name="mem"}': ({"name": "mem"}, [1.0]),
        "usage": ({}, [2.0]),
    }


def test_a_silent_series_of_a_mapping_is_forgotten_with_its_columns(clock):
    made = tagged(series=2, forget=10.0)
    for host in ("a", "b"):
        fields_of(made, {"time": MS, "tags": {"host": host}, "v": 1.0})
    clock(20)
    fields_of(made, {"time": MS, "tags": {"host": "b"}, "v": 1.0})
    found = fields_of(made, {"time": MS, "tags": {"host": "c"}, "v": 1.0})
    assert list(found) == ['v {host="b"}', 'v {host="c"}']


class PlainEncoder(RowEncoder):
    """Without the short way for a single row."""

    def _one_row(self, rows):
        return None


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), st.text(max_size=3)
)


@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {"time": st.one_of(st.none(), st.integers(1_700_000_000_000, 1_700_000_000_009))},
            optional={
                "t": st.one_of(st.none(), st.sampled_from(["a", "b", "c"]), st.just({"x": "1"})),
                "u": VALUES,
                "v": VALUES,
            },
        ),
        max_size=12,
    ),
    conflict=st.sampled_from(["null", "text", "fail"]),
    series=st.sampled_from([2, 100]),
    columns=st.sampled_from([3, 100]),
    forget=st.sampled_from([0.0, 3600.0]),
)
def test_a_single_row_is_encoded_as_the_plain_way_does(rows, conflict, series, columns, forget):
    policy = SchemaPolicy(
        labels=("t",), conflict=conflict, series=series, columns=columns, forget=forget
    )
    found: list[list[Any]] = []
    for kind in (RowEncoder, PlainEncoder):
        encoder, packets = kind(policy=policy), []
        for row in rows:
            try:
                packets += encoder.encode([dict(row)])
            except (TypeError, ValueError) as error:
                packets.append(str(error))
        found.append(
            [
                each if isinstance(each, str) else (each.schema.body, *_values(each))
                for each in packets
            ]
        )
    assert found[0] == found[1]


def _values(packet) -> list[Any]:
    """The values by column, without current times."""
    columns = msgspec.json.decode(packet.data)["values"]
    return [
        [None if isinstance(v, int) and v > 1_750_000_000_000 else v for v in column]
        for column in columns
    ]


def test_a_single_row_of_a_known_series_is_encoded_the_short_way():
    def steps(kind) -> int:
        encoder = kind(policy=SchemaPolicy(labels=("host",)))
        for n in range(3):  # the first ones find the columns, and make what writes them
            encoder.encode([{"time": MS - n, "host": "a", "cpu": 1.5}])
        return steps_of(lambda: encoder.encode([{"time": MS + 1, "host": "a", "cpu": 2.5}]))

    assert steps(RowEncoder) * 3 < steps(PlainEncoder) * 2
