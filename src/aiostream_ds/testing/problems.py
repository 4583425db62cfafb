"""What is wrong with a data source, as far as its answers and its class show it."""

import dis
import inspect
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, get_args

import msgspec

from aiostream_ds._annotations import base_type
from aiostream_ds._encoding.blocks import to_list
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds.datasource import DataSource
from aiostream_ds.settings import is_secret
from aiostream_ds.testing.grafana import Grafana, QueryFailed

__all__ = ["Problem", "alert_problem", "cursor_problem", "health_problem", "history_problems"]

_RANGE = timedelta(hours=1)
_CONFLICT = "a history must have the columns of the live rows"


class Problem(NamedTuple):
    """One problem, and what to do about it."""

    text: str
    cure: str


async def history_problems(grafana: Grafana, query: Mapping[str, Any]) -> list[Problem]:
    """The problems of the history that answers this query of a stream; none without rows.

    Call it after the stream has sent rows: columns are compared with theirs.

    Raises:
        QueryFailed: the history fails.
    """
    end = datetime.now(UTC)
    start = end - _RANGE
    whole = await _history(grafana, query, start, end)
    times = _times(whole)
    if not times:
        return []
    found = [
        Problem(notice.text, "give the history and the live rows one Row class")
        for notice in (whole.meta.notices if whole.meta is not None else ())
        if notice.text.startswith(_CONFLICT)
    ]
    count = await _rows_of_one(grafana, query, start, end)
    if count > 1:
        text = f"the history must have at most `limit` rows, got {count} for limit=1"
        found.append(Problem(text, "return the newest history_range.limit rows"))
    middle = times[len(times) // 2]
    if times[0] < middle:
        later = await _history(grafana, query, datetime.fromtimestamp(middle / 1000, UTC), end)
        early = [time for time in _times(later) if time < middle]
        if early:
            text = f"the history must have rows from `start` on, got {len(early)} before it"
            found.append(Problem(text, "leave out rows before history_range.start"))
        earlier = await _history(grafana, query, start, datetime.fromtimestamp(middle / 1000, UTC))
        late = [time for time in _times(earlier) if time > middle]
        if late:
            text = f"the history must have rows up to `end`, got {len(late)} after it"
            found.append(Problem(text, "leave out rows after history_range.end"))
    if times != sorted(times):
        text = "the history must be ordered by time, oldest first"
        found.append(Problem(text, "sort the rows"))
    return found


async def cursor_problem(grafana: Grafana, path: str, query: Mapping[str, Any]) -> Problem | None:
    """Whether a subscription starts at an older cursor than that of the newest row in the history;
    None also for a stream without a cursor.

    Call it before the stream runs: the cursor of a running stream is that of its last row.

    Raises:
        QueryFailed: the history fails.
        Refused: the subscription is refused.
    """
    end = datetime.now(UTC)
    frames = await grafana.query({**query, "exact": True}, start=end - _RANGE, end=end)
    meta = frames[0].meta if frames else None
    cursor = (meta.custom or {}).get("cursor", {}) if meta is not None else {}
    if "upstream" not in cursor:  # the log in memory has the rows
        return None
    data = await grafana.initial_data(f"x/{path}")
    beginning = "-1" if isinstance(cursor["last"], str) else -1  # a cursor of two numbers
    newest = msgspec.json.decode(data)["cursor"]["last"] if data else beginning
    if newest >= cursor["last"]:
        return None
    text = f"the newest cursor must be at least {cursor['last']}, as in the history, got {newest}"
    return Problem(text, "return the newest cursor from a `last` hook")


def health_problem(kind: type[DataSource[Any]]) -> Problem | None:
    """Why Save & test of a class is green whatever the settings are; None if it may not be."""
    fields = msgspec.structs.fields(kind._ds_plan.settings)
    if not any(_is_text(field.type) for field in fields):
        return None  # decoding has tested numbers and choices
    if kind.lifespan is not DataSource.lifespan:
        return None
    if kind.health is DataSource.health:
        if kind.__init__ is not DataSource.__init__:
            return None  # it may create an Upstream, which Save & test tries
        what = "Save & test is green with any settings that can be read"
    elif _is_constant(kind.health):
        what = "Save & test is green with any settings: health() uses neither `self` nor `await`"
    else:
        return None
    return Problem(what, "override health() with a real request")


def _is_text(kind: Any) -> bool:
    base = base_type(kind)
    return base is str or is_secret(base) or any(_is_text(each) for each in get_args(base))


def _is_constant(method: Any) -> bool:
    """Whether a method has the same result for every object, as far as its code shows it."""
    code = getattr(inspect.unwrap(method), "__code__", None)
    if code is None or not code.co_argcount:
        return False
    itself = code.co_varnames[0]
    for instruction in dis.get_instructions(code):
        names = (
            instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        )
        if "AWAIT" in instruction.opname or itself in names:
            return False
    return itself not in code.co_cellvars


async def alert_problem(grafana: Grafana, query: Mapping[str, Any]) -> Problem | None:
    """Why alert rules cannot use this stream; None if they can, or if there are no rows."""
    try:
        await grafana.query(query, user=None, headers={"FromAlert": "true"})
    except QueryFailed as error:
        cure = "return a time and columns of numbers from a @query method for alert rules"
        return Problem(str(error), cure)
    return None


async def _history(
    grafana: Grafana,
    query: Mapping[str, Any],
    start: datetime,
    end: datetime,
    limit: int = 1000,
) -> Frame:
    frames = await grafana.query(
        {**query, "withStreaming": False}, start=start, end=end, max_data_points=limit
    )
    return frames[0] if frames else Frame()


async def _rows_of_one(
    grafana: Grafana, query: Mapping[str, Any], start: datetime, end: datetime
) -> int:
    """How many rows the history has that is asked for one. A panel's rows of numbers are thinned,
    those of an alert rule are not."""
    one = await _history(grafana, query, start, end, limit=1)
    try:
        series = await grafana.query(
            query,
            start=start,
            end=end,
            max_data_points=1,
            user=None,
            headers={"FromAlert": "true"},
        )
    except QueryFailed:  # it has no numbers, or background work is refused
        series = []
    return max(frame.rows for frame in (one, *series))


def _times(frame: Frame) -> list[int]:
    """The rows' times in Unix milliseconds."""
    for field in frame.fields:
        if field.type is FieldType.TIME:
            return [time for time in to_list(field.values) if time is not None]
    return []
