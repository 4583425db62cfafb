"""Access control for the console: only its own pages, on this machine or with the token.

A browser sends the name it requested (Host) and the page that sent the request (Origin). A foreign
page has another Origin; a page that rebinds its own name to 127.0.0.1 has another Host. Both are
refused before the app runs.
"""

import hmac
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

import anyio

__all__ = ["LOOPBACK", "ASGIApp", "AccessGuard", "discard_body"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names by which a browser reaches this machine without a name server."""

COOKIE = "aiostream_ds_token"

DISCARDED_BYTES = 1_000_000
"""How much of the body of a refused request is read before the answer."""

DISCARD_SECONDS = 1.0
"""How long the body of a refused request is waited for."""

_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class AccessGuard:
    """ASGI middleware that refuses requests from foreign pages, names and users.

    Args:
        app: the app to protect.
        hosts: accepted names in the Host header. None accepts any name: use that only with a
            `token`, or behind a reverse proxy that checks the name.
        token: required with the first request as `?token=`; a cookie keeps it from then on.
            Programs send it with each request: `Authorization: Bearer TOKEN`.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] | None = LOOPBACK, token: str = ""
    ) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(hosts)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to the app, or refuse it with a reason."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        reason = self._foreign(scope, headers) or self._unauthenticated(scope, headers)
        if reason:
            if scope["type"] == "http":
                await discard_body(receive)
            await _refuse(scope, send, reason)
            return
        set_cookie = bool(self._token) and _query_token(scope) != ""

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
                if set_cookie:
                    message["headers"].append((b"set-cookie", self._cookie()))
            await send(message)

        await self._app(scope, receive, with_headers)

    def _foreign(self, scope: Scope, headers: dict[bytes, str]) -> str:
        host = headers.get(b"host", "")
        name = _parts(f"//{host}").hostname or ""
        if self._hosts is not None and name not in self._hosts:
            return f"host must be one of {', '.join(sorted(self._hosts))}, got {host!r}"
        origin = headers.get(b"origin")
        if origin is not None and _parts(origin).netloc.lower() != host.lower():
            return f"origin must be the console's own, {host!r}, got {origin!r}"
        site = headers.get(b"sec-fetch-site", "")
        if site in ("cross-site", "same-site") and not _is_link_to_page(scope, headers):
            return "the page of another origin may not load the console"
        return ""

    def _unauthenticated(self, scope: Scope, headers: dict[bytes, str]) -> str:
        token = _query_token(scope) or _bearer_token(headers) or _cookie_token(headers)
        if self._token and not hmac.compare_digest(token.encode(), self._token.encode()):
            return "the console needs its token; open the address that was printed"
        return ""

    def _cookie(self) -> bytes:
        return f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict".encode()


def _is_link_to_page(scope: Scope, headers: dict[bytes, str]) -> bool:
    """Whether a whole tab goes to the page. A frame, or a link to live rows, starts a stream, and a
    form pushes rows."""
    is_tab = headers.get(b"sec-fetch-mode") == "navigate" and scope.get("method") != "POST"
    is_tab = is_tab and headers.get(b"sec-fetch-dest", "document") == "document"
    return is_tab and "/live/" not in scope.get("path", "")


def _parts(url: str) -> SplitResult:
    """The parts of a URL; empty ones if it cannot be one, such as `http://[`."""
    try:
        parts = urlsplit(url)
        _ = parts.hostname  # checked when it is read
    except ValueError:
        return urlsplit("")
    return parts


def _query_token(scope: Scope) -> str:
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _bearer_token(headers: dict[bytes, str]) -> str:
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _cookie_token(headers: dict[bytes, str]) -> str:
    try:
        cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return str(cookie.value) if cookie is not None else ""


async def discard_body(receive: Receive) -> None:
    """Read the body of a request that is refused, as far as the limits. A connection that is closed
    before its body was read is reset, and the client may never see why it was refused."""
    size = 0
    with anyio.move_on_after(DISCARD_SECONDS):
        while size < DISCARDED_BYTES:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return


async def _refuse(scope: Scope, send: Send, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason[:100]})
        return
    body = f"{reason}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
