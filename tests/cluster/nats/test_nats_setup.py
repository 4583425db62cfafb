"""What `open` makes of servers that are not fit for the engine: each is named in words."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from aiostream_ds._cluster.cluster_settings import cluster_access, cluster_settings
from aiostream_ds._cluster.engine import START, EngineError, Reconnected, Sent
from aiostream_ds._cluster.nats.nats_engine import NatsEngine
from aiostream_ds._nats.nats_servers import NatsLogin
from aiostream_ds._tls import TlsSettings, ssl_context
from aiostream_ds.errors import ConfigError
from tests.cluster.nats.engines import PATIENCE, Writer, engine, next_event, settings
from tests.cluster.nats.nkeys import Key
from tests.servers import Nats, certificates
from tests.servers.nats import client_context
from tests.servers.ports import free_port

pytestmark = pytest.mark.slow  # real servers


@pytest.fixture
def own() -> Iterator[Nats]:
    """A server that the test may start with other settings."""
    server = Nats()
    yield server
    server.__exit__()


async def refused(server: Nats, **others) -> str:
    with pytest.raises(ConfigError) as caught:
        async with engine(server, **others):
            pass
    return caught.value.message


async def test_a_server_without_jetstream_is_named(own):
    own.jetstream = False
    own.start()
    assert "JetStream is not enabled" in await refused(own)


async def test_an_account_without_jetstream_is_named(own):
    own.extra = {
        "authorization": {},
        "accounts": {
            "JS": {
                "jetstream": "enabled",
                "users": [{"user": own.admin, "password": own.password}],
            },
            "NONE": {"users": [{"user": own.user, "password": own.user_password}]},
        },
    }
    own.start()
    assert "JetStream is not enabled" in await refused(own)


RIGHTS = [(kind, subject) for kind, subjects in Nats.RIGHTS.items() for subject in subjects]


@pytest.mark.parametrize(("kind", "subject"), RIGHTS)
async def test_each_missing_right_is_named(own, kind, subject):
    own.rights = {
        each: [right for right in rights if right != subject]
        for each, rights in Nats.RIGHTS.items()
    }
    own.start()
    create, update = "$JS.API.STREAM.CREATE", "$JS.API.STREAM.UPDATE"
    if subject.startswith(create):  # rights to what an admin may do instead
        admin = settings(own, url=own.admin_url)
        opened = NatsEngine(admin)
        assert f'"{subject}"' in await refused(own)
        await opened.open()
        await opened.aclose()
        async with engine(own):
            return
    if subject.startswith(update):
        async with engine(own, entries=10):
            pass
        if subject.endswith("-log"):
            assert f'"{subject}"' in await refused(own, entries=20)
        return
    message = await refused(own)
    assert "ermission" in message and subject.rstrip("*>").rstrip(".") in message


async def test_a_wrong_password_is_named_without_it(nats):
    message = await refused(nats, url=nats.url_of("grafana", "not-the-password"))
    assert "Authorization Violation" in message and "not-the-password" not in message
    assert "cluster_user and cluster_password" in message


async def test_a_certificate_of_an_unknown_authority_is_named(nats):
    assert "its certificate is refused" in await refused(nats, tls=None)


async def test_a_url_with_tls_is_not_used_without(own):
    own.start()
    assert "has no TLS" in await refused(own, url=own.url.replace("nats:", "tls:"))


async def test_with_certificates_a_server_without_tls_gets_no_login(own):
    own.start()
    assert "certificates for it are configured" in await refused(own, tls=client_context())


async def test_with_certificates_a_server_that_offers_tls_is_used_with_it(own):
    own.tls, own.extra = certificates().server, {"allow_non_tls": True}
    own.start()
    url = own.url.replace("tls:", "nats:")
    assert "its certificate is refused" in await refused(
        own, url=url, tls=ssl_context(TlsSettings())
    )
    async with engine(own, url=url):
        pass


async def test_a_server_that_demands_tls_gets_it_also_without_tls_in_the_url(nats):
    async with engine(nats, "a", url=nats.url.replace("tls:", "nats:")):
        pass


async def test_a_server_that_demands_a_client_certificate_is_not_connected_without(own):
    own.tls, own.client_ca = certificates().server, certificates().ca
    own.start()
    with pytest.raises((ConfigError, EngineError)):
        async with engine(own):
            pass


async def test_a_client_certificate_alone_is_used_also_without_tls_in_the_url(
    own, tmp_path, monkeypatch
):
    own.tls, own.client_ca = certificates().server, certificates().ca
    own.start()
    for name, text in (
        ("ca", certificates().ca),
        ("certificate", certificates().client.certificate),
        ("key", certificates().client.key),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))  # an authority of the system
    values = {
        "URL": own.url.replace("tls:", "nats:"),
        "CERTIFICATE_FILE": str(tmp_path / "certificate"),
        "KEY_FILE": str(tmp_path / "key"),
    }
    environment = {f"GF_PLUGIN_CLUSTER_{name}": value for name, value in values.items()}
    opened = cluster_access(cluster_settings(environment)).engine
    await opened.open()
    await opened.aclose()


async def test_servers_that_cannot_be_reached_are_named(own):
    ports = [free_port(), free_port()]
    url = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
    opened = NatsEngine(settings(own, url=url))
    with pytest.raises(EngineError) as caught:
        await opened.open()
    assert all(str(port) in str(caught.value) for port in ports)


async def test_one_server_of_the_list_is_enough(nats):
    async with engine(nats, "a", url=f"nats://127.0.0.1:{free_port()},{nats.url}"):
        pass


async def test_the_newest_login_of_the_settings_has_precedence(nats):
    url = nats.url_of("someone", "else")
    async with engine(nats, url=url, login=NatsLogin(nats.user, nats.user_password)):
        pass


async def test_a_stream_with_other_subjects_is_named(nats):
    config = {"name": "aiostream-ds-log", "subjects": ["orders.*"]}
    nats.call("$JS.API.STREAM.CREATE.aiostream-ds-log", json.dumps(config).encode())
    message = await refused(nats)
    assert "aiostream-ds-log" in message and "orders.*" in message


async def test_another_stream_with_the_subjects_of_the_engine_is_named(nats):
    config = {"name": "other", "subjects": ["aiostream-ds.>"]}
    nats.call("$JS.API.STREAM.CREATE.other", json.dumps(config).encode())
    try:
        assert "another stream has these subjects" in await refused(nats)
    finally:
        nats.call("$JS.API.STREAM.DELETE.other")


async def test_more_replicas_than_servers_are_named(nats):
    message = await refused(nats, replicas=3)
    assert "aiostream-ds-log" in message and "replicas" in message


async def test_a_storage_that_cannot_be_changed_is_named(nats):
    async with engine(nats):
        pass
    assert "aiostream-ds-log" in await refused(nats, storage="memory")


async def test_more_bytes_than_the_server_has_are_named(own):
    own.extra = {"jetstream": {"store_dir": str(own.folder / "js"), "max_file_store": 10 << 20}}
    own.start()
    assert "storage" in await refused(own, max_bytes=100 << 20)


async def test_other_bounds_are_set_on_a_stream_that_exists(nats):
    async with engine(nats, "a", entries=100) as one:
        writer = Writer(one, "c", "a")
        await writer.take()
        await writer.write(50)
    async with engine(nats, "a", entries=10) as two:
        assert len((await two.read("c", START, 100)).entries) == 10


async def test_a_server_that_is_too_old_is_named(own):
    async def old_server(reader, writer):
        writer.write(b'INFO {"version":"2.10.26","max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(old_server, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        opened = NatsEngine(settings(own, url=f"nats://127.0.0.1:{port}"))
        with pytest.raises(ConfigError, match=r"must be version 2\.11 or newer, got '2\.10\.26'"):
            await opened.open()


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"220 mail ESMTP\r\n"])
async def test_another_kind_of_server_is_named(own, greeting):
    async def other(reader, writer):
        writer.write(greeting)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        opened = NatsEngine(settings(own, url=f"nats://127.0.0.1:{port}"))
        with pytest.raises(EngineError, match="does not answer as NATS does"):
            await opened.open()


async def test_a_token_is_a_login(own):
    own.extra = {"authorization": {"token": "the-token"}}
    own.admin_login = {"auth_token": "the-token"}
    own.start()
    async with engine(own, "a", url=f"nats://the-token@127.0.0.1:{own.port}"):
        pass
    url = f"nats://127.0.0.1:{own.port}"
    async with engine(own, "a", url=url, login=NatsLogin(token="the-token")):
        pass
    assert "Authorization Violation" in await refused(own, url=url)


async def test_a_credentials_file_is_a_login(own):
    operator, system, account, user = (
        Key("operator"),
        Key("account"),
        Key("account"),
        Key("user"),
    )
    limits = {"subs": -1, "data": -1, "payload": -1}
    unlimited = {**limits, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    user_jwt = account.sign(user, "plugin", limits)
    own.extra = {
        "authorization": {},
        "operator": operator.sign(operator, "tests", {}),
        "resolver": "MEMORY",
        "system_account": system.public,
        "resolver_preload": {
            account.public: operator.sign(account, "grafana", {"limits": unlimited | storage}),
            system.public: operator.sign(system, "SYS", {"limits": unlimited}),
        },
    }
    own.admin_login = None
    own.start()
    login = NatsLogin(credentials=user.credentials(user_jwt))
    url = f"nats://127.0.0.1:{own.port}"
    async with engine(own, "a", url=url, login=login):
        pass
    other = NatsLogin(credentials=Key("user").credentials(user_jwt))
    assert "Authorization Violation" in await refused(own, url=url, login=other)


async def test_a_subscription_that_the_server_has_too_many_of_is_an_error(own):
    own.extra = {"max_subscriptions": 3}
    own.start()
    async with engine(own, "a") as a:
        await a.watch("one")
        await a.watch("two")
        with pytest.raises(EngineError, match="maximum subscriptions exceeded"):
            await a.watch("three")
        await a.unwatch("two")
        await a.watch("three")


@pytest.mark.parametrize("steps", range(8))
async def test_a_refusal_is_noticed_wherever_another_subscription_stands(own, steps):
    own.extra = {"max_subscriptions": 3}
    own.start()
    async with engine(own, "a") as a:
        await a.watch("one")
        earlier = asyncio.create_task(a.watch("two"))
        for _ in range(steps):
            await asyncio.sleep(0)
        with pytest.raises(EngineError, match="maximum subscriptions exceeded"):
            await a.watch("three")
        await asyncio.gather(earlier, return_exceptions=True)
        await a.unwatch("two")
        await a.watch("three")


async def test_after_a_reconnection_each_subscription_is_sent_until_the_server_has_it(own, caplog):
    own.start()
    async with engine(own, "a") as a, engine(own, "b") as b:
        for name in ("one", "two", "three"):
            await a.watch(name)
        events = a.events()
        own.extra = {"max_subscriptions": 3}
        own.restart()
        refusals = "maximum subscriptions exceeded"
        async with asyncio.timeout(PATIENCE):
            while caplog.text.count(refusals) < 3:  # at each attempt
                await asyncio.sleep(0.01)
        await a.unwatch("one")
        await next_event(events, Reconnected)
        for name in ("two", "three"):
            await b.send(name, b"x")
            assert (await next_event(events, Sent)).channel == name


async def test_a_login_that_ends_is_an_error_of_requests_until_it_is_valid_again(own):
    own.start()
    async with engine(own, "a", url=own.url_of("grafana", own.user_password), timeout=0.5) as a:

        async def ask() -> None:
            while True:
                await a.nodes()

        callers = [asyncio.create_task(ask()) for _ in range(20)]
        events = a.events()
        own.user_password = "another"
        own.reload()
        for error in await asyncio.gather(*callers, return_exceptions=True):
            assert isinstance(error, EngineError)
        with pytest.raises(EngineError, match="set cluster_user and cluster_password"):
            await a.renew("a", 1.0)
        own.user_password = Nats.user_password
        own.reload()
        await next_event(events, Reconnected)
        await a.renew("a", 1.0)


async def test_a_server_that_waits_for_tls_is_named(own):
    own.tls = certificates().server
    own.start()
    own.extra = {
        "tls": {
            "cert_file": str(own.certificate_file),
            "key_file": str(own.key_file),
            "handshake_first": True,
        }
    }
    own.admin_login = None
    own.connect = own.connect_plain
    own.restart()
    with pytest.raises(EngineError, match="handshake_first"):
        async with engine(own):
            pass
