"""Where rows are pushed to: the addresses that people have, as the one of the resource.

http://localhost:3030                                     the console of `aiostream-ds dev`
https://grafana.example.org                with a uid     a data source of Grafana
https://grafana.example.org/connections/datasources/edit/UID       its page in the browser
https://grafana.example.org/api/datasources/uid/UID[/resources[/push[/PATH]]]
"""

import os
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

__all__ = [
    "DEFAULT_URL",
    "TOKEN_VARIABLE",
    "URL_VARIABLE",
    "PushAddress",
    "find_address",
    "read_token",
]

URL_VARIABLE = "AIOSTREAM_DS_PUSH_URL"
"""The environment variable with the address, for clients that are given none."""

TOKEN_VARIABLE = "AIOSTREAM_DS_PUSH_TOKEN"
"""The environment variable with the token, for clients that are given none."""

DEFAULT_URL = "http://127.0.0.1:3030"
"""The address without any: the console of `aiostream-ds dev` on this machine."""

_PAGE = re.compile(r"(?P<root>.*?)/(?:connections/)?datasources/edit/(?P<uid>[^/]+)/?")
_RESOURCE = re.compile(
    r"(?P<root>.*?)/api/datasources/uid/(?P<uid>[^/]+)(?:/resources)?(?:/push(?:/(?P<path>.+?))?)?/?"
)
_CONSOLE = re.compile(r"(?P<root>.*?)/push(?:/(?P<path>.+?))?/?")
_UID = re.compile(r"[A-Za-z0-9_\-.]+")
_PATH = re.compile(r"[A-Za-z0-9_\-=.]+(/[A-Za-z0-9_\-=.]+)*")
_LONGEST = 155  # characters of a path: Grafana refuses a longer channel


class PushAddress:
    """The URL of a push, and the token. Its repr and its `url` have no token."""

    __slots__ = ("path", "token", "url")

    def __init__(self, url: str, path: str, token: str) -> None:
        self.url = url
        self.path = path
        self.token = token

    def __repr__(self) -> str:
        return f"<PushAddress {self.url}>"


def find_address(
    url: str | None, path: str | None, *, uid: str | None, token: str | None
) -> PushAddress:
    """The address for what a client was given, or what the environment has.

    Raises:
        ValueError: the URL, the uid, the path or the token is not one, or two of them differ.
    """
    url = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    token = token if token is not None else os.environ.get(TOKEN_VARIABLE, "")
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the host or the port
        is_address = False
    if not is_address:
        raise ValueError(f"url must be an http or https address, got {url!r}")
    if parts.username or parts.password:
        raise ValueError(
            f"url must have no user and password, got one for {parts.hostname}; use a token"
        )
    of_console = parse_qs(parts.query).get("token", [""])[0]  # as the console prints its address
    token = _checked_token(token.strip() or of_console)
    origin = f"{parts.scheme}://{parts.netloc}"
    found = _RESOURCE.fullmatch(parts.path) or _PAGE.fullmatch(parts.path)
    if found is None and uid is None:
        found = _CONSOLE.fullmatch(parts.path)
    named = found.groupdict() if found is not None else {"root": parts.path.rstrip("/")}
    path = _one("path", path, named.get("path"))
    if path is None:
        raise ValueError("path must be the name of a channel, such as 'lab/run-1', got none")
    path = _checked_path(path.strip("/"))
    uid = _one("uid", uid, named.get("uid"))
    if uid is None:
        return PushAddress(f"{origin}{named['root']}/push/{path}", path, token)
    if not _UID.fullmatch(uid):
        raise ValueError(f"uid must be that of a data source, got {uid!r}")
    resource = f"/api/datasources/uid/{uid}/resources/push/{path}"
    return PushAddress(f"{origin}{named['root']}{resource}", path, token)


def read_token(file: Path) -> str:
    """The token in a file. Raises OSError, and ValueError if there is none."""
    token = file.read_text("utf-8").strip()
    if not token:
        raise ValueError(f"expected a token in {str(file)!r}, got an empty file")
    return _checked_token(token)


def _one(name: str, given: str | None, in_url: str | None) -> str | None:
    if given is not None and in_url is not None and given.strip("/") != in_url:
        raise ValueError(f"{name} must be that of url, {in_url!r}, or left out, got {given!r}")
    return given if given is not None else in_url


def _checked_path(path: str) -> str:
    if not _PATH.fullmatch(path):
        raise ValueError(
            "path must be segments of letters, digits and _ - = . separated by slashes, such as"
            f" 'lab/run-1', got {path!r}"
        )
    if len(path) > _LONGEST:
        raise ValueError(f"path must have at most {_LONGEST} characters, got {len(path)}")
    return path


def _checked_token(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("token must be ASCII characters without spaces, got other characters")
    return token
