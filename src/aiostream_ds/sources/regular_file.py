"""Opens regular files only: no pipe, which may never answer, and no device, which may never end."""

import os
import stat
from pathlib import PurePath

from aiostream_ds.errors import UpstreamError

__all__ = ["open_beneath", "open_regular"]

# without O_NONBLOCK, opening a named pipe would wait for its writer
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_regular(path: str, *, folder: int | None = None, links: bool = True) -> int:
    """A descriptor of a regular file, relative to the descriptor `folder` if there is one.

    `links`: whether the last part of the path may be a symbolic link.

    Raises:
        OSError: it cannot be opened.
        UpstreamError: it is not a regular file.
    """
    descriptor = os.open(path, _FLAGS | (0 if links else os.O_NOFOLLOW), dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise UpstreamError("expected a regular file")


def open_beneath(directory: str, path: str) -> int:
    """A descriptor of a regular file in the directory, opened folder by folder without links.

    A folder that is replaced by a link during the call is refused, so that no other file is opened.

    Raises: see `open_regular`.
    """
    *folders, name = PurePath(path).parts
    if PurePath(path).is_absolute() or ".." in (*folders, name):
        raise ValueError(f"path must be relative and without '..', got {path!r}")
    current = os.open(directory, _FOLDER)
    try:
        for folder in folders:
            inner = os.open(folder, _FOLDER, dir_fd=current)
            os.close(current)
            current = inner
        return open_regular(name, folder=current, links=False)
    finally:
        os.close(current)
