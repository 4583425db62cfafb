"""One request of a push, over a connection that stays open, and what its answer means."""

import email.utils
import gzip
import time
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
import urllib3

from aiostream_ds.push.addresses import PushAddress
from aiostream_ds.push.rejections import (
    PushRejected,
    TooLarge,
    TryAgain,
    message_in,
    rejection,
)

__all__ = ["HttpPost", "PushAnswer", "RefusedRow"]

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection."""

READ_TIMEOUT = 30.0
"""Seconds without a byte of the answer."""

COMPRESSED_FROM = 512
"""Bytes from which a body is compressed."""

ANSWER_LIMIT = 4 << 20
"""Bytes of an answer that are read."""

LONGEST_RETRY_AFTER = 300.0
"""Seconds that a server can ask to wait; it is asked again after them."""

_TRANSIENT = frozenset({408, 409, 421, 425, 429})
"""Statuses below 500 after which the same request may succeed. 409: the same batch is in work."""


class RefusedRow(msgspec.Struct):
    """A row that was not taken: its position in the batch, from 0, and why."""

    row: int
    reason: str = ""


class PushAnswer(msgspec.Struct):
    """The answer to a batch: how many rows were taken, the first ones that were not, and what is
    taken and probably not meant."""

    taken: int
    refused: list[RefusedRow] = []
    values_left_out: int = 0
    warnings: list[str] = []


class HttpPost:
    """Posts bodies to one address. Used by one thread.

    Raises OSError or ValueError for a file of certificates that cannot be read.
    """

    def __init__(self, address: PushAddress, *, ca_file: str | None, timeout: float | None) -> None:
        self.url = address.url
        self._timeout = urllib3.Timeout(
            connect=min(CONNECT_TIMEOUT, timeout or CONNECT_TIMEOUT), read=timeout or READ_TIMEOUT
        )
        self._headers = {"Accept": "application/json", "User-Agent": "aiostream-ds-push"}
        if address.token:
            self._headers["Authorization"] = f"Bearer {address.token}"
        self._pool = _pool(address.url, ca_file)

    def post(self, body: bytes, content_type: str, key: str) -> PushAnswer:
        """Post a batch. The same `key` makes it the same batch for the server.

        Raises:
            TryAgain: there was no answer, or one of a server that cannot take it now.
            TooLarge: it must be split.
            PushRejected: it will not be taken.
        """
        headers = {**self._headers, "Content-Type": content_type, "Idempotency-Key": key}
        if len(body) >= COMPRESSED_FROM:
            body = gzip.compress(body, 3, mtime=0)
            headers["Content-Encoding"] = "gzip"
        try:
            response = self._pool.request(
                "POST",
                self.url,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                timeout=self._timeout,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            certificate = _certificate_error(error)
            if certificate:
                raise PushRejected(
                    f"{self.url}: the server's certificate is not accepted: {certificate}; set"
                    " ca_file to the certificates that sign it"
                ) from None
            raise TryAgain(_reason(error)) from None
        try:
            content = response.read(ANSWER_LIMIT)
            response.drain_conn() if len(content) < ANSWER_LIMIT else response.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            raise TryAgain(f"the answer broke off: {_reason(error)}") from None
        finally:
            response.release_conn()
        return self._read(response, content)

    def close(self) -> None:
        """Close the connection."""
        self._pool.clear()

    def _read(self, response: Any, content: bytes) -> PushAnswer:
        status = response.status
        if 200 <= status < 300 or status == 400:
            try:
                return msgspec.json.decode(content, type=PushAnswer)
            except (ValueError, RecursionError):
                if status == 400:  # the batch, and not each of its rows
                    raise rejection(status, self.url, content) from None
                kind = response.headers.get("Content-Type", "nothing")
                raise PushRejected(
                    f"{self.url}: expected the answer of a push, got {kind[:100]!r} with HTTP"
                    f" {status}; check url and uid"
                ) from None
        if status == 413:
            raise TooLarge(message_in(content))
        if status in _TRANSIENT or status >= 500:
            reason = message_in(content)
            raise TryAgain(
                f"HTTP {status}{f': {reason}' if reason else ''}",
                _retry_after(response.headers.get("Retry-After", "")),
            )
        raise rejection(status, self.url, content, response.headers.get("Location", ""))


def _pool(url: str, ca_file: str | None) -> urllib3.PoolManager:
    """The connections: through the proxy that the environment names for this address, if any."""
    parts = urlsplit(url)
    options: dict[str, Any] = {"maxsize": 1, "num_pools": 1}
    if ca_file is not None:
        options["ca_certs"] = ca_file
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        found = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
        if found.username:
            secret = f"{unquote(found.username)}:{unquote(found.password or '')}"
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=secret)
        plain = f"{found.scheme}://{found.hostname}:{found.port or 80}"
        return urllib3.ProxyManager(plain, **options)
    return urllib3.PoolManager(**options)


def _certificate_error(error: BaseException | None) -> str:
    """Why the server's certificate is refused; "" for other errors."""
    while error is not None:
        found = [error, *error.args]
        for each in found:
            message = getattr(each, "verify_message", "")
            if message:
                return str(message)
        error = error.__cause__ or error.__context__
    return ""


def _reason(error: Exception) -> str:
    """An error without the addresses of objects that urllib3 writes into it."""
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "the server's name is not known"
    refused = isinstance(error, urllib3.exceptions.NewConnectionError)
    if isinstance(error, urllib3.exceptions.ConnectTimeoutError) and not refused:
        return "no connection within the time limit"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "no answer within the time limit"
    inner: BaseException = error
    while True:
        wrapped = inner.__cause__ or next(
            (each for each in inner.args if isinstance(each, BaseException)), None
        )
        if wrapped is None:
            break
        inner = wrapped
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror.lower()
    return str(inner).rpartition(">: ")[2][:200] or type(inner).__name__


def _retry_after(value: str) -> float | None:
    """Seconds of the header, which is a number or a date."""
    value = value.strip()
    if value.isascii() and value.isdecimal() and len(value) < 10:
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        seconds = moment.timestamp() - time.time()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
