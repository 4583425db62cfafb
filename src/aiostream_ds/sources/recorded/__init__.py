"""The source `recorded`."""
