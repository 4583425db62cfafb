"""What is wrong with a channel's history, as far as its answers show it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aiostream_ds._encoding.blocks import to_list
from aiostream_ds._frames.frame import FieldType, Frame
from aiostream_ds.testing.grafana import Grafana, QueryFailed

__all__ = ["HistoryProblem", "alert_problem", "history_problems"]

_RANGE = timedelta(hours=1)
_CONFLICT = "a history must have the columns of the live rows"


class HistoryProblem(NamedTuple):
    """One problem, and what to do about it."""

    text: str
    cure: str


async def history_problems(grafana: Grafana, query: Mapping[str, Any]) -> list[HistoryProblem]:
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
        HistoryProblem(notice.text, "give the history and the live rows one Row class")
        for notice in (whole.meta.notices if whole.meta is not None else ())
        if notice.text.startswith(_CONFLICT)
    ]
    one = await _history(grafana, query, start, end, limit=1)
    if one.rows > 1:
        text = f"the history must have at most `limit` rows, got {one.rows} for limit=1"
        found.append(HistoryProblem(text, "return the newest history_range.limit rows"))
    middle = times[len(times) // 2]
    if times[0] < middle:
        later = await _history(grafana, query, datetime.fromtimestamp(middle / 1000, UTC), end)
        early = [time for time in _times(later) if time < middle]
        if early:
            text = f"the history must have rows from `start` on, got {len(early)} before it"
            found.append(HistoryProblem(text, "leave out rows before history_range.start"))
    if times != sorted(times):
        text = "the history must be ordered by time, oldest first"
        found.append(HistoryProblem(text, "sort the rows"))
    return found


async def alert_problem(grafana: Grafana, query: Mapping[str, Any]) -> HistoryProblem | None:
    """Why alert rules cannot use this stream; None if they can, or if there are no rows."""
    try:
        await grafana.query(query, user=None, headers={"FromAlert": "true"})
    except QueryFailed as error:
        cure = "return a time and columns of numbers from a @query method for alert rules"
        return HistoryProblem(str(error), cure)
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


def _times(frame: Frame) -> list[int]:
    """The rows' times in Unix milliseconds."""
    for field in frame.fields:
        if field.type is FieldType.TIME:
            return [time for time in to_list(field.values) if time is not None]
    return []
