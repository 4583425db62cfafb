"""The source `file`."""
