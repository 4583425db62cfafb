"""Reads schema.json of a package, which has the forms of its sources."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from aiostream_ds._grafana.forms import VERSION
from aiostream_ds._paths import KINDS
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.settings import convert

__all__ = ["find_schema", "read_schema"]


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
        PackagingError: There is none, or it is not what `describe` makes.
    """
    path = folder / "schema.json"
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        convert(found, _Document)
    except OSError as error:
        raise PackagingError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise PackagingError(f"{path}: {error}") from None
    return found


def find_schema(folder: Path) -> dict[str, Any]:
    """The same; empty if it cannot be read."""
    try:
        return read_schema(folder)
    except PackagingError:
        return {}
