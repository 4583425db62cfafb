"""Fields and frames: what types follow from values, and what `check` refuses with which words."""

import enum
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
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


def test_values_become_plain() -> None:
    assert Field("f", [Color.RED, None]).values == ["red", None]
    plain = Field("f", [Level.HIGH, np.int64(4)]).values
    assert [type(value) for value in plain] == [int, int]
    assert [type(value) for value in Field("f", [1, 2.5, None]).values] == [
        float,
        float,
        type(None),
    ]
    assert type(Field("f", [Celsius(1)]).values[0]) is float


def test_lists_and_arrays_are_kept_and_not_copied() -> None:
    values, array = [1.5, 2.5], np.array([1.5, 2.5])
    assert Field("f", values).values is values
    assert Field("f", array).values is array


@pytest.mark.parametrize(
    "array", [np.arange(6)[::2], np.array([0, 2, 4]).astype(">i8")], ids=["strided", "big endian"]
)
def test_arrays_are_made_native_and_of_one_piece(array: Any) -> None:
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


def test_whole_milliseconds_have_no_nanos() -> None:
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


def test_not_a_time_is_none() -> None:
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
def test_kind_is_the_type_that_the_browser_knows(field_type: FieldType, kind: str) -> None:
    assert field_type.kind == kind


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Field("v", [1, "a"]), "'v': no type for values of int, str; allowed"),
        (lambda: Field("v", [True, 1]), "no type for values of bool, int"),
        (lambda: Field("v", [Decimal(1)]), "no type for values of Decimal"),
        (lambda: Field("v", "text"), "must be a list or a numpy array, not str"),
        (lambda: Field("v", {"a": 1}), "must be a list or a numpy array, not dict"),
        (lambda: Field("v", 5), "must be a list or a numpy array, not int"),
        (lambda: Field("v", [1], "int8"), "type 'int8' is not one of FieldType.INT8"),  # type: ignore[arg-type]
        (lambda: Field("v", [1.5, 10**400]), "an integer is too large for float64"),
        (lambda: Field("t", [NOON, datetime(2024, 1, 1)]), "row 1: .* has no time zone; give an"),
        (lambda: Field("t", [1], nanos=[1]), "nanos belong to a TIME field"),
        (lambda: Field("t", [NOON + timedelta(microseconds=1)], nanos=[1]), "nanos belong to"),
        (lambda: Field("v", np.zeros((2, 2))), r"shape \(2, 2\); one dimension allowed"),
        (lambda: Field("v", np.array([300]), FieldType.INT8), "row 0: 300 .* -128 to 127 for int8"),
        (lambda: Field("v", np.array([1, 1e39]), FieldType.FLOAT32), "row 1: 1e.39 .* float32"),
        (lambda: Field("v", np.array([-1]), FieldType.ENUM), "-1 .* 0 to 65535 for enum"),
        (lambda: Field("t", [np.datetime64(1, "s")]), "give the datetime64 array itself"),
        (lambda: Field("t", np.array([1]).astype("M8")), "needs a unit"),
    ],
)
def test_values_of_no_type_are_refused_at_once(make: Callable[[], Field], words: str) -> None:
    with pytest.raises(FrameError, match=words):
        make()


def test_frame_error_is_a_value_error() -> None:
    assert issubclass(FrameError, ValueError)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (Field("v", [1, 128], FieldType.INT8), "'v', row 1: 128 .* -128 to 127 for int8"),
        (Field("v", [None, -1], FieldType.UINT64), "row 1: -1 .* 0 to 18446744073709551615"),
        (Field("v", [2**63]), "row 0: 9223372036854775808 .* int64"),
        (Field("v", [True], FieldType.INT64), "row 0: True .* allowed is int for int64"),
        (Field("v", [1.0], FieldType.INT64), "row 0: 1.0 .* allowed is int for int64"),
        (Field("v", np.array([1.0]), FieldType.INT64), "row 0: 1.0 .* allowed is int for int64"),
        (Field("v", ["1", None], FieldType.FLOAT64), "row 0: '1' .* allowed is float for float64"),
        (Field("v", [None, 1e39], FieldType.FLOAT32), "row 1: 1e.39 .* allowed is float32"),
        (Field("v", [b"x"], FieldType.STRING), "row 0: b'x' .* allowed is str for string"),
        (Field("v", ["a", "\ud800"]), "row 1: .* allowed is text that UTF-8 can hold"),
        (Field("v", [1], FieldType.BOOL), "row 0: 1 .* allowed is bool for bool"),
        (Field("v", [1.5], FieldType.TIME), "row 0: 1.5 .* aware datetime, or int of milliseconds"),
        (Field("v", [10**13], FieldType.TIME), "row 0: 10000000000000 .* for time.Time"),
        (Field("v", np.array([10**13]).astype("M8[ms]")), "row 0: 10000000000000 .* for time.Time"),
        (Field("v", [1, None], nullable=False), "row 1: None .* it is not nullable"),
        (Field("v", [{"a": 1}, {1: 2}]), "row 1: {1: 2} .* JSON of str keys"),
        (Field("v", [{"a": 2**64}]), "row 0: .* 64-bit integers"),
        (Field("v", [1, 2], FieldType.ENUM, config=ON_OFF), "row 1: 2 .* 0 to 1 for enum"),
        (Field("v", np.array([2]), FieldType.ENUM, config=ON_OFF), "row 0: 2 .* 0 to 1 for enum"),
        (Field("t", [1, 2], FieldType.TIME, nanos=[1]), "1 nanos for 2 values"),
        (Field("t", [1], FieldType.TIME, nanos=[1_000_000]), "row 0: 1000000 .* 0 to 999999"),
        (Field("t", [1], FieldType.TIME, nanos=[None]), "row 0: None .* 0 to 999999"),
        (Field(5, [1]), "name of field 0 is 5; allowed is a str"),  # type: ignore[arg-type]
        (Field("\udfff", [1]), "allowed is text that UTF-8 can hold"),
        (Field("v", [1], labels={"a": 1}), "'v': label 'a' is 1; allowed is a str"),  # type: ignore[dict-item]
        (Field("v", [1], labels={2: "b"}), "'v': label name is 2; allowed is a str"),  # type: ignore[dict-item]
        (Field("v", [1], labels="ab"), "labels are 'ab'; allowed is a dict"),  # type: ignore[arg-type]
        (Field("v", [1], config="c"), "config is 'c'; allowed is a FieldConfig"),  # type: ignore[arg-type]
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_check_names_field_row_value_and_what_is_allowed(field: Field, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        Frame(field).check()


def instant(hour: int) -> datetime:
    return datetime(2024, 1, 1, hour)


@pytest.mark.parametrize(
    ("config", "words"),
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
def test_config_that_grafana_could_not_read_is_refused(config: FieldConfig, words: str) -> None:
    with pytest.raises(FrameError, match=f"field 'v': config: .*{words}"):
        Frame(Field("v", [1.0], config=config)).check()


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (FrameMeta(notices=(Notice(severity="fatal", text=""),)), "fatal"),  # type: ignore[arg-type]
        (FrameMeta(notices=(Notice(severity="info", text="", inspect="meta"),)), "inspect"),  # type: ignore[arg-type]
        (FrameMeta(unique_row_id_fields=(-1,)), "uniqueRowIdFields"),
        (FrameMeta(type_version=(1,)), "typeVersion"),  # type: ignore[arg-type]
        (FrameMeta(stats=(Stat(value=math.nan),)), "value"),
        ("meta", "allowed is a FrameMeta"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_meta_that_grafana_could_not_read_is_refused(meta: Any, words: str) -> None:
    with pytest.raises(FrameError, match=f"frame meta.*{words}"):
        Frame(meta=meta).check()


def test_limits_without_a_finite_value_are_left_out_and_not_refused() -> None:
    steps = (Threshold(value=-math.inf), Threshold(value=1.0))
    thresholds = Thresholds(mode="absolute", steps=steps)
    config = FieldConfig(min=math.nan, max=math.inf, thresholds=thresholds)
    Frame(Field("v", [1.0], config=config)).check()


def test_none_is_a_value_of_json_that_is_not_nullable() -> None:
    Frame(Field("j", [{}, None], nullable=False)).check()


def test_a_frame_takes_fields_of_one_length_only() -> None:
    with pytest.raises(FrameError, match="'b' has 2 values; allowed is 1, as many as field 'a'"):
        Frame(Field("a", [1]), Field("b", [1, 2])).check()


def test_a_frame_takes_fields_only() -> None:
    with pytest.raises(FrameError, match=r"field 1 is \[1\]; allowed is a Field"):
        Frame(Field("a", [1]), [1]).check()  # type: ignore[arg-type]


def test_one_name_needs_different_labels() -> None:
    Frame(Field("v", [1], labels={"a": "1"}), Field("v", [1], labels={"a": "2"})).check()
    with pytest.raises(FrameError, match="'v' with labels {'a': '1'} is there twice"):
        Frame(Field("v", [1], labels={"a": "1"}), Field("v", [2], labels={"a": "1"})).check()


@pytest.mark.parametrize("part", ["name", "ref_id"])
def test_frame_name_and_ref_id_are_text(part: str) -> None:
    with pytest.raises(FrameError, match=f"frame {part} is 5; allowed is a str"):
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
def test_what_was_changed_after_its_field_was_made_is_looked_at_again(
    values: Any, change: dict[str, Any]
) -> None:
    field = Field("v", values)
    Frame(field).check()
    for name, value in change.items():
        setattr(field, name, value)
    with pytest.raises(FrameError, match="field 'v'"):
        Frame(field).check()
