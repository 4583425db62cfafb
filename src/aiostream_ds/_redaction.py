"""Replaces the values of secrets in texts that leave the process: logs, messages, statuses.

A secret is looked for by some of its windows of eight characters, which are in one table for all
secrets. Each window of a text is looked up there, so the costs depend on the text's length and not
on the number of secrets. The table changes when a Secret is created or has gone.

A secret is found as it is, and as repr, JSON, HTML, URLs and base64 spell it, also within longer
base64 (`user:password`). Of a secret with several lines, such as a PEM key, each line is found. Of
a long secret each part is found that has PART characters; of a very long one parts are longer.
"""

import json
import weakref
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from threading import Lock
from typing import Any, NamedTuple, Protocol

__all__ = [
    "COMMON_WORDS",
    "PART",
    "SHORTEST",
    "HasReveal",
    "hide_secret",
    "redact",
    "redact_end",
    "redact_json",
    "redact_start",
    "settled",
]

SHORTEST = 4
"""Characters below which a secret is not replaced: too much other text would be."""

PART = 16
"""Characters from which a part of a secret is replaced."""

COMMON_WORDS = frozenset(
    "access account acme admin administrator alarm alarms alert alerts auth broker certificate"
    " changeme channel channels client cluster code column columns connect connected connection"
    " console custom dashboard data database debug default demo desk device devices dial error"
    " errors event events example file files form format free full grafana grafana1 guest history"
    " home host hosts http https info influx influxdb invalid json kafka label labels local"
    " localhost login master message messages metric metrics missing mode monitor monitoring"
    " mosquitto mqtt mysql name names nats node none null number numbers open operator panel panels"
    " pass password path plain plant plugin port postgres postgresql primary private proxy public"
    " publish publisher python query read reader readings redis reset root rows secret secrets"
    " sensor sensors sentinel server servers service session settings source sources sql status"
    " stream streaming streams subscribe super system table tables tcp telegraf telemetry test"
    " testing text time timeout times token topic topics true user username users valkey value"
    " values version viewer warning websocket word words write writer wrong".split()
)
"""Words of fixed texts, in lower case. A secret that is one of them is not replaced where it stands
alone: the gap in a known sentence would name it."""

_MASK = "***"
_WIDTHS = (8, SHORTEST)  # of a window: for long needles, and for those that are shorter than it
_LONG = 128  # characters of a needle from which fewer of its windows are in the table
_STEPS = (8, 32)  # from one window to the next: in a short and in a long needle
_TRIED = 64  # windows of which the least shared is used
_SAME = 16  # needles that share a window: others use other windows
_LINE = 8  # characters of a line of a secret
_BASE64 = 6  # characters of a secret in base64


class HasReveal(Protocol):
    """An object with a secret, to which weak references are possible."""

    def reveal(self) -> str:
        """The secret."""


class _Needle(NamedTuple):
    """A text to replace; with `parts`, also long parts of it."""

    text: str
    parts: bool


class _Place(NamedTuple):
    """Where a window is in a needle."""

    needle: _Needle
    offset: int


class _Table:
    """The needles of all secrets, by their windows.

    Lookups need no lock: a window's places are replaced, never changed.
    """

    def __init__(self) -> None:
        self.longest = 0
        self._lock = Lock()
        self._gone: deque[str] = deque()
        self._secrets: dict[str, int] = {}  # how many objects have this value
        self._needles: dict[_Needle, tuple[int, list[int]]] = {}  # of how many secrets; offsets
        self._windows: dict[int, dict[str, tuple[_Place, ...]]] = {n: {} for n in _WIDTHS}

    def add(self, secret: HasReveal) -> None:
        value = secret.reveal()
        with self._lock:
            count = self._secrets.get(value, 0)
            self._secrets[value] = count + 1
            if not count:
                for needle in _needles(value):
                    self._add_needle(needle)
        weakref.finalize(secret, self._forget, value).atexit = False
        self._remove_gone()

    def _forget(self, value: str) -> None:
        # the garbage collector may call this while the same thread holds the lock
        self._gone.append(value)
        self._remove_gone()

    def _remove_gone(self) -> None:
        while self._gone and self._lock.acquire(blocking=False):
            try:
                self._remove(self._gone.popleft())
            except IndexError:
                pass  # another thread has removed it
            finally:
                self._lock.release()

    def _remove(self, value: str) -> None:
        self._secrets[value] -= 1
        if self._secrets[value]:
            return
        del self._secrets[value]
        for needle in _needles(value):
            count, offsets = self._needles[needle]
            if count > 1:
                self._needles[needle] = count - 1, offsets
                continue
            del self._needles[needle]
            windows, width = self._windows_of(needle)
            for offset in offsets:
                window = needle.text[offset : offset + width]
                left = tuple(place for place in windows[window] if place.needle != needle)
                if left:
                    windows[window] = left
                else:
                    del windows[window]
        if not self._needles:
            self.longest = 0

    def _windows_of(self, needle: _Needle) -> tuple[dict[str, tuple[_Place, ...]], int]:
        width = next(width for width in _WIDTHS if width <= len(needle.text))
        return self._windows[width], width

    def _add_needle(self, needle: _Needle) -> None:
        count, offsets = self._needles.get(needle, (0, []))
        if not count:
            windows, width = self._windows_of(needle)
            offsets = _choose(needle, width, windows)
            for offset in offsets:
                window = needle.text[offset : offset + width]
                windows[window] = (*windows.get(window, ()), _Place(needle, offset))
        self._needles[needle] = count + 1, offsets
        self.longest = max(self.longest, len(needle.text))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each secret in `text`, in order, without overlaps."""
        found: list[tuple[int, int]] = []
        for width, windows in self._windows.items():
            if windows:
                found += _find(text, width, windows)
        return _merged(found)


def _choose(needle: _Needle, width: int, windows: dict[str, tuple[_Place, ...]]) -> list[int]:
    """The offsets of the windows by which a needle is found: with parts, at regular distances."""
    text = needle.text

    def shared(offset: int) -> int:
        return len(windows.get(text[offset : offset + width], ()))

    last = len(text) - width
    if needle.parts:
        step = _STEPS[len(text) >= _LONG]
        chosen: dict[str, int] = {}
        for offset in range(0, last + 1, step):
            if shared(offset) < _SAME:
                chosen.setdefault(text[offset : offset + width], offset)
        if chosen:
            return list(chosen.values())
    return [min(range(0, last + 1, last // _TRIED + 1), key=shared)]


def _find(
    text: str, width: int, windows: dict[str, tuple[_Place, ...]]
) -> Iterator[tuple[int, int]]:
    hits = [n for n in range(len(text) - width + 1) if text[n : n + width] in windows]
    end = 0  # of the last part: the windows in it do not begin another one
    for at in hits:
        for needle, offset in windows.get(text[at : at + width], ()):
            start = at - offset
            if start >= 0 and text.startswith(needle.text, start):
                yield start, start + len(needle.text)
            elif needle.parts and at >= end:
                first, last = _part(text, at, needle.text, offset, width)
                if last - first >= PART:
                    end = last
                    yield first, last


def _part(text: str, at: int, needle: str, offset: int, width: int) -> tuple[int, int]:
    """The longest common part of both texts around a common window."""
    first, before = at, offset
    while first and before and text[first - 1] == needle[before - 1]:
        first, before = first - 1, before - 1
    last, after = at + width, offset + width
    while last < len(text) and after < len(needle) and text[last] == needle[after]:
        last, after = last + 1, after + 1
    return first, last


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    return merged


# -- what a secret looks like ------------------------------------------------------------------


def _needles(value: str) -> set[_Needle]:
    """The texts to look for. The order of equal calls is the same."""
    has_lines = "\n" in value.strip()
    if value.strip().lower() in COMMON_WORDS:
        plain = {f":{value.strip()}@"}  # in a URL: redis://user:redis@host
        return {_Needle(text, False) for text in plain | _base64(value)}
    found = {_Needle(text, not has_lines) for text in _spellings(value)}
    found |= {_Needle(text, True) for text in _base64(value)}
    if value != value.strip():
        found |= {_Needle(text, not has_lines) for text in _spellings(value.strip())}
    if has_lines:
        found |= {_Needle(text, True) for line in _lines(value) for text in _spellings(line)}
    return {needle for needle in found if len(needle.text) >= SHORTEST}


def _lines(value: str) -> Iterator[str]:
    for line in map(str.strip, value.splitlines()):
        if len(line) >= _LINE and not line.startswith("-----"):  # the first line of a PEM file
            yield line


def _spellings(value: str) -> set[str]:
    """A text itself, and as repr, JSON, HTML and URLs spell it; also one in another."""
    if value.isascii() and value.isalnum():
        return {value}
    from urllib.parse import quote, quote_plus  # it imports ipaddress, and most secrets end above

    inner = {value, repr(value)[1:-1], _json(value), _html(value)}
    inner |= {repr(value.encode("utf-8", "surrogatepass"))[2:-1], _json(value, ascii=False)}
    inner |= {repr(text)[1:-1] for text in inner} | {_json(text) for text in inner}
    inner |= {_json(value).replace("/", "\\/")}
    urls = {
        quote(value, safe=safe, errors="surrogatepass")
        for safe in ("", "/", "!*'()", "!$&'()*+,;=:@", "!$&'()*+,;=:@/?")
    }
    urls.add(quote_plus(value, errors="surrogatepass"))
    urls |= {_lower_escapes(text) for text in urls}
    return inner | urls


def _json(value: str, *, ascii: bool = True) -> str:
    return json.dumps(value, ensure_ascii=ascii)[1:-1]


def _html(value: str) -> str:
    for character, escape in ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"):
        value = value.replace(character, escape)
    return value


def _lower_escapes(url: str) -> str:
    first, *parts = url.split("%")
    return first + "".join(f"%{part[:2].lower()}{part[2:]}" for part in parts)


def _base64(value: str) -> set[str]:
    """The characters of base64 that a secret determines, for each position in what is encoded."""
    data = value.encode("utf-8", "surrogatepass")
    found = {b64encode(data).decode().rstrip("=")}
    for before, unknown in enumerate((0, 2, 3)):
        size = before + len(data)
        text = b64encode(bytes(before) + data).decode()
        found.add(text[unknown : size * 4 // 3])
    found |= {text.replace("+", "-").replace("/", "_") for text in found}
    return {text for text in found if len(text) >= _BASE64}


# -- the only table ----------------------------------------------------------------------------

_table = _Table()


def hide_secret(secret: HasReveal) -> None:
    """Makes `redact` replace a secret as long as the object exists. Thread-safe.

    A secret under four characters is not replaced: too much else would match. Of a common word
    only what base64 and URLs make of it is.
    """
    if len(secret.reveal()) >= SHORTEST:
        _table.add(secret)


def redact(text: str) -> str:
    """`text` with every existing secret replaced, for the log and for messages to users.

    Thread-safe. Takes some 0.1 µs a character: cut long texts with `redact_start` or `redact_end`,
    never before.
    """
    return _masked(text, 0, len(text))


def redact_start(text: str, limit: int, *, note: bool = True) -> str:
    """The first `limit` characters of `text`, redacted, with a note if it is longer."""
    if len(text) <= limit:
        return redact(text)
    kept = _masked(text[: limit + _table.longest], 0, limit)
    return f"{kept} … ({len(text)} characters)" if note else kept


def redact_end(text: str, limit: int, *, note: bool = True) -> str:
    """The last `limit` characters of `text`, redacted, with a note if it is longer."""
    if len(text) <= limit:
        return redact(text)
    end = text[-limit - _table.longest :]
    kept = _masked(end, len(end) - limit, len(end))
    return f"({len(text)} characters) … {kept}" if note else kept


def _masked(text: str, first: int, last: int) -> str:
    """The part of `text` between two positions. A secret that is partly in it is replaced, too."""
    parts: list[str] = []
    at = first
    for start, end in _table.spans(text):
        if end > first and start < last:
            parts += text[at:start], _MASK
            at = end
    parts.append(text[at:last])
    # A surrogate (from a file name of another encoding) can be written neither to a log line nor
    # to an answer.
    return "".join(parts).encode("utf-8", "backslashreplace").decode()


def redact_json(value: Any) -> Any:
    """Parsed JSON with redacted texts, keys and numbers."""
    if isinstance(value, dict):
        return {redact(key): redact_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_json(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    shown = redact(text)
    return shown if isinstance(value, str) or shown != text else value


def settled(text: str) -> int:
    """How many characters of `text` can be redacted already, whatever text follows it."""
    size = max(0, len(text) - _table.longest)
    for start, end in _table.spans(text):
        if start < size < end:
            return start
    return size
