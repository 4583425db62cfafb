"""The subjects and streams of the engine.

NAME.log.CHANNEL                 entries and resignations; stream NAME-log
NAME.live.CHANNEL                the same, published again by the server when they are stored; and
                                 messages that are not stored
NAME.state.node.NODE             the node's lease; stream NAME-state, one message a subject
NAME.state.use.CHANNEL.NODE      the node has subscribers of the channel
NAME.state.sweep                 when the logs of unused channels were last looked for
"""

import re

__all__ = ["Subjects", "from_token", "to_token"]

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(r"((?:=[0-9A-F]{2})+)")


def to_token(text: str) -> str:
    """A text as one token of a subject, which has no dot in it."""
    return _UNSAFE.sub(lambda found: found[0].encode().hex("=").upper().join(("=", "")), text)


def from_token(token: str) -> str:
    """The text of a token."""
    return _ESCAPED.sub(
        lambda found: bytes.fromhex(found[0].replace("=", "")).decode("utf-8", "replace"), token
    )


class Subjects:
    """The subjects that begin with a name."""

    def __init__(self, name: str) -> None:
        self.log_stream, self.state_stream = f"{name}-log", f"{name}-state"
        self.logs, self.state = f"{name}.log.*", f"{name}.state.>"
        self.live = f"{name}.live.{{{{wildcard(1)}}}}"
        """As a stream's republish has it."""
        self.live_rights = f"{name}.live.*"
        self.nodes = f"{name}.state.node.*"
        self.uses = f"{name}.state.use.*.*"
        self.sweep = f"{name}.state.sweep"
        self._name = name

    def log_of(self, channel: str) -> str:
        return f"{self._name}.log.{to_token(channel)}"

    def live_of(self, channel: str) -> str:
        return f"{self._name}.live.{to_token(channel)}"

    def node(self, node: str) -> str:
        return f"{self._name}.state.node.{to_token(node)}"

    def use(self, channel: str, node: str) -> str:
        return f"{self._name}.state.use.{to_token(channel)}.{to_token(node)}"

    def uses_of(self, channel: str) -> str:
        return f"{self._name}.state.use.{to_token(channel)}.*"

    def uses_by(self, node: str) -> str:
        return f"{self._name}.state.use.*.{to_token(node)}"
