"""Which subjects a query means, and the labels of its series.

    home.kitchen.climate     one subject
    home.*.climate           * is any one token
    home.>                   > is all further tokens, at least one
    home.{place}.{sensor}    as *, and the token is a label of the series
    home.{path>}             as >, and the tokens are a label

A series without named tokens has the label `subject`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiostream_ds.errors import BadQuery

__all__ = [
    "EVERYTHING",
    "SubjectQuery",
    "check_subject",
    "check_subject_filter",
    "is_match",
    "read_subject_query",
]

EVERYTHING = ">"
"""The filter that all subjects match."""

SUBJECT_LIMIT = 1_000
"""Maximum bytes of a subject; servers allow 4,096 for a whole line."""

SUBJECTS_CACHED = 10_000
"""Subjects of a query whose labels are remembered."""

INTERNAL = ("$", "_INBOX.")
"""How subjects begin that a wildcard in the first token leaves out: those of the server, and
answers."""

_NAMED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(>?)\}")
_WILDCARDS = ("*", ">")
_DELIVERY = "$JS.ACK."


class _Token(NamedTuple):
    """A named token of a query."""

    name: str
    position: int
    is_rest: bool
    """Whether it is this token and all further ones."""


class SubjectQuery:
    """The subjects that one query means.

    Attributes:
        filter: the subject to subscribe to, without names.
    """

    __slots__ = ("_columns", "_has_subject", "_leaves_out", "_tokens", "filter")

    def __init__(self, filter: str, tokens: tuple[_Token, ...]) -> None:
        self.filter = filter
        self._tokens = tokens
        parts = filter.split(".")
        self._leaves_out = INTERNAL if parts[0] in _WILDCARDS else ()
        unnamed = sum(each in _WILDCARDS for each in parts) - len(tokens)
        self._has_subject = not tokens or unnamed > 0  # else subjects may share their names
        self._columns: dict[str, Mapping[str, Any]] = {}

    def is_for(self, subject: str, reply: str = "") -> bool:
        """Whether the query means a message that matches its filter. A wildcard in the first token
        also gets what is delivered to the readers of streams: that has such a reply subject."""
        if not self._leaves_out:
            return True
        return not (subject.startswith(self._leaves_out) or reply.startswith(_DELIVERY))

    def columns(self, subject: str) -> Mapping[str, Any]:
        """The column `subject` of a subject's rows: its labels, or the subject itself."""
        found = self._columns.get(subject)
        if found is None:
            if len(self._columns) >= SUBJECTS_CACHED:
                self._columns.clear()
            found = self._columns[subject] = {"subject": self._labels(subject)}
        return found

    def _labels(self, subject: str) -> str | dict[str, str]:
        if not self._tokens:
            return subject
        parts = subject.split(".")
        labels = {
            name: ".".join(parts[position:]) if is_rest else "".join(parts[position : position + 1])
            for name, position, is_rest in self._tokens
        }
        return {"subject": subject, **labels} if self._has_subject else labels


def read_subject_query(text: str) -> SubjectQuery:
    """The subjects that the text of a query means.

    Raises:
        BadQuery: it is not a subject; the message names it and what is wrong.
    """
    tokens: list[_Token] = []
    plain: list[str] = []
    for position, token in enumerate(text.split(".")):
        named = _NAMED.fullmatch(token)
        if named is None:
            plain.append(token)
            continue
        name, rest = named.groups()
        if name in ("time", "subject", "sequence") or any(name == each.name for each in tokens):
            raise BadQuery(
                "a token must have a name of its own, and not 'time', 'subject' or 'sequence', got"
                f" {token!r} in the subject {text!r}"
            )
        tokens.append(_Token(name, position, bool(rest)))
        plain.append(">" if rest else "*")
    found = ".".join(plain)
    check_subject_filter(found)
    return SubjectQuery(found, tuple(tokens))


def check_subject_filter(text: str) -> None:
    """Check a subject, which may have wildcards: another text would be another command.

    Raises:
        BadQuery: it is not a subject.
    """
    if not text:
        raise BadQuery("subject must be a subject, as home.kitchen.climate, got ''")
    if any(char.isspace() or not char.isprintable() for char in text):
        raise BadQuery(f"a subject must not have spaces or control characters, got {text!r}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise BadQuery(f"a subject must be text that UTF-8 can encode, got {text!r}") from None
    if size > SUBJECT_LIMIT:
        raise BadQuery(f"a subject must have at most {SUBJECT_LIMIT:,} bytes, got {size:,}")
    parts = text.split(".")
    for position, token in enumerate(parts):
        if not token:
            raise BadQuery(f"a subject must not have an empty token, got {text!r}")
        if ">" in token and (token != ">" or position < len(parts) - 1):
            raise BadQuery(f"> must be the whole last token of a subject, got {text!r}")
        if "*" in token and token != "*":
            raise BadQuery(f"* must be a whole token of a subject, got {text!r}")


def check_subject(text: str) -> None:
    """Check the subject of one message.

    Raises:
        BadQuery: it is not a subject, or has wildcards.
    """
    check_subject_filter(text)
    if any(token in _WILDCARDS for token in text.split(".")):
        raise BadQuery(f"expected a subject without * and > to publish to, got {text!r}")


def is_match(filter: str, subject: str) -> bool:
    """Whether a subject with wildcards matches one without, and is meant to: see `INTERNAL`."""
    wanted, tokens = filter.split("."), subject.split(".")
    if wanted[0] in _WILDCARDS and subject.startswith(INTERNAL):
        return False
    for index, token in enumerate(wanted):
        if index >= len(tokens):
            return False
        if token == ">":
            return True
        if token not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)
