"""Free ports for servers that are stopped and started again on the same port.

A port that the kernel chooses is of its ephemeral range: while its server is down, the kernel may
give it to another socket, and the server could not start again.
"""

import random
import socket
from itertools import count
from pathlib import Path

_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT_RANGE = (32_768, 60_999)
_FIRST, _LAST = 10_000, 32_000

_offsets = count(random.SystemRandom().randrange(_LAST - _FIRST))


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens and which no connection is given by itself."""
    for _ in range(_LAST - _FIRST):
        port = _FIRST + next(_offsets) % (_LAST - _FIRST)
        if not _is_ephemeral(port) and _is_free(port):
            return port
    raise RuntimeError(f"expected a free port from {_FIRST} to {_LAST}, all are taken")


def _is_ephemeral(port: int) -> bool:
    first, last = _DEFAULT_RANGE
    if _RANGE_FILE.exists():
        first, last = map(int, _RANGE_FILE.read_text("ascii").split())
    return first <= port <= last


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
