"""Save & test: what the server is, what its user may do, and what the source can do with it."""

from collections.abc import Sequence
from typing import NamedTuple

from aiostream_ds._nats.nats_connection import NatsConnection
from aiostream_ds.errors import ConfigError, UpstreamError
from aiostream_ds.sources.nats.jetstream_api import stream_names
from aiostream_ds.sources.nats.server_link import LackingRight, ServerLink, ask

__all__ = ["ServerReport", "check_server"]

SHOWN = 5
"""Maximum number of streams in the message of Save & test."""

_PROBE = "aiostream-ds-check"
_RIGHTS = (
    ("STREAM.INFO.{0}", "no streams"),
    (f"CONSUMER.CREATE.{{0}}.{_PROBE}", "no streams"),
    (f"CONSUMER.MSG.NEXT.{{0}}.{_PROBE}", "no streams"),
    (f"CONSUMER.DELETE.{{0}}.{_PROBE}", "consumers remain for 30 s"),
)
"""What is called, of a stream, with what does not work without it. Without arguments, and of a
consumer that does not exist, the calls have no effect."""


class ServerReport(NamedTuple):
    """What was found. `problems` are what the user cannot do, and why."""

    found: Sequence[str]
    problems: Sequence[str]


async def check_server(link: ServerLink) -> ServerReport:
    """Connect with a connection of its own, log in, and try what streams need.

    Raises:
        PluginError: the server cannot be used.
    """
    async with link.dial() as connection:
        version = connection.info.get("version", "of an unknown version")
        tls = "with" if connection.has_tls else "without"
        found = [f"connected to NATS {version} at {connection.server} {tls} TLS"]
        problems: list[str] = []
        names: list[str] = []
        try:
            names, total = await stream_names(connection)
            found.append(_streams(names, total))
        except LackingRight as error:
            problems.append(f"{error.message} (no suggestions of streams)")
        except (ConfigError, UpstreamError) as error:
            if connection.lost.done():
                raise
            problems.append(f"{error.message} (no streams, only subjects)")
            return ServerReport(found, problems)
        return ServerReport(found, [*problems, *await _missing_rights(connection, names)])


def _streams(names: Sequence[str], total: int) -> str:
    noun = "stream" if total == 1 else "streams"
    shown = ", ".join(names[:SHOWN]) + (", …" if total > SHOWN else "")
    return f"JetStream has {total:,} {noun}{': ' if names else ''}{shown}"


async def _missing_rights(connection: NatsConnection, names: Sequence[str]) -> list[str]:
    """What the user may not call for the first stream, which stands for all."""
    missing = []
    for call, without in _RIGHTS:
        operation = call.format(names[0] if names else _PROBE)
        try:
            await ask(connection, f"$JS.API.{operation}")
        except LackingRight as error:
            missing.append(f"{error.message} ({without})")
    return missing
