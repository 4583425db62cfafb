"""The resource `push`: answers, idempotency keys, who may push, quotas, the audit log, metrics."""

import gzip
import json
import logging
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)

from aiostream_ds.models import Request, Response, User
from aiostream_ds.sources.push import Pushed, push_intake
from aiostream_ds.sources.push.push_errors import PushRefused
from aiostream_ds.sources.push.push_quota import BURST, PushRate
from aiostream_ds.testing import serve_in_memory
from aiostream_ds.testing.grafana import Grafana

from .bodies import T, export, gauge, point, protobuf

EDITOR = User(login="ed", name="Ed", role="Editor")
VIEWER = User(login="vi", role="Viewer")
ROBOT = User(login="sa-1-lab", name="lab", role="Viewer")


async def post(
    grafana: Grafana,
    path: str,
    body: Any,
    *,
    user: User | None = EDITOR,
    query: str = "",
    **headers: str,
) -> Response:
    """POST to `push/<path>`; `content_type="text/csv"` is a header."""
    return await grafana.resource(
        f"push/{path}{query}",
        method="POST",
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={name.replace("_", "-"): [value] for name, value in headers.items()},
        user=user,
    )


def answer(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    return found


def message(response: Response) -> str:
    found: str = answer(response)["message"]
    return found


async def values(grafana: Grafana, path: str, name: str = "v") -> list[float]:
    (frame,) = await grafana.query({"queryType": "table", "path": path})
    return next((list(f.values) for f in frame.fields if f.name == name), [])


# -- answers ---------------------------------------------------------------------------------------


async def test_one_curl_without_a_content_type_is_a_row():
    async with serve_in_memory(Pushed) as grafana:
        response = await post(
            grafana, "lab/run-1", b'{"v": 21}', content_type="application/x-www-form-urlencoded"
        )
        assert (response.status, answer(response)) == (200, {"taken": 1, "refused": [], "last": 1})
        assert response.headers["Content-Type"] == ["application/json"]
        assert await values(grafana, "lab/run-1") == [21.0]


@pytest.mark.parametrize("path", ["push", "push/", "push/a b", "push/ä", "push/a//b", "push/.."])
async def test_a_path_that_rows_cannot_have_is_not_found_and_the_answer_names_the_rule(path):
    async with serve_in_memory(Pushed) as grafana:
        response = await grafana.resource(path, method="POST", body=b"{}")
        assert response.status == 404
        assert "letters, digits and the characters _ - = ." in message(response)
        assert "single slashes between them" in message(response)
        assert f"got POST {path.strip('/')!r}" in message(response)


async def test_the_answer_names_the_rows_that_were_not_taken():
    async with serve_in_memory(Pushed) as grafana:
        response = await post(grafana, "a", [{"v": 1}, {"v": 2, "time": "soon"}, {"v": 3}])
        found = answer(response)
        assert (response.status, found["taken"], found["last"]) == (200, 2, 2)
        (refused,) = found["refused"]
        assert refused["row"] == 1 and "'soon'" in refused["reason"]
        assert found["message"] == f"1 row was not taken; the first, row 1: {refused['reason']}"
        assert await values(grafana, "a") == [1.0, 3.0]


async def test_a_body_without_a_good_row_is_a_bad_request_with_reasons():
    async with serve_in_memory(Pushed) as grafana:
        response = await post(grafana, "a", [{"v": 2, "time": "soon"}] * 1_500)
        found = answer(response)
        assert (response.status, found["taken"], len(found["refused"])) == (400, 0, 1_000)
        assert found["more_refused"] == 500
        assert (await post(grafana, "a", b"[]")).status == 200


@pytest.mark.parametrize(
    "body, headers, status, reason",
    [
        (b'{"v": ', {"content_type": "application/json"}, 400, "invalid JSON"),
        (b"{}", {"content_type": "image/png"}, 415, "got 'image/png'"),
        (b"{}", {"content_encoding": "br"}, 415, "gzip, deflate or none, got 'br'"),
        (b"{}", {"content_encoding": "gzip"}, 400, "expected a body in gzip"),
        (b"x" * 1_001, {}, 413, "at most 1,000 bytes, which the setting maxMessage allows"),
        (
            gzip.compress(b"x" * 1_001, mtime=0),
            {"content_encoding": "gzip"},
            413,
            "after decompression",
        ),
        (b"{}", {"idempotency_key": "k" * 201}, 400, "at most 200 characters, got 201"),
        (b"{}", {"query": "?idempotency=yes"}, 400, "idempotency must be body, got 'yes'"),
    ],
)
async def test_a_push_that_cannot_be_taken_is_refused_in_words(body, headers, status, reason):
    async with serve_in_memory(Pushed, settings={"maxMessage": 1_000}) as grafana:
        response = await post(grafana, "a", body, **headers)
        assert response.status == status and reason in message(response)


async def test_a_path_that_no_channel_can_have_is_refused():
    async with serve_in_memory(Pushed) as grafana:
        assert (await post(grafana, "a b", {"v": 1})).status == 404
        response = await post(grafana, "x" * 146, {"v": 1})
        assert response.status == 400 and "at most 144 characters" in message(response)
        longest = "x" * 144
        assert (await post(grafana, longest, {"v": 1})).status == 200
        for query_type in ("rows", "table"):
            (frame,) = await grafana.query(
                {"queryType": query_type, "path": longest, "exact": True}
            )
            await grafana.follow(f"x/{query_type}/{longest}", frame=frame)


async def test_times_that_are_probably_wrong_are_warned_about():
    async with serve_in_memory(Pushed, settings={"timeUnit": "ms"}) as grafana:
        early = answer(await post(grafana, "a", {"time": 1_700_000_000, "v": 1}))
        assert early["warnings"] == [
            "the earliest time is 1970-01-20; timeUnit is ms: is it another one?"
        ]
        late = answer(await post(grafana, "a", {"time": 4_000_000_000_000, "v": 1}))
        assert "the latest time is 2096-10-02" in late["warnings"][0]
        assert "warnings" not in answer(await post(grafana, "a", {"v": 1}))


# -- OTLP ------------------------------------------------------------------------------------------

GOOD = export(gauge("celsius", point(21.5, "attic")))
MIXED = export(gauge("celsius", point(21.5, "attic"), {"flags": 1}))
ALL_BAD = export(gauge("celsius", {"flags": 1}))


async def test_otlp_in_json_has_the_answer_of_otlp():
    async with serve_in_memory(Pushed) as grafana:
        good = await post(grafana, "o", GOOD, content_type="application/json")
        assert (good.status, answer(good)) == (200, {})
        partial = answer(await post(grafana, "o", MIXED))["partialSuccess"]
        assert partial["rejectedDataPoints"] == "1"
        assert "no recorded value" in partial["errorMessage"]
        bad = await post(grafana, "o", ALL_BAD)
        assert bad.status == 400 and "no recorded value" in message(bad)


async def test_otlp_in_protobuf_has_the_answer_of_otlp():
    protobuf_type = "application/x-protobuf"
    async with serve_in_memory(Pushed, settings={"maxChannels": 1}) as grafana:
        good = await post(grafana, "o", protobuf(GOOD), content_type=protobuf_type)
        assert (good.status, good.body) == (200, b"")
        assert good.headers["Content-Type"] == [protobuf_type]
        mixed = await post(grafana, "o", protobuf(MIXED), content_type=protobuf_type)
        partial = ExportMetricsServiceResponse.FromString(mixed.body).partial_success
        assert partial.rejected_data_points == 1
        assert "no recorded value" in partial.error_message
        for body, path, status in (
            (protobuf(ALL_BAD), "o", 400),
            (b"\xff\xff", "o", 400),
            (protobuf(GOOD), "other", 429),
        ):
            refused = await post(grafana, path, body, content_type=protobuf_type)
            assert refused.status == status
            assert refused.headers["Content-Type"] == [protobuf_type]
            assert refused.body[:1] == b"\x08" and len(refused.body) > 10  # google.rpc.Status
        start = datetime.fromtimestamp(T / 1000 - 1, UTC)
        (frame,) = await grafana.query({"queryType": "rows", "path": "o"}, start=start)
        assert dict(frame.fields[2].labels) == {"place": "attic"}


# -- idempotency keys ------------------------------------------------------------------------------


async def test_a_repeated_batch_is_acknowledged_and_not_stored_twice():
    async with serve_in_memory(Pushed) as grafana:
        first = answer(await post(grafana, "a", [{"v": 1}, {"v": 2}], idempotency_key="k"))
        again = answer(await post(grafana, "a", [{"v": 1}, {"v": 2}], idempotency_key="k"))
        assert again == first | {"repeated": True}
        await post(grafana, "a", {"v": 3}, idempotency_key="l")
        assert await values(grafana, "a") == [1.0, 2.0, 3.0]
        counts = await grafana.metrics()
        assert counts['aiostream_ds_pushed_rows_total{outcome="accepted"}'] == 3
        assert counts['aiostream_ds_pushed_rows_total{outcome="repeated"}'] == 2


async def test_keys_are_those_of_a_path_and_of_a_login():
    async with serve_in_memory(Pushed, settings={"pushRole": "Viewer"}) as grafana:
        for path, user in (("a", EDITOR), ("a", VIEWER), ("b", EDITOR)):
            found = answer(await post(grafana, path, {"v": 1}, user=user, idempotency_key="k"))
            assert "repeated" not in found
        assert await values(grafana, "a") == [1.0, 1.0]


async def test_the_body_can_be_the_key():
    async with serve_in_memory(Pushed) as grafana:
        for _ in range(2):
            await post(grafana, "a", {"v": 1}, query="?idempotency=body")
            await post(grafana, "a", {"v": 2}, x_idempotency="body")
            await post(grafana, "a", {"v": 3})
        assert await values(grafana, "a") == [1.0, 2.0, 3.0, 3.0]


async def test_concurrent_pushes_with_one_key_are_stored_once():
    async with serve_in_memory(Pushed) as grafana:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(lambda: post(grafana, "a", {"v": 1}, idempotency_key="k"))
        assert await values(grafana, "a") == [1.0]


# -- who may push ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, user, path, reason",
    [
        ({}, VIEWER, "a", "'vi' (Viewer) may not push: the settings allow the role Editor"),
        ({}, None, "a", "expected a user or a service account"),
        ({}, User(), "a", "expected a user or a service account"),
        ({}, User(login="x", role="None"), "a", "'x' (None) may not push"),
        ({"pushRole": "Admin"}, EDITOR, "a", "the role Admin"),
        ({"pushRole": "none"}, EDITOR, "a", "the settings allow nobody"),
        ({"pushRole": "none", "pushLogins": ["bo"]}, EDITOR, "a", "1 logins of pushLogins"),
        (
            {"pushPaths": {"lab/{p:rest}": ["sa-1-lab"]}},
            EDITOR,
            "lab/a/b",
            "allows others the paths",
        ),
        ({"pushPaths": {"{login}/x": ["Admin"]}}, EDITOR, "ed/x", "'ed' (Editor) may not push to"),
        ({"pushPaths": {"a": ["Admin"]}}, User(login="Admin", role="Editor"), "a", "allows others"),
        ({"pushPaths": {"a": ["Editor"]}}, User(login="Editor", role="Admin"), "a", "others"),
        ({"pushPaths": {"a": ["ed"]}}, User(login="x", role="ed"), "a", "may not push"),
        ({"pushPaths": {"a": [""]}}, User(role="Editor"), "a", "others"),
    ],
)
async def test_who_may_not_push_has_the_reason_in_words(settings, user, path, reason):
    async with serve_in_memory(Pushed, settings=settings) as grafana:
        response = await post(grafana, path, {"v": 1}, user=user)
        assert response.status == 403 and reason in message(response)
        assert await values(grafana, path) == []


@pytest.mark.parametrize(
    "settings, user, path",
    [
        ({}, EDITOR, "a"),
        ({}, User(login="a", role="Admin"), "a"),
        ({"pushRole": "Viewer"}, VIEWER, "a"),
        ({"pushLogins": ["sa-1-lab"]}, ROBOT, "a"),
        ({"pushRole": "none", "pushLogins": ["sa-1-lab"]}, ROBOT, "a"),
        ({"pushLogins": ["sa-1-lab"], "pushPaths": {"lab/{p}": ["sa-1-lab"]}}, ROBOT, "lab/a"),
        ({"pushPaths": {"lab/{p}": ["Editor"]}}, EDITOR, "lab/a"),
        ({"pushPaths": {"a": ["Editor"]}}, User(login="Admin", role="Editor"), "a"),
        ({"pushPaths": {"lab/{p}": ["sa-1-lab"]}}, EDITOR, "other/a"),
    ],
)
async def test_roles_logins_and_paths_allow_pushes(settings, user, path):
    async with serve_in_memory(Pushed, settings=settings) as grafana:
        assert (await post(grafana, path, {"v": 1}, user=user)).status == 200


async def test_a_pattern_of_paths_that_is_none_is_an_error_of_the_settings():
    async with serve_in_memory(Pushed, settings={"pushPaths": {"lab//x": ["a"]}}) as grafana:
        ok, text = await grafana.health()
        assert not ok and "pushPaths: " in text and "lab//x" in text


# -- limits ----------------------------------------------------------------------------------------


def test_a_rate_takes_a_burst_and_then_what_it_is():
    now = [0.0]
    rate = PushRate("rowsPerSecond", "rows", 100, lambda: now[0])
    rate.check()
    rate.take(1_000)  # more than the burst of 500: the next one waits for all of it
    with pytest.raises(
        PushRefused, match="at most 100 rows per second, .* rowsPerSecond"
    ) as caught:
        rate.check()
    assert caught.value.headers["Retry-After"] == "6"
    now[0] += 5.02
    rate.check()
    taken = 0
    for _ in range(1_000):
        now[0] += 0.1
        try:
            rate.check()
        except PushRefused:
            continue
        rate.take(50)
        taken += 50
    assert 10_000 <= taken <= 100 * (100 + BURST)


async def test_pushes_above_the_rate_are_refused_with_the_time_of_a_retry():
    async with serve_in_memory(Pushed, settings={"rowsPerSecond": 1}) as grafana:
        assert (await post(grafana, "a", [{"v": n} for n in range(100)])).status == 200
        response = await post(grafana, "a", {"v": 1})
        assert response.status == 429 and "rowsPerSecond" in message(response)
        assert 90 <= int(response.headers["Retry-After"][0]) <= 97
        assert (await grafana.metrics())['aiostream_ds_push_refusals_total{status="429"}'] == 1


async def test_a_channel_beyond_the_limit_is_refused_and_the_others_go_on():
    async with serve_in_memory(Pushed, settings={"maxChannels": 2}) as grafana:
        for path, status in (("a", 200), ("b", 200), ("c", 429), ("a", 200)):
            assert (await post(grafana, path, {"v": 1})).status == status
        response = await post(grafana, "c", {"v": 1})
        assert "at most 2 channels, which the setting maxChannels allows" in message(response)


async def statuses(grafana: Grafana, paths: list[str], body: Any) -> list[int]:
    """The statuses of pushes at the same time."""
    found: list[int] = []

    async def push(path: str) -> None:
        found.append((await post(grafana, path, body)).status)

    async with anyio.create_task_group() as tasks:
        for path in paths:
            tasks.start_soon(push, path)
    return sorted(found)


@pytest.mark.slow
async def test_pushes_at_the_same_time_make_no_more_channels_than_the_limit():
    async with serve_in_memory(Pushed, settings={"maxChannels": 2}) as grafana:
        paths = [f"p{n // 2}" for n in range(50)]
        assert await statuses(grafana, paths, {"v": 1}) == [200] * 4 + [429] * 46
        source = await grafana.data_source(Pushed)
        assert len(await source._store.channels()) == 2


async def test_a_path_of_which_nothing_was_stored_gives_its_place_to_another():
    async with serve_in_memory(Pushed, settings={"maxChannels": 1}) as grafana:
        for body in ({"v": 1, "time": "x"}, [], b"{"):
            await statuses(grafana, ["a", "b"], body)
        assert (await post(grafana, "c", {"v": 1})).status == 200
        assert (await post(grafana, "d", {"v": 1})).status == 429


async def test_a_path_whose_push_was_cancelled_while_it_was_stored_is_a_channel():
    async with serve_in_memory(Pushed, settings={"maxChannels": 1}) as grafana:
        source = await grafana.data_source(Pushed)
        append = source._store.append

        async def append_and_end(*arguments: Any) -> Any:
            await append(*arguments)
            scope.cancel()
            await anyio.sleep_forever()

        source._store.append = append_and_end
        request = Request(body=b'{"v": 1}', user=EDITOR)
        with anyio.CancelScope() as scope:
            await source.push("a", request)
        assert scope.cancelled_caught
        source._store.append = append
        assert (await post(grafana, "b", {"v": 1})).status == 429
        assert (await post(grafana, "a", {"v": 1})).status == 200


@pytest.mark.parametrize("count", [10, 2_000])  # in the event loop, and in a thread
@pytest.mark.slow
async def test_pushes_at_the_same_time_do_not_exceed_the_rates(count):
    body = [{"v": n, "text": "x" * 10} for n in range(count)]
    for settings in ({"rowsPerSecond": 1}, {"bytesPerSecond": 1}):
        async with serve_in_memory(Pushed, settings=settings) as grafana:
            assert await statuses(grafana, ["a"] * 20, body) == [200] + [429] * 19


async def test_a_path_of_which_no_row_was_taken_is_no_channel():
    async with serve_in_memory(Pushed, settings={"maxChannels": 1}) as grafana:
        assert (await post(grafana, "a", b"[]")).status == 200
        assert (await post(grafana, "b", {"time": "x", "v": 1})).status == 400
        assert (await post(grafana, "c", {"v": 1})).status == 200


async def test_bodies_that_wait_are_bounded(monkeypatch):
    monkeypatch.setattr(push_intake, "WAITING_BODIES", 1)
    async with serve_in_memory(Pushed, settings={"maxMessage": 50_000}) as grafana:
        source = await grafana.data_source(Pushed)
        statuses: list[int] = []
        body = json.dumps([{"v": n} for n in range(3_000)]).encode()
        assert 25_000 < len(body) < 50_000

        async def push() -> None:
            response = await post(grafana, "a", body)
            statuses.append(response.status)
            if response.status == 503:
                assert response.headers["Retry-After"] == ["1"]

        async with source._intake._decoding, anyio.create_task_group() as tasks:
            tasks.start_soon(push)
            tasks.start_soon(push)
            while 503 not in statuses:
                await anyio.sleep(0)
            source._intake._decoding.release()
            while len(statuses) < 2:
                await anyio.sleep(0.001)
            await source._intake._decoding.acquire()
        assert sorted(statuses) == [200, 503]


async def test_a_store_that_cannot_be_written_is_an_answer_in_words():
    async with serve_in_memory(Pushed) as grafana:
        assert (await post(grafana, "a", {"v": 1})).status == 200
        source = await grafana.data_source(Pushed)
        await source._store.aclose()
        response = await post(grafana, "a", {"v": 2})
        assert response.status == 503 and "is not open" in message(response)
        assert response.headers["Retry-After"] == ["5"]


# -- the audit log ---------------------------------------------------------------------------------


async def test_a_push_to_a_directory_that_cannot_be_used_may_be_repeated(tmp_path):
    (tmp_path / "file").write_text("")
    async with serve_in_memory(Pushed, settings={"directory": str(tmp_path / "file")}) as grafana:
        response = await post(grafana, "a", {"v": 1})
        assert response.status == 503 and "cannot be written" in message(response)
        (tmp_path / "file").unlink()
        assert (await post(grafana, "a", {"v": 1})).status == 200


@pytest.mark.slow
async def test_who_has_pushed_what_is_in_the_audit_log_at_a_bounded_rate(caplog):
    caplog.set_level(logging.INFO, "aiostream_ds.audit")
    async with serve_in_memory(Pushed) as grafana:
        for _ in range(50):
            await post(grafana, "lab/a", [{"v": 1}, {"v": 2, "time": "x"}])
            await post(grafana, "lab/b", {"v": 1}, user=VIEWER)
    lines = [record.getMessage() for record in caplog.records if "audit" in record.name]
    assert lines == [
        "'ed' has pushed to 'lab/a': rows 1, not taken 1",
        "'vi' has pushed to 'lab/b': rows 0, pushes refused 1; the last one, 403: 'vi' (Viewer) may"
        " not push: the settings allow the role Editor or a higher one",
    ]
