"""Real servers on loopback for tests: each in a temporary folder of its own, on a free port.

A server keeps its port and its data over `stop`, `kill` and `start`. With `tls` it accepts TLS
only, with `client_ca` only clients that have a certificate.
"""

from .certificates import CLIENT_NAME, Certificate, Certificates, certificates
from .mosquitto import Mosquitto
from .nats import Nats, nats_cluster
from .postgres import Postgres
from .process import Server
from .proxy import Proxy
from .redis import Redis

__all__ = [
    "CLIENT_NAME",
    "Certificate",
    "Certificates",
    "Mosquitto",
    "Nats",
    "Postgres",
    "Proxy",
    "Redis",
    "Server",
    "certificates",
    "nats_cluster",
]
