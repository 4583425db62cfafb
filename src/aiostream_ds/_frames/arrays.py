"""Arrays as the values of a field. pyarrow's: texts stay as they are, all else becomes a list or a
numpy array. numpy's: which of them are sent as they lie in memory. Both are known by their methods:
neither is imported, nor anything of the project.
"""

from typing import Any

__all__ = ["array_kind", "find_fault", "is_arrow", "unpack"]


_kinds: dict[tuple[type, Any], str] = {}
"""The kinds of arrays that were looked at closely: numpy has one object for each native dtype."""


def array_kind(values: Any) -> str:
    """Kind and item size of a numpy array that can be sent as it lies in memory, such as "f8": of
    numbers or bools, native, in one piece and of one dimension. "" for everything else."""
    try:
        key = values.__class__, values.dtype
        kind = _kinds.get(key) or _find_kind(values, key)
        return kind if values.ndim == 1 and values.flags.c_contiguous else ""
    except (AttributeError, TypeError):  # no numpy array
        return ""


def _find_kind(values: Any, key: tuple[type, Any]) -> str:
    dtype = values.dtype
    if dtype.kind not in "iufb" or dtype.itemsize > 8 or not dtype.isnative:
        return ""
    if hasattr(values, "mask"):
        return ""
    _kinds[key] = kind = f"{dtype.kind}{dtype.itemsize}"
    return kind


def is_arrow(values: object) -> bool:
    """Whether `values` is a pyarrow array, in one piece or chunked."""
    return hasattr(values, "null_count") and hasattr(values, "to_pylist")


def unpack(values: Any, texts: bool) -> Any:
    """A list or a numpy array of the same values; with `texts`, the array itself where it is of
    pyarrow's type string and in one piece."""
    kind = str(values.type)
    if texts and kind == "string" and not hasattr(values, "chunks"):
        return values
    # numpy has no gap but NaN and NaT
    if values.null_count and not kind.startswith("timestamp"):
        return values.to_pylist()
    return values.to_numpy(zero_copy_only=False)


def find_fault(values: Any, nullable: bool) -> str:
    """What is wrong with an array of texts, as the end of a sentence that begins with its field;
    "" when nothing is."""
    if str(values.type) != "string":
        return f": an array of {values.type}; allowed is string"
    if values.null_count and not nullable:
        row = values.is_null().index(True).as_py()
        return f", row {row}: None is not allowed; allowed is a value: it is not nullable"
    try:
        values.validate(full=True)
    except ValueError as error:
        return f": {error}"
    return ""
