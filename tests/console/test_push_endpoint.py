"""Rows that programs push to the console, over real sockets."""

import json
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.to_thread
import pytest
import websockets

from aiostream_ds import DataSource, Request, Response, Rows, resource, stream
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.console import push_endpoint
from aiostream_ds.console.app import make_app
from aiostream_ds.console.hub import MAX_PUSHED, open_hub
from aiostream_ds.console.web_server import listen, serve_app
from aiostream_ds.push import AsyncPush, PushRejected

pytestmark = pytest.mark.slow  # a server and a client for each test


REQUESTS: list[tuple[str, Request]] = []


@pytest.fixture(autouse=True)
def no_requests():
    REQUESTS.clear()


class Notes(DataSource):
    """Takes rows of JSON lines, and refuses those without n."""

    @resource("push/{path:rest}", method="POST")
    async def push(self, path: str, request: Request) -> Response:
        REQUESTS.append((path, request))
        if path == "busy":
            return Response(status=429, headers={"Retry-After": "7"}, body=b'{"message": "busy"}')
        rows = request.body.splitlines()
        return Response(
            body=json.dumps({"taken": len(rows), "refused": []}).encode(),
            headers={"Content-Type": "application/json"},
        )

    @stream("rows/{path:rest}")
    async def rows(self, path: str) -> Rows:
        yield {"path": path}
        await anyio.sleep_forever()


class Plain(DataSource):
    @stream
    async def ticks(self) -> Rows:
        yield {"n": 1}


@asynccontextmanager
async def console(target=Notes, *, token=""):
    listener = listen(port=0)
    address = "http://{}:{}".format(*listener.sock.getsockname())
    async with open_hub(Catalog(target), title="notes.py") as hub:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_app, make_app(hub, token=token), listener)
            yield hub, address
            tasks.cancel_scope.cancel()


async def post(url, body=b'{"n": 1}\n', method="POST", **headers):
    def send():
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url, body, names, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    return await anyio.to_thread.run_sync(send)


@pytest.mark.parametrize(
    "path",
    ["/push/lab/run-1", "/api/datasources/uid/local/resources/push/lab/run-1"],
)
async def test_rows_are_given_to_the_data_source_at_both_addresses(path):
    async with console() as (_, address):
        status, headers, body = await post(
            f"{address}{path}?unit=ms",
            Content_Type="text/csv",
            Content_Encoding="identity",
            Idempotency_Key="k-1",
        )
        assert (status, json.loads(body)) == (200, {"taken": 1, "refused": []})
        assert headers["content-type"] == "application/json"
        ((pushed, request),) = REQUESTS
        assert pushed == "lab/run-1" and request.body == b'{"n": 1}\n'
        assert request.query == {"unit": ["ms"]} and request.user.role == "Admin"
        sent = {name: request.header(name) for name in ("content-type", "idempotency-key")}
        assert sent == {"content-type": "text/csv", "idempotency-key": "k-1"}


async def test_the_answer_is_that_of_the_data_source():
    async with console() as (_, address):
        status, headers, body = await post(f"{address}/push/busy")
        assert (status, headers["retry-after"], body) == (429, "7", b'{"message": "busy"}')


async def test_the_client_pushes_to_the_console():
    async with console() as (_, address):
        async with AsyncPush(address, "lab/run-1") as push:
            await push.send([{"n": 1}, {"n": 2}])
        assert push.counts.taken == 2
        async with AsyncPush(address, "lab/run-1", uid="local") as push:
            await push.send({"n": 3})
        assert len(REQUESTS) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://evil.example", "Content_Type": "text/plain"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # a page on another port of this machine
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},  # a form, in a tab
        {"Host": "evil.example"},  # DNS rebinding
    ],
)
async def test_a_web_page_of_another_origin_cannot_push(headers):
    if headers.get("Sec_Fetch_Mode"):
        headers = {**headers, "Sec_Fetch_Dest": "document"}
    async with console() as (_, address):
        status, _, _ = await post(f"{address}/push/lab/run-1", **headers)
        assert status == 403
        assert REQUESTS == []


async def test_a_page_that_asks_first_gets_no_permission():
    async with console() as (_, address):
        status, headers, _ = await post(
            f"{address}/push/a", None, "OPTIONS", Origin="http://evil.example"
        )
        assert status == 403
        assert not any(name.lower().startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    ("target", "status"), [(Notes, b"403"), (Plain, b"404")], ids=["no token", "no pushes"]
)
async def test_the_body_of_a_refused_push_is_read_before_the_answer(target, status):
    token = "secret" if status == b"403" else ""
    async with console(target, token=token) as (_, address):
        port = int(address.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as client:
            head = "POST /push/a HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n"
            await client.send(f"{head}Content-Length: 9\r\n\r\n".format(port).encode())
            with anyio.move_on_after(0.2) as early:
                await client.receive()
            assert early.cancelled_caught, "the answer did not wait for the body"
            await client.send(b'{"n": 1}\n')
            answer = b""
            with suppress(anyio.EndOfStream):
                while True:
                    answer += await client.receive()
        assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_refused_push_whose_body_never_comes_is_answered():
    async with console(token="secret") as (_, address):
        port = int(address.rpartition(":")[2])
        async with await anyio.connect_tcp("127.0.0.1", port) as client:
            head = f"POST /push/a HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 9\r\n\r\n"
            await client.send(head.encode())
            assert (await client.receive()).startswith(b"HTTP/1.1 403")


async def test_a_program_has_the_token_in_a_header():
    async with console(token="secret") as (_, address):
        url = f"{address}/push/lab/run-1"
        assert (await post(url))[0] == 403
        assert (await post(url, Authorization="Bearer wrong"))[0] == 403
        assert (await post(url, Authorization="Basic secret"))[0] == 403
        assert (await post(url, Authorization="Bearer secret"))[0] == 200
        async with AsyncPush(f"{address}/?token=secret", "a") as push:
            await push.send({"n": 1})
        with pytest.raises(PushRejected, match="must not push here"):
            async with AsyncPush(address, "a") as push:
                await push.send({"n": 1})


async def test_a_data_source_that_takes_no_pushes_is_named_with_what_to_run():
    async with console(Plain) as (hub, address):
        assert not hub.takes_pushes
        status, _, body = await post(f"{address}/push/lab/run-1")
        assert status == 404
        assert json.loads(body)["message"] == (
            "notes.py takes no pushes; run: aiostream-ds dev --push"
        )


async def test_only_post_pushes():
    async with console() as (_, address):
        status, headers, body = await post(f"{address}/push/lab/run-1", None, "GET")
        assert (status, headers["allow"]) == (405, "POST") and b"pushed by POST" in body


async def test_a_body_beyond_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr(push_endpoint, "BODY_LIMIT", 100)
    async with console() as (_, address):
        assert (await post(f"{address}/push/a", b"x" * 100))[0] == 200
        status, _, body = await post(f"{address}/push/a", b"x" * 101)
        assert (status, json.loads(body)["message"]) == (413, "a body must have at most 100 bytes")
        assert len(REQUESTS) == 1


async def test_a_large_body_reaches_the_data_source():
    body = b'{"n": 1}\n' * 500_000
    async with console() as (_, address):
        status, _, answer = await post(f"{address}/push/a", body)
        assert (status, json.loads(answer)["taken"]) == (200, 500_000)


async def test_each_page_is_sent_a_path_with_its_first_rows():
    async def pushed(socket, count):
        """The paths of the next messages, several of which may arrive together."""
        found = []
        with anyio.fail_after(20):
            while len(found) < count:
                messages = json.loads(await socket.recv())
                found += [path for each in messages for path in each.get("pushed", ())]
        return found

    async with console() as (hub, address):
        url = address.replace("http", "ws") + "/ws"
        async with websockets.connect(url) as first:
            await post(f"{address}/push/lab/run-1")
            await post(f"{address}/push/lab/run-1")
            await post(f"{address}/push/busy")  # nothing was taken
            await post(f"{address}/push/lab/run-2")
            assert await pushed(first, 2) == ["rows/lab/run-1", "rows/lab/run-2"]
        async with websockets.connect(url) as later:
            assert await pushed(later, 2) == ["rows/lab/run-1", "rows/lab/run-2"]
        for number in range(MAX_PUSHED + 5):
            hub.note_push(f"other/{number}")
        assert len(hub.pushed) == MAX_PUSHED
        hub.note_push("not a path")
