"""The tags of rows as columns, for streams that have no series."""

from typing import Any

__all__ = ["with_tag_columns"]


def with_tag_columns(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with a column for each tag instead of an object `tags`. A tag that has the name of
    another column gets a trailing `_`. The rows themselves are not changed."""
    if not any("tags" in row for row in rows):
        return rows
    return [_flat(row) if row.get("tags").__class__ is dict else row for row in rows]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name != "tags":
            found[name] = value
            continue
        for key, text in value.items():
            while key in found or (key in row and key != "tags"):  # LABEL_LIMIT bounds the tags
                key += "_"
            found[key] = text
    return found
