"""Real servers on loopback for tests: each in a temporary folder of its own, on a free port.

A server keeps its port and its data over `stop`, `kill` and `start`.
"""

from .mosquitto import Mosquitto
from .postgres import Postgres
from .process import Server
from .redis import Redis

__all__ = ["Mosquitto", "Postgres", "Redis", "Server"]
