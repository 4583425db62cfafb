"""Requests to JetStream: which streams there are, and consumers that read them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from aiostream_ds._nats.nats_connection import NatsConnection
from aiostream_ds.errors import BadQuery, ConfigError, UpstreamError
from aiostream_ds.rows import CURSOR_LIMIT
from aiostream_ds.sources.nats.server_link import ask

__all__ = [
    "StreamFacts",
    "call_api",
    "check_readable",
    "check_stream_name",
    "read_stream",
    "stream_names",
    "subjects_of",
]

NAMES = 200
"""Maximum number of streams that are suggested."""

NAME_PAGES = 20
"""Pages of 1,024 names that are looked at for suggestions."""

_NO_STREAM = 10_059
_NOT_ENABLED = (10_039, 10_076)
_MAX_CONSUMERS = 10_026
"""Refused until another consumer is removed, as that of a connection that was lost."""

_NO_RESPONDERS = 503
_NAME = re.compile(r"[^\s.*>/\\]+")


class StreamFacts(NamedTuple):
    """What JetStream reports of a stream. Sequences are numbered from 1; `first` is one more than
    `last` if the stream is empty."""

    created: str
    """The time of its creation: another one is another stream of this name."""
    first: int
    last: int
    subjects: Sequence[str]
    """Those that it stores, with wildcards."""
    subject_count: int
    """How many it has messages of."""
    is_queue: bool
    """Whether each message is for one consumer."""
    has_gaps: bool
    """Whether sequences may be missing although no message was lost: it keeps a number of messages
    of each subject, or is the mirror of another stream, maybe of some of its subjects."""


def check_stream_name(name: str) -> None:
    """Check the name of a stream: it becomes a part of subjects.

    Raises:
        BadQuery: no stream can have this name.
    """
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise BadQuery(
            f"stream must be the name of a stream, without spaces and . * > / \\, got {name!r}"
        )


async def call_api(
    connection: NatsConnection, operation: str, arguments: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The answer of an operation such as STREAM.INFO.ORDERS; one about a stream that does not exist
    is empty.

    Raises:
        LackingRight: the user may not call it.
        ConfigError: JetStream is not enabled for the account.
        BadQuery: JetStream refuses it.
        UpstreamError: there is no answer, or no JetStream that is ready: one on another server of a
            cluster may be away.
    """
    payload = msgspec.json.encode(arguments) if arguments else b""
    message = await ask(connection, f"$JS.API.{operation}", payload)
    where = f"NATS {connection.server}"
    if message.status == _NO_RESPONDERS:
        if connection.info.get("jetstream"):
            raise UpstreamError(
                f"{where}: JetStream does not answer; is it enabled for the account?"
            )
        raise UpstreamError(f"{where}: JetStream is not enabled")
    try:
        answer: dict[str, Any] = msgspec.json.decode(message.payload, type=dict[str, Any])
    except msgspec.DecodeError as failure:
        raise UpstreamError(
            f"{where}: expected an answer of JetStream, got none: {failure}"
        ) from None
    error = answer.get("error")
    if error is None:
        return answer
    number, code = error.get("err_code", 0), error.get("code", 0)
    if number == _NO_STREAM:
        return {}
    text = f"{where}: {error.get('description') or 'JetStream refuses the request'}"
    if number in _NOT_ENABLED:
        raise ConfigError(f"{text}; streams need JetStream")
    if 400 <= code < 500 and code != 408 and number != _MAX_CONSUMERS:
        raise BadQuery(text)
    raise UpstreamError(text)


async def read_stream(connection: NatsConnection, name: str) -> StreamFacts | None:
    """The state of a stream; None if no stream has this name. Raises PluginError."""
    answer = await call_api(connection, f"STREAM.INFO.{name}")
    if not answer:
        return None
    try:
        config, state = answer["config"], answer["state"]
        last = int(state["last_seq"])
        return StreamFacts(
            created=str(answer["created"]),
            first=int(state["first_seq"]) if state.get("messages") else last + 1,
            last=last,
            subjects=config.get("subjects") or (),
            subject_count=int(state.get("num_subjects", 0)),
            is_queue=config.get("retention") == "workqueue",
            has_gaps=int(config.get("max_msgs_per_subject", -1)) > 0 or "mirror" in config,
        )
    except (KeyError, TypeError, ValueError) as error:
        text = f"NATS {connection.server}: expected the state of the stream {name!r}"
        raise UpstreamError(f"{text}, got {answer!r:.200}") from error


def check_readable(name: str, facts: StreamFacts) -> None:
    """Check that a stream can be read.

    Raises:
        BadQuery: it cannot be.
    """
    if facts.is_queue:
        raise BadQuery(
            f"the stream {name!r} cannot be read: its retention is workqueue, with which each"
            " message is for one consumer"
        )
    if facts.last >= CURSOR_LIMIT:
        raise BadQuery(
            f"the stream {name!r} cannot be read: sequences must be less than {CURSOR_LIMIT:,},"
            f" got {facts.last:,}"
        )


async def stream_names(connection: NatsConnection, typed: str = "") -> tuple[list[str], int]:
    """The names of streams that contain a text, sorted, and how many streams there are. Raises
    PluginError."""
    found: list[str] = []
    seen = total = 0
    for _ in range(NAME_PAGES):
        answer = await call_api(connection, "STREAM.NAMES", {"offset": seen})
        page = answer.get("streams") or []
        total = int(answer.get("total", len(page)))
        found += [name for name in page if typed in name]
        seen += len(page)
        if not page or seen >= total or len(found) >= NAMES:
            break
    return sorted(found)[:NAMES], total


async def subjects_of(connection: NatsConnection, name: str, limit: int) -> list[str]:
    """The subjects of a stream: those that it has messages of, if they are not too many, else those
    that it is configured with. Raises PluginError."""
    facts = await read_stream(connection, name)
    if facts is None:
        return []
    if not 0 < facts.subject_count <= limit:
        return list(facts.subjects)
    answer = await call_api(connection, f"STREAM.INFO.{name}", {"subjects_filter": ">"})
    return sorted(answer.get("state", {}).get("subjects") or ())
