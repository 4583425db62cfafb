"""The versions of the packages that the runtime is bound to, and a check of them."""

import re
from importlib import import_module

from aiostream_ds.errors import ConfigError

__all__ = ["SUPPORTED", "check_dependencies"]

SUPPORTED = {
    "betterproto2": ("0.10", "0.11"),
    "grpclib": ("0.4.9", "0.5"),
}
"""The tested versions: from the first to below the second, as in pyproject.toml. Generated messages
belong to a minor of betterproto2; grpclib's status texts and timeouts are read by functions that it
does not document, and `testing` connects its client in memory."""


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
