"""The source `file`: follows growing NDJSON and CSV files; their history is read from them again.

A row's cursor is the byte offset at which its line ends, so panels are exact across restarts and on
all Grafana servers that see the file. Files are looked at ten times a second, in threads.
"""

import logging
import os
import stat
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Literal

import anyio
import anyio.to_thread
from msgspec import Meta
from msgspec.structs import replace

from aiostream_ds.datasource import DataSource
from aiostream_ds.decorators import Rows, stream
from aiostream_ds.errors import (
    ConfigError,
    NotFound,
    PermissionDenied,
    PluginError,
    UpstreamError,
)
from aiostream_ds.models import Health, User
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange
from aiostream_ds.sources.file.follow import Follower, numbering
from aiostream_ds.sources.file.log_file import LogFile, Row, Skipped
from aiostream_ds.sources.file.range_reader import look
from aiostream_ds.sources.file.records import RecordSettings

__all__ = ["File", "FileSettings"]

log = logging.getLogger(__name__)

POLL = 0.1
"""Seconds between two looks at a file that brought nothing."""

LISTED = 1_000
"""Files under the directory that health counts; what is beyond is not looked at."""

NAMED = 10
"""Files that a message names."""

_SAID_EVERY = 60.0
"""Seconds in which one log line tells of all lines of a file that were left out."""


class FileSettings(RecordSettings):
    """Which files are followed, and how their lines are read."""

    directory: Annotated[str, Meta(examples=["/var/log/app"])]
    """Only files in it and below are read."""
    format: Literal["auto", "ndjson", "csv"] = "auto"
    """auto is CSV for names that end in .csv or .tsv, else NDJSON."""
    max_line: Annotated[int, Meta(ge=1_000, le=64_000_000)] = 1_000_000
    """Bytes of the longest line that is read."""


Name = Annotated[str, Meta(description="Its path below the directory, as app/today.ndjson")]


class File(DataSource[FileSettings]):
    """Growing NDJSON and CSV files below one directory.

    Query type `rows`, field `file`: a path below the directory, as `app/today.ndjson`.
    Names are of letters, digits and `_ - = .`, as all channel paths; give others a link beside
    them. Links may not lead out of the directory.
    """

    def __init__(self) -> None:
        self._cuts: dict[str, int] = {}
        self._left_out: Counter[str] = Counter()
        self._replaced: Counter[str] = Counter()

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Finds the directory."""
        self._root = await anyio.to_thread.run_sync(self._find_root)
        yield

    def _find_root(self) -> Path:
        directory = self.settings.directory
        try:
            root = Path(directory).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"directory is {directory!r}: {_reason(error)}") from None
        if not root.is_dir():
            raise ConfigError(f"directory is {directory!r}; allowed is a directory")
        return root

    async def health(self) -> Health:
        """Green with the files that are there, and what runs had to leave out of them."""
        files, odd = await anyio.to_thread.run_sync(self._list)
        named = ", ".join(files[:NAMED]) + (", …" if len(files) > NAMED else "")
        noun = "file" if len(files) == 1 else "files"
        text = f"{len(files)} {noun}: {named}" if files else "no file there yet"
        if odd:
            text += f"; {len(odd)} have names that no channel can have: {', '.join(odd[:NAMED])}"
        details = {
            "files": files,
            "unreachable": odd,
            "lines_left_out": dict(self._left_out),
            "lines_not_utf8": dict(self._replaced),
        }
        return Health(message=text, details=details)

    @stream("rows/{file:rest}", cursor="offset")
    async def rows(self, after: Cursor | None, file: Name) -> Rows[Row | list[Row] | Cursor]:
        """The rows of a file, on and on; waits for it while it is not there."""
        follower = Follower(
            os.path.join(self._root, file), partial(self._open, file), after, self._cuts
        )
        told = _Told(file)
        try:
            while True:
                try:
                    with _explained(file):
                        batch = await anyio.to_thread.run_sync(follower.read)
                except (NotFound, PermissionDenied) as error:  # amid a rotation it may be so
                    raise UpstreamError(error.message) from error
                self._left_out[file] += len(batch.skipped)
                self._replaced[file] += batch.replaced
                told.tell(batch.skipped, anyio.current_time())
                if batch.begins is not None:
                    yield batch.begins
                if batch.rows:
                    yield batch.rows
                if not batch.more:
                    await anyio.sleep(POLL)
        finally:
            follower.close()

    @rows.history
    async def past(self, span: HistoryRange, file: str) -> HistoryPage:
        """Reads the rows of a span, or those behind an offset, from the file again.

        Of a time span also those of rotated files, `FILE.1` and on, which come before; their
        offset is 0: before the beginning of this file.
        """
        with _explained(file):
            return await anyio.to_thread.run_sync(self._read, span, file)

    @rows.subscribe
    async def may_read(self, user: User | None, file: str) -> None:
        """Refuses what is outside of the directory, not there, or not readable."""
        with _explained(file):
            await anyio.to_thread.run_sync(self._locate, file)

    @rows.suggest("file")
    async def files(self, typed: str) -> list[str]:
        """The files that are there."""
        files, _ = await anyio.to_thread.run_sync(self._list)
        return [file for file in files if typed in file]

    # -- in threads ----------------------------------------------------------------------------

    def _locate(self, file: str) -> str:
        """The real path of a file. Raises PermissionDenied, NotFound and OSError."""
        try:
            path = (self._root / file).resolve(strict=True)
        except RuntimeError:  # until Python 3.12
            raise NotFound(f"{file!r} is a link to itself") from None
        if not path.is_relative_to(self._root):
            raise PermissionDenied(f"{file!r} leads out of the directory")
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotFound(f"{file!r} is no regular file")
        if not os.access(path, os.R_OK):
            raise PermissionDenied(f"{file!r} cannot be read by the plugin's user")
        return str(path)

    def _open(self, file: str) -> LogFile:
        settings = self.settings
        plain = file.rstrip("0123456789").removesuffix(".")  # FILE.1 is as FILE
        by_name = plain.lower().endswith((".csv", ".tsv"))
        is_csv = by_name if settings.format == "auto" else settings.format == "csv"
        return LogFile(self._locate(file), settings, is_csv=is_csv, max_line=settings.max_line)

    def _read(self, span: HistoryRange, file: str) -> HistoryPage:
        try:
            found = look(partial(self._open, file), span)
        except FileNotFoundError:
            found = None  # amid a rotation: as if it were empty
        if found is None:
            page = HistoryPage([], truncated=bool(span.after and span.after > 0), last=0)
        else:
            cuts = self._cuts.get(os.path.join(self._root, file), 0)
            epoch = numbering(found.epoch, cuts)
            page = HistoryPage(found.rows, epoch=epoch, truncated=found.gone, last=found.last)
        if span.after is not None or (found is not None and found.reaches_back):
            return page
        return self._read_rotated(span, file, page, {found.key} if found else set())

    def _read_rotated(
        self, span: HistoryRange, file: str, page: HistoryPage, seen: set[tuple[int, int]]
    ) -> HistoryPage:
        rows: list[Row] = page.rows
        for number in count(1):
            if len(rows) >= span.limit:
                break
            rest = replace(span, limit=span.limit - len(rows))
            try:
                found = look(partial(self._open, f"{file}.{number}"), rest)
            except (OSError, PluginError):
                break
            if found is None or found.key in seen:  # it was renamed meanwhile
                continue
            seen.add(found.key)
            for row in found.rows:
                row["offset"] = 0
            rows = found.rows + rows
            if found.reaches_back:
                break
        return replace(page, rows=rows)

    def _list(self) -> tuple[list[str], list[str]]:
        """The files that a channel can name, and the others; by their paths in the directory."""
        found: tuple[list[str], list[str]] = [], []
        for path in islice(self._walk(), LISTED):
            found[File.rows.pattern.match(f"rows/{path}") is None].append(path)
        return sorted(found[0]), sorted(found[1])

    def _walk(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self._root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and path.resolve().is_relative_to(self._root):
                    yield path.relative_to(self._root).as_posix()


class _Told:
    """What one run says of the lines that it leaves out: the first, then a sum each minute."""

    __slots__ = ("_file", "_silent", "_until")

    def __init__(self, file: str) -> None:
        self._file = file
        self._until = 0.0
        self._silent = 0

    def tell(self, skipped: Sequence[Skipped], now: float) -> None:
        self._silent += len(skipped)
        if skipped and now >= self._until:
            log.warning(
                "%s: a line is left out, at offset %d: %s (%d since this was said last)",
                self._file, skipped[0].offset, skipped[0].reason, self._silent,
            )  # fmt: skip
            self._until = now + _SAID_EVERY
            self._silent = 0


@contextmanager
def _explained(file: str) -> Iterator[None]:
    """What the system says of a file, as an error that a user reads."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no file {file!r}") from None
    except PermissionError:
        raise PermissionDenied(f"{file!r} cannot be read by the plugin's user") from None
    except UpstreamError as error:
        raise UpstreamError(f"{file!r}: {error.message}") from error
    except OSError as error:
        raise UpstreamError(f"{file!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
