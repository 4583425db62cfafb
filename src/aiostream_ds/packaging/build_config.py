"""The configuration of one build."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._grafana.catalog import Target
from aiostream_ds.packaging.findings import PackagingError
from aiostream_ds.packaging.launchers import PLATFORMS

__all__ = ["RUNTIMES", "BuildConfig"]

RUNTIMES = ("bundled", "host", "address")
"""Which Python serves the plugin: the one in the package, the machine's, or another process."""


class BuildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to package and how.

    Attributes:
        target, by: What is served, as for `Catalog`.
        file: The author's file; None for the built-in plugin.
        out: The folder that the package is written to.
        runtime: One of RUNTIMES.
        given: id, name, version and author from the command line.
        include: Files and folders that the author's code reads.
        requires: Additional requirements.
        whole_arrow: Keep all of pyarrow.
        frontend: A folder with the author's own module.js.
        address, tls, ca: For the runtime `address`; `ca` is a PEM file.
        zip: Also write a zip.
        platforms: For the runtime `bundled`, and for images; empty: this machine's.
        small: Leave out what is probably not used.
        image: The archive to write with a container image.
    """

    target: Target
    by: str | None = None
    file: Path | None = None
    out: Path = Path("dist")
    runtime: str = "bundled"
    given: Mapping[str, Any] = {}
    include: tuple[Path, ...] = ()
    requires: tuple[str, ...] = ()
    whole_arrow: bool = False
    frontend: Path | None = None
    address: str = ""
    tls: bool = False
    ca: Path | None = None
    zip: bool = True
    platforms: tuple[str, ...] = ()
    small: bool = False
    image: Path | None = None

    def validated(self) -> "BuildConfig":
        """Return the configuration itself.

        Raises:
            PackagingError: A value is wrong, or two values exclude each other.
        """
        if self.runtime not in RUNTIMES:
            raise PackagingError(f"runtime must be {', '.join(RUNTIMES)}, got {self.runtime!r}")
        if (self.tls or self.ca) and self.runtime != "address":
            raise PackagingError(
                f"TLS needs the runtime 'address', got {self.runtime!r}; use --address HOST:PORT"
            )
        if self.runtime == "address":
            host, _, port = self.address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
                raise PackagingError(f"address must be HOST:PORT, got {self.address!r}")
        self._check_platforms()
        for path in self.include:
            if not path.exists():
                raise PackagingError(f"expected an existing file or folder, got {str(path)!r}")
        if self.ca is not None and not self.ca.is_file():
            raise PackagingError(f"expected an existing file, got {str(self.ca)!r}")
        if self.frontend is not None:
            module = self.frontend / "module.js"
            if not module.is_file():
                raise PackagingError(f"expected an existing file, got {str(module)!r}")
            if b"define(" not in module.read_bytes():
                raise PackagingError(
                    f"{str(module)!r} must be an AMD module, got a file without define(...); "
                    "Grafana loads no other format"
                )
        return self

    def _check_platforms(self) -> None:
        wrong = [one for one in self.platforms if one not in PLATFORMS]
        if wrong:
            raise PackagingError(f"platform must be {', '.join(PLATFORMS)}, got {wrong[0]!r}")
        if self.platforms and self.runtime != "bundled" and self.image is None:
            raise PackagingError(
                f"--platform needs --runtime bundled or --oci, got {self.runtime!r}, whose "
                "packages are for all platforms"
            )
        if len(set(self.platforms)) != len(self.platforms):
            raise PackagingError(f"platforms must differ, got {', '.join(self.platforms)}")
