"""The texts and the logo of a package, made where the author has none. Imports `manifest`."""

import hashlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiostream_ds.datasource import DataSource

__all__ = ["changelog", "logo", "no_licence", "plain_markdown", "readme"]

_COMMENT = re.compile(r"<!--.*?-->\n?", re.S)


def plain_markdown(path: Path) -> str:
    """A text without comments, which Grafana's validator takes for the rest of a template."""
    return _COMMENT.sub("", path.read_text("utf-8"))


def readme(manifest: Mapping[str, Any], kind: type[DataSource[Any]]) -> str:
    """What the class says of itself, its streams and its settings."""
    text = inspect.cleandoc(kind.__dict__.get("__doc__") or manifest["info"]["description"])
    lines = [f"# {manifest['name']}", "", text, ""]
    plan = kind._plan
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


def changelog(manifest: Mapping[str, Any]) -> str:
    """A first entry."""
    return f"# Changelog\n\n## {manifest['info']['version']}\n\n- Packaged.\n"


def no_licence(manifest: Mapping[str, Any]) -> str:
    """What stands in LICENSE when the author gave none: nothing is granted by silence."""
    author = manifest["info"]["author"]["name"]
    return (
        f"{manifest['name']} ({manifest['id']}) comes without a licence: all rights are its "
        f"author's ({author}). Libraries inside have their own licences, in licenses/ and in py/.\n"
    )


def logo(manifest: Mapping[str, Any]) -> str:
    """A square with two letters of the name, in a colour that the id decides."""
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
