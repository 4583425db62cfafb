"""One class in every style of annotation, and names that exist only for type checkers."""

import sys
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any, NewType

import pytest
from msgspec import Meta

from aiostream_ds._annotations import Unresolved, base_type, parameters, resolve, unwrap

IMPORTS = """
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal
from msgspec import Meta, Struct
from aiostream_ds import DataSource, Frame, LiveChannel, Query, Row, Rows, Settings, User
from aiostream_ds import HistoryRange, query, resource, stream
if TYPE_CHECKING:
    from aiostream_ds import Hidden
"""
CLASSES = """
Hz = Annotated[int, Meta(ge=1, le=100)]
class Own(Settings):
    url: str = "u"
class Reading(Row):
    time: datetime
    value: float | None = None
class Pick(Query):
    name: str = "a"
class Command(Struct):
    on: bool
"""
SOURCE = """
class Source(DataSource[Own]):
    @stream("rows/{hz:int}/{kind}")
    async def rows(self, hz: {Hz}, kind: {Literal}) -> {Rows}:
        yield Reading(datetime.now())
    @rows.history
    async def past(self, history_range: {HistoryRange}, hz: {Hz}, kind: {Literal}) -> {list}:
        return []
    @rows.publish
    async def command(self, data: {Command}, hz: {Hz}, kind: {Literal}) -> None: ...
    @query
    async def pick(self, q: {Pick}) -> {Frame}:
        return Frame()
    @resource("show/{n:int}")
    async def show(self, n: {int}) -> object: ...
"""
TEXTS = {
    "Hz": "Hz",
    "Literal": 'Literal["a", "b"]',
    "Rows": "Rows[Reading]",
    "HistoryRange": "HistoryRange",
    "list": "list[Reading]",
    "Command": "Command",
    "Pick": "Pick",
    "Frame": "Frame | LiveChannel",
    "int": "int",
}
PARTLY = {**TEXTS, "Rows": "Rows['Reading']", "Command": "Annotated['Command', 'what']"}
FUTURE = "from __future__ import annotations\n"


def source(texts: dict[str, str]) -> str:
    made = SOURCE
    for name, text in texts.items():
        made = made.replace(f": {{{name}}}", f": {text}").replace(f"> {{{name}}}", f"> {text}")
    return made


def in_function(text: str) -> str:
    body = textwrap.indent(text, "    ")
    return f"def make():{body}    return Source\nSource = make()\n"


QUOTED = {name: repr(text) for name, text in TEXTS.items()}
STYLES = {
    "plain": IMPORTS + CLASSES + source(TEXTS),
    "future": FUTURE + IMPORTS + CLASSES + source(TEXTS),
    "quoted": IMPORTS + CLASSES + source(QUOTED),
    "partly quoted": IMPORTS + CLASSES + source(PARTLY),
    "local": IMPORTS + in_function(CLASSES + source(TEXTS)),
    "local future": FUTURE + IMPORTS + in_function(CLASSES + source(TEXTS)),
    "local quoted": IMPORTS + in_function(CLASSES + source(QUOTED)),
    "all local": in_function(IMPORTS + CLASSES + source(TEXTS)),
}


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "written_by_an_author", ModuleType("written_by_an_author"))


def run(text: str) -> dict[str, Any]:
    names = vars(sys.modules["written_by_an_author"])
    exec(compile(text, "<author>", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("style", STYLES)
def test_a_class_has_the_same_plan_in_every_style(style):
    plan = run(STYLES[style])["Source"]._ds_plan
    rows = plan.streams["rows"]
    assert plan.settings.__name__ == "Own"
    assert rows.row.__name__ == "Reading"
    assert rows.arguments("rows/5/a") == {"hz": 5, "kind": "a"}
    with pytest.raises(Exception, match="hz: expected int <= 100, got 101"):
        rows.arguments("rows/101/a")
    with pytest.raises(Exception, match="kind: expected one of 'a', 'b', got 'c'"):
        rows.arguments("rows/5/c")
    assert base_type(rows.publish.data).__name__ == "Command"
    assert plan.queries["pick"].query_type.__name__ == "Pick"


@pytest.mark.parametrize("style", STYLES)
def test_a_subclass_created_elsewhere_has_the_same_plan(style):
    base = run(STYLES[style])["Source"]
    later = type("Later", (base,), {})
    assert later._ds_plan.streams["rows"].row is base._ds_plan.streams["rows"].row
    assert later._ds_plan.streams["rows"].publish == base._ds_plan.streams["rows"].publish


SPELLINGS = [pytest.param(repr, id="quoted")]
if sys.version_info >= (3, 14):
    SPELLINGS.append(pytest.param(str, id="deferred"))


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize(
    "member, name, text",
    [
        ("rows", "Hz", "Hidden"),
        ("rows", "Rows", "Rows[Hidden]"),
        ("command", "Command", "Hidden"),
        ("command", "Command", "list[Hidden]"),
        ("pick", "Pick", "Hidden"),
        ("show", "int", "Hidden"),
    ],
)
def test_a_name_under_type_checking_is_a_type_error_that_names_it(
    spell: Callable[[str], str], member, name, text
):
    with pytest.raises(TypeError) as caught:
        run(IMPORTS + CLASSES + source({**TEXTS, name: spell(text)}))
    message = str(caught.value)
    assert message.startswith(f"written_by_an_author.Source.{member}: ")
    assert "Hidden" in message and "must name something that exists at run time" in message


@pytest.mark.parametrize("spell", SPELLINGS)
@pytest.mark.parametrize("name", ["HistoryRange", "list", "Frame"])
def test_an_annotation_that_is_not_needed_may_use_a_name_under_type_checking(
    spell: Callable[[str], str], name
):
    made = run(IMPORTS + CLASSES + source({**TEXTS, name: spell("Hidden")}))["Source"]
    assert made._ds_plan.streams["rows"].history == "past"
    assert made.rows.path(5, kind="a") == "rows/5/a"


def test_a_column_with_a_name_under_type_checking_is_a_type_error():
    classes = CLASSES.replace("value: float | None", "value: 'Hidden | None'")
    with pytest.raises(
        TypeError, match="Source.rows: annotations of Reading .*, got name 'Hidden' is not"
    ):
        run(IMPORTS + classes + source(TEXTS))


@pytest.mark.parametrize("future", ["", FUTURE], ids=["plain", "future"])
def test_a_class_in_the_body_of_the_data_source_is_found(future):
    text = """
class Source(DataSource):
    class Reading(Row):
        time: datetime
    @stream("rows")
    async def rows(self) -> Rows[Reading]:
        yield Source.Reading(datetime.now())
"""
    made = run(future + IMPORTS + "class Reading: ...\n" + text)["Source"]
    assert made._ds_plan.streams["rows"].row is made.Reading


def test_the_name_of_a_method_does_not_hide_a_type():
    text = """
class Source(DataSource):
    @query
    async def int(self, q: Query) -> Frame: ...
    @stream("rows/{n:int}")
    async def rows(self, n: int) -> Rows:
        yield {}
"""
    assert run(FUTURE + IMPORTS + text)["Source"]._ds_plan.streams["rows"].arguments("rows/3")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type` statements exist from 3.12 on")
def test_a_type_statement_is_replaced_by_its_type():
    classes = CLASSES.replace("Hz = ", "type Hz = ").replace("value: float", "value: Celsius")
    classes = "type Celsius = float\n" + classes
    plan = run(IMPORTS + classes + source(TEXTS))["Source"]._ds_plan
    with pytest.raises(Exception, match="hz: expected int <= 100, got 101"):
        plan.streams["rows"].arguments("rows/101/a")


def test_unwrap_returns_the_type_and_all_metadata():
    celsius = NewType("celsius", float)
    assert unwrap(Annotated[celsius, 1]) == (float, (1,))
    assert unwrap(NewType("hot", Annotated[Annotated[int, 1], 2])) == (int, (1, 2))  # type: ignore[misc]
    assert unwrap(list[int]) == (list[int], ())


def test_the_repr_of_an_unresolved_annotation_is_its_source():
    def method(self: Any, one: "Nowhere", two: "list[Nowhere]", three: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    found = resolve(method, object)
    assert [type(found[name]) for name in ("one", "two", "three")] == [Unresolved, Unresolved, type]
    assert (repr(found["one"]), repr(found["two"])) == ("Nowhere", "list[Nowhere]")
    assert list(parameters(method)) == ["one", "two", "three"]


def test_metadata_in_a_quoted_annotation_is_kept():
    def method(self: Any, hz: "Annotated[int, Meta(ge=1)]") -> None: ...

    assert unwrap(resolve(method, object)["hz"])[1] == (Meta(ge=1),)
