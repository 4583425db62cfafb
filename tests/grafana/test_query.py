"""QueryData: the queries of panels and their answers."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import anyio
import msgspec
import pytest

from aiostream_ds import (
    DataSource,
    FieldConfig,
    Frame,
    HistoryRange,
    LiveChannel,
    NotFound,
    PermissionDenied,
    Query,
    Row,
    Rows,
    UpstreamError,
    User,
    query,
    stream,
)
from aiostream_ds._frames import arrow, json
from aiostream_ds._grafana import queries, replay
from aiostream_ds._grafana.services import data_service
from aiostream_ds._grafana.table_reading import INLINE_ROWS
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds.testing import QueryFailed, serve_in_memory
from tests.grafana.calls import ANN, a_query, chunks, query_data

JSON = pb.DataFrameFormat.JSON
ARROW = pb.DataFrameFormat.ARROW


class Reading(Row):
    time: int
    celsius: Annotated[float, FieldConfig(unit="celsius")]


class Compare(Query):
    agg: Literal["mean", "max"] = "mean"
    size: int = 1


@pytest.mark.slow
async def test_a_request_with_too_many_queries_is_refused_at_once():
    messages = [a_query(f"q{n}", "compare") for n in range(data_service.QUERIES_LIMIT + 1)]
    async with serve_in_memory(Sensors) as grafana:
        for refused in (
            await query_data(grafana, *messages),
            {chunk.ref_id: chunk for chunk in await chunks(grafana, *messages)},
        ):
            assert len(refused) == data_service.QUERIES_LIMIT
            assert {answer.status for answer in refused.values()} == {400}
            error = "a request must have at most 1,000 queries, got 1,001"
            assert {answer.error for answer in refused.values()} == {error}
        metrics = await grafana.metrics()
        allowed = await query_data(grafana, *messages[:-1])
        assert {answer.status for answer in allowed.values()} == {200}
    count = 'aiostream_ds_requests_total{endpoint="queryData",status="downstream"}'
    assert metrics[count] == 1


class Sensors(DataSource):
    """`calls` has the arguments of the history hook."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        Sensors.last = self

    @stream("sensors/{id}")
    async def sensor(self, id: str) -> Rows[Reading]:
        yield Reading(time=1, celsius=1.0)

    @sensor.history
    async def read(self, history_range: HistoryRange, id: str) -> list[Reading]:
        self.calls.append((history_range, id))
        if id == "down":
            raise UpstreamError("the broker is down")
        if id == "none":
            return None
        return [Reading(time=1000 * i, celsius=i / 2) for i in range(min(history_range.limit, 5))]

    @sensor.subscribe
    async def may_read(self, user: User | None, id: str) -> None:
        if id == "private" and (user is None or user.role != "Admin"):
            raise PermissionDenied("admins only")

    @stream("free/{id}")
    async def free(self, id: str):
        yield {"value": 1}

    @query
    async def compare(self, q: Compare) -> Frame:
        return Frame.from_columns({"n": list(range(q.size)), "agg": [q.agg] * q.size})

    @query
    async def two(self, q: Compare) -> list[Frame]:
        return [Frame.from_columns({"n": [1]}), Frame.from_columns({"n": [2]})]

    @query
    async def follow(self, q: Compare) -> LiveChannel:
        return LiveChannel(Sensors.sensor, id="kitchen").with_history(
            Frame.from_columns({"n": [1, 2]})
        )

    @query
    async def private(self, q: Compare) -> LiveChannel:
        return LiveChannel(Sensors.sensor, id="private")

    @query
    async def wrong(self, q: Compare):
        return {"not": "a frame"}

    @query
    async def bug(self, q: Compare):
        raise KeyError("oops")

    @query
    async def shared(self, q: Compare) -> Frame:
        return SHARED


SHARED = Frame.from_columns({"n": [1]})


def decoded(response):
    return [json.decode(frame) for frame in response.frames]


async def failure(kind, fields=None, **options):
    async with serve_in_memory(Sensors) as grafana:
        response = (await query_data(grafana, a_query("A", kind, fields, **options)))["A"]
    assert response.frames == []
    return response.status, response.error_source, response.error


# -- several queries -------------------------------------------------------------------------------


async def test_answers_have_the_order_and_the_ref_ids_of_the_queries():
    class Slow(DataSource):
        @stream("ticks/{n:int}")
        async def ticks(self, n: int):
            yield {"value": n}

        @ticks.history
        async def past(self, history_range: HistoryRange, n: int):
            await anyio.sleep(n / 100)
            return [{"time": 1, "value": n}]

    async with serve_in_memory(Slow) as grafana:
        asked = {"B": 3, "A": 1, "D": 2, "C": 0}
        answers = await query_data(
            grafana, *(a_query(r, "ticks", {"n": n}) for r, n in asked.items())
        )
    assert list(answers) == list(asked)
    for ref_id, response in answers.items():
        (frame,) = decoded(response)
        assert (frame.ref_id, frame.fields[1].values) == (ref_id, [asked[ref_id]])


async def test_queries_of_a_panel_run_concurrently():
    class Meeting(DataSource):
        """Each query waits until both have begun."""

        async def _meet(self):
            self.count = getattr(self, "count", 0) + 1
            self.both = getattr(self, "both", None) or anyio.Event()
            if self.count == 2:
                self.both.set()
            await self.both.wait()
            return Frame.from_columns({"n": [1]})

        @query
        async def first(self, q: Query) -> Frame:
            return await self._meet()

        @query
        async def second(self, q: Query) -> Frame:
            return await self._meet()

    async with serve_in_memory(Meeting) as grafana:
        answers = await query_data(grafana, a_query("A", "first"), a_query("B", "second"))
    assert {name: answer.status for name, answer in answers.items()} == {"A": 200, "B": 200}


async def test_a_failing_query_does_not_affect_the_others():
    async with serve_in_memory(Sensors) as grafana:
        answers = await query_data(
            grafana,
            a_query("A", "compare"),
            a_query("B", "bug"),
            a_query("C", "sensor", {"id": "down"}),
            a_query("D", "two"),
        )
    assert {name: answer.status for name, answer in answers.items()} == {
        "A": 200,
        "B": 500,
        "C": 502,
        "D": 200,
    }
    assert answers["B"].error_source == "plugin"
    assert answers["C"].error_source == "downstream"
    assert answers["A"].error == "" and answers["A"].error_source == ""


async def test_frames_have_the_ref_id_of_their_query():
    async with serve_in_memory(Sensors) as grafana:
        answers = await query_data(grafana, a_query("X", "two"), a_query("Y", "compare"))
    assert [f.ref_id for f in decoded(answers["X"])] == ["X", "X"]
    assert [f.ref_id for f in decoded(answers["Y"])] == ["Y"]


async def test_a_frame_object_that_is_returned_twice_is_not_changed():
    async with serve_in_memory(Sensors) as grafana:
        answers = await query_data(grafana, a_query("X", "shared"), a_query("Y", "shared"))
    assert decoded(answers["X"])[0].ref_id == "X"
    assert decoded(answers["Y"])[0].ref_id == "Y"
    assert SHARED.ref_id == "" and SHARED.meta is None


@pytest.mark.parametrize("names", ["A", "AB"], ids=["one query", "two queries"])
async def test_a_cancelled_call_cancels_its_queries(names, caplog):
    class Hanging(DataSource):
        """Records which queries were cancelled."""

        waiting = 0
        ended: list[str] = []

        @query
        async def hang(self, q: Query) -> Frame:
            try:
                Hanging.waiting += 1
                if Hanging.waiting == len(names):
                    waits.set()
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                Hanging.ended.append(q.ref_id)
                if len(Hanging.ended) == len(names):
                    ended.set()
                raise

    waits, ended = asyncio.Event(), asyncio.Event()
    async with serve_in_memory(Hanging) as grafana:
        asked = asyncio.create_task(query_data(grafana, *map(a_query, names)))
        await waits.wait()
        asked.cancel()
        await ended.wait()
        await anyio.wait_all_tasks_blocked()
    assert sorted(Hanging.ended) == list(names)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# -- formats ---------------------------------------------------------------------------------------


async def test_frames_are_arrow_unless_json_is_requested():
    async with serve_in_memory(Sensors) as grafana:
        plain = (await query_data(grafana, a_query("A", "compare", {"size": 3}), form=ARROW))["A"]
        text = (await query_data(grafana, a_query("A", "compare", {"size": 3})))["A"]
    assert (plain.format, text.format) == (ARROW, JSON)
    assert arrow.decode(plain.frames[0]).fields[0].values[:] == [0, 1, 2]
    assert json.decode(text.frames[0]).fields[0].values == [0, 1, 2]


async def test_each_chunk_is_a_frame_with_its_number_and_status():
    async with serve_in_memory(Sensors) as grafana:
        sent = await chunks(grafana, a_query("A", "two"), a_query("B", "bug"))
    of_a = [c for c in sent if c.ref_id == "A"]
    (of_b,) = [c for c in sent if c.ref_id == "B"]
    assert [(c.frame_id, c.status, c.format) for c in of_a] == [("0", 200, JSON), ("1", 200, JSON)]
    assert [json.decode(c.frame).fields[0].values for c in of_a] == [[1], [2]]
    assert (of_b.status, of_b.error_source, of_b.frame) == (500, "plugin", b"")


async def test_chunks_larger_than_the_window_are_not_interleaved():
    async with serve_in_memory(Sensors) as grafana:
        sent = await chunks(
            grafana, *(a_query(name, "compare", {"size": 9_000}) for name in "ABCDEF")
        )
    assert sorted(c.ref_id for c in sent) == list("ABCDEF")
    assert all(json.decode(c.frame).rows == 9_000 for c in sent)


# -- streams ---------------------------------------------------------------------------------------


async def test_a_stream_query_returns_its_history_and_the_channel():
    async with serve_in_memory(Sensors, uid="u1") as grafana:
        (frame,) = await grafana.query({"queryType": "sensor", "id": "kitchen"})
    assert frame.meta.channel == "ds/u1/sensors/kitchen"
    assert [f.name for f in frame.fields] == ["time", "celsius"]
    assert frame.fields[1].config.unit == "celsius"
    assert frame.rows == 5


async def test_without_streaming_the_frame_names_no_channel():
    async with serve_in_memory(Sensors) as grafana:
        asked = {"queryType": "sensor", "id": "kitchen", "withStreaming": False}
        (frame,) = await grafana.query(asked)
        (live,) = await grafana.query({"queryType": "follow", "withStreaming": False})
    assert frame.meta is None and frame.rows == 5
    assert live.meta is None and live.rows == 2


async def test_the_history_hook_gets_range_and_limit():
    start = datetime(2024, 5, 1, 12, tzinfo=UTC)
    async with serve_in_memory(Sensors) as grafana:
        (frame,) = await grafana.query(
            {"queryType": "sensor", "id": "kitchen"},
            start=start,
            end=start + timedelta(hours=1),
            max_data_points=3,
        )
        asked = Sensors.last.calls
        await query_data(grafana, a_query("A", "sensor", {"id": "x"}, points=10_000_000))
        await query_data(grafana, a_query("A", "sensor", {"id": "x"}, points=-1))
    assert asked[0] == (
        HistoryRange(start=start, end=start + timedelta(hours=1), limit=4, points=3),
        "kitchen",
    )
    assert asked[0][0].interval == timedelta(minutes=20)
    assert frame.rows == 3
    points = {history_range.points for history_range, _ in asked}
    assert points == {3, queries.HISTORY_LIMIT, 1}


async def test_a_range_outside_the_calendar_is_a_bad_query():
    status, source, message = await failure("sensor", {"id": "x"}, end=1 << 62)
    assert (status, source) == (400, "downstream")
    assert str(1 << 62) in message


async def test_a_stream_without_history_has_a_notice_if_the_panel_does_not_stream():
    async with serve_in_memory(Sensors) as grafana:
        (live,) = await grafana.query({"queryType": "free", "id": "x"})
        (still,) = await grafana.query({"queryType": "free", "id": "x", "withStreaming": False})
    assert live.meta.channel == "ds/test/free/x" and not live.meta.notices
    assert "no history" in still.meta.notices[0].text


@pytest.mark.parametrize("kind", ["sensor", "private"])
async def test_a_user_who_may_not_subscribe_may_not_read_the_history(kind):
    async with serve_in_memory(Sensors) as grafana:
        for user in (ANN, None):
            with pytest.raises(QueryFailed, match="admins only") as failed:
                await grafana.query({"queryType": kind, "id": "private"}, user=user)
            assert failed.value.status == 403
        assert Sensors.last.calls == []
        assert await grafana.query({"queryType": kind, "id": "private"})  # as an admin


async def test_a_live_channel_has_its_channel_and_its_rows():
    async with serve_in_memory(Sensors) as grafana:
        (frame,) = await grafana.query({"queryType": "follow"})
    assert frame.meta.channel == "ds/test/sensors/kitchen"
    assert frame.fields[0].values[:] == [1, 2]


async def test_the_only_stream_answers_a_query_without_a_type():
    class One(DataSource):
        @stream("ticks")
        async def ticks(self):
            yield {"n": 1}

    async with serve_in_memory(One) as grafana:
        (frame,) = await grafana.query({})
    assert frame.meta.channel == "ds/test/ticks"


# -- errors ----------------------------------------------------------------------------------------


async def test_a_wrong_return_value_is_a_bug_that_names_what_is_expected():
    status, source, message = await failure("wrong")
    assert (status, source) == (500, "plugin")
    assert "must return a Frame, a table, a list of rows, a LiveChannel, a list of them" in message
    status, source, message = await failure("sensor", {"id": "none"})
    assert (status, source) == (500, "plugin")
    assert "read: a history must be a Frame, Columns, a table or a list of rows" in message
    assert message.endswith("got None")


async def test_an_invalid_frame_fails_its_query_and_names_the_field():
    class Bad(DataSource):
        @query
        async def bad(self, q: Query) -> Frame:
            return Frame.from_columns({"a": [1, 2], "b": [1]})

    async with serve_in_memory(Bad) as grafana:
        with pytest.raises(QueryFailed, match="'b' must have 2 values, .* got 1"):
            await grafana.query({})


BROKEN = {
    "not JSON": (b"{", "must be valid JSON"),
    "bad UTF-8": (b'{"a":"\xff"}', "must be valid JSON"),
    "endless nesting": (b'{"a":' * 50_000, "must be valid JSON"),
    "a list": (b"[]", "must be a JSON object, got []"),
    "null": (b"null", "must be a JSON object, got null"),
    "10 MB": (b'{"a":"' + b"x" * 10_000_000 + b'"}', "at most 1,048,576 bytes, got 10,000,008"),
}


@pytest.mark.parametrize("body, text", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("kind", ["compare", "sensor", ""])
async def test_broken_json_is_a_bad_query(kind, body, text):
    status, source, message = await failure(kind, json=body)
    assert (status, source) == (400, "downstream")
    assert text in message


class Picked(Query):
    hosts: list[str] = []
    hz: int = 10
    name: str = "all"
    keep_alive: int = 1


class Variables(DataSource):
    @query
    async def pick(self, q: Picked) -> Frame:
        return Frame.from_columns(
            {"hosts": [",".join(q.hosts)], "hz": [q.hz], "name": [q.name], "alive": [q.keep_alive]}
        )

    @stream("sites/{site}/{hz:int}")
    async def sites(self, site: str = "hall", hz: int = 10):
        yield {"value": 1}

    @stream("needed/{site}")
    async def needed(self, site: str):
        yield {"value": 1}


@pytest.mark.parametrize(
    "fields, row",
    [
        ({"hosts": "{a,b}"}, ("a,b", 10, "all", 1)),
        ({"hosts": "a"}, ("a", 10, "all", 1)),
        ({"hosts": ""}, ("", 10, "all", 1)),
        ({"hosts": None, "hz": None, "name": None}, ("", 10, "all", 1)),
        ({"name": 7, "hz": "20"}, ("", 20, "7", 1)),
        ({"keep_alive": 5}, ("", 10, "all", 5)),
        ({"keepAlive": 6, "keep_alive": 5}, ("", 10, "all", 6)),
    ],
)
async def test_a_query_is_read_as_dashboards_write_it(fields, row):
    async with serve_in_memory(Variables) as grafana:
        (frame,) = await grafana.query({"queryType": "pick", **fields})
    assert tuple(field.values[0] for field in frame.fields) == row


@pytest.mark.parametrize("text", ["$hz", "${hz}", "${hz:raw}", "[[hz]]"])
async def test_a_variable_that_grafana_did_not_replace_is_the_default_and_a_notice(text):
    async with serve_in_memory(Variables) as grafana:
        (frame,) = await grafana.query({"queryType": "sites", "site": "$site", "hz": text})
        assert frame.meta.channel == "ds/test/sites/hall/10"
        notice = frame.meta.notices[-1]
        assert notice.severity == "warning"
        assert f"did not replace $site, {text} here" in notice.text
        assert "site = 'hall', hz = 10" in notice.text
        (frame,) = await grafana.query({"queryType": "sites", "site": "attic", "hz": 5})
        assert not any("replace" in each.text for each in frame.meta.notices)


async def test_an_emptied_variable_in_a_path_is_the_default():
    async with serve_in_memory(Variables) as grafana:
        (frame,) = await grafana.query({"queryType": "sites", "site": "", "hz": ""})
        assert frame.meta.channel == "ds/test/sites/hall/10"
        with pytest.raises(QueryFailed, match="site must be .*, got ''"):
            await grafana.query({"queryType": "needed", "site": ""})


async def test_a_variable_that_was_not_replaced_and_has_no_default_is_explained():
    async with serve_in_memory(Variables) as grafana:
        with pytest.raises(QueryFailed, match=r"got '\$site'; Grafana did not replace this var"):
            await grafana.query({"queryType": "needed", "site": "$site"})


async def test_a_text_that_looks_like_a_variable_is_kept_where_it_fits():
    async with serve_in_memory(Variables) as grafana:
        (frame,) = await grafana.query({"queryType": "pick", "name": "$SYS"})
    assert frame.fields[2].values[0] == "$SYS"
    assert frame.meta is None or not frame.meta.notices


async def test_several_values_of_a_variable_in_a_field_for_one_are_named():
    async with serve_in_memory(Variables) as grafana:
        with pytest.raises(QueryFailed, match="several values of a variable: select one"):
            await grafana.query({"queryType": "sites", "site": "{hall,attic}"})
        with pytest.raises(QueryFailed, match="several values of a variable: select one"):
            await grafana.query({"queryType": "pick", "hz": "{1,2}"})
        with pytest.raises(QueryFailed) as failed:
            await grafana.query({"queryType": "pick", "hz": "x", "name": "{a,b}"})
    assert "several" not in str(failed.value)


async def test_an_unknown_query_type_names_the_known_ones():
    status, _, message = await failure("compere")
    assert status == 400
    assert "got 'compere'" in message and "'compare'" in message and "'sensor'" in message


async def test_an_invalid_field_is_named_with_its_value():
    status, _, message = await failure("compare", {"agg": "median"})
    assert status == 400
    assert "agg" in message and "median" in message


async def test_a_string_is_converted_where_the_field_is_a_number():
    async with serve_in_memory(Sensors) as grafana:
        answer = (await query_data(grafana, a_query("A", "compare", {"size": "3"})))["A"]
    assert decoded(answer)[0].rows == 3
    status, _, message = await failure("compare", {"size": "many"})
    assert (status, "size: expected int, got 'many'" in message) == (400, True)


async def test_a_path_with_invalid_characters_is_a_bad_query():
    status, source, message = await failure("sensor", {"id": "kit chen"})
    assert (status, source) == (400, "downstream")
    assert "kit chen" in message


async def test_an_empty_json_body_is_an_empty_query():
    async with serve_in_memory(Sensors) as grafana:
        answer = (await query_data(grafana, a_query("A", "compare", json=b"")))["A"]
    assert answer.status == 200


async def test_the_query_type_may_be_in_the_json_only():
    async with serve_in_memory(Sensors) as grafana:
        body = msgspec.json.encode({"queryType": "two"})
        answer = (await query_data(grafana, a_query("A", "", json=body)))["A"]
    assert len(answer.frames) == 2


async def test_an_exception_group_with_one_exception_is_unwrapped():
    class Grouped(DataSource):
        @query
        async def grouped(self, q: Query) -> Frame:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._fail)
            return Frame()

        async def _fail(self):
            raise NotFound("no such topic")

    async with serve_in_memory(Grouped) as grafana:
        with pytest.raises(QueryFailed, match="no such topic") as failed:
            await grafana.query({})
    assert failed.value.status == 404


# -- large frames ----------------------------------------------------------------------------------


async def test_streams_continue_while_a_large_frame_is_encoded(monkeypatch):
    inside, go_on = asyncio.Event(), threading.Event()
    loop, encode = asyncio.get_running_loop(), json.encode

    def slow(frame):
        loop.call_soon_threadsafe(inside.set)
        assert go_on.wait(15)
        return encode(frame)

    monkeypatch.setattr(data_service.json, "encode", slow)

    class Both(DataSource):
        @stream("ticks")
        async def ticks(self):
            while True:
                yield {"n": 1}
                await anyio.sleep(0.0005)

        @query
        async def large(self, q: Query) -> Frame:
            return Frame.from_columns({"n": list(range(INLINE_ROWS + 1))})

    async with serve_in_memory(Both) as grafana:
        viewer = await grafana.follow("ticks")
        asked = asyncio.create_task(grafana.query({"queryType": "large"}, as_json=True))
        await inside.wait()
        await viewer.take(100)  # while the encoder is blocked
        go_on.set()
        (frame,) = await asked
    assert frame.rows == INLINE_ROWS + 1


async def test_a_long_history_is_encoded_in_a_thread(monkeypatch):
    main = threading.get_ident()
    seen = []

    class Long(DataSource):
        @stream("ticks", thin=False)
        async def ticks(self) -> Rows[Reading]:
            yield Reading(time=1, celsius=1.0)

        @ticks.history
        async def read(self, history_range: HistoryRange) -> list[Reading]:
            return [Reading(time=i, celsius=0.5) for i in range(INLINE_ROWS + 1)]

    original = replay.RowEncoder.frame

    def frame(self, rows):
        seen.append(threading.get_ident() != main)
        return original(self, rows)

    monkeypatch.setattr(replay.RowEncoder, "frame", frame)
    async with serve_in_memory(Long) as grafana:
        (answer,) = await grafana.query({}, as_json=True)
    assert answer.rows == INLINE_ROWS + 1
    assert seen == [True]


class Ticks(DataSource):
    @stream("ticks", thin=False)
    async def ticks(self):
        yield {"time": datetime.now(UTC), "n": 1}

    @ticks.history
    async def past(self, history_range: HistoryRange):
        span = history_range.end - history_range.start
        rows = [{"time": history_range.start + span * n / 20, "n": n} for n in range(20)]
        return rows[-history_range.limit :]


@pytest.mark.parametrize(("points", "has_notice"), [(5, True), (21, False)])
async def test_a_panel_that_draws_only_the_end_of_its_range_has_a_notice(points, has_notice):
    async with serve_in_memory(Ticks) as grafana:
        (frame,) = await grafana.query({"queryType": "ticks"}, max_data_points=points)
    texts = [notice.text for notice in frame.meta.notices]
    assert [text.startswith("Only the newest 5 rows of the range") for text in texts] == [
        True
    ] * has_notice
