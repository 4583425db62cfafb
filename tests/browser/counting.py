"""The plugin of `counting_plugin.py` for the browser tests."""

import sys
from pathlib import Path

from tests.exact.upstream import Plugin

_PLUGIN = Path(__file__).with_name("counting_plugin.py")


def counting(stream: str) -> Plugin:
    """The plugin with a query of one of its streams, `declared` or `inferred`."""
    return Plugin([sys.executable, _PLUGIN], [], {"queryType": stream}, "nonce")
