"""Evaluates the annotations of an author's functions and row classes.

Supports three styles: objects, strings (quoted, or by `from __future__ import annotations`), and
the deferred annotations of Python 3.14.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType, SimpleNamespace
from typing import (
    Annotated,
    Any,
    Final,
    NewType,
    NotRequired,
    Required,
    get_args,
    get_origin,
    get_type_hints,
)

__all__ = [
    "Unresolved",
    "base_type",
    "class_annotations",
    "parameters",
    "resolve",
    "signature",
    "unwrap",
]

_QUALIFIERS = (Final, NotRequired, Required)  # of a dataclass's field, of a TypedDict's key

_CACHE = "__ds_annotations__"


class Unresolved:
    """An annotation that cannot be evaluated, for example a name under TYPE_CHECKING."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def resolve(function: Callable[..., Any], owner: type) -> dict[str, Any]:
    """The annotations by parameter name; those that cannot be evaluated are `Unresolved`.

    Names are looked up as Python would: classes in the body of `owner`, then local names of the
    enclosing functions, which are still running, then the module.
    """
    function = inspect.unwrap(function)
    known: dict[str, Any] | None = vars(function).get(_CACHE)
    if known is not None:
        return known
    if sys.version_info >= (3, 14):
        import annotationlib  # exists from 3.14 on

        raw = annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF)
    else:
        raw = getattr(function, "__annotations__", {})
    module = getattr(function, "__globals__", {})
    names = _names(module) | {
        name: value
        for base in reversed(owner.__mro__)
        for name, value in vars(base).items()
        if isinstance(value, type)
    }
    found = {name: _evaluate(value, module, names) for name, value in raw.items()}
    if not any(isinstance(value, Unresolved) for value in found.values()):
        # For subclasses, which may be created after an enclosing function has returned.
        setattr(function, _CACHE, found)
    return found


def class_annotations(kind: type) -> dict[str, Any]:
    """The annotations of a class's fields, inherited ones included.

    Names that are not in its module are looked up in the functions that are running: the class may
    be defined in one of them.

    Raises:
        TypeError: an annotation cannot be evaluated.
    """
    try:
        return get_type_hints(kind, include_extras=True)
    except NameError:
        pass
    module = vars(sys.modules.get(kind.__module__, object))
    try:
        return get_type_hints(kind, localns=_names(module), include_extras=True)
    except NameError as error:
        raise TypeError(
            f"annotations of {kind.__qualname__} must be resolvable at run time, got {error};"
            " import or define the name outside of TYPE_CHECKING"
        ) from error


def _evaluate(value: Any, module: dict[str, Any], names: dict[str, Any]) -> Any:
    """`value` with all strings in it evaluated, at any depth."""
    holder = SimpleNamespace(__annotations__={"value": value})
    try:
        return get_type_hints(holder, module, names, include_extras=True)["value"]
    except Exception:  # evaluates the author's code, which may raise anything
        text = value if isinstance(value, str) else getattr(value, "__forward_arg__", None)
        return Unresolved(text or inspect.formatannotation(value))


def _names(module: Mapping[str, Any]) -> dict[str, Any]:
    """The local names of the functions of this module that are running."""
    names: dict[str, Any] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is module and frame.f_locals is not frame.f_globals:
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


def unwrap(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The type inside of `Annotated[...]`, `NotRequired[...]`, `Final[...]`, `NewType` and
    `type X = ...`, and all metadata."""
    metadata: tuple[Any, ...] = ()
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *extras = get_args(annotation)
            metadata += tuple(extras)
        elif origin in _QUALIFIERS or getattr(origin, "_name", None) == "ReadOnly":  # from 3.13 on
            (annotation,) = get_args(annotation)
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # typing's from Python 3.12 on
            annotation = annotation.__value__
        else:
            return annotation, metadata


def base_type(annotation: Any) -> Any:
    """The type inside of `Annotated[...]`, `NewType` and `type X = ...`."""
    return unwrap(annotation)[0]


def signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function, without evaluating its annotations."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(function)


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters after `self`, by name."""
    return dict(list(signature(function).parameters.items())[1:])
