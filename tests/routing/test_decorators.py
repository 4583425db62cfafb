"""What a decorator stores and refuses, and the paths that streams and `LiveChannel` format."""

import ast
import functools
import inspect
import typing
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from aiostream_ds import (
    Allow,
    BadQuery,
    Buffer,
    DataSource,
    Frame,
    LiveChannel,
    Query,
    Retry,
    RowOrder,
    Rows,
    SchemaPolicy,
    query,
    resource,
    stream,
)
from aiostream_ds._channels.policy import Policy
from aiostream_ds.decorators import (
    HandlerInfo,
    HookInfo,
    StreamKeywords,
    StreamOptions,
    handler_info,
)
from aiostream_ds.stores import Retention


class Sensors(DataSource):
    @stream("sensors/{id}/{hz:int}", linger=2, buffer=Buffer(rows=5), retry=Retry(max_delay=9))
    async def sensor(self, id: str, hz: int = 1) -> Rows:
        """One sensor."""
        yield {"id": id, "hz": hz, "self": self}


async def method(self: Any) -> AsyncIterator[Any]:
    yield 1


@pytest.fixture
def sensors():
    return Sensors()


def test_a_stream_is_an_object_on_the_class_and_a_bound_method_on_an_instance(sensors):
    assert Sensors.sensor.name == "sensor" and Sensors.sensor.__doc__ == "One sensor."
    assert sensors.sensor.__self__ is sensors


async def test_a_stream_can_be_called_on_an_instance(sensors):
    rows: AsyncIterator[Any] = sensors.sensor("a", hz=2)
    assert await anext(rows) == {"id": "a", "hz": 2, "self": sensors}
    await rows.aclose()  # type: ignore[attr-defined]


def test_live_channel_and_path_bind_arguments_as_the_method_does():
    assert Sensors.sensor.path("a") == "sensors/a/1"
    live = LiveChannel(Sensors.sensor, hz=5, id="a")
    assert (live.stream, live.path, live.history) == ("sensor", "sensors/a/5", None)
    frame = Frame()
    assert live.with_history(frame) is live and live.history is frame


@pytest.mark.parametrize("arguments", [{}, {"nope": 1}, {"id": "a", "more": 1}])
def test_arguments_that_the_method_does_not_take_are_a_type_error(arguments):
    with pytest.raises(TypeError):
        LiveChannel(Sensors.sensor, **arguments)


def test_a_value_that_no_path_can_contain_is_a_bad_query():
    with pytest.raises(BadQuery, match="id must be .* got 'a b'"):
        LiveChannel(Sensors.sensor, id="a b")


def test_a_hook_is_stored_on_its_own_function_and_not_on_the_stream():
    async def hook(self: Any, user: Any, id: str, hz: int = 1) -> None: ...

    before = vars(Sensors.sensor).copy()
    assert Sensors.sensor.subscribe(hook) is hook
    assert handler_info(hook) == HandlerInfo(hooks=(HookInfo("sensor", "subscribe"),))
    assert vars(Sensors.sensor) == before


def test_a_suggest_hook_is_stored_with_its_field():
    async def hook(self: Any, typed: str) -> list[str]:
        return []

    assert Sensors.sensor.suggest("id")(hook) is hook
    (info,) = handler_info(hook).hooks
    assert info == HookInfo("sensor", "suggest", "id") and info.label == "suggest 'id'"


@pytest.mark.parametrize("value", [5, None, Sensors])
def test_suggest_needs_the_name_of_a_field(value):
    with pytest.raises(TypeError, match=r"expected the name of a field, .*; use @sensor.suggest\("):
        Sensors.sensor.suggest(value)


def test_a_wrapper_that_keeps_the_attributes_keeps_the_handler():
    @query
    async def one(self: Any, q: Query) -> Frame:
        return Frame()

    @functools.wraps(one)
    async def wrapper(*arguments: Any) -> Frame:
        return await one(*arguments)

    assert handler_info(wrapper) == HandlerInfo(query="one")


# Options of a stream


def test_the_keywords_of_stream_are_the_fields_of_its_options():
    names = {"Allow": Allow, "Retention": Retention}
    keywords = typing.get_type_hints(StreamKeywords, localns=names)
    fields = typing.get_type_hints(StreamOptions)
    assert set(fields) == set(StreamOptions.__struct_fields__)
    assert {*keywords, "cursor"} == set(fields)
    # `allow` takes any sequence; the checked options have a tuple
    others = {"allow", "store"}  # their classes are imported when they are used
    assert all(fields[name] == kind for name, kind in keywords.items() if name not in others)
    assert keywords["allow"] == Sequence[Allow]
    assert keywords["store"] == Retention


def test_an_option_of_the_channel_is_a_field_of_its_policy_and_of_nothing_else():
    assert set(Policy.__annotations__) & set(StreamOptions.__annotations__) == {"replay"}
    chosen = {"buffer": Buffer(rows=5), "linger": 1, "stale": 2, "flush": 3, "max_hz": 4}
    assert set(chosen) == set(Policy.__annotations__) - {"replay"}
    assert StreamOptions(**chosen).policy == Policy(**chosen)


def test_every_keyword_of_stream_has_a_description():
    tree = ast.parse(inspect.getsource(StreamKeywords)).body[0]
    assert isinstance(tree, ast.ClassDef)
    names, descriptions = tree.body[1::2], tree.body[2::2]  # they alternate after the docstring
    assert {ast.unparse(each.target) for each in names} == set(StreamKeywords.__annotations__)  # type: ignore[attr-defined]
    texts = [ast.literal_eval(each.value) for each in descriptions]  # type: ignore[attr-defined]
    assert all(len(text.split()) >= 4 for text in texts), "a sentence, not a word"


def test_every_option_of_a_stream_has_a_default_that_passes_its_check():
    assert all(
        field.default is not msgspec.NODEFAULT for field in msgspec.structs.fields(StreamOptions)
    )
    assert stream("a")(method).options == StreamOptions()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"linger": -1}, "linger .*-1"),
        ({"linger": float("nan")}, "linger .*nan"),
        ({"linger": "1"}, "linger .*'1'"),
        ({"stale": -1}, "stale .*-1"),
        ({"flush": "1"}, "flush .*'1'"),
        ({"max_hz": True}, "max_hz .*True"),
        ({"buffer": "latest"}, "buffer must be a Buffer, got 'latest'"),
        ({"retry": 5}, "retry must be a Retry, got 5"),
        ({"replay": None}, "replay must be a Replay, got None"),
        ({"schema": {}}, "schema must be a SchemaPolicy, got {}"),
        ({"order": "hold"}, "order must be a RowOrder, got 'hold'"),
        ({"share": "all"}, "share must be 'process' or 'cluster', got 'all'"),
        ({"panel": 1}, 'panel must be the id of a panel, such as "logs", got 1'),
        ({"panel": "time series"}, "panel must be the id of a panel, .* got 'time series'"),
        ({"share": True}, "share must be 'process' or 'cluster', got True"),
        ({"status_column": "time"}, "status_column must be a name other than 'time', got 'time'"),
        ({"status_column": ""}, "status_column must be a name .* got ''"),
        ({"cursor": ""}, "cursor must be the name of a column, or a tuple of two, got ''"),
        ({"cursor": 1}, "cursor must be the name of a column, or a tuple of two, got 1"),
        ({"cursor": ["a", "b"]}, "or a tuple of two, got \\['a', 'b'\\]"),
        ({"cursor": ("a", "")}, "or a tuple of two, got \\('a', ''\\)"),
        ({"cursor": ("a",)}, "one or two different columns, got \\('a',\\)"),
        ({"cursor": ("a", "a")}, "one or two different columns, got \\('a', 'a'\\)"),
        ({"cursor": ("a", "b", "c")}, "one or two different columns, got "),
        ({"cursor": ()}, "one or two different columns, got \\(\\)"),
        ({"cursor": "n", "order": RowOrder()}, "expected an order or a cursor, got both"),
        (
            {"cursor": "n", "schema": SchemaPolicy(labels=("a", "n"))},
            "schema.labels must be other columns than the cursor, got \\('a', 'n'\\)",
        ),
        ({"speed": 1}, "speed"),
    ],
)
def test_a_bad_option_of_a_stream_is_a_type_error_that_names_the_method(options, message):
    with pytest.raises(TypeError, match=f"test_decorators.method: .*{message}"):
        stream("a", **options)(method)


# Bad arguments of the decorators


@pytest.mark.parametrize("path", ["", "/a", "a//b", "{x:hex}", "{x}/{x}", "{r:rest}/a", "a b"])
@pytest.mark.parametrize("decorator", [stream, resource])
def test_a_bad_path_is_a_type_error_that_names_the_method(decorator, path):
    with pytest.raises(TypeError, match="test_decorators.method: "):
        decorator(path)(method)


def test_an_unknown_http_method_is_a_type_error():
    with pytest.raises(
        TypeError,
        match="test_decorators.method: the HTTP method must be one of GET, POST.*, got 'get'",
    ):
        resource("a", method="get")(method)  # type: ignore[arg-type]


@pytest.mark.parametrize("decorator", [stream, resource])
@pytest.mark.parametrize("value", [5, b"a", int, staticmethod(method)])
def test_what_is_neither_a_path_nor_a_method_is_a_type_error(decorator, value):
    with pytest.raises(TypeError, match="expected a path.* or a method, got "):
        decorator(value)


@pytest.mark.parametrize(
    "decorator",
    [stream("a"), query, query("q"), resource("a"), Sensors.sensor.subscribe],
    ids=["stream", "query", "named query", "resource", "hook"],
)
@pytest.mark.parametrize(
    "value",
    [
        staticmethod(method),
        classmethod(method),
        property(method),
        functools.partial(method),
        5,
    ],
    ids=["staticmethod", "classmethod", "property", "partial", "number"],
)
def test_only_a_method_can_be_decorated(decorator, value):
    with pytest.raises(TypeError, match="must decorate a method, got "):
        decorator(value)


def test_every_object_has_handler_info():
    assert [handler_info(each) for each in (None, 5, int, Sensors, method)] == [HandlerInfo()] * 5
