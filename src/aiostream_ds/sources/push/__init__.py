"""The source `push`."""

from aiostream_ds.sources.push.push_source import Pushed

__all__ = ["Pushed"]
