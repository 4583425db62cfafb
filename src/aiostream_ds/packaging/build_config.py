"""What is to be packed, and how: the one value that every step reads. Imports `words`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from aiostream_ds._grafana.catalog import Target
from aiostream_ds.packaging.findings import PackagingError

__all__ = ["RUNTIMES", "Recipe"]

RUNTIMES = ("bundled", "host", "address")
"""Which Python serves the plugin: the one inside, the machine's, or one elsewhere."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """`target` and `by` are what is served; `file` is the author's file, None for the built-in
    plugin. `given` are the command line's id, name, version and author. `include` are files and
    folders that go with the author's, `requires` more requirements, `whole_arrow` leaves pyarrow
    as it is. `frontend` is a folder with a module.js of the author's. `address` and `tls`, `ca` (a
    PEM file) are for the runtime `address`.
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

    def checked(self) -> "Recipe":
        """Itself. Raises PackagingError for what does not go together."""
        if self.runtime not in RUNTIMES:
            raise PackagingError(f"the runtime {self.runtime!r} is none of: {', '.join(RUNTIMES)}")
        if (self.tls or self.ca) and self.runtime != "address":
            raise PackagingError("TLS is for a plugin elsewhere: give --address HOST:PORT too")
        if self.runtime == "address":
            host, _, port = self.address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
                raise PackagingError(f"the address {self.address!r} is not HOST:PORT")
        for path in (*self.include, *([self.ca] if self.ca else [])):
            if not path.exists():
                raise PackagingError(f"there is no file or folder {str(path)!r}")
        if self.frontend is not None:
            module = self.frontend / "module.js"
            if not module.is_file():
                raise PackagingError(f"there is no file {str(module)!r}")
            if b"define(" not in module.read_bytes():
                raise PackagingError(f"{str(module)!r} is no AMD module: Grafana loads no other")
        return self
