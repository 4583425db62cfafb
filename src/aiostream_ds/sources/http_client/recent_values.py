"""Values that were seen, as suggestions."""

from collections import OrderedDict

__all__ = ["RecentValues"]

_LIMIT = 1_000


class RecentValues:
    """The values that were seen last, at most a thousand."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: str) -> None:
        """A value was seen."""
        self._values[value] = None
        self._values.move_to_end(value)
        if len(self._values) > _LIMIT:
            self._values.popitem(last=False)

    def containing(self, typed: str, *further: str) -> list[str]:
        """Those that contain a text, sorted; `further` are fixed ones."""
        return sorted({value for value in (*further, *self._values) if typed in value})
