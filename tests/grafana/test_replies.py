"""The hand-written encoding of responses equals that of the message classes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._grafana import replies
from aiostream_ds._grafana.replies import Answer
from aiostream_ds._pb import pluginv2 as pb

TEXTS = st.text(st.characters(codec="utf-8"), max_size=150)
FORMS = st.sampled_from(pb.DataFrameFormat)
STATUSES = st.integers(-(2**31), 2**31 - 1)
FRAMES = st.lists(st.lists(st.binary(max_size=300), max_size=3), max_size=3)
ANSWERS = st.builds(Answer, status=STATUSES, frames=FRAMES, error=TEXTS, source=TEXTS, form=FORMS)


def message(answer: Answer) -> pb.DataResponse:
    return pb.DataResponse(
        frames=[b"".join(frame) for frame in answer.frames],
        status=answer.status,
        error=answer.error,
        error_source=answer.source,
        format=answer.form,
    )


@pytest.mark.slow
@given(st.dictionaries(TEXTS, ANSWERS, max_size=3))
def test_a_query_response_equals_the_message_of_its_answers(answers: dict[str, Answer]) -> None:
    expected = pb.QueryDataResponse(responses={key: message(a) for key, a in answers.items()})
    reply = b"".join(replies.query_data(answers))
    assert pb.QueryDataResponse.parse(reply) == expected
    if "" not in answers:  # an empty key may be written or left out
        assert reply == bytes(expected)


@given(TEXTS, FRAMES, FORMS)
def test_each_frame_of_an_answer_is_a_chunk(ref_id: str, frames: Any, form: Any) -> None:
    sent = map(b"".join, replies.chunks(ref_id, Answer(200, frames, form=form)))
    assert [pb.QueryChunkedDataResponse.parse(each) for each in sent] == [
        pb.QueryChunkedDataResponse(
            ref_id=ref_id,
            frame_id=str(number),
            frame=b"".join(frame),
            status=200,
            format=form,
        )
        for number, frame in enumerate(frames)
    ]


@given(TEXTS, STATUSES, TEXTS)
def test_an_error_is_one_chunk(ref_id: str, status: int, error: str) -> None:
    (sent,) = replies.chunks(ref_id, Answer(status, error=error, source="plugin"))
    assert b"".join(sent) == bytes(
        pb.QueryChunkedDataResponse(
            ref_id=ref_id, status=status, error=error, error_source="plugin"
        )
    )


def test_the_length_of_a_memoryview_is_its_bytes() -> None:
    frame = [b"head", memoryview(bytes(70_000))]
    reply = pb.QueryDataResponse.parse(b"".join(replies.query_data({"A": Answer(200, [frame])})))
    assert reply.responses["A"].frames == [b"head" + bytes(70_000)]


def test_a_string_that_is_invalid_in_utf8_is_an_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        replies.query_data({"A": Answer(500, error="\udcff")})


@given(st.sampled_from([0, 1, 2]), st.binary(max_size=300))
def test_a_subscribe_response_equals_the_message(status, data):
    message = pb.SubscribeStreamResponse(status=pb.SubscribeStreamResponseStatus(status), data=data)
    assert replies.subscribe_stream(status, data) == bytes(message)
