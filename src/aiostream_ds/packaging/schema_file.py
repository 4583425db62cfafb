"""Reads schema.json of a package, which has the forms of its sources."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from aiostream_ds._grafana.forms import VERSION
from aiostream_ds._paths import KINDS, NULL
from aiostream_ds.errors import BadQuery
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.settings import convert

__all__ = ["find_schema", "path_text", "read_schema"]


class _Object(msgspec.Struct, frozen=True):
    properties: dict[str, dict[str, Any]] = {}
    required: list[str] = []


class _Query(msgspec.Struct, frozen=True):
    name: str
    kind: Literal["stream", "query"]
    schema: _Object
    pattern: str = ""
    fields: dict[str, Literal[*KINDS]] = {}  # type: ignore[valid-type]


class _Source(msgspec.Struct, frozen=True):
    name: str
    error: str | None = None
    settings: _Object = _Object()
    secrets: list[str] = []
    queries: list[_Query] = []


class _Document(msgspec.Struct, frozen=True):
    version: Literal[VERSION]  # type: ignore[valid-type]
    sourceSetting: str | None
    sources: list[_Source]


def read_schema(folder: Path) -> dict[str, Any]:
    """The content of the file.

    Raises:
        PackagingError: There is none, or it is not what `describe` makes, or a default does not fit
            the path of its stream.
    """
    path = folder / "schema.json"
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        document = convert(found, _Document)
        for source in document.sources:
            for query in source.queries:
                _check_defaults(query)
    except OSError as error:
        raise PackagingError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PackagingError(f"{path}: {error}") from None
    return found


def _check_defaults(query: _Query) -> None:
    """Raises ValueError for a default that no path of the stream has."""
    for field, kind in query.fields.items():
        described = query.schema.properties.get(field, {})
        default = described.get("default", "")
        if default == "":
            continue
        where = f"{query.name}: the default of {field!r} in {query.pattern}"
        try:
            path_text(kind, default)
        except BadQuery as error:
            raise ValueError(f"{where} {error}") from None
        values = described.get("enum")
        if isinstance(values, list) and default not in values:
            raise ValueError(f"{where} must be one of {values}, got {default!r}")


def path_text(kind: str, default: Any) -> str:
    """A default of a path's field of this kind, which is JSON, as a path has it.

    Raises:
        BadQuery: no path has this value.
    """
    if default is None:
        return NULL
    if kind not in ("date", "uuid"):
        return KINDS[kind].format(default)
    if not isinstance(default, str) or KINDS[kind].match(default) is None:
        raise BadQuery(f"must be of the form of {KINDS[kind].samples[0]}, got {default!r}")
    return default


def find_schema(folder: Path) -> dict[str, Any]:
    """The same; empty if it cannot be read."""
    try:
        return read_schema(folder)
    except PackagingError:
        return {}
