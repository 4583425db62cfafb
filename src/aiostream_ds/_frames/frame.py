"""Data frames: `Frame` and its columns, `Field`. What Grafana draws; the encoders are next door.

Imports its own room only: config (what goes with the values) and columns (the values themselves).
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aiostream_ds._frames import columns, config
from aiostream_ds._frames.columns import Column, FieldType, FrameError
from aiostream_ds._frames.common_columns import find_sound
from aiostream_ds._frames.config import FieldConfig, FrameMeta

__all__ = ["Field", "FieldType", "Frame", "FrameError", "check_data", "check_schema"]


_NO_LABELS: Mapping[str, str] = MappingProxyType({})


class Field:
    """One named column of values of one type.

    `values` is a list, a one-dimensional numpy array or a pyarrow array. It is kept, not copied,
    wherever it already is in the form that is sent, so do not change it afterwards. For texts by
    the hundred thousand that is a pyarrow array of strings.

    Where no `type` is given it follows from the values: bool, str; int is INT64; float is FLOAT64,
    ints among them included; aware datetimes are TIME; dict and list are JSON; an array has the
    type of its dtype. A field without any value is FLOAT64 and nullable.

    TIME takes aware datetimes, datetime64 arrays (in UTC) or ints of Unix milliseconds. They become
    milliseconds in `values`, and in `nanos`, where any time has a part below its millisecond, the
    0 to 999999 ns that remain; with ints, `nanos` may be given. ENUM takes indexes; their texts are
    in `config.type.enum`. FLOAT32 is rounded to single precision when it is sent. In a JSON field
    that is not nullable, None is the JSON value null.

    `nullable` says whether None is allowed. Left out, it follows from the values; a stream should
    state it, because a change of it is a change of schema.

    Raises:
        FrameError: the values cannot be of one type, or a datetime has no time zone. Whether they
            fit the type is asked by `Frame.check`.
    """

    __slots__ = (
        "_sound",
        "_sound_type",
        "config",
        "labels",
        "name",
        "nanos",
        "nullable",
        "type",
        "values",
    )

    def __init__(
        self,
        name: str,
        values: Any,
        type: FieldType | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        config: FieldConfig | None = None,
        nullable: bool | None = None,
        nanos: Any = None,
    ) -> None:
        self.name = name
        self.labels: Mapping[str, str] = _NO_LABELS if labels is None else labels
        self.config = config
        self.values: Any
        self.nanos: Any
        # The values that passed their check here already: a few rows have no time for two.
        self._sound: Any = None
        self._sound_type: FieldType | None = None
        sound = find_sound(values, type) if nanos is None else None
        if sound is not None:
            self.values = self._sound = values
            self.type = self._sound_type = sound
            self.nullable = False if nullable is None else nullable
            self.nanos = None
            return
        column = columns.read(name, values, type, nanos)
        self.values = column.values
        self.type = column.type
        self.nullable = column.nullable if nullable is None else nullable
        self.nanos = column.nanos

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        optional = ", nullable" if self.nullable else ""
        return f"Field({self.name!r}, {len(self)} x {self.type.value}{optional})"


class Frame:
    """A table of equally long fields, with a name and what it says about itself in `meta`.

    `ref_id` is the query's letter in the panel. `meta` with a `channel` makes Grafana subscribe to
    that channel for the rows that follow.
    """

    __slots__ = ("fields", "meta", "name", "ref_id")

    def __init__(
        self, *fields: Field, name: str = "", ref_id: str = "", meta: FrameMeta | None = None
    ) -> None:
        self.fields = fields
        self.name = name
        self.ref_id = ref_id
        self.meta = meta

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        *,
        name: str = "",
        ref_id: str = "",
        meta: FrameMeta | None = None,
    ) -> "Frame":
        """One field for each name and its values; `Field` says how types follow from values."""
        fields = (Field(key, values) for key, values in columns.items())
        return cls(*fields, name=name, ref_id=ref_id, meta=meta)

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        name: str = "",
        ref_id: str = "",
        meta: FrameMeta | None = None,
    ) -> "Frame":
        """One field for each key of any row, in order of first appearance; None where missing."""
        rows = list(rows)
        keys = dict.fromkeys(key for row in rows for key in row)
        table = {key: [row.get(key) for row in rows] for key in keys}
        return cls.from_columns(table, name=name, ref_id=ref_id, meta=meta)

    @property
    def rows(self) -> int:
        """How many rows there are: the length of the first field, 0 without fields."""
        return len(self.fields[0].values) if self.fields else 0

    def check(self) -> None:
        """Refuse what Grafana could not read. The encoders ask unless they are told it was done.

        Raises:
            FrameError: names the field, the row and the value, and what is allowed.
        """
        check_schema(self)
        check_data(self.fields)

    def __repr__(self) -> str:
        return f"Frame({self.name!r}, {len(self.fields)} fields x {self.rows} rows)"


def check_schema(frame: Frame) -> None:
    """The half of `Frame.check` that looks at names, labels, config and meta.

    Raises:
        FrameError: one of them is not what Grafana takes, or two fields have one name and labels.
    """
    _check_text(frame.name, "frame name")
    _check_text(frame.ref_id, "frame ref_id")
    if frame.meta is not None:
        _check_config(frame.meta, FrameMeta, "frame meta")
    seen = set()
    for position, field in enumerate(frame.fields):
        if not isinstance(field, Field):
            raise FrameError(f"field {position} is {field!r}; allowed is a Field")
        where = f"field {field.name!r}"
        _check_text(field.name, f"name of field {position}")
        if not isinstance(field.labels, Mapping):
            raise FrameError(
                f"{where}: labels are {field.labels!r}; allowed is a dict of str to str"
            )
        for key, value in field.labels.items():
            _check_text(key, f"{where}: label name")
            _check_text(value, f"{where}: label {key!r}")
        if field.config is not None:
            _check_config(field.config, FieldConfig, f"{where}: config")
        identity = (field.name, frozenset(field.labels.items()))
        if identity in seen:
            raise FrameError(
                f"{where} with labels {dict(field.labels)} is there twice; allowed is each name and"
                " labels once"
            )
        seen.add(identity)


def check_data(fields: Sequence[Field]) -> None:
    """The half of `Frame.check` that looks at the values.

    Raises:
        FrameError: a value does not fit its field, or the fields are not equally long.
    """
    rows = len(fields[0].values) if fields else 0
    for field in fields:
        if (
            field.values is not field._sound
            or field.type is not field._sound_type
            or field.nanos is not None
        ):
            _check_field(field)
        if len(field.values) != rows:
            raise FrameError(
                f"field {field.name!r} has {len(field)} values; allowed is {rows}, as"
                f" many as field {fields[0].name!r} has"
            )


def _check_field(field: Field) -> None:
    texts = None
    if field.config is not None and field.config.type is not None and field.config.type.enum:
        texts = len(field.config.type.enum.text)
    column = Column(field.values, field.type, field.nullable, field.nanos)
    columns.check(field.name, column, texts)


def _check_text(value: object, what: str) -> None:
    if not isinstance(value, str):
        raise FrameError(f"{what} is {value!r}; allowed is a str")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FrameError(f"{what} is {value!r}; allowed is text that UTF-8 can hold") from None


def _check_config(value: object, wanted: type[FieldConfig] | type[FrameMeta], what: str) -> None:
    if not isinstance(value, wanted):
        raise FrameError(f"{what} is {value!r}; allowed is a {wanted.__name__}")
    try:
        config.check(value)
    except ValueError as error:
        raise FrameError(f"{what}: {error}") from None
