"""h2spec against the server and against grpclib's: a case that grpclib passes must not fail."""

import asyncio
import json
from pathlib import Path

import grpclib.server
import pytest
from grpclib.const import Cardinality, Handler
from grpclib.protocol import AbstractHandler

from aiostream_ds._grpc.call import Codec
from aiostream_ds._grpc.methods import bidi_stream
from aiostream_ds._grpc.server import Server
from aiostream_ds._http2 import connection as http2
from aiostream_ds._pb import pluginv2 as pb

pytestmark = [pytest.mark.go, pytest.mark.slow]

BODY = b"x" * 100
WAIT = "2s"  # for a frame that may not arrive


HEADERS = [(":method", "POST"), (":path", "/run"), ("content-type", "application/grpc")]


class AsCalls(AbstractHandler):
    """h2spec sends requests like a browser's: pass each to the server as a gRPC call."""

    def __init__(self, handler):
        self.handler = handler

    def accept(self, stream, headers, release_stream=None):
        if release_stream is None:
            head = headers._replace(method="POST", path="/run", content_type="application/grpc")
            self.handler.accept(stream, head)
        else:
            self.handler.accept(stream, [*HEADERS, ("te", "trailers")], release_stream)

    def cancel(self, stream):
        self.handler.cancel(stream)

    def close(self):
        self.handler.close()


class Ours(Server):
    def __init__(self):
        method = bidi_stream(self.run, pb.StreamPacket, pb.StreamPacket)
        super().__init__({"": lambda: {"/run": method}})

    async def run(self, _, call):
        await call.send(BODY)

    def _protocol_factory(self):
        protocol = super()._protocol_factory()
        protocol.calls = AsCalls(protocol.calls)
        return protocol


class Stock(grpclib.server.Server):
    def __init__(self):
        super().__init__([self], codec=Codec())

    def __mapping__(self):
        types = Cardinality.STREAM_STREAM, pb.StreamPacket, pb.StreamPacket
        return {"/run": Handler(self.run, *types)}

    async def run(self, stream):
        await stream.send_message(BODY)

    def _protocol_factory(self):
        protocol = super()._protocol_factory()
        protocol.handler = AsCalls(protocol.handler)
        return protocol


async def verdicts(server, binary: Path) -> dict[str, dict[str, str]]:
    """h2spec's verdict for each case."""
    await server.start("127.0.0.1", 0)
    port = server._server.sockets[0].getsockname()[1]
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
async def test_no_case_of_h2spec_fails_that_stock_grpclib_passes(
    h2spec_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "STREAMS_LIMIT", 100)  # h2spec opens as many streams as allowed
    ours = await verdicts(Ours(), h2spec_binary)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # grpclib's own raises some
    stock = await verdicts(Stock(), h2spec_binary)
    assert ours.keys() == stock.keys()
    assert len(ours) == 146
    failed = {
        name: verdict["reason"] for name, verdict in ours.items() if verdict["outcome"] == "failed"
    }
    worse = [name for name in failed if stock[name]["outcome"] != "failed"]
    assert not worse, "\n".join(f"{name}: {failed[name]}" for name in worse)
    skipped = [name for name, verdict in ours.items() if verdict["outcome"] == "skipped"]
    assert not failed and not skipped, f"failed: {failed}, skipped: {skipped}"
