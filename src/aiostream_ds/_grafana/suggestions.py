"""The resource that the query editor asks as a user types: values for a field of a path."""

from typing import Any

import msgspec

from aiostream_ds._grafana import http_resources as resources
from aiostream_ds._grafana.instances import Instance
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._routing.suggest_hooks import arguments, texts
from aiostream_ds.errors import BadQuery, NotFound
from aiostream_ds.models import Request, User

__all__ = ["SUGGEST_PATH", "answer"]

SUGGEST_PATH = "forms/suggest"
"""The resource: `GET forms/suggest?stream=…&field=…&typed=…&values={…}`."""


async def answer(
    instance: Instance, user: User | None, message: pb.CallResourceRequest
) -> pb.CallResourceResponse:
    """A JSON list of texts. `values` are the editor's other values, by their JSON names.

    Raises NotFound for a field without a suggest hook, BadQuery for a request that is none, and
    what the hook raises.
    """
    if message.method != "GET":
        raise BadQuery(f"the method of {SUGGEST_PATH} is {message.method!r}; allowed is GET")
    asked = {name: values[0] for name, values in Request(url=message.url).query.items()}
    name, field = asked.get("stream", ""), asked.get("field", "")
    stream = instance.source._plan.streams.get(name)
    if stream is None:
        names = ", ".join(map(repr, instance.source._plan.streams)) or "none"
        raise NotFound(f"there is no stream {name!r}; the streams are: {names}")
    by_json_name = {
        each.encode_name: stream.suggest[each.name]
        for each in msgspec.structs.fields(stream.query_type)
        if each.name in stream.suggest
    }
    if field not in by_json_name:
        names = ", ".join(map(repr, by_json_name)) or "none"
        raise NotFound(f"{name!r} suggests nothing for {field!r}; it does for: {names}")
    plan = by_json_name[field]
    given = arguments(plan, stream.query_type, _values(asked.get("values", "")), user)
    found = await getattr(instance.source, plan.method)(asked.get("typed", ""), **given)
    return resources.json_body(msgspec.json.encode(texts(plan.method, found)))


def _values(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadQuery(f"values of {SUGGEST_PATH} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadQuery(f"values of {SUGGEST_PATH} is {text[:80]!r}; allowed is a JSON object")
    return found
