"""plugin.json: made from a class, or read from a file. Grafana's rules for it are in its repository
(docs/sources/developers/plugins/plugin.schema.json).
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds.datasource import DataSource
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.project import Project
from aiostream_ds.settings import convert

__all__ = ["ID", "check_id", "make_manifest", "read_complete_manifest", "read_manifest"]

ID = re.compile(r"[0-9a-z]+-[0-9a-z]+-datasource")
"""A data source's id: ORG-NAME-datasource."""

VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
"""Versions as Grafana compares them (semver.org)."""

_FILE = re.compile(r"[\w.-][\w./ -]*")
"""A file in the package."""

_SCHEMA = (
    "https://raw.githubusercontent.com/grafana/grafana/main/docs/sources/developers/plugins/"
    "plugin.schema.json"
)


def check_id(identifier: str) -> str:
    """Return the id.

    Raises:
        PackagingError: Grafana would refuse it.
    """
    problem = _id_problem(identifier)
    if problem:
        raise PackagingError(f"{problem}; use --id, for example acme-clock-datasource")
    return identifier


def _id_problem(identifier: str) -> str:
    """Why Grafana would refuse an id; "" if it would not."""
    if ID.fullmatch(identifier):
        return ""
    return f"id must be ORG-NAME-datasource in lower case letters and digits, got {identifier!r}"


def make_manifest(
    kind: type[DataSource[Any]], project: Project, given: Mapping[str, Any], updated: str
) -> dict[str, Any]:
    """The plugin.json of a class.

    `given` has id, name, version and author from the command line. Other values come from
    [tool.aiostream-ds], then [project] of pyproject.toml, then from the class.

    Raises:
        PackagingError: Grafana would refuse the id or the version.
    """
    word = re.sub(r"[^0-9a-z]", "", kind.__name__.lower())
    identifier = project.table.get("id") if given.get("id") is None else given["id"]
    identifier = check_id(identifier or f"local-{word}-datasource")
    version = str(project.option("version", given.get("version")) or "0.1.0")
    if not VERSION.fullmatch(version):
        raise PackagingError(f"version must be like 1.2.3, got {version!r}")
    name = given.get("name") or project.table.get("name") or _spaced(kind.__name__)
    authors = project.project.get("authors") or [{}]
    author = given.get("author") or project.table.get("author") or authors[0].get("name")
    described = project.table.get("description") or first_sentence(kind)
    keywords = project.option("keywords") or ["streaming", "live", word]
    links = [
        {"name": str(title), "url": str(url)}
        for title, url in project.project.get("urls", {}).items()
    ]
    return {
        "$schema": _SCHEMA,
        "type": "datasource",
        "name": str(name),
        "id": identifier,
        "backend": True,
        "executable": f"gpx_{identifier.removesuffix('-datasource').replace('-', '_')}",
        "streaming": bool(kind._ds_plan.streams),
        "metrics": True,
        "alerting": True,
        "annotations": False,
        "queryOptions": {"maxDataPoints": True, "minInterval": True},
        "info": {
            "description": str(described or project.project.get("description") or name),
            "author": {"name": str(author or identifier.partition("-")[0])},
            "keywords": [str(word) for word in keywords],
            "logos": {"small": "img/logo.svg", "large": "img/logo.svg"},
            "links": links,
            "screenshots": [],
            "version": version,
            "updated": updated,
        },
        "dependencies": {"grafanaDependency": ">=9.4.0", "plugins": []},
    }


class _Include(msgspec.Struct):
    path: str = ""


class _AnyInfo(msgspec.Struct):
    version: str | None = None
    updated: str | None = None
    logos: dict[str, str | None] | None = None


class _AnyManifest(msgspec.Struct):
    """A plugin.json, as far as it is read here."""

    id: str
    executable: str | None = None
    info: _AnyInfo | None = None
    dependencies: dict[str, Any] | None = None
    includes: list[_Include] = []

    def __post_init__(self) -> None:
        name = self.executable
        if name and not _FILE.fullmatch(name):
            raise ValueError(f"executable must be the name of a file in the package, got {name!r}")


class _Author(msgspec.Struct):
    name: str


class _Info(msgspec.Struct):
    version: str
    description: str
    author: _Author
    logos: dict[str, str]

    def __post_init__(self) -> None:
        if not VERSION.fullmatch(self.version):
            raise ValueError(f"version must be like 1.2.3, got {self.version!r}")


class _CompleteManifest(msgspec.Struct):
    """What a package is made from."""

    id: str
    name: str
    executable: str
    info: _Info

    def __post_init__(self) -> None:
        problem = _id_problem(self.id)
        if problem:
            raise ValueError(problem)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a plugin.json.

    Raises:
        PackagingError: It does not exist, is not JSON, has no id, or a value of another type.
    """
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise PackagingError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PackagingError(f"{path}: expected JSON: {error}") from None
    _check(path, found, _AnyManifest)
    return found


def _check(path: Path, found: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    try:
        convert(found, kind)
    except ValueError as error:
        raise PackagingError(f"{path}: {error}") from None


def read_complete_manifest(path: Path) -> dict[str, Any]:
    """Read a plugin.json that has what a package is made from.

    Raises:
        PackagingError: It cannot be read, has not, or Grafana would refuse its id or its version.
    """
    found = read_manifest(path)
    _check(path, found, _CompleteManifest)
    return found


def first_sentence(kind: type) -> str:
    """The first paragraph of the class's own docstring, on one line."""
    text = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    return " ".join(text.partition("\n\n")[0].split())


def _spaced(name: str) -> str:
    """`MqttSensors` → `Mqtt Sensors`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
