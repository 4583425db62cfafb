"""Diagnoses why a plugin does not start, from the machine, the package and Grafana's log: named
causes, each with a cure.
"""

import configparser
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from aiostream_ds.packaging import grafana_logs, host_checks
from aiostream_ds.packaging.findings import Finding, Level, PackagingError
from aiostream_ds.packaging.grafana_logs import Clue
from aiostream_ds.packaging.manifest import read_manifest
from aiostream_ds.packaging.signature import MANIFEST, changes, matches_root, read_signature

__all__ = ["CURES", "Installation", "diagnose", "explain"]

CURES = {
    "address file": "remove standalone.txt and pid.txt from the plugin's folder, restart Grafana",
    "architecture": "install the package for this machine",
    "cookie": "let Grafana start it, without a wrapper that clears the environment; to start it "
    "without Grafana use aiostream-ds doctor --start, or aiostream-ds dev",
    "ended": "run aiostream-ds doctor --start to see its output",
    "handshake": "something printed before the handshake; aiostream-ds doctor --start shows it",
    "libc": "use the executable of `aiostream-ds package`, which is static and has its own libc",
    "missing file": "unpack the zip again; if the file exists, its loader does not: see libc",
    "modified": "unpack the signed zip again, and let nothing write into the folder",
    "incomplete": "unpack the zip again, with a tool that keeps every file",
    "permissions": "chmod 755 the executable and rt/lib/ld-*, chown the folder to Grafana's user, "
    "and mount it without noexec",
    "port": "start the plugin there (aiostream-ds run FILE --listen HOST:PORT), or correct the "
    "address",
    "python": "install the package or program in the message, or set python = PATH under "
    "[plugin.<id>], or package the plugin with --runtime bundled",
    "root url": "sign with --rootUrls of exactly Grafana's root_url, with its path",
    "timeout": "the imports or the lifespan take over a minute; aiostream-ds doctor --start shows "
    "the log",
    "unsigned": "sign it, or set allow_loading_unsigned_plugins = <id> under [plugins] in "
    "grafana.ini and restart Grafana",
}
"""The cure for each cause."""


class Installation:
    """An installed plugin: its folder, the user that runs it, Grafana's settings and log."""

    def __init__(
        self,
        folder: Path,
        *,
        user: host_checks.ProcessUser,
        config: Path | None = None,
        log: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        manifest = read_manifest(folder / "plugin.json")
        self.folder = folder
        self.identifier: str = manifest["id"]
        self.executable = str(manifest.get("executable") or "gpx")
        self.user = user
        self.environ = environ
        self.log = log
        self._ini = _read_ini(config)

    def plugin_environ(self) -> dict[str, str]:
        """The variables that Grafana makes of the section [plugin.<id>] of grafana.ini."""
        section = f"plugin.{self.identifier}"
        if self._ini is None or not self._ini.has_section(section):
            return {}
        defaults = self._ini.defaults()
        pairs = ((k, v or "") for k, v in self._ini.items(section) if k not in defaults)
        return {f"GF_PLUGIN_{key.upper()}": value for key, value in pairs}

    def grafana_setting(self, section: str, key: str) -> str | None:
        """A setting of Grafana from its environment or grafana.ini; None if both are unknown."""
        value = self.environ.get(f"GF_{section.upper()}_{key.upper()}")
        if value is not None:
            return value
        return None if self._ini is None else self._ini.get(section, key, fallback="", raw=True)


def diagnose(installation: Installation) -> Iterator[Finding]:
    """Every cause that can be found without a start; one OK finding if there are none."""
    found = False
    for clue in _find_clues(installation):
        found = True
        yield explain(clue, installation.identifier)
    if not found:
        text = f"nothing prevents {installation.identifier} from starting on this machine"
        yield Finding(Level.OK, "machine", text)


def explain(clue: Clue, identifier: str) -> Finding:
    """The finding for a cause, with its cure."""
    cure = CURES[clue.cause].replace("<id>", identifier)
    return Finding(Level.ERROR, clue.cause, clue.text, cure)


def _find_clues(installation: Installation) -> Iterator[Clue]:
    folder, identifier = installation.folder, installation.identifier
    yield from host_checks.check_executable(folder, installation.executable, installation.user)
    yield from host_checks.check_address_file(folder)
    environ = {**installation.plugin_environ(), **installation.environ}
    yield from host_checks.check_port(folder, identifier, environ)
    yield from _check_signature(installation)
    if installation.log is not None:
        for clue in grafana_logs.find_clues(grafana_logs.tail(installation.log), identifier):
            yield Clue(clue.cause, f"Grafana's log has: {clue.text}")


def _check_signature(installation: Installation) -> Iterator[Clue]:
    try:
        signed = read_signature(installation.folder)
    except PackagingError as error:
        yield Clue("modified", str(error))
        return
    if signed is None:
        permitted = installation.grafana_setting("plugins", "allow_loading_unsigned_plugins")
        names = {name.strip() for name in (permitted or "").split(",")}
        if permitted is None:
            return  # Grafana's settings are unknown; its log would show it
        if installation.identifier not in names:
            yield Clue("unsigned", f"there is no {MANIFEST}, and Grafana allows only {permitted!r}")
        return
    differences = list(changes(installation.folder, signed))
    if differences:
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        yield Clue("modified", differences[0] + more)
    root = installation.grafana_setting("server", "root_url")
    private = signed.get("signatureType") == "private"
    if private and root and "%(" not in root and not matches_root(signed, root):
        yield Clue("root url", f"it is signed for {signed.get('rootUrls')}, Grafana is {root}")


def _read_ini(path: Path | None) -> configparser.RawConfigParser | None:
    if path is None:
        return None
    found = configparser.RawConfigParser(strict=False, allow_no_value=True)
    try:
        # keys before the first section belong to Grafana's section DEFAULT
        found.read_string("[DEFAULT]\n" + path.read_text("utf-8-sig", "replace"))
    except OSError as error:
        raise PackagingError(f"{path}: {error.strerror}") from None
    except configparser.Error as error:
        raise PackagingError(f"{path}: expected a grafana.ini: {error.message}") from None
    return found
