"""Finds messages about one plugin in Grafana's log: of go-plugin (client.go), Grafana
(pkg/plugins), dynamic loaders and the launcher.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["Clue", "find_clues", "tail"]

TAIL_BYTES = 4 * 1024 * 1024
"""Bytes at the end of a log that are read."""


class Clue(NamedTuple):
    """Evidence for a cause: the name of the cause, and the message or observation."""

    cause: str
    text: str


_MESSAGES = (
    ("architecture", r"exec format error"),
    ("architecture", r"the package has a Python for \S+, this machine is [^:\"]+"),
    ("missing file", r"fork/exec [^:\"]+: no such file or directory"),
    ("permissions", r"fork/exec [^:\"]+: permission denied"),
    ("permissions", r"cannot bind a UNIX socket: [^\"]+"),
    ("libc", r"error while loading shared libraries: [^\"]+"),
    ("libc", r"version `GLIBC_[\d.]+' not found[^\"]*"),
    ("libc", r"Error (?:loading shared library|relocating) [^\"]+"),
    ("cookie", r"This program is a Grafana data source plugin"),
    ("cookie", r"This binary is a plugin"),
    ("modified", r"status=modified"),
    ("modified", r"has an? modified signature"),
    ("modified", r"checksum does not match signature checksum[^\n]*"),
    ("modified", r"Plugin file listed in the manifest was not found[^\n]*"),
    ("root url", r"Could not find root URL that matches[^\n]*"),
    ("root url", r"status=invalid"),
    ("unsigned", r"status=unsigned"),
    ("unsigned", r"has no signature|is unsigned"),
    ("port", r"connection refused"),
    ("port", r"address already in use"),
    ("port", r"the plugin at \S+ cannot be reached: [^\"]+"),
    ("python", r"this machine has no Python in[^\"]+"),
    ("python", r"the Python \S+ \([^)]+\) (?:lacks|is older)[^\"]+"),
    ("timeout", r"timeout while waiting for plugin to start"),
    ("handshake", r"Unrecognized remote plugin message: ?[^\n]*"),
    ("ended", r"plugin exited before we could connect"),
)
"""The most specific first; go-plugin logs the last two if it does not know the cause."""

_COMPILED = tuple((cause, re.compile(text)) for cause, text in _MESSAGES)
_ARCHITECTURES = re.compile(r"ELF architecture: EM_(\w+) \(current architecture: (\w+)\)")
_NAMES = {"X86_64": "amd64", "AARCH64": "arm64", "ARM": "arm", "386": "386"}
_GRAFANA_START = re.compile(r"Starting Grafana")
_PERMITTED = re.compile(r"Permitting (?:an )?unsigned plugin")
"""The beginning of what Grafana logs about an unsigned plugin that it loads."""
_REGISTERED = re.compile(r"Plugin registered")
_SIGNATURE_CAUSES = frozenset({"modified", "root url", "unsigned"})
_ENTRY_START = re.compile(r"^(?:logger=|t=|\{|\w+\[|\d{4}-\d\d)")


def tail(path: Path) -> str:
    """The end of a log, from Grafana's last start if it contains one.

    Raises:
        PackagingError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - TAIL_BYTES, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        raise PackagingError(f"{path}: {error.strerror}") from None
    starts = list(_GRAFANA_START.finditer(text))
    return text[starts[-1].start() :] if starts else text


def find_clues(text: str, identifier: str) -> Iterator[Clue]:
    """The causes in the log for this plugin, each once, the most specific first.

    An entry may have several lines. A plugin that Grafana has registered has a signature that it
    accepts: some versions log its status, too.
    """
    entries = [entry for entry in _entries(text) if identifier in entry]
    accepted = any(map(_REGISTERED.search, entries))
    joined = "\n".join(entry for entry in entries if not _PERMITTED.search(entry))
    ignored = _SIGNATURE_CAUSES if accepted else frozenset()
    seen: set[str] = set()
    architectures = _ARCHITECTURES.search(joined)
    if architectures and _NAMES.get(architectures[1], architectures[1]) != architectures[2]:
        seen.add("architecture")
        yield Clue("architecture", architectures[0])
    for cause, pattern in _COMPILED:
        found = pattern.search(joined)
        if found is None or cause in seen or cause in ignored:
            continue
        if cause in ("handshake", "ended", "timeout") and seen:
            continue  # a more specific cause was found
        seen.add(cause)
        yield Clue(cause, found[0].strip())


def _entries(text: str) -> Iterator[str]:
    entry: list[str] = []
    for line in text.splitlines():
        if _ENTRY_START.match(line) and entry:
            yield "\n".join(entry)
            entry = []
        entry.append(line)
    if entry:
        yield "\n".join(entry)
