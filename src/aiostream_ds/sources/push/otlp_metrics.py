"""OTLP metrics as records: an object for the points that have one time and the same attributes.

It reads the JSON form of an ExportMetricsServiceRequest (opentelemetry-proto, metrics.proto), as
which `otlp_protobuf` reads the other form, too.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any

from aiostream_ds._frames.times import EPOCH
from aiostream_ds.sources.decoding.bad_record import BadRecord, shown
from aiostream_ds.sources.decoding.message_rows import LABEL_LIMIT, NAME_LIMIT
from aiostream_ds.sources.decoding.own_names import own_name

__all__ = ["METRICS_LIMIT", "RESOURCE_LABELS", "is_export", "metric_records"]

RESOURCE_LABELS = ("service.name", "service.instance.id", "host.name")
"""The attributes of a resource that are labels, as those of the points. Others would be repeated in
each series."""

METRICS_LIMIT = 100_000
"""Maximum number of resources, scopes and metrics of a body; empty ones take time, too."""

_KINDS = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")

_NO_VALUE = 1
"""The flag of a point without a value (DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK)."""

Key = tuple[str | None, tuple[tuple[str, Any], ...]]


def is_export(document: Any) -> bool:
    """Whether a value of JSON is an export of metrics."""
    return isinstance(document, dict) and isinstance(document.get("resourceMetrics"), list)


def metric_records(
    export: Mapping[str, Any], time: str, rows: int, *, keeps_tags: bool
) -> Iterator[dict[str, Any] | BadRecord]:
    """The records of an export, and for each point that is not one, why.

    Args:
        time: the key of the time in the records.
        rows: the most records that there may be, with points that are not one. After one more, the
            rest of the export is not read.
        keeps_tags: whether the attributes stay one value, `tags`; else each is a column.
    """
    found: dict[Key, _PointRecord] = {}
    bad = 0
    for resource, name, point in _points(export):
        try:
            moment, tags, values = _point(point, name, resource)
            key = moment, tuple(sorted(tags.items()))
            record = found.get(key)
            if record is None:
                record = found[key] = _PointRecord(time, moment, tags, keeps_tags)
            record.add(values)
        except BadRecord as error:
            bad += 1
            yield error
        if len(found) + bad > rows:
            break
    for each in found.values():
        yield each.values


class _PointRecord:
    """The record of the points of one time and the same attributes."""

    __slots__ = ("_labels", "values")

    def __init__(
        self, time: str, moment: str | None, tags: dict[str, Any], keeps_tags: bool
    ) -> None:
        """Raises BadRecord: too many attributes would have one name."""
        self.values: dict[str, Any] = {} if moment is None else {time: moment}
        if keeps_tags:
            self.values["tags"] = tags
        else:
            for name, value in tags.items():
                self.values[own_name(name, self.values)] = value
        self._labels = frozenset(self.values)

    def add(self, values: Mapping[str, Any]) -> None:
        """Add the values of a point. Raises BadRecord, and adds none: it has them already."""
        named = {own_name(name, self._labels): value for name, value in values.items()}
        for name in named:
            if name in self.values:
                raise BadRecord(f"the point repeats {name} of the same time and attributes")
        self.values.update(named)


def _metrics(
    export: Mapping[str, Any],
) -> Iterator[tuple[dict[str, Any], dict[str, Any] | BadRecord]]:
    """Each metric with the labels of its resource. Raises BadRecord if there are too many."""
    count = 0
    for resource_metrics in _objects(export, "resourceMetrics"):
        count = _counted(count)
        if isinstance(resource_metrics, BadRecord):
            yield {}, resource_metrics
            continue
        try:
            labels = _resource_labels(_object(resource_metrics.get("resource")))
        except BadRecord as error:
            yield {}, error
            continue
        for scope in _objects(resource_metrics, "scopeMetrics"):
            count = _counted(count)
            if isinstance(scope, BadRecord):
                yield labels, scope
                continue
            for metric in _objects(scope, "metrics"):
                count = _counted(count)
                yield labels, metric


def _resource_labels(resource: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes that each of its rows has, which must be short. Raises BadRecord."""
    attributes = _attributes(resource, RESOURCE_LABELS)
    labels = {name: attributes[name] for name in RESOURCE_LABELS if name in attributes}
    for name, text in labels.items():
        if len(text) > LABEL_LIMIT:
            raise BadRecord(
                f"the attribute {name} of a resource must have at most {LABEL_LIMIT:,} characters,"
                f" got {len(text):,}"
            )
    return labels


def _counted(count: int) -> int:
    if count == METRICS_LIMIT:
        raise BadRecord(
            f"expected at most {METRICS_LIMIT:,} resources, scopes and metrics in a body, got more"
        )
    return count + 1


def _objects(parent: Mapping[str, Any], key: str) -> Iterator[dict[str, Any] | BadRecord]:
    values = parent.get(key)
    if not isinstance(values, list):
        if values is not None:
            yield BadRecord(f"expected an array in {key}, got {shown(values)}")
        return
    for each in values:
        if isinstance(each, dict):
            yield each
        else:
            yield BadRecord(f"expected objects in {key}, got {shown(each)}")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _points(
    export: Mapping[str, Any],
) -> Iterator[tuple[dict[str, Any], str, dict[str, Any] | BadRecord]]:
    """Each point with the labels of its resource and the name of its metric."""
    for resource, metric in _metrics(export):
        if isinstance(metric, BadRecord):
            yield resource, "", metric
            continue
        for point in _points_of(metric):
            yield resource, metric.get("name", ""), point


def _points_of(metric: Mapping[str, Any]) -> Iterator[dict[str, Any] | BadRecord]:
    kind = next((each for each in _KINDS if isinstance(metric.get(each), dict)), None)
    if kind is None:
        name = shown(metric.get("name"))
        yield BadRecord(f"expected one of {', '.join(_KINDS)} in the metric {name}, got none")
        return
    problem = _name_problem(metric.get("name"))  # once: the name may be as long as the body
    for point in _objects(metric[kind], "dataPoints"):
        yield point if problem is None else BadRecord(problem)


def _name_problem(name: Any) -> str | None:
    """Why it is not the name of a metric."""
    if not isinstance(name, str) or not name:
        return f"expected the name of a metric, got {shown(name)}"
    if len(name) > NAME_LIMIT:
        return f"the name of a metric must have at most {NAME_LIMIT} characters, got {len(name):,}"
    return None


def _point(
    point: dict[str, Any] | BadRecord, name: str, resource: Mapping[str, Any]
) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """The time, the labels and the values of a point. Raises BadRecord."""
    if isinstance(point, BadRecord):
        raise point
    if _integer(point.get("flags", 0), "flags") & _NO_VALUE:
        raise BadRecord(f"the point of {name} has no recorded value")
    values = _values(name, point)
    if not values:
        raise BadRecord(f"expected a value in a point of {name}, got none")
    return _moment(point.get("timeUnixNano")), {**resource, **_attributes(point)}, values


def _values(name: str, point: Mapping[str, Any]) -> dict[str, Any]:
    if "asDouble" in point:
        return {name: _number(point["asDouble"], "asDouble")}
    if "asInt" in point:
        return {name: _integer(point["asInt"], "asInt")}
    found: dict[str, Any] = {}
    for key in ("count", "sum", "min", "max"):
        if key in point:
            found[f"{name}.{key}"] = _number(point[key], key)
    for key in ("bucketCounts", "explicitBounds"):
        if isinstance(point.get(key), list):
            found[f"{name}.{key}"] = point[key]
    for each in _objects(point, "quantileValues"):
        if isinstance(each, BadRecord):
            raise each
        quantile = _number(each.get("quantile", 0), "quantile")
        column, value = f"{name}.{quantile:g}", _number(each.get("value", 0), "value")
        if column in found and found[column] != value:
            raise BadRecord(f"the point has several values of the quantile {quantile:g} of {name}")
        found[column] = value
    return found


def _number(value: Any, name: str) -> float:
    """A double: a number, or a text such as "NaN"."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise BadRecord(f"expected a number in {name}, got {shown(value)}")


def _integer(value: Any, name: str) -> int:
    """An integer of 64 bits: a number, or its digits."""
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = int(value) if len(str(value)) <= 20 else 1 << 64
        except (ValueError, OverflowError):
            number = 1 << 64
        if -(1 << 63) <= number < 1 << 64:
            return number
    raise BadRecord(f"expected an integer of 64 bits in {name}, got {shown(value)}")


def _moment(value: Any) -> str | None:
    """A time in nanoseconds as ISO 8601, which has no unit; None if there is none."""
    nanoseconds = 0 if value is None else _integer(value, "timeUnixNano")
    if nanoseconds == 0:
        return None
    try:
        return (EPOCH + timedelta(milliseconds=nanoseconds // 1_000_000)).isoformat()
    except OverflowError:
        raise BadRecord(f"the time must be in the years 1677 to 2262, got {value}") from None


def _attributes(holder: Mapping[str, Any], names: Collection[str] | None = None) -> dict[str, Any]:
    """The attributes, or those with some names. Raises BadRecord."""
    found: dict[str, Any] = {}
    for each in _objects(holder, "attributes"):
        if isinstance(each, BadRecord):
            raise each
        key = each.get("key")
        if not isinstance(key, str):
            raise BadRecord(f"expected the key of an attribute, got {shown(key)}")
        if names is not None and key not in names:
            continue
        text = _text(_object(each.get("value")))
        if found.setdefault(key, text) != text:
            raise BadRecord(
                f"the attribute {key[:NAME_LIMIT]} has several values, {shown(found[key])} and"
                f" {shown(text)}"
            )
    return found


def _text(value: Mapping[str, Any]) -> Any:
    """The text of an attribute's value; arrays and lists of keys as they are, in JSON."""
    for kind, found in value.items():
        if kind in ("arrayValue", "kvlistValue"):
            return str(found)
        if isinstance(found, bool):
            return "true" if found else "false"
        if kind.endswith("Value") and isinstance(found, str | int | float):
            return str(found)
    return ""
