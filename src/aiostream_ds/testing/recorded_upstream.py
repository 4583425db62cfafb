"""An upstream recorded once and played in tests, at its own pace on the loop's clock.

    async for message in record(client.messages(), "kitchen.ndjson"): …      once, at the real thing
    async for message in play("kitchen.ndjson"): …                           in tests, without it

One line a message: `{"t": seconds since the start, "message": …}`. A line with `"error"` instead is
a connection that breaks there: `play` raises what the test says an error is.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from pathlib import Path
from typing import Any

import anyio
import msgspec

__all__ = ["Recorded", "play", "record"]


class Recorded(msgspec.Struct, omit_defaults=True):
    """One line of a recording."""

    t: float
    message: Any = None
    error: str = ""


async def record(messages: AsyncIterable[Any], path: str | Path) -> AsyncGenerator[Any]:
    """Hands on each message, and writes it with its time to a new file. What the upstream raises is
    written, too, and raised. Raises FileExistsError rather than write over a recording."""
    begun = anyio.current_time()
    async with await anyio.open_file(path, "xb") as file:

        async def write(line: Recorded) -> None:
            await file.write(msgspec.json.encode(line) + b"\n")
            await file.flush()

        try:
            async for message in messages:
                await write(Recorded(round(anyio.current_time() - begun, 3), message))
                yield message
        except Exception as error:
            await write(
                Recorded(round(anyio.current_time() - begun, 3), error=str(error) or "error")
            )
            raise


async def play(
    recording: str | Path | Iterable[Recorded],
    error: Callable[[str], Exception] = ConnectionError,
    *,
    after: float = 0.0,
) -> AsyncGenerator[Any]:
    """The messages at their times, those behind `after` seconds; in virtual time they cost nothing.

    Raises what `error` makes of a line's error, there. Raises ValueError for a line that is none.
    """
    lines = _read(recording) if isinstance(recording, str | Path) else recording
    begun = anyio.current_time()
    for line in lines:
        if line.t < after:
            continue
        await anyio.sleep(max(0.0, begun + line.t - after - anyio.current_time()))
        if line.error:
            raise error(line.error)
        yield line.message


def _read(path: str | Path) -> list[Recorded]:
    found = []
    for number, text in enumerate(Path(path).read_bytes().splitlines(), 1):
        try:
            found.append(msgspec.json.decode(text, type=Recorded))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return found
