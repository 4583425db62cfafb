"""The contract of a plugin, tried over the wire: the process started as Grafana starts it, health,
queries in Arrow, subscriptions, rows, the end. Imports `words`.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
from grpclib.exceptions import GRPCError, StreamTerminatedError

from aiostream_ds.packaging.findings import Finding, Level
from aiostream_ds.testing.grafana import Grafana, QueryFailed
from aiostream_ds.testing.process import NotStarted, Process, start_process
from aiostream_ds.testing.viewer import Refused

__all__ = ["Channel", "channels_of", "document_of", "not_started", "try_over_the_wire"]

PATIENCE = 10.0
"""Seconds within which a channel has to give its first row."""

PROMPT = 0.2
"""Seconds within which a plugin should be gone after Shutdown; Grafana waits 2."""

_OUTSIDE = (GRPCError, StreamTerminatedError, OSError, TimeoutError, ValueError)


class Channel(msgspec.Struct, frozen=True):
    """A path to follow, and the query that leads to it; None when only the path is known."""

    path: str
    query: Mapping[str, Any] | None = None


def channels_of(document: Mapping[str, Any], settings: Mapping[str, Any]) -> list[Channel]:
    """The streams of a schema.json whose fields all have defaults, of the source in force."""
    sources = document.get("sources") or []
    by = document.get("by")
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
        for field in query.get("fields", ()):
            default = properties.get(field, {}).get("default")
            if default in (None, ""):
                break
            path = _filled(path, field, default)
        else:
            found.append(Channel(path, {"queryType": query["name"]}))
    return found


def document_of(folder: Path) -> dict[str, Any]:
    """schema.json of a package; empty when it cannot be read."""
    try:
        return dict(msgspec.json.decode((folder / "schema.json").read_bytes()))
    except (OSError, ValueError):
        return {}


def _filled(pattern: str, field: str, value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    segments = pattern.split("/")
    return "/".join(text if s.startswith((f"{{{field}}}", f"{{{field}:")) else s for s in segments)


async def try_over_the_wire(
    command: Sequence[str],
    channels: Sequence[Channel],
    settings: Mapping[str, Any],
    secrets: Mapping[str, str],
    environ: Mapping[str, str] = {},
) -> AsyncIterator[Finding]:
    """Start it and go through the contract; one finding for each step. Raises NotStarted."""
    async with start_process(command, environ=environ) as process:
        took = process.seconds
        yield _found("start", f"handshake after {took:.2f} s: {process.handshake.line}")
        async with process.grafana(settings, secrets) as grafana:
            async for finding in _contract(grafana, channels):
                yield finding
        yield await _ended(process)


def not_started(error: NotStarted) -> Finding:
    """A plugin that gave no handshake, as one line."""
    said = f"; it said: {_last(error.said)}" if error.said.strip() else ""
    return Finding(Level.ERROR, "start", f"{error}{said}", "aiostream-ds doctor tells why")


async def _contract(grafana: Grafana, channels: Sequence[Channel]) -> AsyncIterator[Finding]:
    yield await _health(grafana)
    yield await _unknown(grafana)
    if not channels:
        yield Finding(
            Level.WARNING, "streams", "no stream was tried: each needs an argument", "give --path"
        )
    for channel in channels:
        if channel.query is not None:
            yield await _query(grafana, channel)
        yield await _rows(grafana, channel.path)
    try:
        count = len(await grafana.metrics())
    except _OUTSIDE as error:
        yield Finding(Level.ERROR, "metrics", _text(error))
    else:
        yield _found("metrics", f"{count} values")


async def _health(grafana: Grafana) -> Finding:
    began = time.monotonic()
    try:
        ok, message = await grafana.health()
    except _OUTSIDE as error:
        return Finding(Level.ERROR, "health", _text(error))
    text = f"{message!r} after {time.monotonic() - began:.3f} s"
    if ok:
        return _found("health", text)
    return Finding(Level.ERROR, "health", text, "give the settings it needs: --set, --secret")


async def _unknown(grafana: Grafana) -> Finding:
    try:
        await grafana.follow("x/no-such-path")  # no author's path may begin so
    except Refused as refused:
        if refused.status == "NOT_FOUND":
            return _found("unknown path", "refused")
        return Finding(Level.ERROR, "unknown path", f"answered {refused.status}, not NOT_FOUND")
    except _OUTSIDE as error:
        return Finding(Level.ERROR, "unknown path", _text(error))
    return Finding(Level.ERROR, "unknown path", "let in")


async def _query(grafana: Grafana, channel: Channel) -> Finding:
    subject = f"query {channel.path}"
    try:
        frames = await grafana.query(channel.query or {})
    except (QueryFailed, *_OUTSIDE) as error:
        return Finding(Level.ERROR, subject, _text(error))
    named = [f.meta.channel for f in frames if f.meta is not None and f.meta.channel]
    wanted = f"ds/{grafana.uid}/{channel.path}"
    if wanted not in named:
        return Finding(Level.ERROR, subject, f"names the channels {named}, not {wanted}")
    rows = sum(len(f.fields[0].values) for f in frames if f.fields)
    return _found(subject, f"Arrow, {rows} rows, and the channel {wanted}")


async def _rows(grafana: Grafana, path: str) -> Finding:
    subject = f"stream {path}"
    began = time.monotonic()
    try:
        viewer = await grafana.follow(path)
        row = await viewer.next(PATIENCE)
        viewer.leave()
    except (Refused, anyio.EndOfStream, *_OUTSIDE) as error:
        return Finding(Level.ERROR, subject, _text(error))
    return _found(subject, f"first row after {time.monotonic() - began:.3f} s: {row}")


async def _ended(process: Process) -> Finding:
    seconds = await process.stop()
    text = f"gone {seconds:.3f} s after Shutdown"
    if seconds <= PROMPT:
        return _found("end", text)
    level = Level.WARNING if seconds < 2 else Level.ERROR
    return Finding(level, "end", text, "look at what `finally` and the lifespan wait for")


def _found(subject: str, text: str) -> Finding:
    return Finding(Level.OK, subject, text)


def _text(error: BaseException) -> str:
    message = getattr(error, "message", None) or str(error)
    return f"{type(error).__name__}: {message}"


def _last(said: str) -> str:
    """The last line of a log, as its message."""
    line = said.strip().rpartition("\n")[2]
    try:
        return str(msgspec.json.decode(line)["@message"])
    except (ValueError, KeyError, TypeError):
        return line
