"""The JSON objects of frames, for encoder and decoder."""

from collections.abc import Mapping
from typing import Any

import msgspec

from aiostream_ds._frames.columns import FieldType
from aiostream_ds._frames.config import FieldConfig, FrameMeta

__all__ = ["DataObject", "Entities", "FieldSchema", "FrameSchema", "Payload", "TypeInfo"]


class TypeInfo(msgspec.Struct, omit_defaults=True):
    """A field's type in Grafana's names."""

    frame: FieldType
    nullable: bool = False


class FieldSchema(msgspec.Struct, omit_defaults=True, rename="camel"):
    """A field without its values."""

    name: str = ""
    type: str = ""
    type_info: TypeInfo | None = None
    labels: Mapping[str, str] | None = None
    config: FieldConfig | None = None


class FrameSchema(msgspec.Struct, omit_defaults=True, rename="camel", kw_only=True):
    """A frame without its values."""

    name: str = ""
    ref_id: str = ""
    meta: FrameMeta | None = None
    fields: list[FieldSchema]


class Entities(msgspec.Struct, rename={"nan": "NaN", "inf": "Inf", "neg_inf": "NegInf"}):
    """The rows of a column whose values JSON cannot represent."""

    nan: tuple[int, ...] = ()
    inf: tuple[int, ...] = ()
    neg_inf: tuple[int, ...] = ()


class DataObject(msgspec.Struct):
    """The values of a frame, by column."""

    values: list[list[Any]]
    entities: list[Entities | None] | None = None
    nanos: list[list[int] | None] | None = None


class Payload(msgspec.Struct):
    """A whole frame, or one of its parts."""

    schema: FrameSchema | None = None
    data: DataObject | None = None
