"""The fields of a query, as the class that its method takes; template variables among them.

Grafana's frontend replaces template variables. Public dashboards and alert rules send queries in
which it did not: a value such as `$host` then stands for the field's default.
"""

import re
from typing import Any

import msgspec

from aiostream_ds._leniency import rename_keys
from aiostream_ds._routing.plan import QueryPlan, StreamPlan
from aiostream_ds.errors import BadQuery
from aiostream_ds.models import Query, User
from aiostream_ds.settings import convert

__all__ = ["decode_query"]

_VARIABLE = re.compile(r"\$\w+|\$\{\w+(?:\.[^:}]*)?(?::\w+)?\}|\[\[\w+(?::\w+)?\]\]")
_SEVERAL = re.compile(r"\{[^{}]*,[^{}]*\}")


def decode_query(
    model: dict[str, Any], plan: StreamPlan | QueryPlan, user: User | None
) -> tuple[Query, str]:
    """The query of a model, and a sentence about fields that got their defaults, or "".

    Raises:
        BadQuery: a field is missing or invalid; the message names it, and the value.
        PermissionDenied: the path needs a signed-in user.
    """
    model = rename_keys(model, plan.query_type)
    if isinstance(plan, StreamPlan):
        model = _without_empty(model, plan)
    try:
        return _query(model, plan, user), ""
    except BadQuery as error:
        variables = {k: v for k, v in model.items() if _is_variable(v)}
        if variables:
            return _query_with_defaults(model, variables, plan, user, error)
        hint = _several(model, error.message)
        raise BadQuery(f"query {model['refId']}: {error.message}{hint}") from None


def _without_empty(model: dict[str, Any], plan: StreamPlan) -> dict[str, Any]:
    """The model without empty texts of a path: they stand for the fields' defaults, as an emptied
    variable of a dashboard does."""
    if "" not in model.values():  # nearly always: what follows takes as long as the whole query
        return model
    defaults = plan.defaults
    names = {
        field.encode_name
        for field in msgspec.structs.fields(plan.query_type)
        if field.name in defaults
    }
    return {k: v for k, v in model.items() if v != "" or k not in names}


def _query(model: dict[str, Any], plan: StreamPlan | QueryPlan, user: User | None) -> Query:
    try:
        query = convert(model, plan.query_type, strict=False)
    except ValueError as error:
        raise BadQuery(str(error)) from None
    if isinstance(plan, StreamPlan):
        plan.path(query, user)  # checks what a path can contain
    return query


def _query_with_defaults(
    model: dict[str, Any],
    variables: dict[str, str],
    plan: StreamPlan | QueryPlan,
    user: User | None,
    error: BadQuery,
) -> tuple[Query, str]:
    """The query with the defaults in place of variables that nobody replaced."""
    found = {k: v for k, v in model.items() if k not in variables}
    try:
        query = _query(found, plan, user)
    except BadQuery:
        raise BadQuery(
            f"query {model['refId']}: {error.message}; Grafana did not replace this variable, as in"
            " public dashboards and alert rules: use a value, or give the field a default"
        ) from None
    names = {field.encode_name: field.name for field in msgspec.structs.fields(plan.query_type)}
    used = ", ".join(f"{k} = {getattr(query, names[k])!r}" for k in variables if k in names)
    text = f"Grafana did not replace {', '.join(variables.values())} here; used instead: {used}."
    return query, text


def _is_variable(value: object) -> bool:
    return isinstance(value, str) and _VARIABLE.fullmatch(value) is not None


def _several(model: dict[str, Any], message: str) -> str:
    """A hint if the bad value has several values of a variable."""
    values = [v for v in model.values() if isinstance(v, str) and _SEVERAL.fullmatch(v)]
    if not any(repr(value) in message for value in values):
        return ""
    return (
        "; these are several values of a variable: select one, or repeat the panel by the variable"
        " (a @query's field of type list takes several)"
    )
