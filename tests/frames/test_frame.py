"""Fields and frames: the types of values, and the errors of `check`."""

import enum
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from aiostream_ds._frames.config import (
    DataLink,
    EnumConfig,
    FieldConfig,
    FrameMeta,
    InternalLink,
    LinkRange,
    Notice,
    Stat,
    Threshold,
    Thresholds,
    TypeConfig,
)
from aiostream_ds._frames.frame import Field, FieldType, Frame, FrameError

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
NOON_MS = 1_709_208_000_000
ON_OFF = FieldConfig(type=TypeConfig(enum=EnumConfig(text=("off", "on"))))


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Celsius(float):
    pass


@pytest.mark.parametrize(
    ("values", "expected", "nullable"),
    [
        ([True, None], FieldType.BOOL, True),
        ([1, 2], FieldType.INT64, False),
        ([1.5, 2], FieldType.FLOAT64, False),
        (["a", None], FieldType.STRING, True),
        ([NOON], FieldType.TIME, False),
        ([{"a": 1}, [2], (3,)], FieldType.JSON, False),
        ([], FieldType.FLOAT64, True),
        ([None, None], FieldType.FLOAT64, True),
        (range(3), FieldType.INT64, False),
        pytest.param((v for v in "ab"), FieldType.STRING, False, id="generator"),
        ([Color.RED], FieldType.STRING, False),
        ([Level.HIGH], FieldType.INT64, False),
        ([Celsius(1)], FieldType.FLOAT64, False),
        ([np.float64(1), None], FieldType.FLOAT64, True),
        ([np.int8(1)], FieldType.INT64, False),
        ([np.True_], FieldType.BOOL, False),
        (np.array([1], "i1"), FieldType.INT8, False),
        (np.array([1], "i2"), FieldType.INT16, False),
        (np.array([1], "i4"), FieldType.INT32, False),
        (np.array([1], "i8"), FieldType.INT64, False),
        (np.array([1], "u1"), FieldType.UINT8, False),
        (np.array([1], "u2"), FieldType.UINT16, False),
        (np.array([1], "u4"), FieldType.UINT32, False),
        (np.array([1], "u8"), FieldType.UINT64, False),
        (np.array([1], "f2"), FieldType.FLOAT32, False),
        (np.array([1], "f4"), FieldType.FLOAT32, False),
        (np.array([1], "f8"), FieldType.FLOAT64, False),
        (np.array([1], np.longdouble), FieldType.FLOAT64, False),
        (np.array([True]), FieldType.BOOL, False),
        (np.array(["a"]), FieldType.STRING, False),
        (np.array([1, None], object), FieldType.INT64, True),
        (np.ma.masked_array([1, 2], [False, True]), FieldType.INT64, True),
        (np.array(["2024-02-29"], "M8[D]"), FieldType.TIME, False),
    ],
    ids=repr,
)
def test_type_and_nullability_follow_from_the_values(
    values: Any, expected: FieldType, nullable: bool
) -> None:
    field = Field("f", values)
    assert (field.type, field.nullable) == (expected, nullable)
    Frame(field).check()


def test_values_become_builtin() -> None:
    assert Field("f", [Color.RED, None]).values == ["red", None]
    integers = Field("f", [Level.HIGH, np.int64(4)]).values
    assert [type(value) for value in integers] == [int, int]
    assert [type(value) for value in Field("f", [1, 2.5, None]).values] == [
        float,
        float,
        type(None),
    ]
    assert type(Field("f", [Celsius(1)]).values[0]) is float


def test_lists_and_arrays_are_not_copied() -> None:
    values, array = [1.5, 2.5], np.array([1.5, 2.5])
    assert Field("f", values).values is values
    assert Field("f", array).values is array


@pytest.mark.parametrize(
    "array", [np.arange(6)[::2], np.array([0, 2, 4]).astype(">i8")], ids=["strided", "big endian"]
)
def test_arrays_are_made_native_and_contiguous(array: Any) -> None:
    values = Field("f", array).values
    assert values.flags.c_contiguous and values.dtype.isnative
    assert values.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("array", "wanted", "dtype"),
    [
        (np.array([1, 2]), FieldType.INT8, "int8"),
        (np.array([1, 2]), FieldType.FLOAT64, "float64"),
        (np.array([1.5, np.inf, np.nan]), FieldType.FLOAT32, "float32"),
        (np.array([1, 2]), FieldType.ENUM, "uint16"),
        (np.array([1, 2], "i4"), FieldType.TIME, "int64"),
        (np.array([], "i8"), FieldType.UINT8, "uint8"),
    ],
)
def test_arrays_are_converted_to_the_declared_type(array: Any, wanted: Any, dtype: str) -> None:
    assert Field("f", array, wanted).values.dtype == dtype


def test_times_are_milliseconds_and_the_nanoseconds_below() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    times = [
        NOON,
        NOON + timedelta(microseconds=1),
        None,
        datetime(2024, 2, 29, 17, 30, tzinfo=east),
    ]
    field = Field("t", times)
    assert field.values == [NOON_MS, NOON_MS, None, NOON_MS]
    assert field.nanos == [0, 1000, 0, 0]
    before = Field("t", [datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)])
    assert (before.values, before.nanos) == ([-1], [999_000])


def test_times_without_parts_of_a_millisecond_have_no_nanos() -> None:
    assert Field("t", [NOON, None]).nanos is None
    assert Field("t", [NOON_MS], FieldType.TIME).nanos is None


def test_integers_and_datetimes_may_mix_in_a_declared_time() -> None:
    assert Field("t", [NOON, NOON_MS, None], FieldType.TIME).values == [NOON_MS, NOON_MS, None]


def test_nanos_may_be_given_with_milliseconds() -> None:
    field = Field("t", [NOON_MS, 0], FieldType.TIME, nanos=(5, 999_999))
    Frame(field).check()
    assert field.nanos == [5, 999_999]
    array = Field("t", np.array([NOON_MS]), FieldType.TIME, nanos=np.array([7]))
    Frame(array).check()
    assert array.nanos.tolist() == [7]


@pytest.mark.parametrize(
    ("unit", "count", "expected", "nanos"),
    [
        ("D", 19_782, 19_782 * 86_400_000, None),
        ("s", -1, -1000, None),
        ("ms", NOON_MS, NOON_MS, None),
        ("us", NOON_MS * 1000 + 7, NOON_MS, [7000]),
        ("10us", NOON_MS * 100 + 7, NOON_MS, [70_000]),
        ("ns", -1, -1, [999_999]),
        ("ps", 1_000_001_000, 1, [1]),
    ],
)
def test_datetime64_arrays_are_times_in_utc(
    unit: str, count: int, expected: int, nanos: list[int] | None
) -> None:
    field = Field("t", np.array([count]).astype(f"M8[{unit}]"))
    assert field.values.tolist() == [expected]
    assert (field.nanos if field.nanos is None else field.nanos.tolist()) == nanos


def test_nat_is_none() -> None:
    field = Field("t", np.array(["2024-02-29T12:00:00.000000001", "NaT"], "M8[ns]"))
    assert (field.values, field.nanos, field.nullable) == ([NOON_MS, None], [1, 0], True)
    assert Field("t", np.array(["NaT", "1970-01-01"], "M8[us]")).values == [None, 0]


def test_from_rows_has_every_key_in_order_of_first_appearance() -> None:
    frame = Frame.from_rows(
        [{"a": 1, "b": "x"}, {"c": True, "a": 2}],
        name="n",
        ref_id="A",
        meta=FrameMeta(type="table"),
    )
    assert [(f.name, f.values) for f in frame.fields] == [
        ("a", [1, 2]),
        ("b", ["x", None]),
        ("c", [None, True]),
    ]
    assert (frame.name, frame.ref_id, frame.rows) == ("n", "A", 2)
    assert frame.meta == FrameMeta(type="table")
    assert Frame.from_rows([]).fields == ()


def test_from_columns_makes_a_field_of_each() -> None:
    frame = Frame.from_columns({"t": [NOON], "v": np.array([1.5])}, name="n")
    assert [field.type for field in frame.fields] == [FieldType.TIME, FieldType.FLOAT64]
    assert (frame.name, frame.rows) == ("n", 1)


def test_a_frame_without_fields_has_no_rows() -> None:
    assert Frame().rows == 0
    Frame().check()


def test_repr_is_short() -> None:
    frame = Frame(Field("v", [1, None]), name="n")
    assert repr(frame) == "Frame('n', 1 fields x 2 rows)"
    assert repr(frame.fields[0]) == "Field('v', 2 x int64, nullable)"


@pytest.mark.parametrize(
    ("field_type", "kind"),
    [
        (FieldType.FLOAT32, "number"),
        (FieldType.STRING, "string"),
        (FieldType.BOOL, "boolean"),
        (FieldType.TIME, "time"),
        (FieldType.JSON, "other"),
        (FieldType.ENUM, "enum"),
    ],
)
def test_kind_is_the_type_in_the_browser(field_type: FieldType, kind: str) -> None:
    assert field_type.kind == kind


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Field("v", [1, "a"]), "'v': expected values of one type .*, got int, str"),
        (lambda: Field("v", [True, 1]), "expected values of one type .*, got bool, int"),
        (lambda: Field("v", [1, 1j]), "'v', row 1: expected bool, .* got 1j"),
        (lambda: Field("v", "text"), "must be a list or a numpy array, got 'text'"),
        (lambda: Field("v", {"a": 1}), "must be a list or a numpy array, got {'a': 1}"),
        (lambda: Field("v", 5), "must be a list or a numpy array, got 5"),
        (lambda: Field("v", [1], "int8"), "type must be one of FieldType.INT8, .*, got 'int8'"),  # type: ignore[arg-type]
        (
            lambda: Field("v", [1.5, 10**400]),
            "row 1: expected a number in the range of float64, got 1000",
        ),
        (
            lambda: Field("t", [NOON, datetime(2024, 1, 1)]),
            "row 1: expected a datetime with a time zone, got .*; use an",
        ),
        (lambda: Field("t", [1], nanos=[1]), "nanos must belong to times .*, got int64"),
        (
            lambda: Field("t", [NOON + timedelta(microseconds=1)], nanos=[1]),
            "got times with nanoseconds",
        ),
        (lambda: Field("v", np.zeros((2, 2))), r"one-dimensional array, got .* shape \(2, 2\)"),
        (
            lambda: Field("v", np.array([300]), FieldType.INT8),
            ": expected -128 to 127 for int8, got 300",
        ),
        (
            lambda: Field("v", np.array([1, 1e39]), FieldType.FLOAT32),
            "row 1: expected .* float32, got 1e.39",
        ),
        (
            lambda: Field("v", np.array([-1]), FieldType.ENUM),
            "expected 0 to 65535 for enum, got -1",
        ),
        (lambda: Field("t", [1.5, np.datetime64(1, "s")]), "of one type .*, got datetime, float"),
        (lambda: Field("t", np.array([1]).astype("M8")), "expected a datetime64 array with a unit"),
    ],
)
def test_values_without_a_type_are_refused_by_the_constructor(
    make: Callable[[], Field], message: str
) -> None:
    with pytest.raises(FrameError, match=message):
        make()


def test_frame_error_is_a_value_error() -> None:
    assert issubclass(FrameError, ValueError)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            Field("v", [1, 128], FieldType.INT8),
            "'v', row 1: expected -128 to 127 for int8, got 128",
        ),
        (
            Field("v", [None, -1], FieldType.UINT64),
            "row 1: expected 0 to 18446744073709551615 .*, got -1",
        ),
        (Field("v", [2**63]), ": expected .* int64, got 9223372036854775808"),
        (Field("v", [True], FieldType.INT64), ": expected int for int64, got True"),
        (Field("v", [1.0], FieldType.INT64), ": expected int for int64, got 1.0"),
        (Field("v", np.array([1.0]), FieldType.INT64), ": expected int for int64, got 1.0"),
        (Field("v", ["1", None], FieldType.FLOAT64), ": expected float for float64, got '1'"),
        (Field("v", [None, 1e39], FieldType.FLOAT32), "row 1: expected .* of float32, got 1e.39"),
        (Field("v", [5], FieldType.STRING), ": expected str for string, got 5"),
        (Field("v", ["a", "\ud800"]), r"row 1: expected a str that UTF-8 can encode, got .*ud800"),
        (Field("v", [1], FieldType.BOOL), ": expected bool for bool, got 1"),
        (Field("v", [1.5], FieldType.TIME), ": expected an aware datetime .*, got 1.5"),
        (
            Field("v", [10**13], FieldType.TIME),
            ": expected a time from 1677-09-21 to 2262-04-11, got 2286-11-20 .10000000000000 in",
        ),
        (
            Field("v", [0, 10**30], FieldType.TIME),
            f"row 1: expected a time from 1677-09-21 to 2262-04-11, got {10**30} in Unix millis",
        ),
        (
            Field("v", np.array([10**13]).astype("M8[ms]")),
            ": expected a time from 1677-09-21 to 2262-04-11, got 2286-11-20 .10000000000000 in",
        ),
        (
            Field("v", [1, None], nullable=False),
            "row 1: expected a value, .*not nullable, got None",
        ),
        (Field("v", [{"a": 1}, {1: 2}]), "row 1: expected JSON with str keys .*, got {1: 2}"),
        (Field("v", [{"a": 2**64}]), ": expected .* 64-bit integers, got {'a'"),
        (
            Field("v", [1, 2], FieldType.ENUM, config=ON_OFF),
            "row 1: expected 0 to 1 for enum, got 2",
        ),
        (
            Field("v", np.array([2]), FieldType.ENUM, config=ON_OFF),
            ": expected 0 to 1 for enum, got 2",
        ),
        (Field("t", [1, 2], FieldType.TIME, nanos=[1]), "nanos must have 2 values, .*, got 1"),
        (
            Field("t", [1], FieldType.TIME, nanos=[1_000_000]),
            ": expected nanos from 0 to 999999, got 1000000",
        ),
        (
            Field("t", [1], FieldType.TIME, nanos=[None]),
            ": expected nanos from 0 to 999999, got None",
        ),
        (Field(5, [1]), "name of field 0 must be a str, got 5"),  # type: ignore[arg-type]
        (Field("\udfff", [1]), r"must be a str that UTF-8 can encode, got .*udfff"),
        (Field("v", [1], labels={"a": 1}), "'v': label 'a' must be a str, got 1"),  # type: ignore[dict-item]
        (Field("v", [1], labels={2: "b"}), "'v': label name must be a str, got 2"),  # type: ignore[dict-item]
        (Field("v", [1], labels="ab"), "labels must be a dict of str to str, got 'ab'"),  # type: ignore[arg-type]
        (Field("v", [1], config="c"), "config must be a FieldConfig, got 'c'"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_check_names_field_row_value_and_what_was_expected(field: Field, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        Frame(field).check()


def instant(hour: int) -> datetime:
    return datetime(2024, 1, 1, hour)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FieldConfig(decimals=65_536), "decimals"),
        (FieldConfig(decimals=1.5), "decimals"),  # type: ignore[arg-type]
        (FieldConfig(min="0"), "min"),  # type: ignore[arg-type]
        (FieldConfig(custom={"a": object()}), "object"),
        (FieldConfig(unit="\ud800"), "surrogates"),
        (FieldConfig(thresholds=Thresholds(mode="relative", steps=())), "relative"),  # type: ignore[arg-type]
        (FieldConfig(mappings=({"type": "regex"},)), "regex"),  # type: ignore[arg-type]
        (
            FieldConfig(
                links=(
                    DataLink(
                        internal=InternalLink(time_range=LinkRange(from_=instant(1), to=instant(2)))
                    ),
                )
            ),
            "timezone",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_config_that_grafana_cannot_read_is_refused(config: FieldConfig, message: str) -> None:
    with pytest.raises(FrameError, match=f"field 'v': config: .*{message}"):
        Frame(Field("v", [1.0], config=config)).check()


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (FrameMeta(notices=(Notice(severity="fatal", text=""),)), "fatal"),  # type: ignore[arg-type]
        (FrameMeta(notices=(Notice(severity="info", text="", inspect="meta"),)), "inspect"),  # type: ignore[arg-type]
        (FrameMeta(unique_row_id_fields=(-1,)), "uniqueRowIdFields"),
        (FrameMeta(type_version=(1,)), "typeVersion"),  # type: ignore[arg-type]
        (FrameMeta(stats=(Stat(value=math.nan),)), "value"),
        ("meta", "must be a FrameMeta, got 'meta'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_meta_that_grafana_cannot_read_is_refused(meta: Any, message: str) -> None:
    with pytest.raises(FrameError, match=f"frame meta.*{message}"):
        Frame(meta=meta).check()


def test_limits_without_a_finite_value_are_ignored() -> None:
    steps = (Threshold(value=-math.inf), Threshold(value=1.0))
    thresholds = Thresholds(mode="absolute", steps=steps)
    config = FieldConfig(min=math.nan, max=math.inf, thresholds=thresholds)
    Frame(Field("v", [1.0], config=config)).check()


def test_none_is_a_value_of_json_that_is_not_nullable() -> None:
    Frame(Field("j", [{}, None], nullable=False)).check()


def test_fields_of_different_lengths_are_refused() -> None:
    with pytest.raises(FrameError, match="'b' must have 1 values, as many as field 'a', got 2"):
        Frame(Field("a", [1]), Field("b", [1, 2])).check()


def test_an_object_that_is_not_a_field_is_refused() -> None:
    for other in ([1], "name", None, Field):
        with pytest.raises(TypeError, match="^a Frame must be made of Field objects, got"):
            Frame(Field("a", [1]), other)  # type: ignore[arg-type]
    frame = Frame(Field("a", [1]))
    frame.fields += ([1],)  # type: ignore[assignment]
    with pytest.raises(FrameError, match=r"field 1 must be a Field, got \[1\]"):
        frame.check()


def test_fields_with_one_name_must_have_different_labels() -> None:
    Frame(Field("v", [1], labels={"a": "1"}), Field("v", [1], labels={"a": "2"})).check()
    with pytest.raises(
        FrameError, match="'v': name and labels must be unique .*, got labels {'a': '1'} twice"
    ):
        Frame(Field("v", [1], labels={"a": "1"}), Field("v", [2], labels={"a": "1"})).check()


@pytest.mark.parametrize("part", ["name", "ref_id"])
def test_frame_name_and_ref_id_must_be_str(part: str) -> None:
    with pytest.raises(FrameError, match=f"frame {part} must be a str, got 5"):
        Frame(**{part: 5}).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ([1, 300], {"type": FieldType.INT8}),
        (np.array([300]), {"type": FieldType.INT8}),
        (["a"], {"type": FieldType.FLOAT64}),
        ([1_700_000_000_000], {"type": FieldType.TIME, "nanos": [-1]}),
        ([1.5], {"values": ["a"]}),
    ],
    ids=str,
)
def test_a_field_that_was_changed_is_checked_again(values: Any, change: dict[str, Any]) -> None:
    field = Field("v", values)
    Frame(field).check()
    for name, value in change.items():
        setattr(field, name, value)
    with pytest.raises(FrameError, match="field 'v'"):
        Frame(field).check()


@pytest.mark.parametrize("row", [5, ("a", 1), Field("a", [1])], ids=["int", "tuple", "Field"])
def test_a_row_of_a_frame_that_is_not_a_dict_is_named(row):
    with pytest.raises(FrameError, match=r"a row of Frame\.from_rows must be a dict, got"):
        Frame.from_rows([{"a": 1}, row])
