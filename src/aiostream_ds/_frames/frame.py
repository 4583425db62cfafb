"""Data frames, the tables that Grafana displays: `Frame` and its columns, `Field`."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aiostream_ds._frames import columns, config
from aiostream_ds._frames.column_values import read_column
from aiostream_ds._frames.columns import RANGES, Column, FieldType, FrameError
from aiostream_ds._frames.common_columns import validated_type
from aiostream_ds._frames.config import FieldConfig, FrameMeta
from aiostream_ds._frames.dataframes import table_columns
from aiostream_ds._short_repr import short_repr

__all__ = ["Field", "FieldType", "Frame", "FrameError", "check_data", "check_schema"]


_NO_LABELS: Mapping[str, str] = MappingProxyType({})
_NO_CONFIG: Mapping[str, FieldConfig] = MappingProxyType({})
_TIME = "time"
_INTEGERS = frozenset(RANGES) - {FieldType.TIME, FieldType.ENUM}
_SHOWN = 10  # columns in a message


class Field:
    """A named column of values of one type.

    `values` is a list, a one-dimensional numpy array, a pyarrow array, a Series or Index of pandas,
    or a column with Arrow's PyCapsule interface, such as a Series of polars. It is not copied if it
    already has the form that is sent, so do not change it afterwards. For more than 100,000
    strings, use a pyarrow array of strings.

    Without `type`, the type follows from the values: bool is BOOL; str is STRING; int is INT64;
    float, also mixed with int, is FLOAT64; aware datetimes are TIME; dict and list are JSON; an
    array has the type of its dtype. A field without any value is FLOAT64 and nullable.

    TIME takes aware datetimes, datetime64 arrays (in UTC) or ints of Unix milliseconds. `values`
    then has milliseconds. If a time has a part below its millisecond, `nanos` has those 0 to
    999999 ns; with ints, `nanos` may be given. ENUM takes indexes; their texts are in
    `config.type.enum`. FLOAT32 is rounded to single precision when it is sent. In a JSON field that
    is not nullable, None is the JSON value null.

    `nullable` is whether None is allowed. By default it follows from the values; set it in a
    stream, because a change of it is a change of the schema.

    Raises:
        FrameError: the values are not of one type, or a datetime has no time zone. `Frame.check`
            checks that they fit the type.
    """

    __slots__ = (
        "_validated",
        "_validated_type",
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
        # Values and type that were validated here: `check_data` does not check them again.
        self._validated: Any = None
        self._validated_type: FieldType | None = None
        validated = validated_type(values, type) if nanos is None else None
        if validated is not None:
            self.values = self._validated = values
            self.type = self._validated_type = validated
            self.nullable = False if nullable is None else nullable
            self.nanos = None
            return
        column = read_column(name, values, type, nanos)
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
    """A table of equally long fields, with a name and metadata.

    `ref_id` is the letter of the query in the panel. If `meta` has a `channel`, Grafana subscribes
    to it for the rows that follow.

    Raises:
        TypeError: a positional argument is not a `Field`.
    """

    __slots__ = ("fields", "meta", "name", "ref_id")

    def __init__(
        self, *fields: Field, name: str = "", ref_id: str = "", meta: FrameMeta | None = None
    ) -> None:
        for field in fields:
            if not isinstance(field, Field):
                raise TypeError(
                    f"a Frame must be made of Field objects, got {short_repr(field)}; use"
                    " Frame(*fields, name=…), Frame.from_rows, from_columns or from_table"
                )
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
        """A frame with a field for each name and its values.

        Raises:
            FrameError: see `Field`.
        """
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
        """A frame with a field for each key of any row, in order of first appearance; None where a
        row does not have the key.

        Raises:
            FrameError: a row is not a dict or another mapping; see `Field`, too.
        """
        rows = list(rows)
        for row in rows:
            if not isinstance(row, Mapping):
                raise FrameError(
                    f"a row of Frame.from_rows must be a dict, got {short_repr(row)}; a query, a"
                    " history and a stream take a list of objects as it is"
                )
        keys = dict.fromkeys(key for row in rows for key in row)
        table = {key: [row.get(key) for row in rows] for key in keys}
        return cls.from_columns(table, name=name, ref_id=ref_id, meta=meta)

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        config: Mapping[str, FieldConfig] = _NO_CONFIG,
        name: str = "",
        ref_id: str = "",
        meta: FrameMeta | None = None,
    ) -> "Frame":
        """A frame with the columns of a table: a DataFrame of pandas, or an object with Arrow's
        PyCapsule interface, such as those of pyarrow, polars and DuckDB.

        Integers of a column `time` are Unix milliseconds. Every field is nullable, so that the
        schema does not depend on the values. `config` has the configs of columns by name.

        Raises:
            FrameError: this is not a table, a column cannot have its type, or a name of `config` is
                not that of a column.
        """
        fields = [Field(key, values, nullable=True) for key, values in table_columns(table)]
        names = [field.name for field in fields]
        for index, field in enumerate(fields):
            if field.name == _TIME and field.type in _INTEGERS:
                fields[index] = Field(_TIME, field.values, FieldType.TIME, nullable=True)
        for key, each in config.items():
            if key not in names:
                shown = ", ".join(names[:_SHOWN]) or "no columns"
                raise FrameError(
                    f"config must be for columns of the table ({shown}), got {short_repr(key)}"
                )
            fields[names.index(key)].config = each
        return cls(*fields, name=name, ref_id=ref_id, meta=meta)

    @property
    def rows(self) -> int:
        """The number of rows: the length of the first field, 0 without fields."""
        return len(self.fields[0].values) if self.fields else 0

    def check(self) -> None:
        """Check that Grafana can read the frame. The encoders call this unless `checked` is true.

        Raises:
            FrameError: names the field, the row, the value and what was expected.
        """
        check_schema(self)
        check_data(self.fields)

    def __repr__(self) -> str:
        return f"Frame({self.name!r}, {len(self.fields)} fields x {self.rows} rows)"


def check_schema(frame: Frame) -> None:
    """The part of `Frame.check` for names, labels, config and meta.

    Raises:
        FrameError: Grafana does not accept one of them, or two fields have one name and labels.
    """
    _check_str(frame.name, "frame name")
    _check_str(frame.ref_id, "frame ref_id")
    if frame.meta is not None:
        _check_config(frame.meta, FrameMeta, "frame meta")
    seen = set()
    for index, field in enumerate(frame.fields):
        if not isinstance(field, Field):
            raise FrameError(f"field {index} must be a Field, got {short_repr(field)}")
        where = f"field {field.name!r}"
        _check_str(field.name, f"name of field {index}")
        if not isinstance(field.labels, Mapping):
            raise FrameError(f"{where}: labels must be a dict of str to str, got {field.labels!r}")
        for key, value in field.labels.items():
            _check_str(key, f"{where}: label name")
            _check_str(value, f"{where}: label {key!r}")
        if field.config is not None:
            _check_config(field.config, FieldConfig, f"{where}: config")
        identity = (field.name, frozenset(field.labels.items()))
        if identity in seen:
            raise FrameError(
                f"{where}: name and labels must be unique in the frame, got labels"
                f" {dict(field.labels)} twice"
            )
        seen.add(identity)


def check_data(fields: Sequence[Field]) -> None:
    """The part of `Frame.check` for the values.

    Raises:
        FrameError: a value does not fit its field, or the fields are not equally long.
    """
    rows = len(fields[0].values) if fields else 0
    for field in fields:
        if (
            field.values is not field._validated
            or field.type is not field._validated_type
            or field.nanos is not None
        ):
            _check_field(field)
        if len(field.values) != rows:
            raise FrameError(
                f"field {field.name!r} must have {rows} values, as many as field"
                f" {fields[0].name!r}, got {len(field)}"
            )


def _check_field(field: Field) -> None:
    enum_size = None
    if field.config is not None and field.config.type is not None and field.config.type.enum:
        enum_size = len(field.config.type.enum.text)
    column = Column(field.values, field.type, field.nullable, field.nanos)
    columns.check(field.name, column, enum_size)


def _check_str(value: object, what: str) -> None:
    if not isinstance(value, str):
        raise FrameError(f"{what} must be a str, got {short_repr(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FrameError(
            f"{what} must be a str that UTF-8 can encode, got {short_repr(value)}"
        ) from None


def _check_config(value: object, wanted: type[FieldConfig] | type[FrameMeta], what: str) -> None:
    if not isinstance(value, wanted):
        raise FrameError(f"{what} must be a {wanted.__name__}, got {short_repr(value)}")
    try:
        config.check(value)
    except ValueError as error:
        raise FrameError(f"{what}: {error}") from None
