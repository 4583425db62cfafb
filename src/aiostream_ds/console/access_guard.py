"""Who may open the console: pages of its own origin, on this machine or with the token.

A browser sends the name it asked for (Host) and the page that asks (Origin). A foreign page that
makes the browser call us has another Origin; one that rebinds its own name to 127.0.0.1 has another
Host. Both are refused before anything is answered.
"""

import hmac
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["LOOPBACK", "ASGIApp", "Guard"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names by which a browser reaches this machine without any name server."""

COOKIE = "aiostream_ds_token"

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


class Guard:
    """An ASGI app before another one.

    `hosts` are the names under which it may be asked for (None: any, which is right only with a
    `token` or behind a server that checks). With a `token`, the first request brings it as
    `?token=`; a cookie of this origin keeps it from then on.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] | None = LOOPBACK, token: str = ""
    ) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(hosts)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, pass on, or refuse with a sentence that says what is allowed."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        wrong = self._wrong(headers)
        given = self._given(scope, headers)
        if not wrong and self._token and not hmac.compare_digest(
            given.encode(), self._token.encode()
        ):  # fmt: skip
            wrong = "the console asks for its token: open the address that `dev` has printed"
        if wrong:
            await _refuse(scope, send, wrong)
            return
        fresh = bool(self._token) and _in_query(scope) != ""

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
                if fresh:
                    message["headers"].append((b"set-cookie", self._cookie()))
            await send(message)

        await self._app(scope, receive, with_headers)

    def _wrong(self, headers: dict[bytes, str]) -> str:
        host = headers.get(b"host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self._hosts is not None and name not in self._hosts:
            return f"the host {host!r} is not one of {', '.join(sorted(self._hosts))}"
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return f"the page {origin!r} may not open the console of {host!r}"
        site = headers.get(b"sec-fetch-site", "")
        if site == "cross-site" and headers.get(b"sec-fetch-mode") != "navigate":
            return "another site may not open the console"
        return ""

    def _given(self, scope: Scope, headers: dict[bytes, str]) -> str:
        asked = _in_query(scope)
        if asked:
            return asked
        try:
            cookie = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            return ""
        return str(cookie.value) if cookie is not None else ""

    def _cookie(self) -> bytes:
        return f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict".encode()


def _in_query(scope: Scope) -> str:
    asked: bytes = scope.get("query_string", b"")
    return parse_qs(asked.decode("latin-1")).get("token", [""])[0]


async def _refuse(scope: Scope, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why[:100]})
        return
    body = f"{why}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
