"""The grpc.aio peer: a plugin on Google's gRPC for Python, without this project.

Its streams are optimized: orjson, numpy columns, replies as encoded bytes without protobuf objects.
It serves the paths of benchmarks/peer.py; for go-plugin it only prints the handshake line.
scripts/bench generates `backend_pb2` next to a copy of this file.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any

import backend_pb2 as pb
import grpc.aio
import numpy as np
import orjson
import uvloop

import grpc

SIZE = 1 << 16
TABLE = np.random.default_rng(1).random(SIZE + (1 << 15)) * 100
NAMES = [f"host-{i}" for i in range(1024)]
START_MS = 1_700_000_000_000
COLUMN_ROWS = 5000

done: dict[str, int] = {}
ticking = 0


@cache
def schema(name: str, kind: str, go_type: str, fields: tuple[str, ...]) -> orjson.Fragment:
    first = {"name": "time", "type": "time", "typeInfo": {"frame": "time.Time"}}
    others = [{"name": f, "type": kind, "typeInfo": {"frame": go_type}} for f in fields]
    return orjson.Fragment(orjson.dumps({"name": name, "fields": [first, *others]}))


def packet(columns: list[Any], described: orjson.Fragment | None) -> bytes:
    """A StreamPacket as bytes: its only field is the JSON."""
    frame: dict[str, Any] = {"schema": described} if described is not None else {}
    frame["data"] = {"values": columns}
    return prefixed(b"\x0a", orjson.dumps(frame, option=orjson.OPT_SERIALIZE_NUMPY))


def prefixed(tag: bytes, payload: bytes) -> bytes:
    size, prefix = len(payload), bytearray(tag)
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + payload


def burst_packet(k: int, rows: int, fields: int) -> bytes:
    offset = (k * 7) & (SIZE - 1)
    if rows == 1:
        columns: list[Any] = [
            [START_MS + k],
            *([float(TABLE[offset + j])] for j in range(1, fields)),
        ]
    else:
        columns = [np.arange(START_MS + k, START_MS + k + rows)]
        columns += (TABLE[offset + j : offset + j + rows] for j in range(1, fields))
    names = tuple(f"v{j}" for j in range(1, fields))
    return packet(columns, None if k else schema("burst", "number", "float64", names))


async def every(hz: str, make: Callable[[int], bytes]) -> AsyncIterator[bytes]:
    due, k = time.monotonic(), 0
    while True:
        yield make(k)
        k += 1
        due += 1 / float(hz)
        await asyncio.sleep(due - time.monotonic())


def tick_packet(k: int) -> bytes:
    now = time.time_ns()
    described = None if k else schema("tick", "number", "int64", ("ns",))
    return packet([[now // 1_000_000], [now]], described)


def rows_packet(k: int, rows: int) -> bytes:
    described = None if k else schema("rows", "number", "int64", ("n",))
    if rows == 1:
        return packet([[START_MS + k], [k]], described)
    return packet([np.arange(START_MS + k, START_MS + k + rows), np.arange(k, k + rows)], described)


async def run_stream(request: Any, context: Any) -> AsyncIterator[bytes]:
    global ticking
    match request.path.split("/"):
        case ["burst", shape, n, *ids]:
            rows, fields = map(int, shape.split("x"))
            try:
                for k in range(int(n)):
                    yield burst_packet(k, rows, fields)
            finally:
                done.update({id: time.time_ns() for id in ids})
        case ["rows", n]:
            for k in range(int(n)):
                yield rows_packet(k, 1)
        case ["columns", n]:
            for k in range(0, int(n), COLUMN_ROWS):
                yield rows_packet(k, min(COLUMN_ROWS, int(n) - k))
        case ["tick", hz, *_]:
            ticking += 1
            try:
                async for made in every(hz, tick_packet):
                    yield made
            finally:
                ticking -= 1
        case ["fan", hz, rows_text]:
            size = int(rows_text)
            async for made in every(hz, lambda k: burst_packet(k, size, 5)):
                yield made
        case ["wait", name]:
            try:
                yield tick_packet(0)
                await asyncio.Event().wait()
            finally:
                done[name] = time.time_ns()
        case _:
            await context.abort(grpc.StatusCode.NOT_FOUND, request.path)


async def subscribe(request: Any, context: Any) -> bytes:
    return b""  # status OK is 0


async def publish(request: Any, context: Any) -> bytes:
    kind, _, name = request.path.partition("/")
    answer = ticking if kind == "active" else done.pop(name, 0)
    return prefixed(b"\x12", b"%d" % answer)


async def health(request: Any, context: Any) -> Any:
    return pb.CheckHealthResponse(
        status=pb.CheckHealthResponse.OK, message="ok"
    ).SerializeToString()


async def query(request: Any, context: Any) -> bytes:
    answers = pb.QueryDataResponse()
    for one in request.queries:
        rows = orjson.loads(one.json)["rows"]
        frame = table(one.timeRange.fromEpochMS, rows)
        answers.responses[one.refId].frames.append(frame)
    return answers.SerializeToString()


def table(start: int, rows: int) -> bytes:
    import pyarrow as pa

    numbers = np.arange(rows)
    times = ((start + numbers) * 1_000_000).view("datetime64[ns]")
    columns = [pa.array(times), pa.array(TABLE[numbers & (SIZE - 1)])]
    columns.append(pa.array([NAMES[i & 1023] for i in range(rows)]))
    fields = [
        pa.field(name, column.type, nullable=False, metadata={"name": name})
        for name, column in zip(("time", "value", "host"), columns, strict=True)
    ]
    described = pa.schema(fields, metadata={"name": "q", "refId": "A"})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, described) as writer:
        writer.write_batch(pa.record_batch(columns, schema=described))
    return sink.getvalue().to_pybytes()


def unary(request: Any, answer: Callable[[Any, Any], Awaitable[bytes]]) -> Any:
    return grpc.unary_unary_rpc_method_handler(answer, request.FromString)


def services() -> list[grpc.GenericRpcHandler]:
    methods = {
        "Diagnostics": {"CheckHealth": unary(pb.CheckHealthRequest, health)},
        "Data": {"QueryData": unary(pb.QueryDataRequest, query)},
        "Stream": {
            "SubscribeStream": unary(pb.SubscribeStreamRequest, subscribe),
            "PublishStream": unary(pb.PublishStreamRequest, publish),
            "RunStream": grpc.unary_stream_rpc_method_handler(
                run_stream, pb.RunStreamRequest.FromString
            ),
        },
    }
    return [
        grpc.method_handlers_generic_handler(f"pluginv2.{name}", handlers)
        for name, handlers in methods.items()
    ]


async def main() -> None:
    limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    server = grpc.aio.server(options=limits)
    server.add_generic_rpc_handlers(services())
    with tempfile.TemporaryDirectory() as folder:
        address = os.path.join(folder, "plugin")
        server.add_insecure_port(f"unix:{address}")
        await server.start()
        sys.stdout.write(f"1|2|unix|{address}|grpc\n")
        sys.stdout.flush()
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()
        await server.stop(0.2)


if __name__ == "__main__":
    uvloop.run(main())
