"""The client protocol of NATS without input and output: bytes to operations, and back."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "PING",
    "PONG",
    "NatsMessage",
    "NatsParser",
    "Operation",
    "ProtocolViolation",
    "ServerInfo",
    "ServerPing",
    "ServerPong",
    "ServerRefusal",
    "parse_headers",
    "publish_command",
    "quoted_subject",
    "subscribe_command",
    "unsubscribe_command",
]

PING = b"PING\r\n"
PONG = b"PONG\r\n"

_VERSION = "NATS/1.0"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r'\\(["\\])')
_LINE_LIMIT = 1 << 20
"""Most bytes of a line: INFO lists the servers of a cluster."""


class ProtocolViolation(Exception):
    """What the server has sent is not of this protocol."""


class ServerInfo(NamedTuple):
    """What a server sends first, and again when its cluster changes."""

    values: Mapping[str, Any]


class NatsMessage(NamedTuple):
    """A message of a subscription. `status` is 0, or the code of an answer without a message.
    `reply` is the subject for answers, with which JetStream describes the message."""

    subscription: int
    subject: str
    status: int
    description: str
    headers: Mapping[str, str]
    payload: bytes
    reply: str = ""


class ServerPing(NamedTuple):
    """The server asks whether the client is there."""


class ServerPong(NamedTuple):
    """Everything that was sent before the PING has been processed."""


class ServerRefusal(NamedTuple):
    """An error, which is not the answer to one operation."""

    text: str


Operation = ServerInfo | NatsMessage | ServerPing | ServerPong | ServerRefusal


class NatsParser:
    """Splits the bytes of a connection into operations."""

    def __init__(self) -> None:
        self._rest = b""
        self._needed = 0

    def feed(self, data: bytes) -> Sequence[Operation]:
        """The operations that are complete with these bytes.

        Raises:
            ProtocolViolation: the bytes are not of this protocol.
        """
        buffer = self._rest + data if self._rest else data
        if len(buffer) < self._needed:
            self._rest = buffer
            return ()
        operations: list[Operation] = []
        start = self._needed = 0
        while (end := buffer.find(b"\r\n", start)) >= 0:
            line = buffer[start:end]
            if line[:4] in (b"MSG ", b"HMSG"):
                message, stop = _message(line, buffer, end + 2)
                if message is None:
                    self._needed = stop - start  # do not look at a large message at each part of it
                    break
                operations.append(message)
                start = stop
                continue
            found = _control(line)
            if found is not None:
                operations.append(found)
            start = end + 2
        else:
            if len(buffer) - start > _LINE_LIMIT:
                raise ProtocolViolation(f"expected a line of at most {_LINE_LIMIT} bytes")
        self._rest = buffer[start:]
        return operations


def _message(line: bytes, buffer: bytes, start: int) -> tuple[NatsMessage | None, int]:
    """The message after its line, and where it ends. None: it is not complete."""
    words = line.split()
    try:
        total = int(words[-1])
        has_headers = words[0] == b"HMSG"
        head = int(words[-2]) if has_headers else 0
        subject, subscription = words[1].decode(errors="replace"), int(words[2])
        reply = words[3].decode(errors="replace") if len(words) > 4 + has_headers else ""
    except (ValueError, IndexError):
        raise ProtocolViolation(f"expected MSG or HMSG, got {line[:80]!r}") from None
    if not 0 <= head <= total:
        raise ProtocolViolation(f"expected headers within the message, got {line[:80]!r}")
    stop = start + total
    if len(buffer) < stop + 2:
        return None, stop + 2
    if buffer[stop : stop + 2] != b"\r\n":
        raise ProtocolViolation("expected the end of a message after its payload")
    status, description, headers = _headers(buffer[start : start + head]) if head else (0, "", {})
    payload = buffer[start + head : stop]
    return (
        NatsMessage(subscription, subject, status, description, headers, payload, reply),
        stop + 2,
    )


def _headers(block: bytes) -> tuple[int, str, Mapping[str, str]]:
    """Status, its description and the headers of `NATS/1.0 404 Not Found\\r\\nName: value…`. The
    server passes on what a publisher has written: another block counts as none."""
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    version, _, rest = first.partition(" ")
    if version != _VERSION:
        return 0, "", {}
    code, _, description = rest.strip().partition(" ")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    has_status = len(code) == 3 and code.isascii() and code.isdigit()
    return int(code) if has_status else 0, description, headers


def parse_headers(block: bytes) -> Mapping[str, str]:
    """The headers of a block as a message has it. Raises ProtocolViolation."""
    if not block.startswith(_VERSION.encode()):
        raise ProtocolViolation(f"expected headers of {_VERSION}, got {block[:80]!r}")
    return _headers(block)[2]


def _control(line: bytes) -> Operation | None:
    """The operation of a line without a payload; None for one that is of no use."""
    if line == b"PING":
        return ServerPing()
    if line == b"PONG":
        return ServerPong()
    if line == b"+OK":
        return None
    if line.startswith(b"INFO "):
        try:
            values = json.loads(line[5:])
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise ProtocolViolation("expected INFO with an object of JSON")
        return ServerInfo(values)
    if line.startswith(b"-ERR"):
        return ServerRefusal(line[4:].decode("utf-8", "replace").strip().strip("'"))
    raise ProtocolViolation(f"expected an operation of NATS, got {line[:80]!r}")


def quoted_subject(text: str) -> str:
    """The subject in the text of an error, which the server has quoted; empty if there is none."""
    found = _QUOTED.search(text)
    return _ESCAPED.sub(r"\1", found[1]) if found else ""


def publish_command(subject: str, reply: str, headers: Mapping[str, str], payload: bytes) -> bytes:
    """PUB, or HPUB if there are headers."""
    if not headers:
        return b"PUB %s %s %d\r\n%s\r\n" % (subject.encode(), reply.encode(), len(payload), payload)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    return b"HPUB %s %s %d %d\r\n%s%s\r\n" % (
        subject.encode(),
        reply.encode(),
        len(block),
        len(block) + len(payload),
        block,
        payload,
    )


def subscribe_command(subscription: int, subject: str) -> bytes:
    return f"SUB {subject} {subscription}\r\n".encode()


def unsubscribe_command(subscription: int) -> bytes:
    return f"UNSUB {subscription}\r\n".encode()
