"""A zip unpacked as Grafana does: modes kept, nothing outside, one folder. Imports `words`."""

import zipfile
from pathlib import Path

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["unpack"]


def unpack(path: Path, into: Path) -> Path:
    """The folder that was in the zip. Raises PackagingError for a zip that Grafana would refuse."""
    with zipfile.ZipFile(path) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
        if len(roots) != 1:
            raise PackagingError(f"{path} holds {sorted(roots)[:5]}; allowed is one folder, the id")
        for entry in archive.infolist():
            target = (into / entry.filename).resolve()
            if not target.is_relative_to(into.resolve()):
                raise PackagingError(f"{path}: {entry.filename!r} leads outside")
            archive.extract(entry, into)
            mode = (entry.external_attr >> 16) & 0o777
            if mode and not entry.is_dir():
                target.chmod(mode)
    return into / roots.pop()
