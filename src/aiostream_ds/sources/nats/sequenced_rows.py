"""Messages of streams as rows."""

from collections.abc import Sequence
from typing import Any

from aiostream_ds._channels.status import Status
from aiostream_ds.sources.decoding import DecodingSettings, MessageDecoder, MessageErrors
from aiostream_ds.sources.event_lag import NO_LAG, Lag
from aiostream_ds.sources.nats.ordered_consumer import StreamMessage
from aiostream_ds.sources.nats.subject_filters import SubjectQuery

__all__ = ["SEQUENCE", "SequencedRows"]

SEQUENCE = "sequence"
"""The column of the cursor."""


class SequencedRows:
    """Makes a row of each message. Its time is that at which the server has stored the message,
    unless the message has a time of its own.

    Attributes:
        lag: between the times of messages and rows that were made.
    """

    def __init__(
        self, settings: DecodingSettings, errors: MessageErrors, query: SubjectQuery
    ) -> None:
        self.lag = NO_LAG
        self._decoder = MessageDecoder(settings, errors)
        self._query = query

    @property
    def status(self) -> Status | None:
        """A change of the status of bad messages; see `MessageDecoder.status`."""
        return self._decoder.status()

    def rows(self, messages: Sequence[StreamMessage]) -> list[dict[str, Any]]:
        """The rows of messages, with their sequences. A message that is several rows is bad: they
        would have one cursor."""
        found = []
        for message in messages:
            subject, time = message.subject, message.time
            extra = {SEQUENCE: message.sequence, **self._query.columns(subject)}
            rows = self._decoder.rows(
                message.payload,
                extra,
                time,
                address=subject,
                content_type=message.headers.get("Content-Type", ""),
            )
            if len(rows) > 1:
                reason = f"a message must be one row, got one of {len(rows)}"
                self._decoder.add_bad(subject, reason, message.payload)
            elif rows:
                lag = time - rows[0]["time"]
                if lag:
                    self.lag = self.lag.joined(Lag(lag, lag))
                found.append(rows[0])
        return found
