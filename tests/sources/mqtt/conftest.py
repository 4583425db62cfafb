"""The Go host, for a run of the source under it."""

from tests.conformance.conftest import go_program, host_binary, pytest_collection_finish

__all__ = ["go_program", "host_binary", "pytest_collection_finish"]
