"""The runs of the channels of `http` and `websocket`: decoder, outages and status of each, and what
Save & test reports of all."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio

from aiostream_ds._channels.status import Status
from aiostream_ds.errors import PluginError
from aiostream_ds.sources.decoding import DecodingSettings, MessageDecoder, MessageErrors
from aiostream_ds.sources.gaps import Gap, Gaps
from aiostream_ds.sources.http_client.interrupted_channels import (
    InterruptedChannel,
    InterruptedChannels,
)
from aiostream_ds.sources.panel_status import SHOWN, PanelStatus

__all__ = ["ChannelRun", "ChannelRuns"]


class ChannelRun:
    """One run of a channel. The methods that return a status or None return what is to be yielded.

    Attributes:
        decoder: that of its messages.
        last_event_id: the id with which Server-Sent Events resume; "": none.
        reconnect: returns the seconds after which the server wants to be asked again, if it has
            stated that.
    """

    __slots__ = ("_address", "_gaps", "_sequence", "_state", "_status", "decoder", "reconnect")

    def __init__(
        self,
        decoder: MessageDecoder,
        state: InterruptedChannel,
        gaps: Gaps,
        address: str,
        sequence: str,
    ) -> None:
        self.decoder = decoder
        self.reconnect: Callable[[], float | None] = lambda: None
        self._state = state
        self._gaps = gaps
        self._address = address
        self._sequence = sequence
        self._status = PanelStatus()

    @property
    def last_event_id(self) -> str:
        return self._state.last_event_id

    @last_event_id.setter
    def last_event_id(self, value: str) -> None:
        self._state.last_event_id = value

    def waiting(self) -> Status | None:
        """The status while `wait` waits; None if it will not."""
        seconds = self._state.wait
        if not seconds:
            return None
        return Status("warning", f"waiting for {seconds:.0f} s: {self._state.reason}")

    async def wait(self) -> None:
        """Wait until the server may be asked. Safe to cancel."""
        await anyio.sleep(self._state.wait)

    def connected(self, *, resumes: bool = False) -> Status | None:
        """The connection is open.

        Args:
            resumes: whether the server sends what was missed; then nothing is missing.
        """
        state = self._state
        state.is_open = True
        if not state.has_failed:
            return None
        lost_at, state.lost_at, state.has_failed = state.lost_at, None, False
        # with a column `sequence` the next row shows what is missing
        if lost_at is not None and not resumes and not self._sequence:
            self._show(self._gaps.add_outage(self._address, lost_at))
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
        text = f"{self._sequence} {first:.0f} to {last:.0f} are missing: {count:,} rows"
        self._show(self._gaps.add_missing(self._address, count, text))

    def _show(self, gap: Gap) -> None:
        self._status.set("gap", Status("warning", gap.text), SHOWN)


class ChannelRuns:
    """The runs of a data source's channels.

    Args:
        sequence: the column of numbers that increase by one from row to row; "": there is none.

    Attributes:
        errors: the messages that cannot be decoded.

    Raises:
        ConfigError: the settings of the decoder contradict each other.
    """

    def __init__(self, settings: DecodingSettings, sequence: str) -> None:
        self.errors = MessageErrors()
        self._settings = settings
        self._sequence = sequence
        self._interruptions = InterruptedChannels()
        self._gaps = Gaps("the server does not send them again")
        MessageDecoder(settings, self.errors)  # its settings are checked

    @contextmanager
    def begin(self, channel: Hashable, address: str) -> Iterator[ChannelRun]:
        """One run, from its beginning to its end. What it leaves is there for the next run of the
        same channel.

        Args:
            address: the channel's name in messages.
        """
        state = self._interruptions.begin(channel)
        if state.wait:
            self._interruptions.keep(channel, state)  # the wait outlives this run
        decoder = MessageDecoder(self._settings, self.errors)
        run = ChannelRun(decoder, state, self._gaps, address, self._sequence)
        try:
            yield run
        except PluginError as error:
            self._interruptions.failed(channel, state, error, run.reconnect())
            raise

    def findings(self) -> list[str]:
        """What was left out or lost, for the message of Save & test."""
        found = (self.errors.text(), self._interruptions.text(), self._gaps.text())
        return [text for text in found if text]

    def details(self) -> dict[str, Any]:
        """The same as numbers, for the details of Save & test."""
        return {
            **self.errors.details(),
            "interruptions": self._interruptions.count,
            "gaps": self._gaps.details(),
            "rows_missing": self._gaps.missing,
        }
