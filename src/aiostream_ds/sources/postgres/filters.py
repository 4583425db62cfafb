"""The filter of a query as text: `site=paris&device=7`, as in a URL."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from aiostream_ds.errors import BadQuery

__all__ = ["filter_text", "read_filter"]


def read_filter(text: str | None, columns: Sequence[str]) -> Mapping[str, str]:
    """The values by column, in the order of `columns`.

    Raises:
        BadQuery: a part has no =, or a column is not in `columns`.
    """
    found: dict[str, str] = {}
    for part in (text or "").split("&"):
        if not part.strip():
            continue
        name, sign, value = part.partition("=")
        name = unquote(name.strip())
        if not sign or name not in columns:
            names = ", ".join(columns) or "none"
            raise BadQuery(
                f"filter: expected COLUMN=VALUE with a column of the setting filters ({names}),"
                f" got {part[:80]!r}"
            )
        if name in found:
            raise BadQuery(f"filter: expected one value of {name!r}, got two")
        value = unquote(value)
        if "\0" in value:
            raise BadQuery(f"filter: the value of {name!r} must not contain a zero byte")
        found[name] = value
    return {name: found[name] for name in columns if name in found}


def filter_text(name: str, value: str) -> str:
    """A filter by one column."""
    return f"{_escaped(name).replace('=', '%3D')}={_escaped(value)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("&", "%26")
