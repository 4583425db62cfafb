"""One push from the request to the store: access, limits, decoding, storing, the answer."""

import hashlib
import time
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from aiostream_ds.models import Request, Response
from aiostream_ds.sources.push import push_answers as answers
from aiostream_ds.sources.push.push_access import PushAccess
from aiostream_ds.sources.push.push_answers import PushResult
from aiostream_ds.sources.push.push_audit import PushAudit
from aiostream_ds.sources.push.push_body import BodyKind, body_kind, read_body
from aiostream_ds.sources.push.push_channels import PushChannels
from aiostream_ds.sources.push.push_errors import PushRefused, too_large
from aiostream_ds.sources.push.push_quota import PushRate
from aiostream_ds.sources.push.push_rows import BodyDecoder, DecodedBody
from aiostream_ds.sources.push.push_settings import PushSettings
from aiostream_ds.stores import Store, StoreError

__all__ = ["INLINE_BYTES", "KEY_LIMIT", "PushIntake"]

INLINE_BYTES = 16_000
"""Bytes of a body that is decoded in the event loop, in some milliseconds; larger ones are decoded
in a thread."""

KEY_LIMIT = 200
"""Maximum characters of an idempotency key."""

WAITING_BODIES = 4
"""Bodies of the largest size that may wait for decoding, or as many bytes of smaller ones."""

DAY = 86_400_000

_EARLY = 315_532_800_000
"""1980 in Unix ms: earlier times are probably of another unit."""


class PushIntake:
    """Takes the pushes to one data source.

    Raises:
        ConfigError: a path of the settings is not a JSONPath, or a pattern of paths is not one.
    """

    def __init__(
        self,
        settings: PushSettings,
        store: Store,
        channels: PushChannels,
        threads: anyio.CapacityLimiter,
    ) -> None:
        self._settings = settings
        self._store = store
        self._channels = channels
        self._threads = threads
        self._access = PushAccess(settings)
        self._decoder = BodyDecoder(settings)
        self._decoding = anyio.Lock()
        self._waiting = 0  # bytes of bodies
        self._rows = PushRate("rowsPerSecond", "rows", settings.rows_per_second)
        self._bytes = PushRate("bytesPerSecond", "bytes", settings.bytes_per_second)
        self.audit = PushAudit()

    async def answer(self, path: str, request: Request) -> Response:
        """Take one push. What the client did wrong is in the answer; nothing is raised for it."""
        kind: BodyKind | None = None
        try:
            self._access.check(request.user, path)
            kind = body_kind(request.header("content-type"), self._settings.format)
            self._rows.check()
            self._bytes.check()
            with self._channels.reserve(path):
                result, is_otlp = await self._take(path, request, kind)
        except PushRefused as error:
            self.audit.refused(request.user, path, error)
            return answers.refused(error, "protobuf" if kind == "otlp" else "")
        self.audit.taken(request.user, path, result)
        otlp = ("protobuf" if kind == "otlp" else "json") if is_otlp else ""
        return answers.taken(result, otlp)

    async def _take(self, path: str, request: Request, kind: BodyKind) -> tuple[PushResult, bool]:
        """Decode and store a body. Raises PushRefused."""
        key = _key(request, path)
        self._bytes.take(len(request.body))
        found = await self._decode(request, kind)
        result = PushResult(
            taken=len(found.rows),
            refused=found.refused,
            more_refused=found.bad - len(found.refused),
            values_left_out=found.values_left_out,
            message=_message(found),
            warnings=self._warnings(found.rows),
        )
        if found.rows:
            await self._enter(path, found.rows, key, result)
        return result, found.is_otlp

    async def _enter(
        self, path: str, rows: list[dict[str, Any]], key: str | None, result: PushResult
    ) -> None:
        """Store rows: the only place at which pushed rows enter. With several Grafana servers the
        store is that of all. Raises PushRefused."""
        try:
            stored = await self._store.append(path, rows, key)
        except StoreError as error:
            raise PushRefused(503, error.message, retry_after=5) from error
        except (TypeError, ValueError) as error:
            raise PushRefused(400, str(error)) from error
        except anyio.get_cancelled_exc_class():
            self._channels.add(path)  # the rows may be stored nevertheless
            raise
        self._channels.add(path)
        result.repeated = stored.repeated
        result.last = stored.last
        if stored.repeated:
            result.taken = max(stored.last - stored.first + 1, 0)

    async def _decode(self, request: Request, kind: BodyKind) -> DecodedBody:
        """The rows of a body, one body after the other. Raises PushRefused."""
        size, limit = len(request.body), self._settings.max_message
        if size > limit:
            raise too_large(limit, f"{size:,}")
        if self._waiting + size > WAITING_BODIES * limit:
            raise PushRefused(
                503, "too many bodies wait for decoding; send them later", retry_after=1
            )
        self._waiting += size
        try:
            async with self._decoding:
                self._rows.check()  # again: others may have been decoded meanwhile
                found = await self._decoded(request, kind)
                self._rows.take(len(found.rows) + found.bad)
                return found
        finally:
            self._waiting -= size

    async def _decoded(self, request: Request, kind: BodyKind) -> DecodedBody:
        """The rows of a body, in a thread if it is large. Raises PushRefused."""
        work = partial(self._rows_of, request, kind, time.time_ns() // 1_000_000)
        if len(request.body) <= INLINE_BYTES and not request.header("content-encoding"):
            return work()
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    def _rows_of(self, request: Request, kind: BodyKind, received: int) -> DecodedBody:
        body = read_body(request, kind, self._settings.max_message)
        return self._decoder.rows(body, received)

    def _warnings(self, rows: list[dict[str, Any]]) -> list[str]:
        """What is probably not meant: times of another unit, or of a clock that is wrong."""
        times = [row["time"] for row in rows]
        found = []
        if times and min(times) < _EARLY:
            unit = self._settings.time_unit
            found.append(
                f"the earliest time is {_date(min(times))}; timeUnit is {unit}: is it another one?"
            )
        if times and max(times) > time.time() * 1000 + DAY:
            found.append(
                f"the latest time is {_date(max(times))}: panels draw rows when their time has come"
            )
        return found


def _message(found: DecodedBody) -> str:
    if not found.refused:
        return ""
    first = found.refused[0]
    noun = "row was" if found.bad == 1 else "rows were"
    return f"{found.bad:,} {noun} not taken; the first, row {first.row}: {first.reason}"


def _date(ms: int) -> str:
    return f"{time.strftime('%Y-%m-%d', time.gmtime(ms / 1000))}"


def _key(request: Request, path: str) -> str | None:
    """The idempotency key of a batch, which is the client's own: others may use the same text.

    Raises PushRefused.
    """
    login = "" if request.user is None else request.user.login
    key = request.header("idempotency-key").strip()
    if key:
        if len(key) > KEY_LIMIT:
            raise PushRefused(
                400,
                f"Idempotency-Key must have at most {KEY_LIMIT} characters, got {len(key):,}",
            )
        return f"{login} {key}"
    wanted = request.header("x-idempotency") or next(iter(request.query.get("idempotency", [])), "")
    if not wanted:
        return None
    if wanted != "body":
        raise PushRefused(400, f"idempotency must be body, got {wanted[:100]!r}")
    return f"{login} sha256 {hashlib.sha256(request.body).hexdigest()}"
