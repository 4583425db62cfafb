"""The records of a message: the objects that become rows."""

from collections.abc import Iterator
from typing import Any

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings
from aiostream_ds.sources.decoding.formats import Document
from aiostream_ds.sources.decoding.json_paths import JsonPath
from aiostream_ds.sources.decoding.text_cells import distinct

__all__ = ["ARRAY_LIMIT", "ROWS_LIMIT", "RecordSelector"]

ROWS_LIMIT = 10_000
"""Maximum number of rows of one message, with those that are bad: as many as the queue of a
subscriber has. Further ones are left out."""

ARRAY_LIMIT = 500
"""Maximum number of values of an array that is a row."""

_OUTER = 1_000
"""Characters of a value that each row of a message gets."""

Record = dict[str, Any] | BadRecord


class RecordSelector:
    """Finds the records in what a message contains.

    Raises:
        ConfigError: a path of the settings is not a JSONPath.
    """

    __slots__ = ("_names", "_paths", "_rows_path")

    def __init__(self, settings: DecodingSettings) -> None:
        self._names = tuple(distinct(settings.names))
        self._rows_path = JsonPath("rowsPath", settings.rows_path) if settings.rows_path else None
        self._paths = {
            name: JsonPath(f"paths.{name}", path) for name, path in settings.paths.items()
        }

    @property
    def has_paths(self) -> bool:
        """Whether records are not simply the objects of a message."""
        return self._rows_path is not None or bool(self._paths)

    def records(self, document: Document) -> Iterator[Record]:
        """Each record, and a BadRecord for what should be one and is not."""
        if not isinstance(document, Iterator):
            if document is not None:
                yield from self._selected(document)
            return
        for part in document:
            if isinstance(part, BadRecord):
                yield part
            else:
                yield from self._selected(part)

    def _selected(self, document: Any) -> Iterator[Record]:
        if not self.has_paths:
            yield from self._objects(document)
            return
        try:
            outer = {name: _outer(path, document) for name, path in self._paths.items()}
            chosen = [document]
            if self._rows_path is not None:
                chosen = self._rows_path.values(document, ROWS_LIMIT + 1)
        except BadRecord as error:
            yield error
            return
        for each in chosen:
            for record in self._objects(each):
                yield record if isinstance(record, BadRecord) else {**record, **outer}

    def _objects(self, value: Any) -> Iterator[Record]:
        if isinstance(value, dict):
            yield value
        elif isinstance(value, list):
            yield from self._elements(value)
        elif isinstance(value, str):
            yield {"text": value}
        elif value is not None:
            yield {"value": value}

    def _elements(self, values: list[Any]) -> Iterator[Record]:
        """An array of objects or of arrays has a record for each; another one is a record."""
        if not any(isinstance(each, dict | list) for each in values):
            if values:
                yield self._named(values)
            return
        for each in values:
            if isinstance(each, dict):
                yield each
            elif isinstance(each, list):
                yield self._named(each)
            elif each is not None:
                yield BadRecord("expected only objects or arrays in an array that has them")

    def _named(self, values: list[Any]) -> Record:
        if len(values) > ARRAY_LIMIT:
            return BadRecord(f"expected at most {ARRAY_LIMIT} values in a row, got {len(values):,}")
        if not self._names:
            return {str(number): value for number, value in enumerate(values, 1)}
        if len(self._names) != len(values):
            return BadRecord(
                f"expected {len(self._names)} values, as the setting names has, got {len(values)}"
            )
        return dict(zip(self._names, values, strict=True))


def _outer(path: JsonPath, document: Any) -> Any:
    """The first value of a path; short, because each row of the message has it."""
    value = next(iter(path.values(document, 1)), None)
    if isinstance(value, dict | list):
        raise BadRecord(f"expected a single value at {path.text}, got an object or an array")
    return value[:_OUTER] if isinstance(value, str) else value
