"""A history and its live rows are joined by name and kind of column: numbers are numbers."""

import anyio
import msgspec
import numpy
import pytest

from aiostream_ds import Cursor, DataSource, Field, FieldType, Frame, HistoryRange, Row, stream
from aiostream_ds._frames import json
from aiostream_ds._frames.cursor import column_conflict
from aiostream_ds.testing import serve_in_memory

TEXT = "a history must have the columns of the live rows, "


class Reading(Row):
    time: int
    id: int
    value: float


LIVE = {
    "dict": {"time": 2, "id": 2, "value": 2.5},
    "row": Reading(time=2, id=2, value=2.5),
    "int": {"time": 2, "id": 2, "value": 2},
    "more": {"time": 2, "id": 2, "value": 2.5, "note": "x"},
}


def frame(value, kind=None, name="value"):
    return Frame(Field("time", [1], FieldType.TIME), Field("id", [1]), Field(name, value, kind))


class Source(DataSource):
    kind = "dict"
    past: object = None

    @stream("readings", cursor="id")
    async def readings(self, after: Cursor):
        yield Cursor("", 1)
        yield LIVE[self.kind]
        await anyio.sleep_forever()

    @readings.history
    async def readings_past(self, history_range: HistoryRange):
        return self.past

    @stream("stock", status_column="status")
    async def stock(self):
        yield LIVE[self.kind]
        await anyio.sleep_forever()

    @stock.history
    async def stock_past(self, history_range: HistoryRange):
        return self.past


class Packets:
    """The packets with rows of an exact channel."""

    def __init__(self):
        self.found = []

    def push(self, payload):
        packet = msgspec.json.decode(payload)
        if "data" in packet:
            self.found.append(packet)


async def joined(kind, past, *, exact=True):
    """The notices of three queries."""
    Source.kind, Source.past = kind, past
    path = "readings" if exact else "stock"
    async with serve_in_memory(Source) as grafana:
        await (await grafana.follow(path)).next()
        answers = [(await grafana.query({"queryType": path, "exact": exact}))[0] for _ in range(3)]
    return [[notice.text for notice in answer.meta.notices] for answer in answers]


async def test_a_history_of_other_numbers_has_the_epoch_of_the_live_rows():
    Source.kind, Source.past = "dict", frame(numpy.array([1.5], "f4"))
    async with serve_in_memory(Source) as grafana:
        (history,) = await grafana.query({"queryType": "readings", "exact": True})
        packets = Packets()
        await grafana.attach("x/readings", packets)
        with anyio.fail_after(15):
            while not packets.found:
                await anyio.sleep(0.01)
    epochs = {packet["cursor"]["epoch"] for packet in packets.found}
    assert epochs == {history.meta.custom["cursor"]["epoch"]}


@pytest.mark.diagonal
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", ["dict", "row", "int"])
@pytest.mark.parametrize(
    "past",
    [
        frame(numpy.array([1.5], "f4")),
        frame([1.5]),
        frame([1]),
        frame([1], FieldType.UINT8),
        [Reading(time=1, id=1, value=1.5)],
        [{"time": 1, "id": 1, "value": 1}],
    ],
    ids=["float32", "float64", "int64", "uint8", "row", "dict"],
)
async def test_numbers_of_any_type_are_joined(kind, past, exact, caplog):
    assert await joined(kind, past, exact=exact) == [[], [], []]
    assert caplog.records == []


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("kind", "past", "text"),
    [
        ("dict", frame(["x"]), "value (float64), got value (string)."),
        ("row", [{"time": 1, "id": 1, "value": "1.5"}], "value (float64), got value (string)."),
        ("row", frame([1.5], name="other"), "value (float64), got other (float64)."),
        ("more", frame([1.5]), "note (string), got none of these."),
    ],
)
async def test_columns_that_cannot_be_joined_are_a_notice_and_logged_once(
    kind, past, text, exact, caplog
):
    notices = await joined(kind, past, exact=exact)
    assert notices == [[TEXT + text]] * 3
    found = [r.getMessage() for r in caplog.records if "columns of the live rows" in r.getMessage()]
    path, hook = ("readings", "readings_past") if exact else ("stock", "stock_past")
    assert found == [f"{path}, {hook}: {TEXT}{text[:-1]}"]


async def test_columns_that_only_an_older_row_has_are_joined(caplog):
    past = [{"time": 1, "id": 1, "old": "x", "value": 1.5}]
    assert await joined("dict", past) == [[], [], []]


def schema(*fields):
    return json.make_schema(Frame(*fields))


def test_another_order_of_columns_is_a_conflict():
    a, b = Field("a", [1]), Field("b", ["x"])
    assert column_conflict(schema(a, b), schema(b, a)) == (
        TEXT + "b (string), a (int64), got a (int64), b (string)"
    )
    assert column_conflict(schema(a, b), schema(a, b)) is None


def test_a_conflict_of_many_columns_is_short():
    many = [Field(f"f{n}", [1]) for n in range(1000)]
    text = column_conflict(schema(Field("a", [1])), schema(*many))
    assert text.endswith("f9 (int64), and 990 more, got a (int64)")
