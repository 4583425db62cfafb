"""The user's cache folder: what packaging fetches or builds once."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """The folder for one kind of files, which may not exist (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "aiostream-ds", name)
