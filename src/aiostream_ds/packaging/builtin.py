"""The files of the built-in plugin that lie at the top of the repository; a wheel carries them in
`packaging/builtin`. Standard library only.
"""

from pathlib import Path

from aiostream_ds.packaging.words import PackagingError

__all__ = ["builtin_file"]

_INSTALLED = Path(__file__).parent / "builtin"
_CHECKOUT = Path(__file__).parents[3]


def builtin_file(name: str) -> Path:
    """`plugin.json`, `README.md`, `CHANGELOG.md`, `LICENSE` or `img/logo.svg` of the project.

    Raises PackagingError when this installation does not have it.
    """
    for folder in (_INSTALLED, _CHECKOUT):
        if (folder / name).is_file():
            return folder / name
    raise PackagingError(f"this installation of aiostream-ds lacks its {name}: install it again")
