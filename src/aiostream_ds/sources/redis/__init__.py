"""The source `redis`: streams, channels and keyspace events of Redis or Valkey.

redis_source     the class: query types, histories, suggestions, Save & test
redis_settings   its settings
live_entries     new entries of streams; entry_reader reads them, entry_rows decodes them
history          old entries
positions        ids, and the entries that were removed before they were read
redis_names      names of streams and channels, for suggestions
stream_set       the streams of a panel with several
pubsub           channels, patterns, keyspace events

Connections and servers are in `_redis`.
"""

from aiostream_ds.sources.redis.redis_source import Redis

__all__ = ["Redis"]
