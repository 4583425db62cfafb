"""The document that editors draw their forms from: the JSON Schemas of a plugin's classes.

`aiostream-ds package` writes it as `schema.json` next to the built frontend. Grafana's editors and
the console draw the same forms from it. `static` finds the built files.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from enum import EnumMeta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from aiostream_ds._annotations import base_type
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._routing.plan import StreamPlan
from aiostream_ds.datasource import DataSource
from aiostream_ds.errors import ConfigError
from aiostream_ds.models import Query
from aiostream_ds.settings import is_secret, json_schemas

__all__ = ["VERSION", "describe", "static"]

VERSION = 1
"""The version of the document's structure; the frontend rejects an unknown one."""

_STATIC = Path(__file__).resolve().parent.parent / "static"


def static(name: str) -> Path:
    """The path of a built file of the frontend, such as `module.js`.

    Raises FileNotFoundError when this installation does not have the file.
    """
    path = _STATIC / name
    if not path.is_file():
        built = ", ".join(sorted(each.name for each in _STATIC.glob("*"))) or "none"
        raise FileNotFoundError(f"no built file {name!r} in {_STATIC}; built files: {built}")
    return path


def describe(catalog: Catalog) -> dict[str, Any]:
    """The document that editors draw their forms from, ready for JSON.

        {"version": 1,
         "sourceSetting": "source",           the setting that selects the class, or null
         "sources": [
           {"name": "host", "help": "…",
            "settings": {…},                  JSON Schema of the Settings class, with its secrets
            "secrets": ["password"],          the properties stored in secureJsonData
            "queries": [
              {"name": "net", "kind": "stream", "help": "…", "pattern": "net/{nic:any}",
               "fields": {"nic": "any"},      each path field's property and kind
               "schema": {…},                 JSON Schema of the query's own fields
               "suggest": ["nic"],            the properties with suggestions
               "exact": true}]}]}             whether a new query is exact

    A source with a missing package has only its `name` and an `error`. Raises TypeError for a
    "module:Class" string that does not name a DataSource class.
    """
    document = {
        "version": VERSION,
        "sourceSetting": catalog.by,
        "sources": [_source(catalog, name) for name in catalog.names],
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(document))
    return plain


def _source(catalog: Catalog, name: str) -> dict[str, Any]:
    try:
        kind = catalog.find(name)
    except ConfigError as error:
        return {"name": name, "error": error.message}
    settings = kind._ds_plan.settings
    return {
        "name": name,
        "help": _first_paragraph(kind),
        "settings": _object_schema(settings),
        "secrets": [
            field.encode_name for field in msgspec.structs.fields(settings) if is_secret(field.type)
        ],
        "queries": list(_queries(kind)),
    }


def _queries(kind: type[DataSource[Any]]) -> Iterator[dict[str, Any]]:
    for stream in kind._ds_plan.streams.values():
        yield _stream(kind, stream)
    for name, plan in kind._ds_plan.queries.items():
        yield {
            "name": name,
            "kind": "query",
            "help": _first_paragraph(getattr(kind, plan.method)),
            "schema": _query_schema(plan.query_type),
        }


def _stream(source: type[DataSource[Any]], stream: StreamPlan) -> dict[str, Any]:
    names = {field.name: field.encode_name for field in msgspec.structs.fields(stream.query_type)}
    return {
        "name": stream.name,
        "kind": "stream",
        "help": _first_paragraph(getattr(source, stream.name)),
        "pattern": stream.pattern.text,
        "fields": {  # without the user's own login, which is not a user's input
            names[field]: kind.name
            for field, kind in stream.pattern.fields.items()
            if field != stream.principal
        },
        "schema": _query_schema(stream.query_type),
        "suggest": [names[field] for field in stream.suggest],
        "exact": _is_exact_by_default(stream),
    }


def _is_exact_by_default(stream: StreamPlan) -> bool:
    """Whether new queries of the stream are exact.

    The rows of a history hook without a cursor have no number, so that an exact panel would begin
    with the rows of its log and show a notice.
    """
    options = stream.options
    return options.cursor is not None or options.store is not None or stream.history is None


def _query_schema(kind: type[Query]) -> dict[str, Any]:
    """The fields that the class adds: the editor itself draws those of every query."""
    return _object_schema(kind, {field.encode_name for field in msgspec.structs.fields(Query)})


def _object_schema(
    kind: type[msgspec.Struct], without: AbstractSet[str] = frozenset()
) -> dict[str, Any]:
    """JSON Schema of a struct, with the fields' descriptions and the definitions they refer to."""
    classes = list(_classes(kind))
    names, definitions = json_schemas(classes)
    for each in classes:
        if isinstance(each, EnumMeta):  # in the author's order: msgspec sorts them
            members: Iterable[Any] = each
            definitions[names[each]]["enum"] = [member.value for member in members]
        else:
            _describe_fields(definitions[names[each]], each)
    top = definitions[names[kind]]
    properties = {
        name: top["properties"][name] for name in _field_order(kind) if name not in without
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": [name for name in top["required"] if name not in without],
    }
    if used := _used(properties, definitions):
        schema["$defs"] = used
    return schema


def _field_order(kind: type[msgspec.Struct]) -> list[str]:
    """The fields on the wire: those of the class itself first, then those of its bases, which are
    more general."""
    names = {field.name: field.encode_name for field in msgspec.structs.fields(kind)}
    found: dict[str, None] = {}
    for base in kind.__mro__:
        declared = inspect.get_annotations(base)
        found |= {names[each]: None for each in declared if each in names}
    return [*found, *(each for each in names.values() if each not in found)]


def _used(schema: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The definitions that a schema refers to, directly or through other definitions."""
    used: dict[str, Any] = {}
    unvisited = [schema]
    while unvisited:
        value = unvisited.pop()
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).removeprefix("#/$defs/")
            if name in definitions and name not in used:
                used[name] = definitions[name]
                unvisited.append(used[name])
            unvisited.extend(value.values())
        elif isinstance(value, list):
            unvisited.extend(value)
    return used


def _describe_fields(schema: dict[str, Any], kind: type) -> None:
    docstrings = _field_docstrings(get_origin(kind) or kind)
    for name, encode_name, annotation in _fields(kind):
        found = schema.get("properties", {}).get(encode_name)
        if found is None:
            continue
        for literal in _literals(annotation):
            _restore_order(found, list(get_args(literal)))
        _describe_format(found)
        if name in docstrings:
            found.setdefault("description", docstrings[name])


def _fields(kind: Any) -> Iterator[tuple[str, str, Any]]:
    """The name, the name on the wire and the annotation of each field of a class."""
    origin = get_origin(kind) or kind
    if issubclass(origin, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield field.name, field.encode_name, field.type
    else:  # a dataclass or a TypedDict
        for name, annotation in get_type_hints(origin, include_extras=True).items():
            yield name, name, annotation


_FORMATS = {
    "date": (r"^\d{4}-\d{2}-\d{2}$", "2026-01-31"),
    "uuid": (
        "^[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}$",
        "9b2d7c4e-5a1f-4c3b-8e6d-0f1a2b3c4d5e",
    ),
}
"""For formats of texts: the pattern of their values, and an example, which an empty input shows."""


def _describe_format(schema: dict[str, Any]) -> None:
    for value in (schema, *schema.get("anyOf", ())):
        if value.get("format") in _FORMATS:
            pattern, example = _FORMATS[value["format"]]
            value.setdefault("pattern", pattern)
            value.setdefault("examples", [example])


def _restore_order(schema: Any, values: list[Any]) -> None:
    """Put the values of a Literal into the author's order: msgspec sorts them."""
    unvisited = [schema]
    while unvisited:
        value = unvisited.pop()
        if isinstance(value, dict):
            if sorted(map(repr, values)) == sorted(map(repr, value.get("enum", ()))):
                value["enum"] = values
            unvisited.extend(value.values())
        elif isinstance(value, list):
            unvisited.extend(value)


def _literals(annotation: Any) -> Iterator[Any]:
    """The Literals in an annotation."""
    annotation = base_type(annotation)
    if get_origin(annotation) is Literal:
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _literals(argument)


_CLASSES = (
    msgspec.inspect.StructType,
    msgspec.inspect.DataclassType,
    msgspec.inspect.TypedDictType,
    msgspec.inspect.EnumType,
)


def _classes(kind: type[msgspec.Struct]) -> Iterator[Any]:
    """The class, and all classes and enums in its fields."""
    seen: set[type] = set()
    unvisited: list[Any] = [msgspec.inspect.type_info(kind)]
    while unvisited:
        info = unvisited.pop()
        if isinstance(info, _CLASSES):
            if info.cls in seen:
                continue
            seen.add(info.cls)
            yield info.cls
        if isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
            for name in info.__struct_fields__:
                value = getattr(info, name)
                unvisited.extend(value if isinstance(value, tuple) else (value,))


@lru_cache(maxsize=256)
def _field_docstrings(kind: type) -> Mapping[str, str]:
    """The strings below the fields of a class and its bases.

    Python discards them, so they are read from the source code, where that is available.
    """
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base is not object and base.__module__ != "msgspec":
            found |= _own_field_docstrings(base)
    return found


def _own_field_docstrings(kind: type) -> dict[str, str]:
    try:
        module = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = getattr(module.body[0], "body", [])
    return {
        field.target.id: _joined(following.value.value)
        for field, following in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
    }


def _first_paragraph(documented: object) -> str:
    text = getattr(documented, "__doc__", None) or ""
    return _joined(inspect.cleandoc(text).split("\n\n", 1)[0])


def _joined(text: str) -> str:
    return " ".join(text.split())
