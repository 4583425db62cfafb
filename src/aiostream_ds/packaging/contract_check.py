"""Checks a plugin over gRPC: starts the process as Grafana does, then health, queries, streams,
metrics and Shutdown.
"""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import msgspec
from grpclib.exceptions import GRPCError, StreamTerminatedError

from aiostream_ds._short_repr import short_repr
from aiostream_ds.packaging.findings import Finding, Level
from aiostream_ds.packaging.schema_file import path_text
from aiostream_ds.testing.grafana import Grafana, QueryFailed
from aiostream_ds.testing.problems import alert_problem, cursor_problem, history_problems
from aiostream_ds.testing.process import NotStarted, Process, start_process
from aiostream_ds.testing.viewer import Refused

__all__ = [
    "CheckedChannel",
    "check_over_grpc",
    "check_start",
    "default_channels",
    "not_started",
]

FIRST_ROW_TIMEOUT = 10.0
"""Seconds for the first row of a channel."""

ANSWER_TIMEOUT = 30.0
"""Seconds for the answer to a call: a plugin whose event loop is blocked answers none."""

FAST_EXIT = 0.2
"""Seconds from Shutdown to the process's end; Grafana waits 2."""

_FAILURES = (GRPCError, StreamTerminatedError, OSError, TimeoutError, ValueError)


class CheckedChannel(msgspec.Struct, frozen=True):
    """A path to subscribe to, and its query; None if only the path is known."""

    path: str
    query: Mapping[str, Any] | None = None


def default_channels(
    document: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[CheckedChannel]:
    """The streams of the configured source in a schema.json whose fields all have defaults."""
    sources = document.get("sources") or []
    by = document.get("sourceSetting")
    wanted = settings.get(by) if by else None
    source: Mapping[str, Any] = next(
        (s for s in sources if wanted in (None, "", s.get("name"))), {}
    )
    found = []
    for query in source.get("queries", ()):
        properties = query.get("schema", {}).get("properties", {})
        path = query.get("pattern", "")
        if query.get("kind") != "stream":
            continue
        for field, kind in query.get("fields", {}).items():
            default = properties.get(field, {}).get("default", "")
            if default != "":
                path = _fill(path, field, path_text(kind, default))
        if "{" not in path:
            found.append(CheckedChannel(path, {"queryType": query["name"]}))
    return found


def _fill(pattern: str, field: str, text: str) -> str:
    starts = tuple(f"{{{field}{end}" for end in "}:?")
    return "/".join(text if s.startswith(starts) else s for s in pattern.split("/"))


class _LogLine(msgspec.Struct):
    """A line of the plugin's log, as Grafana reads it."""

    level: str = msgspec.field(name="@level")
    message: str = msgspec.field(name="@message")
    path: str = ""
    error: str = ""
    stack: str = ""


async def check_start(command: Sequence[str]) -> AsyncIterator[Finding]:
    """Start and stop the plugin and yield a finding for each.

    Raises:
        NotStarted: There was no handshake.
    """
    async with start_process(command) as process:
        yield _start(process)
        yield await _check_end(process)


async def check_over_grpc(
    command: Sequence[str],
    channels: Sequence[CheckedChannel],
    settings: Mapping[str, Any],
    secrets: Mapping[str, str],
    environ: Mapping[str, str] = {},
) -> AsyncIterator[Finding]:
    """Start the plugin and yield one finding for each step.

    Raises:
        NotStarted: There was no handshake.
    """
    async with start_process(command, environ=environ) as process:
        yield _start(process)
        async with process.grafana(settings, secrets) as grafana:
            async for finding in _check_calls(grafana, channels, process):
                yield finding
        yield await _check_end(process)
    for finding in _blocking_code(process.stderr):
        yield finding


def not_started(error: NotStarted) -> Finding:
    """The finding for a plugin without a handshake."""
    output = f"; its last line: {_last_message(error.stderr)}" if error.stderr.strip() else ""
    return Finding(Level.ERROR, "start", f"{error}{output}", "run aiostream-ds doctor")


async def _check_calls(
    grafana: Grafana, channels: Sequence[CheckedChannel], process: Process
) -> AsyncIterator[Finding]:
    yield await _check_health(grafana)
    yield await _check_unknown_path(grafana)
    if not channels:
        text = "not checked: every stream needs an argument"
        yield Finding(Level.WARNING, "streams", text, "use --path")
    for channel in channels:
        if channel.query is not None:
            yield await _check_query(grafana, channel)
            for finding in await _check_cursor(grafana, channel.path, channel.query):
                yield finding
        yield await _check_stream(grafana, channel.path, process)
        if channel.query is not None:
            for finding in await _check_history(grafana, channel.path, channel.query):
                yield finding
    try:
        with _answers():
            count = len(await grafana.metrics())
    except _FAILURES as error:
        yield Finding(Level.ERROR, "metrics", _describe(error))
    else:
        yield _ok("metrics", f"{count} values")


@contextmanager
def _answers() -> Iterator[None]:
    """Limit the time of what waits for an answer. Raises TimeoutError."""
    with anyio.move_on_after(ANSWER_TIMEOUT) as scope:
        yield
    if scope.cancelled_caught:
        raise TimeoutError(f"expected an answer within {ANSWER_TIMEOUT:g} s, got none")


async def _check_health(grafana: Grafana) -> Finding:
    started = time.monotonic()
    try:
        with _answers():
            ok, message = await grafana.health()
    except _FAILURES as error:
        return Finding(Level.ERROR, "health", _describe(error))
    text = f"{message!r} after {time.monotonic() - started:.3f} s"
    if ok:
        return _ok("health", text)
    return Finding(Level.ERROR, "health", text, "pass its settings with --set and --secret")


async def _check_unknown_path(grafana: Grafana) -> Finding:
    try:
        with _answers():
            await grafana.follow("x/no-such-path")  # a reserved prefix
    except Refused as refused:
        if refused.status == "NOT_FOUND":
            return _ok("unknown path", "refused")
        return Finding(Level.ERROR, "unknown path", f"expected NOT_FOUND, got {refused.status}")
    except _FAILURES as error:
        return Finding(Level.ERROR, "unknown path", _describe(error))
    return Finding(Level.ERROR, "unknown path", "expected NOT_FOUND, got a subscription")


async def _check_query(grafana: Grafana, channel: CheckedChannel) -> Finding:
    subject = f"query {channel.path}"
    try:
        with _answers():
            frames = await grafana.query(channel.query or {})
    except (QueryFailed, *_FAILURES) as error:
        return Finding(Level.ERROR, subject, _describe(error))
    found = [f.meta.channel for f in frames if f.meta is not None and f.meta.channel]
    expected = f"ds/{grafana.uid}/{channel.path}"
    if expected not in found:
        return Finding(Level.ERROR, subject, f"expected the channel {expected}, got {found}")
    rows = sum(len(f.fields[0].values) for f in frames if f.fields)
    return _ok(subject, f"Arrow, {rows} rows, and the channel {expected}")


async def _check_stream(grafana: Grafana, path: str, process: Process) -> Finding:
    subject = f"stream {path}"
    started = time.monotonic()
    try:
        with _answers():
            viewer = await grafana.follow(path)
        row = await viewer.next(FIRST_ROW_TIMEOUT)
        viewer.leave()
    except (Refused, anyio.EndOfStream, *_FAILURES) as error:
        reason = _logged(process.stderr, path)
        return Finding(Level.ERROR, subject, f"{_describe(error)}{reason and f'; {reason}'}")
    seconds = time.monotonic() - started
    return _ok(subject, f"first row after {seconds:.3f} s: {short_repr(row)}")


async def _check_cursor(grafana: Grafana, path: str, query: Mapping[str, Any]) -> list[Finding]:
    try:
        with _answers():
            problem = await cursor_problem(grafana, path, query)
    except (QueryFailed, Refused, *_FAILURES):
        return []  # the checks of the query and of the stream report it
    if problem is None:
        return []
    return [Finding(Level.ERROR, f"cursor {path}", problem.text, problem.cure)]


async def _check_history(grafana: Grafana, path: str, query: Mapping[str, Any]) -> list[Finding]:
    subject = f"history {path}"
    try:
        with _answers():
            problems = await history_problems(grafana, query)
            alert = await alert_problem(grafana, query)
    except (QueryFailed, *_FAILURES) as error:
        return [Finding(Level.ERROR, subject, _describe(error))]
    found = [Finding(Level.ERROR, subject, each.text, each.cure) for each in problems]
    if alert is not None:
        found.append(Finding(Level.WARNING, f"alert rules {path}", alert.text, alert.cure))
    return found


def _start(process: Process) -> Finding:
    line = process.handshake.line
    return _ok("start", f"handshake after {process.seconds:.2f} s: {line}")


async def _check_end(process: Process) -> Finding:
    seconds = await process.stop()
    text = f"the process ended {seconds:.3f} s after Shutdown"
    if seconds <= FAST_EXIT:
        return _ok("end", text)
    level = Level.WARNING if seconds < 2 else Level.ERROR
    return Finding(level, "end", text, "check what `finally` blocks and the lifespan wait for")


def _ok(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def _describe(error: BaseException) -> str:
    message = getattr(error, "message", None) or str(error)
    return f"{type(error).__name__}: {message}"


def _logged(log: str, path: str) -> str:
    """The last warning or error in a log about this path, with the exception; empty if there is
    none."""
    for entry in reversed(_entries(log)):
        if entry.path == path and entry.level in ("warn", "error"):
            error = entry.error.strip().rpartition("\n")[2]
            return f"{entry.message}: {error}" if error else entry.message
    return ""


def _blocking_code(log: str) -> list[Finding]:
    """A finding for each place that has blocked the event loop: its frame in the stack."""
    found = []
    for entry in _entries(log):
        if entry.stack:  # only the watchdog of the event loop logs one
            place = " ".join(entry.stack.split("File ")[-1].split())
            text = f"it was blocked, and every stream and call waited: {place}"
            cure = "await, or write the method as a `def`, which runs in a thread"
            found.append(Finding(Level.WARNING, "event loop", text, cure))
    return found


def _entries(log: str) -> list[_LogLine]:
    entries = []
    for line in log.splitlines():
        with suppress(ValueError):
            entries.append(msgspec.json.decode(line, type=_LogLine))
    return entries


def _last_message(log: str) -> str:
    """The message of the last line of a log."""
    line = log.strip().rpartition("\n")[2]
    try:
        return str(msgspec.json.decode(line)["@message"])
    except (ValueError, KeyError, TypeError):
        return line
