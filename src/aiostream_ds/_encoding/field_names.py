"""Field names that Grafana's browser code cannot confuse.

When the columns of a channel change, the browser finds the values that it has by a field's name and
type alone: of two fields that differ only in labels, one would get the values of the other. And a
string field `labels` before the time selects a mode with many series in one channel, in which a
change of columns throws, a repeated schema removes the labels, and of two rows with the same time
only one remains. So series have unique names here, and no packet selects that mode.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from aiostream_ds._frames.config import FieldConfig
from aiostream_ds._frames.frame import Field, FieldType, Frame

__all__ = ["base_name", "disambiguate_fields", "full_name", "legend", "with_display_name"]

_LABELS_MODE = {("labels", "string"), ("Labels", "string")}


def disambiguate_fields(frame: Frame) -> Frame:
    """The frame with fields renamed where the browser would confuse them; else the same object."""
    fields = frame.fields
    kinds = [(field.name, field.type.kind) for field in fields]
    names = [field.name for field in fields]
    if len(set(kinds)) < len(kinds):
        repeated = {kind for kind, count in Counter(kinds).items() if count > 1}
        for index, field in enumerate(fields):
            if kinds[index] in repeated and field.labels:
                names[index] = full_name(field.name, field.labels)
    if len(fields) > 1 and kinds[0] in _LABELS_MODE and fields[1].type is FieldType.TIME:
        while names[0] in ("labels", "Labels", *names[1:]):
            names[0] += "_"
    found = [
        field if field.name == name else _rename(field, name)
        for field, name in zip(fields, names, strict=True)
    ]
    if found == list(fields):
        return frame
    return Frame(*found, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)


def _rename(field: Field, name: str) -> Field:
    config = with_display_name(field.config, legend(field.name, field.labels))
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
    """A name that is unique for a name with labels: `name {key="value"}`."""
    base = _quote(name) if "{" in name or name.startswith('"') else name
    if not labels:
        return base
    pairs = [f"{_key(key)}={_quote(labels[key])}" for key in sorted(labels)]
    return f"{base} {{{', '.join(pairs)}}}"


def base_name(name: str, labels: Mapping[str, str]) -> str:
    """The name of which `full_name` made this one; the same name if it did not make it."""
    suffix = full_name("", labels)
    if not labels or not name.endswith(suffix):
        return name
    base = name.removesuffix(suffix)
    decoded: str = msgspec.json.decode(base) if base.startswith('"') else base
    return decoded


def legend(name: str, labels: Mapping[str, str]) -> str:
    """The name in a panel's legend: a single label is shown as its value, as Grafana does."""
    if len(labels) == 1:
        return " ".join([name, *labels.values()])
    return full_name(name, labels) if labels else name


def with_display_name(config: FieldConfig | None, text: str, **others: Any) -> FieldConfig:
    """The config with this display name, unless the author has set one, and with `others`."""
    config = config or FieldConfig()
    if not config.display_name and not config.display_name_from_ds:
        others["display_name_from_ds"] = text
    return msgspec.structs.replace(config, **others)


def _key(key: str) -> str:
    return key if key.isidentifier() else _quote(key)


def _quote(text: str) -> str:
    return msgspec.json.encode(text).decode()
