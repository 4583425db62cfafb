"""The status of a stream of messages: what is missing after an outage, and what is left out."""

from collections.abc import Sequence
from typing import Any

from aiostream_ds._channels.status import Status
from aiostream_ds.sources.decoding import MessageDecoder
from aiostream_ds.sources.http_client.interrupted_channels import (
    InterruptedChannel,
    InterruptedChannels,
)
from aiostream_ds.sources.panel_status import SHOWN, PanelStatus

__all__ = ["StreamStatus"]


class StreamStatus:
    """The status of one run. Its methods return a status that is to be yielded, or None.

    Args:
        sequence: the column of numbers that increase by one from row to row; "": there is none.

    Attributes:
        decoder: that of the messages.
    """

    __slots__ = ("_interruptions", "_sequence", "_state", "_status", "decoder")

    def __init__(
        self,
        decoder: MessageDecoder,
        state: InterruptedChannel,
        interruptions: InterruptedChannels,
        sequence: str,
    ) -> None:
        self.decoder = decoder
        self._state = state
        self._interruptions = interruptions
        self._sequence = sequence
        self._status = PanelStatus()

    def connected(self, *, resumes: bool) -> Status | None:
        """The connection is open.

        Args:
            resumes: whether the server sends what was missed; then nothing is missing.
        """
        missing = self._state.connected(resumes=resumes)
        if missing is None:
            return None
        if missing and not self._sequence:  # else the next row shows what is missing
            self._interruptions.count_gap()
            self._set_gap(missing)
        # also a healthy one: it ends the status of the outage
        return self._status.change() or Status()

    def received(self, rows: Sequence[dict[str, Any]]) -> Status | None:
        """A message was received, with these rows."""
        self._status.set("left out", self.decoder.status())
        if self._sequence:
            self._check_numbers(rows)
        return self._status.change()

    def _check_numbers(self, rows: Sequence[dict[str, Any]]) -> None:
        name, last = self._sequence, self._state.last_number
        for row in rows:
            number = row.get(name)
            if not isinstance(number, float):
                continue
            if last is not None and number > last + 1:
                self._add_missing(last + 1, number - 1)
            last = number
        self._state.last_number = last

    def _add_missing(self, first: float, last: float) -> None:
        count = round(last - first) + 1
        self._interruptions.count_gap(count)
        self._set_gap(f"{self._sequence} {first:.0f} to {last:.0f} are missing: {count:,} rows")

    def _set_gap(self, text: str) -> None:
        self._status.set("gap", Status("warning", text), SHOWN)
