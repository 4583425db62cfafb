"""Frames as Arrow IPC files: what queries answer."""

from aiostream_ds._frames.arrow.encoder import decode, encode, pieces

__all__ = ["decode", "encode", "pieces"]
