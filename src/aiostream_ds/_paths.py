"""Channel paths: patterns such as `sensors/{id:int}`, which read a path and build one.

A path has exactly one spelling: what `match` accepts, `format` builds again letter for letter, so
two viewers who want the same thing always meet on the same channel. Imports only the ground.

    literal     these letters
    {name}      one segment of safe characters
    {n:int}     a whole number        {x:float}   a finite number, as Python writes it
    {t:any}     any text, as base64url without padding
    {u:user}    the same; a user's login: no other user may follow the path
    {p:rest}    what remains, slashes included; only at the end
"""

import base64
import binascii
import keyword
import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast, get_args

from aiostream_ds.errors import BadQuery

__all__ = ["CHANNEL_LIMIT", "PATH_LIMIT", "Kind", "Pattern", "channel"]

CHANNEL_LIMIT = 160
"""Most characters of `ds/<uid>/<path>`; Grafana refuses a longer channel."""

PATH_LIMIT = CHANNEL_LIMIT - len("ds/u/")
"""Most characters of a path, under a uid of one character."""

Kind = Literal["segment", "int", "float", "any", "rest", "user"]

_ALLOWED = "letters, digits and the characters _ - = ."
_SEGMENT = re.compile(r"[A-Za-z0-9_\-=.]+")
_UID = re.compile(r"[A-Za-z0-9_\-.]+")
_INT = re.compile(r"0|-?[1-9][0-9]*")
_BASE64 = re.compile(r"[A-Za-z0-9_\-]+")
_FIELD = re.compile(r"\{([^{}:]*)(?::([^{}:]*))?\}")


def _is_segment(text: str) -> bool:
    return _SEGMENT.fullmatch(text) is not None and text not in (".", "..")


def _read_segment(text: str) -> str | None:
    return text if _is_segment(text) else None


def _write_segment(value: object) -> str:
    if not isinstance(value, str):
        raise BadQuery(f"is {value!r}; allowed is a text")
    if not _is_segment(value):
        raise BadQuery(f"is {value!r}; allowed are {_ALLOWED}, and neither '', '.' nor '..'")
    return value


def _read_int(text: str) -> int | None:
    return int(text) if _INT.fullmatch(text) else None


def _write_int(value: object) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadQuery(f"is {value!r}; allowed is a whole number")
    if abs(value) >= 10**CHANNEL_LIMIT:  # Python refuses to spell out numbers that are far longer
        raise BadQuery(f"is a whole number of more than {CHANNEL_LIMIT} digits")
    return str(value)


def _write_float(value: object) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadQuery(f"is {value!r}; allowed is a number")
    try:
        number = float(value) + 0.0  # -0.0 and 0.0 are one number and get one spelling
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadQuery(f"is {value!r}; allowed is a finite number")
    return repr(number).replace("+", "")  # 1e+22: a path has no plus


def _read_float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and _write_float(number) == text else None


def _write_any(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise BadQuery(f"is {value!r}; allowed is a text that is not empty")
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise BadQuery(f"is {value!r}; allowed is text that UTF-8 can hold") from None
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _read_any(text: str) -> str | None:
    if not _BASE64.fullmatch(text):
        return None
    try:
        value = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return value if value and _write_any(value) == text else None


def _read_rest(text: str) -> str | None:
    return text if all(map(_is_segment, text.split("/"))) else None


def _write_rest(value: object) -> str:
    if not isinstance(value, str):
        raise BadQuery(f"is {value!r}; allowed is a text")
    if _read_rest(value) is None:
        raise BadQuery(
            f"is {value!r}; allowed are segments of {_ALLOWED} with single slashes between them,"
            " and no segment is '', '.' or '..'"
        )
    return value


_READ: Mapping[Kind, Callable[[str], Any]] = {
    "segment": _read_segment,
    "int": _read_int,
    "float": _read_float,
    "any": _read_any,
    "rest": _read_rest,
    "user": _read_any,
}
_WRITE: Mapping[Kind, Callable[[object], str]] = {
    "segment": _write_segment,
    "int": _write_int,
    "float": _write_float,
    "any": _write_any,
    "rest": _write_rest,
    "user": _write_any,
}

# The length of the shortest text that both kinds read: "0", "0.0", "YQ" and "140", which is a
# number and also the base64 of a letter. A float never is: see test_pattern_properties.py.
_SHORTEST: Mapping[frozenset[Kind], int] = {
    frozenset[Kind](["segment"]): 1,
    frozenset[Kind](["segment", "int"]): 1,
    frozenset[Kind](["segment", "float"]): 3,
    frozenset[Kind](["segment", "any"]): 2,
    frozenset[Kind](["int"]): 1,
    frozenset[Kind](["int", "any"]): 3,
    frozenset[Kind](["float"]): 3,
    frozenset[Kind](["any"]): 2,
}


class _Piece(NamedTuple):
    """One segment of a pattern: a literal has no kind, a field has a name."""

    text: str
    kind: Kind | None

    def read(self, text: str) -> Any:
        if self.kind is None:
            return self.text if text == self.text else None
        return _READ[self.kind](text)


_ONE_SEGMENT = _Piece("", "segment")


def _shortest(one: _Piece, other: _Piece) -> int | None:
    """Length of the shortest segment that both pieces read, None when there is none."""
    if one.kind is None:
        return len(one.text) if other.read(one.text) is not None else None
    if other.kind is None:
        return _shortest(other, one)
    kinds: list[Kind] = ["any" if kind == "user" else kind for kind in (one.kind, other.kind)]
    return _SHORTEST.get(frozenset(kinds))


class Pattern:
    """A compiled path pattern. Equal texts are equal patterns.

    Raises:
        ValueError: the text is no pattern; the message names the bad piece.
    """

    __slots__ = ("_pieces", "fields", "text")

    text: str
    fields: Mapping[str, Kind]
    """The fields by name, in their order."""

    def __init__(self, text: str) -> None:
        self.text = text
        fields: dict[str, Kind] = {}
        self._pieces = tuple(self._compile(text, fields))
        self.fields = MappingProxyType(fields)
        for piece, _ in pairwise(self._pieces):
            if piece.kind == "rest":
                raise ValueError(f"{{{piece.text}:rest}} in {text!r} must be the last segment")
        if not self.overlaps(self):
            raise ValueError(f"{text!r} is too long: a path has at most {PATH_LIMIT} characters")

    @staticmethod
    def _compile(text: str, fields: dict[str, Kind]) -> Iterator[_Piece]:
        for part in text.split("/"):
            if "{" not in part and "}" not in part:
                if not _is_segment(part):
                    raise ValueError(
                        f"segment {part!r} of {text!r}: allowed are {_ALLOWED}, "
                        "and neither '', '.' nor '..'"
                    )
                yield _Piece(part, None)
                continue
            found = _FIELD.fullmatch(part)
            if found is None:
                raise ValueError(f"segment {part!r} of {text!r}: a field {{name}} fills a segment")
            name, kind = found[1], "segment" if found[2] is None else found[2]
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(f"{name!r} in {text!r} cannot be the name of an argument")
            if name in fields:
                raise ValueError(f"the field {name!r} stands twice in {text!r}")
            if kind not in get_args(Kind) or found[2] == "segment":
                raise ValueError(
                    f"kind {kind!r} in {text!r}: allowed are int, float, any, rest and user"
                )
            fields[name] = cast("Kind", kind)
            yield _Piece(name, fields[name])

    @property
    def first(self) -> str:
        """The first segment when it is a literal, else ""."""
        piece = self._pieces[0]
        return piece.text if piece.kind is None else ""

    def match(self, path: str) -> dict[str, Any] | None:
        """The values of the fields, or None when this is no path of the pattern.

        When Grafana calls it: at each subscribe, run and publish.
        """
        if len(path) > PATH_LIMIT:
            return None
        last = len(self._pieces) - 1
        parts = path.split("/", last if self._pieces[last].kind == "rest" else -1)
        if len(parts) != len(self._pieces):
            return None
        values: dict[str, Any] = {}
        for piece, part in zip(self._pieces, parts, strict=True):
            value = piece.read(part)
            if value is None:
                return None
            if piece.kind is not None:
                values[piece.text] = value
        return values

    def format(self, **values: object) -> str:
        """The path with these values.

        Raises:
            BadQuery: a value that a path cannot hold, or a path that is too long.
            TypeError: a field has no value, or a value has no field.
        """
        missing, unknown = self.fields.keys() - values.keys(), values.keys() - self.fields.keys()
        if missing or unknown:
            wrong = ", ".join(sorted(missing or unknown))
            raise TypeError(f"{self.text!r}: {'no value for' if missing else 'no field'} {wrong}")
        parts = []
        for piece in self._pieces:
            if piece.kind is None:
                parts.append(piece.text)
                continue
            try:
                parts.append(_WRITE[piece.kind](values[piece.text]))
            except BadQuery as error:
                raise BadQuery(f"{piece.text} {error.message}") from None
        path = "/".join(parts)
        if len(path) > PATH_LIMIT:
            raise BadQuery(f"the path {path!r} has {len(path)} characters; at most {PATH_LIMIT}")
        return path

    def overlaps(self, other: "Pattern") -> bool:
        """Whether some path belongs to both patterns."""
        mine, theirs = self._pieces, other._pieces
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


def _at(pieces: tuple[_Piece, ...], index: int) -> _Piece | None:
    """The piece that reads segment number `index`; a rest reads all that follow, one at a time."""
    if index < len(pieces) and pieces[index].kind != "rest":
        return pieces[index]
    return _ONE_SEGMENT if pieces[-1].kind == "rest" else None


def channel(uid: str, path: str) -> str:
    """The channel `ds/<uid>/<path>` of a data source.

    When Grafana calls it: at each query that streams.

    Raises:
        BadQuery: a uid or path with a character that Grafana refuses, or a channel over 160.
    """
    if not _UID.fullmatch(uid):
        raise BadQuery(f"the data source uid {uid!r}; allowed are letters, digits, _ - and .")
    if _read_rest(path) is None:
        raise BadQuery(
            f"the path {path!r}; allowed are segments of {_ALLOWED} with single slashes between"
        )
    text = f"ds/{uid}/{path}"
    if len(text) > CHANNEL_LIMIT:
        raise BadQuery(f"the channel {text!r} has {len(text)} characters; at most {CHANNEL_LIMIT}")
    return text
