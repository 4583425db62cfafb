"""The source `file`: rows of growing NDJSON and CSV files."""

from aiostream_ds.sources.file.file_source import File

__all__ = ["File"]
