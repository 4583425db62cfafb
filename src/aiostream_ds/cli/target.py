"""Finds the class in an author's file, and parses settings from the command line."""

import importlib.util
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._grafana.catalog import Catalog, Target
from aiostream_ds._routing.plan import Plan
from aiostream_ds._telemetry import author_traceback
from aiostream_ds.cli.command_errors import CommandError, UsageError
from aiostream_ds.datasource import DataSource
from aiostream_ds.sources.builtin_plugin import SOURCES

__all__ = [
    "CommandError",
    "UsageError",
    "file_of",
    "find_target",
    "first_path",
    "parse_pairs",
    "patterns",
]


def file_of(text: str) -> Path:
    """The file of "FILE.py:Class" or "FILE.py"."""
    return Path(text if text.endswith(".py") else text.partition(":")[0])


def find_target(text: str | None) -> tuple[Target, str | None]:
    """The class of "FILE.py:Class" or "FILE.py", and `by`; None is the built-in plugin.

    Raises:
        CommandError: There is no such file or class, or the file has several classes.
    """
    if text is None:
        return SOURCES, "source"
    file, _, name = text.partition(":") if not text.endswith(".py") else (text, "", "")
    path = Path(file)
    if not path.is_file():
        raise CommandError(f"expected FILE.py or FILE.py:Class, got {file!r}, which does not exist")
    module = _load(path)
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, DataSource) and value is not DataSource
    }
    if name:
        if name not in found:
            raise CommandError(f"{file} has no DataSource {name!r}; it has {_names(found)}")
        return found[name], None
    own = {key: value for key, value in found.items() if value.__module__ == module.__name__}
    if len(own) != 1:
        raise CommandError(
            f"expected one DataSource class in {file}, got {_names(own)}; use {file}:Class"
        )
    return next(iter(own.values())), None


def _load(path: Path) -> Any:
    name = path.stem
    _check_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"expected a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _loaded.add(name)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(_after_standard_library(), folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        traceback = author_traceback(error).rstrip()
        raise CommandError(f"{path} cannot be loaded:\n{traceback}") from error
    return module


_loaded: set[str] = set()  # names of author's modules

_LATER = {"numpy", "pandas", "prometheus_client", "psutil", "pyarrow", "uvicorn", "watchfiles"}
"""Packages that the runtime imports when they are first needed."""


def _check_name(path: Path) -> None:
    """Raises CommandError for a file that would replace a module of Python or of the runtime."""
    name = path.stem
    taken = name in sys.modules and name not in _loaded
    if taken or name in sys.stdlib_module_names or name in _LATER:
        raise CommandError(
            f"the file must not have the name of a module that Python or the runtime imports, got"
            f" {path.name!r}; rename it, for example to my_{name}.py"
        )


def _after_standard_library() -> int:
    """The place in sys.path for an author's folder: before installed packages, but a file in it
    such as queue.py or types.py must not replace the module of Python."""
    paths = sysconfig.get_paths()
    standard = (paths["stdlib"], paths["platstdlib"])
    found = [
        index
        for index, entry in enumerate(sys.path)
        if entry.startswith(standard) and "-packages" not in entry
    ]
    return found[-1] + 1 if found else 0


def _names(found: Mapping[str, Any]) -> str:
    return ", ".join(sorted(found)) or "none"


def parse_pairs(texts: Sequence[str], *, json: bool = True) -> dict[str, Any]:
    """KEY=VALUE strings as a dict. With `json`, a value that is JSON is decoded.

    Raises:
        CommandError: A string is not KEY=VALUE, or not UTF-8.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            shown = repr(text) if json else "a text without ="  # it may be the secret
            raise CommandError(f"expected KEY=VALUE, got {shown}")
        if text.encode(errors="ignore").decode() != text:  # Python has other bytes as surrogates
            shown = repr(text) if json else repr(f"{key}=…")
            raise CommandError(f"expected KEY=VALUE in UTF-8, got {shown}")
        try:
            found[key] = msgspec.json.decode(value) if json else value
        except (ValueError, RecursionError):
            found[key] = value
    return found


def first_path(target: Target, by: str | None, settings: Mapping[str, Any]) -> str:
    """The default path: that of the first stream whose arguments all have defaults.

    Raises:
        CommandError: Every stream needs an argument.
    """
    path = _ds_plan(target, by, settings).default_path()
    if path is not None:
        return path
    raise CommandError(
        f"every path needs an argument; use --path with one of: {patterns(target, by, settings)}"
    )


def patterns(target: Target, by: str | None, settings: Mapping[str, Any]) -> str:
    """The patterns of all streams, separated by commas."""
    streams = _ds_plan(target, by, settings).streams.values()
    return ", ".join(stream.pattern.text for stream in streams) or "none"


def _ds_plan(target: Target, by: str | None, settings: Mapping[str, Any]) -> Plan:
    return Catalog(target, by).pick(msgspec.json.encode(settings))._ds_plan
