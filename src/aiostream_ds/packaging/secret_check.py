"""Finds files in a package that look like secrets, for a warning: everybody who gets the package
can read them.
"""

import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path

__all__ = ["find_secrets"]

_NAMES = (
    ".env",
    ".env.*",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    "*.jks",
    "*.kdbx",
    "*.key",
    "*.p12",
    "*.pfx",
    "credentials",
    "credentials.*",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_rsa",
    "secrets.*",
)
"""Names of files that have secrets, with wildcards."""

_HARMLESS = ("*.example", "*.sample", "*.template", "*.dist", "*.py")

_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")

_SECRET_NAME = re.compile(r"(?i)passw|secret|token|api_?key|private_?key|credential|passphrase")

_SHORTEST = 8
"""Characters below which a value is not looked for: too much other text would match."""

_ASSIGNMENT = re.compile(r"""(?m)^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*["']?(.*?)["']?\s*$""")

_NOT_READ = ("py/", "rt/", "gpx_")
"""Starts of paths of files that are not the author's."""


def find_secrets(root: Path, project: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each file in the package `root` that looks like a secret, or contains one:
    a private key, or the value of a variable for secrets in `environ` or in the files `.env` of the
    folder `project`."""
    values = dict(_secret_values(project, environ))
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.startswith(_NOT_READ) or not path.is_file():
            continue
        reason = _reason(path, values)
        if reason:
            yield (
                f"the package contains {name}, which {reason}; everybody who gets the package can "
                "read it: leave it out, and use a Secret in the settings"
            )


def _reason(path: Path, values: Mapping[str, bytes]) -> str:
    """Why a file is one for secrets; "" if it is not."""
    name = path.name.lower()
    if any(fnmatch(name, one) for one in _NAMES) and not any(fnmatch(name, o) for o in _HARMLESS):
        return "has the name of a file for secrets"
    data = path.read_bytes()
    if _PRIVATE_KEY.search(data):
        return "has a private key"
    found = next((variable for variable, value in values.items() if value in data), "")
    return f"has the value of {found}" if found else ""


def _secret_values(project: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """The variables for secrets, with their values."""
    for name, value in environ.items():
        if _is_secret(name, value):
            yield f"the environment variable {name}", value.encode("utf-8", "surrogateescape")
    for path in sorted(project.glob(".env*")):
        if not path.is_file() or any(fnmatch(path.name, one) for one in _HARMLESS):
            continue
        for name, value in _ASSIGNMENT.findall(path.read_text("utf-8", "replace")):
            if _is_secret(name, value):
                yield f"{name} in {path.name}", value.encode()


def _is_secret(name: str, value: str) -> bool:
    # a path, as in SSH_KEY_FILE or GIT_ASKPASS, is not the secret itself
    return bool(_SECRET_NAME.search(name)) and len(value) >= _SHORTEST and os.sep not in value[:1]
