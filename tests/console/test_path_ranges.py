"""Several paths in one text."""

import pytest

from aiostream_ds import DataSource, NotFound, Rows, stream
from aiostream_ds.console.path_ranges import expand_ranges, followed_text


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("walk/10/1", ["walk/10/1"]),
        ("walk/{9..11}/1", ["walk/9/1", "walk/10/1", "walk/11/1"]),
        ("walk/{2..1}/{3..4}", ["walk/2/3", "walk/2/4", "walk/1/3", "walk/1/4"]),
        ("walk/{1,2}", ["walk/{1,2}"]),
        ("walk/{1..}", ["walk/{1..}"]),
    ],
)
def test_a_range_is_each_of_its_numbers(text: str, paths: list[str]) -> None:
    assert expand_ranges(text) == paths


def test_a_long_range_is_cut() -> None:
    assert len(expand_ranges(f"walk/{{1..{10**30}}}")) == 5_000


class Walks(DataSource):
    @stream("walk/{n:int}")
    async def walk(self, n: int) -> Rows:
        yield {"n": n}

    @stream("topic/{name:any}")
    async def topic(self, name: str) -> Rows:
        yield {"name": name}


def read(text: str) -> str:
    path = Walks._ds_plan.spell(text)
    Walks._ds_plan.match(path)
    return path


@pytest.mark.parametrize(
    ("text", "followed"),
    [
        ("walk/1", "walk/1"),
        ("walk/{1..3}", "walk/{1..3}"),
        ("topic/{1..3}", "topic/ezEuLjN9"),  # a topic of this name
    ],
)
def test_the_page_follows_a_path_or_each_path_of_a_text(text: str, followed: str) -> None:
    assert followed_text(text, read) == followed


@pytest.mark.parametrize(
    ("text", "wrong"), [("walk/a", "walk/a"), ("walks/{1..3}", "walks/1"), ("walk/{1}", "walk/{1}")]
)
def test_a_path_that_no_stream_has_is_named(text: str, wrong: str) -> None:
    with pytest.raises(NotFound) as caught:
        followed_text(text, read)
    assert f"got {wrong!r}" in caught.value.message
