"""The console over real sockets: its WebSocket, event streams, and misbehaving pages."""

import asyncio
import gc
import json
import logging
import socket
import sys
import urllib.error
import urllib.request
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
import pytest
import websockets

from aiostream_ds import DataSource, PermissionDenied, Rows, Settings, User, stream
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds.console import session
from aiostream_ds.console.app import make_app, open_console
from aiostream_ds.console.channel_stats import MAX_CHANNELS
from aiostream_ds.console.hub import open_hub
from aiostream_ds.console.page_queue import FollowedChannel, PageQueue
from aiostream_ds.console.web_server import listen, serve_app
from aiostream_ds.testing.virtual_loop import VirtualLoop
from tests.test_redaction import SECRETS, TOKEN, Leaking
from tests.test_redaction import check as check_no_secret

pytestmark = pytest.mark.slow  # a server and a client for each test


class Named(Settings):
    name: str = "one"


class Source(DataSource[Named]):
    @stream("ticks/{hz:int}")
    async def ticks(self, hz: int = 100) -> Rows:
        """Counts."""
        n = 0
        while True:
            yield {"name": self.settings.name, "n": n}
            n += 1
            await anyio.sleep(1 / hz)

    @stream("private/{id}")
    async def private(self, id: str) -> Rows:
        yield {"n": 1}

    @private.subscribe
    async def may_read(self, user: User | None, id: str) -> None:
        if user is None or user.role != "Admin":
            raise PermissionDenied("for admins")

    @stream("slow/{id:int}")
    async def slow(self, id: int) -> Rows:
        while True:
            yield {"id": id}
            await anyio.sleep(30)

    @stream("broken")
    async def broken(self) -> Rows:
        yield {"n": 1}
        raise RuntimeError("on purpose")

    @stream("flood")
    async def flood(self) -> Rows:
        while True:
            yield {"text": "x" * 1000}
            await anyio.sleep(0)


@asynccontextmanager
async def console(target=Source, *, secrets=None, **settings):
    """A listening console: its hub, and its address without the scheme."""
    listener = listen(port=0)
    address = "{}:{}".format(*listener.sock.getsockname())
    async with open_hub(Catalog(target), settings=settings, secrets=secrets) as hub:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_app, make_app(hub), listener)
            yield hub, address
            tasks.cancel_scope.cancel()


def rows_of(packet):
    return len(packet["data"]["values"][0]) if "data" in packet else 0


class Page:
    """The page's side of the WebSocket."""

    def __init__(self, socket):
        self.socket = socket
        self.packets = {}
        self.messages = []
        self.answers = {}

    async def read(self):
        for message in json.loads(await self.socket.recv()):
            if "packets" in message:
                self.packets.setdefault(message["id"], []).extend(message["packets"])
            elif "id" in message and "ended" not in message:
                self.answers[message["id"]] = message
            else:
                self.messages.append(message)

    async def request(self, id, type, **fields):
        self.answers.pop(id, None)
        await self.socket.send(json.dumps({"id": id, "type": type, **fields}))
        async with asyncio.timeout(15):
            while id not in self.answers:
                await self.read()
        return self.answers[id]

    async def rows(self, id, count):
        async with asyncio.timeout(15):
            while (
                sum(
                    len(p.get("data", {"values": [[]]})["values"][0])
                    for p in self.packets.get(id, [])
                )
                < count
            ):
                await self.read()
        return self.packets[id]

    async def message(self, name):
        async with asyncio.timeout(15):
            while not (found := [m[name] for m in self.messages if name in m]):
                await self.read()
        self.messages = [m for m in self.messages if name not in m]
        return found[-1]


@asynccontextmanager
async def page(address):
    async with websockets.connect(f"ws://{address}/ws", max_size=None) as socket:
        yield Page(socket)


async def get(url, **headers):
    def fetch():
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    return await anyio.to_thread.run_sync(fetch)


@pytest.mark.slow
async def test_a_page_gets_the_forms_follows_a_path_and_leaves_it():
    async with console() as (hub, address), page(address) as one:
        hello = await one.message("hello")
        (source,) = hello["forms"]["sources"]
        assert [q["pattern"] for q in source["queries"]][:1] == ["ticks/{hz:int}"]
        assert await one.request(1, "follow", path="ticks/100") == {"id": 1, "ok": True}
        first = (await one.rows(1, 5))[0]
        assert [field["name"] for field in first["schema"]["fields"]] == ["time", "name", "n"]
        states = []
        while ["ticks/100", "running"] not in states:
            states = [line[:2] for line in (await one.message("state"))["channels"]]
        await one.socket.send(json.dumps({"type": "leave", "id": 1}))
        async with asyncio.timeout(15):
            while hub.grafana._viewers:
                await asyncio.sleep(0.01)


async def test_a_secret_that_was_reset_is_not_shown_as_set():
    async with console(Leaking, secrets=SECRETS) as (hub, _):
        first, *others = SECRETS
        await hub.save({}, {first: ""})
        assert hub.hello()["hello"]["secrets"] == sorted(others)


@pytest.mark.slow
async def test_the_page_gets_no_secret():
    shown = []
    async with console(Leaking, secrets=SECRETS) as (_, address), page(address) as one:
        receive = one.socket.recv

        async def recv():
            shown.append(await receive())
            return shown[-1]

        one.socket.recv = recv
        await one.message("hello")
        requests = [
            {"type": "health"},
            {"type": "query", "query": {"queryType": "ask"}},
            {"type": "query", "query": {"queryType": "notice"}},
            {"type": "resource", "path": "thing"},
            {"type": "publish", "path": "failing/any", "data": 1},
            {"type": "save", "settings": {"fails": "lifespan"}, "secrets": {"key": TOKEN}},
            {"type": "save", "settings": {}, "secrets": SECRETS},
        ]
        paths = "yields", "failing/bug", "failing/permanent", "failing/guarded"
        requests += [{"type": "follow", "path": path} for path in paths]
        for number, request in enumerate(requests):
            await one.request(number, **request)
        while not any(
            "permanent" in str(line) for line in (await one.message("state"))["channels"]
        ):
            pass
        assert any("log" in message for message in one.messages)
    check_no_secret(shown)


@pytest.mark.parametrize("then", ["leave", "follow", "disconnect"])
async def test_a_panel_that_is_removed_while_its_follow_is_pending_leaves_no_stream(then):
    class Slow(DataSource):
        @stream("gated/{id:int}")
        async def gated(self, id: int) -> Rows:
            yield {"id": id}
            await anyio.sleep_forever()

        @gated.subscribe
        async def wait(self, user: User | None, id: int) -> None:
            entered.set()
            await gate.wait()

    entered, gate = anyio.Event(), anyio.Event()
    async with console(Slow) as (hub, address), page(address) as one:
        await one.socket.send(json.dumps({"id": 1, "type": "follow", "path": "gated/1"}))
        await entered.wait()
        if then == "leave":
            await one.socket.send(json.dumps({"id": 1, "type": "leave"}))
            await one.request(2, "health")
        elif then == "follow":
            await one.socket.send(json.dumps({"id": 1, "type": "follow", "path": "gated/2"}))
            await one.request(2, "health")
        else:
            await one.socket.close()
        gate.set()
        wanted = ["gated/2"] if then == "follow" else []
        found = None
        async with asyncio.timeout(15):
            while found != wanted:
                await asyncio.sleep(0.01)
                found = list(hub.grafana._viewers)
        await asyncio.sleep(0.1)
        assert list(hub.grafana._viewers) == wanted


async def test_the_authors_hook_refuses_a_user():
    async with console() as (_, address), page(address) as one:
        viewer = {"login": "v", "role": "Viewer"}
        refused = await one.request(1, "follow", path="private/a", user=viewer)
        assert refused["status"] == "PERMISSION_DENIED" and "error" in refused
        assert "error" in await one.request(2, "follow", path="private/a", user=None)
        assert (await one.request(3, "follow", path="private/a"))["ok"]


async def test_a_stream_continues_with_saved_settings():
    async with console() as (_, address), page(address) as one:
        await one.request(1, "follow", path="ticks/100")
        await one.rows(1, 2)
        saved = await one.request(2, "save", settings={"name": "two"})
        assert saved["ok"]
        async with asyncio.timeout(15):
            while one.packets[1][-1]["data"]["values"][1][-1] != "two":
                await one.read()


async def test_an_authors_error_reaches_the_page_with_its_traceback():
    logging.getLogger().setLevel("INFO")
    async with console() as (hub, address), page(address) as one:
        await one.request(1, "follow", path="broken")
        async with asyncio.timeout(15):
            while not (found := [c for c in hub.stats.channels() if c[0] == "broken" and c[10]]):
                await one.read()
        assert "RuntimeError: on purpose" in found[0][10]
        log = await one.message("log")
        assert any("on purpose" in line.get("error", "") for line in log)


async def test_a_query_is_answered_with_frames_or_an_error():
    async with console() as (_, address), page(address) as one:
        found = await one.request(1, "query", path="ticks/50")
        assert found["query"] == {"queryType": "ticks", "hz": 50}
        assert found["frames"][0]["schema"]["meta"]["channel"] == "ds/local/ticks/50"
        wrong = await one.request(2, "query", query={"queryType": "none"})
        assert wrong["status"] == 400 and "'ticks'" in wrong["error"]


async def test_a_path_in_the_page_may_leave_out_parameters_that_have_defaults():
    async with console() as (_, address), page(address) as one:
        found = await one.request(1, "query", path="ticks")
        assert found["frames"][0]["schema"]["meta"]["channel"] == "ds/local/ticks/100"
        assert await one.request(2, "follow", path="ticks") == {"id": 2, "ok": True}
        assert await one.rows(2, 1)
        async with websockets.connect(f"ws://{address}/live/ticks") as socket:
            assert "data" in json.loads(await socket.recv())


@pytest.mark.timeout(120)
async def test_a_slow_viewer_loses_rows_and_others_lose_none():
    async with console() as (hub, address), page(address) as one:
        await one.request(1, "follow", path="flood", delay=5)
        await one.request(2, "follow", path="ticks/100")
        async with asyncio.timeout(90):
            while not [c for c in hub.stats.channels() if c[0] == "flood" and c[4] > 20_000]:
                await one.read()
        await one.socket.send(json.dumps({"type": "leave", "id": 1}))
        async with asyncio.timeout(15):
            while not [c for c in hub.stats.channels() if c[0] == "flood" and c[6]]:
                await one.read()
        numbers = [n for p in one.packets[2] for n in p["data"]["values"][2]]
        assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]


async def test_rows_continue_after_grafanas_connection_is_closed():
    async with console() as (_, address), page(address) as one:
        await one.request(1, "follow", path="ticks/100")
        await one.rows(1, 3)
        assert (await one.request(2, "disconnect"))["ok"]
        one.packets.clear()
        await one.rows(1, 3)


@pytest.mark.parametrize(
    "text", ["no json", "[]", '{"type": 1}', '{"type":"follow","id":"x"}', "[" * 9_000]
)
async def test_an_invalid_message_closes_only_that_page(text):
    async with console() as (_, address), page(address) as good:
        async with page(address) as bad:
            await bad.socket.send(text)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                async with asyncio.timeout(15):
                    while True:
                        await bad.read()
            assert closed.value.rcvd.code == 1003
        assert (await good.request(1, "follow", path="ticks/100"))["ok"]


async def test_an_unknown_request_is_answered_with_the_known_ones():
    async with console() as (_, address), page(address) as one:
        answer = await one.request(1, "dance")
        assert "one of leave, follow, query" in answer["error"] and "got 'dance'" in answer["error"]


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_a_page_that_does_not_read_does_not_delay_others(monkeypatch):
    monkeypatch.setattr(session, "TIMEOUT", 1.0)
    async with console() as (hub, address), page(address) as good:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((address.partition(":")[0], int(address.rpartition(":")[2])))
        async with websockets.connect(f"ws://{address}/ws", sock=sock, close_timeout=0) as stuck:
            await stuck.send(json.dumps({"type": "follow", "id": 1, "path": "flood"}))
            stuck.transport.pause_reading()
            await good.request(1, "follow", path="ticks/100")
            async with asyncio.timeout(40):
                while len(hub.pages) > 1:  # it is disconnected
                    await good.read()
        good.packets.clear()
        await good.rows(1, 20)


async def test_live_paths_serve_event_streams_and_websockets():
    async with console() as (_, address):
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(f"GET /live/ticks/100 HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        async with asyncio.timeout(15):
            while not (line := await reader.readline()).startswith(b"data: "):
                pass
        assert json.loads(line[6:])["data"]["values"][2][0] == 0
        writer.close()
        async with websockets.connect(f"ws://{address}/live/ticks/100") as socket:
            assert "data" in json.loads(await socket.recv())


async def test_live_paths_refuse_what_a_panel_is_refused():
    async with console() as (_, address):
        assert (await get(f"http://{address}/live/nothing"))[0] == 404
    listener = listen(port=0)
    address = "{}:{}".format(*listener.sock.getsockname())
    async with open_console(Source, page=False, identify=lambda _: None) as app:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_app, app, listener)
            assert (await get(f"http://{address}/live/private/a"))[0] == 403
            assert (await get(f"http://{address}/"))[0] == 404
            tasks.cancel_scope.cancel()


async def test_the_page_and_the_schema_are_served():
    async with console() as (_, address):
        status, body = await get(f"http://{address}/")
        assert status == 200 and b"static/console.js" in body
        assert (await get(f"http://{address}/static/console.js"))[0] == 200
        status, body = await get(f"http://{address}/schema")
        assert json.loads(body)["version"] == 1
        assert (await get(f"http://{address}/schema", Origin="http://evil.com"))[0] == 403


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_joins_and_leaves_do_not_leak():
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_join_and_leave())


async def _join_and_leave():
    async with open_hub(Catalog(Source)) as hub:
        queue = PageQueue()

        async def follow(number, leaves):
            path = f"slow/{number % 500}"
            leaves.append(await hub.grafana.attach(path, FollowedChannel(queue, number, path)))

        async def join_and_leave(rounds):
            for number in range(rounds):
                leaves = []
                async with anyio.create_task_group() as tasks:
                    for each in range(100):
                        tasks.start_soon(follow, 100 * number + each, leaves)
                await anyio.sleep(0.1)
                for leave in leaves:
                    leave()
                if queue._packets:
                    await queue.receive()
            await anyio.sleep(60)  # until Grafana closes empty channels
            # h2 remembers the last 65,536 calls of a connection: a new one starts without them
            await hub.grafana.replace_plugin(hub.plugin)
            await anyio.sleep(1)
            gc.collect()
            return sys.getallocatedblocks()

        before = await join_and_leave(20)
        grown = await join_and_leave(80) - before
        assert not hub.grafana._runs and not hub.grafana._viewers
        assert not hub.plugin.application.registry.channels
        assert len(hub.stats.counts) <= MAX_CHANNELS
        assert grown < 8_000, f"{grown} more objects after 8,000 joins and leaves"
