"""The text of an author's value in an error message: short, and without the rows of a table."""

import reprlib
from typing import Any

__all__ = ["short_repr"]

_TABLES = ("__arrow_c_stream__", "__arrow_c_array__", "__dataframe__", "__array__")


class _Repr(reprlib.Repr):
    def repr1(self, x: Any, level: int) -> str:
        """The start of the repr; the class if it cannot be made, as of an int of 10,000 digits."""
        try:
            return super().repr1(x, level)
        except BaseException:  # an author's `__repr__` may raise anything
            return f"<{type(x).__name__}>"

    def repr_instance(self, x: Any, level: int) -> str:
        """The class of a table or an array, which may be large; else the start of its repr."""
        kind = type(x)
        if any(hasattr(kind, name) for name in _TABLES) and getattr(x, "shape", None) != ():
            return f"<{kind.__name__}>"
        return super().repr_instance(x, level)


_repr = _Repr()
_repr.maxother = 60


def short_repr(value: Any) -> str:
    """The start of the value's repr; of a table or an array, its class. Raises nothing."""
    return _repr.repr(value)
