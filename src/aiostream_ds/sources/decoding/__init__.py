"""Decodes messages and lines to rows, for all built-in sources.

class Settings(DecodingSettings): ...        the settings of decoding
decoder = MessageDecoder(settings, errors)   messages to rows; bad ones are counted
"""

from aiostream_ds.sources.decoding.decoding_settings import DecodingSettings, with_labels
from aiostream_ds.sources.decoding.message_decoder import MessageDecoder
from aiostream_ds.sources.decoding.message_errors import MessageErrors

__all__ = ["DecodingSettings", "MessageDecoder", "MessageErrors", "with_labels"]
