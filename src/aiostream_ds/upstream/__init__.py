"""`Upstream`: one connection to an upstream system, shared by all streams of a data source.

shared_connection   the class: connecting, reading and distributing messages
followed_key        one key: its subscribers, and its last messages for later ones
message_queue       the bounded queue of one subscriber
outages             failed connections: delays, the log line, and the error for subscribers
"""

from aiostream_ds.upstream.shared_connection import BATCH_MESSAGES, Upstream, UpstreamStatistics

__all__ = ["BATCH_MESSAGES", "Upstream", "UpstreamStatistics"]
