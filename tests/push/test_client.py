"""`Push` and `AsyncPush`: batches, the buffer, refusals, and the end."""

import asyncio
import gc
import gzip
import inspect
import json
import logging
import os
import subprocess
import sys
import threading
import time

import pandas
import polars
import pyarrow
import pytest

from aiostream_ds import push as push_module
from aiostream_ds.push import AsyncPush, Push, PushError, PushRejected, PushUnsent

from .push_server import PushServer


@pytest.fixture
def server():
    with PushServer() as found:
        yield found


def make(server, path="lab/run-1", **options):
    return Push(server.url, path, **{"add_time": False, "batch_age": 0.01, **options})


def numbers(server):
    return [row["n"] for row in server.rows]


def wait_for_a_retry(push):
    """Until a request has failed, and the client pauses."""
    while not push.counts.retries:
        time.sleep(0.005)


def test_rows_are_sent_in_order_and_the_end_waits_for_them(server):
    with make(server) as push:
        for n in range(10):
            push.send({"n": n})
    assert numbers(server) == [*range(10)]
    assert server.requests[0][0] == "/push/lab/run-1"
    counts = push.counts
    assert (counts.sent, counts.taken, counts.waiting, counts.refused) == (10, 10, 0, 0)


def test_the_request_has_what_the_source_needs(server):
    address = f"{server.url}/connections/datasources/edit/u-1"
    with Push(address, "lab/run-1", token="glsa_x", batch_age=5) as push:
        push.send([{"n": n, "text": "x" * 50} for n in range(20)])
    path, headers, body = server.requests[0]
    assert path == "/api/datasources/uid/u-1/resources/push/lab/run-1"
    assert headers["Authorization"] == "Bearer glsa_x"
    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Content-Encoding"] == "gzip"
    assert len(gzip.decompress(body).splitlines()) == 20
    assert "glsa_x" not in repr(push)


def test_a_batch_leaves_when_it_is_full_or_old(server):
    with make(server, batch_rows=5, batch_age=60) as push:
        push.send([{"n": n} for n in range(12)])
        server.arrived.acquire(timeout=15)
        server.arrived.acquire(timeout=15)
        assert push.counts.sent - push.counts.taken >= 2  # the last two wait for others
        push.flush(15)
        assert push.counts.waiting == 0
    assert [len(body.splitlines()) for _, _, body in server.requests] == [5, 5, 2]


def test_a_batch_has_at_most_so_many_bytes(server):
    with make(server, batch_bytes=100, batch_age=60) as push:
        for n in range(10):
            push.send({"n": n, "text": "x" * 30})
    assert max(len(body) for _, _, body in server.requests) <= 101
    assert numbers(server) == [*range(10)]


def test_each_batch_has_a_key_of_its_own(server):
    with make(server, batch_rows=1) as push, make(server, batch_rows=1) as other:
        push.send([{"n": 1}, {"n": 2}])
        other.send({"n": 3})
    assert len(set(server.keys)) == 3 == len(server.rows)


def test_the_reason_of_a_repetition_is_in_words(server):
    reasons = []
    server.answers += ["lose", (503, {}, b"<html>busy</html>"), (500, {}, {"message": "broken"})]
    with make(server) as push:
        push._delivery._note_retry = lambda url, reason, seconds: reasons.append(reason)
        push.send({"n": 1})
    assert reasons == [
        "Remote end closed connection without response",
        "HTTP 503",
        "HTTP 500: broken",
    ]


@pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429, 409])
def test_a_server_that_cannot_now_gets_the_same_batch_again(server, status):
    server.answers += [(status, {}, {"message": "busy"})] * 2
    with make(server) as push:
        push.send({"n": 1})
    assert numbers(server) == [1]
    assert len(server.keys) == 3 and len(set(server.keys)) == 1
    assert push.counts.retries == 2


def test_a_batch_whose_answer_is_lost_is_stored_once(server):
    server.answers += ["lose", "lose"]
    with make(server, batch_age=60) as push:
        push.send([{"n": 1}, {"n": 2}])
    assert numbers(server) == [1, 2] and len(server.keys) == 3


def test_the_server_can_name_the_time_of_the_next_request(server):
    server.answers.append((429, {"Retry-After": "1"}, {"message": "too many rows"}))
    started = time.monotonic()
    with make(server) as push:
        push.send({"n": 1})
        server.arrived.acquire(timeout=15)
    assert time.monotonic() - started >= 1  # also while the client closes
    assert numbers(server) == [1]


def test_a_time_that_is_a_date_is_understood():
    from aiostream_ds.push.http_post import LONGEST_RETRY_AFTER, _retry_after

    assert _retry_after("3") == 3
    assert _retry_after("999999") == LONGEST_RETRY_AFTER
    assert _retry_after("Sun, 06 Nov 1994 08:49:37 GMT") == 0
    assert (
        100
        < _retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 120)))
        <= 120
    )
    assert [_retry_after(text) for text in ("", "soon", "-1", "1e400", "٣")] == [None] * 5


@pytest.mark.parametrize(
    "answer, text",
    [
        ((401, {}, {"message": "Unauthorized"}), "the token is missing, wrong or expired"),
        ((403, {}, {"message": "Editor is needed"}), "HTTP 403: Editor is needed"),
        ((404, {}, {"message": "Data source not found"}), "check url and uid"),
        ((405, {}, b"<html>"), "this address takes no pushes"),
        ((415, {}, {"message": "no"}), "does not take this content type"),
        ((400, {}, {"message": "path must be short"}), "HTTP 400: path must be short"),
        ((418, {}, b"teapot\nmore"), "HTTP 418: teapot)"),
        ((301, {"Location": "https://other/"}, b""), "redirects to 'https://other/'; use that"),
        (
            (200, {"Content-Type": "text/html"}, b"<html>"),
            "expected the answer of a push, got 'text",
        ),
        ((200, {}, b"[1]"), "expected the answer of a push"),
        ((204, {}, b""), "expected the answer of a push"),
    ],
)
def test_a_refusal_that_lasts_is_an_error_in_words(server, answer, text):
    server.answers.append(answer)
    with pytest.raises(PushRejected) as error, make(server) as push:
        push.send({"n": 1})
    assert text in str(error.value)
    assert error.value.status == (0 if answer[0] < 300 else answer[0])
    assert len(server.requests) == 1 and push.counts.waiting == 1
    with pytest.raises(PushError, match="closed"):
        push.send({"n": 2})


def test_after_a_refusal_the_next_send_raises_it(server):
    server.answers.append((403, {}, {"message": "no"}))
    push = make(server)
    push.send({"n": 1})
    with pytest.raises(PushRejected, match="must not push here"):
        push.flush()
    with pytest.raises(PushRejected, match="must not push here"):
        push.send({"n": 2})
    assert push.counts.sent == 1


def test_the_error_of_the_block_is_not_hidden(server, caplog):
    server.answers.append((403, {}, {"message": "no"}))
    with pytest.raises(KeyError), make(server) as push:
        push.send({"n": 1})
        raise KeyError("mine")
    assert "must not push here" in caplog.text


def test_rows_that_the_server_refuses_are_reported_and_do_not_stop_the_others(server, caplog):
    server.refuse = lambda row: "n must be even" if row["n"] % 2 else ""
    found = []
    with make(server, on_refused=lambda row, reason: found.append((row, reason))) as push:
        push.send([{"n": n} for n in range(5)])
    assert numbers(server) == [0, 2, 4]
    assert found == [({"n": 1}, "n must be even"), ({"n": 3}, "n must be even")]
    assert (push.counts.taken, push.counts.refused) == (3, 2)
    assert caplog.text.count("n must be even") == 1  # further ones are counted


def test_values_and_times_that_the_server_takes_in_another_way_are_in_the_log(server, caplog):
    warning = "the earliest time is 1970-01-01; timeUnit is s: is it another one?\n\x1b[1mand more"
    for left_out in (2, 3):
        answer = {"taken": 1, "refused": [], "values_left_out": left_out, "warnings": [warning]}
        server.answers.append((200, {}, answer))
    with make(server) as push:
        for n in range(3):
            push.send({"n": n})
            push.flush(15)
    assert (push.counts.taken, push.counts.values_left_out) == (3, 5)
    assert caplog.text.count("the server has left out 2 values, which do not fit") == 1
    assert caplog.text.count("the server warns: the earliest time is 1970-01-01") == 1
    assert "and more" not in caplog.text


def test_a_batch_without_any_good_row_does_not_stop_the_client(server):
    server.refuse = lambda row: "bad" if row["n"] < 3 else ""
    with make(server, batch_rows=3, batch_age=60) as push:
        push.send([{"n": n} for n in range(5)])
    assert numbers(server) == [3, 4] and push.counts.refused == 3


def test_a_function_for_refused_rows_that_fails_does_not_stop_the_client(server, caplog):
    server.refuse = lambda row: "bad" if row["n"] == 0 else ""
    with make(server, on_refused=lambda row, reason: 1 / 0) as push:
        push.send([{"n": 0}, {"n": 1}])
        push.flush(15)
        push.send({"n": 2})
    assert numbers(server) == [1, 2] and "on_refused has failed" in caplog.text


def test_a_batch_that_is_too_large_is_halved_and_later_ones_are_smaller(server):
    server.limit = 300
    with make(server, batch_age=60, batch_rows=40) as push:
        push.send([{"n": n, "text": "x" * 40} for n in range(80)])
    assert numbers(server) == [*range(80)]
    assert push.counts.refused == 0
    assert len(set(server.keys)) == len(server.keys)
    sizes = [
        len(gzip.decompress(b) if h.get("Content-Encoding") else b) for _, h, b in server.requests
    ]
    assert max(sizes[len(sizes) // 2 :]) <= 600


def test_a_row_that_is_too_large_is_refused_alone(server):
    server.limit = 300
    found = []
    with make(server, on_refused=lambda row, reason: found.append(reason)) as push:
        push.send([{"n": 0}, {"n": 1, "text": "x" * 1000}, {"n": 2}])
    assert numbers(server) == [0, 2] and push.counts.refused == 1
    assert found == ["the row is too large: at most 300 bytes"]


# The buffer


def test_a_full_buffer_makes_the_program_wait(server):
    server.gate.clear()
    with make(server, buffer_rows=10, batch_rows=5, batch_age=60) as push:
        for n in range(15):  # five are in the request
            push.send({"n": n}, timeout=15)
        with pytest.raises(TimeoutError, match="the buffer was full for 0.05 s"):
            push.send({"n": 99}, timeout=0.05)
        threading.Timer(0.05, server.gate.set).start()
        push.send({"n": 15}, timeout=15)
    assert numbers(server) == [*range(16)] and push.counts.dropped == 0


def test_a_full_buffer_can_lose_the_oldest_rows_counted(server, caplog):
    server.gate.clear()
    with make(server, buffer_rows=10, batch_rows=5, batch_age=60, full="drop_oldest") as push:
        push.send([{"n": n} for n in range(5)])
        server.arrived.acquire(timeout=15)
        for n in range(5, 100):
            push.send({"n": n})
        server.gate.set()
    assert numbers(server) == [*range(5), *range(90, 100)]
    assert push.counts.dropped == 85 and push.counts.sent == 100
    assert "the buffer is full: 1 rows were dropped" in caplog.text


def test_the_buffer_is_bounded_in_bytes(server):
    server.gate.clear()
    with make(server, buffer_bytes=100, batch_rows=1, full="drop_oldest") as push:
        for n in range(100):
            push.send({"n": n, "text": "x" * 30})
        assert push.counts.waiting <= 4
        server.gate.set()


def test_a_row_that_is_larger_than_the_buffer_is_sent(server):
    with make(server, buffer_bytes=10, batch_bytes=10) as push:
        push.send({"n": 0, "text": "x" * 100})
        push.send({"n": 1, "text": "x" * 100}, timeout=15)
    assert numbers(server) == [0, 1]


def test_a_batch_larger_than_the_buffer_does_not_block_for_ever(server):
    with make(server, buffer_rows=3, batch_rows=1000, batch_age=60) as push:
        for n in range(10):
            push.send({"n": n}, timeout=15)
    assert numbers(server) == [*range(10)]


def test_threads_send_at_the_same_time(server):
    def work(first):
        for n in range(first, first + 200):
            push.send({"n": n})

    with make(server, buffer_rows=50, batch_rows=20) as push:
        threads = [threading.Thread(target=work, args=(each * 200,)) for each in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(numbers(server)) == [*range(800)]
    by_thread = [n for n in numbers(server) if n < 200]
    assert by_thread == sorted(by_thread)


def test_a_handler_of_the_log_may_send_rows(server):
    """`add` logs that rows are dropped; the handler sends that line as a row."""

    class Handler(logging.Handler):
        def emit(self, record):
            push.send({"n": -1})

    server.gate.clear()
    handler = Handler()
    logging.getLogger("aiostream_ds.push").addHandler(handler)
    try:
        with make(server, buffer_rows=3, batch_rows=1, full="drop_oldest") as push:
            push.send([{"n": n} for n in range(20)])
            server.gate.set()
    finally:
        logging.getLogger("aiostream_ds.push").removeHandler(handler)
    assert push.counts.sent == 21 == push.counts.taken + push.counts.dropped


# The end


def test_the_end_states_how_much_had_no_answer():
    with PushServer() as server:
        server.stop()
        push = make(server, close_limit=0.2)
        push.send([{"n": 1}, {"n": 2}])
        wait_for_a_retry(push)
        with pytest.raises(
            PushUnsent, match=r"2 rows have no answer yet.*connection refused"
        ) as error:
            push.close()
        assert error.value.rows == 2
        with pytest.raises(PushUnsent):
            push.close()  # at once


def test_the_end_tries_once_more_during_a_pause(server, monkeypatch):
    monkeypatch.setattr("aiostream_ds.push.delivery.FIRST_DELAY", 100.0)  # a pause of 50 s or more
    server.answers.append((503, {}, {}))
    push = make(server)
    push.send({"n": 1})
    wait_for_a_retry(push)
    started = time.monotonic()
    push.close()
    assert numbers(server) == [1] and time.monotonic() - started < 15


def test_a_closed_client_takes_no_rows(server):
    push = make(server)
    push.close()
    push.close()
    with pytest.raises(PushError, match="the client is closed"):
        push.send({"n": 1})


def test_a_flush_has_a_limit_and_loses_nothing(server):
    server.gate.clear()
    push = make(server)
    push.send({"n": 1})
    with pytest.raises(PushUnsent, match="1 row has no answer yet"):
        push.flush(0.05)
    server.gate.set()
    push.flush(15)
    assert numbers(server) == [1]
    push.close()


def run_program(code, server, *, imports="from aiostream_ds.push import Push", **environment):
    code = f"{imports}\n{code}"
    env = {**os.environ, "AIOSTREAM_DS_PUSH_URL": server.url, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=20
    )


@pytest.mark.slow
def test_rows_are_sent_when_the_program_ends(server):
    done = run_program("p = Push(path='a')\nfor n in range(50): p.send({'n': n})", server)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(server) == [*range(50)]


@pytest.mark.slow
def test_a_program_that_fails_still_sends_its_rows(server):
    done = run_program("p = Push(path='a')\np.send({'n': 1})\n1 / 0", server)
    assert done.returncode == 1 and numbers(server) == [1]


@pytest.mark.slow
def test_a_child_of_a_fork_sends_its_own_rows_only(server):
    code = """
import os
p = Push(path='a', batch_age=0.3)
p.send({'n': 1})
child = os.fork()
p.send({'n': 2 if child else 3})
p.close()
if child:
    os.waitpid(child, 0)
"""
    done = run_program(code, server)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(numbers(server)) == [1, 2, 3]
    assert len(set(server.keys)) == len(server.keys)


@pytest.mark.slow
def test_a_device_needs_only_three_small_packages(server):
    code = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        present = {*sys.stdlib_module_names, 'aiostream_ds', 'msgspec', 'orjson', 'urllib3'}
        if name.partition('.')[0] not in present:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
from aiostream_ds.push import Push
with Push(path='a') as push:
    push.send({'n': 1})
"""
    done = run_program(code, server, imports="import sys")
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(server) == [1]


@pytest.mark.slow
def test_the_import_loads_a_part_of_the_package():
    code = "import sys, aiostream_ds.push; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = [name for name in done.stdout.split() if name.startswith("aiostream_ds.")]
    assert len(own) < 40, own
    layers = {name.split(".")[1] for name in own}
    assert layers.isdisjoint({"datasource", "decorators", "settings", "_routing", "_grafana"})


def test_no_thread_is_started_without_rows_and_none_is_left_after_the_end(server):
    def names():
        return [each.name for each in threading.enumerate()]

    push = make(server)
    assert "aiostream-ds push" not in names()
    push.send({"n": 1})
    push.close()
    thread = push._delivery._thread
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("name", push_module.__all__)
def test_a_public_name_and_its_methods_have_docstrings(name):
    kind = getattr(push_module, name)
    assert vars(kind)["__doc__"]
    for key, member in vars(kind).items():
        function = getattr(member, "fget", member)
        if not key.startswith("_") and inspect.isfunction(function):
            assert function.__doc__, f"{name}.{key} has no docstring"


# Tables

TIMES = pandas.to_datetime(["2026-11-29T12:00:00Z", "2026-11-29T12:00:01Z"])


@pytest.mark.parametrize(
    "table",
    [
        pandas.DataFrame({"time": TIMES, "n": [1, 2]}),
        pandas.DataFrame({"n": [1, 2]}, index=TIMES),
        pandas.Series([1, 2], index=TIMES, name="n"),
        polars.DataFrame({"time": list(TIMES.to_pydatetime()), "n": [1, 2]}),
        pyarrow.table({"time": TIMES, "n": [1, 2]}),
        pyarrow.table({"time": TIMES, "n": [1, 2]}).to_batches()[0],
    ],
    ids=["pandas", "index", "series", "polars", "pyarrow", "batch"],
)
def test_a_table_is_sent_as_arrow(server, table):
    with make(server) as push:
        push.send(table)
    assert server.requests[0][1]["Content-Type"] == "application/vnd.apache.arrow.stream"
    assert numbers(server) == [1, 2]
    assert [row["time"] for row in server.rows] == list(TIMES)
    assert push.counts.taken == 2


def test_a_large_table_is_sent_in_parts_and_these_are_halved(server):
    count = 5_000
    server.limit = 20_000
    times = pandas.date_range("2026-01-01", periods=count, freq="s", tz="UTC")
    with make(server, batch_bytes=30_000) as push:
        push.send({"n": -1})
        push.send(pandas.DataFrame({"time": times, "n": range(count)}))
        push.send({"n": count})
    assert numbers(server) == [*range(-1, count + 1)]
    assert push.counts.taken == count + 2


def test_a_table_without_times_is_an_error(server):
    with make(server) as push, pytest.raises(ValueError, match="must have a column 'time'.*'n'"):
        push.send(pandas.DataFrame({"n": [1, 2]}))
    assert server.rows == []


def test_the_times_of_a_table_may_have_another_name(server):
    table = pandas.DataFrame({"ts": TIMES, "n": [1, 2]}, index=[5, 6])
    with make(server) as push:
        push.send(table)
        with pytest.raises(ValueError, match="must have a column 'at'"):
            Push(server.url, "a", time="at").send(table)
    assert [row["ts"] for row in server.rows] == list(TIMES)


def test_an_empty_table_is_nothing(server):
    with make(server) as push:
        push.send(pandas.DataFrame({"time": [], "n": []}))
    assert server.requests == []


# asyncio


async def test_rows_are_sent_from_an_event_loop(server):
    async with AsyncPush(server.url, "a", add_time=False, batch_age=0.01) as push:
        for n in range(100):
            await push.send({"n": n})
        await push.flush()
        assert push.counts.taken == 100
        await push.send({"n": 100})
    assert numbers(server) == [*range(101)]


async def test_a_full_buffer_makes_the_task_wait_and_a_cancelled_one_sends_nothing(server):
    server.gate.clear()
    async with AsyncPush(server.url, "a", add_time=False, buffer_rows=5, batch_rows=1) as push:
        for n in range(6):  # one is in the request
            await asyncio.wait_for(push.send({"n": n}), 15)
            if n == 0:
                await asyncio.to_thread(server.arrived.acquire, timeout=15)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(push.send({"n": 98}), 0.05)
        task = asyncio.create_task(push.send({"n": 99}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        waiting = asyncio.create_task(push.send({"n": 6}))
        await asyncio.sleep(0)
        server.gate.set()
        await waiting
    assert numbers(server) == [*range(7)]
    assert push._delivery._waiters == set()


async def test_a_refusal_is_raised_in_the_task_that_waits(server):
    server.gate.clear()
    server.answers.append((403, {}, {"message": "no"}))
    push = AsyncPush(server.url, "a", buffer_rows=1, batch_rows=1)
    await push.send({"n": 1})
    await asyncio.to_thread(server.arrived.acquire, timeout=15)
    await push.send({"n": 2})
    waiting = asyncio.create_task(push.send({"n": 3}))
    await asyncio.sleep(0)
    server.gate.set()
    with pytest.raises(PushRejected, match="must not push here"):
        await waiting
    with pytest.raises(PushRejected):
        await push.close()


async def test_the_end_of_the_block_has_a_limit(server):
    server.gate.clear()
    with pytest.raises(PushUnsent, match="1 row has no answer"):
        async with AsyncPush(server.url, "a", close_limit=0.1) as push:
            await push.send({"n": 1})


@pytest.mark.parametrize(
    "options, text",
    [
        ({"batch_rows": 0}, "batch_rows must be an integer of at least 1, got 0"),
        ({"buffer_bytes": 1.5}, "buffer_bytes must be an integer"),
        ({"batch_age": -1}, "batch_age must be seconds from 0 to 3600, got -1"),
        ({"full": "wait"}, "full must be 'block' or 'drop_oldest', got 'wait'"),
        ({"close_limit": "1"}, "close_limit must be seconds of at least 0, got '1'"),
        ({"timeout": 0}, "timeout must be seconds above 0, got 0"),
        ({"ca_file": "/nowhere"}, "ca_file must be a file of certificates, got '/nowhere'"),
        ({"time_unit": "m"}, "time_unit must be one of auto, s, ms, us, ns, got 'm'"),
    ],
)
def test_a_bad_option_is_an_error_that_names_it(options, text):
    with pytest.raises(ValueError) as error:
        Push(path="a", **options)
    assert text in str(error.value)


def test_what_is_left_of_a_refused_option_is_freed_without_an_error():
    with pytest.raises(ValueError):
        Push(path="a", batch_rows=0)
    gc.collect()


def test_the_log_has_one_line_for_an_outage(server, caplog):
    caplog.set_level(logging.WARNING)
    server.answers += [(503, {}, {"message": "away"})] * 3
    with make(server) as push:
        push.send({"n": 1})
    assert [r.message for r in caplog.records if "away" in r.message] == [
        f"{server.url}/push/lab/run-1: HTTP 503: away; trying again in "
        + caplog.records[0].message.rpartition(" in ")[2]
    ]
    assert json.loads(server.requests[0][2]) == {"n": 1}
