"""The plan of a class: what it inherits, and each mistake that is refused."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta

from aiostream_ds import (
    Buffer,
    Columns,
    Cursor,
    DataSource,
    Frame,
    HistoryRange,
    Query,
    Retry,
    Row,
    RowOrder,
    Rows,
    Settings,
    Status,
    User,
    query,
    resource,
    stream,
)
from aiostream_ds._routing.plan import QueryPlan

from .base import Base, Pick, Reading


def test_a_plan_has_every_handler():
    plan = Base._ds_plan
    a, b = plan.streams["a"], plan.streams["b"]
    assert (a.name, a.pattern.text, a.options.linger, a.row) == ("a", "a/{id}", 1, Reading)
    assert (a.options.buffer, a.options.retry) == (Buffer(rows=7), Retry(max_delay=3))
    assert (a.subscribe, a.history, a.publish) == ("may", "past", None)
    assert (b.row, b.subscribe, b.history) == (None, None, None)
    assert b.publish is not None and (b.publish.method, b.publish.data) == ("push", int)
    assert plan.queries == {"pick": QueryPlan("pick", Pick)} and plan.settings is Settings
    shown = [(r.method, r.http_method, r.wants_request, r.is_generator) for r in plan.resources]
    assert shown == [("show", "GET", False, False), ("store", "POST", True, True)]


def test_a_plan_cannot_be_changed():
    with pytest.raises(TypeError):
        Base._ds_plan.streams["c"] = Base._ds_plan.streams["a"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        Base._ds_plan.settings = Settings  # type: ignore[misc]


# Inheritance


def test_an_override_without_a_decorator_stays_a_query_resource_or_hook():
    class Sub(Base):
        async def may(self, user: User | None, id: str) -> None: ...
        async def past(self, history_range: HistoryRange, id: str) -> list[Reading]:
            return []

        async def pick(self, q: Pick) -> Frame:
            return Frame()

        async def show(self, id: str) -> None: ...

    assert (
        Sub._ds_plan.streams["a"].subscribe == "may" and Sub._ds_plan.streams["a"].history == "past"
    )
    assert Sub._ds_plan.queries == Base._ds_plan.queries
    assert [r.method for r in Sub._ds_plan.resources] == ["show", "store"]


def test_an_override_in_a_mixin_stays_a_hook():
    class Mixin:
        async def may(self, user: User | None, id: str) -> None: ...

    class Sub(Mixin, Base):
        pass

    assert Sub._ds_plan.streams["a"].subscribe == "may" and Sub.may is Mixin.may


def test_an_overridden_stream_keeps_its_hooks():
    class Sub(Base):
        @stream("other/{id}")
        async def a(self, id: str) -> Rows:
            yield {}

    found = Sub._ds_plan.streams["a"]
    assert (found.pattern.text, found.subscribe, found.history) == ("other/{id}", "may", "past")


def test_a_stream_overridden_with_other_fields_than_its_hooks_take_is_refused():
    with pytest.raises(TypeError, match=r"Sub.may: expected .*\(user, other\).*\(user, id\)"):

        class Sub(Base):
            @stream("other/{other}")
            async def a(self, other: str) -> Rows:
                yield {}


def test_none_removes_a_stream_with_its_hooks_a_query_and_a_resource():
    class Sub(Base):
        a = None  # type: ignore[assignment]
        pick = None  # type: ignore[assignment]
        show = None  # type: ignore[assignment]

    assert set(Sub._ds_plan.streams) == {"b"} and not Sub._ds_plan.queries
    assert [r.method for r in Sub._ds_plan.resources] == ["store"]
    assert set(Base._ds_plan.streams) == {"a", "b"}


def test_a_removed_stream_that_is_defined_again_has_its_hooks_again():
    class Gone(Base):
        a = None  # type: ignore[assignment]

    class Back(Gone):
        @stream("a/{id}")
        async def a(self, id: str) -> Rows:
            yield {}

    assert Back._ds_plan.streams["a"].subscribe == "may"


def test_a_hook_of_a_subclass_changes_neither_base_nor_siblings():
    class One(Base):
        @Base.b.subscribe
        async def guard(self, user: User | None, n: int) -> None: ...

    class Two(Base):
        pass

    assert One._ds_plan.streams["b"].subscribe == "guard"
    assert (
        Base._ds_plan.streams["b"].subscribe is None and Two._ds_plan.streams["b"].subscribe is None
    )


def test_a_hook_decorated_for_another_stream_in_a_subclass_stays_a_hook_of_the_first():
    class Both(Base):
        @stream("c/{id}")
        async def c(self, id: str) -> Rows:
            yield {}

        @c.subscribe
        async def may(self, user: User | None, id: str) -> None: ...

    assert Both._ds_plan.streams["a"].subscribe == Both._ds_plan.streams["c"].subscribe == "may"


def test_one_function_may_be_the_hook_of_two_streams():
    class Two(DataSource):
        @stream("a/{id}")
        async def a(self, id: str) -> Rows:
            yield {}

        @stream("b/{id}")
        async def b(self, id: str) -> Rows:
            yield {}

        @a.subscribe
        @b.subscribe
        async def may(self, user: User | None, id: str) -> None: ...

    assert [s.subscribe for s in Two._ds_plan.streams.values()] == ["may", "may"]


OVERRIDES: dict[str, tuple[str, Any]] = {
    "a hook by None": ("may", None),
    "a hook by a number": ("may", 5),
    "a hook by a staticmethod": ("may", staticmethod(lambda user, id: None)),
    "a hook by a stream": ("may", "stream"),
    "a hook by a query": ("may", "query"),
    "a stream by a method": ("a", lambda self, id: None),
    "a stream by a number": ("a", 5),
    "a query by a property": ("pick", property(lambda self: None)),
    "a resource by a class": ("show", int),
    "a stream under another name": ("alias", Base.a),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_a_handler_cannot_be_lost_by_an_override(case):
    name, value = OVERRIDES[case]

    async def may(self: Any) -> Any:
        yield {}

    async def ask(self: Any, q: Pick) -> Any: ...

    if value in ("stream", "query"):
        value = stream("m")(may) if value == "stream" else query(ask)
    with pytest.raises(TypeError, match=f"test_compiler.Sub.{name}: "):
        type("Sub", (Base,), {name: value, "__module__": __name__})


def test_a_staticmethod_around_a_decorated_function_is_refused():
    with pytest.raises(TypeError, match="Sub.may: a handler must be .* got <staticmethod"):

        class Sub(DataSource):
            @stream("a")
            async def a(self) -> Rows:
                yield {}

            @staticmethod
            @a.subscribe
            async def may(user: Any) -> None: ...


# Mistakes. Each row: the member that the error names, its message, and the class body.

Body = Callable[[], dict[str, Any]]
WRONG: list[tuple[str, str, Body]] = []


def wrong(member: str, message: str) -> Callable[[Body], Body]:
    def add(body: Body) -> Body:
        WRONG.append((member, message, body))
        return body

    return add


def a_stream(path: str, run: Any, name: str = "s") -> dict[str, Any]:
    run.__name__ = name
    return {name: stream(path)(run)}


def hooked(kind: str, hook: Any) -> dict[str, Any]:
    async def run(self, id):
        yield {}

    members = a_stream("s/{id}", run)
    return members | {"hook": getattr(members["s"], kind)(hook)}


@wrong("s", "expected a parameter 'id' for the path 's/{id}', got none")
def _():
    async def run(self):
        yield {}

    return a_stream("s/{id}", run)


@wrong("s", "fields of the path 's', got also 'other'")
def _():
    async def run(self, other):
        yield {}

    return a_stream("s", run)


@wrong("s", "expected a parameter for one argument by name, got '**rest'")
def _():
    async def run(self, id, **rest):
        yield {}

    return a_stream("s/{id}", run)


@wrong("s", "expected a parameter for one argument by name, got 'id'")
def _():
    async def run(self, id, /):
        yield {}

    return a_stream("s/{id}", run)


@wrong("s", "expected `self` as its first parameter")
def _():
    async def run():
        yield {}

    return a_stream("s", run)


@wrong("s", "a stream must be a method with a `yield`, got <function")
def _():
    async def run(self): ...

    return a_stream("s", run)


@wrong("s", "the annotation of {n:int} must be int, got str")
def _():
    async def run(self, n: str):
        yield {}

    return a_stream("s/{n:int}", run)


@wrong("s", "the annotation of {n:int} must be int, got str")
def _():
    async def run(self, n: str):
        yield {}

    return a_stream("s/{n:int}", run)


@wrong("s", "of the types str, int and bool, or one of them | None, got typing.Literal['a', 1]")
def _():
    async def run(self, n: Literal["a", 1]):
        yield {}

    return a_stream("s/{n}", run)


@wrong("s", "the default 0 of 'n': expected int >= 1, got 0")
def _():
    async def run(self, n: Annotated[int, Meta(ge=1)] = 0):
        yield {}

    return a_stream("s/{n:int}", run)


@wrong("s", "the default None of 'n': ")
def _():
    async def run(self, n: int = None):
        yield {}  # type: ignore[assignment]

    return a_stream("s/{n:int}", run)


@wrong("s", "the default 'a b' of 'id': ")
def _():
    async def run(self, id: str = "a b"):
        yield {}

    return a_stream("s/{id}", run)


@wrong("s", "the path must not start with 'x', got 'x/{id}'")
def _():
    async def run(self, id):
        yield {}

    return a_stream("x/{id}", run)


@wrong("s", "a field must not be named 'refId', which Grafana writes into every query; use another")
def _():
    async def run(self, ref_id):
        yield {}

    return a_stream("s/{ref_id}", run)


@wrong("s", "a field must not be named 'refId', which Grafana writes into every query; use another")
def _():
    async def run(self, refId):
        yield {}

    return a_stream("s/{refId}", run)


@wrong("s", "Multiple fields rename to the same name")
def _():
    async def run(self, a_b, aB):
        yield {}

    return a_stream("s/{a_b}/{aB}", run)


@wrong("two", "got 's/{id}', which overlaps 's/{other}' of 'one'")
def _():
    async def one(self, other):
        yield {}

    async def two(self, id):
        yield {}

    return a_stream("s/{other}", one, "one") | a_stream("s/{id}", two, "two")


@wrong("s", "Unusual.thing must be bool, ")
def _():
    class Unusual(Row):
        thing: complex

    async def run(self) -> Rows[Unusual]:
        yield Unusual(1j)

    return a_stream("s", run)


@pytest.mark.parametrize("name", ["_ds_plan", "settings", "instance", "lifespan", "health"])
def test_a_handler_cannot_have_the_name_of_a_data_source_attribute(name):
    async def run(self):
        yield {}

    async def answer(self, q: Pick): ...

    answer.__name__ = name
    for members in (a_stream("s", run, name), {name: query(answer)}):  # type: ignore[type-var]
        with pytest.raises(TypeError, match=f"Sub.{name}: a handler must not have the name"):
            type("Sub", (DataSource,), members)


@wrong("hook", "expected the parameters (user, id) of a subscribe hook, got (user)")
def _():
    async def hook(self, user): ...

    return hooked("subscribe", hook)


@wrong("hook", "(history_range, id) of a history hook, got (history_range, other)")
def _():
    async def hook(self, history_range, other): ...

    return hooked("history", hook)


@wrong("hook", "expected the parameters (data, id) of a publish hook, got (id, data)")
def _():
    async def hook(self, id, data): ...

    return hooked("publish", hook)


@wrong("hook", "expected the parameters (data, id) or (data, user, id) of a publish hook, got")
def _():
    async def hook(self, id, data, user): ...

    return hooked("publish", hook)


@wrong("hook", "expected a parameter for one argument by name, got 'id'")
def _():
    async def hook(self, user, id, /): ...

    return hooked("subscribe", hook)


@wrong("hook", "expected a parameter for one argument by position, got 'user'")
def _():
    async def hook(self, *, user, id): ...

    return hooked("subscribe", hook)


@wrong("hook", "a history hook must be a method without a yield, got")
def _():
    async def hook(self, history_range, id):
        yield {}

    return hooked("history", hook)


@wrong("hook", "a subscribe hook must be a method without a yield, got")
def _():
    def hook(self, user, id):
        yield

    return hooked("subscribe", hook)


@wrong("second", "expected one subscribe hook of 's', got also 'hook'")
def _():
    async def hook(self, user, id): ...
    async def second(self, user, id): ...

    members = hooked("subscribe", hook)
    return members | {"second": members["s"].subscribe(second)}


@wrong("hook", "expected a history hook of a stream of this class, got one of 's'")
def _():
    async def hook(self, history_range, id): ...

    return {"hook": hooked("history", hook)["hook"]}


@wrong("hook", "expected a hook, a query or a resource, got a hook and a query")
def _():
    async def hook(self, q: Pick, id): ...

    return hooked("subscribe", query(hook))  # type: ignore[type-var]


@wrong("hook", "cannot be decoded from JSON")
def _():
    async def hook(self, data: Frame, id): ...

    return hooked("publish", hook)


@wrong("q", "a query must be a method without a yield, got")
def _():
    def q(self, one: Pick):
        yield

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "for one argument by position, got 'one: tests.routing.base.Pick'")
def _():
    async def q(self, *, one: Pick): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "one of them | None, got None; for fields of other types use a Query class")
def _():
    async def q(self, one): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "the annotation of 'many' must be str, int, float, bool, date, UUID, a Literal")
def _():
    async def q(self, one: str, many: list[str]): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "the default 'ten' of 'limit': expected int, got 'ten'")
def _():
    async def q(self, limit: int = "ten"): ...  # type: ignore[assignment]

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "a Query must be the first argument, got it as 'q'")
def _():
    async def q(self, one: str, q: Query): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "expected one field 'sensor', got also that of Picking")
def _():
    class Picking(Query):
        sensor: str = ""

    async def q(self, q: Picking, sensor: str): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "a field must not be named 'maxDataPoints', which Grafana writes into every query")
def _():
    async def q(self, max_data_points: int): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "for one argument by name, got '*names: str'")
def _():
    async def q(self, *names: str): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "for one argument by name, got 'one: str'")
def _():
    async def q(self, one: str, /): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("q", "the annotation of 'one' must name something that exists at run time, got Nothing")
def _():
    async def q(self, one: "Nothing"): ...  # type: ignore[name-defined]  # noqa: F821

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("other", "expected one handler of the query type 'q', got also 'q'")
def _():
    async def q(self, one: Pick): ...
    async def other(self, one: Pick): ...

    return {"q": query(q), "other": query("q")(other)}  # type: ignore[type-var]


@wrong("q", "expected one handler of the query type 's', got also the stream 's'")
def _():
    async def run(self):
        yield {}

    async def q(self, one: Pick): ...

    return a_stream("s", run) | {"q": query("s")(q)}  # type: ignore[type-var]


@wrong("q", "Unusual cannot be decoded from JSON")
def _():
    class Unusual(Query):
        frame: Frame | None = None

    async def q(self, one: Unusual): ...

    return {"q": query(q)}  # type: ignore[type-var]


@wrong("r", "the path must not start with 'replay', got 'replay/rows'")
def _():
    async def r(self): ...

    return {"r": resource("replay/rows")(r)}


@wrong("r", "fields of the path 'r', got also 'other'")
def _():
    async def r(self, other, request): ...

    return {"r": resource("r")(r)}


@wrong("r", "the annotation of {n:int} must be int, got str")
def _():
    async def r(self, n: str): ...

    return {"r": resource("r/{n:int}")(r)}


@wrong("r", "a path field must not be named 'request'")
def _():
    async def r(self, request): ...

    return {"r": resource("r/{request}")(r)}


@wrong("other", "got 'r/b', which overlaps 'r/{id}' of 'r'")
def _():
    async def r(self, id): ...
    async def other(self): ...

    return {"r": resource("r/{id}")(r), "other": resource("r/b")(other)}


@wrong("health", "expected no arguments after self, got user")
def _():
    async def health(self, user): ...

    return {"health": health}


@wrong("health", "must be a method without a yield, got")
def _():
    def health(self):
        yield

    return {"health": health}


@wrong("lifespan", "decorate it with @asynccontextmanager and `yield` in it")
def _():
    async def lifespan(self):
        yield

    return {"lifespan": lifespan}


@wrong("lifespan", "decorate it with @contextmanager and `yield` in it")
def _():
    def lifespan(self):
        yield

    return {"lifespan": lifespan}


@pytest.mark.parametrize("member, message, body", WRONG, ids=[w[1][:50] for w in WRONG])
def test_a_mistake_is_a_type_error_that_names_class_and_member(member, message, body):
    members = body() | {"__module__": "mine", "__qualname__": "Mine"}
    with pytest.raises(TypeError) as caught:
        type("Mine", (DataSource,), members)
    assert str(caught.value).startswith(f"mine.Mine.{member}: ")
    assert message in str(caught.value)


def test_two_methods_may_answer_one_path_by_different_http_methods():
    assert Base._ds_plan.resource("GET", "r/a") is not None
    assert Base._ds_plan.resource("POST", "r/a") is not None


# Row types


@pytest.mark.parametrize(
    "kind", [Row, Frame, Columns, Columns[Any], list[Columns], Columns | Status], ids=str
)
def test_rows_without_a_class_leave_the_schema_open(kind):
    async def run(self):
        yield {}

    run.__annotations__["return"] = AsyncIterator[kind]
    made = type("Made", (DataSource,), a_stream("s", run))
    assert made._ds_plan.streams["s"].row is None


@pytest.mark.parametrize(
    "kind",
    [list[Reading], Annotated[Reading, "what"], Columns[Reading], Reading | Columns[Reading]],
    ids=str,
)
def test_a_row_class_is_found_inside(kind):
    async def run(self):
        yield {}

    run.__annotations__["return"] = AsyncIterator[kind]
    made = type("Made", (DataSource,), a_stream("s", run))
    assert made._ds_plan.streams["s"].row is Reading


@pytest.mark.parametrize("kind", [int, str, float, datetime, list[int], Annotated[str, "x"]])
def test_a_stream_of_anything_but_rows_is_refused(kind):
    with pytest.raises(TypeError, match=r"\.numbers: a row must be a dict, .*, got \w+"):

        class Numbers(DataSource):
            @stream("numbers")
            async def numbers(self) -> Rows[kind]:  # type: ignore[valid-type]
                yield 1


# Cursors and orders


class Moment(Row):
    time: datetime
    celsius: float


def test_a_stream_with_a_cursor_needs_a_history_hook():
    with pytest.raises(TypeError, match=r"\.log: expected a history hook .* with @log.history"):

        class Log(DataSource):
            @stream("log", cursor="n")
            async def log(self, after: Cursor):
                yield {"n": 1}


def test_a_stream_with_a_cursor_takes_a_cursor_before_the_fields_of_its_path():
    with pytest.raises(TypeError, match=r"\.log: the first parameter .* must be a `Cursor"):

        class Log(DataSource):
            @stream("log", cursor="n")
            async def log(self):
                yield {"n": 1}

            @log.history
            async def past(self, history_range: HistoryRange) -> list[Any]:
                return []


@pytest.mark.parametrize("cursor", ["nothing", "celsius", "time"])
def test_a_cursor_must_be_an_integer_field_of_the_row(cursor):
    with pytest.raises(
        TypeError, match=f"cursor must be an int field of Moment .*, got '{cursor}'"
    ):

        class Log(DataSource):
            @stream("log", cursor=cursor)
            async def log(self, after: Cursor) -> Rows[Moment | Cursor]:
                yield Moment(datetime.now(UTC), 1.0)

            @log.history
            async def past(self, history_range: HistoryRange) -> list[Moment]:
                return []


def test_a_column_in_an_order_must_be_a_field_of_the_row():
    with pytest.raises(TypeError, match="nowhere"):

        class Radio(DataSource):
            @stream("radio", order=RowOrder(late="drop", by=("nowhere",)))
            async def radio(self) -> Rows[Moment]:
                yield Moment(datetime.now(UTC), 1.0)


@pytest.mark.parametrize("name", ["key", "hide", "datasource", "alias"])
def test_a_field_must_not_have_the_name_of_a_key_that_grafana_writes(name):
    text = f"async def s(self, {name}: str):\n    yield {{}}\n"
    found: dict[str, Any] = {}
    exec(text, found)
    with pytest.raises(TypeError, match=f"{name!r}, which Grafana writes into every query"):
        type("Taken", (DataSource,), {"s": stream(f"redis/{{{name}}}")(found["s"])})
    kind = type(Query)("Taken", (Query,), {"__annotations__": {name: str}, name: ""})

    async def pick(self, q: kind) -> Frame:  # type: ignore[valid-type]
        return Frame()

    with pytest.raises(TypeError, match=f"{name!r}, which Grafana writes into every query"):
        type("Taken", (DataSource,), {"pick": query(pick)})
