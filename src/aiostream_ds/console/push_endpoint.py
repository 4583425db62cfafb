"""`POST /push/PATH`: rows from programs on this machine, for the data source's resource push/PATH.

Grafana's address of the same resource works, too: a client needs no other code for the console. A
web page cannot push: browsers send its Origin with each POST, which the access guard refuses.
"""

from typing import Any
from urllib.parse import quote

from grpclib.exceptions import GRPCError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from aiostream_ds.console.access_guard import discard_body
from aiostream_ds.console.hub import Hub

__all__ = ["BODY_LIMIT", "push_routes"]

BODY_LIMIT = 50_000_000
"""Bytes of a body; the data source may have a lower limit."""

_FORWARDED = ("content-type", "content-encoding", "idempotency-key", "x-idempotency", "user-agent")


def push_routes(hub: Hub) -> list[BaseRoute]:
    """The routes of an open hub."""
    endpoint = _PushEndpoint(hub)
    return [
        Route(path, endpoint.push, methods=["POST", "GET"])
        for path in (
            "/push/{path:path}",
            "/api/datasources/uid/{uid}/resources/push/{path:path}",
        )
    ]


class _PushEndpoint:
    """Calls the resource as the console's Grafana does."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def push(self, request: Request) -> Response:
        """Pass a body on, and return the data source's answer."""
        path = request.path_params["path"].strip("/")
        if request.method != "POST":
            return _refusal(405, "rows are pushed by POST", Allow="POST")
        if not self._hub.takes_pushes:
            await discard_body(request.receive)
            return _refusal(
                404,
                f"{self._hub.title or 'this data source'} takes no pushes; run: aiostream-ds dev"
                " --push",
            )
        try:
            body = await _read(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        if body is None:
            await discard_body(request.receive)
            return _refusal(413, f"a body must have at most {BODY_LIMIT:,} bytes")
        query = f"?{request.url.query}" if request.url.query else ""
        headers = {name: [request.headers[name]] for name in _FORWARDED if name in request.headers}
        try:
            answer = await self._hub.grafana.resource(
                f"push/{quote(path)}{query}", method="POST", body=body, headers=headers
            )
        except GRPCError as error:
            return _refusal(503, error.message or "the data source does not answer")
        if answer.status < 300:
            self._hub.note_push(path)
        names = {name: values[0] for name, values in answer.headers.items() if values}
        content: Any = answer.body
        return Response(content, answer.status, headers=names)


async def _read(request: Request) -> bytes | None:
    """The body; None if it is too long. Raises ClientDisconnect."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > BODY_LIMIT:
        return None
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_LIMIT:
            return None
        parts.append(part)
    return b"".join(parts)


def _refusal(status: int, message: str, **headers: str) -> Response:
    return JSONResponse({"message": message}, status, headers=headers)
