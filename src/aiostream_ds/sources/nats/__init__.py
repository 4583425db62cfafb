"""The source `nats`: subjects of NATS, and streams of JetStream.

nats_source          the class: query types, histories, suggestions, Save & test
connection_settings  its settings, and the servers that they describe
server_link          one connection that all streams share
subject_filters      which subjects a query means, and the labels of its series
subjects_seen        the subjects that are suggested
jetstream_api        requests to JetStream
ordered_consumer     reads messages of a stream in order
live_messages        new messages of a stream
stream_history       old messages of a stream
sequence_position    where a reader is in a stream, and what was removed before it was read
sequenced_rows       messages of a stream as rows
server_check         Save & test

The protocol is in `_nats`.
"""

from aiostream_ds.sources.nats.nats_source import Nats

__all__ = ["Nats"]
