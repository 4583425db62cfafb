"""Drives an author's generator: batches, retries, isolation of its errors."""
