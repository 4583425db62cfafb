"""README, CHANGELOG, LICENSE and logo for a package whose author has none."""

import hashlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiostream_ds.datasource import DataSource
from aiostream_ds.packaging.findings import PackagingError

__all__ = ["make_changelog", "make_logo", "make_missing_license", "make_readme", "read_markdown"]

_COMMENT = re.compile(r"<!--.*?-->\n?", re.S)


def read_markdown(path: Path) -> str:
    """A file without its comments: Grafana's validator takes comments for unfinished templates.

    Raises:
        PackagingError: It is not UTF-8.
    """
    try:
        return _COMMENT.sub("", path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise PackagingError(f"{path}: expected UTF-8: {error}") from None


def make_readme(manifest: Mapping[str, Any], kind: type[DataSource[Any]]) -> str:
    """The docstring of the class, its streams, queries and settings."""
    text = inspect.cleandoc(kind.__dict__.get("__doc__") or manifest["info"]["description"])
    lines = [f"# {manifest['name']}", "", text, ""]
    plan = kind._ds_plan
    if plan.streams:
        lines += ["## Streams", ""]
        lines += [f"- `{s.pattern.text}` (query type `{s.name}`)" for s in plan.streams.values()]
        lines.append("")
    if plan.queries:
        lines += ["## Queries", "", *(f"- `{name}`" for name in plan.queries), ""]
    names = list(getattr(plan.settings, "__struct_encode_fields__", ()))
    if names:
        lines += ["## Settings", "", *(f"- `{name}`" for name in names), ""]
    return "\n".join(lines)


def make_changelog(manifest: Mapping[str, Any]) -> str:
    """A changelog with one entry."""
    return f"# Changelog\n\n## {manifest['info']['version']}\n\n- Packaged.\n"


def make_missing_license(manifest: Mapping[str, Any]) -> str:
    """The text of LICENSE if the author has none: no rights are granted."""
    author = manifest["info"]["author"]["name"]
    return (
        f"{manifest['name']} ({manifest['id']}) comes without a licence: all rights are reserved "
        f"by its author ({author}). Included libraries have their own licences, in licenses/ and "
        "in py/.\n"
    )


def make_logo(manifest: Mapping[str, Any]) -> str:
    """A square with two letters of the name; the id determines its colour."""
    hue = int.from_bytes(hashlib.sha256(manifest["id"].encode()).digest()[:2]) % 360
    words = re.findall(r"[A-Za-z0-9]+", manifest["name"]) or ["?"]
    letters = (words[0][0] + (words[1][0] if len(words) > 1 else words[0][1:2])).upper()
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
        f'<rect width="64" height="64" rx="12" fill="hsl({hue},55%,40%)"/>'
        '<path d="M6 50 L18 44 L28 52 L40 40 L58 46" fill="none" stroke="#fff" stroke-opacity=".6" '
        'stroke-width="3"/>'
        '<text x="32" y="35" font-family="sans-serif" font-size="26" font-weight="700" '
        f'fill="#fff" text-anchor="middle">{letters}</text></svg>\n'
    )
