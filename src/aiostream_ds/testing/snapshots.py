"""Snapshots of frames as readable text files next to a test.

    def test_query(frame_snapshot):
        frame_snapshot(frames)

compares with `snapshots/<test>.txt`; `pytest --update-frames` writes the file.
"""

import difflib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._frames.frame import Field, FieldType, Frame

__all__ = ["FrameSnapshot", "frame_text"]


def frame_text(frame: Frame | Iterable[Frame]) -> str:
    """A frame as text: one line per field, then one per row. `---` separates several frames."""
    frames = [frame] if isinstance(frame, Frame) else list(frame)
    return "\n---\n".join(_frame_text(each) for each in frames) or "(no frame)\n"


def _frame_text(frame: Frame) -> str:
    head = [f"frame {frame.name!r}, {frame.rows} rows"]
    if frame.meta is not None:
        head.append(f"  meta {_json(frame.meta)}")
    head += [f"  {_field(field)}" for field in frame.fields]
    table = [
        [field.name, *(_value(field, value) for value in field.values)] for field in frame.fields
    ]
    widths = [max(map(len, column)) for column in table]
    rows = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*table, strict=True)
    ]
    return "\n".join([*head, "", *rows]) + "\n"


def _field(field: Field) -> str:
    parts = [field.name, field.type.value + ("?" if field.nullable else "")]
    if field.labels:
        parts.append(_json(dict(field.labels)))
    if field.config is not None:
        parts.append(_json(field.config))
    return " ".join(parts)


def _json(value: Any) -> str:
    found = msgspec.to_builtins(value)
    if isinstance(found, dict):
        found = {k: v for k, v in found.items() if v not in (None, "", [], {})}
    return msgspec.json.encode(found, order="sorted").decode()


def _value(field: Field, value: Any) -> str:
    if value is None:
        return "-"
    if field.type is FieldType.TIME and isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    return value if isinstance(value, str) else str(value)


class FrameSnapshot:
    """Compares frames with files, or writes them. Created by the fixture `frame_snapshot`."""

    def __init__(self, folder: Path, name: str, *, update: bool) -> None:
        self._folder = folder
        self._name = name
        self._update = update
        self._count = 0

    def __call__(self, frame: Frame | Sequence[Frame], name: str = "") -> None:
        """Compare a frame with its file, named after the test unless `name` is given.

        The second file of a test has the suffix `-2`. Raises AssertionError with a diff, or for a
        missing file.
        """
        self._count += 1
        number = f"-{self._count}" if self._count > 1 else ""
        file = self._folder / f"{name or self._name + number}.txt"
        text = frame_text(frame)
        if self._update:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
            return
        if not file.is_file():
            raise AssertionError(
                f"no snapshot {file}; check the frame, then run pytest --update-frames\n{text}"
            )
        expected = file.read_text("utf-8")
        if expected != text:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), file.name, "got", lineterm="", n=2
            )
            raise AssertionError("the frame differs from its snapshot:\n" + "\n".join(lines))
