"""Topic filters: which topics a query means, and the labels of its series.

    home/kitchen/climate     one topic
    home/+/climate           + is any one level
    home/#                   # is all further levels, also none
    home/{place}/{sensor}     as +, and the level is a label of the series
    home/{path#}             as #, and the levels are a label
    $share/GROUP/home/#      the broker gives each message to one subscriber of the group

A series without named levels has the label `topic`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiostream_ds.errors import BadQuery

__all__ = ["TopicQuery", "check_filter", "check_topic", "matches", "read_topic_query"]

TOPIC_LIMIT = 65_535
"""Maximum bytes of a topic in MQTT."""

TOPICS_CACHED = 10_000
"""Topics of a query whose labels are remembered."""

_NAMED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(#?)\}")
_SHARE = "$share"


class _Level(NamedTuple):
    """A named level of a query."""

    name: str
    position: int
    is_rest: bool
    """Whether it is this level and all further ones."""


class TopicQuery:
    """The topics that one query means.

    Attributes:
        filter: the topic filter, without names.
    """

    __slots__ = ("_columns", "_has_topic", "_levels", "filter")

    def __init__(self, text: str, levels: tuple[_Level, ...]) -> None:
        self.filter = text
        self._levels = levels
        unnamed = sum(each in ("+", "#") for each in _plain(text).split("/")) - len(levels)
        self._has_topic = not levels or unnamed > 0  # else topics may share their names
        self._columns: dict[str, Mapping[str, Any]] = {}

    def columns(self, topic: str) -> Mapping[str, Any]:
        """The column `topic` of a topic's rows: its labels, or the topic itself."""
        found = self._columns.get(topic)
        if found is None:
            if len(self._columns) >= TOPICS_CACHED:
                self._columns.clear()
            found = self._columns[topic] = {"topic": self._labels(topic)}
        return found

    def _labels(self, topic: str) -> str | dict[str, str]:
        if not self._levels:
            return topic
        levels = topic.split("/")
        labels = {
            name: "/".join(levels[position:])
            if is_rest
            else "".join(levels[position : position + 1])
            for name, position, is_rest in self._levels
        }
        return {"topic": topic, **labels} if self._has_topic else labels


def read_topic_query(text: str) -> TopicQuery:
    """The topics that the text of a query means.

    Raises:
        BadQuery: it is not a topic filter.
    """
    shared = len(text.split("/", 2)) if text.startswith(f"{_SHARE}/") else 0
    levels: list[_Level] = []
    plain: list[str] = []
    for index, level in enumerate(text.split("/")):
        named = _NAMED.fullmatch(level)
        if named is None:
            plain.append(level)
            continue
        name, rest = named.groups()
        if name in ("time", "topic") or any(name == each.name for each in levels):
            raise BadQuery(
                "a level must have a name of its own, and not 'time' or 'topic', got"
                f" {level!r} in the topic {text!r}"
            )
        levels.append(_Level(name, index - (2 if shared else 0), bool(rest)))
        plain.append("#" if rest else "+")
    found = "/".join(plain)
    check_filter(found)
    return TopicQuery(found, tuple(levels))


def check_filter(text: str) -> None:
    """Check a topic filter: some brokers end the connection for one that is invalid, others never
    answer.

    Raises:
        BadQuery: it is not a topic filter; the message names it and what is wrong.
    """
    _check_text(text)
    if text == _SHARE or text.startswith(f"{_SHARE}/"):
        parts = text.split("/", 2)
        if len(parts) < 3 or not parts[1] or not parts[2] or "+" in parts[1] or "#" in parts[1]:
            raise BadQuery(
                f"a shared subscription must be $share/GROUP/FILTER, got the topic {text!r}"
            )
    levels = _plain(text).split("/")
    for index, level in enumerate(levels):
        if "#" in level and (level != "#" or index < len(levels) - 1):
            raise BadQuery(f"# must be the whole last level of a topic, got {text!r}")
        if "+" in level and level != "+":
            raise BadQuery(f"+ must be a whole level of a topic, got {text!r}")


def check_topic(text: str) -> None:
    """Check the topic of one message.

    Raises:
        BadQuery: it is not a topic, or has wildcards.
    """
    _check_text(text)
    if "+" in text or "#" in text:
        raise BadQuery(f"expected a topic without + and # to publish to, got {text!r}")
    if text == _SHARE or text.startswith(f"{_SHARE}/"):
        raise BadQuery(f"expected a topic that does not begin with $share, got {text!r}")


def _check_text(text: str) -> None:
    if not text:
        raise BadQuery("topic must be a topic, as home/kitchen/climate, got ''")
    if "\0" in text:
        raise BadQuery(f"a topic must not have the character U+0000, got {text!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadQuery(f"a topic must be text that UTF-8 can encode, got {text!r}") from None
    if size > TOPIC_LIMIT:
        raise BadQuery(f"a topic must have at most {TOPIC_LIMIT:,} bytes, got {size:,}")


def matches(text: str, topic: str) -> bool:
    """Whether a topic filter matches a topic. Wildcards do not match a first level with `$`."""
    filters, levels = _plain(text).split("/"), topic.split("/")
    if topic.startswith("$") and filters[0] in ("+", "#"):
        return False
    for index, level in enumerate(filters):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(filters) == len(levels)


def _plain(text: str) -> str:
    """The filter of a shared subscription; any other as it is."""
    parts = text.split("/", 2)
    return parts[2] if parts[0] == _SHARE and len(parts) == 3 else text
