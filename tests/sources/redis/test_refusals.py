"""Servers that refuse, are wrong or say nothing: what Save & test and panels show."""

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis as Client

from aiostream_ds._redis import redis_connection
from aiostream_ds.sources.redis import Redis as Source
from aiostream_ds.testing import QueryFailed, serve_in_memory
from tests.servers import Proxy, Redis, certificates

from .connecting import admin, encoded, first_row, serving, settings_for, statuses, until

pytestmark = pytest.mark.slow  # real servers

QUERY = {"queryType": "entries", "stream": "orders:eu", "exact": True}
STOCK = f"entries/{encoded('orders:eu')}"


async def add(client: Client, number: int) -> None:
    await client.xadd("orders:eu", {"n": number})


@asynccontextmanager
async def failing(server: Redis, text: str, password: str = Redis.reader_password, **settings):
    """A source that cannot work: Save & test, queries, streams and channels show `text`."""
    async with serving(server, password, **settings) as grafana:
        ok, message = await grafana.health()
        assert not ok and text in message, message
        with pytest.raises(QueryFailed) as failed:
            await grafana.query(QUERY)
        assert text in str(failed.value)
        for path in (f"channel/{encoded('news')}", f"keys/{encoded('*')}"):
            viewer = await grafana.follow(f"x/{path}")
            await until(lambda viewer=viewer: statuses(viewer))
            assert text in (statuses(viewer)[-1] or {})["text"]
        yield grafana


async def test_a_wrong_password(server: Redis, client: Client):
    async with failing(server, "refuses the user 'grafana'", "wrong") as grafana:
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_stream_errors_total{kind="transient"}'] == 0, "no retry"


async def test_a_missing_password(server: Redis, client: Client):
    async with failing(server, "demands a password, got none", "", user=""):
        pass


async def test_an_unknown_user(server: Redis, client: Client):
    async with failing(server, "refuses the user 'nobody'", user="nobody"):
        pass


async def test_another_ca(server: Redis, client: Client):
    async with failing(server, "unknown authority", caCertificate=certificates().other_ca):
        pass


async def test_a_database_that_does_not_exist(server: Redis, client: Client):
    async with failing(server, "DB index is out of range", database=99):
        pass


async def test_plain_on_a_port_with_tls(server: Redis, client: Client):
    async with failing(server, "has closed the connection; it may expect TLS: set tls", tls=False):
        pass


async def test_a_port_that_nobody_listens_on(server: Redis, client: Client):
    async with failing(server, "refuses the connection", port=1):
        pass


async def test_a_host_that_does_not_exist(server: Redis, client: Client):
    async with failing(server, "is not found by DNS", host="no-such-host.invalid"):
        pass


@pytest.fixture(scope="module")
def other() -> Iterator[Redis]:
    """A server without TLS, or with another certificate, that tests may restart."""
    with Redis() as running:
        yield running


@pytest.mark.slow
async def test_tls_on_a_plain_port(other: Redis, monkeypatch):
    monkeypatch.setattr(redis_connection, "CONNECT_TIMEOUT", 0.2)
    async with failing(other, "or the port has no TLS: then set tls to false", tls=True):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("certificate", "text"),
    [("expired", "its certificate has expired"), ("other_name", "certificate is not valid for")],
)
async def test_a_certificate_that_is_not_valid(certificate: str, text: str):
    with Redis(tls=getattr(certificates(), certificate)) as server:
        async with failing(server, text):
            pass


@pytest.mark.slow
async def test_a_client_certificate_is_presented():
    made = certificates()
    with Redis(tls=made.server, client_ca=made.ca) as server:
        async with serving(server) as grafana:
            ok, message = await grafana.health()
            assert not ok and "set clientCertificate and clientKey" in message
        settings = settings_for(server, clientCertificate=made.client.certificate)
        secrets = {"password": server.reader_password, "clientKey": made.client.key}
        async with serve_in_memory(Source, settings=settings, secrets=secrets) as grafana:
            ok, message = await grafana.health()
            assert ok, message


@pytest.mark.slow
async def test_a_server_that_accepts_and_sends_nothing(monkeypatch, server: Redis):
    monkeypatch.setattr(redis_connection, "CONNECT_TIMEOUT", 0.2)
    with Proxy(server.port) as proxy:
        proxy.hold()
        async with failing(server, "does not answer in time", port=proxy.port):
            proxy.restore()


@pytest.mark.slow
async def test_a_server_that_stops_to_answer_and_others_go_on(
    monkeypatch, server: Redis, client: Client
):
    monkeypatch.setattr(redis_connection, "ANSWER_TIMEOUT", 1.0)
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana, serving(server) as direct:
            viewer, unaffected = await grafana.follow(f"x/{STOCK}"), await direct.follow(STOCK)
            stock = await grafana.follow(STOCK)
            await first_row(stock, lambda n: add(client, n))
            await first_row(unaffected, lambda n: add(client, n))
            proxy.hold()
            await until(
                lambda: "does not answer" in ((statuses(viewer) or [{}])[-1] or {}).get("text", "")
            )
            count = len(unaffected.rows)
            await add(client, 7)
            await until(lambda: len(unaffected.rows) > count)
            proxy.restore()
            await until(lambda: stock.rows[-1]["n"] == 7)


async def test_a_server_that_is_not_redis():
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    other = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        fake = type("Fake", (), {"port": port, "reader": "grafana", "tls": None})()
        async with failing(fake, "does not answer as Redis does"):
            pass


@pytest.mark.slow
async def test_a_server_that_is_loading(other: Redis):
    async with admin(other) as client:
        await client.mset({f"key{n}": b"x" * 100 for n in range(3_000)})
        await add(client, 1)
        await client.bgrewriteaof()
        await until(lambda: _is_rewritten(client))
    # 30 s, unless the delay is set to 0
    other.extra = {"key-load-delay": "10000", "loading-process-events-interval-bytes": "1024"}
    try:
        await asyncio.to_thread(other.restart)  # it answers while it loads
        async with serving(other) as grafana:
            ok, message = await grafana.health()
            assert not ok and "is loading its data set" in message
            viewer, stock = await grafana.follow(f"x/{STOCK}"), await grafana.follow(STOCK)
            await until(lambda: any("is loading" in (s or {})["text"] for s in statuses(viewer)))
            async with admin(other) as client:
                await client.config_set("key-load-delay", 0)
                await until(lambda: _is_loaded(client))
                await first_row(stock, lambda n: add(client, n))
    finally:
        other.extra = {}


async def _is_rewritten(client: Client) -> bool:
    info = await client.info("persistence")
    return not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]


async def _is_loaded(client: Client) -> bool:
    return not (await client.info("persistence"))["loading"]


async def test_missing_rights_are_named(server: Redis, client: Client):
    await client.acl_setuser(
        "narrow", enabled=True, passwords=["+pw"], keys=["orders:*"], commands=["+xread", "+ping"]
    )
    async with serving(server, "pw", user="narrow") as grafana:
        ok, message = await grafana.health()
        assert ok, message
        assert "XRANGE (no history of streams)" in message
        assert "SUBSCRIBE (no channels)" in message and "XREAD (" not in message
        with pytest.raises(QueryFailed, match="'narrow' lacks a right: .*range"):
            await grafana.query(QUERY)
        await client.acl_setuser("narrow", enabled=True, commands=["-xread", "+subscribe"])
        ok, message = await grafana.health()
        assert ok and "XREAD (no live entries of streams)" in message, "channels can be read"
        await client.acl_setuser("narrow", enabled=True, commands=["-subscribe"])
        assert not (await grafana.health())[0]


async def test_a_key_without_a_right_is_refused_alone(server: Redis, client: Client):
    await client.acl_setuser(
        "narrow",
        enabled=True,
        passwords=["+pw"],
        keys=["orders:*"],
        commands=["+xread", "+xrange", "+xrevrange", "+xinfo"],
    )
    async with serving(server, "pw", user="narrow") as grafana:
        with pytest.raises(QueryFailed, match="'narrow' lacks a right: .*key"):
            await grafana.query(QUERY | {"stream": "secret"})
        viewer = await grafana.follow(STOCK)
        await first_row(viewer, lambda n: add(client, n))


async def test_the_documented_rights_suffice(server: Redis, client: Client):
    async with serving(server) as grafana:
        ok, message = await grafana.health()
        assert ok and "lacks rights" not in message, message


async def test_reading_is_all_that_the_documented_user_can_do(server: Redis):
    async with Client(
        host="127.0.0.1",
        port=server.port,
        username=server.reader,
        password=server.reader_password,
        ssl=True,
        ssl_ca_data=certificates().ca,
        driver_info=None,
    ) as reader:
        for command in (("SET", "a", 1), ("XADD", "a", "*", "n", 1), ("PUBLISH", "a", "b")):
            with pytest.raises(Exception, match="permissions"):
                await reader.execute_command(*command)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"host": ""}, "host must be a name or an address"),
        ({"host": "redis://here"}, "host must be a name or an address"),
        ({"host": "a,b"}, "host must be one server unless mode is sentinel or cluster"),
        ({"host": "a:x"}, "the port in host must be from 1 to 65535"),
        ({"mode": "sentinel"}, "sentinelPrimary must be the name"),
        ({"mode": "cluster", "database": 1}, "a cluster has only the database 0, got 1"),
        ({"rowsPath": "["}, "rowsPath"),
        ({"tls": True, "caCertificate": "no"}, "caCertificate must"),
    ],
)
async def test_settings_that_do_not_fit_are_named(settings, text):
    fake = type("Fake", (), {"port": 1, "reader": "", "tls": None})()
    async with serving(fake, **settings) as grafana:
        ok, message = await grafana.health()
        assert not ok and text in message, message


def test_the_rights_of_the_tests_are_those_of_the_documentation():
    page = (Path(__file__).parents[3] / "docs" / "sources.md").read_text("utf-8")
    _, _, found = page.partition("ACL SETUSER grafana on >PASSWORD ")
    assert found.partition("```")[0].split() == Redis.RIGHTS.split()
    assert "A cluster needs `+cluster|slots +asking` too" in page
