"""The source `file`: rows of growing NDJSON and CSV files, and lines of files of text.

Histories are read from the files.

A row's cursor is the byte offset at which its line ends, so exact panels lose no row across
restarts, and on all Grafana servers that read the file. Files are polled ten times a second in
threads.
"""

import os
import stat
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import anyio
import anyio.to_thread
from msgspec import Meta
from msgspec.structs import replace

from aiostream_ds._channels.policy import Retry, SchemaPolicy
from aiostream_ds._channels.status import Status
from aiostream_ds._frames.config import Notice
from aiostream_ds._frames.times import EPOCH
from aiostream_ds._loggers import get_logger
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
from aiostream_ds.rows import Cursor, HistoryPage, HistoryRange, LogLine
from aiostream_ds.sources.capabilities import DeclaredCapabilities
from aiostream_ds.sources.decoding.row_settings import RowSettings
from aiostream_ds.sources.file.follow import Batch, FileFollower, epoch_name
from aiostream_ds.sources.file.log_file import Format, LogFile, Row, SkippedLine, SkippedLines, Text
from aiostream_ds.sources.file.range_reader import FoundRows, find_rows
from aiostream_ds.sources.form_sections import ADVANCED

__all__ = ["File", "FileSettings"]

log = get_logger(__name__)

POLL = 0.1
"""Seconds between two polls of a file without new rows."""

LIST_LIMIT = 1_000
"""Maximum number of files that health and suggestions list."""

NAMES_SHOWN = 10
"""Maximum number of file names in a message."""

HISTORY_THREADS = 4
"""Maximum number of histories that one data source reads at a time; others wait."""

FILES_PROBED = 50
"""Maximum number of files that health reads the beginning of."""

_ROW_SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".tsv")

_LOG_INTERVAL = 60.0
"""Minimum seconds between two log lines about skipped lines of a file."""


class FileSettings(RowSettings):
    """Which files are read, and how."""

    directory: Annotated[str, Meta(examples=["/var/log/app"])]
    """Only files in it and in its subdirectories are read."""
    format: Literal["auto", "ndjson", "csv"] = "auto"
    """auto is CSV for names that end in .csv or .tsv, else NDJSON."""
    max_line: Annotated[int, Meta(ge=1_000, le=64_000_000), ADVANCED] = 1_000_000
    """Maximum bytes of a line; longer lines are skipped."""


FilePath = Annotated[
    str, Meta(description="The path relative to the directory, such as app/today.ndjson")
]
LineFilter = Annotated[
    str | None, Meta(description="Only lines that contain this, in capitals or not. Empty: all")
]


class FileLine(LogLine):
    """One line of a file."""

    id: str
    """Its time and the end of the line."""
    offset: int
    """The end of the line, in bytes."""


class File(DataSource[FileSettings]):
    """Growing NDJSON and CSV files in one directory, and files of text.

    Query type `rows`: the rows of an NDJSON or CSV file. Query type `lines`: the lines of any file
    of text, as a log; `contains` leaves only those that contain a text.

    The field `file` is a path relative to the directory, such as `app/today.ndjson`.
    Like all channel paths, names consist of letters, digits and `_ - = .`; for other names create a
    symbolic link in the directory. Links must not point outside the directory.
    """

    capabilities: ClassVar[DeclaredCapabilities] = {
        "rows": {"event_time": True},
        "lines": {"event_time": True},
    }

    def __init__(self) -> None:
        self._truncations: dict[str, int] = {}
        # by path: the file, and the largest size that was seen of it
        self._longest: dict[str, tuple[tuple[int, int], int]] = {}
        self._lines_skipped: Counter[str] = Counter()
        self._lines_not_utf8: Counter[str] = Counter()
        self._values_left_out: Counter[str] = Counter()

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Resolve the directory."""
        self._root = await anyio.to_thread.run_sync(self._find_root, limiter=self.threads)
        self._history_threads = anyio.CapacityLimiter(HISTORY_THREADS)
        yield

    def _find_root(self) -> Path:
        directory = self.settings.directory
        try:
            root = Path(directory).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the directory {directory!r} cannot be opened: {_reason(error)}"
            ) from None
        if not root.is_dir():
            raise ConfigError(f"directory must be a directory, got {directory!r}")
        return root

    async def health(self) -> Health:
        """Report the files, those without rows, and what was skipped or left out so far.

        It fails if the directory is gone, or if files that should have rows, by their names or the
        settings, have lines and no file has a row.
        """
        await anyio.to_thread.run_sync(self._find_root, limiter=self.threads)
        files, unreachable = await anyio.to_thread.run_sync(self._list, limiter=self.threads)
        no_rows = await anyio.to_thread.run_sync(
            self._files_without_rows, files, limiter=self.threads
        )
        shown = ", ".join(files[:NAMES_SHOWN]) + (", …" if len(files) > NAMES_SHOWN else "")
        noun = "file" if len(files) == 1 else "files"
        text = f"{len(files)} {noun}: {shown}" if files else "no files yet"
        if unreachable:
            names = ", ".join(unreachable[:NAMES_SHOWN])
            text += f"; {len(unreachable)} have names that cannot be channel paths: {names}"
        if no_rows:
            reasons = "; ".join(f"{file}: {why}" for file, why in islice(no_rows.items(), 3))
            text += f"; {len(no_rows)} have lines but no row: {reasons}"
        details = {
            "files": files,
            "unreachable": unreachable,
            "no_rows": no_rows,
            "lines_skipped": dict(self._lines_skipped),
            "lines_not_utf8": dict(self._lines_not_utf8),
            "values_left_out": dict(self._values_left_out),
        }
        if no_rows and not any(map(self._is_for_rows, no_rows)):
            text += "; the query type `lines` shows files of text"
        is_failed = len(no_rows) == len(files) and any(map(self._is_for_rows, no_rows))
        return Health(ok=not is_failed, message=text, details=details)

    # a value that does not fit its column is left out: one bad line must not end the stream
    @stream(
        "rows/{file:rest}",
        cursor="offset",
        retry=Retry(fill=False),
        schema=SchemaPolicy(conflict="null"),
    )
    async def rows(self, after: Cursor, file: FilePath) -> Rows[Row | list[Row] | Cursor | Status]:
        """The rows of a file as it grows; waits for a file that does not exist yet."""
        status = _NoRowsStatus()
        async with aclosing(self._follow(after, file, self._row_format(file))) as batches:
            async for batch in batches:
                if batch.begins is not None:
                    yield batch.begins
                if (changed := status.change(batch)) is not None:
                    yield changed
                if batch.rows:
                    yield batch.rows

    @rows.history
    async def rows_history(self, span: HistoryRange, file: str) -> HistoryPage:
        """Read the rows of a time range, or those after an offset, from the file.

        A time range also includes the rows of rotated files (`FILE.1`, `FILE.2` …). Their offset is
        0, which is before the first row of the file.
        """
        return await self._page(span, file, self._row_format(file))

    @stream("lines/{contains:any?}/{file:rest}", cursor="offset", retry=Retry(fill=False))
    async def lines(
        self, after: Cursor, file: FilePath, contains: LineFilter = None
    ) -> Rows[list[FileLine] | Cursor]:
        """The lines of a file as it grows; waits for a file that does not exist yet."""
        async with aclosing(self._follow(after, file, Text(contains or ""))) as batches:
            async for batch in batches:
                if batch.begins is not None:
                    yield batch.begins
                if batch.rows:
                    yield list(map(_line, batch.rows))

    @lines.history
    async def lines_history(
        self, span: HistoryRange, file: str, contains: str | None = None
    ) -> HistoryPage:
        """Read the lines of a time range, or those after an offset, as `rows_history` reads rows.

        The time of a line is written in it; a line without one has that of the line before it.
        """
        page = await self._page(span, file, Text(contains or ""))
        return replace(page, rows=list(map(_line, page.rows)))

    @rows.subscribe
    async def may_read(self, user: User | None, file: str) -> None:
        """Refuse a file that is outside the directory or not readable; it need not exist yet."""
        with _translate_errors(file):
            await anyio.to_thread.run_sync(self._locate_future, file, limiter=self.threads)

    @lines.subscribe
    async def may_read_lines(
        self, user: User | None, file: str, contains: str | None = None
    ) -> None:
        """As `may_read`."""
        await self.may_read(user, file)

    @rows.suggest("file")
    @lines.suggest("file")
    async def files(self, typed: str) -> list[str]:
        """The files whose path contains the typed string."""
        files, _ = await anyio.to_thread.run_sync(self._list, limiter=self.threads)
        return [file for file in files if typed in file]

    async def _follow(self, after: Cursor, file: str, format: Format) -> AsyncGenerator[Batch]:
        """What is read of a file, with the lines after the cursor, as it grows."""
        follower = FileFollower(
            os.path.join(self._root, file),
            partial(self._open, file, format),
            after,
            self._truncations,
        )
        skipped_log = _SkippedLog(file)
        try:
            while True:
                try:
                    with _translate_errors(file):
                        batch = await anyio.to_thread.run_sync(follower.read, limiter=self.threads)
                except (NotFound, PermissionDenied) as error:  # transient during a rotation
                    raise UpstreamError(error.message) from error
                self._lines_skipped[file] += len(batch.skipped)
                self._lines_not_utf8[file] += batch.replaced
                self._values_left_out[file] += batch.left_out
                skipped_log.add(batch.skipped, anyio.current_time())
                yield batch
                if not batch.more:
                    await anyio.sleep(POLL)
        finally:
            follower.close()

    async def _page(self, span: HistoryRange, file: str, format: Format) -> HistoryPage:
        with _translate_errors(file):
            return await anyio.to_thread.run_sync(
                self._read, span, file, format, limiter=self._history_threads
            )

    def _row_format(self, file: str) -> Format:
        """The format of the rows of a file, by the settings or by its name."""
        if self.settings.format != "auto":
            return self.settings.format
        return "csv" if _base_name(file).endswith((".csv", ".tsv")) else "ndjson"

    def _is_for_rows(self, file: str) -> bool:
        """Whether a file should have rows, and not only lines of text."""
        return self.settings.format != "auto" or _base_name(file).endswith(_ROW_SUFFIXES)

    # -- in threads ----------------------------------------------------------------------------

    def _locate(self, file: str) -> str:
        """The real path of a file. Raises PermissionDenied, NotFound and OSError."""
        try:
            path = (self._root / file).resolve(strict=True)
        except RuntimeError:  # until Python 3.12
            raise NotFound(f"{file!r} is a symbolic link to itself") from None
        if not path.is_relative_to(self._root):
            raise PermissionDenied(f"{file!r} is outside the directory")
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotFound(f"{file!r} is not a regular file")
        if not os.access(path, os.R_OK):
            raise PermissionDenied(f"{file!r} is not readable for the plugin's user")
        return str(path)

    def _locate_future(self, file: str) -> str:
        """As `_locate`, also for a file that does not exist yet."""
        try:
            return self._locate(file)
        except FileNotFoundError:
            path = (self._root / file).resolve()
            if not self._root.is_dir():
                raise
            if not path.is_relative_to(self._root):
                raise PermissionDenied(f"{file!r} is outside the directory") from None
            return str(path)

    def _open(self, file: str, format: Format) -> LogFile:
        # a folder may be replaced by a link after the check: no link is followed any more
        return LogFile(
            os.path.relpath(self._locate(file), self._root),
            self.settings,
            format=format,
            max_line=self.settings.max_line,
            directory=str(self._root),
        )

    def _read(self, span: HistoryRange, file: str, format: Format) -> HistoryPage:
        skipped = SkippedLines()
        page = self._read_all(span, file, format, skipped)
        if skipped.first is None:
            return page
        text = (
            f"{skipped.count:,} lines of {file} are not rows; the first ends at offset"
            f" {skipped.first.offset}: {skipped.first.reason}"
        )
        return replace(page, notices=(Notice(severity="warning", text=text),))

    def _read_all(
        self, span: HistoryRange, file: str, format: Format, skipped: SkippedLines
    ) -> HistoryPage:
        is_missing = False
        try:
            found = find_rows(partial(self._open, file, format), span, skipped)
        except FileNotFoundError:
            found, is_missing = None, True
        if found is None:
            page = HistoryPage([], truncated=bool(span.after and span.after > 0), last=0)
        else:
            truncations = self._truncations.get(os.path.join(self._root, file), 0)
            epoch = epoch_name(found.epoch, truncations)
            page = HistoryPage(
                found.rows,
                epoch=epoch,
                truncated=self._is_truncated(span, file, found),
                last=found.last,
            )
        if span.after is not None or (found is not None and found.covers_start):
            return page
        seen_files = {found.key} if found else set()
        page = self._read_rotated(span, file, format, page, seen_files, skipped)
        if is_missing and not page.rows:  # with rotated files it is a rotation
            text = f"no such file: {file!r}; rows appear when it exists"
            page = replace(page, notices=(Notice(severity="warning", text=text),))
        return page

    def _is_truncated(self, span: HistoryRange, file: str, found: FoundRows) -> bool:
        """Whether the rows after an offset existed in this file. Beyond the end of a file that was
        never as long they do not exist yet: another server has read them, and this one is late."""
        key, longest = self._longest.get(file, (found.key, 0))
        if key != found.key:
            longest = 0
        self._longest[file] = found.key, max(longest, found.size)
        return found.is_beyond_end and span.after is not None and span.after <= longest

    def _read_rotated(
        self,
        span: HistoryRange,
        file: str,
        format: Format,
        page: HistoryPage,
        seen_files: set[tuple[int, int]],
        skipped: SkippedLines,
    ) -> HistoryPage:
        rows: list[Row] = page.rows
        for number in count(1):
            if len(rows) >= span.limit:
                break
            rest = replace(span, limit=span.limit - len(rows))
            try:
                found = find_rows(partial(self._open, f"{file}.{number}", format), rest, skipped)
            except (OSError, PluginError):
                break
            if found is None or found.key in seen_files:  # renamed in the meantime
                continue
            seen_files.add(found.key)
            for row in found.rows:
                row["offset"] = 0
            rows = found.rows + rows
            if found.covers_start:
                break
        return replace(page, rows=rows)

    def _list(self) -> tuple[list[str], list[str]]:
        """The relative paths of the files that can be channel paths, and of those that cannot."""
        found: tuple[list[str], list[str]] = [], []
        for path in islice(self._walk(), LIST_LIMIT):
            found[File.rows.pattern.match(f"rows/{path}") is None].append(path)
        return sorted(found[0]), sorted(found[1])

    def _files_without_rows(self, files: Sequence[str]) -> dict[str, str]:
        """Of the first files, those that have lines and no row; with the reason."""
        found = {}
        for file in files[:FILES_PROBED]:
            try:
                with _translate_errors(file), self._open(file, self._row_format(file)) as log:
                    reason = log.no_rows_reason()
            except NotFound:
                continue
            except PluginError as error:
                reason = error.message.removeprefix(f"{file!r}: ")
            if reason is not None:
                found[file] = reason
        return found

    def _walk(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self._root):
            folders.sort()
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and path.resolve().is_relative_to(self._root):
                    yield path.relative_to(self._root).as_posix()


def _base_name(file: str) -> str:
    """The name without the number of a rotation, in lower case: FILE.1 is as FILE."""
    return file.rstrip("0123456789").removesuffix(".").lower()


def _line(row: Row) -> FileLine:
    """A row of text, as `TextReader` reads it."""
    time = EPOCH + timedelta(milliseconds=row["time"])
    return FileLine(time, row["body"], row["id"], row["offset"])


class _NoRowsStatus:
    """The status of a run that has read lines and no row: its panels would be empty in silence."""

    __slots__ = ("_has_rows", "_shown")

    def __init__(self) -> None:
        self._has_rows = self._shown = False

    def change(self, batch: Batch) -> Status | None:
        """The new status after this batch, or None."""
        if batch.rows:
            shown, self._shown, self._has_rows = self._shown, False, True
            return Status() if shown else None
        if self._has_rows or self._shown or not batch.skipped:
            return None
        self._shown = True
        line = batch.skipped[0]
        return Status("warning", f"no rows: the line up to offset {line.offset}: {line.reason}")


class _SkippedLog:
    """Logs a run's skipped lines: the first at once, then one log line per minute."""

    __slots__ = ("_count", "_file", "_next_at")

    def __init__(self, file: str) -> None:
        self._file = file
        self._next_at = 0.0
        self._count = 0

    def add(self, skipped: Sequence[SkippedLine], now: float) -> None:
        self._count += len(skipped)
        if skipped and now >= self._next_at:
            log.warning(
                "%s: skipped a line at offset %d: %s (%d skipped since the last report)",
                self._file,
                skipped[0].offset,
                skipped[0].reason,
                self._count,
            )
            self._next_at = now + _LOG_INTERVAL
            self._count = 0


@contextmanager
def _translate_errors(file: str) -> Iterator[None]:
    """Raise the operating system's errors about a file as errors for the user."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no such file: {file!r}") from None
    except PermissionError:
        raise PermissionDenied(f"{file!r} is not readable for the plugin's user") from None
    except UpstreamError as error:
        raise UpstreamError(f"{file!r}: {error.message}") from error
    except OSError as error:
        raise UpstreamError(f"{file!r}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
