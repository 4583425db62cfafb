"""Paths from signatures: `@stream` and `@resource` alone, and kinds of fields from annotations."""

from datetime import date, datetime
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pytest
from msgspec import Meta

from aiostream_ds import (
    Cursor,
    DataSource,
    HistoryRange,
    LiveChannel,
    Request,
    Rows,
    User,
    resource,
    stream,
)
from aiostream_ds.testing import QueryFailed, serve_in_memory

ID = UUID("9b2d7c4e-5a1f-4c3b-8e6d-0f1a2b3c4d5e")
Host = NewType("Host", str)


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Unit(StrEnum):
    SPEED = "km/h"
    WIND = "m/s"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


def text(annotation: Any, path: str | None = None) -> str:
    """The pattern of a stream `s` with one parameter `v`."""

    async def s(self, v):
        yield {"v": str(v)}

    s.__annotations__["v"] = annotation
    return type("Source", (DataSource,), {"s": stream(path)(s)})._ds_plan.streams["s"].pattern.text


@pytest.mark.parametrize(
    ("annotation", "pattern"),
    [
        (str, "s/{v}"),
        (int, "s/{v:int}"),
        (float, "s/{v:float}"),
        (bool, "s/{v:bool}"),
        (date, "s/{v:date}"),
        (UUID, "s/{v:uuid}"),
        (Host, "s/{v}"),
        ("int", "s/{v:int}"),
        (Annotated[int, Meta(ge=1)], "s/{v:int}"),
        (Literal["a", "b"], "s/{v}"),
        (Literal["a/b", "c"], "s/{v:any}"),
        (Literal[1, 2], "s/{v:int}"),
        (Literal[True], "s/{v:bool}"),
        (Color, "s/{v}"),
        (Unit, "s/{v:any}"),
        (Level, "s/{v:int}"),
        (str | None, "s/{v?}"),
        (int | None, "s/{v:int?}"),
        (Annotated[int, Meta(ge=1)] | None, "s/{v:int?}"),
        (Literal["a", None], "s/{v?}"),
        (Literal["-", None], "s/{v:any?}"),
        (Color | None, "s/{v?}"),
    ],
)
def test_a_field_has_the_kind_of_its_annotation(annotation, pattern):
    assert text(annotation) == pattern
    assert text(annotation, "s/{v}") == pattern
    assert text(annotation, pattern) == pattern


ALLOWED = "must be str, int, float, bool, date, UUID, a Literal or an Enum"


@pytest.mark.parametrize(
    ("annotation", "shown"),
    [
        (list[str], r"list\[str\]"),
        (datetime, "datetime"),
        (bytes, "bytes"),
        (object, "object"),
        (Any, "typing.Any"),
        (int | str, r"int \| str"),
        (None, "NoneType"),
        (Literal["a", 1], r"typing.Literal\['a', 1\]"),
        (Literal["", "a"], r"typing.Literal\['', 'a'\]"),
        (Literal[None], r"typing.Literal\[None\]"),
        (Enum("Half", {"A": 0.5}), "<enum 'Half'>"),
        (Enum("Empty", {}), "<enum 'Empty'>"),
    ],
)
def test_a_type_that_no_path_can_contain_is_a_type_error_with_the_allowed_ones(annotation, shown):
    with pytest.raises(TypeError, match=f"the annotation of 'v' {ALLOWED}.*, got {shown}"):
        text(annotation)


@pytest.mark.parametrize(
    ("pattern", "annotation", "message"),
    [
        ("s/{v:int}", str, "the annotation of {v:int} must be int, got str"),
        ("s/{v:any}", int, "the annotation of {v:any} must be str, got int"),
        ("s/{v:float}", int, "the annotation of {v:float} must be float, got int"),
        ("s/{v:int}", bool, "the annotation of {v:int} must be int, got bool"),
        ("s/{v:uuid}", Color, "the annotation of {v:uuid} must be UUID, got <enum 'Color'>"),
        ("s/{v:int?}", int, r"the annotation of {v:int\?} must be int \| None, got int"),
        ("s/{v?}", str, r"the annotation of {v\?} must be str \| None, got str"),
        ("s/{v:rest}", str | None, r"the annotation of {v:rest} must be str, got str \| None"),
        ("s/{v:user}", str | None, r"the annotation of {v:user} must be str, got str \| None"),
    ],
)
def test_a_kind_and_an_annotation_that_differ_are_a_type_error_with_both(
    pattern, annotation, message
):
    with pytest.raises(TypeError, match=f"Source.s: {message}"):
        text(annotation, pattern)


class Host2(DataSource):
    @stream
    async def up(self) -> Rows:
        yield {"v": 1}

    @stream
    async def cpu(self, host: str, core: int = 0, *, raw: bool = False) -> Rows:
        yield {"host": host, "core": core, "raw": raw}

    @cpu.subscribe
    async def may_read(self, user: User | None, host: str, core: int, raw: bool) -> None: ...

    @stream()
    async def all_kinds(
        self,
        color: Color,
        unit: Unit,
        level: Level,
        day: date,
        id: UUID,
        limit: float | None = None,
        name: str | None = "none",
    ) -> Rows:
        values = (color, unit, level, day, id, limit, name)
        yield {"types": ",".join(type(v).__name__ for v in values), "values": str(values)}

    @stream(cursor="n", linger=3)
    async def log(self, after: Cursor, file: str) -> Rows:
        yield {"n": after.value + 1, "file": file}

    @log.history
    async def past(self, history_range: HistoryRange, file: str) -> list[Any]:
        return []

    @resource
    async def show(self, id: UUID, day: date | None) -> dict[str, str]:
        return {"id": type(id).__name__, "day": str(day)}

    @resource(method="POST")
    async def store(self, request: Request, level: Level = Level.LOW) -> str:
        return f"{level!r} {request.method}"


def test_a_path_without_a_pattern_is_the_name_and_the_parameters():
    plan = Host2._ds_plan
    assert {name: each.pattern.text for name, each in plan.streams.items()} == {
        "up": "up",
        "cpu": "cpu/{host}/{core:int}/{raw:bool}",
        "all_kinds": "all_kinds/{color}/{unit:any}/{level:int}/{day:date}/{id:uuid}"
        "/{limit:float?}/{name?}",
        "log": "log/{file}",
    }
    assert plan.streams["log"].options.linger == 3
    assert [each.pattern.text for each in plan.resources] == [
        "show/{id:uuid}/{day:date?}",
        "store/{level:int}",
    ]


PATH = f"all_kinds/red/a20vaA/2/2026-01-31/{ID}/-/none"


def test_a_path_is_built_from_values_of_the_annotated_types():
    built = Host2.all_kinds.path(Color.RED, Unit.SPEED, Level.HIGH, date(2026, 1, 31), ID)
    assert built == PATH
    live = LiveChannel(Host2.all_kinds, Color.RED, Unit.SPEED, Level.HIGH, date(2026, 1, 31), ID)
    assert live.path == PATH
    assert Host2.cpu.path("a", raw=True) == "cpu/a/0/true"


async def test_a_query_names_the_path_and_the_method_gets_values_of_the_annotated_types():
    async with serve_in_memory(Host2) as grafana:
        query = Host2._ds_plan.query_of(PATH)
        assert query == {
            "queryType": "all_kinds",
            "color": "red",
            "unit": "km/h",
            "level": 2,
            "day": "2026-01-31",
            "id": str(ID),
            "limit": None,
            "name": "none",
        }
        del query["limit"], query["name"]  # they have defaults
        query["id"] = ID.hex.upper()  # another spelling of the same value
        (frame,) = await grafana.query(query)
        assert frame.meta.channel == f"ds/test/{PATH}"
        row = await (await grafana.follow(PATH)).next()
        assert row["types"] == "Color,Unit,Level,date,UUID,NoneType,str"
        (frame,) = await grafana.query({"queryType": "cpu", "host": "a", "raw": True})
        assert frame.meta.channel == "ds/test/cpu/a/0/true"
        row = await (await grafana.follow("log/a.txt")).next()
        assert (row["n"], row["file"]) == (0, "a.txt")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"color": "green"}, "color: expected one of 'red', 'blue', got 'green'"),
        ({"unit": "mph"}, "unit: expected one of .*, got 'mph'"),
        ({"level": 3}, "level: expected one of .*, got 3"),
        ({"day": "31.1.2026"}, "day: invalid .*, got '31.1.2026'"),
        ({"id": "7"}, "id: invalid UUID, got '7'"),
        ({"limit": "many"}, "limit: expected float.*, got 'many'"),
        ({"name": "-"}, "name must not be '-', which a path has for None"),
        ({"name": "a/b"}, "name must be of letters"),
    ],
)
async def test_a_value_that_does_not_fit_its_annotation_is_a_bad_query(changed, message):
    async with serve_in_memory(Host2) as grafana:
        query = Host2._ds_plan.query_of(PATH) | changed
        with pytest.raises(QueryFailed, match=message) as failed:
            await grafana.query(query)
        assert failed.value.status == 400


async def test_a_resource_gets_values_of_the_annotated_types():
    async with serve_in_memory(Host2) as grafana:
        answer = await grafana.resource(f"show/{ID}/-")
        assert answer.body == b'{"id":"UUID","day":"None"}'
        assert (await grafana.resource(f"show/{ID.hex}/-")).status == 404
        answer = await grafana.resource("store/2", method="POST")
        assert answer.body == b'"<Level.HIGH: 2> POST"'
        assert (await grafana.resource("store/3", method="POST")).status == 404


def test_a_subclass_has_the_paths_of_its_base():
    class Sub(Host2):
        pass

    class Other(Host2):
        @stream
        async def cpu(self, host: int) -> Rows:
            yield {}

        async def may_read(self, user: User | None, host: int) -> None: ...  # type: ignore[override]

    assert Sub._ds_plan.streams["cpu"].pattern.text == "cpu/{host}/{core:int}/{raw:bool}"
    assert Other._ds_plan.streams["cpu"].pattern.text == "cpu/{host:int}"
    assert Host2._ds_plan.streams["cpu"].pattern.text == "cpu/{host}/{core:int}/{raw:bool}"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("self, *hosts: str", r"expected a parameter for one argument by name, got '\*hosts"),
        ("self, **more: str", r"expected a parameter for one argument by name, got '\*\*more"),
        ("self, host: str, /", "expected a parameter for one argument by name, got 'host"),
        ("", "expected `self` as its first parameter, got no parameters"),
        ("self, key: str", "must not be named 'key', .* than alias, .*datasourceId, exact, hide"),
        ("self, max_data_points: int", "must not be named 'maxDataPoints'"),
        ("self, exact: bool", "must not be named 'exact'"),
        ("self, datasource_id: int", "must not be named 'datasourceId'"),
        ("self, größe: int = 'a'", "the default 'a' of 'größe': größe must be an integer, got 'a'"),
        ("self, day: date = '2026-01-31'", "the default '2026-01-31' of 'day': day must be a date"),
        ("self, color: Color = 'red'", None),
        (
            "self, color: Color = 'green'",
            "the default 'green' of 'color': expected one of 'red', 'blue'",
        ),
    ],
)
def test_a_signature_that_no_path_can_have_is_a_type_error(parameters, message):
    found: dict[str, Any] = {"date": date, "Color": Color}
    exec(f"async def s({parameters}):\n    yield {{}}\n", found)
    if message is None:
        type("Source", (DataSource,), {"s": stream(found["s"])})
        return
    with pytest.raises(TypeError, match=f"Source.s: .*{message}"):
        type("Source", (DataSource,), {"s": stream(found["s"])})


def test_a_method_whose_name_no_path_can_have_is_a_type_error():
    async def größe(self):
        yield {}

    async def x(self):
        yield {}

    with pytest.raises(TypeError, match="größe: each segment must be of letters.* got 'größe'"):
        stream(größe)
    with pytest.raises(TypeError, match="Source.x: the path must not start with 'x', got 'x'"):
        type("Source", (DataSource,), {"x": stream(x)})
