"""The versions of the packages whose private parts are used, and a check of them."""

import re
from importlib import import_module

from aiostream_ds.errors import ConfigError

__all__ = ["SUPPORTED", "check_dependencies"]

SUPPORTED = {
    "betterproto2": ("0.10", "0.11"),
    "grpclib": ("0.4.9", "0.5"),
    "h2": ("4.4.1", "4.5"),
    "hpack": ("4.2", "4.3"),
}
"""The tested versions: from the first to below the second, as in pyproject.toml."""


def check_dependencies() -> None:
    """Raises ConfigError for a package whose version is not a tested one."""
    for package, (lowest, limit) in SUPPORTED.items():
        found = getattr(import_module(package), "__version__", "unknown")
        if not _parse(lowest) <= _parse(found) < _parse(limit):
            raise ConfigError(
                f"the version of {package} must be at least {lowest} and below {limit}, got "
                f"{found}; run: pip install '{package}>={lowest},<{limit}'"
            )


def _parse(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
