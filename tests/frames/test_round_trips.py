"""Round trips of generated frames through Arrow and JSON, and their common properties."""

from datetime import datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._frames import arrow, json
from aiostream_ds._frames.frame import Field, FieldType, Frame

from ..strategies import DATETIMES, VALUES, fields, frames, instant, same


@pytest.mark.slow
@given(frames())
def test_any_frame_survives_a_round_trip_through_arrow(frame: Frame) -> None:
    assert same(arrow.decode(arrow.encode(frame)), frame)


@pytest.mark.slow
@given(frames())
def test_any_frame_survives_a_round_trip_through_json(frame: Frame) -> None:
    assert same(json.decode(json.encode(frame)), frame)


@pytest.mark.slow
@pytest.mark.parametrize("field_type", FieldType, ids=lambda each: each.name)
@given(drawn=st.data())
def test_a_field_of_each_type_survives_both_round_trips(
    field_type: FieldType, drawn: st.DataObject
) -> None:
    frame = Frame(drawn.draw(fields(types=st.just(field_type))))
    assert same(arrow.decode(arrow.encode(frame)), frame)
    assert same(json.decode(json.encode(frame)), frame)


@pytest.mark.slow
@given(frames())
def test_schema_and_data_are_the_two_parts_of_a_payload(frame: Frame) -> None:
    payload = b'{"schema":%b,"data":%b}' % (json.schema(frame), json.data(frame.fields))
    assert json.encode(frame) == payload
    packet = json.packet(frame)
    assert same(json.decode(b'{"data":%b}' % packet.data, packet.schema), frame)
    assert packet.rows == frame.rows


@pytest.mark.slow
@given(frames())
def test_entities_name_exactly_the_values_that_json_cannot_represent(frame: Frame) -> None:
    data = orjson.loads(json.data(frame.fields))
    lookups = data.get("entities") or [None] * len(frame.fields)
    assert ("entities" in data) == any(lookups)
    for field, column, lookup in zip(frame.fields, data["values"], lookups, strict=True):
        named = {row: key for key, rows in (lookup or {}).items() for row in rows}
        for row, value in enumerate(field.values):
            if field.type in (FieldType.FLOAT32, FieldType.FLOAT64) and value is not None:
                kind = {"nan": "NaN", "inf": "Inf", "-inf": "NegInf"}.get(str(value))
                assert named.get(row) == kind
                assert (column[row] is None) == (kind is not None)
            else:
                assert row not in named


@given(st.lists(DATETIMES, max_size=6))
def test_a_time_is_milliseconds_rounded_down_and_the_remaining_nanoseconds(
    times: list[datetime],
) -> None:
    field = Field("t", times, FieldType.TIME)
    expected = [instant(time) for time in times]
    assert field.values == [milliseconds for milliseconds, _ in expected]
    below = [nanos for _, nanos in expected]
    assert field.nanos == (below if any(below) else None)


@pytest.mark.slow
@given(frames())
def test_fingerprints_do_not_depend_on_the_order_of_label_keys(
    frame: Frame,
) -> None:
    reordered = Frame(
        *(
            Field(
                field.name,
                [],
                field.type,
                labels=dict(reversed(list(field.labels.items()))),
                config=field.config,
                nullable=field.nullable,
            )
            for field in frame.fields
        ),
        name=frame.name,
        ref_id=frame.ref_id,
        meta=frame.meta,
    )
    assert json.packet(reordered).schema.fingerprint == json.packet(frame).schema.fingerprint


@given(st.sampled_from(sorted(VALUES, key=str)), st.data())
def test_an_inferred_type_is_encoded_like_a_declared_type(
    field_type: FieldType, drawn: st.DataObject
) -> None:
    inferable = {FieldType.INT64, FieldType.FLOAT64, FieldType.STRING, FieldType.BOOL}
    if field_type not in inferable:
        field_type = FieldType.FLOAT64
    values = drawn.draw(st.lists(VALUES[field_type], min_size=1, max_size=5))
    inferred, declared = Frame(Field("v", values)), Frame(Field("v", values, field_type))
    assert json.encode(inferred) == json.encode(declared)
