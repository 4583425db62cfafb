"""Metadata of fields and frames: how Grafana displays a field, and what a frame contains.

The structs are those of Grafana's JSON: snake_case here, camelCase on the wire, defaults omitted.
Creating a struct checks nothing; `check` does.
"""

import enum
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from aiostream_ds._redaction import redact, redact_start

__all__ = [
    "DataLink",
    "EnumConfig",
    "FieldConfig",
    "FrameMeta",
    "Inspect",
    "InternalLink",
    "LinkRange",
    "LinkTransformation",
    "MappingResult",
    "Notice",
    "RangeMapping",
    "RangeOptions",
    "SpecialMapping",
    "SpecialOptions",
    "Stat",
    "Threshold",
    "Thresholds",
    "TypeConfig",
    "ValueMapping",
    "check",
]

UInt16 = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
AwareDatetime = Annotated[datetime, msgspec.Meta(tz=True)]


class _Wire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Settings of all structs here."""


class MappingResult(_Wire, frozen=True, kw_only=True):
    """The text and color shown instead of a value; `index` orders the editor's list."""

    text: str = ""
    color: str = ""
    index: int = 0


class ValueMapping(_Wire, frozen=True, kw_only=True, tag_field="type", tag="value"):
    """Results for single values; the keys are the values as strings."""

    options: Mapping[str, MappingResult]


class RangeOptions(_Wire, frozen=True, kw_only=True):
    """A range, ends included; None is an open end."""

    from_: float | None = msgspec.field(default=None, name="from")
    to: float | None = None
    result: MappingResult


class RangeMapping(_Wire, frozen=True, kw_only=True, tag_field="type", tag="range"):
    """A result for a range of numbers."""

    options: RangeOptions


class SpecialOptions(_Wire, frozen=True, kw_only=True):
    """A special value and its result."""

    match: Literal["true", "false", "null", "nan", "null+nan", "empty"]
    result: MappingResult


class SpecialMapping(_Wire, frozen=True, kw_only=True, tag_field="type", tag="special"):
    """A result for a special value (true, null, NaN …)."""

    options: SpecialOptions


class Threshold(_Wire, frozen=True, kw_only=True):
    """A step that applies from `value` on. None (or -inf) is the first step, below all others."""

    value: float | None
    color: str = ""
    state: str = ""


class Thresholds(_Wire, frozen=True, kw_only=True):
    """Steps in ascending order; a percentage is of the field's range from `min` to `max`."""

    mode: Literal["absolute", "percentage"]
    steps: tuple[Threshold, ...]


class LinkTransformation(_Wire, frozen=True, kw_only=True):
    """How a link extracts variables from a field's text."""

    type: Literal["regex", "logfmt"]
    field: str = ""
    expression: str = ""
    map_value: str = ""


class LinkRange(_Wire, frozen=True, kw_only=True):
    """The time range of the link's target; both ends are aware datetimes."""

    from_: AwareDatetime = msgspec.field(name="from")
    to: AwareDatetime


class InternalLink(_Wire, frozen=True, kw_only=True):
    """A link to a query of another data source in Explore."""

    query: Any = None
    datasource_uid: str = ""
    datasource_name: str = ""
    panels_state: Any = None
    transformations: tuple[LinkTransformation, ...] | None = None
    time_range: LinkRange | None = None


class DataLink(_Wire, frozen=True, kw_only=True):
    """The link that a click on a value opens."""

    title: str = ""
    target_blank: bool = False
    url: str = ""
    internal: InternalLink | None = None


class EnumConfig(_Wire, frozen=True, kw_only=True):
    """Text, color, icon and description of each index of an enum field, by index."""

    text: tuple[str, ...]
    color: tuple[str, ...] = ()
    icon: tuple[str, ...] = ()
    description: tuple[str, ...] = ()


class TypeConfig(_Wire, frozen=True, kw_only=True):
    """Config of fields of one type."""

    enum: EnumConfig | None = None


class FieldConfig(_Wire, frozen=True, kw_only=True):
    """How Grafana displays a field. Everything is optional.

    `unit` is one of Grafana's unit ids ("celsius", "ms"). `interval` is the expected step between
    values in the field's own unit, for a time field in milliseconds. A `min` or `max` that is not
    finite is ignored.
    """

    display_name: str = ""
    display_name_from_ds: str = msgspec.field(default="", name="displayNameFromDS")
    path: str = ""
    description: str = ""
    filterable: bool | None = None
    writeable: bool | None = None
    unit: str = ""
    decimals: UInt16 | None = None
    min: float | None = None
    max: float | None = None
    interval: float | None = None
    mappings: tuple[ValueMapping | RangeMapping | SpecialMapping, ...] = ()
    thresholds: Thresholds | None = None
    color: Mapping[str, Any] | None = None
    links: tuple[DataLink, ...] = ()
    no_value: str = ""
    type: TypeConfig | None = None
    custom: Mapping[str, Any] | None = None


class Stat(FieldConfig, frozen=True, kw_only=True):
    """One number about the query itself (rows read, time taken), shown in the query inspector."""

    value: float


class Inspect(enum.IntEnum):
    """The tab of the panel inspector that a notice opens; a number on the wire."""

    NONE = 0
    META = 1
    ERROR = 2
    DATA = 3
    STATS = 4


class Notice(_Wire, frozen=True, kw_only=True):
    """A message in the corner of the panel."""

    severity: Literal["info", "warning", "error"]
    text: str
    link: str = ""
    inspect: Inspect = Inspect.NONE


class FrameMeta(_Wire, frozen=True, kw_only=True):
    """Metadata of a frame. Everything is optional.

    `type` declares a structure ("timeseries-wide", "timeseries-long", "timeseries-multi",
    "numeric-wide", "numeric-long", "numeric-multi", "log-lines", "table", "directory-listing") and
    `type_version` its version, as (major, minor). `channel` is the live channel, without the
    organisation, that Grafana subscribes to for the rows that follow. `unique_row_id_fields` are
    the indexes of the fields that together identify a row.
    """

    type: str = ""
    type_version: tuple[UInt16, UInt16] | None = None
    path: str = ""
    path_separator: str = ""
    custom: Any = None
    stats: tuple[Stat, ...] = ()
    notices: tuple[Notice, ...] = ()
    channel: str = ""
    preferred_visualisation_type: str = ""
    preferred_visualisation_plugin_id: str = ""
    executed_query_string: str = ""
    data_topic: str = ""
    unique_row_id_fields: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()


NOTICE_LIMIT = 4_000
"""Characters of a notice that users see."""


def redacted_meta(meta: FrameMeta | None) -> FrameMeta | None:
    """`meta` as users see it: notices are often made of errors, and a query may have a password.
    A panel shows one notice of each severity: those of the same one are joined."""
    if meta is None or not (meta.notices or meta.executed_query_string):
        return meta
    notices = tuple(
        msgspec.structs.replace(notice, text=redact_start(notice.text, NOTICE_LIMIT))
        for notice in _joined(meta.notices)
    )
    executed = redact(meta.executed_query_string)
    return msgspec.structs.replace(meta, notices=notices, executed_query_string=executed)


def _joined(notices: Sequence[Notice]) -> Iterator[Notice]:
    same: dict[str, list[Notice]] = {}
    for notice in notices:
        same.setdefault(notice.severity, []).append(notice)
    for first, *others in same.values():
        text = first.text
        for notice in others:
            text += f"{'' if text.endswith(('.', ';')) else ';'} {notice.text}"
        link = next((each.link for each in (first, *others) if each.link), "")
        yield msgspec.structs.replace(first, text=text, link=link)


def check(value: FieldConfig | FrameMeta) -> None:
    """Check that Grafana can read the struct: one bad notice makes a whole response unreadable.

    Raises:
        ValueError: names the key and what was expected.
    """
    try:
        msgspec.json.decode(msgspec.json.encode(value), type=type(value))
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
