"""Access control for the console."""

import pytest

from aiostream_ds.console.access_guard import AccessGuard


async def request(guard, kind="http", query=b"", path="/", **headers):
    """Send one request. Returns its status, its headers, and all messages that were sent."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    pairs = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": kind, "headers": pairs, "query_string": query, "path": path}
    await guard(scope, receive, send)
    first = sent[0]
    return first.get("status", first["type"]), dict(first.get("headers", [])), sent


async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"in"})


@pytest.mark.parametrize("host", ["127.0.0.1:3030", "localhost:3030", "[::1]:3030", "localhost"])
async def test_the_loopback_names_are_accepted(host):
    assert (await request(AccessGuard(inner), host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:3030", "127.0.0.1.evil.com", "", "10.0.0.1", "[", "[::1"]
)
async def test_a_foreign_name_that_resolves_to_this_machine_is_refused(host):
    status, _, sent = await request(AccessGuard(inner), host=host)
    assert (
        status == 403 and b"host must be one of 127.0.0.1, ::1, localhost, got" in sent[1]["body"]
    )


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com",
        "http://localhost:3031",
        "http://127.0.0.1:3030.evil.com",
        "null",
        "x",
        "http://[",
    ],
)
async def test_a_page_of_another_origin_is_refused_also_on_a_websocket(origin):
    guard = AccessGuard(inner)
    assert (await request(guard, host="localhost:3030", origin=origin))[0] == 403
    status, _, sent = await request(guard, "websocket", host="localhost:3030", origin=origin)
    assert status == "websocket.close" and sent[0]["code"] == 1008


async def test_the_consoles_own_page_is_accepted():
    guard = AccessGuard(inner)
    assert (await request(guard, host="localhost:3030", origin="http://localhost:3030"))[0] == 200


async def test_a_request_embedded_in_another_site_is_refused_and_a_link_works():
    guard, host = AccessGuard(inner), "localhost:3030"
    embedded = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert (await request(guard, host=host, **embedded))[0] == 403
    assert (await request(guard, host=host, **link))[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/", "/live/ticks", "/rows/live/ticks"])
@pytest.mark.parametrize("dest", ["document", "iframe", "frame", "embed", "object", "empty"])
async def test_a_page_of_another_origin_can_only_link_to_the_page(site, path, dest):
    headers = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": dest}
    status = (await request(AccessGuard(inner), host="localhost:3030", path=path, **headers))[0]
    assert status == (200 if (path, dest) == ("/", "document") else 403)


async def test_a_request_without_the_token_is_refused():
    guard = AccessGuard(inner, hosts=None, token="swordfish")
    assert (await request(guard, host="host.lan:3030"))[0] == 403
    assert (await request(guard, host="host.lan:3030", query=b"token=sword"))[0] == 403
    assert (await request(guard, host="host.lan:3030", cookie="aiostream_ds_token=x"))[0] == 403
    status, _, _ = await request(guard, "websocket", host="host.lan:3030")
    assert status == "websocket.close"


async def test_the_token_is_kept_in_a_cookie_that_other_sites_cannot_use():
    guard = AccessGuard(inner, hosts=None, token="swordfish")
    status, headers, _ = await request(guard, host="host.lan:3030", query=b"token=swordfish")
    cookie = headers[b"set-cookie"].decode()
    assert status == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    again = await request(guard, host="host.lan:3030", cookie=cookie.partition(";")[0])
    assert again[0] == 200 and b"set-cookie" not in again[1]


async def test_the_page_cannot_be_framed_and_loads_only_its_own_scripts():
    _, headers, _ = await request(AccessGuard(inner), host="localhost")
    policy = headers[b"content-security-policy"].decode()
    assert "frame-ancestors 'none'" in policy and "default-src 'self'" in policy
