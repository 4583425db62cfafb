"""Log lines that Grafana's reader accepts, redacted secrets, and counters."""

import io
import json
import logging
import logging.config
import re
import sys
from enum import IntEnum

import pytest

from aiostream_ds import Secret
from aiostream_ds import _telemetry as telemetry
from aiostream_ds._redaction import redact
from aiostream_ds._telemetry import Counters, JsonLines, TextLines

READER_LIMIT = 64 * 1024


def record(message="hello", *args, level=logging.INFO, error=None, **extra):
    info = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("a.module", level, __file__, 1, message, args, info)
    vars(made).update(extra)
    return made


def line(*args, **options):
    text = JsonLines().format(record(*args, **options))
    assert "\n" not in text and len(text.encode()) < READER_LIMIT
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def raised(error):
    try:
        raise error
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "level, word",
    [(10, "debug"), (20, "info"), (30, "warn"), (40, "error"), (50, "error"), (25, "info")],
)
def test_message_level_and_timestamp_are_strings_and_the_level_is_hclogs(level, word):
    found = line("n is %d", 3, level=level)
    assert (found["@message"], found["@level"], found["@module"]) == ("n is 3", word, "a.module")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", found["@timestamp"])


@pytest.mark.parametrize("message", [None, 5, {"a": 1}, b"x"])
def test_a_message_of_any_type_becomes_a_string(message):
    assert isinstance(line(message)["@message"], str)


def test_the_timestamp_has_six_fraction_digits_also_at_a_full_second():
    made = record()
    made.created = 1_700_000_000.0
    assert json.loads(JsonLines().format(made))["@timestamp"] == "2023-11-14T22:13:20.000000Z"


def test_extra_values_are_additional_keys():
    assert line(path="a/b", tries=3, done=True)["path"] == "a/b"


def test_an_extra_value_never_replaces_message_level_or_timestamp():
    assert line(**{"@message": 5, "@level": None})["@message"] == "hello"


class Colour(IntEnum):
    RED = 1


class Unprintable:
    def __str__(self):
        raise ValueError("no")


@pytest.mark.parametrize(
    "value, shown",
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (3**900, str(3**900)),  # no run of equal digits: tests of secrets may have kept such ones
        ({"a": {1}}, "{'a': {1}}"),
        (None, "None"),
        (b"x", "b'x'"),
        (Colour.RED, 1),
        (1.5, 1.5),
        (Unprintable(), "<Unprintable: ValueError when it was printed>"),
    ],
)
def test_an_extra_value_of_any_type_can_be_written(value, shown):
    assert line(value=value)["value"] == shown


@pytest.mark.parametrize("character", ["x", "\n", "\0", "ü", "€", "😀", '"'])
def test_a_line_is_shorter_than_the_limit_of_the_reader(character):
    long = character * 200_000
    found = line(long, error=raised(ValueError(long)), path=long)
    assert "200000 characters" in found["@message"]
    assert found["@message"].startswith(character * 100)
    assert {"@level", "@timestamp", "@module", "error"} <= found.keys()


def test_a_long_traceback_keeps_its_end():
    found = line("failed", error=raised(ValueError("x" * 100_000 + " the end")))
    assert found["error"].endswith("the end")
    assert found["@message"] == "failed"


def test_a_traceback_is_in_the_key_error():
    found = line("failed", error=raised(KeyError("k")))
    assert found["error"].startswith("Traceback") and found["error"].endswith("KeyError: 'k'")


def test_secrets_are_replaced_in_every_part_of_a_line():
    kept = Secret("hunter22")
    found = line(
        "as %s",
        "hunter22",
        error=raised(ValueError("hunter22")),
        url="x:hunter22@y",
        settings={"password": "hunter22"},
    )
    assert "hunter22" not in json.dumps(found)
    assert found["@message"] == "as ***" and found["url"] == "x:***@y"
    text = TextLines().format(record("as %s", "hunter22", error=raised(ValueError("hunter22"))))
    assert "hunter22" not in text and "as ***" in text
    assert kept


def test_a_secret_that_contains_another_is_replaced_completely():
    both = Secret("abcd"), Secret("abcdefgh"), Secret("abcd")
    assert redact("abcdefgh abcd") == "*** ***"
    assert both


def test_short_secrets_and_secrets_that_no_longer_exist_are_not_replaced():
    kept = Secret("abc")
    assert redact("abc") == "abc" and kept
    gone = Secret("only here")
    del gone
    assert redact("only here") == "only here"


@pytest.fixture
def root():
    """The root logger, restored after the test, and the others, which a test may disable."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    for other in logger.manager.loggerDict.values():
        if isinstance(other, logging.Logger):
            other.disabled = False
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.captureWarnings(False)


def test_configure_writes_all_logging_to_one_stream(root):
    stream = io.StringIO()
    telemetry.configure(stream, level="warn")
    logging.getLogger("x").info("not this")
    logging.getLogger("x").warning("this")
    assert [json.loads(text)["@message"] for text in stream.getvalue().splitlines()] == ["this"]


def test_configure_writes_text_for_a_terminal(root):
    stream = io.StringIO()
    telemetry.configure(stream, text=True)
    logging.getLogger("x").info("hello")
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO    hello\n", stream.getvalue())


ROOT_TO_STDERR = {
    "version": 1,
    "handlers": {"own": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["own"], "level": "ERROR"},
}


def _file_config():
    text = """
[loggers]
keys=root
[handlers]
keys=own
[formatters]
keys=
[logger_root]
level=ERROR
handlers=own
[handler_own]
class=StreamHandler
args=(sys.stderr,)
"""
    logging.config.fileConfig(io.StringIO(text))


CONFIGURED = {
    "dictConfig": lambda: logging.config.dictConfig({"version": 1}),
    "dictConfig of the root": lambda: logging.config.dictConfig(ROOT_TO_STDERR),
    "fileConfig": _file_config,
    "basicConfig": lambda: logging.basicConfig(force=True, level="ERROR"),
}


@pytest.mark.parametrize("how", CONFIGURED)
@pytest.mark.parametrize("name", ["aiostream_ds._streams.supervisor", "aiostream_ds.audit"])
def test_an_authors_configuration_of_logging_does_not_silence_the_runtime(root, how, name, capsys):
    from aiostream_ds._grafana import authorization  # noqa: F401  # makes the logger of the audit
    from aiostream_ds._streams import supervisor  # noqa: F401

    stream = io.StringIO()
    telemetry.configure(stream)
    CONFIGURED[how]()
    logging.getLogger(name).info("the stream failed")
    logging.getLogger(name).debug("not this")
    lines = [json.loads(text)["@message"] for text in stream.getvalue().splitlines()]
    assert lines == ["the stream failed"]
    # a handler that writes to stderr would make a log line of it again
    assert "the stream failed" not in capsys.readouterr().err


def test_the_error_for_a_bad_level_names_it(root):
    with pytest.raises(ValueError, match="must be debug, info, warn or error, got 'loud'"):
        telemetry.configure(io.StringIO(), level="loud")


def test_a_closed_stream_does_not_stop_the_caller(root, monkeypatch):
    stream, errors = io.StringIO(), io.StringIO()
    telemetry.configure(stream)
    stream.close()
    errors.close()
    monkeypatch.setattr(sys, "stderr", errors)
    logging.getLogger("x").error("nobody reads this")


def test_durations_are_counted_in_buckets():
    counters = Counters()
    for seconds in (0.001, 0.002, 100.0):
        counters.count_request("query", "ok", seconds)
    ((endpoint, counts, total),) = counters.durations()
    assert (endpoint, total) == ("query", pytest.approx(100.003))
    assert counts == [1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert counters.requests == {("query", "ok"): 3}


def test_a_surrogate_is_written_as_an_escape():
    assert redact("file \udcff") == "file \\udcff"


@pytest.mark.parametrize("written", ["p@ss'w\\rd", repr("p@ss'w\\rd"), "p%40ss%27w%5Crd"])
def test_a_secret_is_hidden_in_every_spelling(written):
    secret = Secret("p@ss'w\\rd")
    shown = redact(f"amqp://me:{written}@host")
    assert "rd" not in shown
    assert secret
