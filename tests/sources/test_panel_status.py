"""What several sources share: gaps, and the status of several causes."""

import anyio
import pytest

from aiostream_ds._channels.status import Status
from aiostream_ds.sources.gaps import FORGOTTEN_AFTER, Gaps
from aiostream_ds.sources.panel_status import PanelStatus


@pytest.mark.virtual
async def test_the_most_severe_status_comes_first_and_some_end_by_themselves():
    status = PanelStatus()
    assert status.change() is None and status.is_empty
    status.set("missing", Status("info", "no stream"))
    status.set("lost", Status("warning", "3 entries"), 30)
    assert status.change() == Status("warning", "3 entries; no stream")
    assert status.change() is None
    await anyio.sleep(31)
    assert status.change() == Status("info", "no stream")
    status.set("missing", None)
    assert status.change() is None
    status.set("missing", Status())
    assert status.change() == Status() and status.is_empty


def test_a_gap_begins_with_the_loss_and_ends_with_the_subscription(monkeypatch):
    now = 1_000_000
    monkeypatch.setattr("aiostream_ds.sources.gaps.now_ms", lambda: now)
    gaps = Gaps("the server keeps none")
    assert gaps.end("news") is None, "nothing was lost before"
    gaps.begin("news", None)
    assert gaps.end("news") is None, "it was never subscribed"
    gaps.begin("news", now - 500)
    now += 5_000
    gaps.begin("news", None)
    now += 5_000
    gap = gaps.end("news")
    assert gap is not None and (gap.start, gap.end) == (999_500, 1_010_000)
    assert "from 00:16:39.500 to 00:16:50.000 UTC may be missing" in gap.text
    assert gaps.count == 1 and gaps.details()[0]["address"] == "news"
    gaps.begin("news", now)
    now += FORGOTTEN_AFTER + 1
    assert gaps.end("news") is None and gaps.count == 1, "nobody waited for it any more"
    gaps.begin("news", now)
    gaps.forget("news")
    assert gaps.end("news") is None and gaps.text() == "1 gap in which messages may be missing"


def test_rows_that_are_missing_by_their_numbers_are_counted():
    gaps = Gaps("the server keeps none")
    gaps.add_missing("news", 1_500, "n 4 to 1503 are missing: 1,500 rows")
    gaps.add_outage("news", 0)
    assert gaps.text() == "2 gaps in which messages may be missing; 1,500 rows are missing"
    assert [each["text"][:6] for each in gaps.details()] == ["n 4 to", "messag"]
