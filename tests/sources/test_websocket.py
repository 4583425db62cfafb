"""The source `websocket` against servers of `websockets`."""

import asyncio
import json
import logging
import random

import anyio
import msgspec
import pytest
from aiohttp import web

from aiostream_ds.sources.websocket import WebSocket
from aiostream_ds.testing import QueryFailed, serve_in_memory
from tests.servers import Proxy, certificates
from tests.servers.web import EventServer, SocketServer
from tests.sources.outage_run import run_outages, viewer_numbers
from tests.sources.web_support import serving, statuses, until

pytestmark = pytest.mark.slow  # real servers

SHARED = {
    "subscribe": '{"op": "subscribe", "channel": "trades.{symbol}"}',
    "unsubscribe": '{"op": "unsubscribe", "channel": "trades.{symbol}"}',
    "messageKey": "$.channel",
    "key": "trades.{symbol}",
}


@pytest.fixture(autouse=True)
def no_long_wait_of_health(monkeypatch):
    monkeypatch.setattr("aiostream_ds.sources.websocket.websocket_source.HEALTH_WAIT", 0.2)


def served(server: SocketServer, path: str = "/", secrets=(), **settings):
    return serving(WebSocket, "ws", server, path, dict(secrets), **settings)


async def channel(grafana, parameters: str | None, exact: bool = False) -> str:
    query = {"queryType": "messages", "parameters": parameters}
    (frame,) = await grafana.query(query)
    return ("x/" if exact else "") + frame.meta.channel.removeprefix("ds/test/")


async def follow(grafana, server, parameters: str | None = None, exact: bool = False):
    """Follow a channel with a connection of its own, until it is open."""
    before = server.accepted
    viewer = await grafana.follow(await channel(grafana, parameters, exact))
    await until(lambda: server.accepted > before and server.clients)
    return viewer


def trade(symbol: str, n: int) -> str:
    return json.dumps({"channel": f"trades.{symbol}", "n": n})


# -- channels ------------------------------------------------------------------------------------


async def test_a_channel_has_a_connection_with_its_parameters():
    with SocketServer(subprotocols=["v2.json"]) as server:
        async with served(
            server,
            "/ws/{stream}",
            subscribe='{"op": "sub", "depth": "{depth:int}"}',
            subprotocols=["v1.json", "v2.json"],
            secrets={"login": '{"op": "auth", "key": "sesame-123456789"}'}.items(),
        ) as grafana:
            viewer = await follow(grafana, server, "stream=a b&depth=5")
            await until(lambda: len(server.received) == 2)
            assert server.requests[0].path == "/ws/a%20b"
            assert [json.loads(message) for message in server.received] == [
                {"op": "auth", "key": "sesame-123456789"},
                {"op": "sub", "depth": 5},
            ]
            assert next(iter(server.clients)).subprotocol == "v2.json"
            server.publish(['{"n": 1}', b'{"n": 2}'])
            assert [row["n"] for row in await viewer.take(2)] == [1, 2], "text and binary"


async def test_binary_messages_are_decoded_by_their_format():
    with SocketServer() as server:
        async with served(server, format="msgpack") as grafana:
            viewer = await follow(grafana, server)
            server.publish([msgspec.msgpack.encode({"n": n}) for n in (1, 2)])
            assert [row["n"] for row in await viewer.take(2)] == [1, 2]


async def test_channels_share_one_connection():
    with SocketServer() as server:
        async with served(server, **SHARED) as grafana:
            viewers = {}
            for symbol in ("A", "B"):
                viewers[symbol] = await grafana.follow(await channel(grafana, symbol))
            await until(lambda: len(server.received) == 2)
            assert server.accepted == 1
            assert {json.loads(message)["channel"] for message in server.received} == {
                "trades.A",
                "trades.B",
            }
            batch = f"[{trade('B', 4)}, {trade('A', 5)}]"
            server.publish(['{"ok": true}', trade("A", 1), trade("B", 2), trade("C", 3), batch])
            assert [row["n"] for row in await viewers["A"].take(2)] == [1, 5]
            assert [row["n"] for row in await viewers["B"].take(2)] == [2, 4]
            assert (await grafana.health())[0]


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_a_channel_without_viewers_is_unsubscribed():
    with SocketServer() as server:
        async with served(server, **SHARED) as grafana:
            viewer = await grafana.follow(await channel(grafana, "A"))
            await grafana.follow(await channel(grafana, "B"))
            await until(lambda: len(server.received) == 2)
            viewer.leave()
            await until(lambda: len(server.received) == 3, seconds=30)
            assert json.loads(server.received[2]) == {"op": "unsubscribe", "channel": "trades.A"}
            assert server.accepted == 1


async def test_without_placeholders_the_parameters_are_the_key():
    with SocketServer() as server:
        async with served(server, messageKey="$.meta.kind", subscribe="go") as grafana:
            everything = await follow(grafana, server, None)
            one = await grafana.follow(await channel(grafana, "7"))
            source = await grafana.data_source(WebSocket)
            await until(lambda: len(source._shared.followed) == 2 and server.received == ["go"])
            for n, kind in enumerate((7, "b", 7.0, True, None, {})):
                server.publish([json.dumps({"n": n, "meta": {"kind": kind}})])
            assert [row["n"] for row in await everything.take(6)] == [0, 1, 2, 3, 4, 5]
            assert [row["n"] for row in await one.take(2)] == [0, 2]
            answer = await grafana.resource("forms/suggest?stream=messages&field=parameters&typed=")
            assert json.loads(answer.body) == ["7", "b", "true"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"url": "http://h/"}, "url must be ws://HOST/PATH or wss://HOST/PATH"),
        ({"key": "{a}"}, "messageKey must be set, because key is"),
        ({"unsubscribe": "x"}, "messageKey must be set, because unsubscribe is"),
        ({"url": "ws://h/{a}", "messageKey": "$.k"}, "url must have no placeholders"),
        ({"subscribe": "{a} {b}", "messageKey": "$.k"}, "key must be set, because there are 2"),
        (
            {"subscribe": "{a} {b}", "messageKey": "$.k", "key": "{a}"},
            "subscribe has the placeholder {b}, which key has not",
        ),
        ({"messageKey": "$.k", "key": "{a}"}, "key has the placeholder {a}"),
        ({"messageKey": "$["}, "messageKey must be a JSONPath"),
        ({"subscribe": '{"a": {b}}'}, "subscribe must be JSON or a text"),
    ],
)
async def test_settings_that_contradict_each_other_are_named(settings, expected):
    async with serve_in_memory(WebSocket, settings={"url": "ws://h/", **settings}) as grafana:
        ok, message = await grafana.health()
        assert not ok and expected in message


async def test_parameters_that_do_not_fit_are_refused():
    with SocketServer() as server:
        async with served(server, **SHARED) as grafana:
            with pytest.raises(QueryFailed, match="a value for symbol"):
                await grafana.query({"queryType": "messages"})
            assert server.accepted == 0


# -- outages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_a_channel_subscribes_again_and_shows_what_may_be_missing(shared):
    with SocketServer() as server:
        settings = SHARED if shared else {"subscribe": "SUB {symbol}"}
        async with served(server, **settings) as grafana:
            viewer = await grafana.follow(await channel(grafana, "A"))
            exact = await grafana.follow(await channel(grafana, "A", exact=True))
            await until(lambda: len(server.received) == 1)
            server.publish([trade("A", 1)])
            await viewer.next()
            server.restart()
            await until(lambda: len(server.received) == 2)
            server.publish([trade("A", 2)])
            assert (await viewer.next())["n"] == 2
            await until(lambda: any("may be missing" in (s or "") for s in statuses(exact)))
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 1
            assert "1 interruption" in (await grafana.health())[1]


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_outages_lose_exactly_what_is_shown(shared):
    async def write(numbers):
        server.publish([trade("A", n) for n in numbers])
        return numbers

    with SocketServer() as server, Proxy(server.port) as proxy:
        settings = SHARED if shared else {"subscribe": "SUB {symbol}"}
        settings = {**settings, "sequence": "n", "pingInterval": 4, "port": proxy.port}
        async with served(server, **settings) as grafana:
            viewer = await grafana.follow(await channel(grafana, "A"))
            outcome = await run_outages(write, viewer_numbers(viewer), server.restart, proxy)
            metrics = await grafana.metrics()
    assert outcome.written == 20_000 and outcome.doubled == outcome.out_of_order == 0
    assert 0 < outcome.lost < 15_000
    warm_up = max(row["n"] for row in viewer.rows if row["n"] < 0)  # its numbers end there
    assert metrics["aiostream_ds_gaps_total"] == len(outcome.gaps) + 1 <= 4
    assert metrics["aiostream_ds_rows_missing_total"] == outcome.lost - warm_up - 1


async def test_a_server_that_does_not_answer_pings_is_gone():
    with SocketServer() as server, Proxy(server.port) as proxy:
        async with served(server, port=proxy.port, pingInterval=0.4) as grafana:
            viewer = await follow(grafana, server, exact=True)
            proxy.hold()
            await until(
                lambda: any("not answered a ping for 0.2 s" in (s or "") for s in statuses(viewer))
            )
            proxy.restore()
            await until(lambda: server.accepted > 1 and statuses(viewer)[-1] is not None)


async def test_pings_keep_a_quiet_connection_open():
    with SocketServer() as server:
        # a busy machine answers a ping within half of it
        async with served(server, pingInterval=1) as grafana:
            viewer = await follow(grafana, server)
            await anyio.sleep(2.5)
            server.publish(['{"n": 1}'])
            assert (await viewer.next())["n"] == 1 and server.accepted == 1


async def test_a_keep_alive_message_is_sent_also_among_messages():
    with SocketServer() as server:
        async with served(server, pingInterval=1, keepAlive="ping") as grafana:
            began = asyncio.get_running_loop().time()
            viewer = await follow(grafana, server)
            await until(lambda: server.received)
            for n in range(30):
                server.publish([json.dumps({"n": n})])
                await anyio.sleep(0.05)
            assert [row["n"] for row in await viewer.take(30)] == list(range(30))
            count = len(server.received)
            assert set(server.received) == {"ping"}
            assert 2 <= count <= asyncio.get_running_loop().time() - began


async def test_a_connection_without_messages_is_opened_again():
    with SocketServer() as server:
        async with served(server, idleTimeout=0.3) as grafana:
            viewer = await follow(grafana, server, exact=True)
            await until(lambda: server.accepted > 1)
            assert any("has sent nothing for 0.3 s" in (text or "") for text in statuses(viewer))


@pytest.mark.parametrize(
    ("code", "reason", "is_permanent", "text"),
    [
        (1000, "", False, "1000 normal closure"),
        (1001, "bye", False, "1001 going away: the server stops, 'bye'"),
        (1008, "token expired", True, "1008 policy violation, 'token expired': check the cred"),
        (1011, "", False, "1011 internal error of the server"),
        (3000, "", True, "3000 unauthorized"),
        (4001, "quota", False, "4001 a code of the server's own, 'quota'"),
        (4403, "", True, "4403 forbidden: check the credentials, and what subscribe asks for"),
    ],
)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_a_close_code_is_an_error_in_words(code, reason, is_permanent, text, shared):
    async def close(client):
        await client.close(code, reason)

    with SocketServer(close) as server:
        async with served(server, **(SHARED if shared else {})) as grafana:
            viewer = await grafana.follow(await channel(grafana, "A" if shared else None, True))
            await until(lambda: any(text in (s or "") for s in statuses(viewer)))
            assert statuses(viewer)[0].startswith("reconnecting") is not is_permanent
            if is_permanent:
                await anyio.sleep(0.8)
                assert server.accepted == 1


async def test_a_policy_violation_after_messages_is_tried_again():
    async def close(client):
        await client.send('{"n": 1}')
        await client.close(1008, "session expired")

    with SocketServer(close) as server:
        async with served(server) as grafana:
            await grafana.follow("messages/-")
            await until(lambda: server.accepted > 1)


# -- refusals ------------------------------------------------------------------------------------


async def test_a_wrong_token_is_refused_once_and_not_shown(caplog):
    caplog.set_level(logging.DEBUG)
    with SocketServer() as server:
        server.token = "right-0123456789"
        wrong, right = ({"token": token}.items() for token in ("wrong-0123456789", server.token))
        async with served(server, secrets=wrong, **SHARED) as grafana:
            viewer = await grafana.follow(await channel(grafana, "A", exact=True))
            await until(lambda: statuses(viewer))
            assert "401 Unauthorized: the credentials are wrong" in statuses(viewer)[0]
            ok, message = await grafana.health()
            assert not ok and "401 Unauthorized" in message
            assert server.accepted == 1
            ours = [line.getMessage() for line in caplog.records if "websockets" not in line.name]
            shown = f"{viewer.packets}{message}{ours}"
            assert "wrong-0123456789" not in shown
        async with served(server, secrets=right, **SHARED) as grafana:
            assert (await grafana.health())[0]


async def test_redirects_are_not_followed():
    async def handler(request):
        place = f"http://127.0.0.1:{other.port}/"
        return web.Response(status=302, headers={"Location": place})

    with EventServer() as other, EventServer(handler) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        secrets = {"token": "tok-0123456789"}
        settings = {"url": url, "proxy": "none", "tokenIn": "header", "tokenName": "X-Key"}
        async with serve_in_memory(WebSocket, settings=settings, secrets=secrets) as grafana:
            ok, message = await grafana.health()
            assert not ok and "redirects are not followed" in message and other.accepted == 0


async def test_a_path_without_a_websocket_is_named():
    async def handler(request):
        return web.Response(text="hello")

    with EventServer(handler) as server:
        settings = {"url": f"ws://127.0.0.1:{server.port}/", "proxy": "none"}
        async with serve_in_memory(WebSocket, settings=settings) as grafana:
            ok, message = await grafana.health()
            assert not ok and "answers 200 without a WebSocket" in message


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_a_server_that_accepts_and_does_not_answer_is_a_status(shared):
    with SocketServer() as server, Proxy(server.port) as proxy:
        proxy.hold()
        settings = SHARED if shared else {}
        async with served(server, port=proxy.port, timeout=0.3, **settings) as grafana:
            viewer = await grafana.follow(await channel(grafana, "A" if shared else None, True))
            await until(lambda: statuses(viewer))
            assert "does not answer within 0.3 s" in statuses(viewer)[0]
        proxy.restore()


TLS = certificates()


@pytest.mark.parametrize(
    ("server_tls", "settings", "expected"),
    [
        (TLS.server, {"caCertificate": TLS.ca}, ""),
        (TLS.server, {"caCertificate": TLS.other_ca}, "signed by an unknown authority"),
        (TLS.expired, {"caCertificate": TLS.ca}, "has expired"),
        (TLS.other_name, {"caCertificate": TLS.ca, "serverName": "elsewhere.test"}, ""),
    ],
)
async def test_the_servers_certificate_is_checked(server_tls, settings, expected):
    with SocketServer(tls=server_tls) as server:
        async with served(server, **settings) as grafana:
            ok, message = await grafana.health()
            assert ok is not bool(expected) and expected in message


async def test_a_login_is_hidden_also_in_parts():
    async def close(client):
        key = json.loads(await client.recv())["key"]
        await client.close(4400, f"unknown key {key}")

    secrets = {"login": '{\n "op": "auth",\n "key": "sesame-key"\n}'}
    with SocketServer(close) as server:
        async with served(server, secrets=secrets.items()) as grafana:
            viewer = await grafana.follow("x/messages/-")
            await until(lambda: statuses(viewer))
            assert "4400 a code of the server's own, 'unknown key ***'" in statuses(viewer)[0]


# -- bad messages --------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
async def test_large_and_malformed_messages_are_left_out_and_others_are_read(shared):
    seed = random.Random(7)
    noise = [bytes(seed.choices(range(256), k=seed.randrange(1, 80))) for _ in range(300)]
    big = json.dumps({"channel": "trades.A", "text": "x" * 10_000_000})
    with SocketServer() as server:
        settings = SHARED if shared else {"subscribe": "SUB {symbol}"}
        async with served(server, format="json", **settings) as grafana:
            viewer = await grafana.follow(await channel(grafana, "A"))
            exact = await grafana.follow(await channel(grafana, "A", exact=True))
            await until(lambda: server.received)
            server.publish([trade("A", 1), big, *noise, trade("A", 2)])
            found = [row["n"] for row in viewer.rows]
            while 2 not in found:
                found.append((await viewer.next()).get("n"))
            assert [n for n in found if n is not None] == [1, 2] and server.accepted == 1
            metrics = await grafana.metrics()
            assert metrics['aiostream_ds_dropped_total{reason="message"}'] > 200
            assert "expected at most 1,000,000 bytes" in (await grafana.health())[1]
            if not shared:
                await until(lambda: any("left out" in (text or "") for text in statuses(exact)))


async def test_a_message_above_every_limit_ends_the_connection_with_a_reason(monkeypatch):
    monkeypatch.setattr("aiostream_ds.sources.websocket.websocket_source.MESSAGE_BYTES", 100_000)
    with SocketServer() as server:
        async with served(server) as grafana:
            viewer = await follow(grafana, server, exact=True)
            server.publish(["x" * 200_000])
            await until(
                lambda: any("a message of more than" in (s or "") for s in statuses(viewer))
            )


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_invalid_frames_are_named(data):
    async def handler(client):
        client.transport.write(data)
        await asyncio.sleep(1)

    with SocketServer(handler) as server:
        async with served(server) as grafana:
            viewer = await grafana.follow("x/messages/-")
            await until(lambda: statuses(viewer))
            assert "invalid frame" in statuses(viewer)[0]


# -- load ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.alone
async def test_ten_thousand_messages_a_second_go_through_one_channel_in_flat_memory(shared):
    import psutil

    memory = psutil.Process().memory_info
    with SocketServer() as server:
        settings = SHARED if shared else {"subscribe": "SUB {symbol}"}
        async with served(server, sequence="n", **settings) as grafana:
            viewer = await grafana.follow(await channel(grafana, "A"))
            await until(lambda: server.received)
            sizes, sent = [], 0
            started = asyncio.get_running_loop().time()
            for second in range(10):
                for part in range(20):
                    server.publish([trade("A", n) for n in range(sent, sent + 500)])
                    sent += 500
                    due = started + second + (part + 1) / 20
                    await anyio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
                last = sent - 1
                await until(lambda last=last: viewer.rows and viewer.rows[-1]["n"] == last)
                viewer.rows.clear()
                viewer.packets.clear()
                sizes.append(memory().rss)
            metrics = await grafana.metrics()
    assert sent == 100_000 and metrics["aiostream_ds_rows_missing_total"] == 0
    assert metrics["aiostream_ds_rows_total"] == sent
    assert sizes[-1] - sizes[3] < 20 << 20
