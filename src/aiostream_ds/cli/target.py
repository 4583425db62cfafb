"""What a command works on: an author's file and class, and the settings given on the line."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._grafana.catalog import Catalog, Target
from aiostream_ds._routing.plan import Plan, StreamPlan
from aiostream_ds._telemetry import authors_traceback
from aiostream_ds.datasource import DataSource
from aiostream_ds.errors import PermissionDenied
from aiostream_ds.sources.builtin_plugin import SOURCES

__all__ = [
    "CommandError",
    "UsageError",
    "find_target",
    "first_path",
    "pairs",
    "patterns",
]


class CommandError(Exception):
    """The command cannot be done; the message says why, and what would be right."""


class UsageError(CommandError):
    """The command was called wrongly: another number of words than it takes."""


def find_target(text: str | None) -> tuple[Target, str | None]:
    """The class that "FILE.py:Class" or "FILE.py" names, and `by`; None is the built-in plugin.

    Raises CommandError when there is no such file, no such class, or several to choose from.
    """
    if text is None:
        return SOURCES, "source"
    file, _, name = text.partition(":") if not text.endswith(".py") else (text, "", "")
    path = Path(file)
    if not path.is_file():
        raise CommandError(f"there is no file {file!r}; give FILE.py or FILE.py:Class")
    module = _load(path)
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, DataSource) and value is not DataSource
    }
    if name:
        if name not in found:
            raise CommandError(f"{file} has no DataSource {name!r}; it has: {_names(found)}")
        return found[name], None
    own = {key: value for key, value in found.items() if value.__module__ == module.__name__}
    if len(own) != 1:
        raise CommandError(f"{file} has these DataSource classes: {_names(own)}; give {file}:Class")
    return next(iter(own.values())), None


def _load(path: Path) -> Any:
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CommandError(
            f"{path} cannot be loaded:\n{authors_traceback(error).rstrip()}"
        ) from error
    return module


def _names(found: Mapping[str, Any]) -> str:
    return ", ".join(sorted(found)) or "none"


def pairs(words: Sequence[str], *, plain: bool = False) -> dict[str, Any]:
    """KEY=VALUE words as a dict; values are JSON where they can be, unless `plain`.

    Raises CommandError for a word without "=".
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CommandError(f"{word!r} is not KEY=VALUE")
        try:
            found[key] = value if plain else msgspec.json.decode(value)
        except ValueError:
            found[key] = value
    return found


def first_path(target: Target, by: str | None, settings: Mapping[str, Any]) -> str:
    """A path to look at when none is given: of the first stream whose arguments have defaults.

    Raises CommandError, with the patterns there are, when every stream needs an argument.
    """
    for stream in _plan(target, by, settings).streams.values():
        path = _default_path(stream)
        if path is not None:
            return path
    there = patterns(target, by, settings)
    raise CommandError(f"say which path to look at, with --path; there are: {there}")


def patterns(target: Target, by: str | None, settings: Mapping[str, Any]) -> str:
    """The paths that there are, as a sentence has them."""
    streams = _plan(target, by, settings).streams.values()
    return ", ".join(stream.pattern.text for stream in streams) or "no stream"


def _plan(target: Target, by: str | None, settings: Mapping[str, Any]) -> Plan:
    return Catalog(target, by).pick(msgspec.json.encode(settings))._plan


def _default_path(stream: StreamPlan) -> str | None:
    try:
        return stream.path(stream.query_type())
    except (TypeError, PermissionDenied):
        return None  # an argument without a default, or a path of one user
