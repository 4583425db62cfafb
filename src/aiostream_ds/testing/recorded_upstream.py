"""Records an upstream system's messages once, and plays them in tests at their recorded times.

    async for message in record(client.messages(), "kitchen.ndjson"): …      with the real system
    async for message in play("kitchen.ndjson"): …                           in tests

Each line is `{"t": seconds since the start, "message": …}`. A line with `"error"` instead of a
message is a connection that breaks: `play` raises there.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import msgspec

from aiostream_ds._author_code import message_of
from aiostream_ds._redaction import redact

__all__ = ["RecordedMessage", "play", "record"]


class RecordedMessage(msgspec.Struct, omit_defaults=True):
    """One line of a recording."""

    t: float
    message: Any = None
    error: str = ""


async def record(messages: AsyncIterable[Any], path: str | Path) -> AsyncGenerator[Any]:
    """Write each message and its time to a new file, and yield it.

    An exception of the upstream is also written, then raised. Raises FileExistsError for a file
    that exists.
    """
    start = anyio.current_time()
    async with await anyio.open_file(path, "xb") as file:

        async def write(line: RecordedMessage) -> None:
            await file.write(msgspec.json.encode(line) + b"\n")
            await file.flush()

        try:
            async for message in messages:
                await write(RecordedMessage(round(anyio.current_time() - start, 3), message))
                yield message
        except Exception as error:
            await write(
                RecordedMessage(
                    round(anyio.current_time() - start, 3), error=redact(message_of(error))
                )
            )
            raise


async def play(
    recording: str | Path | Iterable[RecordedMessage],
    error: Callable[[str], Exception] = ConnectionError,
    *,
    after: float = 0.0,
) -> AsyncGenerator[Any]:
    """Yield the messages at their recorded times, from `after` seconds on.

    Raises:
        Exception: `error(text)`, at a line with an error.
        ValueError: a line is not a recorded message.
    """
    lines = _read(recording) if isinstance(recording, str | Path) else recording
    start = anyio.current_time()
    for line in lines:
        if line.t < after:
            continue
        await anyio.sleep(max(0.0, start + line.t - after - anyio.current_time()))
        if line.error:
            raise error(line.error)
        yield line.message


def _read(path: str | Path) -> list[RecordedMessage]:
    found = []
    for number, text in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            found.append(msgspec.json.decode(text, type=RecordedMessage))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return found
