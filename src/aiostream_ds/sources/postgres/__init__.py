"""The source `postgres`: rows of tables by an increasing key, and notifications."""

from aiostream_ds.sources.postgres.postgres_source import Postgres

__all__ = ["Postgres"]
