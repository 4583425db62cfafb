"""Arrow IPC streams as records.

A body is untrusted: its batches are validated before values are read, and what makes a short body
expand (compressed buffers, columns that share or repeat values) is refused.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from aiostream_ds.sources.decoding.bad_record import BadRecord, shown
from aiostream_ds.sources.decoding.message_rows import COLUMNS_LIMIT, NAME_LIMIT
from aiostream_ds.sources.push.arrow_compression import is_compressed

__all__ = ["arrow_records"]

_WORK = 64
"""Times the size of the largest body that is validated; each batch has the dictionaries again."""


def arrow_records(payload: bytes, rows: int, size: int) -> Iterator[dict[str, Any]]:
    """The rows of a stream.

    Args:
        rows: the most rows that there may be.
        size: the most bytes of texts, and the most values, that there may be.

    Raises BadRecord: it is not such a stream, is invalid, or has values of another kind.
    """
    import pyarrow as pa
    from pyarrow import ipc

    work, own, free, text = _WORK * size, len(payload), size, size
    try:
        _check_messages(payload)
        reader = ipc.open_stream(payload)
        if len(reader.schema) > COLUMNS_LIMIT:
            raise BadRecord(f"expected at most {COLUMNS_LIMIT} columns, got {len(reader.schema):,}")
        kinds = {field.name: field.type for field in reader.schema}
        if len(kinds) != len(reader.schema):
            raise BadRecord("expected columns of different names")
        for name, kind in kinds.items():
            _check_type(name, kind)
        for batch in reader:
            rows -= batch.num_rows
            if rows < 0:
                raise BadRecord("expected fewer rows in a body; send smaller batches")
            batch.validate()  # the size is only that of a valid batch
            work -= batch.nbytes
            if work < 0:
                raise BadRecord("expected fewer batches with a large dictionary; send larger ones")
            batch.validate(full=True)
            own -= sum(map(_own_size, batch.columns))
            if own < 0:
                raise BadRecord("expected columns with bytes of their own, got shared ones")
            free -= sum(map(_weight, batch.columns))
            if free < 0:
                raise BadRecord(f"expected at most {size:,} values in a body; send smaller batches")
            columns = []
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                text -= _text_size(column)
                if text < 0:
                    raise BadRecord(
                        f"expected fewer bytes of text, got more in the column {shown(name)}"
                    )
                columns.append(_values(column))
            names = batch.schema.names
            for values in zip(*columns, strict=True):
                yield dict(zip(names, values, strict=True))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, BadRecord):
            raise
        reason = str(error).split("\n", 1)[0][:200]
        raise BadRecord(f"expected an Arrow IPC stream: {reason}") from None


def _check_messages(payload: bytes) -> None:
    from pyarrow import ipc

    for message in ipc.MessageReader.open_stream(payload):
        if message.type in ("record batch", "dictionary") and is_compressed(
            memoryview(message.metadata)
        ):
            raise BadRecord(
                "expected Arrow buffers without compression, got compressed ones; use"
                " Content-Encoding: gzip instead"
            )


def _own_size(column: Any) -> int:
    """The bytes of a column without those of a dictionary, which several batches may have."""
    from pyarrow import types

    found: int = (column.indices if types.is_dictionary(column.type) else column).nbytes
    return found


def _weight(array: Any) -> int:
    """The number of values, which may have a bit each; lists and structs take more memory."""
    from pyarrow import types

    kind, count = array.type, len(array)
    if types.is_struct(kind):
        fields = range(kind.num_fields)
        return 4 * count + sum(_weight(array.field(number)) for number in fields)
    if types.is_list(kind) or types.is_large_list(kind):
        return 2 * count + _weight(array.flatten())
    return count


def _check_type(name: str, kind: Any, depth: int = 8) -> None:
    """Raises BadRecord for a type whose values are not those of JSON, or can repeat themselves."""
    from pyarrow import types

    name = name[:NAME_LIMIT]
    if depth and types.is_struct(kind):
        for number in range(kind.num_fields):
            _check_type(f"{name}.{kind[number].name}", kind[number].type, depth - 1)
        return
    if depth and (types.is_list(kind) or types.is_large_list(kind)):
        _check_type(name, kind.value_type, depth - 1)
        return
    if types.is_dictionary(kind):
        kind = kind.value_type if depth == 8 else None
    if kind is not None and any(
        is_kind(kind)
        for is_kind in (
            types.is_boolean,
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_string,
            types.is_large_string,
            types.is_timestamp,
            types.is_date,
        )
    ):
        return
    raise BadRecord(
        f"the column {shown(name)} must have numbers, booleans, texts, times, or lists or structs"
        f" of these, got {str(kind)[:NAME_LIMIT]}"
    )


def _text_size(column: Any) -> int:
    """The bytes of the texts of a dictionary's rows: they may be many times those of the body."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type) or not _is_text(column.dictionary.type):
        return 0
    sizes = [len((text or "").encode()) for text in column.dictionary.to_pylist()]
    return sum(sizes[index] for index in column.indices.to_pylist() if index is not None)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


_EPOCH = datetime(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _values(column: Any) -> list[Any]:
    """The values of a column; times as ISO 8601, which has no unit.

    Packages have no pyarrow.compute, with its casts.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        texts = _values(column.dictionary)
        return [None if i is None else texts[i] for i in column.indices.to_pylist()]
    if pa.types.is_timestamp(kind):
        unit = _PER_SECOND[kind.unit]
        return [None if n is None else _iso(n * 1000 // unit) for n in _integers(column)]
    found: list[Any] = column.to_pylist()
    if pa.types.is_date(kind):
        return [None if day is None else day.isoformat() for day in found]
    if pa.types.is_decimal(kind):
        return [None if number is None else float(number) for number in found]
    return found


def _integers(column: Any) -> list[int | None]:
    import pyarrow as pa

    found: list[int | None] = column.view(pa.int64()).to_pylist()
    return found


def _iso(milliseconds: int) -> str:
    try:
        time = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise BadRecord(
            f"expected times of the years 1 to 9999, got {milliseconds} ms since 1970"
        ) from None
    return time.isoformat(" ", "milliseconds") + "Z"
