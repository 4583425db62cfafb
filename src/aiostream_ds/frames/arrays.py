"""pyarrow's arrays as the values of a field: texts stay as they are, all else becomes a list or a
numpy array. Known by their methods: pyarrow is not imported, nor anything of the project.
"""

from typing import Any

__all__ = ["find_fault", "is_arrow", "unpack"]


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
