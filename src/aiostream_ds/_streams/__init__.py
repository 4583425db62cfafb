"""Runs an author's stream method: batches, retries, and isolation of its errors."""
