"""Suggest hooks: values for a path field while a user types."""

import inspect
from urllib.parse import urlencode

import msgspec
import pytest
from grpclib import GRPCError

from aiostream_ds import Allow, DataSource, User, stream
from aiostream_ds._routing.suggest_hooks import SUGGESTIONS
from aiostream_ds.testing import serve_in_memory
from tests.grafana.calls import ANN, BEN, run_stream
from tests.kinds import Kinds

ADA = User(login="ada", role="Admin")
SETTINGS = {"url": "mqtt://here"}


async def ask(grafana, field, typed="", stream="topic", **values):
    parameters = {
        "stream": stream,
        "field": field,
        "typed": typed,
        "values": msgspec.json.encode(values),
    }
    answer = await grafana.resource("forms/suggest?" + urlencode(parameters))
    return answer.status, msgspec.json.decode(answer.body)


async def test_a_hook_gets_the_typed_string():
    async with serve_in_memory(Kinds, settings=SETTINGS) as grafana:
        assert await ask(grafana, "site") == (200, ["berlin", "bern", "paris"])
        assert await ask(grafana, "site", "ber") == (200, ["berlin", "bern"])


async def test_a_hook_gets_the_other_fields_or_none_for_missing_ones():
    async with serve_in_memory(Kinds, settings=SETTINGS) as grafana:
        assert await ask(grafana, "sensor", site="bern") == (200, ["bern: oven", "bern: roof"])
        assert await ask(grafana, "sensor") == (200, ["None: oven", "None: roof"])
        assert await ask(grafana, "sensor", site={"no": "text"}) == (
            200,
            ["None: oven", "None: roof"],
        )


class Places(DataSource):
    @stream("at/{place}/{hz:int}")
    async def at(self, place: str, hz: int = 7):
        yield {}

    @at.suggest("place")
    async def places(self, typed: str, user: User | None, hz: int) -> list[object]:
        if typed == "many":
            return list(range(SUGGESTIONS + 1))
        if typed == "text":
            return "text"  # type: ignore[return-value]
        if typed == "object":
            return [{}]
        return [user.login if user else "nobody", hz, 0.5]


async def test_a_hook_may_take_the_user_and_numbers_become_strings():
    async with serve_in_memory(Places) as grafana:
        status, found = await ask(grafana, "place", stream="at")
        assert status == 200 and found[1:] == ["7", "0.5"]
        assert (await ask(grafana, "place", stream="at", hz="9"))[1][1] == "9"


async def test_the_number_of_suggestions_is_limited():
    async with serve_in_memory(Places) as grafana:
        assert len((await ask(grafana, "place", "many", stream="at"))[1]) == SUGGESTIONS


@pytest.mark.parametrize("typed", ["text", "object"])
async def test_a_hook_that_does_not_return_a_list_of_values_is_an_authors_bug(typed, caplog):
    async with serve_in_memory(Places) as grafana:
        status, answer = await ask(grafana, "place", typed, stream="at")
        assert status == 500 and "message" in answer
    assert "places must return a list of strings or numbers" in caplog.text


@pytest.mark.parametrize(
    "stream, field, message",
    [
        ("nowhere", "site", "unknown stream 'nowhere'; the streams are: 'topic', 'alive'"),
        (
            "topic",
            "hz",
            "the stream 'topic' has no suggestions for 'hz'; it has some for: 'site', 'sensor'",
        ),
        (
            "alive",
            "site",
            "the stream 'alive' has no suggestions for 'site'; it has some for: none",
        ),
    ],
)
async def test_a_field_without_a_hook_is_not_found(stream, field, message):
    async with serve_in_memory(Kinds, settings=SETTINGS) as grafana:
        assert await ask(grafana, field, stream=stream) == (404, {"message": message})


@pytest.mark.parametrize("values", ["{", "[1]"])
async def test_values_must_be_a_json_object(values):
    async with serve_in_memory(Kinds, settings=SETTINGS) as grafana:
        parameters = urlencode({"stream": "topic", "field": "site", "values": values})
        answer = await grafana.resource(f"forms/suggest?{parameters}")
        assert answer.status == 400 and b"values" in answer.body


def test_a_subclass_overrides_a_hook_by_its_name():
    class More(Places):
        async def places(self, typed: str) -> list[object]:
            return ["here"]

    plan = More._ds_plan.streams["at"].suggest["place"]
    assert (plan.method, plan.takes) == ("places", ())


@pytest.mark.parametrize(
    "field, hook, message",
    [
        (
            "nowhere",
            lambda self, typed: [],
            r"\('place', 'hz'\), got 'nowhere'",
        ),
        ("place", lambda self, text: [], r"must take 'typed', .* got \(text\)"),
        ("place", lambda self, typed, place: [], "by name any of hz, user, got"),
        ("place", lambda self, typed, more: [], r"got \(typed, more\)"),
    ],
)
def test_an_invalid_hook_is_rejected_when_the_class_is_created(field, hook, message):
    async def places(self, *args):
        return []

    places.__signature__ = inspect.signature(hook)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=message):

        class Source(DataSource):
            @stream("at/{place}/{hz:int}")
            async def at(self, place: str, hz: int):
                yield {}

            places_ = at.suggest(field)(places)


def test_one_field_has_one_hook():
    with pytest.raises(TypeError, match="one suggest 'place' hook of 'at', got also 'one'"):

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


async def test_the_file_source_suggests_its_files(tmp_path):
    from aiostream_ds.sources.file.file_source import File

    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "today.ndjson").write_text("")
    (tmp_path / "other.csv").write_text("")
    async with serve_in_memory(File, settings={"directory": str(tmp_path)}) as grafana:
        assert await ask(grafana, "file", stream="rows") == (
            200,
            ["other.csv", "web/today.ndjson"],
        )
        assert await ask(grafana, "file", "web", stream="rows") == (200, ["web/today.ndjson"])


async def test_the_host_source_suggests_its_interfaces():
    pytest.importorskip("psutil")
    from aiostream_ds.sources.host import Host

    async with serve_in_memory(Host) as grafana:
        status, found = await ask(grafana, "nic", "lo", stream="net")
        assert status == 200 and "lo" in found


class Guarded(DataSource):
    """Streams whose paths not every viewer may read."""

    @stream(
        "machines/{id}",
        allow=[Allow(roles=("Admin",)), Allow(logins=("ann",), paths=("machines/a",))],
    )
    async def machine(self, id: str):
        yield {}

    @machine.suggest("id")
    async def machines(self, typed: str) -> list[str]:
        return ["a", "b"]


async def test_a_viewer_who_may_read_no_path_of_a_stream_gets_no_suggestions():
    async with serve_in_memory(Guarded) as grafana:
        path = "forms/suggest?stream=machine&field=id"
        for user, status in ((ADA, 200), (ANN, 200), (BEN, 403)):
            answer = await grafana.resource(path, user=user)
            assert answer.status == status
            assert (b'"b"' in answer.body) == (status == 200)
        answer = await grafana.resource("forms/suggest?stream=other&field=id", user=BEN)
        assert answer.status == 404 and b"machine" not in answer.body


async def test_only_a_data_source_that_everybody_may_read_lists_its_paths():
    async with serve_in_memory(Guarded) as grafana:
        answer = await grafana.resource("replay/rows?path=x/none&after=-1", user=BEN)
        assert answer.status == 404 and b"no stream has the path 'none'" in answer.body
        async with run_stream(grafana, "none", BEN) as call:
            with pytest.raises(GRPCError, match="no stream has the path 'none'"):
                await call.recv_message()
                await call.recv_trailing_metadata()
    async with serve_in_memory(Places) as grafana:
        answer = await grafana.resource("replay/rows?path=x/none&after=-1", user=BEN)
        assert answer.status == 404 and b"at/{place}/{hz:int}" in answer.body
