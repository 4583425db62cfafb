"""The files of the built-in plugin that lie at the top of the repository; a wheel carries them in
`packaging/builtin`. Standard library only.
"""

from collections.abc import Callable
from pathlib import Path

from aiostream_ds.packaging.findings import PackagingError

__all__ = ["FOLDERS", "builtin_file", "builtin_folder"]

_INSTALLED = Path(__file__).parent / "builtin"
_CHECKOUT = Path(__file__).parents[3]


FOLDERS = ("dashboards", "provisioning")
"""What an admin imports, and what an admin copies into Grafana's provisioning folder."""


def builtin_folder(name: str) -> Path:
    """One of FOLDERS. Raises PackagingError when this installation does not have it."""
    return _found(name, Path.is_dir)


def builtin_file(name: str) -> Path:
    """`plugin.json`, `README.md`, `CHANGELOG.md`, `LICENSE` or `img/logo.svg` of the project.

    Raises PackagingError when this installation does not have it.
    """
    return _found(name, Path.is_file)


def _found(name: str, is_there: Callable[[Path], bool]) -> Path:
    for folder in (_INSTALLED, _CHECKOUT):
        if is_there(folder / name):
            return folder / name
    raise PackagingError(f"this installation of aiostream-ds lacks its {name}: install it again")
