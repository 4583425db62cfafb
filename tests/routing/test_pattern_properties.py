"""Paths by brute force: one spelling, round trips, and overlap exactly where two patterns meet."""

import itertools
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from aiostream_ds._paths import Pattern

EXAMPLES = {"fast": 25, "ci": 200, "deep": 5_000}[os.environ.get("HYPOTHESIS_PROFILE", "fast")]
ordinary = settings(max_examples=EXAMPLES, deadline=None, print_blob=True)

# Every kind has paths of these segments: "140" is a number and the base64 of a letter.
SEGMENTS = ("a", "0", "7", "140", "0.0", "1e22", "YQ", "-1", "=")
PATHS = tuple(
    "/".join(parts) for count in (1, 2, 3) for parts in itertools.product(SEGMENTS, repeat=count)
)
FLUSH_CHUNKS = (*SEGMENTS, "{segment}", "{int:int}", "{float:float}", "{any:any}")


@st.composite
def patterns(draw):
    parts = [
        part.replace("{", f"{{f{number}_")
        for number, part in enumerate(draw(st.lists(st.sampled_from(FLUSH_CHUNKS), max_size=3)))
    ]
    if not parts or (len(parts) < 3 and draw(st.booleans())):
        parts.append("{p:rest}")
    return Pattern("/".join(parts))


@ordinary
@given(patterns(), patterns())
def test_patterns_overlap_exactly_when_a_path_belongs_to_both(one, other):
    meet = any(one.match(path) is not None and other.match(path) is not None for path in PATHS)
    assert one.overlaps(other) is other.overlaps(one) is meet


@ordinary
@given(patterns(), st.data())
def test_a_path_that_matches_is_built_again_letter_for_letter(pattern, data):
    path = data.draw(st.sampled_from(PATHS) | st.text("aZ019_-=./eY", max_size=20))
    values = pattern.match(path)
    if values is not None:
        assert pattern.format(**values) == path


@ordinary
@given(
    segment=st.text("aZ019_-=.", min_size=1, max_size=9).filter(
        lambda text: text not in (".", "..")
    ),
    number=st.integers(-(10**20), 10**20),
    value=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
)
def test_values_come_back_from_the_path_they_are_put_into(segment, number, value, text):
    pattern = Pattern("s/{a}/{b:int}/{c:float}/{d:any}/{e:rest}")
    values = {"a": segment, "b": number, "c": value, "d": text, "e": f"{segment}/x"}
    assert pattern.match(pattern.format(**values)) == values


@ordinary
@given(st.text(max_size=12))
def test_no_text_matches_in_two_spellings(path):
    for kind in ("int", "float", "any"):
        pattern = Pattern(f"{{v:{kind}}}")
        found = pattern.match(path)
        if found is not None:
            assert pattern.format(**found) == path


def test_no_float_is_the_base64_of_a_text():
    floats, texts = Pattern("{v:float}"), Pattern("{v:any}")
    spelled = 0
    for digit in range(1, 10):
        for sign in ("", "-"):
            for exponent in range(-330, 310):
                path = (
                    f"{sign}{digit}e{exponent:03d}" if exponent < 0 else f"{sign}{digit}e{exponent}"
                )
                if floats.match(path) is not None:  # any other float has a point
                    spelled += 1
                    assert texts.match(path) is None
    assert spelled > 5_000
