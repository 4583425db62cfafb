"""Data: the queries of panels, dashboards, Explore and alerts."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import anyio
import anyio.lowlevel

from aiostream_ds._frames import arrow, json
from aiostream_ds._frames.frame import Frame
from aiostream_ds._grafana import conversion, queries, replies
from aiostream_ds._grafana.replies import Answer, Piece
from aiostream_ds._grafana.services.base import Service
from aiostream_ds._grafana.table_reading import INLINE_ROWS
from aiostream_ds._grpc.call import Call
from aiostream_ds._grpc.decode import Decoder, ShortParts
from aiostream_ds._grpc.methods import Method, server_stream, unary
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._thread_limits import run_in_thread
from aiostream_ds.errors import BadQuery, unwrap

__all__ = ["QUERIES_LIMIT", "DataService"]

QUERIES_LIMIT = 1_000
"""Queries of one request. More would hold the event loop, and with it all streams."""

_Request = pb.QueryDataRequest | pb.QueryChunkedDataRequest
_Encode = Callable[[Frame], Sequence[Piece]]


class DataService(Service):
    """Answers `pluginv2.Data`."""

    _arrow_ready = False

    @cached_property
    def _decode_query(self) -> Callable[[bytes], pb.DataQuery]:
        # the panels of a dashboard ask for one range
        ranges = ShortParts(Decoder(pb.TimeRange).parse)
        return Decoder(pb.DataQuery, {**self._decoders, pb.TimeRange: ranges.__getitem__}).parse

    def methods(self) -> Mapping[str, Method]:
        """The service's methods by gRPC path."""
        # queries remain bytes until they are counted: decoding many takes long, too
        decoders = {**self._decoders, pb.DataQuery: bytes}
        return {
            "/pluginv2.Data/QueryData": unary(
                self.query_data, Decoder(pb.QueryDataRequest, decoders), pb.QueryDataResponse
            ),
            "/pluginv2.Data/QueryChunkedData": server_stream(
                self.query_chunked_data,
                Decoder(pb.QueryChunkedDataRequest, decoders),
                pb.QueryChunkedDataResponse,
            ),
        }

    async def query_data(self, request: pb.QueryDataRequest, call: Call) -> list[Piece]:
        """Answer all queries of a panel concurrently, in their order. A query that fails does not
        affect others."""
        answers: dict[str, Answer] = {}
        messages = self._messages(request)
        if len(request.queries) > QUERIES_LIMIT:
            answers = self._refuse(request, messages, "queryData")
        elif len(messages) == 1:  # the common case: saves a task
            answers[messages[0].ref_id] = await self._query(request, messages[0], "queryData")
        else:

            async def one(message: pb.DataQuery) -> None:
                answers[message.ref_id] = await self._query(request, message, "queryData")

            async with anyio.create_task_group() as tasks:
                for message in messages:
                    tasks.start_soon(one, message)
            answers = {message.ref_id: answers[message.ref_id] for message in messages}
        return replies.query_data(answers)

    async def query_chunked_data(self, request: pb.QueryChunkedDataRequest, call: Call) -> None:
        """Answer all queries concurrently; send each query's frames as soon as they are ready."""

        sending = anyio.Lock()  # a message that waits for the window must not be interleaved

        async def one(message: pb.DataQuery) -> None:
            answer = await self._query(request, message, "queryChunkedData")
            for chunk in replies.chunks(message.ref_id, answer):
                async with sending:
                    await call.send(chunk)

        messages = self._messages(request)
        if len(request.queries) > QUERIES_LIMIT:
            refused = self._refuse(request, messages, "queryChunkedData")
            for ref_id, answer in refused.items():
                for chunk in replies.chunks(ref_id, answer):
                    await call.send(chunk)
            return
        try:
            async with anyio.create_task_group() as tasks:
                for message in messages:
                    tasks.start_soon(one, message)
        except ExceptionGroup as group:
            raise unwrap(group) from None

    def _messages(self, request: _Request) -> list[pb.DataQuery]:
        """The request's queries, without those beyond the limit."""
        undecoded: Any = request.queries[:QUERIES_LIMIT]
        return [self._decode_query(data) for data in undecoded]

    def _refuse(
        self, request: _Request, messages: Sequence[pb.DataQuery], endpoint: str
    ) -> dict[str, Answer]:
        """The answers to a request with too many queries; none for those beyond the limit."""
        count = len(request.queries)
        error = BadQuery(f"a request must have at most {QUERIES_LIMIT:,} queries, got {count:,}")
        with suppress(BadQuery), self.counted(endpoint):
            raise error
        response = self.log_error(error, "request", "queries")
        answer = Answer(response.status, error=response.message, source=response.source)
        return {message.ref_id: answer for message in messages}

    async def _query(
        self,
        request: _Request,
        message: pb.DataQuery,
        endpoint: str,
    ) -> Answer:
        try:
            with self.counted(endpoint):
                instance = self.instances.find_open(request.plugin_context)
                if instance is None:
                    instance = await self.instances.get(request.plugin_context)
                user = conversion.user_of(request.plugin_context)
                frames = await queries.answer(self.replay, instance, user, message, request.headers)
                encoded = []
                for number, frame in enumerate(frames):
                    if number:  # an alert rule has a frame for each series: let streams run
                        await anyio.lowlevel.checkpoint()
                    encode = _encoder_of(request.format)
                    if frame.rows <= INLINE_ROWS and (self._arrow_ready or encode is _json_pieces):
                        encoded.append(encode(frame))
                    else:
                        encoded.append(await self._encode_in_thread(encode, frame))
            return Answer(200, encoded, form=request.format)
        except Exception as error:
            response = self.log_error(error, "query", message.ref_id)
            return Answer(response.status, error=response.message, source=response.source)

    async def _encode_in_thread(self, encode: _Encode, frame: Frame) -> Sequence[Piece]:
        """Encode a large frame, or the first one as Arrow: importing pyarrow takes some 200 ms."""
        if encode is arrow.encode_chunks and not self._arrow_ready:
            await run_in_thread(arrow.load)
            encoded = await run_in_thread(encode, frame)
            self._arrow_ready = True
            return encoded
        return await run_in_thread(encode, frame)


def _encoder_of(form: pb.DataFrameFormat) -> _Encode:
    return _json_pieces if form == pb.DataFrameFormat.JSON else arrow.encode_chunks


def _json_pieces(frame: Frame) -> Sequence[Piece]:
    return (json.encode(frame),)
