"""Distinguishes the messages of one connection by a value in each."""

from collections.abc import Iterator
from typing import Any

import msgspec

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings, Format
from aiostream_ds.sources.decoding.formats import FormatContext, decode
from aiostream_ds.sources.decoding.json_paths import JsonPath

__all__ = ["MessageKeys"]


class MessageKeys:
    """Finds the key of a message by a JSONPath. Each element of an array, and each line of JSON, is
    a message.

    Raises:
        ConfigError: it is not a JSONPath.
    """

    __slots__ = ("_context", "_format", "_path")

    def __init__(self, path: str, settings: DecodingSettings) -> None:
        self._format: Format = settings.format
        self._context = FormatContext(settings, keeps_tags=False)
        self._path = JsonPath("messageKey", path)

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
        if isinstance(document, list | Iterator):
            for element in document:
                if isinstance(element, BadRecord):
                    raise element
                yield self._key(element), element
        else:
            yield self._key(document), payload

    def _key(self, document: Any) -> str | None:
        value = self._path.first(document)
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        return str(value) if isinstance(value, int | float) else None
