"""The document that forms are drawn from, and the paths of the built frontend files."""

import re
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import msgspec
import pytest

from aiostream_ds import (
    Cursor,
    DataSource,
    Frame,
    HistoryRange,
    Meta,
    Query,
    Secret,
    Settings,
    query,
    secret,
    section,
    stream,
)
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import VERSION, describe, static
from aiostream_ds.sources.builtin_plugin import SOURCES
from aiostream_ds.stores import Retention
from tests.kinds import Kinds


def described(kind=Kinds):
    return describe(Catalog(kind))["sources"][0]


def queries(kind=Kinds):
    return {each["name"]: each for each in described(kind)["queries"]}


def test_one_class_is_one_source_without_a_selecting_setting():
    document = describe(Catalog(Kinds))
    assert (document["version"], document["sourceSetting"]) == (VERSION, None)
    assert [source["name"] for source in document["sources"]] == [""]
    assert document["sources"][0]["help"] == "Messages of a broker."


@pytest.mark.slow
def test_several_classes_are_selected_by_a_setting():
    document = describe(Catalog(SOURCES, by="source"))
    assert document["sourceSetting"] == "source"
    assert [source["name"] for source in document["sources"]] == list(SOURCES)


def test_a_source_that_cannot_be_imported_has_an_error_and_does_not_affect_the_others():
    table = {"kinds": Kinds, "lost": "a_package_that_is_not_there.sources:Lost"}
    good, lost = describe(Catalog(table, by="source"))["sources"]
    assert good["queries"]
    assert lost.keys() == {"name", "error"} and "a_package_that_is_not_there" in lost["error"]


def test_settings_are_their_json_schema_with_ranges_defaults_and_required_fields():
    schema = described()["settings"]
    assert schema["properties"]["keepAlive"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 600,
        "default": 60,
        "description": "Seconds between two keep-alive messages.",
    }
    assert schema["required"] == ["url"]


def test_strings_below_fields_are_their_descriptions_unless_meta_has_one():
    retries = described()["settings"]["$defs"]["Retries"]["properties"]
    assert retries["times"]["description"] == "After this many retries the stream reports an error."
    assert retries["firstWait"]["description"] == "Seconds; doubled each time"
    assert "description" not in described()["settings"]["properties"]["password"]


@pytest.mark.slow
def test_a_subclass_inherits_the_descriptions_of_fields():
    properties = describe(Catalog(SOURCES, by="source"))["sources"][2]["settings"]["properties"]
    assert properties["timeUnit"]["description"].startswith("The unit of such a number")
    assert (
        properties["directory"]["description"]
        == "Only files in it and in its subdirectories are read."
    )


class Limits(Settings):
    most: int = 1
    """Most rows."""


class Format(Settings):
    decimal: str = "."
    """What is between digits."""


class Reader(Limits, Format):
    path: str
    """Where the rows are."""
    most: int = 2


def test_the_fields_of_a_class_come_before_those_of_its_bases_with_all_descriptions():
    class Source(DataSource[Reader]):
        pass

    properties = described(Source)["settings"]["properties"]
    assert list(properties) == ["path", "most", "decimal"]
    assert [each["description"] for each in properties.values()] == [
        "Where the rows are.",
        "Most rows.",
        "What is between digits.",
    ]


def test_a_class_without_source_code_has_no_descriptions():
    space: dict[str, object] = {}
    exec("from aiostream_ds import Settings\nclass Made(Settings):\n    at: int = 1\n", space)

    class Holder(DataSource[space["Made"]]):  # type: ignore[misc]
        pass

    assert described(Holder)["settings"]["properties"] == {"at": {"type": "integer", "default": 1}}


def test_choices_are_in_the_order_of_the_source_code():
    schema = described()["settings"]
    assert schema["properties"]["qos"]["enum"] == ["at most once", "at least once", "exactly once"]
    assert schema["$defs"]["Compression"]["enum"] == ["none", "gzip", "zstd"]


def test_secrets_are_listed_and_have_no_default():
    found = described()
    assert found["secrets"] == ["password", "certificate"]
    assert found["settings"]["properties"]["password"] == {
        "type": "string",
        "format": "password",
        "writeOnly": True,
    }


def test_an_optional_secret_is_a_secret():
    class Careful(Settings):
        other: Secret | None = None
        third: Secret = secret()

    class Source(DataSource[Careful]):
        pass

    assert described(Source)["secrets"] == ["other", "third"]


def test_a_tagged_union_has_a_schema_for_each_tag():
    login = described()["settings"]["properties"]["login"]
    assert login["discriminator"]["propertyName"] == "method"
    assert list(login["discriminator"]["mapping"]) == ["password", "token", "anonymous"]
    assert login["default"] == {"method": "anonymous"}


def test_a_stream_has_its_pattern_its_own_fields_and_its_suggestions():
    topic = queries()["topic"]
    assert topic["kind"] == "stream" and topic["help"] == "The messages of one sensor."
    assert topic["pattern"] == "topic/{site}/{sensor:any}/{hz:int}"
    assert topic["fields"] == {"site": "segment", "sensor": "any", "hz": "int"}
    assert list(topic["schema"]["properties"]) == ["site", "sensor", "hz"]
    assert topic["schema"]["required"] == ["site", "sensor"]
    assert topic["suggest"] == ["site", "sensor"]
    assert topic["schema"]["properties"]["hz"]["title"] == "Rate"


def test_new_queries_are_exact_unless_the_rows_of_a_history_have_no_cursor():
    class Source(DataSource):
        @stream("live")
        async def live(self):
            yield {}

        @stream("stored", store=Retention())
        async def stored(self):
            yield {}

        @stream("numbered", cursor="id")
        async def numbered(self, after: Cursor):
            yield {"id": 1}

        @numbered.history
        async def numbered_rows(self, history_range: HistoryRange) -> list[Any]:
            return []

        @stream("timed")
        async def timed(self):
            yield {}

        @timed.history
        async def timed_rows(self, history_range: HistoryRange) -> list[Any]:
            return []

    exact = {name: query["exact"] for name, query in queries(Source).items()}
    assert exact == {"live": True, "stored": True, "numbered": True, "timed": False}


def test_the_names_in_the_document_are_the_json_names():
    class Source(DataSource):
        @stream("at/{some_place:any}")
        async def at(self, some_place: str):
            yield {}

        @at.suggest("some_place")
        async def places(self, typed: str) -> list[str]:
            return []

    at = queries(Source)["at"]
    assert at["fields"] == {"somePlace": "any"} and at["suggest"] == ["somePlace"]
    assert list(at["schema"]["properties"]) == ["somePlace"]


def test_an_authors_query_has_only_the_fields_of_its_class():
    compare = queries()["compare"]
    assert compare["kind"] == "query"
    names = ["topics", "smooth", "how", "since", "strict", "weights", "depth"]
    assert list(compare["schema"]["properties"]) == names
    assert "$defs" not in compare["schema"]


def test_a_recursive_definition_is_included():
    class Source(DataSource):
        @query
        async def tree(self, q: TreeQuery):
            return []

    schema = queries(Source)["tree"]["schema"]
    assert schema["$defs"]["Node"]["properties"]["below"]["items"] == {"$ref": "#/$defs/Node"}


class Node(msgspec.Struct):
    name: str = ""
    below: list["Node"] = []


class TreeQuery(Query):
    root: Node | None = None


class Prüfstand(Settings):
    class Größe(Enum):
        KLEIN = "klein"
        GROẞ = "groß"

    größe: Größe = Größe.KLEIN
    """Of the part."""


class First:
    class Options(msgspec.Struct, frozen=True):
        level: Literal["low", "high"] = "low"
        """Of the first."""

    class Mode(Enum):
        SLOW = "slow"
        FAST = "fast"
        RAPID = "fast"


class Second:
    class Options(msgspec.Struct, frozen=True):
        level: Literal["many", "few"] = "few"
        """Of the second."""

    class Mode(Enum):
        UP = "up"
        DOWN = "down"


class Options(Settings):
    first: First.Options = First.Options()
    second: Second.Options = Second.Options()
    modes: dict[str, First.Mode] = {}
    other: Second.Mode | None = None


def settings_of(kind: type[Settings]) -> Any:
    class Source(DataSource[kind]):
        pass

    schema = described(Source)["settings"]

    def resolved(value: Any) -> Any:
        """The value with its definitions in place of references."""
        if isinstance(value, list):
            return [resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        found = schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else {}
        return {name: resolved(each) for name, each in (found | value).items()}

    return resolved(schema["properties"])


@dataclass(frozen=True)
class Thresholds:
    level: Literal["low", "high"] = "low"
    """When to warn."""


class Labels(TypedDict, total=False):
    side: Literal["right", "left"]
    """Where it is."""


class Mixed(Settings):
    limits: Thresholds = Thresholds()
    labels: Labels = {}
    below: tuple["Mixed", ...] = ()


class Mixture(DataSource[Mixed]):
    pass


def test_fields_of_dataclasses_and_dicts_are_described_in_the_authors_order():
    properties = described(Mixture)["settings"]["$defs"]
    assert properties["Thresholds"]["properties"]["level"] == {
        "enum": ["low", "high"],
        "default": "low",
        "description": "When to warn.",
    }
    side = properties["Labels"]["properties"]["side"]
    assert side == {"enum": ["right", "left"], "description": "Where it is."}
    assert properties["Mixed"]["properties"]["below"]["items"] == {"$ref": "#/$defs/Mixed"}


def test_names_of_classes_may_have_letters_that_are_not_ascii():
    size = settings_of(Prüfstand)["größe"]
    assert (size["enum"], size["description"]) == (["klein", "groß"], "Of the part.")


def test_classes_of_the_same_name_have_their_own_fields_and_choices():
    properties = settings_of(Options)
    first, second = (properties[name]["properties"]["level"] for name in ("first", "second"))
    assert (first["enum"], first["description"]) == (["low", "high"], "Of the first.")
    assert (second["enum"], second["description"]) == (["many", "few"], "Of the second.")
    assert properties["modes"]["additionalProperties"]["enum"] == ["slow", "fast"]
    assert properties["other"]["anyOf"][0]["enum"] == ["up", "down"]


def test_an_unknown_built_file_is_an_error_that_lists_the_known_ones():
    assert static("module.js").read_text().startswith("define([")
    with pytest.raises(FileNotFoundError, match=r"no built file 'x.js'.*module.js"):
        static("x.js")


def test_the_built_module_is_small():
    assert static("module.js").stat().st_size <= 48 * 1024


class Sides(Enum):
    LEFT = "left"
    RIGHT = "right"


class Signed(DataSource):
    @stream
    async def signed(
        self,
        day: date,
        id: UUID | None = None,
        side: Sides = Sides.LEFT,
        mode: Literal["raw", "a/b"] | None = None,
        fast: bool = False,
    ):
        yield {"v": 1}


def test_the_parameters_of_a_stream_are_fields_that_editors_can_show():
    found = queries(Signed)["signed"]
    assert found["pattern"] == "signed/{day:date}/{id:uuid?}/{side}/{mode:any?}/{fast:bool}"
    assert found["fields"] == {
        "day": "date",
        "id": "uuid",
        "side": "segment",
        "mode": "any",
        "fast": "bool",
    }
    schema = found["schema"]
    properties = schema["properties"]
    assert schema["required"] == ["day"]
    assert properties["side"] == {"$ref": "#/$defs/Sides", "default": "left"}
    assert schema["$defs"]["Sides"]["enum"] == ["left", "right"]
    assert properties["mode"]["anyOf"] == [{"enum": ["raw", "a/b"]}, {"type": "null"}]
    assert properties["fast"] == {"type": "boolean", "default": False}


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ("day", "2026-01-31", "31.1.2026"),
        ("id", "9b2d7c4e-5a1f-4c3b-8e6d-0f1a2b3c4d5e", "9b2d7c4e"),
        ("id", "9B2D7C4E5A1F4C3B8E6D0F1A2B3C4D5E", "9b2d7c4e-5a1f-4c3b-8e6d-0f1a2b3c4d5g"),
    ],
)
def test_a_date_and_a_uuid_are_texts_with_a_pattern_and_an_example(field, right, wrong):
    found = queries(Signed)["signed"]["schema"]["properties"][field]
    text = found.get("anyOf", [found])[0]
    assert re.search(text["pattern"], text["examples"][0]) and re.search(text["pattern"], right)
    assert re.search(text["pattern"], wrong) is None


def test_a_section_is_that_of_its_fields_also_of_bases_and_queries():
    class Tls(Settings):
        ca: Annotated[str, section("TLS")] = ""

    class Own(Settings):
        url: str
        retries: Annotated[int, Meta(ge=1), section("Advanced")] = 1
        token: Annotated[Secret, section("Login")] = secret()

    class Both(Own, Tls):
        pass

    class Filter(Query):
        limit: Annotated[int, section("Advanced")] = 10

    class Source(DataSource[Both]):
        @query
        async def a(self, filter: Filter) -> Frame:
            return Frame()

    found = described(Source)
    sections = {name: each.get("section") for name, each in found["settings"]["properties"].items()}
    assert sections == {"url": None, "retries": "Advanced", "token": "Login", "ca": "TLS"}
    assert found["settings"]["properties"]["retries"]["minimum"] == 1
    assert found["queries"][0]["schema"]["properties"]["limit"]["section"] == "Advanced"


@pytest.mark.parametrize("title", [" ", "", 5, None])
def test_a_section_needs_a_title(title):
    shown = re.escape(repr(title))
    with pytest.raises(
        ValueError, match=f"title must be a text that names the section, got {shown}"
    ):
        section(title)
