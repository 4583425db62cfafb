"""Frames as Arrow IPC files, the format of query answers.

pyarrow is imported inside functions only: its import blocks the event loop for a long time, so the
first frame is encoded in a thread. The files are those of Grafana's Go SDK: one file with a footer,
without compression and dictionaries.
"""

from aiostream_ds._frames.arrow.decoder import decode
from aiostream_ds._frames.arrow.encoder import encode, encode_chunks, load

__all__ = ["decode", "encode", "encode_chunks", "load"]
