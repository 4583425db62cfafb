"""Why a plugin does not start: causes by name, from the machine, the package, Grafana's log and a
start of our own; for each what to do. Imports the rest of the room.
"""

import configparser
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from aiostream_ds.packaging import grafana_logs as logs
from aiostream_ds.packaging import host_checks as machine
from aiostream_ds.packaging.findings import Finding, Level, PackagingError
from aiostream_ds.packaging.grafana_logs import Clue
from aiostream_ds.packaging.manifest import read_manifest
from aiostream_ds.packaging.signature import MANIFEST, changes, matches_root, read_signature

__all__ = ["CURES", "Patient", "diagnose", "explain"]

CURES = {
    "address file": "remove standalone.txt and pid.txt from the plugin's folder, restart Grafana",
    "architecture": "install the package that was made for this machine",
    "cookie": "let Grafana start it, and nothing between that clears the environment; by hand: "
    "aiostream-ds doctor --start, or aiostream-ds dev",
    "ended": "aiostream-ds doctor --start shows what it says before it ends",
    "handshake": "something printed before the handshake: aiostream-ds doctor --start shows it",
    "libc": "use the executable of `aiostream-ds package`, which is static and brings its own libc",
    "missing file": "unpack the zip again; if the file is there, its loader is not: see libc",
    "modified": "unpack the signed zip again, and let nothing write into the folder",
    "not whole": "unpack the zip again, with a tool that keeps every file",
    "permissions": "chmod 755 the executable and rt/lib/ld-*, chown the folder to Grafana's user, "
    "and mount it without noexec",
    "port": "start the plugin there (aiostream-ds run FILE --listen HOST:PORT), or mend the "
    "address",
    "python": "install what it names, or set python = PATH under [plugin.<id>], or package with "
    "the runtime inside",
    "root url": "sign with --rootUrls of exactly Grafana's root_url, its path included",
    "timeout": "what is imported or opened at the start takes over a minute: aiostream-ds doctor "
    "--start shows the log",
    "unsigned": "sign it, or set allow_loading_unsigned_plugins = <id> under [plugins] in "
    "grafana.ini and restart Grafana",
}
"""What to do about each cause."""


class Patient:
    """A package in its place: its folder, who is to start it, Grafana's settings and log."""

    def __init__(
        self,
        folder: Path,
        *,
        reader: machine.Reader,
        config: Path | None = None,
        log: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        manifest = read_manifest(folder / "plugin.json")
        self.folder = folder
        self.identifier: str = manifest["id"]
        self.executable = str(manifest.get("executable") or "gpx")
        self.reader = reader
        self.environ = environ
        self.log = log
        self.ini = _read_ini(config)

    def settings(self) -> dict[str, str]:
        """The variables that Grafana makes of the section [plugin.<id>] of grafana.ini."""
        section = f"plugin.{self.identifier}"
        if self.ini is None or not self.ini.has_section(section):
            return {}
        defaults = self.ini.defaults()
        pairs = ((k, v or "") for k, v in self.ini.items(section) if k not in defaults)
        return {f"GF_PLUGIN_{key.upper()}": value for key, value in pairs}


def diagnose(patient: Patient) -> Iterator[Finding]:
    """Every cause that can be seen without starting anything; one finding that all is well else."""
    found = False
    for clue in _clues(patient):
        found = True
        yield explain(clue, patient.identifier)
    if not found:
        yield Finding(Level.OK, "machine", f"nothing keeps {patient.identifier} from starting here")


def explain(clue: Clue, identifier: str) -> Finding:
    """A cause with its cure."""
    cure = CURES[clue.cause].replace("<id>", identifier)
    return Finding(Level.ERROR, clue.cause, clue.text, cure)


def _clues(patient: Patient) -> Iterator[Clue]:
    folder = patient.folder
    yield from machine.look_at_executable(folder, patient.executable, patient.reader)
    yield from machine.look_at_address_file(folder)
    environ = {**patient.settings(), **patient.environ}
    yield from machine.look_at_port(folder, patient.identifier, environ)
    yield from _look_at_signature(patient)
    if patient.log is not None:
        for clue in logs.clues(logs.tail(patient.log), patient.identifier):
            yield Clue(clue.cause, f"Grafana's log has: {clue.text}")


def _look_at_signature(patient: Patient) -> Iterator[Clue]:
    try:
        signed = read_signature(patient.folder)
    except PackagingError as error:
        yield Clue("modified", str(error))
        return
    if signed is None:
        allowed = _setting(patient, "plugins", "allow_loading_unsigned_plugins")
        names = {name.strip() for name in (allowed or "").split(",")}
        if allowed is None:
            return  # nobody said where Grafana's settings are; its log would tell
        if patient.identifier not in names:
            yield Clue("unsigned", f"there is no {MANIFEST}, and Grafana allows only {allowed!r}")
        return
    differences = list(changes(patient.folder, signed))
    if differences:
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        yield Clue("modified", differences[0] + more)
    root = _setting(patient, "server", "root_url")
    private = signed.get("signatureType") == "private"
    if private and root and "%(" not in root and not matches_root(signed, root):
        yield Clue("root url", f"it is signed for {signed.get('rootUrls')}, Grafana is {root}")


def _setting(patient: Patient, section: str, key: str) -> str | None:
    """A setting of Grafana's: by variable, by grafana.ini; None when neither is known."""
    named = patient.environ.get(f"GF_{section.upper()}_{key.upper()}")
    if named is not None:
        return named
    return None if patient.ini is None else patient.ini.get(section, key, fallback="", raw=True)


def _read_ini(path: Path | None) -> configparser.RawConfigParser | None:
    if path is None:
        return None
    found = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        # what stands before the first section belongs to one that Grafana calls DEFAULT
        found.read_string("[DEFAULT]\n" + path.read_text("utf-8"))
    except OSError as error:
        raise PackagingError(f"{path}: {error.strerror}") from None
    except configparser.Error as error:
        raise PackagingError(f"{path} is no grafana.ini: {error.message}") from None
    return found
