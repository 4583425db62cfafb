"""Which texts `redact` finds, what it costs, and that no way out of the process shows a secret."""

import base64
import io
import json
import logging
import sys
import threading
import traceback
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote, quote_plus

import anyio
import pytest
from grpclib import GRPCError
from hypothesis import assume, given
from hypothesis import strategies as st

from aiostream_ds import (
    ConfigError,
    DataSource,
    Health,
    Query,
    Replay,
    Secret,
    Settings,
    UpstreamError,
    query,
    resource,
    secret,
    stream,
)
from aiostream_ds._channels.status import STATUS_LIMIT, Status
from aiostream_ds._frames.config import FrameMeta, Notice
from aiostream_ds._frames.frame import Frame
from aiostream_ds._pb import pluginv2 as pb
from aiostream_ds._process.stdio import LINE_LIMIT, _split_lines, redact_output
from aiostream_ds._redaction import (
    COMMON_WORDS,
    PART,
    _table,
    redact,
    redact_end,
    redact_json,
    redact_start,
)
from aiostream_ds._telemetry import JsonLines, TextLines
from aiostream_ds.console.log_buffer import ERROR_LIMIT, LogBuffer
from aiostream_ds.settings import decode_settings
from aiostream_ds.testing import serve_in_memory
from aiostream_ds.testing.recorded_upstream import record
from tests.counting import steps_of
from tests.grafana.calls import a_query, chunks, publish, query_data, run_stream, subscribe

PASSWORD = "p@ss 'w\"rd\\<&>/ü"
TOKEN = "glsa_9fYt3Kq8ZxW1vB7nM5cR2dL6hJ4"
PEM_LINES = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" + f"{n:032x}" for n in range(8)]
PEM = "\n".join(
    ["-----BEGIN PRIVATE KEY-----", *PEM_LINES, "Xw==", "-----END PRIVATE KEY-----", ""]
)

SPELLINGS = {
    "plain": str,
    "repr": repr,
    "repr of bytes": lambda value: repr(value.encode()),
    "repr of repr": lambda value: repr(repr(value)),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda value: json.dumps(value, ensure_ascii=False),
    "JSON in JSON": lambda value: json.dumps(json.dumps(value)),
    "URL": lambda value: quote(value, safe=""),
    "URL in lower case": lambda value: (
        quote(value, safe="").lower() if not value.isalnum() and value == PASSWORD else quote(value)
    ),
    "form": quote_plus,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "Basic": lambda value: base64.b64encode(f"me:{value}".encode()).decode(),
    "Basic of a longer name": lambda value: base64.b64encode(f"abc:{value}!".encode()).decode(),
    "HTML": lambda value: value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
}


def parts_of(text, size):
    return {text[at : at + size] for at in range(len(text) - size + 1)}


@pytest.mark.parametrize("value", [PASSWORD, TOKEN, PEM], ids=["password", "token", "PEM"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_secret_is_replaced_in_every_spelling(value, spelling):
    kept = Secret(value)
    written = SPELLINGS[spelling](value)
    shown = redact(f"the server answered: {written}.")
    assert kept and "***" in shown and shown.startswith("the server answered: ")
    left = "".join(shown.removeprefix("the server answered: ").split("***"))
    left = left.replace("-----BEGIN PRIVATE KEY-----", "").replace("-----END PRIVATE KEY-----", "")
    assert len(left) <= 12, left  # quotes, and the name before a password in base64


@pytest.mark.parametrize("word", ["redis", "Password", "grafana", "postgres"])
def test_a_secret_that_is_a_common_word_leaves_no_gap_in_a_known_sentence(word):
    kept = Secret(word)
    known = f"connected to the {word} server; the {word} is wrong"
    assert redact(known) == known and kept
    assert redact(f"redis://me:{word}@host/0") == "redis://me***host/0"
    encoded = base64.b64encode(f"user:{word}".encode()).decode()
    assert redact(f"Basic {encoded}") != f"Basic {encoded}"
    assert redact(f"{word}-2024") == f"{word}-2024"
    longer = Secret(f"{word}-2024")
    assert redact(f"got {word}-2024") == "got ***" and longer


def test_each_line_of_a_secret_with_several_lines_is_replaced():
    kept = Secret(PEM)
    assert [redact(f"  {line}") for line in PEM_LINES] == ["  ***"] * len(PEM_LINES)
    assert redact("expected -----BEGIN PRIVATE KEY-----") == "expected -----BEGIN PRIVATE KEY-----"
    assert redact(PEM.replace("\n", "")).count("=") <= 2
    assert kept


@given(st.integers(0, len(TOKEN) - PART), st.integers(PART, len(TOKEN)))
def test_a_long_part_of_a_secret_is_replaced(start, size):
    kept = Secret(TOKEN)
    part = TOKEN[start : start + max(size, PART)]
    shown = redact(f"<{part}>")
    assert shown == "<***>" and kept


def test_a_secret_with_a_line_break_at_its_end_is_replaced_without_it():
    kept = Secret("s3cr3t-value\n"), Secret("  other-value ")
    assert redact("got s3cr3t-value and other-value") == "got *** and ***" and kept


@given(st.text(min_size=4, max_size=80), st.text(max_size=20), st.text(max_size=20))
def test_no_text_shows_a_secret_that_it_contains(value, before, after):
    assume(
        value.strip().lower() not in COMMON_WORDS
    )  # they are not replaced where they stand alone
    kept = Secret(value)
    shown = redact(before + value + after)
    assert "***" in shown and kept
    assert len(shown) <= len((before + after).encode("utf-8", "backslashreplace").decode()) + 3


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_secret_at_the_cut_is_replaced(limit, position):
    kept = Secret("hunter22")
    text = "-" * position + "hunter22" + "-" * 60
    for cut in redact_start, redact_end:
        assert not set("hunter22") & set(cut(text, limit, note=False)) and kept


def test_numbers_and_keys_of_json_are_redacted_and_stay_json():
    kept = Secret("12345678")
    shown = redact_json({"port": 12345678, "a12345678": ["12345678", True, None, 1.5]})
    assert shown == {"port": "***", "a***": ["***", True, None, 1.5]} and kept


def test_the_table_is_empty_when_the_secrets_have_gone():
    before = len(_table._needles)
    kept = [Secret(PEM), Secret(TOKEN), Secret(TOKEN), Secret(TOKEN + "x")]
    del kept[1]
    assert redact(TOKEN) == "***"
    kept.clear()
    assert len(_table._needles) == before and redact(TOKEN) == TOKEN


def test_threads_may_create_drop_and_use_secrets_at_once():
    errors = []

    def work(number):
        try:
            for n in range(100):
                kept = Secret(f"the-secret-{number}-{n % 7}-abcdef")
                assert redact(f"x {kept.reveal()} y") == "x *** y"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.slow
def test_the_costs_do_not_depend_on_the_number_of_secrets():
    text = "the broker closed the connection of a client that had sent no packet for a while. " * 5

    few = [Secret(f"a-first-secret-{n:04}") for n in range(10)]
    before = steps_of(lambda: redact(text))
    many = [Secret(f"an-other-secret-{n:05}-of-many") for n in range(2_000)]
    assert steps_of(lambda: redact(text)) < 1.5 * before
    assert few and many


# -- the ways out ------------------------------------------------------------------------------


class Login(Settings):
    password: Secret = secret()
    key: Secret = secret()
    fails: str = ""

    def __post_init__(self) -> None:
        if self.fails == "settings":
            raise ValueError(leak(self))


SECRETS = {"password": PASSWORD, "key": PEM, "undeclared": TOKEN}


def leak(settings):
    """Everything that a client may put into an error."""
    values = settings.password.reveal(), settings.key.reveal(), TOKEN
    return " | ".join(write(value) for value in values for write in SPELLINGS.values())


class Leaking(DataSource[Login]):
    """Shows its secrets wherever an author can show a text."""

    @asynccontextmanager
    async def lifespan(self):
        if self.settings.fails == "lifespan":
            raise RuntimeError(leak(self.settings))
        if self.settings.fails == "refusal":
            raise UpstreamError(leak(self.settings))
        yield

    async def health(self) -> Health:
        text = leak(self.settings)
        logging.getLogger("client").debug("connecting with %s", text, extra={"url": text})
        return Health(ok=False, message=text, details={"url": text, text: [text]})

    @stream("yields")
    async def yields(self):
        yield Status("warning", leak(self.settings)[:900])
        yield {"n": 1}
        await anyio.sleep_forever()

    @stream("failing/{kind}", replay=Replay(rows=10))
    async def failing(self, kind: str):
        yield {"n": 1}
        if kind == "transient":
            raise UpstreamError(leak(self.settings))
        if kind == "permanent":
            raise ConfigError(leak(self.settings))
        raise KeyError(leak(self.settings))

    @failing.subscribe
    async def may(self, user, kind: str) -> None:
        if kind == "guarded":
            raise RuntimeError(leak(self.settings))

    @failing.publish
    async def push(self, data: int, kind: str) -> None:
        raise RuntimeError(leak(self.settings))

    @query
    async def ask(self, q: Query) -> Frame:
        raise RuntimeError(leak(self.settings))

    @query
    async def notice(self, q: Query) -> Frame:
        text = leak(self.settings)
        notices = (Notice(severity="warning", text=text),)
        return Frame(meta=FrameMeta(notices=notices, executed_query_string=text))

    @resource("thing")
    async def thing(self) -> None:
        raise RuntimeError(leak(self.settings))


class Collected(logging.Handler):
    """What each formatter and the console's buffer make of all records."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.texts = []
        self.buffer = LogBuffer(lambda line, path, error: self.texts.extend((line, path, error)))

    def emit(self, record):
        self.texts += JsonLines().format(record), TextLines().format(record)
        self.buffer.emit(record)


def check(shown):
    """No 16 characters of a secret, in any spelling; `shown` has texts and bytes."""
    texts = [text if isinstance(text, str) else bytes(text).decode("latin-1") for text in shown]
    assert any("***" in text for text in texts)
    planted = set()
    for value in (PASSWORD, TOKEN, *PEM_LINES):
        for write in SPELLINGS.values():
            inner = write(value).strip("\"'=b\\")
            if len(inner) >= PART and "Basic" not in str(write):
                planted |= parts_of(inner[8:], PART)
    for text in texts:
        found = planted & parts_of(text, PART)
        assert not found, (sorted(found)[:3], text[:2000])


@asynccontextmanager
async def collecting():
    root, collected = logging.getLogger(), Collected()
    level = root.level
    root.addHandler(collected)
    root.setLevel(logging.DEBUG)
    try:
        yield collected.texts
    finally:
        root.removeHandler(collected)
        root.setLevel(level)


@pytest.mark.slow
async def test_no_way_out_shows_a_secret():
    shown = []
    async with collecting() as logged, serve_in_memory(Leaking, secrets=SECRETS) as grafana:
        health = await _raw_health(grafana)
        shown += health.message, health.json_details
        json.loads(health.json_details)
        for form in (pb.DataFrameFormat.JSON, pb.DataFrameFormat.ARROW):
            for kind in ("ask", "notice"):
                answers = await query_data(grafana, a_query("A", kind), form=form)
                shown += bytes(answers["A"]), answers["A"].error
                shown += [bytes(chunk) for chunk in await chunks(grafana, a_query("A", kind))]
        shown.append((await grafana.resource("thing")).body)
        for call in (subscribe(grafana, "failing/guarded"), publish(grafana, "failing/any", b"1")):
            with pytest.raises(GRPCError) as refused:
                await call
            shown.append(refused.value.message)
        for path in (
            "x/failing/bug",
            "x/failing/transient",
            "x/failing/permanent",
            "x/yields",
            "failing/bug",
        ):
            with suppress(GRPCError, TimeoutError), anyio.fail_after(0.7):
                async with run_stream(grafana, path) as call:
                    while (packet := await call.recv_message()) is not None:
                        shown.append(packet.data)
                    with pytest.raises(GRPCError) as ended:
                        await call.recv_trailing_metadata()
                    shown.append(ended.value.message)
        shown.append(json.dumps(await grafana.metrics()))
        await grafana.change_settings({"fails": "none"}, SECRETS)
        shown += logged
    check(shown)


async def _raw_health(grafana):
    from tests.grafana.calls import ANN, unary

    request = pb.CheckHealthRequest(plugin_context=grafana.context(ANN))
    return await unary(grafana, "Diagnostics/CheckHealth", request, pb.CheckHealthResponse)


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["settings", "lifespan", "refusal"])
async def test_a_data_source_that_cannot_be_opened_does_not_show_its_secrets(fails):
    shown = []
    async with (
        collecting() as logged,
        serve_in_memory(Leaking, settings={"fails": fails}, secrets=SECRETS) as grafana,
    ):
        for _ in range(2):  # the next call opens it again
            shown.append((await grafana.health())[1])
            shown.append((await query_data(grafana, a_query("A", "ask")))["A"].error)
        with pytest.raises(GRPCError) as refused:
            await subscribe(grafana, "failing/any")
        shown += refused.value.message, *logged
    check(shown)


@pytest.mark.slow
def test_output_that_is_cut_into_log_lines_does_not_show_a_secret():
    kept = Secret("hunter22-hunter22")
    for at in range(LINE_LIMIT - 40, LINE_LIMIT + 20):
        text = "x" * at + "hunter22-hunter22" + "x" * LINE_LIMIT
        for size in (100, 4_096, 65_536):
            data = text.encode()
            pieces = (data[n : n + size] for n in range(0, len(data), size))
            assert "hunter" not in "|".join(_split_lines(pieces))
    assert kept


def test_what_a_process_without_a_host_prints_does_not_show_a_secret(monkeypatch):
    kept, printed = Secret("hunter22"), io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    monkeypatch.setattr(sys, "stderr", printed)
    redact_output("stdout", "stderr")
    redact_output("stdout", "stderr")  # again: changes nothing
    print("user", "hunter", sep=" ", end="")
    print("22!", flush=True)
    print("no line end: hunter22", end="", flush=True)

    def fail():
        raise ValueError("hunter22")

    try:
        fail()
    except ValueError:
        traceback.print_exc()
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    sys.stderr.flush()
    assert "hunter22" not in printed.getvalue() and kept
    assert printed.getvalue().startswith("user ***!\nno line end: ***")
    assert printed.getvalue().count("ValueError: ***") == 2


@pytest.mark.slow
def test_the_consoles_last_error_does_not_show_a_part_of_a_secret():
    kept, errors = Secret("hunter22"), []
    buffer = LogBuffer(lambda line, path, error: errors.append(error))
    for after in range(ERROR_LIMIT - 20, ERROR_LIMIT):
        try:
            raise ValueError("x hunter22" + "-" * after)
        except ValueError:
            buffer.emit(logging.LogRecord("x", 40, "", 0, "failed", (), sys.exc_info()))
    assert kept and len(errors) == 20
    assert not any(f"{'hunter22'[n:]}-" in error for error in errors for n in range(7))


async def test_a_recorded_upstream_does_not_show_a_secret(tmp_path):
    kept = Secret("hunter22")

    async def messages():
        yield 1
        raise ConnectionError("as hunter22")

    with pytest.raises(ConnectionError):
        async for _ in record(messages(), tmp_path / "log"):
            pass
    text = (tmp_path / "log").read_text()
    assert kept and "hunter22" not in text and "as ***" in text


def test_the_message_of_a_bad_setting_does_not_show_a_part_of_a_secret():
    class Bad(Settings):
        n: int = 0

    kept = Secret("hunter22")
    for before in range(60, 80):
        text = "-" * before + "hunter22"
        with pytest.raises(Exception, match="expected int") as error:
            decode_settings(Bad, json.dumps({"n": text}).encode(), {})
        assert "hun" not in str(error.value)
    assert kept


# -- long texts --------------------------------------------------------------------------------


@pytest.mark.virtual
async def test_long_texts_of_errors_and_statuses_are_cut():
    class Long(DataSource):
        @stream("refused", replay=Replay(rows=10))
        async def refused(self):
            yield {"n": 1}
            raise ConfigError("x" * 2_000_000)

        @query
        async def ask(self, q: Query) -> Frame:
            raise UpstreamError("x" * 2_000_000)

        async def health(self) -> Health:
            return Health(ok=False, message="x" * 2_000_000)

    async with serve_in_memory(Long) as grafana:
        assert len((await grafana.health())[1]) < 5_000
        error = (await query_data(grafana, a_query("A", "ask")))["A"].error
        assert len(error) < 5_000 and error.endswith("(2000000 characters)")
        async with run_stream(grafana, "x/refused") as call:
            for _ in range(4):
                assert len((await call.recv_message()).data) < STATUS_LIMIT + 2_000
