"""JSONPaths (RFC 9535) of the settings: the rows of a message, and columns from elsewhere in it.

python-jsonpath is imported when a path is set.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from aiostream_ds.errors import ConfigError
from aiostream_ds.sources.decoding.bad_record import BadRecord, shown

__all__ = ["JsonPath"]

Find = Callable[[Any], Iterable[Any]]


class JsonPath:
    """One compiled path.

    Raises:
        ConfigError: it is not a JSONPath, or the package is missing.
    """

    __slots__ = ("_find", "text")

    def __init__(self, setting: str, text: str) -> None:
        self.text = text
        try:
            from jsonpath import JSONPathEnvironment, JSONPathError
        except ImportError:
            raise ConfigError(
                f"{setting} needs the package python-jsonpath, which is not installed"
            ) from None
        try:
            self._find = JSONPathEnvironment(strict=True).compile(text).finditer
        except (JSONPathError, RecursionError) as error:
            raise ConfigError(
                f"{setting} must be a JSONPath as $.data[*], got {shown(text)}: {error}"
            ) from None

    def values(self, document: Any, limit: int) -> list[Any]:
        """The first values that the path selects. Raises BadRecord."""
        try:
            return [match.obj for match in islice(self._find(document), limit)]
        except (ValueError, TypeError, LookupError, RecursionError, ArithmeticError) as error:
            raise BadRecord(f"the path {self.text} cannot be applied: {error}") from None
        except Exception as error:  # the library's own errors, as of too deep recursion
            raise BadRecord(f"the path {self.text} cannot be applied: {error}") from None
