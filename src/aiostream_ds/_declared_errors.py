"""`declared_errors` of a class: which exceptions of a client library are which PluginErrors.

    declared_errors = {AuthenticationError: ConfigError, (RedisError, OSError): UpstreamError}

The entry of the most specific class applies: the first one in the method resolution order of the
exception's class. An entry is a PluginError class, or a function that returns one for an exception
that it gets, for libraries that distinguish failures by a code.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from aiostream_ds._author_code import contained, message_of
from aiostream_ds._loggers import get_logger
from aiostream_ds._short_repr import short_repr
from aiostream_ds.errors import PluginError, copy_error, unwrap

__all__ = [
    "NO_ERRORS",
    "DeclaredErrors",
    "ErrorTable",
    "check_instance",
    "declaring",
    "table_of",
]

log = get_logger(__name__)

ErrorEntry = type[PluginError] | Callable[[Any], type[PluginError] | PluginError | None]

DeclaredErrors = Mapping[type[Exception] | tuple[type[Exception], ...], ErrorEntry]
"""The type of `declared_errors`, for a mapping that several classes share."""

NO_ERRORS: DeclaredErrors = MappingProxyType({})

_ATTRIBUTE = "_error_table"


class ErrorTable:
    """The checked entries of one class.

    Raises:
        TypeError: an entry is invalid; the message names the class.
    """

    __slots__ = ("_entries", "_name", "_where")

    def __init__(self, declared: DeclaredErrors, cls: type) -> None:
        self._name = cls.__name__
        self._where = where = f"{cls.__module__}.{cls.__qualname__}.declared_errors"
        self._entries: dict[type[BaseException], ErrorEntry] = {}
        if not isinstance(declared, Mapping):
            raise TypeError(
                f"{where} must be a dict of exception classes and PluginError classes, got"
                f" {short_repr(declared)}"
            )
        for key, entry in declared.items():
            self._check_entry(key, entry)
            for kind in key if isinstance(key, tuple) else (key,):
                self._check_class(kind)
                self._entries[kind] = entry

    def _check_class(self, kind: object) -> None:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(
                f"{self._where}: expected an Exception class, or a tuple of them, got"
                f" {short_repr(kind)}"
            )
        if issubclass(kind, PluginError):
            raise TypeError(
                f"{self._where}: expected an exception that is not a PluginError yet, got"
                f" {kind.__name__}; it is raised as it is"
            )
        if issubclass(kind, BaseExceptionGroup):
            raise TypeError(
                f"{self._where}: expected an exception that is not a group, got {kind.__name__};"
                " the entries apply to the exceptions in a group"
            )
        if kind in self._entries:
            raise TypeError(f"{self._where}: expected one entry for {kind.__name__}, got two")

    def _check_entry(self, key: object, entry: object) -> None:
        if isinstance(entry, type):
            is_valid = issubclass(entry, PluginError)
        else:
            is_valid = callable(entry) and not inspect.iscoroutinefunction(entry)
        if not is_valid:
            shown = key.__name__ if isinstance(key, type) else short_repr(key)
            raise TypeError(
                f"{self._where}: the entry of {shown} must be a PluginError class, as UpstreamError"
                " or ConfigError, or a function (`def`) that returns one, got"
                f" {entry.__name__ if isinstance(entry, type) else short_repr(entry)}"
            )

    def find(self, error: Exception, name: str = "") -> Exception:
        """The PluginError for an exception, with the message `<name>: <its text>`; without a name,
        that of the class.

        An exception without an entry is returned as it is. A group is as its exceptions: `unwrap`
        selects one of their errors. An error of a function among the entries replaces `error`.
        """
        if not self._entries or isinstance(error, PluginError):
            return error
        if isinstance(error, ExceptionGroup):
            inner = [self.find(each, name) for each in error.exceptions]
            found = unwrap(BaseExceptionGroup("", inner))
            return found if isinstance(found, PluginError) else error
        name = name or self._name
        try:
            plugin_error = self._find(error, name)
        except BaseException as failure:
            return contained(failure, requested=False) or error
        if plugin_error is None:
            return error
        # the only place with the traceback: an expected error is logged without one
        log.debug("%s: declared as %s", name, type(plugin_error).__name__, exc_info=error)
        return plugin_error

    def _find(self, error: Exception, name: str) -> PluginError | None:
        for kind in type(error).__mro__:
            entry = self._entries.get(kind)
            found = entry if entry is None or isinstance(entry, type) else entry(error)
            if found is None:
                continue
            if isinstance(found, PluginError):
                return copy_error(found)
            if not (isinstance(found, type) and issubclass(found, PluginError)):
                raise TypeError(
                    f"{self._where}: the function of {kind.__name__} must return a PluginError, its"
                    f" class or None, got {short_repr(found)}"
                )
            return found(f"{name}: {message_of(error)}")
        return None


_NO_ENTRIES = ErrorTable(NO_ERRORS, object)


def check_instance(owner: object) -> None:
    """Check that an instance does not have entries of its own, which nothing would read.

    Raises:
        TypeError: it has.
    """
    if "declared_errors" in getattr(owner, "__dict__", ()):
        raise TypeError(
            f"{type(owner).__qualname__}: expected declared_errors in the body of the class, got it"
            " on an instance"
        )


def table_of(cls: type) -> ErrorTable:
    """The table of a class, made once for each class; without `declared_errors` an empty one.

    Raises:
        TypeError: an entry is invalid.
    """
    declared = getattr(cls, "declared_errors", NO_ERRORS)
    if declared is NO_ERRORS:
        return _NO_ENTRIES
    found: ErrorTable | None = vars(cls).get(_ATTRIBUTE)
    if found is None:
        found = ErrorTable(declared, cls)
        setattr(cls, _ATTRIBUTE, found)
    return found


class declaring:
    """A context manager around code of a data source of this class: replaces what it raises, as
    `declared_errors` states.

    Errors of the runtime are replaced, too: the code must not wait for the runtime.
    """

    __slots__ = ("_cls",)

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if not isinstance(error, Exception):
            return
        found = table_of(self._cls).find(error)
        try:
            if found is not error:
                raise found from None
        finally:
            del found, error  # error → traceback → this frame → error would be a cycle
