"""Suggest hooks: values for a path's field, as a user types."""

import inspect
from urllib.parse import urlencode

import msgspec
import pytest

from aiostream_ds import DataSource, User, stream
from aiostream_ds._routing.suggest_hooks import SUGGESTIONS
from aiostream_ds.testing import serve_in_memory
from tests.kinds import Kinds

SETTINGS = {"url": "mqtt://here"}


async def ask(grafana, field, typed="", stream="topic", **values):
    asked = {
        "stream": stream,
        "field": field,
        "typed": typed,
        "values": msgspec.json.encode(values),
    }
    answer = await grafana.resource("forms/suggest?" + urlencode(asked))
    return answer.status, msgspec.json.decode(answer.body)


async def test_a_hook_is_given_what_was_typed():
    async with serve_in_memory(Kinds, settings=SETTINGS) as grafana:
        assert await ask(grafana, "site") == (200, ["berlin", "bern", "paris"])
        assert await ask(grafana, "site", "ber") == (200, ["berlin", "bern"])


async def test_a_hook_sees_the_other_fields_and_none_for_what_is_not_there_yet():
    async with serve_in_memory(Kinds, settings=SETTINGS) as grafana:
        assert await ask(grafana, "sensor", site="bern") == (200, ["bern: oven", "bern: roof"])
        assert await ask(grafana, "sensor") == (200, ["None: oven", "None: roof"])
        assert await ask(grafana, "sensor", site={"no": "text"}) == (
            200,
            ["None: oven", "None: roof"],
        )


class Odd(DataSource):
    @stream("at/{place}/{hz:int}")
    async def at(self, place: str, hz: int = 7):
        yield {}

    @at.suggest("place")
    async def places(self, typed: str, user: User | None, hz: int) -> list[object]:
        if typed == "many":
            return list(range(SUGGESTIONS + 1))
        if typed == "text":
            return "text"  # type: ignore[return-value]
        if typed == "odd":
            return [{}]
        return [user.login if user else "nobody", hz, 0.5]


async def test_a_hook_may_ask_who_asks_and_numbers_are_written_out():
    async with serve_in_memory(Odd) as grafana:
        status, found = await ask(grafana, "place", stream="at")
        assert status == 200 and found[1:] == ["7", "0.5"]
        assert (await ask(grafana, "place", stream="at", hz="9"))[1][1] == "9"


async def test_more_than_an_editor_shows_are_cut():
    async with serve_in_memory(Odd) as grafana:
        assert len((await ask(grafana, "place", "many", stream="at"))[1]) == SUGGESTIONS


@pytest.mark.parametrize("typed", ["text", "odd"])
async def test_what_is_no_list_of_values_is_a_bug_of_the_author(typed, caplog):
    async with serve_in_memory(Odd) as grafana:
        status, answer = await ask(grafana, "place", typed, stream="at")
        assert status == 500 and "message" in answer
    assert "places returned" in caplog.text


@pytest.mark.parametrize(
    "stream, field, said",
    [
        ("nowhere", "site", "there is no stream 'nowhere'; the streams are: 'topic', 'alive'"),
        ("topic", "hz", "'topic' suggests nothing for 'hz'; it does for: 'site', 'sensor'"),
        ("alive", "site", "'alive' suggests nothing for 'site'; it does for: none"),
    ],
)
async def test_a_field_without_a_hook_is_not_found(stream, field, said):
    async with serve_in_memory(Kinds, settings=SETTINGS) as grafana:
        assert await ask(grafana, field, stream=stream) == (404, {"message": said})


@pytest.mark.parametrize("values", ["{", "[1]"])
async def test_values_that_are_no_object_are_refused(values):
    async with serve_in_memory(Kinds, settings=SETTINGS) as grafana:
        asked = urlencode({"stream": "topic", "field": "site", "values": values})
        answer = await grafana.resource(f"forms/suggest?{asked}")
        assert answer.status == 400 and b"values" in answer.body


def test_a_subclass_overrides_a_hook_by_its_name():
    class More(Odd):
        async def places(self, typed: str) -> list[object]:
            return ["here"]

    plan = More._plan.streams["at"].suggest["place"]
    assert (plan.method, plan.takes) == ("places", ())


@pytest.mark.parametrize(
    "field, hook, said",
    [
        ("nowhere", lambda self, typed: [], "suggests values for 'nowhere'; the path's fields are"),
        ("place", lambda self, text: [], r"takes \(text\); a suggest hook takes 'typed' first"),
        ("place", lambda self, typed, place: [], "by name what it wants of: hz, user"),
        ("place", lambda self, typed, more: [], r"takes \(typed, more\)"),
    ],
)
def test_a_hook_that_cannot_be_called_is_told_when_the_class_is_made(field, hook, said):
    async def places(self, *args):
        return []

    places.__signature__ = inspect.signature(hook)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=said):

        class Source(DataSource):
            @stream("at/{place}/{hz:int}")
            async def at(self, place: str, hz: int):
                yield {}

            places_ = at.suggest(field)(places)


def test_one_field_has_one_hook():
    with pytest.raises(TypeError, match="hook already"):

        class Source(DataSource):
            @stream("at/{place}")
            async def at(self, place: str):
                yield {}

            @at.suggest("place")
            async def one(self, typed: str):
                return []

            @at.suggest("place")
            async def two(self, typed: str):
                return []


async def test_the_machine_suggests_its_interfaces_and_the_file_source_its_files(tmp_path):
    from aiostream_ds.sources.file.file_source import File

    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "today.ndjson").write_text("")
    (tmp_path / "other.csv").write_text("")
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        assert await ask(grafana, "file", stream="rows") == (200, ["other.csv", "web/today.ndjson"])
        assert await ask(grafana, "file", "web", stream="rows") == (200, ["web/today.ndjson"])


async def test_the_host_suggests_its_interfaces():
    pytest.importorskip("psutil")
    from aiostream_ds.sources.host import Host

    async with serve_in_memory(Host) as grafana:
        status, found = await ask(grafana, "nic", "lo", stream="net")
        assert status == 200 and "lo" in found
