"""The settings of the source `postgres`: a server, and the tables that viewers may read."""

from typing import Annotated

import msgspec
from msgspec import Meta

from aiostream_ds._tls import TlsSettings
from aiostream_ds.settings import Secret, secret
from aiostream_ds.sources.decoding import DecodingSettings
from aiostream_ds.sources.form_sections import ADVANCED
from aiostream_ds.sources.sharing_settings import SharingSettings

__all__ = ["PostgresSettings", "TableSettings"]

_MULTILINE = {"multiline": True}


class TableSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A table, view or SELECT whose rows are a stream."""

    table: Annotated[str, Meta(examples=["public.readings"])] = ""
    """Name of a table or view as in SQL: one with capital letters needs double quotes."""
    select: Annotated[str, Meta(extra_json_schema=_MULTILINE)] = ""
    """SELECT in place of a table, without parameters."""
    key: Annotated[tuple[str, ...], Meta(min_length=1, max_length=2)] = ("id",)
    """Column, or two columns, that increase from row to row and are unique: integers or times."""
    transaction: str = ""
    """Column with the id of the transaction that inserted the row. Without it, a row of a
    transaction that commits late is missing in live panels."""
    time: str = ""
    """Column with the time of the row. Empty: `time`, or the only column of a time type."""
    columns: tuple[str, ...] = ()
    """Columns that rows have. Empty: all but the key."""
    filters: tuple[str, ...] = ()
    """Columns that viewers may filter by, as site=paris."""
    notify: str = ""
    """Channel of NOTIFY that announces new rows: they are read at once."""
    poll: Annotated[float, Meta(ge=0.02, le=3600)] = 1.0
    """Seconds between two reads of new rows."""
    single_writer: bool = False
    """Whether rows are committed in the order of their key, so that no transaction is needed."""


class PostgresSettings(DecodingSettings, TlsSettings, SharingSettings):
    """A PostgreSQL server."""

    host: Annotated[str, Meta(min_length=1, examples=["db.example.com"])]
    """Host name or address, or the folder of a Unix socket."""
    port: Annotated[int, Meta(ge=1, le=65535)] = 5432
    database: Annotated[str, Meta(min_length=1)] = "postgres"
    user: Annotated[str, Meta(min_length=1)] = "grafana"
    """Role of the database; it needs to read only."""
    password: Secret = secret()
    tls: bool = False
    """Connect with TLS, and verify the server's certificate and its name."""
    tables: dict[str, TableSettings] = {}
    """Streams by name: the tables that viewers may read."""
    channels: tuple[str, ...] = ()
    """Channels of NOTIFY whose payloads viewers may follow."""
    time_zone: Annotated[str, ADVANCED] = "UTC"
    """Zone of times without one (timestamp, date), as Europe/Berlin."""
    connections: Annotated[int, Meta(ge=2, le=100), ADVANCED] = 5
    """Most connections for reading; one more listens."""
    connect_timeout: Annotated[float, Meta(ge=0.5, le=300), ADVANCED] = 10.0
    """Seconds to wait for a connection."""
    statement_timeout: Annotated[float, Meta(ge=0.1, le=3600), ADVANCED] = 30.0
    """Seconds after which the server cancels a statement."""
    max_value: Annotated[int, Meta(ge=100, le=1_000_000), ADVANCED] = 65_536
    """Most bytes of a text, JSON or bytea; longer ones are left out and counted."""
    pooler: Annotated[bool, ADVANCED] = False
    """Whether PgBouncer in transaction mode, or a pooler like it, is between: nothing is prepared
    or listened to."""
