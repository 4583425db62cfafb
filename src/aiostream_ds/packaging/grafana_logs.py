"""Grafana's log, read for what it says of one plugin. The messages are those of go-plugin
(client.go), of Grafana (pkg/plugins), of loaders and of ourselves. Imports `words`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["Clue", "clues", "tail"]

NEWEST = 4 * 1024 * 1024
"""Bytes of a log's end that are read."""


class Clue(NamedTuple):
    """A line that says why a plugin does not work: the cause by its name, and what was said."""

    cause: str
    text: str


_SIGNS = (
    ("architecture", r"exec format error"),
    ("architecture", r"the package holds a Python for \S+, this machine is [^:\"]+"),
    ("missing file", r"fork/exec [^:\"]+: no such file or directory"),
    ("permissions", r"fork/exec [^:\"]+: permission denied"),
    ("permissions", r"No UNIX socket could be made: [^\"]+"),
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
"""In order of how much they explain: the last two are what is said when nothing is known."""

_COMPILED = tuple((cause, re.compile(text)) for cause, text in _SIGNS)
_MACHINES = re.compile(r"ELF architecture: EM_(\w+) \(current architecture: (\w+)\)")
_NAMES = {"X86_64": "amd64", "AARCH64": "arm64", "ARM": "arm", "386": "386"}
_BEGIN = re.compile(r"Starting Grafana")
_NEW_LINE = re.compile(r"^(?:logger=|t=|\{|\w+\[|\d{4}-\d\d)")


def tail(path: Path) -> str:
    """The end of a log, from Grafana's last start on if that is in it. Raises PackagingError when
    it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - NEWEST, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        raise PackagingError(f"{path}: {error.strerror}") from None
    starts = list(_BEGIN.finditer(text))
    return text[starts[-1].start() :] if starts else text


def clues(text: str, identifier: str) -> Iterator[Clue]:
    """What the log says of this plugin, each cause once, the most telling first. An entry of
    several lines counts as one."""
    entries = [entry for entry in _entries(text) if identifier in entry]
    joined = "\n".join(entries)
    seen = set()
    machines = _MACHINES.search(joined)
    if machines and _NAMES.get(machines[1], machines[1]) != machines[2]:
        seen.add("architecture")
        yield Clue("architecture", machines[0])
    for cause, sign in _COMPILED:
        found = sign.search(joined)
        if found is None or cause in seen:
            continue
        if cause in ("handshake", "ended", "timeout") and seen:
            continue  # what go-plugin says when it does not know; something better was found
        seen.add(cause)
        yield Clue(cause, found[0].strip())


def _entries(text: str) -> Iterator[str]:
    entry: list[str] = []
    for line in text.splitlines():
        if _NEW_LINE.match(line) and entry:
            yield "\n".join(entry)
            entry = []
        entry.append(line)
    if entry:
        yield "\n".join(entry)
