"""Which topics a filter matches, which filters are refused, and the labels of series."""

import pytest

from aiostream_ds import BadQuery
from aiostream_ds.sources.mqtt.topic_filters import (
    check_filter,
    check_topic,
    matches,
    read_topic_query,
)


@pytest.mark.parametrize(
    ("text", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b", "a", False),
        ("a/+", "a/b", True),
        ("a/+", "a/", True),
        ("a/+", "a", False),
        ("a/+/c", "a/b/c", True),
        ("+/+", "/b", True),
        ("+", "/b", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("#", "$SYS/uptime", False),
        ("+/uptime", "$SYS/uptime", False),
        ("$SYS/#", "$SYS/uptime", True),
        ("$SYS/+", "$SYS/uptime", True),
        ("$share/g/a/+", "a/b", True),
        ("$share/g/a/+", "g/a/b", False),
        ("$share/g/#", "$SYS/uptime", False),
        ("A", "a", False),
        ("grün/+", "grün/ä", True),
    ],
)
def test_a_filter_matches_by_levels(text, topic, expected):
    check_filter(text)
    assert matches(text, topic) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a topic"),
        ("a/#/b", "# must be the whole last level of a topic, got 'a/#/b'"),
        ("a#", "# must be the whole last level"),
        ("a/b+", "must be a whole level of a topic, got 'a/b"),
        ("++", "must be a whole level"),
        ("a\0b", "U\\+0000"),
        ("a" * 65_536, "at most 65,535 bytes, got 65,536"),
        ("\ud800", "UTF-8"),
        ("$share", "GROUP/FILTER"),
        ("$share/g", "GROUP/FILTER"),
        ("$share//a", "GROUP/FILTER"),
        ("$share/g/", "GROUP/FILTER"),
        ("$share/+/a", "GROUP/FILTER"),
        ("{a}/{a}", "a name of its own"),
        ("{time}", "not 'time' or 'topic'"),
        ("{topic}/a", "not 'time' or 'topic'"),
        ("{a#}/b", "last level"),
    ],
)
def test_a_text_that_is_not_a_filter_is_refused(text, message):
    with pytest.raises(BadQuery, match=message):
        read_topic_query(text)


@pytest.mark.parametrize("text", ["a/+", "#", "", "$share/g/a", "a\0"])
def test_a_text_that_is_not_a_topic_is_refused(text):
    with pytest.raises(BadQuery):
        check_topic(text)
    check_topic("a/{b}/ c")


@pytest.mark.parametrize(
    ("text", "filter_", "topic", "labels"),
    [
        ("a/b", "a/b", "a/b", "a/b"),
        ("a/+", "a/+", "a/b", "a/b"),
        ("{site}/{sensor}", "+/+", "x/y", {"site": "x", "sensor": "y"}),
        ("a/{place}/c", "a/+/c", "a/b/c", {"place": "b"}),
        ("a/{place}/+", "a/+/+", "a/b/c", {"topic": "a/b/c", "place": "b"}),
        ("a/{place}/#", "a/+/#", "a/b", {"topic": "a/b", "place": "b"}),
        ("a/{rest#}", "a/#", "a/b/c", {"rest": "b/c"}),
        ("a/{rest#}", "a/#", "a", {"rest": ""}),
        ("$share/g/a/{place}", "$share/g/a/+", "a/b", {"place": "b"}),
        ("a/{not a name}", "a/{not a name}", "a/{not a name}", "a/{not a name}"),
        ("a/{b}c", "a/{b}c", "a/{b}c", "a/{b}c"),
    ],
)
def test_named_levels_are_labels(text, filter_, topic, labels):
    query = read_topic_query(text)
    assert query.filter == filter_
    assert query.columns(topic) == {"topic": labels}
