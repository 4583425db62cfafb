"""Templates of an admin's settings: URLs and messages with placeholders that viewers fill.

A placeholder is `{name}`. Only what an admin has named can be filled, and what is filled cannot
change the structure: no value leaves the path of the URL, ends a string of JSON or a line of text.

    {name}         one text; in a path without slashes
    {name:rest}    in a path: several segments with slashes between them
    {name:int}     an integer      {name:float}   a number; alone in a string of JSON it is a number
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from yarl import URL

from aiostream_ds.errors import BadQuery, ConfigError

__all__ = ["MessageTemplate", "UrlTemplate", "parse_parameters", "texts_in"]

KINDS = ("rest", "int", "float")

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([^{}]*))?\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_INT = re.compile(r"0|-?[1-9][0-9]{0,14}")
_FLOAT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?")
_LITERAL = "%/:=&?~+!$,;'@()*[].-_"  # characters of a URL that stay as the admin has written them
_SHOWN = 80


class _Placeholder(NamedTuple):
    name: str
    kind: str

    def value(self, values: Mapping[str, str], *, empty: bool = False) -> str:
        """The value, checked.

        Raises:
            BadQuery: it is missing, or not of the placeholder's kind.
        """
        value = values.get(self.name)
        if value is None:
            raise BadQuery(f"parameters must have a value for {self.name}, got none")
        if not value and not empty:
            raise self.refusal("a text that is not empty", value)
        if self.kind == "int" and not _INT.fullmatch(value):
            raise self.refusal("an integer of at most 15 digits", value)
        if self.kind == "float" and not _FLOAT.fullmatch(value):
            raise self.refusal("a number", value)
        return value

    def refusal(self, expected: str, value: str) -> BadQuery:
        return BadQuery(f"{self.name} must be {expected}, got {value[:_SHOWN]!r}")


class _Parts(list["str | _Placeholder"]):
    """A text as literals and placeholders, in their order."""

    @property
    def names(self) -> Iterator[str]:
        return (part.name for part in self if not isinstance(part, str))

    def fill(self, literal: Callable[[str], str], value: Callable[[_Placeholder], str]) -> str:
        return "".join(literal(part) if isinstance(part, str) else value(part) for part in self)


def _split(text: str, setting: str, kinds: Sequence[str]) -> _Parts:
    """Raises ConfigError: a placeholder has another kind."""
    parts, end = _Parts(), 0
    for match in _PLACEHOLDER.finditer(text):
        name, kind = match[1], match[2]
        if kind is not None and kind not in kinds:
            expected = ", ".join(f"{{{name}:{each}}}" for each in kinds)
            raise ConfigError(f"{setting}: expected {{{name}}} or {expected}, got {match[0]}")
        if match.start() > end:
            parts.append(text[end : match.start()])
        parts.append(_Placeholder(name, kind or ""))
        end = match.end()
    if end < len(text):
        parts.append(text[end:])
    return parts


class UrlTemplate:
    """A URL whose path and query may have placeholders; scheme, host and port are fixed.

    Args:
        schemes: those that it may have, first the one without TLS.

    Attributes:
        names: the placeholders, in their order.
        origin: scheme, host and port, without a path.
        host, port: where it leads.
        is_secure: whether it is reached with TLS.
        plain_scheme, secure_scheme: the scheme without TLS, and with it.
        base: the URL up to the first placeholder, without the query.

    Raises:
        ConfigError: it is not an absolute URL of one of these schemes, or has a user, a fragment or
            a placeholder where none may be.
    """

    def __init__(self, text: str, schemes: Sequence[str], setting: str = "url") -> None:
        text = text.strip()
        shown = _without_user(text)[:_SHOWN]
        try:
            split = urlsplit(text)
            origin = URL(f"{split.scheme}://{split.netloc}")
            port = origin.port
        except ValueError as error:
            raise ConfigError(f"{setting} must be a URL, got {shown!r}: {error}") from None
        if split.scheme not in schemes or not origin.host:
            example = " or ".join(f"{scheme}://HOST/PATH" for scheme in schemes)
            raise ConfigError(f"{setting} must be {example}, got {shown!r}")
        if "@" in split.netloc:
            raise ConfigError(
                f"{setting} must not have a user or password, which viewers could see: set user"
                f" and password; got {shown!r}"
            )
        if "{" in split.netloc or "}" in split.netloc:
            raise ConfigError(f"{setting} must have a fixed host and port, got {shown!r}")
        if "#" in text:
            raise ConfigError(f"{setting} must have no fragment (#…), got {shown!r}")
        self.origin = str(origin).removesuffix("/")
        self.host, self.port = origin.host, port or 0
        self.is_secure = split.scheme in ("https", "wss")
        self.plain_scheme, self.secure_scheme = schemes[0], schemes[-1]
        self._path = _split(split.path or "/", setting, KINDS)
        self._query = _split(split.query, setting, ("int", "float"))
        self.names = tuple(dict.fromkeys(chain(self._path.names, self._query.names)))
        try:
            _check_segments(self._path.fill(str, lambda part: "x"))
        except BadQuery as error:
            raise ConfigError(f"{setting}: {error}") from None
        first = self._path[0]
        self.base = self.origin + (quote(first, safe=_LITERAL) if isinstance(first, str) else "/")

    def fill(self, values: Mapping[str, str]) -> str:
        """The URL for these values, percent-encoded.

        Raises:
            BadQuery: a value is missing, or would lead out of its place in the path.
        """
        path = self._path.fill(_quote_literal, lambda part: _path_value(part, values))
        _check_segments(path)
        query = self._query.fill(
            _quote_literal, lambda part: quote(part.value(values, empty=True), safe="")
        )
        return f"{self.origin}{path}{'?' if query else ''}{query}"


class MessageTemplate:
    """A message, such as a subscription, in JSON or as text.

    Placeholders of JSON stand in its strings; a string that is one placeholder of the kind `int` or
    `float` becomes a number.

    Attributes:
        names: the placeholders, in their order.
        is_json: whether it is an object or an array of JSON.

    Raises:
        ConfigError: it looks like JSON and is not, or has a placeholder where none may be.
    """

    def __init__(self, text: str, setting: str) -> None:
        self._setting = setting
        self._json = _parse_json(text.strip(), setting)
        self.is_json = self._json is not None
        if self.is_json:
            leaves = [_split(leaf, setting, ("int", "float")) for leaf in texts_in(self._json)]
        else:
            leaves = [_split(text, setting, ("int", "float"))]
            self._text = leaves[0]
        self.names = tuple(dict.fromkeys(chain(*(leaf.names for leaf in leaves))))

    def fill(self, values: Mapping[str, str]) -> str:
        """The message for these values.

        Raises:
            BadQuery: a value is missing or not of its kind, or a text has control characters.
        """
        if self.is_json:
            filled = self._fill_json(self._json, values)
            return json.dumps(filled, ensure_ascii=False, separators=(",", ":"))
        return self._text.fill(str, lambda part: _line_value(part, values))

    def _fill_json(self, value: Any, values: Mapping[str, str]) -> Any:
        if isinstance(value, dict):
            return {key: self._fill_json(each, values) for key, each in value.items()}
        if isinstance(value, list):
            return [self._fill_json(each, values) for each in value]
        if not isinstance(value, str):
            return value
        parts = _split(value, self._setting, ("int", "float"))
        only = parts[0] if len(parts) == 1 else ""
        if not isinstance(only, str) and only.kind:
            number = only.value(values)
            return int(number) if only.kind == "int" else float(number)
        return parts.fill(str, lambda part: part.value(values))


def parse_parameters(text: str | None, names: Sequence[str]) -> dict[str, str]:
    """The values of a query's field `parameters` for the placeholders `names`.

    With one placeholder the text is its value, with or without `name=` in front. With several it is
    `name=value&name=value`, percent-encoded.

    Raises:
        BadQuery: a placeholder has no value or two, or a name is unknown.
    """
    if not names:
        if text:
            raise BadQuery(f"parameters must be empty: url has no {{name}}, got {text[:_SHOWN]!r}")
        return {}
    form = "&".join(f"{name}=…" for name in names)
    if not text:
        expected = form if len(names) > 1 else f"a value for {names[0]}"
        raise BadQuery(f"parameters must be {expected}, got nothing")
    if len(names) == 1:
        return {names[0]: text.removeprefix(f"{names[0]}=")}
    values: dict[str, str] = {}
    for pair in text.split("&"):
        name, found, value = pair.partition("=")
        if not found or name not in names or name in values:
            raise BadQuery(f"parameters must be {form}, got {text[:_SHOWN]!r}")
        values[name] = unquote(value)
    missing = [name for name in names if name not in values]
    if missing:
        raise BadQuery(f"parameters must have a value for {', '.join(missing)}: {form}")
    return values


def _quote_literal(text: str) -> str:
    return quote(text, safe=_LITERAL)


def _path_value(part: _Placeholder, values: Mapping[str, str]) -> str:
    value = part.value(values)
    decoded = value  # with proxies a path may be decoded more than once
    while (again := unquote(decoded)) != decoded:
        decoded = again
    if part.kind != "rest" and ("/" in decoded or "\\" in decoded):
        raise part.refusal("one segment of a path, without slashes", value)
    if _CONTROL.search(decoded) or "\\" in decoded or decoded.count("/") != value.count("/"):
        raise part.refusal("a path without backslashes and control characters", value)
    if part.kind == "rest" and "" in value.split("/"):
        raise part.refusal("segments with single slashes between them", value)
    return quote(value, safe="/")


def _check_segments(path: str) -> None:
    """Raises BadQuery: a segment is one that servers or proxies remove with its neighbour."""
    for segment in path.split("/"):
        decoded = segment
        while (again := unquote(decoded)) != decoded:
            decoded = again
        # some servers cut what follows a semicolon before they resolve the dots
        if decoded.partition(";")[0].strip() in (".", ".."):
            raise BadQuery(f"expected a path without '.' and '..', got the segment {decoded!r}")


def _line_value(part: _Placeholder, values: Mapping[str, str]) -> str:
    value = part.value(values)
    if _CONTROL.search(value):
        raise part.refusal("a text without control characters", value)
    return value


def _parse_json(text: str, setting: str) -> Any:
    """The object or array; None if it is a text."""
    if not text.startswith(("{", "[")) or _PLACEHOLDER.match(text):
        return None
    try:
        value = json.loads(text)
        keys = [key for key in _keys(value) if _PLACEHOLDER.search(key)]
    except (ValueError, RecursionError) as error:
        if re.match(r"[{\[]\s*[\"{\[]", text):
            hint = '; a placeholder stands in a string: "{name}"' if "{" in text[1:] else ""
            raise ConfigError(f"{setting} must be JSON or a text: {error}{hint}") from None
        return None
    if keys:
        raise ConfigError(
            f"{setting} must have its placeholders in values, got the key {keys[0]!r}"
        )
    return value


def texts_in(value: Any) -> Iterator[str]:
    """The strings in a value of JSON, without the keys of objects."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        yield from chain(*map(texts_in, value))
    elif isinstance(value, str):
        yield value


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        yield from chain(*map(_keys, value))


def _without_user(text: str) -> str:
    """The URL without a user and a password, for a message."""
    return re.sub(r"//[^/?#]*@", "//***@", text)
