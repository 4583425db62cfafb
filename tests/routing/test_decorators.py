"""What a decorator stores and refuses, and the paths that streams and `LiveChannel` build."""

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aiostream_ds import (
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
from aiostream_ds.decorators import HandlerInfo, HookMark, handler_info


class Sensors(DataSource):
    @stream("sensors/{id}/{hz:int}", linger=2, buffer=Buffer(rows=5), retry=Retry(max_delay=9))
    async def sensor(self, id: str, hz: int = 1) -> Rows:
        """One sensor."""
        yield {"id": id, "hz": hz, "self": self}


def test_a_stream_is_itself_on_the_class_and_a_bound_method_on_an_instance(made):
    assert Sensors.sensor.name == "sensor" and Sensors.sensor.__doc__ == "One sensor."
    assert made.sensor.__self__ is made


@pytest.fixture
def made():
    return Sensors()


async def test_a_stream_called_on_an_instance_runs(made):
    rows: AsyncIterator[Any] = made.sensor("a", hz=2)
    assert await anext(rows) == {"id": "a", "hz": 2, "self": made}
    await rows.aclose()  # type: ignore[attr-defined]


def test_live_and_path_bind_arguments_as_the_method_does():
    assert Sensors.sensor.path("a") == "sensors/a/1"
    live = LiveChannel(Sensors.sensor, hz=5, id="a")
    assert (live.stream, live.path, live.history) == ("sensor", "sensors/a/5", None)
    frame = Frame()
    assert live.with_history(frame) is live and live.history is frame


@pytest.mark.parametrize("arguments", [{}, {"nope": 1}, {"id": "a", "more": 1}])
def test_arguments_that_the_method_does_not_take_are_a_type_error(arguments):
    with pytest.raises(TypeError):
        LiveChannel(Sensors.sensor, **arguments)


def test_a_value_that_no_path_can_hold_is_a_bad_query():
    with pytest.raises(BadQuery, match="id is 'a b'"):
        LiveChannel(Sensors.sensor, id="a b")


def test_hooks_are_marked_on_their_own_function_and_not_on_the_stream():
    async def hook(self: Any, user: Any, id: str, hz: int = 1) -> None: ...

    before = vars(Sensors.sensor).copy()
    assert Sensors.sensor.subscribe(hook) is hook
    assert handler_info(hook) == HandlerInfo(hooks=(HookMark("sensor", "subscribe"),))
    assert vars(Sensors.sensor) == before


def test_a_wrapper_that_keeps_the_name_keeps_the_mark():
    @query
    async def one(self: Any, q: Query) -> Frame:
        return Frame()

    @functools.wraps(one)
    async def wrapper(*arguments: Any) -> Frame:
        return await one(*arguments)

    assert handler_info(wrapper) == HandlerInfo(query="one")


async def method(self: Any) -> AsyncIterator[Any]:
    yield 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"linger": -1}, "linger is -1"),
        ({"linger": float("nan")}, "linger is nan"),
        ({"linger": "1"}, "linger is '1'"),
        ({"buffer": "latest"}, "buffer is 'latest'"),
        ({"retry": 5}, "retry is 5"),
        ({"replay": None}, "replay is None; allowed is a Replay"),
        ({"schema": {}}, "schema is {}; allowed is a SchemaPolicy"),
        ({"order": "hold"}, "order is 'hold'; allowed is a RowOrder"),
        ({"cursor": ""}, "cursor is ''; allowed is the name of a column"),
        ({"cursor": 1}, "cursor is 1"),
        ({"cursor": "n", "order": RowOrder()}, "order and cursor are two orders"),
        ({"cursor": "n", "schema": SchemaPolicy(labels=("a",))}, "schema has labels, and the rows"),
        ({"speed": 1}, "speed"),
    ],
)
def test_a_bad_option_of_a_stream_is_a_type_error_that_names_the_method(options, message):
    with pytest.raises(TypeError, match=f"test_decorators.method: .*{message}"):
        stream("a", **options)(method)


@pytest.mark.parametrize("path", ["", "/a", "a//b", "{x:uuid}", "{x}/{x}", "{r:rest}/a", "a b"])
@pytest.mark.parametrize("mark", [stream, resource])
def test_a_bad_path_is_a_type_error_that_names_the_method(mark, path):
    with pytest.raises(TypeError, match="test_decorators.method: "):
        mark(path)(method)


def test_an_unknown_http_method_is_a_type_error():
    with pytest.raises(
        TypeError, match="test_decorators.method: the HTTP method 'get' is none of GET"
    ):
        resource("a", method="get")(method)  # type: ignore[arg-type]


@pytest.mark.parametrize("mark, spelling", [(stream, "@stream"), (resource, "@resource")])
def test_a_mark_without_its_path_says_how_it_is_written(mark, spelling):
    with pytest.raises(TypeError, match=f'write {spelling}."path/'):
        mark(method)


@pytest.mark.parametrize(
    "mark",
    [stream("a"), query, query("q"), resource("a"), Sensors.sensor.subscribe],
    ids=["stream", "query", "named query", "resource", "hook"],
)
@pytest.mark.parametrize(
    "value",
    [staticmethod(method), classmethod(method), property(method), functools.partial(method), 5],
    ids=["staticmethod", "classmethod", "property", "partial", "number"],
)
def test_only_a_method_can_be_marked(mark, value):
    with pytest.raises(TypeError, match="marks a method"):
        mark(value)


def test_anything_may_be_asked_for_its_marks():
    assert [handler_info(each) for each in (None, 5, int, Sensors, method)] == [HandlerInfo()] * 5
