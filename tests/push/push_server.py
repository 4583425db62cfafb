"""A server that takes pushes as the source `push` does: its contract, for tests of the client.

It runs in threads. A batch with a known key is acknowledged and not stored again. `answers` is a
script: what the next requests get instead, as (status, headers, body); `lose` stores a batch and
closes the connection without an answer.
"""

import gzip
import json
import ssl
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.servers.ports import free_port

LOSE = "lose"


class PushServer:
    """As a context manager it runs; `stop` and `start` are an outage, over which rows stay."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.port = free_port()
        self.rows: list[Any] = []
        self.keys: list[str] = []  # of all requests that were read
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: deque[Any] = deque()
        self.limit = 1 << 30  # bytes of a body
        self.refuse: Any = None  # a function: why a row is refused, or ""
        self.gate = threading.Event()  # requests wait for it
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self._stored: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def start(self) -> None:
        server = _Server(("127.0.0.1", self.port), _handler(self))
        if self.tls is not None:
            server.socket = self.tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self.stop()

    def take(self, key: str, content_type: str, body: bytes) -> dict[str, Any]:
        with self._lock:
            if key in self._stored:
                return self._stored[key]
            taken, refused = [], []
            for number, row in enumerate(_decode(content_type, body)):
                reason = self.refuse(row) if self.refuse else ""
                if reason:
                    refused.append({"row": number, "reason": reason})
                else:
                    taken.append(row)
            self.rows += taken
            self._stored[key] = {"taken": len(taken), "refused": refused}
            return self._stored[key]


def _decode(content_type: str, body: bytes) -> list[Any]:
    if content_type == "application/vnd.apache.arrow.stream":
        import pyarrow

        return pyarrow.ipc.open_stream(body).read_all().to_pylist()
    return [json.loads(line) for line in body.splitlines()]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client has ended its connection, as one that does not accept the certificate."""

    def cut(self) -> None:
        """End the open connections, as a process that is killed."""
        for each in tuple(self.connections):
            try:
                each.shutdown(2)
            except OSError:
                pass


def _handler(server: PushServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # the answer is one packet, which no delayed ACK holds back

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            key = self.headers["Idempotency-Key"]
            server.requests.append((self.path, dict(self.headers), body))
            server.keys.append(key)
            server.arrived.release()
            server.gate.wait(10)
            scripted = server.answers.popleft() if server.answers else None
            if scripted is not None and scripted != LOSE:
                self._answer(*scripted)
                return
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if len(body) > server.limit:
                self._answer(413, {}, {"message": f"at most {server.limit} bytes"})
                return
            answer = server.take(key, self.headers["Content-Type"], body)
            if scripted == LOSE:
                self.close_connection = True
                return
            bad = answer["refused"] and not answer["taken"]
            self._answer(400 if bad else 200, {}, answer)

        def _answer(self, status: int, headers: dict[str, str], content: Any) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                pass  # the connection was cut

    return Handler
