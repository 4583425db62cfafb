"""Python code that decodes one message class, for classes whose messages come often.

It takes half the steps of a loop over a table: a host writes fields in the order of their numbers,
so each is tried in its turn, and the next one is known before the loop.
"""

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["LARGEST_MESSAGE", "CodeField", "decoder_code"]

LARGEST_MESSAGE = 64 * 1024
"""Bytes of the largest message that the code decodes: it copies it once."""


class CodeField(NamedTuple):
    """One field: its tag in one byte, its name, its number as the name of its variables.

    `kind` is what is done with its value: "number", "set", "append", "put" or "skip". `value` is
    the expression that converts `{}`.
    """

    tag: int
    name: str
    number: int
    kind: str
    value: str


def decoder_code(fields: Iterable[CodeField], start: str, result: str) -> str:
    """The function `read(data)`, whose result is the dict of a message's attributes.

    `start` are the lines that give each variable `f<number>` its default, `result` is the
    expression of the dict. The function needs `slow`, which decodes what is rare, `read_varint`,
    `position_after`, `truncated` and what the fields' expressions name.
    """
    ordered = sorted(fields, key=lambda field: field.tag)
    known = ", ".join(str(field.tag) for field in ordered)
    steps = "".join(_step(field) for field in ordered)
    return f"""\
def read(data):
 end = len(data)
 if not 0 < end <= {LARGEST_MESSAGE}: return slow(data)
{start}
 position = 0
 whole, data = data, data + b"\\0"  # no tag: after the last field
 try:
  tag = data[0]
  while True:
{steps}
   if position == end: return {result}
   if tag in ({known},): continue  # another order
   if tag > 127: return slow(whole)
   position = position_after(data, tag, position + 1)
   tag = data[position]
 except IndexError: raise truncated(end) from None
"""


def _step(field: CodeField) -> str:
    is_repeated = field.kind in ("append", "put", "skip")
    lines = [
        f"   {'while' if is_repeated else 'if'} tag == {field.tag}:",
        "    size = data[position + 1]",
        "    position += 2",
        "    if size > 127: size, position = read_varint(data, position - 1)",
    ]
    variable = f"f{field.number}"
    if field.kind == "number":
        value = field.value.format(f"size if size < {1 << 63} else size - {1 << 64}")
        lines.append(f"    {variable} = {value}")
    else:
        value = field.value.format("data[start:position]")
        lines += [
            "    start = position",
            "    position += size",
            "    if position > end: raise IndexError",
        ]
        if field.kind == "set":
            lines.append(f"    {variable} = {value}")
        elif field.kind == "append":
            lines.append(f"    {variable}.append({value})")
        elif field.kind == "put":
            lines += [f"    key, item = {value}", f"    {variable}[key] = item"]
    lines.append("    tag = data[position]")
    return "\n".join(lines) + "\n"
