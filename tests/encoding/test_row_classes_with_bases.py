"""Classes with declared fields that derive from classes of Python: which are rows, and copies."""

from collections import UserDict
from dataclasses import dataclass

import attrs
import pytest

from aiostream_ds import Broadcast, DataSource, Rows, stream
from aiostream_ds._encoding.row_encoder import RowEncoder
from aiostream_ds._encoding.row_kinds import row_kind
from aiostream_ds._encoding.yielded import reader


@dataclass
class Failure(Exception):
    n: int


@dataclass
class Slotted(OSError):
    __slots__ = ("n",)
    n: int


@attrs.define(slots=False)
class Number(int):
    n: int


@dataclass
class Text(str):
    n: int


class Made:
    def __new__(cls, *args):
        if not args:
            raise AssertionError("expected arguments")
        return super().__new__(cls)


@dataclass
class WithNew(Made):
    n: int


@dataclass
class InDict(dict):
    n: int


@dataclass
class InUserDict(UserDict):
    n: int


@attrs.define(slots=False)
class InList(list):
    n: int


@pytest.mark.parametrize("kind", [Failure, Slotted, Number, Text, WithNew])
def test_an_object_with_fields_is_a_row_and_copied_whatever_it_derives_from(kind):
    row = kind(1)
    copy = reader(kind)(row)
    assert type(copy) is kind and copy is not row
    row.n = 2
    (packet,) = RowEncoder().encode([copy])
    assert packet.data.endswith(b"[1]]}")


@pytest.mark.parametrize("kind", [InDict, InUserDict, InList])
def test_an_object_with_fields_that_is_a_mapping_or_a_list_is_refused_with_a_cure(kind):
    text = f"got {kind.__name__}, which has both; let it have a (mapping|list) as a field"
    if kind is not InList:
        with pytest.raises(TypeError, match=text):
            row_kind(kind)
    with pytest.raises(TypeError, match=text):
        reader(kind)
    with pytest.raises(TypeError, match=text):
        Broadcast().publish(kind(1))
    with pytest.raises(TypeError, match=text):

        class Source(DataSource):
            @stream
            async def rows(self) -> Rows[kind]:
                yield kind(1)


def test_a_list_without_fields_is_a_list_of_rows():
    class Many(list):
        pass

    assert reader(Many)(Many([{"n": 1}])) == [{"n": 1}]
