"""JSONPaths (RFC 9535) of the settings: the rows of a message, and columns from elsewhere in it.

Paths of names and wildcards only, such as `$.data[*]`, are walked here, which is much faster.
python-jsonpath is imported for others.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from aiostream_ds.errors import ConfigError
from aiostream_ds.sources.decoding.bad_record import BadRecord, shown

__all__ = ["JsonPath"]

Find = Callable[[Any], Iterable[Any]]


_SIMPLE = re.compile(r"\$(?:\.[A-Za-z_][A-Za-z0-9_]*|\.\*|\[\*\])*")
_NAMES = re.compile(r"\$(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\.\*|\[\*\]")


class JsonPath:
    """One compiled path.

    Raises:
        ConfigError: it is not a JSONPath, or the package is missing.
    """

    __slots__ = ("_find", "_names", "text")

    def __init__(self, setting: str, text: str) -> None:
        self.text = text
        self._names: list[str] | None = None
        if _NAMES.fullmatch(text):
            self._names = text[2:].split(".")
        if _SIMPLE.fullmatch(text):
            steps = [step[1] for step in _STEP.finditer(text)]
            self._find: Find = partial(_walk, steps)
        else:
            self._find = _compile(setting, text)

    def first(self, document: Any) -> Any:
        """The first value that the path selects; None if there is none."""
        if self._names is None:
            try:
                return next(iter(self.values(document, 1)), None)
            except BadRecord:
                return None
        for name in self._names:
            if not isinstance(document, dict):
                return None
            document = document.get(name)
        return document

    def values(self, document: Any, limit: int) -> list[Any]:
        """The first values that the path selects. Raises BadRecord."""
        try:
            return list(islice(self._find(document), limit))
        except Exception as error:  # the library has errors of its own, and raises others
            raise BadRecord(f"the path {self.text} cannot be applied: {error}") from None


def _walk(steps: list[str | None], document: Any) -> Iterator[Any]:
    """The values at a path of names; None is a wildcard."""
    if not steps:
        yield document
        return
    name, *rest = steps
    if name is not None:
        if isinstance(document, dict) and name in document:
            yield from _walk(rest, document[name])
    elif isinstance(document, dict | list):
        for each in document.values() if isinstance(document, dict) else document:
            yield from _walk(rest, each)


def _compile(setting: str, text: str) -> Find:
    try:
        from jsonpath import JSONPathEnvironment, JSONPathError
    except ImportError:
        raise ConfigError(
            f"{setting} needs the package python-jsonpath, which is not installed"
        ) from None
    try:
        path = JSONPathEnvironment(strict=True).compile(text)
    except (JSONPathError, RecursionError) as error:
        raise ConfigError(
            f"{setting} must be a JSONPath as $.data[*], got {shown(text)}: {error}"
        ) from None

    def find(document: Any) -> Iterable[Any]:
        if isinstance(document, str):  # the library would decode it, and nothing is in a text
            return ()
        return (match.obj for match in path.finditer(document))

    return find
