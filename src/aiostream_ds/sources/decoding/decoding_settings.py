"""The settings of a source whose messages are decoded by `MessageDecoder`."""

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from aiostream_ds._channels.policy import SchemaPolicy
from aiostream_ds.errors import ConfigError
from aiostream_ds.sources.decoding.row_settings import RowSettings
from aiostream_ds.sources.form_sections import MESSAGES

__all__ = ["DecodingSettings", "Format", "series_labels", "with_labels"]

Format = Literal["auto", "json", "influx", "csv", "msgpack", "cbor", "number", "text"]


class DecodingSettings(RowSettings):
    """How messages become rows."""

    format: Annotated[Format, MESSAGES] = "auto"
    """The format of the messages. auto finds it for each message from its content; name it where
    you know it. influx is line protocol."""
    rows_path: Annotated[str, Meta(examples=["$.data[*]"]), MESSAGES] = ""
    """A JSONPath that selects the rows of a message. Without one, an object is a row and an array
    is several."""
    paths: Annotated[dict[str, str], MESSAGES] = {}
    """Columns with values from elsewhere in the message, by JSONPath: {"device": "$.head.name"}
    gives every row of the message a column `device`."""
    names: Annotated[list[str], MESSAGES] = []
    """The names of the columns of arrays, and of CSV without a header."""
    labels: Annotated[list[str], MESSAGES] = []
    """Columns whose values identify a series, such as the name of a device. Each series has columns
    of its own. Without any, those of line protocol are `measurement` and `tags`."""
    max_message: Annotated[int, Meta(ge=1_000, le=64_000_000), MESSAGES] = 1_000_000
    """Maximum bytes of a message; longer ones are left out."""


def series_labels(settings: DecodingSettings) -> tuple[str, ...]:
    """The columns that identify a series. Raises ConfigError."""
    if "time" in settings.labels or "" in settings.labels:
        raise ConfigError(
            f"labels must be names of columns other than 'time', got {settings.labels!r}"
        )
    if not settings.labels and settings.format == "influx":
        return "measurement", "tags"
    return tuple(dict.fromkeys(settings.labels))


def with_labels(declared: SchemaPolicy, settings: DecodingSettings) -> SchemaPolicy:
    """The policy of a stream, whose rows have these settings: with their labels, too. For
    `DataSource._schema_policy` of a stream without a cursor. Raises ConfigError."""
    labels = dict.fromkeys((*declared.labels, *series_labels(settings)))
    return replace(declared, labels=tuple(labels))
