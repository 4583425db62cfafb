"""The gRPC server: calls, message codec, method tables."""

from aiostream_ds._dependencies import check_dependencies

check_dependencies()  # before a module is imported that depends on their versions
