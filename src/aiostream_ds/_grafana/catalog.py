"""Selects the class that serves a configured data source: the only one, or the one that a setting
names."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeGuard

import msgspec

from aiostream_ds._installation import install_command
from aiostream_ds.datasource import DataSource
from aiostream_ds.errors import ConfigError

__all__ = ["Catalog", "Target", "load"]

Target = type[DataSource[Any]] | Mapping[str, type[DataSource[Any]] | str]
"""A DataSource class, or classes by name. A "module:Class" string is imported at its first use."""


class Catalog:
    """Selects the class. `by` is the key in jsonData whose value is the name; without that key the
    first class is selected.

    Raises:
        TypeError: `target` is neither a DataSource class nor a mapping of names to them.
    """

    def __init__(self, target: Target, by: str | None = None) -> None:
        if isinstance(target, Mapping):
            if not target or not by:
                raise TypeError(
                    "expected at least one class and a setting that selects one, as in"
                    f" {{name: class, …}}, by=…, got {target!r}, by={by!r}"
                )
            for name, value in target.items():
                if not (isinstance(name, str) and name):
                    raise TypeError(f"expected a non-empty string as a class's name, got {name!r}")
                if not (isinstance(value, str) or _is_data_source(value)):
                    raise TypeError(f"{name!r} must be a DataSource class, got {value!r}")
            self._classes: dict[str, type[DataSource[Any]] | str] = dict(target)
        elif _is_data_source(target):
            if by is not None:
                raise TypeError(
                    f"expected no `by` for a single class, got {by!r}; pass a mapping of"
                    " names to classes to select one by a setting"
                )
            self._classes = {"": target}
        else:
            raise TypeError(
                f"expected a DataSource class or a mapping of names to them, got {target!r}"
            )
        self.by = by

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, the default first. A single class has the name ""."""
        return tuple(self._classes)

    def find(self, name: str) -> type[DataSource[Any]]:
        """The class of a name. Raises KeyError for an unknown name, and what `load` raises."""
        found = self._classes[name]
        if isinstance(found, str):
            found = self._classes[name] = load(found)
        return found

    def pick(self, json_data: bytes) -> type[DataSource[Any]]:
        """The class for these settings. Raises ConfigError for an unknown name."""
        name = self._name(json_data)
        if not isinstance(name, str) or name not in self._classes:
            allowed = ", ".join(repr(n) for n in self._classes)
            raise ConfigError(f"{self.by} must be one of {allowed}, got {name!r}")
        return self.find(name)

    def _name(self, json_data: bytes) -> Any:
        first = next(iter(self._classes))
        if self.by is None or not json_data.strip():
            return first
        try:
            settings = msgspec.json.decode(json_data)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"the data source's jsonData must be a JSON object: {error}"
            ) from None
        name = settings.get(self.by) if isinstance(settings, dict) else None
        return first if name is None or name == "" else name


def load(text: str) -> type[DataSource[Any]]:
    """Import the class that "module:Class" names.

    Raises:
        ConfigError: a package that the module needs is not installed.
        TypeError: the name is not of that form, or not that of a DataSource class.
    """
    module, _, name = text.partition(":")
    if not module or not name:
        raise TypeError(f"expected 'module:Class', got {text!r}")
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        ours = module.startswith("aiostream_ds.sources.")  # an extra has the source's name
        command = f"; run: {install_command(module.rpartition('.')[2])}" if ours else ""
        raise ConfigError(
            f"the source {text!r} needs the package {error.name!r}, which is not installed{command}"
        ) from error
    if not _is_data_source(found):
        raise TypeError(f"expected {text!r} to be a DataSource class, got {found!r}")
    return found


def _is_data_source(value: object) -> TypeGuard[type[DataSource[Any]]]:
    """Whether the value is a subclass of DataSource; DataSource itself has no streams."""
    return isinstance(value, type) and issubclass(value, DataSource) and value is not DataSource
