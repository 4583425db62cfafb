"""The settings of the source `mqtt`."""

from typing import Annotated, Literal

from msgspec import Meta

from aiostream_ds._tls import TlsSettings
from aiostream_ds.settings import Secret, secret
from aiostream_ds.sources.decoding import DecodingSettings
from aiostream_ds.sources.form_sections import ADVANCED
from aiostream_ds.sources.sharing_settings import SharingSettings

__all__ = ["MqttSettings"]


class MqttSettings(DecodingSettings, TlsSettings, SharingSettings):
    """Which broker is connected to, and how its messages become rows."""

    host: Annotated[str, Meta(min_length=1, examples=["broker.example.com"])]
    """The broker's name or address."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """The broker's port; 0 is 1883, and 8883 with TLS."""
    tls: bool = False
    """Whether the connection is encrypted."""
    user: str = ""
    password: Secret = secret()
    protocol: Annotated[Literal["auto", "5", "3.1.1"], ADVANCED] = "auto"
    """The version of MQTT. auto is 5, and 3.1.1 if the broker does not support it."""
    qos: Annotated[int, Meta(ge=0, le=2)] = 1
    """The quality of service of subscriptions. With 1 and 2 the broker keeps messages while the
    connection is lost; with 0 they are lost."""
    session_expiry: Annotated[int, Meta(ge=1, le=86_400), ADVANCED] = 300
    """Seconds of a lost connection for which the broker keeps the messages of QoS 1 and 2."""
    client_id: Annotated[str, Meta(max_length=100, examples=["grafana-{host}"]), ADVANCED] = ""
    """The client id, another one on each Grafana server: {host} in it is the name of the machine.
    Empty: one that is made of the machine and the data source, and changes with its settings."""
    keep_alive: Annotated[int, Meta(ge=2, le=3_600), ADVANCED] = 20
    """Seconds between two pings. A broker that is silent for longer than one and a half of them has
    lost the connection."""
    discover: Annotated[str, Meta(examples=["home/#"])] = "#"
    """The topic filter whose topics are suggested as one types and counted by Save & test: it is
    subscribed to for at most a second. Empty: none."""
    publish: list[str] = []
    """Topic filters of the topics to which panels may publish. Empty: to none."""
