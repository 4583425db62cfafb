"""The column that says how a stream is doing, for panels that are not exact.

Every row says it in a column of text, the last one; and when no rows come but the status changes, a
row comes that says only this. A history has the column too, empty. Only who asks for the column
pays for it: it is put into packets that are encoded already. Imports channels, frames, its room.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from aiostream_ds._channels.status import StatusPacket
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_layout import TIME
from aiostream_ds._frames import json
from aiostream_ds._frames.frame import Field, FieldType, Frame
from aiostream_ds._frames.packet import Packet, Schema

if TYPE_CHECKING:
    from aiostream_ds._channels.channel import Channel
    from aiostream_ds.rows import Columns

__all__ = ["LIVE", "STATUS_REPEAT", "StatusEncoder"]

LIVE = "live"
"""What the column says while all is well."""

STATUS_REPEAT = 10.0
"""Seconds after which a status that goes on and changes its words, `stale 42 s`, is told again."""

_TIME = "time.Time"


class _Data(Struct, omit_defaults=True):
    values: list[Raw]
    entities: list[Raw] | UnsetType = UNSET
    nanos: list[Raw] | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Data).decode
_encode = msgspec.json.Encoder().encode
_NULL = Raw(b"null")


class StatusEncoder(RowEncoder):
    """An encoder that adds the column `name`; its other arguments are `RowEncoder`'s."""

    __slots__ = ("_channel", "_decorated", "_name", "_said")

    def __init__(self, name: str, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._name = name
        self._decorated: tuple[Schema, Schema, list[str]] | None = None
        self._channel: Channel | None = None
        self._said = LIVE

    def attach(self, channel: "Channel") -> None:
        """Tell this channel's status from now on."""
        self._channel = channel
        channel.statuses.repeat = STATUS_REPEAT
        channel.on_status = self._tell

    @property
    def schema(self) -> Schema | None:
        """As `RowEncoder.schema`, with the column."""
        plain = super().schema
        return plain and self._schema(plain)

    def copy(self) -> "StatusEncoder":
        """As `RowEncoder.copy`."""
        plain = super().copy()
        found = StatusEncoder(self._name)
        for slot in RowEncoder.__slots__:
            setattr(found, slot, getattr(plain, slot))
        return found

    def encode(self, rows: list[Any]) -> list[Packet]:
        """As `RowEncoder.encode`: rows come, so whatever kept them away is over."""
        packets = super().encode(rows)
        shown = self._channel.statuses.current_with_rows if self._channel is not None else None
        text = LIVE if shown is None else shown.text
        found: list[Packet] = []
        for packet in packets:
            if isinstance(packet, StatusPacket):  # what the author says holds for the rows after it
                text = packet.status.text or LIVE
            elif packet.rows:
                packet = self._with_column(packet, text)
                self._said = text
            found.append(packet)
        return found

    def frame(self, rows: "Sequence[Any] | Columns[Any] | Frame") -> Frame:
        """As `RowEncoder.frame`: how the stream was doing then, nobody knows."""
        plain = super().frame(rows)
        if any(field.name == self._name for field in plain.fields):
            raise self._taken()
        column = Field(self._name, [None] * plain.rows, FieldType.STRING)
        return Frame(*plain.fields, column, name=plain.name, ref_id=plain.ref_id, meta=plain.meta)

    def _tell(self) -> None:
        """The status has changed: a row says so, unless the last rows did."""
        channel = self._channel
        if channel is None:
            return
        status = channel.status
        text = LIVE if status is None else status.text
        if text == self._said:
            return
        self._said = text
        packet = self._row(text)
        channel.statuses.ignores_rows = True  # no row of the upstream's
        try:
            channel.emit(packet)
        finally:
            channel.statuses.ignores_rows = False

    def _row(self, text: str) -> Packet:
        now: list[Any] = [time.time_ns() // 1_000_000]
        plain = super().schema
        if plain is None:
            frame = Frame(Field(TIME, now, FieldType.TIME), Field(self._name, [text]))
            body = json.schema(frame)
            return Packet(Schema(body, json.fingerprint(body)), json.data(frame.fields), 1)
        schema, kinds = self._schema(plain), self._kinds()
        first = kinds.index(_TIME) if _TIME in kinds else -1
        values = [now if place == first else [None] for place in range(len(kinds))]
        return Packet(schema, _encode({"values": [*values, [text]]}), 1)

    def _with_column(self, packet: Packet, text: str) -> Packet:
        data = _decode(packet.data)
        data.values.append(Raw(_encode([text] * packet.rows)))
        for extra in (data.entities, data.nanos):
            if extra is not UNSET:
                extra.append(_NULL)
        return replace(packet, schema=self._schema(packet.schema), data=_encode(data))

    def _schema(self, plain: Schema) -> Schema:
        if self._decorated is None or self._decorated[0] is not plain:
            found = msgspec.json.decode(plain.body)
            fields = found["fields"]
            if any(field.get("name") == self._name for field in fields):
                raise self._taken()
            kinds = [field.get("typeInfo", {}).get("frame", "") for field in fields]
            for field in fields:  # a row that says the status alone has nothing in the others
                if field.get("typeInfo"):
                    field["typeInfo"]["nullable"] = True
            text = msgspec.json.decode(
                json.schema(Frame(Field(self._name, [None], FieldType.STRING)))
            )
            fields.append(text["fields"][0])
            body = _encode(found)
            self._decorated = plain, Schema(body, json.fingerprint(body)), kinds
        return self._decorated[1]

    def _kinds(self) -> list[str]:
        return self._decorated[2] if self._decorated is not None else []

    def _taken(self) -> TypeError:
        return TypeError(
            f"the rows have a column {self._name!r}, and status_column={self._name!r} adds one;"
            " give it another name"
        )
