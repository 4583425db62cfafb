"""Recorded upstreams: recorded messages are played at their own times."""

import anyio
import pytest

from aiostream_ds.testing import RecordedMessage, play, record


async def real():
    for number in range(3):
        yield {"n": number}
        await anyio.sleep(0.01)
    raise OSError("gone")


async def test_messages_are_recorded_passed_on_and_played_again(tmp_path):
    path = tmp_path / "a.ndjson"
    seen = []
    with pytest.raises(OSError, match="gone"):
        async for message in record(real(), path):
            seen += [message]
    played = []
    with pytest.raises(ConnectionError, match="gone"):
        async for message in play(path):
            played += [message]
    assert seen == played == [{"n": 0}, {"n": 1}, {"n": 2}]
    with pytest.raises(FileExistsError):
        await anext(record(real(), path))


@pytest.mark.virtual
async def test_messages_are_played_at_their_times_from_a_given_second():
    lines = [RecordedMessage(0, "a"), RecordedMessage(60, "b"), RecordedMessage(3_600, "c")]
    begun = anyio.current_time()
    found = [(message, anyio.current_time() - begun) async for message in play(lines)]
    assert found == [("a", 0), ("b", 60), ("c", 3_600)]
    begun = anyio.current_time()
    found = [(message, anyio.current_time() - begun) async for message in play(lines, after=30)]
    assert found == [("b", 30), ("c", 3_570)]


async def test_the_error_names_a_line_that_is_not_a_record(tmp_path):
    path = tmp_path / "a.ndjson"
    path.write_text('{"t": 0, "message": 1}\n{"t": "x"}\n')
    with pytest.raises(ValueError, match=r"a\.ndjson, line 2"):
        await anext(play(path))
