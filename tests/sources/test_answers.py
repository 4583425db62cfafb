"""What the answers of web servers mean: `Retry-After`, statuses, close codes."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds.errors import PluginError
from aiostream_ds.sources.http_client.answers import LONGEST_WAIT, answer_error, retry_after
from aiostream_ds.sources.websocket.close_codes import close_error


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), (" 5 ", 5), ("9" * 40, LONGEST_WAIT)], ids=str
)
def test_a_wait_is_seconds(value, seconds):
    assert retry_after(value) == seconds


def test_a_wait_is_until_a_date():
    def wait(**later: float) -> float:
        return retry_after(format_datetime(datetime.now(UTC) + timedelta(**later), usegmt=True))

    assert 60 <= wait(seconds=100) <= 100
    assert wait(days=-1) == 0
    assert wait(days=9) == LONGEST_WAIT
    naive = format_datetime((datetime.now(UTC) + timedelta(seconds=100)).replace(tzinfo=None))
    assert naive.endswith("-0000") and 60 <= retry_after(naive) <= 100


@pytest.mark.parametrize("value", ["", "-1", "1.5", "soon", "٣", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_any_other_wait_is_none(value):
    assert retry_after(value) is None


@given(st.text(max_size=60), st.integers(100, 999), st.text(max_size=300))
def test_every_answer_is_an_error_in_one_line(value, status, text):
    headers = {"Retry-After": value, "Location": value}
    error = answer_error(status, headers, text, "http://h", False)
    assert isinstance(error, PluginError)
    assert str(status) in error.message and "\n" not in error.message


@given(st.one_of(st.none(), st.integers(0, 65535)), st.text(max_size=125), st.booleans())
def test_every_close_code_is_an_error_in_one_line(code, reason, had_messages):
    error = close_error(code, reason, "ws://h", had_messages=had_messages)
    assert isinstance(error, PluginError) and error.message.isprintable()


def test_what_a_server_writes_is_shown_if_it_is_a_sentence():
    def shown(text):
        return answer_error(500, {}, text, "http://h", False).message

    assert shown("no such\n  luck") == "http://h answers 500 Internal Server Error: no such luck"
    assert (
        shown("<html>x</html>") == shown("\x1b[31m") == "http://h answers 500 Internal Server Error"
    )
    assert len(shown("x " * 500)) < 300
