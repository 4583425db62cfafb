"""MANIFEST.txt, the signature of a package: what it lists, against what is there. The rules are
those of Grafana (pkg/plugins/manager/signature/manifest.go). Imports `words`.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["MANIFEST", "changes", "matches_root", "read_signature"]

MANIFEST = "MANIFEST.txt"
"""A signed package has it; its signing is a service of Grafana's, over the network."""

_BODY = re.compile(r"(?s)-----BEGIN PGP SIGNED MESSAGE-----.*?\n\n(.*?)\n-----BEGIN PGP SIGNATURE")


def read_signature(folder: Path) -> dict[str, Any] | None:
    """What is signed; None when the package is unsigned. The signature itself is not verified:
    only Grafana has the keys it trusts. Raises PackagingError when the file cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    match = _BODY.search(path.read_text("utf-8", "replace").replace("\r\n", "\n"))
    try:
        found = msgspec.json.decode(match[1] if match else b"")
        files = found["files"]
    except (ValueError, KeyError, TypeError):
        raise PackagingError(f"{path} is no signed manifest with a list of files") from None
    if not isinstance(files, dict):
        raise PackagingError(f"{path}: 'files' is no table of files and hashes")
    return dict(found)


def changes(folder: Path, signed: dict[str, Any]) -> Iterator[str]:
    """What differs from the signed package, one sentence each; any makes Grafana refuse it."""
    listed = {str(name).replace("\\", "/"): str(hash) for name, hash in signed["files"].items()}
    there = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    for name in sorted(listed.keys() - there.keys()):
        yield f"{name} is signed and not there"
    for name in sorted(there.keys() - listed.keys()):
        yield f"{name} is there and not signed"
    for name in sorted(listed.keys() & there.keys()):
        if hashlib.sha256(there[name].read_bytes()).hexdigest() != listed[name]:
            yield f"{name} is not as it was signed"


def matches_root(signed: dict[str, Any], root_url: str) -> bool:
    """Whether a private signature is for the Grafana at this root_url: scheme, host with its port,
    and path have to be the same."""
    return any(_parts(str(url)) == _parts(root_url) for url in signed.get("rootUrls", ()))


def _parts(url: str) -> tuple[str, str, str]:
    found = urlsplit(url)
    return found.scheme, found.netloc, found.path.rstrip("/")
