"""The status column: the stream's status as a column of strings, for panels that are not exact.

The column is the last one. Each row has the current status; when the status changes and no rows
arrive, a row with only the status is sent. In a history the column is empty. Streams without the
column have no cost: it is added to packets that are already encoded.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from aiostream_ds._channels.status import StatusPacket
from aiostream_ds._encoding.row_columns import TIME
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._frames import json
from aiostream_ds._frames.cursor import extends
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.packet import Packet, Schema

if TYPE_CHECKING:
    from aiostream_ds._channels.channel import Channel
    from aiostream_ds.rows import Columns

__all__ = ["LIVE", "STATUS_REPEAT", "StatusEncoder"]

LIVE = "live"
"""The text of the status column while the stream is healthy."""

STATUS_REPEAT = 10.0
"""Seconds after which a status with a changing text, such as `stale 42 s`, is sent again."""

_TIME_TYPE = FieldType.TIME.value


class _Data(Struct, omit_defaults=True):
    values: list[Raw]
    entities: list[Raw] | UnsetType = UNSET
    nanos: list[Raw] | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Data).decode
_encode = msgspec.json.Encoder().encode
_NULL = Raw(b"null")


class StatusEncoder(RowEncoder):
    """An encoder that adds the column `name`; the other arguments are those of `RowEncoder`."""

    __slots__ = ("_channel", "_extended", "_last_text", "_name")

    def __init__(self, name: str, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._name = name
        # the rows' schema, the schema with the column, and the types of the rows' fields
        self._extended: tuple[Schema, Schema, list[str]] | None = None
        self._channel: Channel | None = None
        self._last_text = LIVE

    def attach(self, channel: "Channel") -> None:
        """Send the status of this channel from now on."""
        self._channel = channel
        channel.statuses.repeat = STATUS_REPEAT
        channel.on_status = self._send_status

    @property
    def schema(self) -> Schema | None:
        """As `RowEncoder.schema`, with the column."""
        schema = super().schema
        return schema and self._extend(schema)

    def learn(self, schema: Schema) -> None:
        """As `RowEncoder.learn`, for a schema with the column."""
        fields = [f for f in json.decode_rows((), schema).fields if f.name != self._name]
        super().learn(json.make_schema(Frame(*fields)))

    def live_schema(self, sent: Schema) -> Schema:
        """As `RowEncoder.live_schema`, with the column."""
        grown = self._dict_layout
        extended = sent if grown is None else self._extend(grown.schema)
        return extended if extends(extended, sent) else sent

    def copy(self) -> "StatusEncoder":
        """As `RowEncoder.copy`."""
        original = super().copy()
        found = StatusEncoder(self._name)
        for slot in RowEncoder.__slots__:
            setattr(found, slot, getattr(original, slot))
        return found

    def encode(self, rows: list[Any], stamps: list[int] | None = None) -> list[Packet]:
        """As `RowEncoder.encode`. Statuses that rows end, such as stale, are not in the column."""
        packets = super().encode(rows, stamps)
        shown = self._channel.statuses.current_with_rows if self._channel is not None else None
        text = LIVE if shown is None else shown.text
        found: list[Packet] = []
        for packet in packets:
            if isinstance(packet, StatusPacket):  # the author's status is that of the rows after it
                text = packet.status.text or LIVE
            elif packet.rows:
                packet = self._with_column(packet, text)
                self._last_text = text
            found.append(packet)
        return found

    def frame(self, rows: "Sequence[Any] | Columns[Any] | Frame") -> Frame:
        """As `RowEncoder.frame`. The column is empty: past statuses are not recorded."""
        frame = super().frame(rows)
        if any(field.name == self._name for field in frame.fields):
            raise self._name_conflict()
        column = Field(self._name, [None] * frame.rows, FieldType.STRING)
        return Frame(*frame.fields, column, name=frame.name, ref_id=frame.ref_id, meta=frame.meta)

    def _send_status(self) -> None:
        """The status has changed: send a row with it, unless the last rows have it."""
        channel = self._channel
        if channel is None:
            return
        status = channel.status
        text = LIVE if status is None else status.text
        if text == self._last_text:
            return
        self._last_text = text
        packet = self._status_row(text)
        channel.statuses.ignores_next = True  # the row is not from the upstream system
        channel.emit(packet)

    def _status_row(self, text: str) -> Packet:
        now: list[Any] = [time.time_ns() // 1_000_000]
        schema = super().schema
        if schema is None:
            return json.packet(Frame(Field(TIME, now, FieldType.TIME), Field(self._name, [text])))
        extended, kinds = self._extend(schema), self._kinds()
        first_time = kinds.index(_TIME_TYPE) if _TIME_TYPE in kinds else -1
        values = [now if index == first_time else [None] for index in range(len(kinds))]
        return Packet(extended, _encode({"values": [*values, [text]]}), 1)

    def _with_column(self, packet: Packet, text: str) -> Packet:
        data = _decode(packet.data)
        data.values.append(Raw(_encode([text] * packet.rows)))
        for extra in (data.entities, data.nanos):
            if extra is not UNSET:
                extra.append(_NULL)
        return replace(packet, schema=self._extend(packet.schema), data=_encode(data))

    def _extend(self, schema: Schema) -> Schema:
        """The schema with the column."""
        if self._extended is None or self._extended[0] is not schema:
            found = msgspec.json.decode(schema.body)
            fields = found["fields"]
            if any(field.get("name") == self._name for field in fields):
                raise self._name_conflict()
            kinds = [field.get("typeInfo", {}).get("frame", "") for field in fields]
            for field in fields:  # they are null in a row with only the status
                if field.get("typeInfo"):
                    field["typeInfo"]["nullable"] = True
            column = json.schema(Frame(Field(self._name, [None], FieldType.STRING)))
            fields.append(msgspec.json.decode(column)["fields"][0])
            body = _encode(found)
            self._extended = schema, Schema(body, json.fingerprint(body)), kinds
        return self._extended[1]

    def _kinds(self) -> list[str]:
        return self._extended[2] if self._extended is not None else []

    def _name_conflict(self) -> TypeError:
        return TypeError(
            f"status_column must not be the name of a column of the rows, got {self._name!r};"
            " use another name"
        )
