"""Look-ups in a plan: the stream of a path, the method of a query, the resource of a URL."""

from typing import Literal

import msgspec
import pytest

from aiostream_ds import (
    BadQuery,
    DataSource,
    Frame,
    NotFound,
    Query,
    Rows,
    query,
    resource,
    stream,
)
from aiostream_ds._routing.plan import QueryPlan

from .base import Base, Pick


def test_match_finds_the_stream_and_its_checked_arguments():
    found, arguments = Base._ds_plan.match("b/7")
    assert (found.name, arguments) == ("b", {"n": 7})


def test_the_arguments_of_a_path_that_was_matched_before_are_new_ones():
    _, arguments = Base._ds_plan.match("b/8")
    arguments["n"] = 0
    found, others = Base._ds_plan.match("b/8")
    assert (found.name, others) == ("b", {"n": 8})
    others.clear()
    assert Base._ds_plan.match("b/8")[1] == {"n": 8}


def test_a_plan_remembers_a_limited_number_of_paths(monkeypatch):
    monkeypatch.setattr("aiostream_ds._routing.plan._MATCHES", 2)
    plan = Base._ds_plan
    for n in range(1, 20):
        assert plan.match(f"b/{n}")[1] == {"n": n}
        assert len(plan._matches) <= 2


@pytest.mark.parametrize(
    "path, message",
    [
        ("c", "expected a path of the streams 'a/{id}', 'b/{n:int}', got 'c'"),
        ("b/07", "expected a path of the streams"),
        ("x/a/1", "expected a path of the streams"),
        ("b/0", "path 'b/0': n: expected int >= 1, got 0"),
    ],
)
def test_a_path_of_no_stream_is_not_found(path, message):
    with pytest.raises(NotFound) as caught:
        Base._ds_plan.match(path)
    assert message in caught.value.message


def test_the_query_of_a_stream_has_the_fields_of_its_path_with_their_defaults():
    b = Base._ds_plan.streams["b"]
    made = msgspec.convert({"refId": "B"}, b.query_type)
    assert b.path(made) == "b/5"
    assert b.path(msgspec.convert({"n": 6}, b.query_type)) == "b/6"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"n": 0}, b.query_type)


def test_a_field_cannot_select_an_exact_channel():
    class Wide(DataSource):
        @stream("{a}/{b}")
        async def wide(self, a: str, b: str) -> Rows:
            yield {}

    wide = Wide._ds_plan.streams["wide"]
    assert wide.arguments("y/b") == {"a": "y", "b": "b"} and wide.arguments("x/b") is None
    with pytest.raises(BadQuery, match="the path must not start with 'x', got 'x/b'"):
        wide.path(msgspec.convert({"a": "x", "b": "b"}, wide.query_type))


def test_a_query_type_selects_its_handler_and_an_empty_one_the_only_handler():
    assert Base._ds_plan.query("pick") == QueryPlan("pick", Pick)
    assert Base._ds_plan.query("a") is Base._ds_plan.streams["a"]
    only = type("Only", (Base,), {"b": None, "pick": None})
    assert only._ds_plan.query("") is only._ds_plan.streams["a"]


@pytest.mark.parametrize("query_type", ["", "nope"])
def test_the_error_for_an_unknown_query_type_lists_the_known_ones(query_type):
    with pytest.raises(BadQuery, match=f"must be one of 'pick', 'a', 'b', got '{query_type}'"):
        Base._ds_plan.query(query_type)


def test_a_resource_is_found_by_method_and_path_and_the_values_are_checked():
    class Shown(DataSource):
        @resource("{kind}/{n:int}")
        async def show(self, kind: Literal["a", "b"], n: int) -> None: ...

    plan = Shown._ds_plan
    found = plan.resource("GET", "a/3")
    assert found is not None and found[1] == {"kind": "a", "n": 3}
    assert plan.resource("POST", "a/3") is None and plan.resource("GET", "a") is None
    with pytest.raises(NotFound, match="kind: expected one of 'a', 'b', got 'c'"):
        plan.resource("GET", "c/3")


def test_a_reserved_resource_belongs_to_no_author():
    class Wide(DataSource):
        @resource("{p:rest}")
        async def show(self, p: str) -> None: ...

    assert Wide._ds_plan.resource("GET", "replay/rows") is None
    assert Wide._ds_plan.resource("GET", "replays/rows") is not None


async def test_the_empty_name_answers_queries_without_a_type():
    class Two(DataSource):
        @query("")
        async def either(self, q: Query) -> Frame:
            return Frame()

        @query
        async def other(self, q: Query) -> Frame:
            return Frame()

    assert Two._ds_plan.query("").method == "either"
    assert Two._ds_plan.query("other").method == "other"
