"""Distinguishes the messages of one connection by a value in each."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings
from aiostream_ds.sources.decoding.formats import FormatContext, decode
from aiostream_ds.sources.decoding.json_paths import JsonPath

__all__ = ["MessageKeys"]

_NAMES = re.compile(r"\$((?:\.[A-Za-z_][A-Za-z0-9_]*)+)")


class MessageKeys:
    """Finds the key of a message by a JSONPath. In an array each element is a message.

    Raises:
        ConfigError: it is not a JSONPath.
    """

    __slots__ = ("_context", "_find", "_format")

    def __init__(self, path: str, settings: DecodingSettings) -> None:
        self._format = settings.format
        self._context = FormatContext(settings, keeps_tags=False)
        names = _NAMES.fullmatch(path)
        compiled = JsonPath("messageKey", path)  # also where it is not used: it checks the path
        self._find: Callable[[Any], Any]
        if names is not None:
            self._find = _getter(names[1][1:].split("."))
        else:
            self._find = lambda document: next(iter(compiled.values(document, 1)), None)

    def split(self, payload: bytes) -> Iterator[tuple[str | None, Any]]:
        """The messages of a frame, each with its key, or None if it has none.

        A message is the payload itself, or an element of its array. Raises BadRecord.
        """
        if self._format in ("auto", "json") and payload[:1] in (b"{", b"["):
            try:
                document = msgspec.json.decode(payload)
            except (ValueError, RecursionError):
                document = decode(payload, self._format, self._context)
        else:
            document = decode(payload, self._format, self._context)
        if isinstance(document, list):
            for element in document:
                yield self._key(element), element
        else:
            yield self._key(document), payload

    def _key(self, document: Any) -> str | None:
        try:
            value = self._find(document)
        except BadRecord:
            return None
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return str(value) if isinstance(value, int | float) else None


def _getter(names: list[str]) -> Callable[[Any], Any]:
    """The value at a path of names, without the cost of a JSONPath."""
    if len(names) == 1:
        (name,) = names
        return lambda document: document.get(name) if isinstance(document, dict) else None

    def find(document: Any) -> Any:
        for name in names:
            if not isinstance(document, dict):
                return None
            document = document.get(name)
        return document

    return find
