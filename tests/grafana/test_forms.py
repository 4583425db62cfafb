"""The document that forms are drawn from, and where the built frontend lies."""

import msgspec
import pytest

from aiostream_ds import DataSource, Query, Secret, Settings, query, secret, stream
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import VERSION, describe, static
from aiostream_ds.sources.builtin_plugin import SOURCES
from tests.kinds import Kinds


def described(kind=Kinds):
    return describe(Catalog(kind))["sources"][0]


def queries(kind=Kinds):
    return {each["name"]: each for each in described(kind)["queries"]}


def test_one_class_is_one_source_that_no_setting_picks():
    document = describe(Catalog(Kinds))
    assert (document["version"], document["by"]) == (VERSION, None)
    assert [source["name"] for source in document["sources"]] == [""]
    assert document["sources"][0]["help"] == "Messages of a broker."


def test_several_classes_are_picked_by_a_setting():
    document = describe(Catalog(SOURCES, by="source"))
    assert document["by"] == "source"
    assert [source["name"] for source in document["sources"]] == list(SOURCES)


def test_a_source_that_cannot_be_imported_says_why_and_leaves_the_others_alone():
    table = {"kinds": Kinds, "lost": "a_package_that_is_not_there.sources:Lost"}
    good, lost = describe(Catalog(table, by="source"))["sources"]
    assert good["queries"]
    assert lost.keys() == {"name", "error"} and "a_package_that_is_not_there" in lost["error"]


def test_settings_are_their_json_schema_with_ranges_defaults_and_needed_fields():
    schema = described()["settings"]
    assert schema["properties"]["keepAlive"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 600,
        "default": 60,
        "description": "Seconds between two signs of life.",
    }
    assert schema["required"] == ["url"]


def test_texts_below_fields_are_their_help_and_a_description_wins():
    retries = described()["settings"]["$defs"]["Retries"]["properties"]
    assert retries["times"]["description"] == "After so many the stream reports an error."
    assert retries["firstWait"]["description"] == "Seconds; doubled each time"
    assert "description" not in described()["settings"]["properties"]["password"]


def test_a_subclass_keeps_the_help_of_the_fields_it_inherits():
    properties = describe(Catalog(SOURCES, by="source"))["sources"][2]["settings"]["properties"]
    assert properties["timeUnit"]["description"].startswith("Of such a number")
    assert properties["directory"]["description"] == "Only files in it and below are read."


def test_a_class_whose_source_is_not_there_has_no_help_and_no_error():
    space: dict[str, object] = {}
    exec("from aiostream_ds import Settings\nclass Made(Settings):\n    at: int = 1\n", space)

    class Holder(DataSource[space["Made"]]):  # type: ignore[misc]
        pass

    assert described(Holder)["settings"]["properties"] == {"at": {"type": "integer", "default": 1}}


def test_choices_stand_in_the_order_in_which_they_were_written():
    schema = described()["settings"]
    assert schema["properties"]["qos"]["enum"] == ["at most once", "at least once", "exactly once"]
    assert schema["$defs"]["Compression"]["enum"] == ["none", "gzip", "zstd"]


def test_secrets_are_named_and_have_no_default():
    found = described()
    assert found["secrets"] == ["password", "certificate"]
    assert found["settings"]["properties"]["password"] == {
        "type": "string",
        "format": "password",
        "writeOnly": True,
    }


def test_a_secret_that_may_be_missing_is_a_secret_too():
    class Careful(Settings):
        other: Secret | None = None
        third: Secret = secret()

    class Source(DataSource[Careful]):
        pass

    assert described(Source)["secrets"] == ["other", "third"]


def test_a_tagged_union_names_the_schema_of_each_tag():
    login = described()["settings"]["properties"]["login"]
    assert login["discriminator"]["propertyName"] == "method"
    assert list(login["discriminator"]["mapping"]) == ["password", "token", "anonymous"]
    assert login["default"] == {"method": "anonymous"}


def test_a_stream_has_its_pattern_its_own_fields_and_what_it_suggests():
    topic = queries()["topic"]
    assert topic["kind"] == "stream" and topic["help"] == "The messages of one sensor."
    assert topic["pattern"] == "topic/{site}/{sensor:any}/{hz:int}"
    assert topic["fields"] == {"site": "segment", "sensor": "any", "hz": "int"}
    assert list(topic["schema"]["properties"]) == ["site", "sensor", "hz"]
    assert topic["schema"]["required"] == ["site", "sensor"]
    assert topic["suggest"] == ["site", "sensor"]
    assert topic["schema"]["properties"]["hz"]["title"] == "Rate"


def test_the_names_in_the_document_are_those_of_the_json():
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


def test_an_own_query_has_its_own_fields_and_not_those_of_every_query():
    compare = queries()["compare"]
    assert compare["kind"] == "query"
    assert list(compare["schema"]["properties"]) == [
        "topics", "smooth", "how", "since", "strict", "weights", "depth",
    ]  # fmt: skip
    assert "$defs" not in compare["schema"]  # the time range is nobody's field


def test_definitions_that_hold_themselves_are_kept():
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


def test_the_built_module_is_there_and_an_unknown_name_is_said():
    assert static("module.js").read_text().startswith("define([")
    with pytest.raises(FileNotFoundError, match=r"no built file 'x.js'.*module.js"):
        static("x.js")


def test_the_built_module_stays_small():
    assert static("module.js").stat().st_size <= 40 * 1024
