"""Names of fields by which the browser cannot mix them up. Imports `frames`.

When the columns of a channel change, Grafana's browser finds the values it has by a field's name
and type alone: of two fields that only labels tell apart, one would get those of the other. And a
text `labels` in front of the time is for it a mode of its own, with many series in one channel: in
it, a change of columns throws, a repeated schema takes the labels away, and of two rows of one
moment only one stays. So series get names of their own here, and nothing looks like that mode.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.packet import Schema

__all__ = ["Shape", "full_name", "legend", "shown", "disambiguate_fields"]

_LABELS_MODE = {("labels", "string"), ("Labels", "string")}


class Shape:
    """The columns of a frame: what is known of a channel of frames between two of them."""

    __slots__ = ("_frame", "schema")

    def __init__(self, frame: Frame, schema: Schema) -> None:
        fields = [
            Field(f.name, [], f.type, labels=f.labels, config=f.config, nullable=f.nullable)
            for f in frame.fields
        ]
        self._frame = Frame(*fields, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)
        self.schema = schema

    def empty(self) -> Frame:
        """A frame of these columns without rows."""
        frame = self._frame
        fields = [
            Field(f.name, [], f.type, labels=f.labels, config=f.config, nullable=f.nullable)
            for f in frame.fields
        ]
        return Frame(*fields, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)


def disambiguate_fields(frame: Frame) -> Frame:
    """The frame, with other names where the browser would mix its fields up; mostly as it is."""
    fields = frame.fields
    kinds = [(field.name, field.type.kind) for field in fields]
    names = [field.name for field in fields]
    if len(set(kinds)) < len(kinds):
        alike = {each for each in kinds if kinds.count(each) > 1}
        for place, field in enumerate(fields):
            if kinds[place] in alike and field.labels:
                names[place] = full_name(field.name, field.labels)
    if len(fields) > 1 and kinds[0] in _LABELS_MODE and fields[1].type is FieldType.TIME:
        while names[0] in ("labels", "Labels", *names[1:]):
            names[0] += "_"
    found = [
        field if field.name == name else _renamed(field, name)
        for field, name in zip(fields, names, strict=True)
    ]
    if found == list(fields):
        return frame
    return Frame(*found, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)


def _renamed(field: Field, name: str) -> Field:
    config = shown(field.config, legend(field.name, field.labels))
    return Field(
        name,
        field.values,
        field.type,
        labels=field.labels,
        config=config,
        nullable=field.nullable,
        nanos=field.nanos,
    )


def full_name(name: str, labels: Mapping[str, str]) -> str:
    """A name that no other name has, nor this one with other labels: `name {key="value"}`."""
    plain = _quoted(name) if "{" in name or name.startswith('"') else name
    if not labels:
        return plain
    pairs = [f"{_key(key)}={_quoted(labels[key])}" for key in sorted(labels)]
    return f"{plain} {{{', '.join(pairs)}}}"


def legend(name: str, labels: Mapping[str, str]) -> str:
    """What people read: of a single label only its value, as Grafana writes it."""
    if len(labels) == 1:
        return " ".join([name, *labels.values()])
    return full_name(name, labels) if labels else name


def shown(config: FieldConfig | None, text: str, **others: Any) -> FieldConfig:
    """The config of a renamed field: it is shown as `text`, unless the author says how."""
    config = config or FieldConfig()
    if not config.display_name and not config.display_name_from_ds:
        others["display_name_from_ds"] = text
    return msgspec.structs.replace(config, **others)


def _key(key: str) -> str:
    return key if key.isidentifier() else _quoted(key)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
