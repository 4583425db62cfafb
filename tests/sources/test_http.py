"""The source `http` against servers of aiohttp."""

import asyncio
import gzip
import json
import logging
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import pytest
from aiohttp import web

from aiostream_ds.sources.http import Http
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory
from tests.servers import Proxy, certificates
from tests.servers.web import EventServer
from tests.sources.outage_run import run_outages, viewer_numbers
from tests.sources.web_support import serving, statuses, until

pytestmark = pytest.mark.slow  # real servers

SSE = {"Content-Type": "text/event-stream"}


@pytest.fixture(autouse=True)
def no_long_wait_of_health(monkeypatch):
    monkeypatch.setattr("aiostream_ds.sources.http.http_source.HEALTH_WAIT", 0.2)


def rows(*numbers: int) -> list[str]:
    return [json.dumps({"n": n}) for n in numbers]


def served(server: EventServer, path: str = "/sse", secrets=(), **settings):
    return serving(Http, "http", server, path, dict(secrets), **settings)


@asynccontextmanager
async def answering(handler, path: str = "/", secrets=(), **settings):
    """A data source whose server has this handler."""
    with EventServer(handler) as server:
        async with served(server, path, secrets, **settings) as grafana:
            yield grafana, server


async def follow(grafana, server, path: str = "messages/-/-"):
    before = server.open
    viewer = await grafana.follow(path)
    await until(lambda: server.open > before)
    return viewer


def streaming(*chunks: bytes, content_type: str = "text/event-stream", headers=()):
    """A handler that sends these chunks and then nothing."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type, **dict(headers)})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        await asyncio.Event().wait()
        return response

    return handler


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/sse", "/plain", "/lines"])
@pytest.mark.parametrize("is_compressed", [False, True], ids=["plain", "gzip"])
async def test_messages_are_rows(path, is_compressed):
    with EventServer() as server:
        server.gzip = is_compressed
        async with served(server, path) as grafana:
            viewer = await follow(grafana, server)
            server.publish(rows(1, 2))
            assert [row["n"] for row in await viewer.take(2)] == [1, 2]


async def test_events_of_a_type_are_selected_and_suggested():
    stream = b"event: add\ndata: 1\n\ndata: 2\n\nevent: del\ndata: 3\n\nevent: add\ndata: 4\n\n"
    async with answering(streaming(stream)) as (grafana, server):
        everything = await follow(grafana, server)
        found = await everything.take(4)
        assert [(row["value"], row.get("event")) for row in found] == [
            (1, "add"),
            (2, None),
            (3, "del"),
            (4, "add"),
        ]
        (frame,) = await grafana.query({"queryType": "messages", "event": "add"})
        added = await follow(grafana, server, frame.meta.channel.removeprefix("ds/test/"))
        assert [row["value"] for row in await added.take(2)] == [1, 4]
        assert await suggested(grafana, "event", "d") == ["add", "del"]


async def suggested(grafana, field: str, typed: str) -> list[str]:
    query = f"stream=messages&field={field}&typed={typed}"
    answer = await grafana.resource(f"forms/suggest?{query}")
    return json.loads(answer.body)


async def test_a_body_is_posted_with_the_parameters_in_it():
    body = '{"topic": "{topic}", "depth": "{n:int}"}'
    async with answering(
        streaming(b'{"n": 1}\n', content_type="application/x-ndjson"),
        "/a/{topic}",
        method="POST",
        body=body,
        headers={"X-Tenant": "blue", "content-type": "application/ld+json", "accept": "text/x"},
    ) as (grafana, server):
        query = {"queryType": "messages", "parameters": "topic=a%26 b&n=5"}
        (frame,) = await grafana.query(query)
        viewer = await grafana.follow(frame.meta.channel.removeprefix("ds/test/"))
        assert (await viewer.next())["n"] == 1
        assert json.loads(server.bodies[0]) == {"topic": "a& b", "depth": 5}
        assert server.paths == ["/a/a%26%20b"]
        sent = server.requests[0]
        assert sent["X-Tenant"] == "blue"
        assert sent.getall("Content-Type") == ["application/ld+json"]
        assert sent.getall("Accept") == ["text/x"]
        assert await suggested(grafana, "parameters", "a%2526") == [query["parameters"]]


@pytest.mark.parametrize("parameters", ["../x", "a/b", "%2e%2e", None])
async def test_parameters_that_leave_their_place_are_refused(parameters):
    async with answering(streaming(), "/a/{topic}") as (grafana, server):
        query = {"queryType": "messages", "parameters": parameters}
        with pytest.raises(QueryFailed) as refused:
            await grafana.query(query)
        assert refused.value.status in (400, 404)
        assert server.accepted == 0
        if parameters is None:
            with pytest.raises(Refused):
                await grafana.follow("messages/-/-")


async def test_a_last_line_without_a_newline_is_a_message():
    async def handler(request):
        return web.Response(body=b'{"n": 1}\n{"n": 2}', content_type="application/x-ndjson")

    async with answering(handler) as (grafana, _):
        viewer = await grafana.follow("messages/-/-")
        assert [row["n"] for row in await viewer.take(3)] == [1, 2, 1], "it is requested again"


async def test_a_gzip_of_several_members_is_read():
    body = gzip.compress(b'{"n": 1}\n') + gzip.compress(b'{"n": 2}\n')
    headers = {"Content-Encoding": "gzip"}
    kind = "application/x-ndjson"
    async with answering(streaming(body, content_type=kind, headers=headers.items())) as (g, _):
        viewer = await g.follow("messages/-/-")
        assert [row["n"] for row in await viewer.take(2)] == [1, 2]


# -- outages -------------------------------------------------------------------------------------


async def test_events_with_ids_resume():
    with EventServer() as server:
        async with served(server) as grafana:
            viewer = await follow(grafana, server)
            server.publish(rows(1, 2))
            await viewer.take(2)
            server.stop()
            server.publish(rows(3, 4))
            server.start()
            assert [row["n"] for row in await viewer.take(2)] == [3, 4]
            assert server.requests[-1]["Last-Event-ID"] == "2"
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 0


async def test_a_stream_that_begins_at_an_id_of_the_settings_resumes_after_its_events():
    with EventServer() as server:
        async with served(server, headers={"last-event-id": "0"}) as grafana:
            viewer = await follow(grafana, server)
            assert server.requests[-1].getall("Last-Event-ID") == ["0"]
            server.publish(rows(1, 2))
            await viewer.take(2)
            server.stop()
            server.publish(rows(3))
            server.start()
            assert (await viewer.next())["n"] == 3
            assert server.requests[-1].getall("Last-Event-ID") == ["2"]


async def test_an_id_is_not_kept_for_later_viewers():
    with EventServer() as server:
        async with served(server) as grafana:
            viewer = await follow(grafana, server)
            server.publish(rows(1))
            await viewer.next()
            await grafana.change_settings(grafana._settings | {"maxMessage": 5_000})
            viewer.leave()
            await until(lambda: server.accepted > 1)
            assert "Last-Event-ID" not in server.requests[-1]


async def test_what_may_be_missing_is_a_status_and_counted():
    with EventServer() as server:
        async with served(server, "/lines") as grafana:
            viewer = await follow(grafana, server)
            exact = await grafana.follow("x/messages/-/-")
            server.publish(rows(1))
            await viewer.next()
            server.restart()
            await until(lambda: server.open == 1)
            await until(lambda: any("may be missing" in (s or "") for s in statuses(exact)))
            assert (await grafana.metrics())["aiostream_ds_gaps_total"] == 1
            ok, message = await grafana.health()
            assert ok and "1 interruption; 1 gap in which messages may be missing" in message


async def test_numbers_show_exactly_what_is_missing():
    with EventServer() as server:
        async with served(server, "/lines", sequence="n") as grafana:
            viewer = await follow(grafana, server)
            exact = await grafana.follow("x/messages/-/-")
            server.publish(rows(1, 2))
            await viewer.take(2)
            server.stop()
            server.publish(rows(*range(3, 1003)))
            server.start()
            await until(lambda: server.open == 1)
            server.publish(rows(1003))
            await viewer.next()
            metrics = await grafana.metrics()
            assert metrics["aiostream_ds_rows_missing_total"] == 1_000
            await until(lambda: "n 3 to 1002 are missing: 1,000 rows" in statuses(exact))


async def test_the_servers_reconnection_time_is_the_least_delay():
    times = []

    async def handler(request):
        times.append(asyncio.get_running_loop().time())
        return web.Response(body=b"retry: 1500\n\ndata: 1\n\n", headers=SSE)

    async with answering(handler) as (grafana, _):
        await grafana.follow("messages/-/-")
        await until(lambda: len(times) > 1)
        assert times[1] - times[0] >= 1.4


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_is_honoured_and_shown(as_date):
    times = []

    async def handler(request):
        times.append(asyncio.get_running_loop().time())
        if len(times) > 1:
            return await streaming(b"data: 1\n\n")(request)
        due = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
        return web.Response(status=429, headers={"Retry-After": due if as_date else "2"})

    async with answering(handler) as (grafana, _):
        viewer = await grafana.follow("x/messages/-/-")
        stock = await grafana.follow("messages/-/-")
        await stock.next()
        assert times[1] - times[0] >= 1.9
        shown = [text for text in statuses(viewer) if text]
        assert len(times) == 2
        assert any(text.startswith("waiting for ") and "429" in text for text in shown)
        await until(lambda: statuses(viewer)[-1] is None)


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("path", ["/sse", "/plain", "/lines"])
async def test_outages_lose_nothing_with_ids_and_else_what_is_shown(path):
    async def write(numbers):
        server.publish(rows(*numbers))
        return numbers

    with EventServer() as server, Proxy(server.port) as proxy:
        has_ids = path == "/sse"
        settings = {} if has_ids else {"sequence": "n"}
        async with served(server, path, port=proxy.port, idleTimeout=10, **settings) as grafana:
            viewer = await grafana.follow("messages/-/-")
            outcome = await run_outages(write, viewer_numbers(viewer), server.restart, proxy)
            metrics = await grafana.metrics()
    assert outcome.written == 20_000 and outcome.doubled == outcome.out_of_order == 0
    if has_ids:
        assert outcome.is_exact, outcome
        assert metrics["aiostream_ds_gaps_total"] == 0
    else:
        assert 0 < outcome.lost < 15_000
        warm_up = max(row["n"] for row in viewer.rows if row["n"] < 0)  # its numbers end there
        assert metrics["aiostream_ds_gaps_total"] == len(outcome.gaps) + 1 <= 4
        assert metrics["aiostream_ds_rows_missing_total"] == outcome.lost - warm_up - 1


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "is_permanent", "text"),
    [
        (401, True, "401 Unauthorized: it asks for credentials: set token, or user and password"),
        (403, True, "403 Forbidden: the credentials give no right to read this: no such luck"),
        (404, False, "404 Not Found: no such luck"),
        (410, True, "410 Gone"),
        (400, True, "400 Bad Request: it does not accept this request: no such luck"),
        (429, False, "429 Too Many Requests"),
        (500, False, "500 Internal Server Error"),
        (503, False, "503 Service Unavailable"),
        (599, False, "599"),
        (204, True, "204 No Content"),
        (201, True, "201 Created; expected 200 OK"),
    ],
)
async def test_a_status_is_an_error_in_words(status, is_permanent, text):
    async def handler(request):
        return web.Response(status=status, text="no such luck" if status not in (204,) else None)

    async with answering(handler) as (grafana, server):
        viewer = await grafana.follow("x/messages/-/-")
        await until(lambda: statuses(viewer))
        shown = statuses(viewer)[0]
        assert shown.startswith("reconnecting") is not is_permanent
        assert f"http://127.0.0.1:{server.port} answers {text}" in shown
        ok, message = await grafana.health()
        assert not ok and text in message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status):
    with EventServer() as other:

        async def handler(request):
            place = f"http://127.0.0.1:{other.port}/sse?token=abcdef"
            return web.Response(status=status, headers={"Location": place})

        async with answering(handler, secrets={"token": "abcdef"}.items()) as (grafana, _):
            ok, message = await grafana.health()
            assert (
                not ok and f"to 'http://127.0.0.1:{other.port}/sse': redirects are not" in message
            )
            assert other.accepted == 0


async def test_a_page_for_browsers_is_no_stream():
    async with answering(streaming(b"<html>", content_type="text/html")) as (grafana, _):
        ok, message = await grafana.health()
        assert not ok and "text/html" in message


async def test_a_server_that_accepts_and_does_not_answer_is_a_status():
    async def handler(request):
        await asyncio.Event().wait()

    async with answering(handler, timeout=0.3) as (grafana, server):
        viewer = await grafana.follow("x/messages/-/-")
        await until(lambda: statuses(viewer))
        assert "does not answer within 0.3 s" in statuses(viewer)[0]
        ok, message = await grafana.health()
        assert not ok and "does not answer within 0.3 s" in message


async def test_an_answer_that_is_not_compressed_as_it_states_is_named():
    headers = {"Content-Encoding": "gzip"}.items()
    kind = "application/x-ndjson"
    async with answering(streaming(b'{"n": 1}\n', content_type=kind, headers=headers)) as (g, _):
        viewer = await g.follow("x/messages/-/-")
        await until(lambda: statuses(viewer))
        assert "not compressed as its head states" in statuses(viewer)[0]


async def test_closing_a_panel_does_not_shorten_the_wait_of_a_server():
    async def handler(request):
        return web.Response(status=503, headers={"Retry-After": "3600"})

    async with answering(handler) as (grafana, server):
        viewer = await grafana.follow("x/messages/-/-")
        await until(lambda: any("waiting for 3" in (s or "") for s in statuses(viewer)))
        source = await grafana.data_source(Http)
        await until(lambda: (None, None) in source._runs._interruptions._channels)
        assert server.accepted == 1


async def test_an_answer_that_goes_silent_is_requested_again():
    async with answering(streaming(b"data: 1\n\n"), idleTimeout=0.3) as (grafana, server):
        viewer = await grafana.follow("x/messages/-/-")
        await until(lambda: server.accepted > 1)
        assert any("has sent nothing for 0.3 s" in (text or "") for text in statuses(viewer))


async def test_a_server_that_is_not_there_is_a_status():
    with EventServer() as server:
        port = server.port
    async with serve_in_memory(
        Http, settings={"url": f"http://127.0.0.1:{port}/", "proxy": "none"}
    ) as grafana:
        ok, message = await grafana.health()
        assert not ok and f"127.0.0.1:{port} refuses the connection" in message


async def test_something_else_than_http_is_named():
    async def handle(reader, writer):
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await writer.drain()
        await reader.read()
        writer.close()
        ended.set()

    ended = asyncio.Event()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with serve_in_memory(
            Http, settings={"url": f"http://127.0.0.1:{port}/", "proxy": "none"}
        ) as grafana:
            ok, message = await grafana.health()
            assert not ok and "something else than HTTP" in message
        await ended.wait()


# -- bad messages --------------------------------------------------------------------------------


async def test_a_large_message_is_left_out_and_the_next_is_read():
    big = json.dumps({"text": "x" * 10_000_000})
    with EventServer() as server:
        async with served(server, "/lines") as grafana:
            viewer = await follow(grafana, server)
            exact = await grafana.follow("x/messages/-/-")
            server.publish([*rows(1), big, *rows(2)])
            assert [row["n"] for row in await viewer.take(2)] == [1, 2]
            await until(lambda: any("maxMessage" in (text or "") for text in statuses(exact)))
            ok, message = await grafana.health()
            assert (
                "1 message or row was left out" in message and "at most 1,000,000 bytes" in message
            )


async def test_malformed_messages_are_counted_and_others_are_read():
    seed = random.Random(5)
    noise = [bytes(seed.choices(range(32, 256), k=seed.randrange(1, 60))) for _ in range(500)]
    body = b"\n".join([*noise, b'{"n": 7}', b""])
    handler = streaming(body, content_type="application/x-ndjson")
    async with answering(handler, format="json") as (grafana, _):
        viewer = await grafana.follow("messages/-/-")
        while "n" not in (row := await viewer.next()) or row["n"] is None:
            pass
        assert row["n"] == 7
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_dropped_total{reason="message"}'] > 400


# -- credentials, TLS and proxies ----------------------------------------------------------------


CREDENTIALS = [
    ({"user": "ann"}, {"password": "correct horse"}),
    ({}, {"token": "tok-0123456789"}),
    ({"tokenIn": "header", "tokenName": "X-API-Key"}, {"token": "tok-0123456789"}),
    ({"tokenIn": "query", "tokenName": "api key"}, {"token": "tok/0123&456=789"}),
]


@pytest.mark.parametrize(("settings", "secrets"), CREDENTIALS)
async def test_credentials_are_sent_and_never_shown(settings, secrets, caplog):
    caplog.set_level(logging.DEBUG)
    (value,) = secrets.values()

    async def handler(request):
        if "Authorization" in request.headers and "user" in settings:
            assert request.headers["Authorization"] == "Basic YW5uOmNvcnJlY3QgaG9yc2U="
        elif "tokenName" not in settings:
            assert request.headers["Authorization"] == f"Bearer {value}"
        elif settings["tokenIn"] == "header":
            assert request.headers["X-API-Key"] == value
        else:
            assert request.query["api key"] == value and request.query["a"] == "b"
        text = f"echo {value} {request.path_qs} {dict(request.headers)}"
        return web.Response(status=[500, 403][len(answers) > 1], text=text)

    answers: list[str] = []
    path = "/x?a=b"
    async with answering(handler, path, secrets=secrets.items(), **settings) as (grafana, server):
        viewer = await grafana.follow("x/messages/-/-")
        answers += [(await grafana.health())[1], (await grafana.health())[1]]
        await until(lambda: statuses(viewer))
        answers.append((await grafana.health())[1])
        assert server.accepted >= 4
        everything = f"{answers}{viewer.packets}{caplog.text}{await grafana.metrics()}"
    for spelled in (value, "YW5uOmNvcnJlY3Q", "tok%2F0123", "tok/0123%26", "0123456789"):
        assert spelled not in everything
    assert "echo ***" in everything


@pytest.mark.parametrize(
    ("settings", "secrets", "expected"),
    [
        ({}, {"password": "sesame-0123"}, "user must be set"),
        ({"tokenIn": "header"}, {"token": "tok1"}, "tokenName must be set"),
        ({"tokenName": "X-Key"}, {"token": "tok1"}, "tokenIn must be header or query"),
        ({"user": "ann"}, {"token": "tok1"}, "got both"),
        ({"headers": {"Authorization": "x"}}, {}, "headers must not have Authorization"),
        ({"headers": {"X Y": "x"}}, {}, "headers must have names"),
        ({"headers": {"X-Y": "a\nb"}}, {}, "printable value for X-Y"),
        ({"headers": {"X-Y": "a", "x-y": "b"}}, {}, "got 'X-Y' and 'x-y'"),
        (
            {"headers": {"x-key": "a"}, "tokenIn": "header", "tokenName": "X-Key"},
            {"token": "tok1"},
            "headers must not have x-key",
        ),
        ({}, {"token": "tok1\n"}, "token must be one line"),
        ({"body": "x"}, {}, "method must be POST"),
        ({"proxy": "ftp://h"}, {}, "proxy must be http://HOST:PORT"),
        ({"proxy": "http://u:p@h:1"}, {}, "proxy must have no user or password"),
        ({"labels": ["time"]}, {}, "labels must be"),
        ({"rowsPath": "$["}, {}, "rowsPath must be a JSONPath"),
    ],
)
async def test_settings_that_contradict_each_other_are_named(settings, secrets, expected):
    settings = {"url": "http://127.0.0.1:9/", **settings}
    async with serve_in_memory(Http, settings=settings, secrets=secrets) as grafana:
        ok, message = await grafana.health()
        assert not ok and expected in message


TLS = certificates()


@pytest.mark.parametrize(
    ("server_tls", "settings", "expected"),
    [
        (TLS.server, {"caCertificate": TLS.ca}, ""),
        (TLS.server, {"caCertificate": TLS.other_ca}, "signed by an unknown authority"),
        (TLS.server, {}, "signed by an unknown authority"),
        (TLS.expired, {"caCertificate": TLS.ca}, "has expired"),
        (TLS.other_name, {"caCertificate": TLS.ca}, "serverName"),
        (TLS.other_name, {"caCertificate": TLS.ca, "serverName": "elsewhere.test"}, ""),
        (TLS.expired, {"skipVerify": True}, ""),
    ],
)
async def test_the_servers_certificate_is_checked(server_tls, settings, expected):
    with EventServer(tls=server_tls) as server:
        async with served(server, **settings) as grafana:
            viewer = await grafana.follow("x/messages/-/-")
            ok, message = await grafana.health()
            assert ok is not bool(expected) and expected in message
            if expected:
                await until(lambda: any(expected in (s or "") for s in statuses(viewer)))


async def test_a_server_may_ask_for_a_clients_certificate():
    with EventServer(tls=TLS.server, client_ca=TLS.ca) as server:
        async with served(server, caCertificate=TLS.ca) as grafana:
            ok, message = await grafana.health()
            assert not ok and "client" in message
        settings = {"caCertificate": TLS.ca, "clientCertificate": TLS.client.certificate}
        secrets = {"clientKey": TLS.client.key}
        async with served(server, secrets=secrets.items(), **settings) as grafana:
            assert (await grafana.health())[0]


async def test_https_to_a_port_without_tls_is_named():
    with EventServer() as server:
        url = f"https://127.0.0.1:{server.port}/"
        async with serve_in_memory(Http, settings={"url": url, "proxy": "none"}) as grafana:
            ok, message = await grafana.health()
            assert not ok and "does not use TLS on this port; use http:// in url" in message


async def test_http_to_a_port_with_tls_is_named():
    with EventServer(tls=TLS.server) as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with serve_in_memory(Http, settings={"url": url, "proxy": "none"}) as grafana:
            ok, message = await grafana.health()
            assert not ok and message.endswith("without an answer; it may expect https")


# -- load ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", ["/sse", "/lines"])
@pytest.mark.alone
async def test_ten_thousand_messages_a_second_go_through_one_channel_in_flat_memory(path):
    import psutil

    async def write(start: int, count: int) -> None:
        server.log.clear() if path == "/lines" else None
        server.publish(rows(*range(start, start + count)))

    memory = psutil.Process().memory_info
    with EventServer() as server:
        async with served(server, path, sequence="n") as grafana:
            viewer = await follow(grafana, server)
            sizes, sent = [], 0
            started = asyncio.get_running_loop().time()
            for second in range(10):
                for part in range(20):
                    server.publish(rows(*range(sent, sent + 500)))
                    sent += 500
                    due = started + second + (part + 1) / 20
                    await anyio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
                last = sent - 1
                await until(lambda last=last: viewer.rows and viewer.rows[-1]["n"] == last)
                viewer.rows.clear()
                viewer.packets.clear()
                viewer._taken = 0
                sizes.append(memory().rss)
            metrics = await grafana.metrics()
    assert sent == 100_000 and metrics["aiostream_ds_rows_missing_total"] == 0
    assert metrics["aiostream_ds_rows_total"] == sent
    assert sizes[-1] - sizes[3] < 20 << 20
