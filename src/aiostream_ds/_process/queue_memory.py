"""The memory for the queues of slow subscribers, as grafana.ini sets it in [plugin.<id>]."""

from collections.abc import Mapping

from aiostream_ds._channels.memory_pool import MemoryPool
from aiostream_ds._channels.policy import INSTANCE_QUEUE_BYTES, QUEUE_BYTES
from aiostream_ds._loggers import get_logger

__all__ = ["queue_memory"]

log = get_logger(__name__)


def queue_memory(environ: Mapping[str, str]) -> MemoryPool:
    """The memory of the process, by `queue_mib` and `datasource_queue_mib`. An invalid value is
    logged, and the default used."""
    return MemoryPool(
        _read_mib(environ, "GF_PLUGIN_QUEUE_MIB", QUEUE_BYTES),
        _read_mib(environ, "GF_PLUGIN_DATASOURCE_QUEUE_MIB", INSTANCE_QUEUE_BYTES),
    )


def _read_mib(environ: Mapping[str, str], key: str, default: int) -> int:
    text = environ.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and int(text)):
        mib = default >> 20
        log.warning(
            "%s must be a whole number from 1 to 9999999, got %.80r; using %d", key, text, mib
        )
        return default
    return int(text) << 20
