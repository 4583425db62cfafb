"""The answer to "Save & test": the server, each stream, and the tables that could be streams."""

from collections.abc import Mapping
from typing import Any

from aiostream_ds.errors import PluginError
from aiostream_ds.models import Health
from aiostream_ds.sources.capabilities import Ability, Capabilities
from aiostream_ds.sources.decoding import MessageErrors
from aiostream_ds.sources.gaps import Gaps
from aiostream_ds.sources.health_report import health_report
from aiostream_ds.sources.postgres.database import Database
from aiostream_ds.sources.postgres.discovery import find_tables
from aiostream_ds.sources.postgres.listener import NotificationListener, Wakeups
from aiostream_ds.sources.postgres.postgres_settings import PostgresSettings
from aiostream_ds.sources.postgres.statements import TableStatements
from aiostream_ds.sources.postgres.table_reader import TableReader

__all__ = ["check_source"]

_SHOWN = 10
"""Most tables that the message names; the details have all."""

_LATE = "rows that commit late are missing in live panels"

_SERVER = """
SELECT current_setting('server_version'), current_database(), current_user,
    now() AT TIME ZONE $1::text  -- fails for an unknown zone
"""

_INDEXES = """
SELECT a.attname FROM pg_index AS i
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = to_regclass($1)
"""


async def check_source(
    settings: PostgresSettings,
    database: Database,
    readers: Mapping[str, TableReader],
    listener: NotificationListener,
    wakeups: Wakeups,
    errors: MessageErrors,
    gaps: Gaps,
) -> Health:
    """It fails if a stream cannot be read, or the channels cannot be listened to.

    Raises:
        PluginError: the server cannot be reached, or refuses the login.
    """
    ((version, name, user, _),) = await database.fetch(_SERVER, settings.time_zone)
    tls = "with TLS" if settings.tls else "without TLS"
    found = [f"connected to PostgreSQL {version} {tls}, database {name}, as {user}"]
    problems: list[str] = []
    more: list[str] = []
    details: dict[str, Any] = {"streams": {}}
    is_ok = True
    for stream, reader in readers.items():
        try:
            able, wrong = await _stream(reader, database)
        except PluginError as error:
            is_ok, able, wrong = False, "", [error.message]
        problems += [f"{stream}: {text}" for text in wrong]
        more += [f"{stream} {able}"] if able else []
        details["streams"][stream] = "; ".join(filter(None, [able, *wrong]))
    if readers:
        found.append(f"{len(readers):,} {'stream' if len(readers) == 1 else 'streams'}")
    if _listens(settings):
        try:
            await listener.check()
        except PluginError as error:
            is_ok = is_ok and not settings.channels
            problems.append(f"cannot listen: {error.message}")
        else:
            problems += [f"cannot listen to {key}: {why}" for key, why in wakeups.errors.items()]
    if settings.channels:
        text = Capabilities(event_time="of payloads with a time").text()
        more.append(f"notifications of {', '.join(settings.channels)} {text}")
        problems += [errors.text(), gaps.text()]
        details["notifications"] = {**errors.details(), "gaps": gaps.details()}
    details["tables"] = tables = await find_tables(database)
    if not readers and not settings.channels:
        problems.append(_tables(tables, settings))
    return health_report(found, problems, more, details, ok=is_ok)


def _listens(settings: PostgresSettings) -> bool:
    return bool(settings.channels or any(table.notify for table in settings.tables.values()))


async def _stream(reader: TableReader, database: Database) -> tuple[str, list[str]]:
    """What the stream can do, and what is wrong."""
    state = await reader.state()
    await reader.try_read()
    statements = state.statements
    text = Capabilities(history=True, resume=_resumes(reader, statements), event_time=True).text()
    wrong = [await _missing_indexes(reader, database, statements.key.columns[0].name)]
    if not statements.has_transaction and not reader.table.single_writer:
        wrong.append(f"{_LATE}: set transaction")
    left_out = reader.left_out
    if left_out:
        wrong.append(f"left out: {left_out['message']:,} rows, {left_out['value']:,} values")
    if state.status is not None:
        wrong.append(state.status.text)
    return text, [each for each in wrong if each]


def _resumes(reader: TableReader, statements: TableStatements) -> Ability:
    if statements.has_transaction:
        return True
    if reader.table.single_writer:
        return "as long as rows are committed in the order of their key"
    return f"but {_LATE}"


async def _missing_indexes(reader: TableReader, database: Database, key: str) -> str:
    if not reader.table.table:
        return ""
    indexed = {name for (name,) in await database.fetch(_INDEXES, reader.table.table)}
    time = (await reader.state()).statements.time.name
    missing = [name for name in dict.fromkeys((key, time)) if name not in indexed]
    if not indexed or not missing:  # a view has none
        return ""
    return f"no index begins with {' or '.join(missing)}: reads may be slow"


def _tables(found: Mapping[str, dict[str, Any]], settings: PostgresSettings) -> str:
    if not found:
        return f"no table can be read: GRANT SELECT to {settings.user!r}"
    names = list(found)
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"no streams yet: name tables in the setting tables; it can read {shown}"
