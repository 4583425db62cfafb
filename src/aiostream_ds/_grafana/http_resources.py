"""CallResource: one HTTP request to a `@resource`, and its answer in one or many pieces."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

import msgspec

from aiostream_ds._grafana.instances import Instance
from aiostream_ds._grpc.call import Call
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.errors import BadQuery, NotFound
from aiostream_ds.models import PluginContext, Request, Response

__all__ = ["REPLAY_ROWS_PATH", "ReplayRequest", "answer", "failure", "json_body", "replay_request"]

REPLAY_ROWS_PATH = "replay/rows"
"""The resource of exact panels: the rows of a channel behind a cursor."""

_JSON = {"Content-Type": "application/json"}
_BYTES = {"Content-Type": "application/octet-stream"}


async def answer(
    instance: Instance, context: PluginContext, message: pb.CallResourceRequest, call: Call
) -> None:
    """Calls the method and sends what it returns. Raises NotFound when no route matches."""
    source = instance.source
    path = message.path.strip("/")
    found = source._plan.resource(message.method, path)
    if found is None:
        routes = ", ".join(f"{r.http_method} {r.pattern.text}" for r in source._plan.resources)
        raise NotFound(f"no resource at {message.method} {path!r}; there are: {routes or 'none'}")
    plan, arguments = found
    if plan.wants_request:
        arguments["request"] = Request(
            method=message.method,
            path=path,
            url=message.url,
            headers={name: list(values.values) for name, values in message.headers.items()},
            body=message.body,
            user=context.user,
        )
    method = getattr(source, plan.method)
    if plan.is_generator:
        await _stream(method(**arguments), call)
    else:
        await call.send(_whole(await method(**arguments)))


async def _stream(pieces: Any, call: Call) -> None:
    async with aclosing(pieces):
        async for piece in pieces:
            if not isinstance(piece, bytes):
                raise TypeError(f"a resource in pieces yields bytes, not {piece!r}")
            first = not call.sent
            await call.send(
                _message(200, _BYTES, piece) if first else pb.CallResourceResponse(body=piece)
            )
    if not call.sent:
        await call.send(_message(204, {}, b""))


def _whole(result: Any) -> pb.CallResourceResponse:
    if isinstance(result, Response):
        return _message(result.status, result.headers, result.body)
    if isinstance(result, AsyncIterator):
        raise TypeError("a resource in pieces is an `async def` with a `yield`, not a returned one")
    if isinstance(result, bytes):
        return _message(200, _BYTES, result)
    try:
        body = msgspec.json.encode(result)
    except TypeError as error:
        raise TypeError(f"the resource returned what cannot be JSON: {error}") from error
    return _message(200, _JSON, body)


class ReplayRequest(NamedTuple):
    """Which channel's rows are asked for: those with after < cursor <= upto."""

    path: str
    after: int
    upto: int | None


def replay_request(message: pb.CallResourceRequest) -> ReplayRequest:
    """Reads `GET replay/rows?path=…&after=…[&upto=…]`. Raises BadQuery for anything else."""
    if message.method != "GET":
        raise BadQuery(f"the method of {REPLAY_ROWS_PATH} is {message.method!r}; allowed is GET")
    asked = Request(url=message.url).query
    path = asked.get("path", [""])[0]
    if not path:
        raise BadQuery(f"{REPLAY_ROWS_PATH} needs the path of a channel: ?path=x/…&after=…")
    after, upto = _number(asked, "after"), _number(asked, "upto")
    if after is None:
        raise BadQuery(f"{REPLAY_ROWS_PATH} needs after: a cursor, or -1 for all rows")
    return ReplayRequest(path, after, upto)


def _number(asked: Mapping[str, list[str]], name: str) -> int | None:
    text = asked.get(name, [""])[0]
    if not text:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 20:
        raise BadQuery(f"{name} is {text[:40]!r}; allowed is a whole number")
    return int(text)


def json_body(body: bytes) -> pb.CallResourceResponse:
    """JSON with status 200."""
    return _message(200, _JSON, body)


def failure(status: int, text: str) -> pb.CallResourceResponse:
    """An error as the JSON that Grafana's own API uses."""
    return _message(status, _JSON, msgspec.json.encode({"message": text}))


def _message(
    status: int, headers: Mapping[str, str | list[str]], body: bytes
) -> pb.CallResourceResponse:
    lists = {
        name: pb.StringList(values=[value] if isinstance(value, str) else list(value))
        for name, value in headers.items()
    }
    return pb.CallResourceResponse(code=status, headers=lists, body=body)
