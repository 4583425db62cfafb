"""The file of a store: its lock, its tables and its version, and what SQLite's errors mean.

<directory>/<name>.sqlite        rows, in WAL mode with <name>.sqlite-wal and -shm
<directory>/<name>.lock          held by the process that has the store open
"""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from aiostream_ds.errors import ConfigError, PluginError, UpstreamError
from aiostream_ds.stores.store import StoreError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["StoreFile", "Sync", "as_store_error", "check_name", "connect", "open_file"]

Sync = Literal["normal", "full"]
"""What a commit waits for. "normal": the operating system; a crash of the process loses nothing, a
power cut or a crash of the system may lose the last seconds. "full": the disk, at each commit."""

LOCK_WAIT = 5.0
"""Seconds to wait for another process to close the store: one that Grafana has just replaced."""

CURSOR_JUMP = 1 << 32
"""Cursors that are left out when the system has crashed: those of rows that it may have lost.
Operating systems write within a minute; no disk takes so many rows meanwhile."""

_VERSION = 1
_APPLICATION = 0x41446473
_BUSY_SECONDS = 10.0

_TABLES = """
PRAGMA page_size = 4096;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE channels (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    epoch TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL
);
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY,
    channel INTEGER NOT NULL,
    first INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    size INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX block_cursors ON blocks (channel, first);
CREATE INDEX block_times ON blocks (channel, high, first);
CREATE TABLE keys (
    channel INTEGER NOT NULL,
    key BLOB NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (channel, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX key_numbers ON keys (channel, number);
CREATE TABLE removed (channel INTEGER PRIMARY KEY);
"""

_CORRUPT = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_DAMAGED = (
    "is damaged ({}): stop Grafana and restore a backup, or move the file away, so"
    " that a new one is made"
)


class StoreFile(NamedTuple):
    """An open file: the connection that writes, and what was read when it was opened."""

    path: Path | None
    """None: the store is in memory."""
    writer: "sqlite3.Connection"
    epoch: str
    deletions: int
    lock: IO[str] | None
    inode: tuple[int, int] | None

    def is_replaced(self) -> bool:
        """Whether the path is no longer that of the open file."""
        return self.path is not None and _inode(self.path) != self.inode

    def close(self) -> None:
        """Close the file, and let other processes open it."""
        try:
            with suppress(Exception):
                self.writer.execute("UPDATE meta SET value = 1 WHERE name = 'closed'")
                self.writer.execute("PRAGMA optimize")
            self.writer.close()
        finally:
            if self.lock is not None:
                self.lock.close()


def check_name(name: str) -> str:
    """The name of a store, which is that of its file.

    Raises:
        ValueError: no file can have it.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ValueError(
            "the name of a store must be 1 to 100 letters, digits, '.', '_' and '-', beginning with"
            f" a letter or digit, got {name!r}"
        )
    return name


def open_file(path: Path | None, sync: Sync, *, is_replica: bool = False) -> StoreFile:
    """Open or make the file; waits for its lock for `LOCK_WAIT` seconds. Blocks.

    `is_replica`: what a crash of the system loses is known elsewhere, with its cursors.

    Raises:
        ConfigError: an admin must change the directory or the file.
        UpstreamError: another process has it open.
    """
    if path is None:
        return _opened(None, connect(None, sync), None, is_replica)
    lock = _lock(path)
    try:
        return _opened(path, _open_database(path, sync), lock, is_replica)
    except BaseException:
        lock.close()
        raise


def connect(path: Path | None, sync: Sync | None = None) -> "sqlite3.Connection":
    """A connection in autocommit mode; without `sync` one that only reads. Raises sqlite3.Error."""
    import sqlite3  # few plugins have a store

    database = sqlite3.connect(
        ":memory:" if path is None else path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        if sync is None:
            database.execute("PRAGMA query_only = 1")
        else:
            database.execute(f"PRAGMA synchronous = {sync}")
            database.execute("PRAGMA journal_size_limit = 16777216")
            # some builds of SQLite write zeros over each removed page, through the log
            database.execute("PRAGMA secure_delete = fast")
        database.execute("PRAGMA mmap_size = 0")
        database.execute("PRAGMA cache_size = -4096")
    except BaseException:
        database.close()
        raise
    return database


def _open_database(path: Path, sync: Sync) -> "sqlite3.Connection":
    import sqlite3

    try:
        database = connect(path, sync)
    except sqlite3.Error as error:
        raise _open_error(path, error) from error
    try:
        _check_file(path, database)
        return database
    except sqlite3.Error as error:
        database.close()
        raise _open_error(path, error) from error
    except BaseException:
        database.close()
        raise


def _check_file(path: Path, database: "sqlite3.Connection") -> None:
    application = _value(database, "PRAGMA application_id")
    version = _value(database, "PRAGMA user_version")
    if (
        application == 0
        and version == 0
        and not _value(database, "SELECT count(*) FROM sqlite_schema")
    ):
        return  # new
    if application != _APPLICATION:
        raise ConfigError(
            f"{path} is a database of another program; choose another directory for the rows"
        )
    if version != _VERSION:
        age = "a newer" if version > _VERSION else "an older"
        raise ConfigError(
            f"{path} has version {version}, of {age} version of the plugin, expected {_VERSION};"
            " use that version of the plugin, or another directory"
        )
    if _value(database, "PRAGMA journal_mode = WAL") != "wal":
        raise ConfigError(f"{path} cannot be used in WAL mode; choose a local directory")
    database.execute("BEGIN IMMEDIATE")  # fails if it cannot be written
    database.execute("ROLLBACK")


def _opened(
    path: Path | None, database: "sqlite3.Connection", lock: IO[str] | None, is_replica: bool
) -> StoreFile:
    import sqlite3

    try:
        if not _value(database, "PRAGMA user_version"):
            _make_tables(database)
        if not is_replica:
            _leave_out_lost_cursors(database)
        meta = dict(database.execute("SELECT name, value FROM meta"))
        inode = None if path is None else _inode(path)
        return StoreFile(path, database, meta["epoch"], meta["deletions"], lock, inode)
    except (sqlite3.Error, KeyError) as error:
        database.close()
        raise _open_error(path, error) from error


def _make_tables(database: "sqlite3.Connection") -> None:
    database.executescript(_TABLES)
    database.executemany(
        "INSERT INTO meta VALUES (?, ?)",
        [
            ("epoch", os.urandom(6).hex()),
            ("deletions", 0),
            ("closed", 1),
            ("boot", ""),
            ("made", int(time.time() * 1000)),
        ],
    )
    database.execute(f"PRAGMA application_id = {_APPLICATION}")
    database.execute(f"PRAGMA user_version = {_VERSION}")
    database.execute("COMMIT")


def _leave_out_lost_cursors(database: "sqlite3.Connection") -> None:
    """After a crash of the system the last rows may be lost, which viewers have seen: their cursors
    are not used again. Lost, too, may be that a channel was made or deleted: those that are made
    from now on have epochs that were not used.

    That the file is open is on the disk, in the main file, before a row is stored: else, after a
    crash which loses the write-ahead log, the file would be one that was closed in order.
    """
    import sqlite3

    meta = dict(database.execute("SELECT name, value FROM meta"))
    boot = _boot()
    sync = _value(database, "PRAGMA synchronous")
    database.execute("PRAGMA synchronous = full")
    database.execute("BEGIN IMMEDIATE")
    if not meta["closed"] and meta["boot"] != boot:
        database.execute(
            "UPDATE channels SET last = last + ?1,"
            " first = CASE WHEN rows THEN first ELSE last + ?1 + 1 END",
            (CURSOR_JUMP,),
        )
        statement = "UPDATE meta SET value = value + ? WHERE name = 'deletions'"
        database.execute(statement, (CURSOR_JUMP,))
    database.execute("UPDATE meta SET value = 0 WHERE name = 'closed'")
    database.execute("UPDATE meta SET value = ? WHERE name = 'boot'", (boot,))
    database.execute("COMMIT")
    with suppress(sqlite3.Error):  # the disk is full: rows can still be read
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    database.execute(f"PRAGMA synchronous = {sync}")


def _boot() -> str:
    """What differs after each start of the system; unknown ones differ from each other."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return os.urandom(8).hex()


def _value(database: "sqlite3.Connection", statement: str) -> Any:
    row = database.execute(statement).fetchone()
    return row[0] if row else None


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


# -- the lock ------------------------------------------------------------------------------------


def _lock(path: Path) -> IO[str]:
    """The open lock file. The operating system unlocks it when the process ends, also by a kill."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_suffix(".lock"), "a+", encoding="ascii", errors="replace")
    except OSError as error:
        raise ConfigError(
            f"the directory {path.parent} of the rows cannot be written ({error.strerror}); let the"
            " user of Grafana write it, or choose another directory"
        ) from error
    deadline = time.monotonic() + LOCK_WAIT
    try:
        while not _try_lock(lock):
            if time.monotonic() >= deadline:
                lock.seek(0)
                owner = lock.read(20).strip() or "unknown"
                raise UpstreamError(
                    f"{path} is open in another process (id {owner}); a directory of rows is"
                    " for one Grafana server: give each its own, or stop the other one"
                )
            time.sleep(0.05)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        with suppress(OSError):  # the disk is full: the number is only for messages
            lock.flush()
        return lock
    except BaseException:
        with suppress(OSError):
            lock.close()
        raise


def _find_lock() -> Callable[[IO[str]], None]:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        windows: Any = msvcrt
        return lambda file: windows.locking(file.fileno(), windows.LK_NBLCK, 1)
    return lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _try_lock(lock: IO[str]) -> bool:
    try:
        _find_lock()(lock)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True  # this file system has no locks
    return True


# -- errors --------------------------------------------------------------------------------------


def _open_error(path: Path | None, error: Exception) -> PluginError:
    name = getattr(error, "sqlite_errorname", "")
    if any(name.startswith(each) for each in _CORRUPT) or isinstance(error, KeyError):
        return ConfigError(f"{path} {_DAMAGED.format(error)}")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        return ConfigError(
            f"{path} cannot be written ({error}); let the user of Grafana write the directory and"
            " its files, or choose another directory"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return UpstreamError(
            f"{path} is locked by another program ({error}); close the program that has it open"
        )
    return as_store_error(path, error)


def as_store_error(path: Path | None, error: BaseException) -> StoreError:
    """The error of an open store, for what SQLite or the file system has raised."""
    name = getattr(error, "sqlite_errorname", "")
    place = "the store in memory" if path is None else str(path)
    if any(name.startswith(each) for each in _CORRUPT):
        return StoreError(f"{place} {_DAMAGED.format(error)}")
    if name.startswith("SQLITE_FULL") or name in ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_TRUNCATE"):
        return StoreError(
            f"{place}: the disk is full, or the file may not become larger ({error}); let fewer"
            " rows be kept, and free 32 MB on the disk: removing rows needs some space, too"
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StoreError(
            f"{place} cannot be written ({error}); let the user of Grafana write the directory and"
            " its files"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreError(f"{place} is locked by another program ({error}); close that program")
    if name.startswith("SQLITE_IOERR"):
        return StoreError(f"{place}: the disk does not work ({error}); check the disk")
    return StoreError(f"{place}: {error}")
