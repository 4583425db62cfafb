"""`Upstream`: one connection to an upstream system, shared by all streams of a data source.

shared_connection   the class: connecting, reading and distributing messages
followed_key        one key: its followers, and its last messages for late followers
message_queue       the bounded queue of one follower
outages             failed connections: delays, the log line, and the error for followers
"""

from aiostream_ds.upstream.shared_connection import BATCH_MESSAGES, Upstream, UpstreamStatistics

__all__ = ["BATCH_MESSAGES", "Upstream", "UpstreamStatistics"]
