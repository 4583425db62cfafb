"""The sections of the settings forms that several sources have."""

from aiostream_ds.settings import section

__all__ = ["ADVANCED", "MESSAGES"]

ADVANCED = section("Advanced")

MESSAGES = section("Messages")
"""How messages are decoded."""
