"""The source `recorded`: plays a file that `aiostream-ds record` wrote."""

from aiostream_ds.sources.recorded.recorded_source import Recorded

__all__ = ["Recorded"]
