"""Hides columns in panels, such as the cursor, whose large numbers would dominate the y-axis."""

from collections.abc import Collection

from msgspec.structs import replace

from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import Field, FieldType, Frame

__all__ = ["hidden_config", "hide_fields"]

_HIDE_FROM = {"legend": True, "tooltip": True, "viz": True}


def hidden_config(config: FieldConfig | None = None) -> FieldConfig:
    """The config of a column that panels do not draw, unless the author has set `hideFrom`."""
    config = config or FieldConfig()
    return replace(config, custom={"hideFrom": _HIDE_FROM, **(config.custom or {})})


def hide_fields(frame: Frame, names: Collection[str]) -> Frame:
    """A frame in which the fields of these names are hidden; time fields stay visible. Returns
    `frame` itself if nothing changes."""
    found = [
        _hidden(field) if field.name in names and field.type is not FieldType.TIME else field
        for field in frame.fields
    ]
    if found == list(frame.fields):
        return frame
    return Frame(*found, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)


def _hidden(field: Field) -> Field:
    return Field(
        field.name,
        field.values,
        field.type,
        labels=field.labels,
        config=hidden_config(field.config),
        nullable=field.nullable,
        nanos=field.nanos,
    )
