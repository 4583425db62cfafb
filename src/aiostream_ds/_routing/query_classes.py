"""The classes as which the queries of panels are decoded: of a stream, and of a `@query` method."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from aiostream_ds._annotations import base_type, parameters, resolve
from aiostream_ds._routing.path_fields import PathField, check_resolved, plain_field
from aiostream_ds._routing.plan import QueryPlan
from aiostream_ds.models import Query
from aiostream_ds.settings import FrozenMeta, check_type

__all__ = ["query_class", "query_plan", "takes_query"]

_GRAFANA_KEYS = ("alias", "datasource", "datasourceId", "hide", "key", "queryCachingTTL")
"""Keys that Grafana and the query editor write into every query, in addition to those of `Query`.
Explore gives each query a random `key`."""


def takes_query(method: Callable[..., Any], owner: type) -> bool:
    """Whether the first argument of a `@query` method is a Query."""
    names, hints = list(parameters(method)), resolve(method, owner)
    return bool(names) and _is_query(hints.get(names[0]))


def query_plan(name: str, method: Callable[..., Any], owner: type) -> QueryPlan:
    """The plan of a `@query` method: its first parameter may be a Query class, and the others are
    fields of the query.

    Raises:
        TypeError: a parameter is of another type, or Grafana writes a key with its name.
    """
    found, hints = list(parameters(method).values()), resolve(method, owner)
    leading = takes_query(method, owner)
    kind: type[Query] = base_type(hints[found[0].name]) if leading else Query
    if leading:
        try:
            check_type(kind)
        except TypeError as error:
            raise TypeError(f"{kind.__name__} cannot be decoded from JSON: {error}") from error
        check_query_keys(kind)
    fields = [_field(each, hints.get(each.name)) for each in found[leading:]]
    if fields:
        kind = query_class(name, fields, kind)
        check_type(kind)
    return QueryPlan(name, kind, leading, tuple(each[0] for each in fields))


def _field(parameter: inspect.Parameter, annotation: Any) -> PathField:
    name = parameter.name
    check_resolved(repr(name), annotation)
    if _is_query(annotation):
        raise TypeError(f"a Query must be the first argument, got it as {name!r}")
    return plain_field(name, annotation, parameter.default)


def _is_query(annotation: Any) -> bool:
    kind = base_type(annotation)
    return isinstance(kind, type) and issubclass(kind, Query)


def query_class(
    name: str, fields: Sequence[tuple[Any, ...]], base: type[Query] = Query
) -> type[Query]:
    """A Query class with these fields and those of `base`, as which a panel's query is decoded.

    Raises:
        TypeError: Grafana writes a key with the name of a field, or `base` has the field.
    """
    added = msgspec.defstruct(name, [f[:2] for f in fields], rename="camel")
    for key in added.__struct_encode_fields__:
        _check_query_key(key, (*_GRAFANA_KEYS, *Query.__struct_encode_fields__))
        if key in base.__struct_encode_fields__:
            raise TypeError(f"expected one field {key!r}, got also that of {base.__name__}")
    namespace: dict[str, Any] = {"__annotations__": {f[0]: f[1] for f in fields}}
    namespace |= {f[0]: f[2] for f in fields if len(f) == 3}
    made: type[Query] = FrozenMeta(f"{name}_query", (base,), namespace, rename="camel")
    return made


def check_query_keys(kind: type[Query]) -> None:
    """Checks that no field of a Query class has the name of a key that Grafana writes.

    Raises:
        TypeError: a field has.
    """
    for key in kind.__struct_encode_fields__:
        _check_query_key(key, _GRAFANA_KEYS)


def _check_query_key(key: str, reserved: Sequence[str]) -> None:
    if key in reserved:
        raise TypeError(
            f"a field must not be named {key!r}, which Grafana writes into every query; use another"
            f" name than {', '.join(sorted(reserved))}"
        )
