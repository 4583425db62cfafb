"""Servers of the web that send almost valid answers: each is an error in words or rows, no bug."""

import asyncio
import base64
import hashlib
import logging
import random
import zlib

import anyio
import psutil
import pytest
from aiohttp import web

from aiostream_ds.sources.http import Http
from aiostream_ds.sources.websocket import WebSocket
from aiostream_ds.testing import serve_in_memory
from tests.servers.web import EventServer

ROUNDS = 60

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 20\r\n"
    b'Content-Encoding: gzip\r\n\r\n{"n":1}\n{"n":2}\n1234',
    b'HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n{"n":1}\n{"n":2}\n',
    b"HTTP/1.1 503 X\r\nRetry-After: 0\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 302 X\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    b"",
]
FRAMES = [
    b'\x81\x07{"n":1}',
    b"\x81\x05hello",
    b"\x82\x03\x01\x02\x03",
    b"\x88\x02\x03\xe8",
    b"\x88\x03\x03\xf0a",
    b"\x88\x01a",
    b"\x88\x02\x00\x00",
    b"\x89\x00",
    b"\x8a\x00",
    b"\x01\x02{}",
    b"\x80\x00",
    b"\x81\x7e\x00\x01a",
]


def mutated(data: bytes, chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        at = chance.randrange(len(found)) if found else 0
        kind = chance.randrange(4)
        if kind == 0:
            found[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del found[at : at + chance.randrange(1, 9)]
        elif kind == 2:
            found[at:at] = bytes(chance.choices(range(256), k=chance.randrange(1, 9)))
        else:
            del found[at:]
    return bytes(found)


def upgrade(head: bytes) -> bytes:
    lines = [line for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: ")]
    if not lines:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    key = lines[0].partition(b": ")[2] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key).digest())
    return (
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    for name in ("http.http_source", "websocket.websocket_source"):
        monkeypatch.setattr(f"aiostream_ds.sources.{name}.HEALTH_WAIT", 0.1)


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("kind", [Http, WebSocket], ids=["http", "websocket"])
@pytest.mark.parametrize("seed", range(2))
async def test_almost_valid_answers_are_errors_in_words(kind, seed, caplog):
    chance = random.Random(seed)

    handlers: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if kind is Http:
                writer.write(mutated(chance.choice(ANSWERS), chance))
            else:
                start = upgrade(head)
                writer.write(start if chance.random() < 0.9 else mutated(start, chance))
                frames = b"".join(chance.choices(FRAMES, k=chance.randrange(5)))
                writer.write(mutated(frames, chance))
            await writer.drain()
            if chance.random() < 0.3:
                await asyncio.sleep(0.2)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            handlers.discard(asyncio.current_task())

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    scheme = "http" if kind is Http else "ws"
    settings = {
        "url": f"{scheme}://127.0.0.1:{port}/",
        "proxy": "none",
        "timeout": 0.5,
        "format": "json",
    }
    async with server, serve_in_memory(kind, settings=settings) as grafana:
        texts = {(await grafana.health())[1] for _ in range(ROUNDS)}
    with anyio.fail_after(15):
        while handlers:
            await anyio.sleep(0.01)
    assert len(texts) > 5
    assert not [text for text in texts if "plugin failed" in text]
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR and line.exc_info]


@pytest.mark.slow
async def test_an_answer_that_grows_by_compression_takes_no_memory():
    pack = zlib.compressobj(9, wbits=31)
    body = b"".join(pack.compress(bytes(1 << 20)) for _ in range(200)) + pack.flush()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"})
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        await response.write(body)
        await response.write_eof()
        return response

    memory = psutil.Process().memory_info
    with EventServer(handler) as server:
        settings = {"url": f"http://127.0.0.1:{server.port}/", "proxy": "none"}
        async with serve_in_memory(Http, settings=settings) as grafana:
            before = memory().rss
            await grafana.follow("messages/-/-")
            peak = 0
            with anyio.fail_after(15):
                while server.accepted < 2:  # the first answer has been read to its end
                    await anyio.sleep(0.02)
                    peak = max(peak, memory().rss)
            assert (await grafana.metrics())['aiostream_ds_dropped_total{reason="message"}'] >= 1
    assert len(body) < 1 << 20 and peak - before < 40 << 20
