"""Channel paths: patterns such as `sensors/{id:int}`, which match a path and format one.

A value has exactly one spelling in a path: `format` returns what `match` accepts, character for
character. Two viewers of the same values therefore always share one channel.

    literal     exactly these characters
    {name}      one segment of safe characters
    {n:int}     an integer            {x:float}   a finite number, as Python's repr
    {b:bool}    true or false         {d:date}    a date, as 2026-01-31
    {i:uuid}    a UUID
    {t:any}     any string, as base64url without padding
    {u:user}    the same; a user's login: only that user may follow the path
    {p:rest}    the remaining segments, with their slashes; only at the end

A question mark, as in `{name?}` or `{n:int?}`, adds the value None, which a path has as `-`.
"""

import base64
import binascii
import keyword
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from aiostream_ds.errors import BadQuery

__all__ = [
    "CHANNEL_LIMIT",
    "KINDS",
    "NULL",
    "PATH_LIMIT",
    "SAFE",
    "Nullable",
    "PathKind",
    "Pattern",
    "channel",
]

CHANNEL_LIMIT = 160
"""Most characters of `ds/<uid>/<path>`; Grafana refuses a longer channel."""

PATH_LIMIT = CHANNEL_LIMIT - len("ds/u/")
"""Most characters of a path, with a uid of one character."""

# the kinds of path fields by name
KINDS: "dict[str, PathKind]" = {}

NULL = "-"
"""The segment for None, in a field that may be None."""

SAFE = "letters, digits and the characters _ - = ."
"""What a segment of a path consists of."""

_SEGMENT = re.compile(r"[A-Za-z0-9_\-=.]+")
_UID = re.compile(r"[A-Za-z0-9_\-.]+")
_INT = re.compile(r"0|-?[1-9][0-9]*")
_BASE64 = re.compile(r"[A-Za-z0-9_\-]+")
_FIELD = re.compile(r"\{([^{}:?]*)(?::([^{}:?]*))?(\?)?\}")


class PathKind:
    """One kind of path field: how its values are matched, checked and formatted.

    A subclass is the kind with its `name`; nothing else has to be registered.
    """

    name: str
    type: type = str
    """The type of the values."""
    samples: tuple[str, ...]
    """The shortest texts of this kind, and for each other kind the shortest one that it matches
    too, if there is one. `Pattern.overlaps` decides by them."""
    spans_segments: bool = False
    """Whether a value may contain slashes; such a field is the last of its pattern."""
    is_encoded: bool = False
    """Whether a path has the values encoded."""
    is_nullable: bool = False
    """Whether None is a value."""

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            KINDS[cls.name] = cls()

    def match(self, text: str) -> Any:
        """The value that `text` spells, or None."""
        raise NotImplementedError

    def check(self, value: object) -> None:
        """Raises BadQuery for a value that no path can contain: "must be …, got …"."""
        raise NotImplementedError

    def format(self, value: object) -> str:
        """The text of a value, checked."""
        raise NotImplementedError

    def field(self, name: str) -> str:
        """A field of this kind, as a pattern spells it."""
        return f"{{{name}:{self.name}}}"


class Segment(PathKind):
    """One segment of safe characters."""

    name = "segment"
    samples = ("0",)

    def match(self, text: str) -> str | None:
        return text if _is_segment(text) else None

    def check(self, value: object) -> None:
        if not isinstance(value, str):
            raise BadQuery(f"must be a string, got {value!r}")
        if not _is_segment(value):
            raise BadQuery(f"must be of {SAFE}, and not '', '.' or '..', got {value!r}")

    def format(self, value: object) -> str:
        self.check(value)
        return str(value)

    def field(self, name: str) -> str:
        return f"{{{name}}}"


class Integer(PathKind):
    """An integer in decimal digits."""

    name = "int"
    type = int
    samples = ("0", "140")  # "140" is the base64 of a letter

    def match(self, text: str) -> int | None:
        return int(text) if _INT.fullmatch(text) else None

    def check(self, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadQuery(f"must be an integer, got {value!r}")
        if abs(value) >= 10**CHANNEL_LIMIT:  # Python refuses to format far longer integers
            raise BadQuery(
                f"must be an integer of at most {CHANNEL_LIMIT} digits, got a longer one"
            )

    def format(self, value: object) -> str:
        self.check(value)
        return str(value)


class Float(PathKind):
    """A finite number, as `repr` writes it, but without a plus sign."""

    name = "float"
    type = float
    samples = ("0.0",)  # never an integer, nor the base64 of a string

    def match(self, text: str) -> float | None:
        try:
            number = float(text)
        except ValueError:
            return None
        return number if math.isfinite(number) and self.format(number) == text else None

    def check(self, value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise BadQuery(f"must be a number, got {value!r}")
        try:
            finite = math.isfinite(value)
        except OverflowError:
            finite = False
        if not finite:
            raise BadQuery(f"must be a finite number, got {value!r}")

    def format(self, value: object) -> str:
        self.check(value)
        number = float(value) + 0.0  # type: ignore[arg-type]  # -0.0 and 0.0 have one spelling
        return repr(number).replace("+", "")  # 1e+22: a path has no plus sign


class Boolean(PathKind):
    """`true` or `false`."""

    name = "bool"
    type = bool
    samples = ("true",)  # neither is the base64 of a string

    def match(self, text: str) -> bool | None:
        return {"true": True, "false": False}.get(text)

    def check(self, value: object) -> None:
        if not isinstance(value, bool):
            raise BadQuery(f"must be true or false, got {value!r}")

    def format(self, value: object) -> str:
        self.check(value)
        return "true" if value else "false"


class Date(PathKind):
    """A date in ISO 8601's extended format, such as 2026-01-31."""

    name = "date"
    type = date
    samples = ("2000-01-01",)  # never the base64 of a string: its last character has spare bits

    def match(self, text: str) -> date | None:
        try:
            value = date.fromisoformat(text)
        except ValueError:
            return None
        return value if value.isoformat() == text else None

    def check(self, value: object) -> None:
        if not isinstance(value, date) or isinstance(value, datetime):
            raise BadQuery(f"must be a date, got {value!r}")

    def format(self, value: object) -> str:
        self.check(value)
        return str(value)


class Uuid(PathKind):
    """A UUID in lower case, with its hyphens."""

    name = "uuid"
    type = UUID
    samples = ("0" * 8 + "-0000-0000-0000-" + "0" * 12,)  # a hyphen's bits are not UTF-8 there

    def match(self, text: str) -> UUID | None:
        try:
            value = UUID(text)
        except ValueError:
            return None
        return value if str(value) == text else None

    def check(self, value: object) -> None:
        if not isinstance(value, UUID):
            raise BadQuery(f"must be a UUID, got {value!r}")

    def format(self, value: object) -> str:
        self.check(value)
        return str(value)


class AnyText(PathKind):
    """Any string, as base64url without padding."""

    name = "any"
    is_encoded = True
    samples = ("YQ", "140")

    def match(self, text: str) -> str | None:
        if not _BASE64.fullmatch(text):
            return None
        try:
            value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        return value if value and self.format(value) == text else None

    def check(self, value: object) -> None:
        if not isinstance(value, str) or not value:
            raise BadQuery(f"must be a string that is not empty, got {value!r}")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadQuery(f"must be a string that UTF-8 can encode, got {value!r}") from None

    def format(self, value: object) -> str:
        self.check(value)
        return base64.urlsafe_b64encode(str(value).encode()).rstrip(b"=").decode("ascii")


class Login(AnyText):
    """A user's login: only that user may follow the path."""

    name = "user"


class Rest(PathKind):
    """All remaining segments, with the slashes between them."""

    name = "rest"
    samples = Segment.samples
    spans_segments = True

    def match(self, text: str) -> str | None:
        return text if all(map(_is_segment, text.split("/"))) else None

    def check(self, value: object) -> None:
        if not isinstance(value, str):
            raise BadQuery(f"must be a string, got {value!r}")
        if self.match(value) is None:
            raise BadQuery(
                f"must be segments of {SAFE} with single slashes between them, and no segment"
                f" '', '.' or '..', got {value!r}"
            )

    def format(self, value: object) -> str:
        self.check(value)
        return str(value)


class Nullable(PathKind):
    """Another kind, or None, which a path has as `-`."""

    is_nullable = True

    def __init__(self, kind: PathKind) -> None:
        self._kind = kind
        self.name, self.type, self.is_encoded = kind.name, kind.type, kind.is_encoded
        self.samples = (*kind.samples, NULL)

    def match(self, text: str) -> Any:
        return _NONE if text == NULL else self._kind.match(text)

    def check(self, value: object) -> None:
        if value == NULL and self._kind.match(NULL) is not None:
            raise BadQuery(f"must not be {NULL!r}, which a path has for None")
        if value is not None:
            self._kind.check(value)

    def format(self, value: object) -> str:
        self.check(value)
        return NULL if value is None else self._kind.format(value)

    def field(self, name: str) -> str:
        return f"{self._kind.field(name)[:-1]}?}}"


_NONE = object()
"""The value of a segment that stands for None; None itself means that a segment does not match."""


def _is_segment(text: str) -> bool:
    return _SEGMENT.fullmatch(text) is not None and text not in (".", "..")


class _Part(NamedTuple):
    """One part of a pattern: a field with its name and kind, or a literal, which has no kind."""

    text: str
    kind: PathKind | None

    def match(self, text: str) -> Any:
        if self.kind is None:
            return self.text if text == self.text else None
        return self.kind.match(text)

    @property
    def samples(self) -> tuple[str, ...]:
        return (self.text,) if self.kind is None else self.kind.samples


_ANY_SEGMENT = _Part("", KINDS["segment"])


def _shortest(one: _Part, other: _Part) -> int | None:
    """Length of the shortest segment that both parts match, or None."""
    lengths = [
        len(text)
        for text in (*one.samples, *other.samples)
        if one.match(text) is not None and other.match(text) is not None
    ]
    return min(lengths, default=None)


class Pattern:
    """A compiled path pattern. Patterns with equal text are equal.

    Raises:
        ValueError: the text is not a pattern; the message names the bad part.
    """

    __slots__ = ("_parts", "fields", "text")

    text: str
    fields: Mapping[str, PathKind]
    """The kind of each field by name, in the order of the pattern."""

    def __init__(self, text: str) -> None:
        self.text = text
        fields: dict[str, PathKind] = {}
        self._parts = tuple(self._compile(text, fields))
        self.fields = MappingProxyType(fields)
        for part, _ in pairwise(self._parts):
            if part.kind is not None and part.kind.spans_segments:
                raise ValueError(
                    f"{part.kind.field(part.text)} must be the last segment of {text!r}"
                )
        if not self.overlaps(self):
            raise ValueError(
                f"the shortest path must have at most {PATH_LIMIT} characters, got {text!r}"
            )

    @staticmethod
    def _compile(text: str, fields: dict[str, PathKind]) -> Iterator[_Part]:
        for part in text.split("/"):
            if "{" not in part and "}" not in part:
                if not _is_segment(part):
                    raise ValueError(
                        f"each segment must be of {SAFE}, and not '', '.' or '..', "
                        f"got {part!r} in {text!r}"
                    )
                yield _Part(part, None)
                continue
            found = _FIELD.fullmatch(part)
            if found is None:
                raise ValueError(f"a field must be a whole segment, got {part!r} in {text!r}")
            name, kind = found[1], "segment" if found[2] is None else found[2]
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(f"a field must be named as an argument, got {name!r} in {text!r}")
            if name in fields:
                raise ValueError(f"each field must occur once, got {name!r} twice in {text!r}")
            if kind not in KINDS or found[2] == "segment":
                named = ", ".join(each for each in KINDS if each != "segment")
                raise ValueError(f"the kind must be one of {named}, got {kind!r} in {text!r}")
            if found[3] and kind in ("user", "rest"):
                raise ValueError(f"a field of the kind {kind} must not be None, got {part!r}")
            fields[name] = Nullable(KINDS[kind]) if found[3] else KINDS[kind]
            yield _Part(name, fields[name])

    @property
    def first(self) -> str:
        """The first segment if it is a literal, else ""."""
        part = self._parts[0]
        return part.text if part.kind is None else ""

    def with_kinds(self, kinds: Mapping[str, PathKind]) -> "Pattern":
        """The same pattern with fields of these kinds."""
        return Pattern(
            "/".join(
                part.text if part.kind is None else kinds.get(part.text, part.kind).field(part.text)
                for part in self._parts
            )
        )

    def match(self, path: str) -> dict[str, Any] | None:
        """The values of the fields, or None if the pattern does not match the path.

        Called when Grafana subscribes, runs a stream or publishes.
        """
        if len(path) > PATH_LIMIT:
            return None
        last = len(self._parts) - 1
        texts = path.split("/", last if _spans(self._parts[last]) else -1)
        if len(texts) != len(self._parts):
            return None
        values: dict[str, Any] = {}
        for part, text in zip(self._parts, texts, strict=True):
            if part.kind is None:
                if text != part.text:
                    return None
                continue
            value = part.kind.match(text)
            if value is None:
                return None
            values[part.text] = None if value is _NONE else value
        return values

    def complete(self, text: str, defaults: Mapping[str, object]) -> str | None:
        """The path that begins with the segments of `text`, as `spell` reads them, and goes on with
        fields that have these defaults; None if there is none."""
        given = text.count("/") + 1
        rest = self._parts[given:]
        if not rest or any(part.kind is None or part.text not in defaults for part in rest):
            return None
        try:
            texts = [_format(part, defaults[part.text]) for part in rest]
        except BadQuery:
            return None
        spelled = self._spell(text.split("/"), self._parts[:given])
        path = None if spelled is None else "/".join([spelled, *texts])
        return path if path is not None and self.match(path) is not None else None

    def spell(self, text: str) -> str | None:
        """The path for a text in which fields of the kinds `any` and `user` stand unencoded, as in
        `topics/home/+/temp`; None if it cannot be one. For people, who do not write base64url.
        """
        last, end = len(self._parts) - 1, self._parts[-1]
        texts = text.split("/", last if _spans(end) or _is_encoded(end) else -1)
        if len(texts) != len(self._parts):
            return None
        path = self._spell(texts, self._parts)
        return path if path is not None and self.match(path) is not None else None

    @staticmethod
    def _spell(texts: Sequence[str], parts: Sequence[_Part]) -> str | None:
        found: list[str] = []
        for part, each in zip(parts, texts, strict=True):
            if part.kind is not None and _is_encoded(part):
                try:
                    found.append(part.kind.format(each))
                except BadQuery:
                    return None
            elif part.match(each) is None:
                return None
            else:
                found.append(each)
        return "/".join(found)

    def format(self, **values: object) -> str:
        """The path with these values.

        Raises:
            BadQuery: a value that a path cannot contain, or a path that is too long.
            TypeError: a field without a value, or a value without a field.
        """
        missing, unknown = self.fields.keys() - values.keys(), values.keys() - self.fields.keys()
        if missing or unknown:
            wrong = ", ".join(sorted(missing or unknown))
            raise TypeError(f"{self.text!r}: {'no value for' if missing else 'no field'} {wrong}")
        segments = []
        for part in self._parts:
            if part.kind is None:
                segments.append(part.text)
                continue
            try:
                segments.append(_format(part, values[part.text]))
            except BadQuery as error:
                raise BadQuery(f"{part.text} {error.message}") from None
        path = "/".join(segments)
        if len(path) > PATH_LIMIT:
            raise BadQuery(
                f"the path must have at most {PATH_LIMIT} characters, got {len(path)}: {path!r}"
            )
        return path

    def overlaps(self, other: "Pattern") -> bool:
        """Whether both patterns match some path."""
        mine, theirs = self._parts, other._parts
        length = 0
        for index in range(max(len(mine), len(theirs))):
            one, two = _at(mine, index), _at(theirs, index)
            if one is None or two is None:
                return False
            shortest = _shortest(one, two)
            if shortest is None:
                return False
            length += shortest + (index > 0)
        return length <= PATH_LIMIT

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Pattern) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def _format(part: _Part, value: object) -> str:
    assert part.kind is not None
    return part.kind.format(value.value if isinstance(value, Enum) else value)


def _is_encoded(part: _Part) -> bool:
    return part.kind is not None and part.kind.is_encoded


def _spans(part: _Part) -> bool:
    return part.kind is not None and part.kind.spans_segments


def _at(parts: tuple[_Part, ...], index: int) -> _Part | None:
    """The part for one segment. A last part that spans segments matches them one by one."""
    if index < len(parts) and not _spans(parts[index]):
        return parts[index]
    return _ANY_SEGMENT if _spans(parts[-1]) else None


def channel(uid: str, path: str) -> str:
    """The channel `ds/<uid>/<path>` of a data source.

    Called for each query that streams.

    Raises:
        BadQuery: a uid or path with a character that Grafana refuses, or a channel that is too
            long.
    """
    if not _UID.fullmatch(uid):
        raise BadQuery(f"the data source uid must be of letters, digits, _ - and ., got {uid!r}")
    try:
        KINDS["rest"].check(path)
    except BadQuery as error:
        raise BadQuery(f"the path {error.message}") from None
    text = f"ds/{uid}/{path}"
    if len(text) > CHANNEL_LIMIT:
        raise BadQuery(
            f"the channel must have at most {CHANNEL_LIMIT} characters, got {len(text)}: {text!r}"
        )
    return text
