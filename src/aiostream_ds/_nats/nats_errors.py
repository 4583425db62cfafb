"""The exceptions of a connection to NATS, by their kind."""

from collections.abc import Callable
from typing import NamedTuple

from aiostream_ds._nats.nats_servers import NatsServer
from aiostream_ds.errors import ConfigError

__all__ = ["NatsErrors", "PermanentRefusal"]


class PermanentRefusal(ConfigError):
    """The server refuses the login or TLS; an admin must change the settings."""


class NatsErrors(NamedTuple):
    """Which exceptions a connection raises; each is made with a text.

    `unavailable`: the server cannot be reached, or the connection is lost. `missing_permission`:
    the user may not publish to a subject, or subscribe to it. `login_hint` is what to set when the
    login is refused. `explain` makes the exception for one of the system or of TLS; without it the
    connection does.
    """

    unavailable: type[Exception]
    missing_permission: type[Exception]
    login_hint: str
    explain: Callable[[NatsServer, OSError], Exception] | None = None
