"""The parts that need no server: subjects, labels, positions, names, settings."""

import pytest

from aiostream_ds import BadQuery, ConfigError
from aiostream_ds.settings import Secret
from aiostream_ds.sources.nats.connection_settings import NatsSettings, access_of
from aiostream_ds.sources.nats.jetstream_api import StreamFacts, check_stream_name
from aiostream_ds.sources.nats.ordered_consumer import StreamMessage
from aiostream_ds.sources.nats.sequence_position import (
    SequenceChange,
    SequencePosition,
    StreamPart,
)
from aiostream_ds.sources.nats.subject_filters import (
    check_subject,
    check_subject_filter,
    is_match,
    read_subject_query,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a subject"),
        ("a..b", "empty token, got 'a..b'"),
        (".a", "empty token"),
        ("a.", "empty token"),
        ("a.>.b", "> must be the whole last token of a subject, got 'a.>.b'"),
        ("a>", "> must be the whole last token"),
        ("a.b*", r"\* must be a whole token of a subject, got 'a.b"),
        ("a b", "spaces or control characters"),
        ("a\r\nPUB b 0", "spaces or control characters"),
        ("a\tb", "spaces or control characters"),
        ("a\0", "spaces or control characters"),
        ("\ud800", "control characters|UTF-8"),
        ("a" * 1_001, "at most 1,000 bytes, got 1,001"),
    ],
)
def test_what_is_not_a_subject_is_refused(text, message):
    with pytest.raises(BadQuery, match=message):
        check_subject_filter(text)


@pytest.mark.parametrize("text", ["a", "a.*.c", "*", ">", "a.>", "grün.ä", "$JS.>", "{a}.b{c"])
def test_subjects_with_and_without_wildcards_are_accepted(text):
    check_subject_filter(read_subject_query(text).filter)


@pytest.mark.parametrize(
    ("text", "filter", "subject", "labels"),
    [
        ("a.b", "a.b", "a.b", "a.b"),
        ("a.*", "a.*", "a.b", "a.b"),
        ("a.{place}", "a.*", "a.b", {"place": "b"}),
        ("{x}.{y}", "*.*", "a.b", {"x": "a", "y": "b"}),
        ("a.{rest>}", "a.>", "a.b.c", {"rest": "b.c"}),
        ("a.{x}.*", "a.*.*", "a.b.c", {"subject": "a.b.c", "x": "b"}),
        ("a.{x}.>", "a.*.>", "a.b.c", {"subject": "a.b.c", "x": "b"}),
    ],
)
def test_tokens_in_braces_are_labels(text, filter, subject, labels):
    query = read_subject_query(text)
    assert query.filter == filter
    assert query.columns(subject) == {"subject": labels}


@pytest.mark.parametrize("text", ["{time}", "{subject}.a", "{sequence}", "{a}.{a}", "{a>}.b"])
def test_names_of_tokens_that_cannot_be_labels_are_refused(text):
    with pytest.raises(BadQuery):
        read_subject_query(text)


@pytest.mark.parametrize(
    ("text", "subject", "expected"),
    [
        (">", "a.b", True),
        (">", "$JS.API.INFO", False),
        ("*.>", "_INBOX.abc", False),
        (">", "_INBOXES.a", True),
        ("$JS.>", "$JS.API.INFO", True),
        ("_INBOX.>", "_INBOX.abc", True),
    ],
)
def test_a_wildcard_in_the_first_token_leaves_out_what_servers_and_answers_use(
    text, subject, expected
):
    assert read_subject_query(text).is_for(subject) is expected
    delivered = "$JS.ACK.ORDERS.c.1.1.1.1.0"
    is_anywhere = text[0] in "*>"
    assert read_subject_query(text).is_for(subject, delivered) is not is_anywhere


@pytest.mark.parametrize(
    ("filter", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a", False),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        (">", "$JS.API.STREAM.DELETE.ORDERS", False),
        ("$JS.>", "$JS.API.INFO", True),
    ],
)
def test_a_subject_is_matched_by_tokens(filter, subject, expected):
    assert is_match(filter, subject) is expected


@pytest.mark.parametrize("text", ["", "a.*", "a.>", "*", "a b"])
def test_a_message_is_published_to_one_subject(text):
    with pytest.raises(BadQuery):
        check_subject(text)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", "a>", "a/b", "a\\b", "a\r\n", "a\x00"])
def test_what_no_stream_can_be_named_is_refused(name):
    with pytest.raises(BadQuery, match="must be the name of a stream"):
        check_stream_name(name)


def facts(first, last, created="monday", has_gaps=False):
    return StreamFacts(created, first, last, (), 0, False, has_gaps)


def position(last, has_filter=False, complete=None):
    found = SequencePosition("monday", last, has_filter=has_filter)
    found.complete = last if complete is None else complete
    return found


@pytest.mark.parametrize(
    ("at", "found", "change"),
    [
        # the next message to read follows directly, or there is none
        (position(5), facts(1, 9), None),
        (position(5), facts(6, 9), None),
        (position(5), facts(6, 5), None),
        (position(0), facts(1, 0), None),
        # messages after the position were removed
        (position(5), facts(8, 9), SequenceChange(7, 2)),
        (position(5), facts(10, 9), SequenceChange(9, 4)),
        (position(5), facts(8, 9, has_gaps=True), SequenceChange(7, None)),
        (position(5, has_filter=True), facts(8, 9), SequenceChange(7, None)),
        # of a filter, up to 8 there was none
        (position(5, has_filter=True, complete=8), facts(9, 9), None),
        (position(5, has_filter=True, complete=8), facts(10, 12), SequenceChange(9, None)),
        # the numbering restarts
        (position(5), facts(3, 9, "tuesday"), SequenceChange(2, None, "new")),
        (position(5), facts(1, 4), SequenceChange(4, None, "shorter")),
        (position(5, has_filter=True, complete=8), facts(1, 7), SequenceChange(7, None, "shorter")),
        (SequencePosition("", -1, has_filter=False), facts(1, 2), SequenceChange(0, None, "found")),
    ],
)
def test_a_position_is_compared_with_the_stream(at, found, change):
    assert at.begin(found) == change
    if change is not None:
        assert at.last == at.complete == change.upto
    assert at.begin(found) is None


def message(sequence):
    return StreamMessage(sequence, 0, "a", {}, b"")


def test_messages_that_were_removed_between_others_are_counted():
    at = position(5)
    one, two, five, six = map(message, (6, 7, 10, 11))
    assert list(at.read([one, two, five, six])) == [
        StreamPart([one, two]),
        StreamPart(change=SequenceChange(9, 2)),
        StreamPart([five, six]),
    ]
    assert list(at.read([message(14)])) == [
        StreamPart(change=SequenceChange(13, 2)),
        StreamPart([message(14)]),
    ]
    assert at.last == 14


def test_gaps_between_the_messages_of_some_subjects_are_none():
    at = position(5, has_filter=True)
    messages = [message(8), message(20)]
    assert list(at.read(messages)) == [StreamPart(messages)]
    at.check(facts(1, 25))
    at.reached_end()
    assert (at.last, at.complete) == (20, 25)


def settings(**changes):
    secrets = {name: Secret(changes.pop(name, "")) for name in ("password", "token", "credentials")}
    return NatsSettings(**{"servers": "nats://a"} | secrets | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"servers": ""}, "got none"),
        ({"servers": "http://a"}, "must begin with nats:// or tls://"),
        (
            {"servers": "nats://u:secret@a"},
            "without a login, which viewers could read, got one at a",
        ),
        ({"servers": "nats://secret@a"}, "without a login"),
        ({"servers": "nats://u:secret,s@a, nats://b"}, "got one at a;"),
        ({"servers": "nats://u:secret s@a"}, "got one at a;"),
        ({"servers": f"nats://{'a' * 70}"}, "must be host names or addresses"),
        ({"user": "u", "token": "secret"}, "got user and token"),
        ({"token": "t", "credentials": "secret"}, "got token and credentials"),
        ({"credentials": "secret"}, "must have a block NATS USER JWT"),
        ({"caCertificate": "no", "ca_certificate": "no"}, "caCertificate must"),
    ],
)
def test_settings_that_do_not_fit_are_named_without_secrets(changes, message):
    changes.pop("caCertificate", None)
    with pytest.raises(ConfigError, match=message) as caught:
        access_of(settings(**changes))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"servers": "nats://a, tls://b"}, True),
        ({"server_name": "b"}, True),
        ({"skip_verify": True}, True),
    ],
)
def test_tls_is_demanded_with_its_scheme_or_its_settings(changes, expected):
    assert (access_of(settings(**changes)).tls is not None) is expected
