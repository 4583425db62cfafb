"""Hypothesis strategies and profiles, and the equality of frames.

The profile is chosen by HYPOTHESIS_PROFILE: fast (of `scripts/test --fast`), local (the default),
ci or deep.
"""

import os
import struct
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from aiostream_ds._frames.config import (
    DataLink,
    EnumConfig,
    FieldConfig,
    FrameMeta,
    Inspect,
    MappingResult,
    Notice,
    RangeMapping,
    RangeOptions,
    SpecialMapping,
    SpecialOptions,
    Stat,
    Threshold,
    Thresholds,
    TypeConfig,
    ValueMapping,
)
from aiostream_ds._frames.frame import Field, FieldType, Frame

for _name, _examples in (("fast", 10), ("local", 25), ("ci", 200), ("deep", 5_000)):
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "local"))

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SPECIAL_FLOATS = st.sampled_from([float("nan"), float("inf"), float("-inf"), -0.0])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
# Times that fit 64 bits of nanoseconds.
DATETIMES = st.datetimes(
    datetime(1678, 1, 1),
    datetime(2262, 1, 1),
    timezones=st.sampled_from([UTC]) | st.timezones(),
)
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.INT8: st.integers(-(2**7), 2**7 - 1),
    FieldType.INT16: st.integers(-(2**15), 2**15 - 1),
    FieldType.INT32: st.integers(-(2**31), 2**31 - 1),
    FieldType.INT64: st.integers(-(2**63), 2**63 - 1),
    FieldType.UINT8: st.integers(0, 2**8 - 1),
    FieldType.UINT16: st.integers(0, 2**16 - 1),
    FieldType.UINT32: st.integers(0, 2**32 - 1),
    FieldType.UINT64: st.integers(0, 2**64 - 1),
    FieldType.FLOAT32: st.floats(width=32) | SPECIAL_FLOATS,
    FieldType.FLOAT64: st.floats() | SPECIAL_FLOATS,
    FieldType.STRING: TEXT,
    FieldType.BOOL: st.booleans(),
    FieldType.TIME: DATETIMES | st.integers(-(10**12), 10**13 // 2),
    FieldType.JSON: JSON,
    FieldType.ENUM: st.integers(0, 2**16 - 1),
}

_finite = st.floats(allow_nan=False, allow_infinity=False)
_results = st.builds(MappingResult, text=TEXT, color=TEXT, index=st.integers(0, 9))
_matches = st.sampled_from(["true", "false", "null", "nan", "null+nan", "empty"])
_mappings = st.one_of(
    st.builds(ValueMapping, options=st.dictionaries(TEXT, _results, max_size=2)),
    st.builds(
        RangeMapping,
        options=st.builds(
            RangeOptions, from_=st.none() | _finite, to=st.none() | _finite, result=_results
        ),
    ),
    st.builds(SpecialMapping, options=st.builds(SpecialOptions, match=_matches, result=_results)),
)
_thresholds = st.builds(
    Thresholds,
    mode=st.sampled_from(["absolute", "percentage"]),
    steps=st.lists(st.builds(Threshold, value=st.none() | _finite, color=TEXT), max_size=3).map(
        tuple
    ),
)
CONFIGS = st.builds(
    FieldConfig,
    display_name=TEXT,
    display_name_from_ds=TEXT,
    filterable=st.none() | st.booleans(),
    unit=TEXT,
    decimals=st.none() | st.integers(0, 65_535),
    min=st.none() | _finite,
    max=st.none() | _finite,
    interval=st.none() | _finite,
    mappings=st.lists(_mappings, max_size=2).map(tuple),
    thresholds=st.none() | _thresholds,
    links=st.lists(st.builds(DataLink, title=TEXT, url=TEXT), max_size=2).map(tuple),
    custom=st.none() | st.dictionaries(TEXT, JSON, max_size=2),
)
METAS = st.builds(
    FrameMeta,
    type=st.sampled_from(["", "timeseries-wide", "log-lines", "table"]),
    type_version=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
    channel=TEXT,
    custom=JSON,
    stats=st.lists(st.builds(Stat, value=_finite, display_name=TEXT), max_size=1).map(tuple),
    notices=st.lists(
        st.builds(
            Notice,
            severity=st.sampled_from(["info", "warning", "error"]),
            text=TEXT,
            inspect=st.sampled_from(Inspect),
        ),
        max_size=2,
        unique_by=lambda notice: notice.severity,  # others are joined
    ).map(tuple),
    unique_row_id_fields=st.lists(st.integers(0, 3), max_size=2).map(tuple),
)


@st.composite
def fields(
    draw: st.DrawFn,
    rows: int | None = None,
    types: st.SearchStrategy[FieldType] = st.sampled_from(FieldType),  # noqa: B008
) -> Field:
    """A field of any type: with and without nulls, nanos, labels and config; 0 to 6 rows."""
    field_type = draw(types)
    nullable = draw(st.booleans())
    count = draw(st.integers(0, 6)) if rows is None else rows
    values = VALUES[field_type]
    if nullable:
        values = st.none() | values
    if field_type is FieldType.TIME and draw(st.booleans()):
        # Integer milliseconds with explicit nanos.
        times = st.integers(-(10**12), 10**13 // 2)
        column = draw(st.lists(times, min_size=count, max_size=count))
        nanos = draw(st.lists(st.integers(0, 999_999), min_size=count, max_size=count))
    else:
        column, nanos = draw(st.lists(values, min_size=count, max_size=count)), None
    config = draw(st.none() | CONFIGS)
    if field_type is FieldType.ENUM and draw(st.booleans()):
        names = tuple(map(str, range(max((each for each in column if each), default=0) % 99 + 1)))
        column = [None if each is None else each % len(names) for each in column]
        config = FieldConfig(type=TypeConfig(enum=EnumConfig(text=names)))
    labels = draw(st.none() | st.dictionaries(TEXT, TEXT, max_size=2))
    return Field(
        draw(TEXT),
        column,
        field_type,
        labels=labels,
        config=config,
        nullable=nullable,
        nanos=nanos,
    )


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A frame that passes its check: 0 to 4 fields of any types, equally long."""
    rows = draw(st.integers(0, 6))
    columns = st.lists(
        fields(rows=rows),
        max_size=4,
        unique_by=lambda field: (field.name, frozenset(field.labels.items())),
    )
    meta = draw(st.none() | METAS)
    return Frame(*draw(columns), name=draw(TEXT), ref_id=draw(TEXT), meta=meta)


def same(one: Frame, other: Frame) -> bool:
    """Whether two frames are equal: NaN equals NaN, -0.0 does not equal 0.0.

    FLOAT32 is compared in single precision; nanos that are all zero equal no nanos; a type version
    of (0, 0) equals none.
    """
    return bool(_comparable(one) == _comparable(other))


def _comparable(frame: Frame) -> Any:
    meta = frame.meta
    if meta is not None and meta.type_version == (0, 0):
        keys = {key: getattr(meta, key) for key in meta.__struct_fields__}
        meta = FrameMeta(**{**keys, "type_version": None})
    return (frame.name, frame.ref_id, meta, [_comparable_field(field) for field in frame.fields])


def _comparable_field(field: Field) -> Any:
    values = field.values if isinstance(field.values, list) else field.values.tolist()
    if field.type in (FieldType.FLOAT32, FieldType.FLOAT64):
        form = "<f" if field.type is FieldType.FLOAT32 else "<d"
        values = [value if value is None else _bits(form, value) for value in values]
    nanos = field.nanos if field.nanos is None else [int(nano) for nano in field.nanos]
    nanos = nanos if nanos and any(nanos) else None
    labels = dict(field.labels)
    return (field.name, field.type, field.nullable, labels, field.config, values, nanos)


def _bits(form: str, value: float) -> bytes | str:
    return "NaN" if value != value else struct.pack(form, value)


def instant(value: datetime) -> tuple[int, int]:
    """The Unix milliseconds of a datetime and the remaining nanoseconds."""
    microseconds = (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return microseconds // 1000, microseconds % 1000 * 1000
