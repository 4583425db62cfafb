"""The resource that suggests values for a path field while a user types in the query editor."""

from typing import Any

import msgspec

from aiostream_ds._author_threads import call_method
from aiostream_ds._grafana import http_resources as resources
from aiostream_ds._grafana.authorization import authorize_some_path
from aiostream_ds._grafana.instance import Instance
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._routing.suggest_hooks import arguments, to_strings
from aiostream_ds.errors import BadQuery, NotFound
from aiostream_ds.models import Request, User

__all__ = ["SUGGEST_PATH", "answer"]

SUGGEST_PATH = "forms/suggest"
"""The resource's path: `GET forms/suggest?stream=…&field=…&typed=…&values={…}`."""


async def answer(
    instance: Instance, user: User | None, message: pb.CallResourceRequest
) -> pb.CallResourceResponse:
    """Call a suggest hook; the response is a JSON list of strings.

    The parameter `values` has the editor's other values by their JSON names.

    Raises:
        NotFound: the stream is unknown, or the field has no suggest hook.
        PermissionDenied: the user may not read any path of the stream.
        BadQuery: the request is malformed.
        Exception: what the hook raises.
    """
    if message.method != "GET":
        raise BadQuery(f"the method of {SUGGEST_PATH} must be GET, got {message.method!r}")
    parameters = {name: values[0] for name, values in Request(url=message.url).query.items()}
    name, field = parameters.get("stream", ""), parameters.get("field", "")
    stream = instance.source._ds_plan.streams.get(name)
    if stream is None:
        raise NotFound(_unknown_stream(instance, name))
    authorize_some_path(instance, user, stream)
    by_json_name = {
        each.encode_name: stream.suggest[each.name]
        for each in msgspec.structs.fields(stream.query_type)
        if each.name in stream.suggest
    }
    if field not in by_json_name:
        names = ", ".join(map(repr, by_json_name)) or "none"
        raise NotFound(
            f"the stream {name!r} has no suggestions for {field!r}; it has some for: {names}"
        )
    plan = by_json_name[field]
    given = arguments(plan, stream.query_type, _values(parameters.get("values", "")), user)
    typed = parameters.get("typed", "")
    found = await call_method(instance.source, plan.method, typed, **given)
    return resources.json_body(msgspec.json.encode(to_strings(plan.method, found)))


def _unknown_stream(instance: Instance, name: str) -> str:
    if instance.is_restricted:
        return f"no stream has the name {name!r}"
    names = ", ".join(map(repr, instance.source._ds_plan.streams)) or "none"
    return f"unknown stream {name!r}; the streams are: {names}"


def _values(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadQuery(f"values of {SUGGEST_PATH} must be valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadQuery(f"values of {SUGGEST_PATH} must be a JSON object, got {text[:80]!r}")
    return found
