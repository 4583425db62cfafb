"""CallResource: calls a `@resource` method for an HTTP request and sends its response."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple

import msgspec

from aiostream_ds._author_threads import call_method, runs_in_thread, threads_of
from aiostream_ds._declared_errors import declaring
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._grpc.call import Call
from aiostream_ds._paths import SAFE
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._short_repr import short_repr
from aiostream_ds.errors import BadQuery, NotFound
from aiostream_ds.models import PluginContext, Request, Response

__all__ = ["REPLAY_ROWS_PATH", "ReplayRequest", "answer", "failure", "json_body", "replay_request"]

REPLAY_ROWS_PATH = "replay/rows"
"""The resource that exact panels read: the rows of a channel after a cursor."""

_JSON = {"Content-Type": "application/json"}
_BYTES = {"Content-Type": "application/octet-stream"}
_END = object()


async def answer(
    instance: Instance, context: PluginContext, message: pb.CallResourceRequest, call: Call
) -> None:
    """Call the resource's method and send its result. Raises NotFound when no route matches."""
    source = instance.source
    path = message.path.strip("/")
    found = source._ds_plan.resource(message.method, path)
    if found is None:
        raise NotFound(f"{_expected(source)}, got {message.method} {short_repr(path)}")
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
    if plan.is_generator:
        await _stream(source, _iterate(source, plan.method, arguments), call)
        return
    result = await call_method(source, plan.method, **arguments)
    if isinstance(result, Iterator):
        parts = threads_of(source).iterate(plan.method, lambda: result)
        await _stream(source, parts, call)
    else:
        await call.send(_response(result))


def _expected(source: Any) -> str:
    """The resources that there are, and what their fields may be."""
    resources = source._ds_plan.resources
    routes = ", ".join(f"{each.http_method} {each.pattern.text}" for each in resources)
    found = f"expected one of the resources {routes or '(none)'}"
    if any("{" in each.pattern.text for each in resources):
        found += f"; what stands for a field is of {SAFE}"
    if any(":rest" in each.pattern.text for each in resources):
        found += "; for one with :rest, segments of these with single slashes between them"
    return found


def _iterate(source: Any, name: str, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
    """The chunks of a generator, which may be a `def`."""
    method = partial(getattr(source, name), **arguments)
    found: AsyncGenerator[Any, None]
    if runs_in_thread(method.func):
        found = threads_of(source).iterate(name, method)
    else:
        found = method()
    return found


async def _stream(source: Any, parts: Any, call: Call) -> None:
    async with aclosing(_declared(source, parts)) as found:
        async for part in found:
            if not isinstance(part, bytes):
                raise TypeError(f"a streaming resource must yield bytes, got {short_repr(part)}")
            first = not call.sent
            await call.send(
                _message(200, _BYTES, part) if first else pb.CallResourceResponse(body=part)
            )
    if not call.sent:
        await call.send(_message(204, {}, b""))


async def _declared(source: Any, parts: Any) -> AsyncGenerator[Any, None]:
    """The same parts; an error of the author's code as `declared_errors` states it."""
    async with aclosing(parts):
        while True:
            with declaring(type(source)):
                part = await anext(parts, _END)
            if part is _END:
                return
            yield part


def _response(result: Any) -> pb.CallResourceResponse:
    if isinstance(result, Response):
        return _message(result.status, result.headers, result.body)
    if isinstance(result, AsyncIterator):
        raise TypeError(
            f"a resource must return a response, got {short_repr(result)}; to stream, yield"
            " bytes from its `async def`"
        )
    if isinstance(result, bytes):
        return _message(200, _BYTES, result)
    try:
        body = msgspec.json.encode(result)
    except TypeError as error:
        raise TypeError(
            f"a resource must return what JSON can encode, got {type(result).__name__}: {error}"
        ) from error
    return _message(200, _JSON, body)


class ReplayRequest(NamedTuple):
    """A request for the rows of a channel with after < cursor <= upto."""

    path: str
    after: str
    upto: str | None


def replay_request(message: pb.CallResourceRequest) -> ReplayRequest:
    """Parse `GET replay/rows?path=…&after=…[&upto=…]`. Raises BadQuery for anything else."""
    if message.method != "GET":
        raise BadQuery(f"the method of {REPLAY_ROWS_PATH} must be GET, got {message.method!r}")
    query = Request(url=message.url).query
    path = query.get("path", [""])[0]
    if not path:
        raise BadQuery(f"expected {REPLAY_ROWS_PATH}?path=x/…&after=…, got {message.url!r}")
    after, upto = (query.get(name, [""])[0] for name in ("after", "upto"))
    if not after:
        raise BadQuery("after must be a cursor, or -1 for all rows, got nothing")
    return ReplayRequest(path, after, upto or None)


def json_body(body: bytes) -> pb.CallResourceResponse:
    """A response with this JSON and status 200."""
    return _message(200, _JSON, body)


def failure(status: int, text: str) -> pb.CallResourceResponse:
    """An error as JSON, in the form of Grafana's own API."""
    return _message(status, _JSON, msgspec.json.encode({"message": text}))


def _message(
    status: int, headers: Mapping[str, str | list[str]], body: bytes
) -> pb.CallResourceResponse:
    lists = {
        name: pb.StringList(values=[value] if isinstance(value, str) else list(value))
        for name, value in headers.items()
    }
    return pb.CallResourceResponse(code=status, headers=lists, body=body)
