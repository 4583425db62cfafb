"""Which class serves a configured data source: always the same one, or one a setting names.

Imports datasource, msgspec and the ground.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeGuard

import msgspec

from aiostream_ds.datasource import DataSource
from aiostream_ds.errors import ConfigError

__all__ = ["Catalog", "Target", "load"]

Target = type[DataSource[Any]] | Mapping[str, type[DataSource[Any]] | str]
"""A DataSource class, or classes (or "module:Class" texts, imported when first used) by name."""


class Catalog:
    """Picks the class. `by` is the key in jsonData whose value is the name; the first is default.

    Raises TypeError for a target that is neither a class nor a table of them.
    """

    def __init__(self, target: Target, by: str | None = None) -> None:
        if isinstance(target, Mapping):
            if not target or not by:
                raise TypeError("serve({name: class, …}, by=…) takes at least one class, and `by`")
            for name, value in target.items():
                if not (isinstance(name, str) and name):
                    raise TypeError(f"serve: {name!r} is no name of a class; allowed is a text")
                if not (isinstance(value, str) or _is_data_source(value)):
                    raise TypeError(f"serve: {name!r} is {value!r}; allowed is a DataSource class")
            self._classes: dict[str, type[DataSource[Any]] | str] = dict(target)
        elif _is_data_source(target):
            if by is not None:
                raise TypeError(f"by={by!r} picks from several classes; there is one")
            self._classes = {"": target}
        else:
            raise TypeError(f"serve takes a DataSource class or a table of them, not {target!r}")
        self.by = by

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the setting may have, the default first; one class has the name ""."""
        return tuple(self._classes)

    def find(self, name: str) -> type[DataSource[Any]]:
        """The class of a name. Raises KeyError for another one, and what `load` raises."""
        found = self._classes[name]
        if isinstance(found, str):
            found = self._classes[name] = load(found)
        return found

    def pick(self, json_data: bytes) -> type[DataSource[Any]]:
        """The class for these settings. Raises ConfigError when the name is unknown."""
        name = self._name(json_data)
        if not isinstance(name, str) or name not in self._classes:
            allowed = ", ".join(repr(n) for n in self._classes)
            raise ConfigError(f"{self.by} = {name!r} is none of {allowed}")
        return self.find(name)

    def _name(self, json_data: bytes) -> Any:
        first = next(iter(self._classes))
        if self.by is None or not json_data.strip():
            return first
        try:
            settings = msgspec.json.decode(json_data)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the data source's jsonData is not JSON: {error}") from None
        name = settings.get(self.by) if isinstance(settings, dict) else None
        return first if name is None or name == "" else name


def load(text: str) -> type[DataSource[Any]]:
    """The class that "module:Class" names.

    Raises ConfigError when a package that it needs is missing, TypeError when it is no DataSource.
    """
    module, _, name = text.partition(":")
    if not module or not name:
        raise TypeError(f"{text!r} names no class; allowed is 'module:Class'")
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the source {text!r} needs the package {error.name!r}, which is not installed"
        ) from error
    if not _is_data_source(found):
        raise TypeError(f"{text!r} is no DataSource class")
    return found


def _is_data_source(value: object) -> TypeGuard[type[DataSource[Any]]]:
    """Whether this is a subclass: `DataSource` itself has no plan."""
    return isinstance(value, type) and issubclass(value, DataSource) and value is not DataSource
