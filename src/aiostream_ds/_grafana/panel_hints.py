"""The kind of panel that suits a stream's rows, as metadata of its frames."""

from msgspec.structs import replace

from aiostream_ds._frames.config import FrameMeta
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds.decorators.stream_options import LOGS

__all__ = ["add_panel"]

_TYPES = {
    "flamegraph": "flamegraph",
    LOGS: LOGS,
    "nodeGraph": "nodeGraph",
    "table": "table",
    "timeseries": "graph",
    "traces": "trace",
}
"""The panels that Grafana's own word of `PreferredVisualisationType` stands for, by id."""

_LOG_LINES = {"timestamp": FieldType.TIME, "body": FieldType.STRING}
"""The fields that a frame of the type log-lines must have (dataplane contract, version 0.0)."""


def add_panel(frame: Frame, panel: str) -> None:
    """Name the panel, by its id, in which Explore draws this frame and new panels show it."""
    meta = frame.meta or FrameMeta()
    if panel in _TYPES:
        meta = replace(meta, preferred_visualisation_type=_TYPES[panel])
    else:
        meta = replace(meta, preferred_visualisation_plugin_id=panel)
    if panel == LOGS and _is_log_lines(frame):
        meta = replace(meta, type="log-lines", type_version=(0, 0))
    frame.meta = meta


def _is_log_lines(frame: Frame) -> bool:
    types = {field.name: field.type for field in frame.fields}
    return all(types.get(name) is kind for name, kind in _LOG_LINES.items())
