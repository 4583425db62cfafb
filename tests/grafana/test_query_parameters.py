"""`@query` methods whose parameters are the fields of the query."""

from datetime import UTC, date, datetime
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest

from aiostream_ds import DataSource, Meta, Query, query
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import describe
from aiostream_ds.testing import QueryFailed, serve_in_memory

pytestmark = pytest.mark.virtual


class Unit(Enum):
    KELVIN = "kelvin"
    CELSIUS = "celsius"


class Limited(Query):
    limit: int = 10


class Machines(DataSource):
    calls: list[Any] = []

    @query
    async def readings(
        self,
        machine: str,
        max_count: Annotated[int, Meta(ge=1)] = 100,
        unit: Unit = Unit.CELSIUS,
        day: date | None = None,
        order: Literal["newest", "oldest"] = "newest",
        factor: float = 1.0,
        is_raw: bool = False,
        id: UUID | None = None,
    ) -> list[dict[str, Any]]:
        """Readings of one machine."""
        Machines.calls.append((machine, max_count, unit, day, order, factor, is_raw, id))
        return [{"machine": machine}]

    @query
    def blocking(self, machine: str = "m1") -> list[dict[str, Any]]:
        return [{"machine": machine}]

    @query("now")
    async def bare(self) -> list[dict[str, Any]]:
        return [{"n": 1}]

    @query
    async def ranged(self, q: Query, machine: str = "m1") -> list[dict[str, Any]]:
        return [{"start": q.time_range.start, "machine": machine}]

    @query
    async def limited(self, q: Limited, machine: str) -> list[dict[str, Any]]:
        return [{"limit": q.limit, "machine": machine}]


@pytest.fixture(autouse=True)
def calls():
    Machines.calls = []


async def row(grafana, kind, **fields):
    start, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    (frame,) = await grafana.query({"queryType": kind, **fields}, start=start, end=end)
    return {field.name: field.values[0] for field in frame.fields}


async def test_fields_are_arguments_with_the_defaults_and_types_of_the_method():
    async with serve_in_memory(Machines) as grafana:
        await row(grafana, "readings", machine="m2")
        given = {"maxCount": "5", "unit": "kelvin", "day": "2024-02-01", "order": "oldest"}
        id = "12345678-1234-5678-1234-567812345678"
        more = {"factor": 2, "isRaw": "true", "id": id}
        await row(grafana, "readings", machine=3, **given, **more)
    assert Machines.calls == [
        ("m2", 100, Unit.CELSIUS, None, "newest", 1.0, False, None),
        ("3", 5, Unit.KELVIN, date(2024, 2, 1), "oldest", 2.0, True, UUID(id)),
    ]


async def test_a_def_gets_them_too_and_a_method_may_take_none():
    async with serve_in_memory(Machines) as grafana:
        assert await row(grafana, "blocking", machine="m3") == {"machine": "m3"}
        assert await row(grafana, "now") == {"n": 1}


async def test_a_query_may_come_before_the_fields():
    async with serve_in_memory(Machines) as grafana:
        found = await row(grafana, "ranged", machine="m3")
        assert found == {"start": 1_704_067_200_000, "machine": "m3"}
        assert await row(grafana, "limited", machine="m3", limit=7) == {"limit": 7, "machine": "m3"}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "machine"),
        ({"machine": "m1", "maxCount": 0}, "maxCount: expected int >= 1, got 0"),
        ({"machine": "m1", "maxCount": "many"}, "maxCount: expected int, got 'many'"),
        ({"machine": "m1", "unit": "bar"}, "'bar'"),
        ({"machine": "m1", "day": "monday"}, "day"),
    ],
)
async def test_an_invalid_field_is_an_error_that_names_it(fields, text):
    async with serve_in_memory(Machines) as grafana:
        with pytest.raises(QueryFailed, match=text) as caught:
            await grafana.query({"queryType": "readings", **fields})
    assert caught.value.status == 400 and not Machines.calls


async def test_a_variable_that_grafana_did_not_replace_is_the_default():
    async with serve_in_memory(Machines) as grafana:
        query = {"queryType": "readings", "machine": "m1", "maxCount": "$count"}
        (frame,) = await grafana.query(query)
    assert Machines.calls[0][1] == 100
    assert "did not replace $count" in frame.meta.notices[0].text


def test_the_query_editor_gets_the_fields_of_the_method():
    (source,) = describe(Catalog(Machines))["sources"]
    found = {each["name"]: each for each in source["queries"]}
    assert list(found["readings"]["schema"]["properties"])[:2] == ["machine", "maxCount"]
    assert found["readings"]["schema"]["required"] == ["machine"]
    assert found["readings"]["help"] == "Readings of one machine."
    assert list(found["limited"]["schema"]["properties"]) == ["machine", "limit"]
    assert found["now"]["schema"]["properties"] == {}


async def test_a_subclass_inherits_the_fields_of_a_method_that_it_overrides():
    class Special(Machines):
        async def ranged(self, q: Query, machine: str = "m9") -> list[dict[str, Any]]:
            return [{"machine": machine}]

    async with serve_in_memory(Special) as grafana:
        assert await row(grafana, "ranged") == {"machine": "m9"}
