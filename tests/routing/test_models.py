"""Grafana's requests as authors see them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from aiostream_ds import BadQuery, Health, Query, Request, Response, Row, TimeRange
from aiostream_ds.settings import convert

from ..strategies import instant

EARLIEST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1000
LATEST = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1000


@given(st.integers(EARLIEST, LATEST))
def test_a_time_range_is_exact_to_the_millisecond(ms):
    found = TimeRange(from_ms=ms, to_ms=ms)
    assert instant(found.start) == instant(found.end) == (ms, 0)
    assert found.start.tzinfo is UTC


@pytest.mark.parametrize("ms", [2**63 - 1, -(2**63), LATEST * 2])
def test_a_time_outside_the_calendar_is_a_bad_query(ms):
    with pytest.raises(BadQuery, match=f"expected a time in the years 1 to 9999, got {ms} ms"):
        TimeRange(from_ms=ms, to_ms=ms).start  # noqa: B018


def test_a_query_is_decoded_from_camel_case_and_has_defaults():
    class Pick(Query):
        sensor_id: str

    query = convert({"sensorId": "a", "refId": "B", "maxDataPoints": 7, "hide": False}, Pick)
    assert query == Pick(sensor_id="a", ref_id="B", max_data_points=7)
    assert query.with_streaming and query.interval_ms == 1000


def test_queries_are_frozen_and_rows_are_not():
    class Reading(Row):
        value: int

    reading = Reading(1)
    reading.value = 2
    assert reading == Reading(value=2)
    with pytest.raises(AttributeError):
        Query().ref_id = "B"  # type: ignore[misc]


@pytest.mark.parametrize("status", [0, 99, 600, 1000])
def test_a_status_outside_of_http_is_refused(status):
    with pytest.raises(ValueError, match=f"must be from 100 to 599, got {status}"):
        Response(status=status)


def test_the_parameters_and_headers_of_a_request():
    request = Request(
        url="/names?a=1&a=2&b=", headers={"X-One": ["1", "2"], "X-None": []}, body=b'{"on":true}'
    )
    assert request.query == {"a": ["1", "2"], "b": [""]}
    assert request.header("x-one") == "1"
    assert request.header("x-none", "d") == request.header("x-two", "d") == "d"
    assert request.json() == {"on": True}


class Command(Struct):
    on: bool


def test_the_body_of_a_request_is_decoded_as_the_given_type():
    assert Request(body=b'{"on":true}').json(Command) == Command(on=True)


@pytest.mark.parametrize(
    "body, message",
    [
        (b"{", "the request body is not JSON"),
        (b'{"on":1}', "request body: on: expected bool, got 1"),
    ],
)
def test_a_body_that_does_not_fit_is_a_bad_query(body, message):
    with pytest.raises(BadQuery, match=message):
        Request(body=body).json(Command)


def test_health_is_ok_by_default_and_instances_share_no_details():
    one, other = Health(), Health()
    assert one.ok and one.message == "OK" and one.details is not other.details


@pytest.mark.parametrize(
    "body", [b"{", b'{"a":"\xff"}', b"[" * 100_000], ids=["cut", "text", "deep"]
)
def test_a_body_that_is_not_json_is_a_bad_query(body):
    with pytest.raises(BadQuery, match="not JSON"):
        Request(body=body).json()
