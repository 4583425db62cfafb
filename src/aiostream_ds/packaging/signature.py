"""Compares a package with its signature, MANIFEST.txt, by Grafana's rules
(pkg/plugins/manager/signature/manifest.go).
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.settings import convert

__all__ = ["MANIFEST", "changes", "matches_root", "read_signature"]

MANIFEST = "MANIFEST.txt"
"""The signed list of files; Grafana's signing service writes it."""

_BODY = re.compile(r"(?s)-----BEGIN PGP SIGNED MESSAGE-----.*?\n\n(.*?)\n-----BEGIN PGP SIGNATURE")


class _Signed(msgspec.Struct):
    files: dict[str, Any]
    rootUrls: list[str] | None = None


def read_signature(folder: Path) -> dict[str, Any] | None:
    """The signed content; None for an unsigned package.

    The signature is not verified: only Grafana has its trusted keys.

    Raises:
        PackagingError: The file cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        match = _BODY.search(path.read_text("utf-8", "replace").replace("\r\n", "\n"))
        found: dict[str, Any] = msgspec.json.decode(match[1] if match else "")
        convert(found, _Signed)
    except OSError as error:
        raise PackagingError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PackagingError(
            f"{path}: expected a signed manifest with a list of files: {error}"
        ) from None
    return found


def changes(folder: Path, signed: dict[str, Any]) -> Iterator[str]:
    """The differences from the signed package, one sentence each; Grafana accepts none."""
    listed = {str(name).replace("\\", "/"): str(hash) for name, hash in signed["files"].items()}
    existing = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    for name in sorted(listed.keys() - existing.keys()):
        yield f"{name} is signed but missing"
    for name in sorted(existing.keys() - listed.keys()):
        yield f"{name} is not signed"
    for name in sorted(listed.keys() & existing.keys()):
        try:
            content = existing[name].read_bytes()
        except OSError as error:
            yield f"{name} cannot be compared with what was signed: {error.strerror}"
        else:
            if hashlib.sha256(content).hexdigest() != listed[name]:
                yield f"{name} was changed after signing"


def matches_root(signed: dict[str, Any], root_url: str) -> bool:
    """Whether a private signature is for the Grafana at this root_url: scheme, host, port and path
    must be equal."""
    return any(_parts(str(url)) == _parts(root_url) for url in signed.get("rootUrls") or ())


def _parts(url: str) -> tuple[str, str, str]:
    try:
        found = urlsplit(url)
    except ValueError:  # what is in square brackets is not an address
        return "", "", url
    return found.scheme, found.netloc, found.path.rstrip("/")
