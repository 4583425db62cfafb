"""The schemas of a channel's messages, which its log does not repeat in each entry."""

from aiostream_ds._cluster.entries import ChannelMessage, schema_hash

__all__ = ["GONE", "KnownSchemas"]

GONE = b""  # a schema that nobody has any more: messages that need it are skipped

_MOST = 4


class KnownSchemas:
    """The schemas that one reader of a log knows.

    Attributes:
        current: that of the last message. None: it has none. The same object as before if it has
            not changed.
        hash: of the current one; 0: there is none.
    """

    __slots__ = ("_known", "current", "hash")

    def __init__(self) -> None:
        self.current: bytes | None = None
        self.hash = 0
        self._known: dict[int, bytes] = {}

    def set(self, hashed: int, body: bytes | None) -> None:
        """Make a schema the current one. `body`: None if it is one that is known."""
        self.hash = hashed
        if not hashed:
            self.current = None
            return
        if body is not None:
            self._add(body)
        self.current = self._known.get(hashed, GONE)

    def lacks(self, message: ChannelMessage) -> bool:
        """Whether the engine has to be asked for the schema of a message."""
        if message.schema in (0, self.hash) or message.schema_body is not None:
            return False
        return message.schema not in self._known

    def set_answer(self, hashed: int, body: bytes | None) -> None:
        """The engine was asked for a schema, and has this one."""
        if body is not None:
            self._add(body)
        if hashed not in self._known:
            self._known[hashed] = GONE

    def of(self, message: ChannelMessage) -> bytes | None:
        """The schema of a message; None: it has none, or it is not known any more."""
        return message.schema_body or self._known.get(message.schema) or None

    def _add(self, body: bytes) -> None:
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[schema_hash(body)] = body
