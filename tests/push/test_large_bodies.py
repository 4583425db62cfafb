"""A body of 1 GB, streamed to the console: a clear answer, and memory that is bounded."""

import json
import socket
from pathlib import Path

import psutil
import pytest

from .console_process import ConsoleProcess

pytestmark = pytest.mark.slow

GIGABYTE = 1 << 30
PART = b"1" * (1 << 20)
MOST_BYTES = 400 << 20  # of memory; the limit of a body is 50 MB


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_body_of_one_gigabyte_is_refused_and_the_next_one_is_taken(is_chunked):
    with ConsoleProcess() as console:
        head = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {GIGABYTE}"
        status, message, sent = stream(console.port, head, is_chunked)
        assert (status, message) == (413, "a body must have at most 50,000,000 bytes")
        assert sent < 200 << 20
        assert peak_memory() < MOST_BYTES
        body = b'{"n": 1}'
        with connect(console.port, f"Content-Length: {len(body)}") as connection:
            connection.sendall(body)
            assert answer_of(connection)[0] == 200


def connect(port: int, head: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    lines = ["POST /push/a HTTP/1.1", "Host: localhost", "Content-Type: application/json", head]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def stream(port: int, head: str, is_chunked: bool) -> tuple[int, str, int]:
    """Send until there is an answer, as clients do that look for one. Returns it, and how many
    bytes were sent."""
    part = b"%x\r\n%s\r\n" % (len(PART), PART) if is_chunked else PART
    sent = 0
    with connect(port, head) as connection:
        try:
            while sent < GIGABYTE and not has_answer(connection):
                connection.sendall(part)
                sent += len(PART)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer may have arrived before
        status, body = answer_of(connection)
    return status, json.loads(body)["message"], sent


def has_answer(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(20)


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(b"}"):
        part = connection.recv(65_536)
        if not part:
            break
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def peak_memory() -> int:
    """The largest peak of the processes that this one has started."""
    return max(map(_peak_of, psutil.Process().children(recursive=True)), default=0)


def _peak_of(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
