"""Servers that refuse, are wrong or say nothing: what Save & test and panels show."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiostream_ds._nats import nats_connection
from aiostream_ds.sources.nats import Nats as Source
from aiostream_ds.sources.nats import server_link
from aiostream_ds.testing import QueryFailed, serve_in_memory
from tests.cluster.nats.nkeys import Key
from tests.servers import Nats, Proxy, certificates

from .connecting import (
    NatsToRead,
    Publisher,
    first_row,
    messages_of,
    numbers,
    publishing,
    serving,
    settings_for,
    status_texts,
    subjects_of,
    until,
)

pytestmark = pytest.mark.slow  # real servers

QUERY = {"queryType": "messages", "stream": "ORDERS", "exact": True}


@pytest.fixture
def own() -> Iterator[NatsToRead]:
    """A server that the test may start with other settings."""
    server = NatsToRead()
    yield server
    server.__exit__()


@asynccontextmanager
async def failing(
    server: Any, text: str, password: str = Nats.user_password, **settings: Any
) -> AsyncIterator[Any]:
    """A source that cannot work: Save & test, queries, streams and subjects show `text`."""
    async with serving(server, password, **settings) as grafana:
        ok, message = await grafana.health()
        assert not ok and text in message, message
        with pytest.raises(QueryFailed) as failed:
            await grafana.query(QUERY)
        assert text in str(failed.value)
        viewer = await grafana.follow(f"x/{subjects_of('home.hall')}")
        await until(lambda: text in status_texts(viewer))
        yield grafana


async def test_a_wrong_password(server: NatsToRead):
    text = "it refuses the user 'grafana'; set user and password, token or credentials"
    async with failing(server, text, "wrong") as grafana:
        metrics = await grafana.metrics()
        assert metrics['aiostream_ds_stream_errors_total{kind="transient"}'] == 0, "no retry"


async def test_a_missing_login(server: NatsToRead):
    async with failing(server, "it refuses a client without a login", "", user=""):
        pass


async def test_another_ca(server: NatsToRead):
    async with failing(server, "unknown authority", caCertificate=certificates().other_ca):
        pass


async def test_plain_urls_of_a_server_that_demands_tls_use_it(server: NatsToRead):
    url = f"nats://127.0.0.1:{server.port}"
    async with serving(server, servers=url) as grafana:
        ok, message = await grafana.health()
        assert ok and "with TLS" in message, message


async def test_tls_at_a_server_without_it(own: NatsToRead):
    own.start()
    async with failing(own, "has no TLS", servers=f"tls://127.0.0.1:{own.port}"):
        pass
    async with serving(own) as grafana:
        ok, message = await grafana.health()
        assert ok and "without TLS" in message, message


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("discover", "a b", "discover: a subject must not have spaces or control characters, got"),
        ("publish", ["a", "b..c"], "publish: a subject must not have an empty token, got 'b..c'"),
    ],
)
async def test_a_setting_that_is_not_a_subject(server: NatsToRead, name, value, text):
    async with serving(server, **{name: value}) as grafana:
        ok, message = await grafana.health()
        assert not ok and text in message, message


async def test_a_port_that_nobody_listens_on(server: NatsToRead):
    async with failing(server, "refuses the connection", port=1):
        pass


async def test_a_host_that_does_not_exist(server: NatsToRead):
    async with failing(server, "is not found by DNS", servers="tls://no-such-host.invalid"):
        pass


async def test_one_of_several_servers_is_enough(server: NatsToRead):
    servers = f"tls://127.0.0.1:1, tls://127.0.0.1:{server.port}"
    async with serving(server, servers=servers) as grafana:
        ok, message = await grafana.health()
        assert ok, message


@pytest.mark.parametrize(
    ("certificate", "text"),
    [("expired", "its certificate has expired"), ("other_name", "certificate is not valid for")],
)
async def test_a_certificate_that_is_not_valid(own: NatsToRead, certificate: str, text: str):
    own.tls = getattr(certificates(), certificate)
    own.start()
    async with failing(own, text):
        pass


async def test_a_client_certificate_is_presented(own: NatsToRead):
    own.tls, own.client_ca = certificates().server, certificates().ca
    own.start()
    async with serving(own) as grafana:
        ok, message = await grafana.health()
        assert not ok and "set clientCertificate and clientKey" in message, message
    settings = settings_for(own, clientCertificate=certificates().client.certificate)
    secrets = {"password": own.user_password, "clientKey": certificates().client.key}
    async with serve_in_memory(Source, settings=settings, secrets=secrets) as grafana:
        ok, message = await grafana.health()
        assert ok, message


async def test_a_server_that_accepts_and_sends_nothing(monkeypatch, server: NatsToRead):
    monkeypatch.setattr(server_link, "CONNECT_TIMEOUT", 0.2)
    with Proxy(server.port) as proxy:
        proxy.hold()
        async with failing(server, "does not answer in time", port=proxy.port):
            proxy.restore()


async def test_a_server_that_stops_to_answer_and_others_go_on(
    monkeypatch, server: NatsToRead, publisher: Publisher
):
    monkeypatch.setattr(nats_connection, "_SILENCE", 1.0)
    with Proxy(server.port) as proxy:
        async with serving(server, port=proxy.port) as grafana, serving(server) as direct:
            viewer = await grafana.follow(f"x/{messages_of()}")
            unaffected = await direct.follow(messages_of())
            for each in (viewer, unaffected):
                await first_row(each, lambda n: publisher.store(n))
            proxy.hold()
            await until(lambda: "the server does not answer" in status_texts(viewer))
            count = len(numbers(unaffected))
            await publisher.store(1_000)
            await until(lambda: len(numbers(unaffected)) > count)
            proxy.restore()
            await until(lambda: 1_000 in numbers(viewer))


async def test_a_server_that_is_not_nats():
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        fake = SimpleNamespace(port=port, user="", tls=None)
        async with failing(fake, "does not answer as NATS does"):
            pass


async def test_a_server_without_jetstream_has_subjects_only(own: NatsToRead):
    own.jetstream = False
    own.start()
    async with publishing(own) as publisher, serving(own) as grafana:
        ok, message = await grafana.health()
        assert ok and "JetStream is not enabled (no streams, only subjects)" in message, message
        with pytest.raises(QueryFailed, match="JetStream is not enabled"):
            await grafana.query(QUERY)
        viewer = await grafana.follow(subjects_of("home.hall"))
        await first_row(viewer, lambda n: publisher.publish("home.hall", {"n": n}))


async def test_an_account_without_jetstream_is_named(own: NatsToRead):
    user = {"user": own.user, "password": own.user_password}
    admin = {"user": own.admin, "password": own.password}
    own.extra = {
        "authorization": {},
        "accounts": {
            "JS": {"jetstream": "enabled", "users": [admin]},
            "NONE": {"users": [user]},
        },
    }
    own.start()
    async with serving(own) as grafana:
        ok, message = await grafana.health()
        assert ok and "no streams, only subjects" in message and "JetStream" in message, message


@pytest.mark.parametrize("right", NatsToRead.RIGHTS["publish"])
async def test_each_missing_right_is_named(own: NatsToRead, right: str):
    publish = [each for each in NatsToRead.RIGHTS["publish"] if each != right]
    own.rights = {**NatsToRead.RIGHTS, "publish": publish}
    own.start()
    own.make_stream()
    async with serving(own) as grafana:
        ok, message = await grafana.health()
        name = right.rstrip("*>").rstrip(".")
        assert ok and f'Permissions Violation for Publish to "{name}' in message, message
        if right.startswith("$JS.API.CONSUMER") and "DELETE" not in right:
            viewer = await grafana.follow(f"x/{messages_of()}")
            await until(lambda: name in status_texts(viewer))
        if "INFO" in right:
            with pytest.raises(QueryFailed, match="STREAM.INFO.ORDERS"):
                await grafana.query(QUERY)
        other = await grafana.follow(f"x/{subjects_of('home.hall')}")
        async with publishing(own) as publisher:
            await first_row(other, lambda n: publisher.publish("home.hall", {"n": n}))


async def test_without_the_right_to_answers_the_source_is_refused(own: NatsToRead):
    own.rights = {**NatsToRead.RIGHTS, "subscribe": ["home.>"]}
    own.start()
    async with failing(own, 'Permissions Violation for Subscription to "_INBOX.'):
        pass


async def test_the_documented_rights_suffice(server: NatsToRead):
    async with serving(server) as grafana:
        ok, message = await grafana.health()
        assert ok and "Permissions" not in message, message


async def test_a_token_is_a_login(own: NatsToRead):
    own.extra = {"authorization": {"token": "the-token"}}
    own.admin_login = {"auth_token": "the-token"}
    own.start()
    settings = settings_for(own, user="")
    async with serve_in_memory(
        Source, settings=settings, secrets={"token": "the-token"}
    ) as grafana:
        ok, message = await grafana.health()
        assert ok, message
    async with serve_in_memory(Source, settings=settings, secrets={"token": "other"}) as grafana:
        ok, message = await grafana.health()
        assert not ok and "it refuses the token" in message and "other" not in message


@pytest.mark.mtls
async def test_the_content_of_a_credentials_file_is_a_login(own: NatsToRead):
    operator, system, account, user = (
        Key(kind) for kind in ("operator", "account", "account", "user")
    )
    limits = {"subs": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1, "data": -1}
    limits |= {"payload": -1, "wildcards": True, "mem_storage": -1, "disk_storage": -1}
    limits |= {"streams": -1, "consumer": -1}
    own.extra = {
        "authorization": {},
        "operator": operator.sign(operator, "O", {"system_account": system.public}),
        "resolver": "MEMORY",
        "resolver_preload": {
            system.public: operator.sign(system, "SYS", {}),
            account.public: operator.sign(account, "A", {"limits": limits}),
        },
    }
    own.admin_login = None
    own.start()
    jwt = account.sign(user, "U", {"subs": -1, "data": -1, "payload": -1})
    settings = settings_for(own, user="")
    secrets = {"credentials": user.credentials(jwt).replace("\n", " ")}
    async with serve_in_memory(Source, settings=settings, secrets=secrets) as grafana:
        ok, message = await grafana.health()
        assert ok and "JetStream has 0 streams" in message, message


def test_the_rights_of_the_tests_are_those_of_the_documentation():
    page = (Path(__file__).parents[3] / "docs" / "sources.md").read_text("utf-8")
    section = page.partition("## `nats`")[2].partition("\n## ")[0]
    for right in (*NatsToRead.RIGHTS["publish"], "_INBOX.>"):
        assert f'"{right}"' in section
