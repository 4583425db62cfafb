"""What a decorator stores on a method."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar

from aiostream_ds._annotations import parameters
from aiostream_ds._paths import Pattern

__all__ = [
    "HandlerInfo",
    "HookInfo",
    "HookKind",
    "ResourceInfo",
    "check_function",
    "error_of",
    "handler_info",
    "pattern_of",
    "store",
]

F = TypeVar("F", bound=Callable[..., Any])

HookKind = Literal["history", "last", "subscribe", "publish", "suggest"]


class HookInfo(NamedTuple):
    """The function is a hook of the stream with this name."""

    stream: str
    kind: HookKind
    field: str = ""
    """The path field for which a suggest hook offers values."""

    @property
    def label(self) -> str:
        """The hook as an error message names it. A stream has one hook of each label."""
        return f"{self.kind} {self.field!r}" if self.field else self.kind


class ResourceInfo(NamedTuple):
    """The function answers this HTTP method on paths of this pattern."""

    method: str
    pattern: Pattern


class HandlerInfo(NamedTuple):
    """Everything that decorators stored on one function."""

    hooks: tuple[HookInfo, ...] = ()
    query: str | None = None
    """The query type that the function answers."""
    resource: ResourceInfo | None = None


_ATTRIBUTE = "__ds_handler__"


def handler_info(value: object) -> HandlerInfo:
    """What decorators stored on `value`, which may be any object."""
    found = getattr(value, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, HandlerInfo) else HandlerInfo()


def store(decorator: str, function: F, info: HandlerInfo) -> F:
    check_function(decorator, function)
    setattr(function, _ATTRIBUTE, info)
    return function


def check_function(decorator: str, function: object) -> None:
    if not inspect.isfunction(function):
        raise TypeError(f"@{decorator} must decorate a method, got {function!r}")


def error_of(function: Callable[..., Any], text: str) -> TypeError:
    """The qualified name of a method names its class and itself."""
    return TypeError(f"{function.__module__}.{function.__qualname__}: {text}")


def pattern_of(text: str | None, function: Callable[..., Any], leading: int = 0) -> Pattern:
    """The pattern of a text; without one the method's name and its parameters, except for the
    first `leading` ones and `request`. A field gets its kind when the class is created."""
    if text is None:
        names = [name for name in list(parameters(function))[leading:] if name != "request"]
        text = "/".join([function.__name__, *(f"{{{name}}}" for name in names)])
    try:
        return Pattern(text)
    except ValueError as error:
        raise error_of(function, str(error)) from None
