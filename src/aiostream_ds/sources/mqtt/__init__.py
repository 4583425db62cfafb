"""The source `mqtt`: the messages of topics of an MQTT broker.

mqtt_source        the data source: the stream, publishing, suggestions, Save & test
mqtt_settings      its settings
broker             one connection that all streams share, and goes on after outages
broker_connection  one connection, from CONNECT to its end
arrival_queue      what a connection has received, bounded
packets            the bytes of packets
reason_codes       the broker's answers in words
repeated_messages  messages that a broker sends again after an outage
topic_filters      which topics a query means, and the labels of its series
topic_status       the status of a stream: outages, what is missing, bad messages
topics_seen        the topics that are suggested
"""

from aiostream_ds.sources.mqtt.mqtt_source import Mqtt

__all__ = ["Mqtt"]
