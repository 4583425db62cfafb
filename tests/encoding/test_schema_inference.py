"""SchemaPolicy: the limit of columns, conflicts, series; encoders that share columns."""

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import product
from typing import Annotated, Any

import orjson
import pytest

from aiostream_ds import Field, FieldConfig, FieldType, Frame, Row
from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json
from aiostream_ds._frames.times import TIME_RANGE
from aiostream_ds._telemetry import Counters

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MS = int(NOW.timestamp() * 1000)
NULL, TEXT = SchemaPolicy(conflict="null"), SchemaPolicy(conflict="text")


class Reading(Row):
    time: datetime
    host: str
    celsius: Annotated[float, FieldConfig(unit="celsius", display_name="Heat")]
    rpm: int | None = None


def values(encoder: RowEncoder, *rows: Any) -> dict[str, list[Any]]:
    """The values of the one packet of these rows, by column."""
    (packet,) = encoder.encode(list(rows))
    frame = json.decode(b'{"data":%b}' % packet.data, packet.schema)
    return {field.name: list(field.values) for field in frame.fields}


def fields(encoder: RowEncoder) -> list[dict[str, Any]]:
    assert encoder.schema is not None
    found: list[dict[str, Any]] = orjson.loads(encoder.schema.body)["fields"]
    return found


def kinds(encoder: RowEncoder) -> dict[str, str]:
    return {field["name"]: field["typeInfo"]["frame"] for field in fields(encoder)}


# The limit of columns


def test_keys_beyond_the_limit_are_dropped_counted_and_logged_once(caplog):
    counters = Counters()
    encoder = RowEncoder(None, SchemaPolicy(columns=2), counters)
    first = values(encoder, {"a": 1, "b": 2, "c": 3, "d": None, "time": MS})
    second = values(encoder, {"time": MS, "e": 1, "b": 5})
    assert first == {"a": [1], "b": [2], "time": [MS]}
    assert second == {"a": [None], "b": [5], "time": [MS]}
    assert counters.dropped == {"columns": 2}
    (record,) = caplog.records
    assert "more than 2 columns" in record.message and "'c'" in record.message


def test_the_cursor_does_not_count_against_the_limit():
    encoder = RowEncoder(None, SchemaPolicy(columns=1), common=("offset",))
    assert values(encoder, {"a": 1, "b": 2, "offset": 3}) | {"time": 0} == {
        "time": 0,
        "a": [1],
        "offset": [3],
    }


def test_a_batch_that_fails_counts_nothing():
    counters = Counters()
    encoder = RowEncoder(None, SchemaPolicy(columns=1), counters)
    with pytest.raises(
        TypeError, match=r"'a': expected int64, got 'x' .*; give the column values of one type"
    ):
        encoder.encode([{"a": 1, "b": 1}, {"a": "x"}])
    assert counters.dropped == {} and encoder.schema is None


def test_values_dropped_from_a_history_are_not_counted():
    counters = Counters()
    encoder = RowEncoder(None, SchemaPolicy(columns=1, conflict="null"), counters)
    frame = encoder.frame([{"time": MS, "a": 1, "b": 1}, {"time": MS, "a": "x"}])
    assert [field.values for field in frame.fields] == [[MS, MS], [1, None]]
    values(encoder, {"time": MS, "a": 1})
    assert counters.dropped == {}


# Conflicts


@pytest.mark.parametrize(
    "value",
    ["x", True, {"a": 1}, [1], NOW, b"x", b"\xff", 1j, 2**70, "\ud800", datetime(2026, 1, 1)],
)
@pytest.mark.parametrize("together", [True, False])
def test_null_drops_and_counts_a_value_of_another_type(value, together):
    counters = Counters()
    encoder = RowEncoder(None, NULL, counters)
    rows = [{"time": 1, "a": 1}, {"time": 2, "a": value}, {"time": 3, "a": 5}]
    parts = [rows] if together else [[row] for row in rows]
    found = [each for part in parts for each in values(encoder, *part)["a"]]
    assert found == [1, None, 5]
    assert kinds(encoder)["a"] == "int64" and counters.dropped == {"conflict": 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (True, "true"),
        ({"a": [1, "ä"]}, '{"a":[1,"ä"]}'),
        ([None], "[null]"),
        (NOW, "2026-01-02T03:04:05+00:00"),
    ],
)
def test_text_makes_the_column_one_of_strings_permanently(value, expected):
    counters = Counters()
    encoder = RowEncoder(None, TEXT, counters)
    assert values(encoder, {"time": 1, "a": 1})["a"] == [1]
    assert values(encoder, {"time": 2, "a": value})["a"] == [expected]
    assert values(encoder, {"time": 3, "a": 2.5}, {"time": 3})["a"] == ["2.5", None]
    assert kinds(encoder)["a"] == "string" and counters.dropped == {}


@pytest.mark.parametrize("value", [b"\xff", object(), "\ud800"])
def test_text_drops_a_value_that_no_column_can_hold(value):
    counters = Counters()
    encoder = RowEncoder(None, TEXT, counters)
    assert values(encoder, {"time": 1, "a": value}, {"time": 2, "a": "x"})["a"] == [None, "x"]
    assert counters.dropped == {"conflict": 1}


def test_null_widens_a_column_of_ints_to_floats():
    encoder = RowEncoder(None, NULL)
    assert values(encoder, {"time": 1, "a": 1}, {"time": 1, "a": "x"}, {"time": 1, "a": 1.5})[
        "a"
    ] == [1, None, 1.5]
    assert kinds(encoder)["a"] == "float64"


@pytest.mark.parametrize("policy", [NULL, TEXT])
@pytest.mark.parametrize("time", ["x", 1.5, True, 2**60, datetime(2026, 1, 1), b"", date.max])
@pytest.mark.parametrize("first", [[], [{"time": MS, "a": 0}]])
def test_a_row_with_an_invalid_time_is_dropped_counted_and_logged_once(policy, time, first, caplog):
    counters = Counters()
    encoder = RowEncoder(None, policy, counters)
    for row in first:
        encoder.encode([row])
    assert encoder.encode([{"time": time, "a": 1}]) == []
    found = values(encoder, {"time": time, "a": 1, "b": 2}, {"time": NOW, "a": 2})
    assert found == {"time": [MS], "a": [2]}
    assert counters.dropped == {"conflict": 2}
    (record,) = caplog.records
    text = f"'time' is not {TIME_RANGE} (got {time!r}): such rows are left out"
    assert text in record.getMessage()


@pytest.mark.parametrize("policy", [NULL, TEXT])
def test_the_column_time_may_be_of_any_type_if_another_column_has_times(policy):
    encoder = RowEncoder(None, policy)
    assert values(encoder, {"time": "noon", "at": NOW}) == {"time": ["noon"], "at": [MS]}


@pytest.mark.parametrize("policy", [NULL, TEXT])
def test_a_column_of_times_keeps_its_type(policy):
    counters = Counters()
    encoder = RowEncoder(None, policy, counters)
    encoder.encode([{"at": NOW}])
    assert values(encoder, {"at": "noon"}) == {"at": [None]}
    assert counters.dropped == {"conflict": 1}


def test_a_history_has_notices_of_what_the_policy_has_dropped_from_it(caplog):
    counters = Counters()
    encoder = RowEncoder(None, SchemaPolicy(conflict="null", columns=2), counters)
    rows = [{"time": MS, "a": 1, "b": 1}, {"time": MS, "a": "x", "b": "y", "c": 3}]
    for _ in range(2):
        notices = encoder.frame(rows).meta.notices
        assert [notice.text for notice in notices] == [
            "1 values of columns beyond the limit are left out",
            "2 values or rows are left out: they do not have the type of their column",
        ]
    assert encoder.frame(rows[:1]).meta is None and not counters.dropped
    (message,) = [r.getMessage() for r in caplog.records if "do not fit" in r.getMessage()]
    assert "'a'" in message


def test_a_key_that_is_not_a_str_is_dropped_and_logged_unless_conflicts_fail(caplog):
    counters = Counters()
    encoder = RowEncoder(None, NULL, counters)
    assert values(encoder, {"time": 1, 2: 3, "\ud800": 4, 5: None}) == {"time": [1]}
    assert counters.dropped == {"conflict": 2}
    (record,) = caplog.records
    assert "key is not a str that UTF-8 can encode (got 2)" in record.getMessage()
    with pytest.raises(TypeError, match=r"must be a str that UTF-8 can encode, got .*ud800"):
        RowEncoder().encode([{"\ud800": 4}])


# Series


def test_a_row_whose_label_has_no_text_is_dropped_counted_and_logged_once(caplog):
    counters = Counters()
    encoder = RowEncoder(None, SchemaPolicy(conflict="null", labels=("host",)), counters)
    for _ in range(2):
        assert encoder.encode([{"time": 1, "host": b"\xff", "v": 1}]) == []
    assert counters.dropped == {"conflict": 2}
    (record,) = caplog.records
    assert "whose label (one of host) has no text" in record.getMessage()


def test_each_series_has_its_own_columns_with_its_labels():
    encoder = RowEncoder(None, SchemaPolicy(labels=("host", "disk")))
    first = {"time": 1, "host": "a", "disk": "sda", "free": 1, "note": None}
    found = values(encoder, first, {"time": 2, "host": "b", "free": 2.5}, {"time": 3, "free": 3})
    assert found == {
        "time": [1, 2, 3],
        'free {disk="sda", host="a"}': [1, None, None],
        'free {host="b"}': [None, 2.5, None],
        "free": [None, None, 3],
    }
    assert [field.get("labels") for field in fields(encoder)] == [
        None,
        {"host": "a", "disk": "sda"},
        {"host": "b"},
        None,
    ]


def test_the_display_name_has_the_value_of_a_single_label_and_lines_span_nulls():
    encoder = RowEncoder(Reading, SchemaPolicy(labels=("host",)))
    encoder.encode([Reading(NOW, "north", 20.5, 900)])
    _, celsius, rpm = fields(encoder)
    assert celsius["config"] == {
        "displayName": "Heat north",
        "unit": "celsius",
        "custom": {"spanNulls": True},
    }
    assert rpm["config"] == {"displayNameFromDS": "rpm north", "custom": {"spanNulls": True}}


HOSTS = ["a", 'a"', 'a",b="', "{", "}", "a=b", "a, b", "\\", '\\"', "", " ", "ä", 5, True, ["x"]]


def test_series_are_distinct_for_all_values_of_a_label():
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",)))
    rows = [{"time": 1, "host": host, "x": index} for index, host in enumerate(HOSTS)]
    found = values(encoder, *rows)
    assert len(found) == 1 + len(HOSTS)
    for index, column in enumerate(list(found.values())[1:]):
        assert [value for value in column if value is not None] == [index]


def test_a_column_named_like_a_series_gets_another_name():
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",)))
    found = values(
        encoder, {"time": 1, "host": "a", "x": 1}, {"time": 2, 'x {host="a"}': 2, '"x': 3}
    )
    assert found == {
        "time": [1, 2],
        'x {host="a"}': [1, None],
        '"x {host=\\"a\\"}"': [None, 2],
        '"\\"x"': [None, 3],
    }


def test_times_and_the_cursor_are_shared_by_all_series():
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",)), common=("offset",))
    found = values(
        encoder,
        {"at": NOW, "host": "a", "x": 1, "offset": 1},
        {"at": NOW, "host": "a", "x": 1, "offset": 2},
        {"at": NOW, "host": "b", "x": 1, "offset": 3},
    )
    assert found["at"] == [MS, MS] and found["offset"] == [1, 3]


def test_columns_of_series_have_the_types_of_the_row_class():
    encoder = RowEncoder(Reading, SchemaPolicy(labels=("host",)))
    assert encoder.schema is None
    encoder.encode([Reading(NOW, "a", 20), Reading(NOW, "b", 21, 900)])
    assert kinds(encoder) == {
        "time": "time.Time",
        'celsius {host="a"}': "float64",
        'celsius {host="b"}': "float64",
        'rpm {host="b"}': "int64",
    }


@pytest.mark.parametrize(
    ("policy", "row", "message"),
    [
        (SchemaPolicy(labels=("zone",)), Reading, "of Reading must be str fields .*, got 'zone'"),
        (SchemaPolicy(labels=("rpm",)), Reading, r"must be str fields \(host\), got 'rpm'"),
    ],
)
def test_labels_that_are_not_str_fields_of_the_row_class_are_refused(policy, row, message):
    with pytest.raises(TypeError, match=message):
        RowEncoder(row, policy)


@pytest.mark.parametrize("times", [1, 2])
def test_columns_cannot_be_split_into_series(times):
    item = Reading.from_columns(time=[MS], host=["a"], celsius=[1.0], rpm=[1])
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",), conflict="null"))
    with pytest.raises(TypeError, match="single rows, tables or lists of rows, got Columns"):
        encoder.encode([item] * times)


def test_a_frame_is_split_into_series_by_its_column_of_labels():
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",)))
    frame = Frame(
        Field("time", [MS, MS, MS + 1], FieldType.TIME),
        Field("host", ["a", "b", "a"]),
        Field("rpm", [1, 2, 3], FieldType.INT16, config=FieldConfig(unit="rotrpm")),
    )
    (packet,) = encoder.encode([frame])
    assert packet.rows == 2  # one for each time
    decoded = json.decode_rows([packet], packet.schema)
    assert [(f.name, f.labels, f.values) for f in decoded.fields[1:]] == [
        ('rpm {host="a"}', {"host": "a"}, [1, 3]),
        ('rpm {host="b"}', {"host": "b"}, [2, None]),
    ]
    assert decoded.fields[1].config.unit == "rotrpm"


def test_a_frame_with_labels_of_its_own_cannot_be_split_into_series():
    frame = Frame(Field("time", [MS], FieldType.TIME), Field("n", [1], labels={"host": "a"}))
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",)))
    with pytest.raises(TypeError, match="must have fields without labels, got 'n'"):
        encoder.encode([frame])


def test_a_label_that_cannot_be_a_str_fails_or_drops_the_row():
    with pytest.raises(ValueError, match=r"column 'host': expected .*, got b'\\xff'"):
        RowEncoder(None, SchemaPolicy(labels=("host",))).encode([{"host": b"\xff"}])
    counters = Counters()
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",), conflict="null"), counters)
    assert encoder.encode([{"host": b"\xff", "x": 1}]) == []
    assert counters.dropped == {"conflict": 1}


def test_a_history_has_the_columns_of_the_live_series():
    rows = [{"time": 1, "host": "a", "x": 1}, {"time": 2, "host": "b", "x": 2}]
    live, history = (RowEncoder(None, SchemaPolicy(labels=("host",))) for _ in range(2))
    (packet,) = live.encode(rows)
    assert json.schema(history.frame(rows)) == packet.schema.body


@pytest.mark.parametrize("host", ["a", "b"])
@pytest.mark.parametrize("time", [MS, NOW, NOW.replace(microsecond=7)])
@pytest.mark.parametrize("value", [1, 1.5, float("nan"), True, "null", {"a": None}, None])
def test_a_row_of_one_series_has_the_bytes_of_the_general_path(host, time, value):
    encoder = RowEncoder(None, SchemaPolicy(labels=("host",), conflict="null"))
    rows = [{"time": MS, "host": each, "x": value, "y": 1} for each in ("a", "b")]
    encoder.encode(rows)
    (packet,) = encoder.encode([{"time": time, "host": host, "x": value, "y": 2}])
    frame = encoder.frame([{"time": time, "host": host, "x": value, "y": 2}])
    assert packet.data == json.data(frame.fields)


@pytest.mark.parametrize("count", [1, 2, 20])
def test_none_in_a_field_that_is_not_nullable_is_refused(count):
    rows: list[Any] = [Reading(NOW, "a", None)] * count  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'celsius'(, row 0)?: expected a value, .*, got None"):
        RowEncoder().encode(rows)


# Shared columns


def test_a_copy_is_independent_and_its_columns_can_be_adopted():
    encoder = RowEncoder()
    encoder.encode([{"time": 1, "a": 1}])
    before, other = encoder.schema, encoder.copy()
    frame = other.frame([{"time": 0, "b": "x", "a": 0.5}])
    assert encoder.schema is before
    assert encoder.adopt(other) is True
    assert encoder.schema is not None and json.schema(frame) == encoder.schema.body
    assert values(encoder, {"time": 2, "a": 2}) == {"time": [2], "a": [2], "b": [None]}


def test_adopting_known_columns_changes_nothing():
    encoder = RowEncoder()
    encoder.encode([{"time": 1, "a": 1.5, "b": 1}])
    before, other = encoder.schema, RowEncoder()
    other.encode([{"time": 1, "a": 1}])
    assert encoder.adopt(other) is False and encoder.schema is before
    assert encoder.adopt(RowEncoder()) is False and encoder.adopt(encoder.copy()) is False


def test_adopted_columns_follow_the_known_ones_up_to_the_limit():
    encoder, other = RowEncoder(None, SchemaPolicy(columns=3)), RowEncoder()
    encoder.encode([{"time": 1, "a": 1}])
    other.encode([{"z": 1, "y": 1, "x": 1, "time": 1, "a": None}])
    assert encoder.adopt(other) is True
    assert list(kinds(encoder)) == ["time", "a", "z", "y"]


@pytest.mark.parametrize(
    ("policy", "mine", "theirs", "expected"),
    [
        (SchemaPolicy(), None, "x", "string"),
        (SchemaPolicy(), 1, 1.5, "float64"),
        (SchemaPolicy(), 1.5, 1, "float64"),
        (SchemaPolicy(), 1, "x", "int64"),
        (TEXT, 1, "x", "string"),
        (TEXT, NOW, "x", "time.Time"),
        (NULL, "x", 1, "string"),
    ],
)
def test_an_adopted_type_replaces_only_a_narrower_one(policy, mine, theirs, expected):
    encoder, other = RowEncoder(None, policy), RowEncoder(None, policy)
    encoder.encode([{"time": 1, "a": mine}])
    other.encode([{"time": 1, "a": theirs}])
    encoder.adopt(other)
    assert kinds(encoder)["a"] == expected


def test_an_encoder_without_columns_adopts_all():
    for rows in ([{"time": 1, "a": 1}], [Reading(NOW, "a", 1.0)], [Frame(Field("n", [1]))]):
        encoder, other = RowEncoder(), RowEncoder()
        other.encode(rows)
        assert encoder.adopt(other) is True and encoder.schema is other.schema


def test_an_empty_history_has_the_known_columns():
    encoder = RowEncoder()
    assert encoder.frame([]).fields == () and encoder.schema is None
    for rows in ([{"time": 1, "a": 1}], [Frame(Field("n", [1], labels={"a": "b"}), name="f")]):
        (packet,) = encoder.encode(rows)
        frame = encoder.frame([])
        assert frame.rows == 0 and json.schema(frame) == packet.schema.body
        assert encoder.schema is packet.schema


def test_a_history_that_fails_does_not_change_the_encoder():
    encoder = RowEncoder()
    encoder.encode([{"time": 1, "a": 1}])
    before = encoder.schema
    with pytest.raises(TypeError):
        encoder.frame([{"time": 1, "b": 1}, Reading(NOW, "a", 1.0)])
    assert encoder.schema is before and values(encoder, {"time": 1}) == {"time": [1], "a": [None]}


# Names that the browser cannot confuse


def test_fields_that_differ_only_in_labels_are_renamed():
    time = Field("time", [MS], FieldType.TIME)
    frame = Frame(time, *(Field("v", [1.0], labels={"host": host}) for host in "ab"))
    encoder = RowEncoder()
    (packet,) = encoder.encode([frame])
    history = encoder.frame(frame)
    assert [field.name for field in history.fields] == ["time", 'v {host="a"}', 'v {host="b"}']
    assert json.schema(history) == packet.schema.body
    assert [field["config"] for field in fields(encoder)[1:]] == [
        {"displayNameFromDS": "v a"},
        {"displayNameFromDS": "v b"},
    ]
    assert [field.name for field in frame.fields] == ["time", "v", "v"]


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Field("v", [1.0], labels={"host": "a"}), Field("w", [1.0], labels={"host": "a"})),
        Frame(Field("v", [1.0]), Field("v", ["x"], labels={"host": "a"})),
        Frame(Field("labels", ["x"]), Field("v", [1.0])),
        Frame(Field("labels", [1]), Field("time", [MS], FieldType.TIME)),
    ],
)
def test_all_other_frames_keep_their_names(frame):
    assert RowEncoder().frame(frame) is frame


def test_a_field_labels_before_the_time_is_renamed_and_keeps_its_display_name():
    encoder = RowEncoder()
    assert values(encoder, {"labels": "a", "time": MS, "labels_": "b"}) == {
        "labels__": ["a"],
        "time": [MS],
        "labels_": ["b"],
    }
    assert fields(encoder)[0]["config"] == {"displayNameFromDS": "labels"}


def test_rows_of_series_beyond_the_limit_are_dropped_counted_and_logged_once(caplog):
    counters = Counters()
    encoder = RowEncoder(policy=SchemaPolicy(labels=("host",), series=2), counters=counters)
    rows = [{"time": 1_700_000_000_000 + n, "host": f"h{n % 4}", "cpu": n} for n in range(40)]
    packets = encoder.encode(rows[:20]) + encoder.encode(rows[20:])
    assert sum(packet.rows for packet in packets) == 20
    assert counters.dropped == {"series": 20}
    assert encoder.copy().frame(rows).rows == 20, "a history has the same series"
    assert len([m for m in caplog.messages if "more than 2 series" in m]) == 1


FITTING = [NOW, "x", 1, 1.5, True, [1], timedelta(1)]
UNFIT = [
    datetime(9999, 12, 31, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    datetime(2026, 1, 1),
    date(1, 1, 1),
    2**70,
    10**400,
    b"\xff",
    "\ud800",
    object(),
]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["null", "text"])
@pytest.mark.parametrize("column", ["v", "time"])
def test_every_value_that_a_policy_makes_null_is_counted(policy, column):
    values = [*FITTING, *UNFIT]
    for first, second in product(values, values):
        for batches in ([first], [second]), ([first, second],):
            counters = Counters()
            encoder = RowEncoder(policy=SchemaPolicy(conflict=policy), counters=counters)
            nulls = rows = 0
            for batch in batches:
                for packet in encoder.encode([{column: value, "k": 1} for value in batch]):
                    table = json.decode_rows([packet], packet.schema)
                    nulls += sum(list(field.values).count(None) for field in table.fields)
                    rows += table.rows
            assert counters.dropped.get("conflict", 0) == nulls + 2 - rows, (first, second)


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize(
    "value, kind", [(2**53 + 1, "int64"), (0.5, "float64"), ("a", "string"), (True, "bool")]
)
def test_a_column_that_had_only_none_gets_the_type_of_its_first_value(rows, value, kind):
    encoder = RowEncoder()
    for _ in range(2):
        assert values(encoder, *[{"time": MS, "a": None}] * rows)["a"] == [None] * rows
    assert values(encoder, *[{"time": MS, "a": value}] * rows)["a"] == [value] * rows
    assert kinds(encoder)["a"] == kind


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_a_column_that_has_had_a_float_stays_one_of_floats(rows):
    encoder = RowEncoder()
    for value in (None, 0.5, 1):
        values(encoder, *[{"time": MS, "a": value}] * rows)
    assert kinds(encoder)["a"] == "float64"
