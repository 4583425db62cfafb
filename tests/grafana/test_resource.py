"""CallResource: HTTP requests with one response or a streamed one."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from grpclib import GRPCError, Status
from grpclib.client import UnaryStreamMethod

from aiostream_ds import BadQuery, ConfigError, DataSource, NotFound, Request, Response, resource
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing import serve_in_memory
from tests.grafana.calls import ANN, resource_call

pytestmark = pytest.mark.virtual


class Api(DataSource):
    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.closed = asyncio.Event()
        Api.last = self

    @resource("sensors/{id}")
    async def show(self, id: str):
        if id == "none":
            raise NotFound(f"no sensor {id!r}")
        return {"id": id}

    @resource("sensors/{id}", method="PUT")
    async def change(self, id: str, request: Request):
        return {
            "body": request.json(dict[str, int]),
            "agent": request.header("user-AGENT"),
            "query": request.query,
            "user": request.user.login,
            "path": request.path,
        }

    @resource("text")
    async def text(self) -> Response:
        headers = {"Content-Type": "text/plain", "X-Two": ["a", "b"]}
        return Response(status=418, body=b"short and stout", headers=headers)

    @resource("raw")
    async def raw(self) -> bytes:
        return b"\x00\x01"

    @resource("empty")
    async def empty(self) -> Response:
        return Response(status=204)

    @resource("parts")
    async def parts(self) -> AsyncIterator[bytes]:
        try:
            yield b"one "
            await self.go_on.wait()
            yield b"two"
        finally:
            self.closed.set()

    @resource("no-parts")
    async def no_parts(self) -> AsyncIterator[bytes]:
        for part in ():
            yield part

    @resource("fails-early")
    async def fails_early(self) -> AsyncIterator[bytes]:
        raise NotFound("nothing to send")
        yield b""

    @resource("fails-late")
    async def fails_late(self) -> AsyncIterator[bytes]:
        yield b"one"
        raise KeyError("oops")

    @resource("not-bytes")
    async def not_bytes(self) -> AsyncIterator[bytes]:
        yield "text"

    @resource("returned")
    async def returned(self):
        return self.parts()

    @resource("no-json")
    async def no_json(self):
        return object()

    @resource("bug")
    async def bug(self):
        raise KeyError("oops")


async def request(path, **options) -> Response:
    async with serve_in_memory(Api) as grafana:
        return await grafana.resource(path, **options)


def message(response) -> str:
    assert response.headers["Content-Type"] == ["application/json"]
    return msgspec.json.decode(response.body)["message"]


async def test_a_value_is_sent_as_json():
    answer = await request("sensors/kitchen")
    assert (answer.status, answer.body) == (200, b'{"id":"kitchen"}')
    assert answer.headers["Content-Type"] == ["application/json"]


async def test_a_method_may_take_the_request():
    answer = await request(
        "sensors/a?x=1&x=2", method="PUT", body=b'{"n": 5}', headers={"User-Agent": ["curl"]}
    )
    assert msgspec.json.decode(answer.body) == {
        "body": {"n": 5},
        "agent": "curl",
        "query": {"x": ["1", "2"]},
        "user": "admin",
        "path": "sensors/a",
    }


async def test_an_invalid_body_is_400():
    answer = await request("sensors/a", method="PUT", body=b"{")
    assert answer.status == 400 and "not JSON" in message(answer)


async def test_a_response_keeps_status_headers_and_body():
    answer = await request("text")
    assert (answer.status, answer.body) == (418, b"short and stout")
    assert answer.headers == {"Content-Type": ["text/plain"], "X-Two": ["a", "b"]}


async def test_bytes_are_sent_as_they_are():
    answer = await request("raw")
    assert (answer.status, answer.body) == (200, b"\x00\x01")
    assert answer.headers["Content-Type"] == ["application/octet-stream"]


@pytest.mark.parametrize("path", ["empty", "no-parts"])
async def test_an_empty_response_is_204(path):
    answer = await request(path)
    assert (answer.status, answer.body, answer.headers) == (204, b"", {})


async def test_each_part_is_sent_before_the_next_is_requested():
    async with serve_in_memory(Api) as grafana, resource_call(grafana, "parts") as call:
        first = await call.recv_message()
        assert (first.code, first.body) == (200, b"one ")
        assert not Api.last.closed.is_set()
        Api.last.go_on.set()
        second = await call.recv_message()
        assert (second.code, second.headers, second.body) == (0, {}, b"two")
        assert await call.recv_message() is None
        assert Api.last.closed.is_set()


async def test_a_cancelled_call_closes_the_generator():
    async with serve_in_memory(Api) as grafana:
        async with resource_call(grafana, "parts") as call:
            await call.recv_message()
            await call.cancel()
        await Api.last.closed.wait()


async def test_an_error_before_the_first_part_is_an_http_error():
    answer = await request("fails-early")
    assert answer.status == 404 and message(answer) == "nothing to send"


async def test_an_error_after_the_first_part_ends_the_call_and_is_logged(caplog):
    async with serve_in_memory(Api) as grafana, resource_call(grafana, "fails-late") as call:
        assert (await call.recv_message()).body == b"one"
        with pytest.raises(GRPCError, match="KeyError") as failed:
            await call.recv_message()
            await call.recv_trailing_metadata()
    assert failed.value.status == Status.INTERNAL
    (record,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert record.exc_info[0] is KeyError


@pytest.mark.parametrize(
    "path, text",
    [
        ("not-bytes", "must yield bytes, got 'text'"),
        ("returned", "to stream, yield bytes from its `async def`"),
        ("no-json", "must return what JSON can encode, got object"),
        ("bug", "KeyError: 'oops'"),
    ],
)
async def test_a_mistake_of_the_author_is_500_with_a_message(path, text):
    answer = await request(path)
    assert answer.status == 500 and text in message(answer)


async def test_a_not_found_error_is_404():
    answer = await request("sensors/none")
    assert answer.status == 404 and message(answer) == "no sensor 'none'"


@pytest.mark.parametrize("path, method", [("nowhere", "GET"), ("raw", "POST"), ("", "GET")])
async def test_an_unknown_route_is_404_and_lists_the_known_ones(path, method):
    answer = await request(path, method=method)
    assert answer.status == 404
    assert "GET sensors/{id}, PUT sensors/{id}, GET text" in message(answer)


async def test_slashes_around_the_path_are_ignored():
    assert (await request("/raw/")).status == 200


async def test_a_malformed_url_is_a_bad_request():
    with pytest.raises(BadQuery, match=r"the URL must be valid, got '//\]'"):
        _ = Request(url="//]").query
    async with serve_in_memory(Api) as grafana:
        for path in "replay/rows", "forms/suggest":
            answer = await malformed(grafana, path)
            assert (answer.code, "the URL must be valid" in answer.body.decode()) == (400, True)


class NotReady(DataSource):
    def __init__(self):
        raise ConfigError("the directory cannot be used")

    @resource("now")
    async def now(self):
        return 1


async def test_a_data_source_that_cannot_be_opened_is_unavailable():
    async with serve_in_memory(NotReady) as grafana:
        for path in ("now", "replay/rows?path=x", "forms/suggest"):
            answer = await grafana.resource(path)
            assert answer.status == 503 and message(answer) == "the directory cannot be used"
        request = pb.CallResourceRequest(plugin_context=pb.PluginContext(), path="now")
        assert (await sent(grafana, request)).code == 400


async def malformed(grafana, path):
    request = pb.CallResourceRequest(
        plugin_context=grafana.context(ANN), path=path, method="GET", url=f"//]{path}"
    )
    return await sent(grafana, request)


async def sent(grafana, request):
    method = "Resource/CallResource"
    rpc = UnaryStreamMethod(
        grafana._channel, f"/pluginv2.{method}", type(request), pb.CallResourceResponse
    )
    return (await rpc(request))[0]
