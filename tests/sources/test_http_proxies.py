"""The sources `http` and `websocket` through SOCKS5 and HTTP proxies."""

import json
import logging
from contextlib import asynccontextmanager

import anyio
import pytest

from aiostream_ds.errors import ConfigError
from aiostream_ds.sources.http import Http, HttpSourceSettings
from aiostream_ds.sources.http_client.proxies import find_proxy
from aiostream_ds.sources.websocket import WebSocket
from aiostream_ds.testing import serve_in_memory
from tests.servers import certificates
from tests.servers.forward_proxies import HttpProxy, SocksProxy
from tests.servers.web import EventServer, SocketServer

pytestmark = pytest.mark.slow  # real servers

TLS = certificates()
LOGIN = ("ann", "sesame-0123456789")
KINDS = {"socks5": SocksProxy, "http": HttpProxy}


@pytest.fixture(autouse=True)
def no_environment_and_no_long_waits(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr("aiostream_ds.sources.http.http_source.HEALTH_WAIT", 0.2)
    monkeypatch.setattr("aiostream_ds.sources.websocket.websocket_source.HEALTH_WAIT", 0.2)


@asynccontextmanager
async def through(proxy, kind, scheme: str, source, url: str, secrets=(), **settings):
    settings = {"url": url, "proxy": f"{scheme}://127.0.0.1:{proxy.port}", **settings}
    async with serve_in_memory(kind, settings=settings, secrets=dict(secrets)) as grafana:
        viewer = await grafana.follow("messages/-/-" if kind is Http else "messages/-")
        with anyio.fail_after(15):
            while not (source.open if kind is Http else source.clients):
                await anyio.sleep(0.01)
        yield grafana, viewer


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
@pytest.mark.parametrize("tls", [None, TLS.server], ids=["plain", "tls"])
async def test_http_goes_through_the_proxy_which_resolves_the_name(scheme, login, tls):
    with EventServer(tls=tls) as server:
        async with KINDS[scheme](server.port, login).running() as proxy:
            url = f"{'https' if tls else 'http'}://server.test:8443/sse"
            settings = {"caCertificate": TLS.ca, "serverName": "localhost"} if tls else {}
            secrets = {}
            if login:
                settings["proxyUser"], secrets["proxyPassword"] = login
            async with through(proxy, Http, scheme, server, url, secrets.items(), **settings) as (
                grafana,
                viewer,
            ):
                server.publish([json.dumps({"n": 1})])
                assert (await viewer.next())["n"] == 1
                assert set(proxy.asked) == {("server.test", 8443)}
                ok, message = await grafana.health()
                assert ok and f"through the proxy {scheme}://127.0.0.1:{proxy.port}" in message


@pytest.mark.parametrize("scheme", KINDS)
async def test_a_websocket_with_tls_goes_through_the_proxy(scheme):
    with SocketServer(tls=TLS.server) as server:
        async with KINDS[scheme](server.port, LOGIN).running() as proxy:
            settings = {"caCertificate": TLS.ca, "serverName": "localhost", "proxyUser": LOGIN[0]}
            secrets = {"proxyPassword": LOGIN[1]}
            url = "wss://server.test/"
            async with through(
                proxy, WebSocket, scheme, server, url, secrets.items(), **settings
            ) as (_, viewer):
                server.publish([json.dumps({"n": 1})])
                assert (await viewer.next())["n"] == 1
                assert set(proxy.asked) == {("server.test", 443)}


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_wrong_credentials_at_the_proxy_are_refused_and_not_shown(scheme, tls, caplog):
    caplog.set_level(logging.DEBUG)
    async with KINDS[scheme](9, LOGIN).running() as proxy:
        settings = {
            "url": f"http{'s' * tls}://server.test/",
            "proxy": f"{scheme}://127.0.0.1:{proxy.port}",
            "proxyUser": "ann",
        }
        secrets = {"proxyPassword": "wrong-0123456789"}
        async with serve_in_memory(Http, settings=settings, secrets=secrets) as grafana:
            ok, message = await grafana.health()
            assert not ok and "the proxy" in message
            assert "proxyPassword" in message or "refuses the credentials" in message
            assert "wrong-0123456789" not in f"{message}{caplog.text}"


@pytest.mark.parametrize("scheme", KINDS)
async def test_a_proxy_that_is_not_there_is_named(scheme):
    async with KINDS[scheme](9).running() as proxy:
        port = proxy.port
    settings = {"url": "https://server.test/", "proxy": f"{scheme}://127.0.0.1:{port}"}
    async with serve_in_memory(Http, settings=settings) as grafana:
        ok, message = await grafana.health()
        assert not ok and "the proxy" in message and str(port) in message


async def test_a_proxy_that_refuses_the_destination_is_named():
    async with SocksProxy(9).running() as proxy:
        settings = {
            "url": "http://refused.test/",
            "proxy": f"socks5://127.0.0.1:{proxy.port}",
        }
        async with serve_in_memory(Http, settings=settings) as grafana:
            ok, message = await grafana.health()
            assert not ok and "does not connect to http://refused.test" in message


def proxy_of(**settings):
    made = HttpSourceSettings(url="http://h/", **settings)
    return lambda is_secure, host="h": find_proxy(made, is_secure, host)


def test_the_environment_has_the_proxy_if_the_settings_have_none(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "plain.test:8080")
    monkeypatch.setenv("HTTPS_PROXY", "http://ann:se%40same@secure.test:3128/")
    monkeypatch.setenv("NO_PROXY", "inside.test,10.0.0.1")
    find = proxy_of()
    assert str(find(False)) == "http://plain.test:8080"
    secure = find(True)
    assert (str(secure), secure.user) == ("http://secure.test:3128", "ann")
    assert secure.password.reveal() == "se@same"
    assert find(True, "a.inside.test") is find(False, "10.0.0.1") is None
    assert proxy_of(proxy="none")(True) is None
    assert str(proxy_of(proxy="socks5h://[::1]")(True)) == "socks5://[::1]:1080"
    monkeypatch.delenv("HTTPS_PROXY")
    assert find(True) is None
    monkeypatch.setenv("ALL_PROXY", "socks5://all.test")
    assert str(find(True)) == "socks5://all.test:1080"


@pytest.mark.parametrize("proxy", ["https://h:1", "ftp://h", "http://", "http://h:x", "http://h/p"])
def test_a_proxy_that_is_none_is_refused(proxy):
    with pytest.raises(ConfigError, match="proxy must be"):
        proxy_of(proxy=proxy)(True)
