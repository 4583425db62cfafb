"""h2spec against the server: all its cases pass."""

import asyncio
import json
from pathlib import Path

import pytest

from aiostream_ds._grpc.methods import bidi_stream
from aiostream_ds._grpc.server import Server
from aiostream_ds._http2 import connection as http2
from aiostream_ds._pb import pluginv2 as pb

pytestmark = [pytest.mark.go, pytest.mark.slow]

BODY = b"x" * 100
WAIT = "2s"  # for a frame that may not arrive


class AsCalls:
    """h2spec sends requests like a browser's: pass each to the server as a gRPC call."""

    def __init__(self, calls):
        self.calls = calls

    def accept(self, stream, head):
        self.calls.accept(
            stream, head._replace(method="POST", path="/run", content_type="application/grpc")
        )

    def __getattr__(self, name):
        return getattr(self.calls, name)


class AnyRequest(Server):
    """Answers whatever h2spec asks."""

    def __init__(self):
        method = bidi_stream(self.run, pb.StreamPacket, pb.StreamPacket)
        super().__init__({"": lambda: {"/run": method}})

    async def run(self, _, call):
        await call.send(BODY)

    def new_connection(self):
        protocol = super().new_connection()
        protocol.calls = AsCalls(protocol.calls)
        return protocol


async def verdicts(server, binary: Path) -> dict[str, dict[str, str]]:
    """h2spec's verdict for each case."""
    await server.start("127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        binary, "127.0.0.1", str(port), "/run", WAIT, stdout=asyncio.subprocess.PIPE
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        server.close()
        await server.wait_closed()
    assert process.returncode == 0
    return {verdict.pop("name"): verdict for verdict in map(json.loads, out.splitlines())}


@pytest.mark.timeout(120)
async def test_every_case_of_h2spec_passes(
    h2spec_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "STREAMS_LIMIT", 100)  # h2spec opens as many streams as allowed
    found = await verdicts(AnyRequest(), h2spec_binary)
    assert len(found) == 146
    others = {name: each for name, each in found.items() if each["outcome"] != "passed"}
    assert others == {}
