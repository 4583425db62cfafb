"""Data: the queries of panels, dashboards, Explore and alerts."""

from collections.abc import Mapping, Sequence

import anyio
import anyio.to_thread

from aiostream_ds._frames import arrow, json
from aiostream_ds._frames.frame import Frame
from aiostream_ds._grafana import conversion, queries, replies
from aiostream_ds._grafana.replay import INLINE_ROWS
from aiostream_ds._grafana.replies import Answer, Piece
from aiostream_ds._grafana.services.base import Service
from aiostream_ds._grpc.call import Call
from aiostream_ds._grpc.methods import Method, server_stream, unary
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.errors import unwrap

__all__ = ["DataService"]


class DataService(Service):
    """Answers `pluginv2.Data`."""

    _arrow_ready = False

    def methods(self) -> Mapping[str, Method]:
        """The service's methods by gRPC path."""
        return {
            "/pluginv2.Data/QueryData": unary(
                self.query_data, self.decoder(pb.QueryDataRequest), pb.QueryDataResponse
            ),
            "/pluginv2.Data/QueryChunkedData": server_stream(
                self.query_chunked_data,
                self.decoder(pb.QueryChunkedDataRequest),
                pb.QueryChunkedDataResponse,
            ),
        }

    async def query_data(self, request: pb.QueryDataRequest, call: Call) -> list[Piece]:
        """Answer all queries of a panel concurrently. A query that fails does not affect others."""
        answers: dict[str, Answer] = {}

        async def one(message: pb.DataQuery) -> None:
            answers[message.ref_id] = await self._query(request, message, "queryData")

        if len(request.queries) == 1:  # the common case: saves a task
            await one(request.queries[0])
        else:
            async with anyio.create_task_group() as tasks:
                for message in request.queries:
                    tasks.start_soon(one, message)
        return replies.query_data(answers)

    async def query_chunked_data(self, request: pb.QueryChunkedDataRequest, call: Call) -> None:
        """Answer all queries concurrently; send each query's frames as soon as they are ready."""

        sending = anyio.Lock()  # a message that waits for the window must not be interleaved

        async def one(message: pb.DataQuery) -> None:
            answer = await self._query(request, message, "queryChunkedData")
            for chunk in replies.chunks(message.ref_id, answer):
                async with sending:
                    await call.send(chunk)

        try:
            async with anyio.create_task_group() as tasks:
                for message in request.queries:
                    tasks.start_soon(one, message)
        except ExceptionGroup as group:
            raise unwrap(group) from None

    async def _query(
        self,
        request: pb.QueryDataRequest | pb.QueryChunkedDataRequest,
        message: pb.DataQuery,
        endpoint: str,
    ) -> Answer:
        try:
            with self.counted(endpoint):
                instance = await self.instances.get(request.plugin_context)
                context = conversion.plugin_context(request.plugin_context)
                frames = await queries.answer(
                    self.replay, instance, context, message, request.headers
                )
                encoded = [await self._encode(frame, request.format) for frame in frames]
            return Answer(200, encoded, form=request.format)
        except Exception as error:
            failed = self.outcome(error, "query", message.ref_id)
            return Answer(failed.status, error=failed.message, source=failed.source)

    async def _encode(self, frame: Frame, form: pb.DataFrameFormat) -> Sequence[Piece]:
        encode = _json_pieces if form == pb.DataFrameFormat.JSON else arrow.encode_chunks
        if encode is arrow.encode_chunks and not self._arrow_ready:
            # importing pyarrow takes some 200 ms, which would stall every stream
            encoded = await anyio.to_thread.run_sync(encode, frame)
            self._arrow_ready = True
            return encoded
        if frame.rows > INLINE_ROWS:
            return await anyio.to_thread.run_sync(encode, frame)
        return encode(frame)


def _json_pieces(frame: Frame) -> Sequence[Piece]:
    return (json.encode(frame),)
