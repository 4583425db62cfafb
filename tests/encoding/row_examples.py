"""One row in each form that a row may have: the same columns and values in all of them."""

import dataclasses
import sqlite3
from collections import OrderedDict, UserDict, namedtuple
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import attrs
import msgspec
import numpy as np
import pydantic

from aiostream_ds import FieldConfig, Row

TIME = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
MS = 1_767_323_045_678

Celsius = Annotated[float, FieldConfig(unit="celsius")]


class AsRow(Row):
    time: datetime
    celsius: Celsius
    name: str | None = None


class AsStruct(msgspec.Struct):
    time: datetime
    celsius: Celsius
    name: str | None = None


class AsFrozenStruct(msgspec.Struct, frozen=True):
    time: datetime
    celsius: Celsius
    name: str | None = None


@dataclasses.dataclass
class AsDataclass:
    time: datetime
    celsius: float = dataclasses.field(metadata={"": FieldConfig(unit="celsius")})
    name: str | None = None


@dataclasses.dataclass(slots=True)
class AsSlots:
    time: datetime
    celsius: Celsius
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class AsFrozen:
    time: datetime
    celsius: Celsius
    name: str | None = None


@dataclasses.dataclass
class Timed:
    time: datetime


@dataclasses.dataclass
class AsSubclass(Timed):
    celsius: Celsius
    name: str | None = None


class AsNamedTuple(NamedTuple):
    time: datetime
    celsius: Celsius
    name: str | None = None


class AsTypedDict(TypedDict):
    time: datetime
    celsius: Celsius
    name: NotRequired[str | None]


@attrs.define
class AsAttrs:
    time: datetime
    celsius: float = attrs.field(metadata={"": FieldConfig(unit="celsius")})
    name: str | None = None


@attrs.frozen
class AsFrozenAttrs:
    time: datetime
    celsius: Celsius
    name: str | None = None


class AsModel(pydantic.BaseModel):
    time: datetime
    celsius: Celsius
    name: str | None = None


class AsSharedModel(pydantic.BaseModel, frozen=True):
    time: datetime
    celsius: Annotated[float, pydantic.Field(gt=-274), FieldConfig(unit="celsius")]
    name: str | None = None


@pydantic.dataclasses.dataclass
class AsModelDataclass:
    time: datetime
    celsius: Celsius
    name: str | None = None


DECLARED: list[type] = [
    AsRow,
    AsStruct,
    AsFrozenStruct,
    AsDataclass,
    AsSlots,
    AsFrozen,
    AsSubclass,
    AsNamedTuple,
    AsTypedDict,
    AsAttrs,
    AsFrozenAttrs,
    AsModel,
    AsSharedModel,
    AsModelDataclass,
]
"""Classes that declare the fields `time`, `celsius` (with a unit) and `name`."""

Untyped = namedtuple("Untyped", "time celsius name")


class Record:
    """As a row of asyncpg: it has keys and iterates over its values, and is not a Mapping."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def keys(self) -> Any:
        return self._values.keys()

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Any:
        return iter(self._values.values())

    def __len__(self) -> int:
        return len(self._values)


_CURSOR = sqlite3.connect(":memory:").execute("select 1 as time, 2 as celsius, 3 as name")


def sqlite_row(time: Any, celsius: Any, name: Any) -> Any:
    return sqlite3.Row(_CURSOR, (int(time.timestamp() * 1000), celsius, name))


def structured(time: Any, celsius: Any, name: Any) -> Any:
    at = np.datetime64(time.replace(tzinfo=None), "us")
    dtype = [("time", "M8[us]"), ("celsius", "f8"), ("name", "U10")]
    return np.array([(at, celsius, name)], dtype)


BY_KEY: dict[str, Any] = {
    "dict": dict,
    "dict of bytes": lambda **row: {key.encode(): value for key, value in row.items()},
    "OrderedDict": OrderedDict,
    "UserDict": UserDict,
    "MappingProxyType": lambda **row: MappingProxyType(row),
    "namedtuple": Untyped,
    "record": Record,
    "sqlite3.Row": sqlite_row,
    "numpy.void": lambda **row: structured(**row)[0],
    "numpy.record": lambda **row: structured(**row).view(np.recarray)[0],
    "structured array": structured,
}
"""Functions that make rows without declared types."""

MAKERS: dict[str, Any] = {**{kind.__name__: kind for kind in DECLARED}, **BY_KEY}
