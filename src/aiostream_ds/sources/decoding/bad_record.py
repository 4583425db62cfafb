"""The error of a line or message that is not a row, and values in such errors."""

from typing import Any

__all__ = ["BadRecord", "shown"]


class BadRecord(ValueError):
    """A line or message is not a row; the message of the error is the reason."""


def shown(value: Any) -> str:
    """The start of a value's repr, for an error. Raises nothing for a value of JSON."""
    try:
        text = repr(value)
    except ValueError:  # Python does not convert an int of thousands of digits
        return "a too large number"
    return text if len(text) <= 60 else text[:57] + "..."
