"""Paths by brute force: one spelling, round trips, and overlap exactly if a path matches both."""

import itertools
import os
from datetime import date
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from aiostream_ds._paths import Pattern

EXAMPLES = {"fast": 10, "local": 25, "ci": 200, "deep": 5_000}[
    os.environ.get("HYPOTHESIS_PROFILE", "local")
]
SETTINGS = settings(max_examples=EXAMPLES, deadline=None, print_blob=True)

# Every kind has paths of these segments: "140" is a number and the base64 of a letter.
SEGMENTS = ("a", "0", "7", "140", "0.0", "1e22", "YQ", "-1", "=", "-", "true")
PATHS = tuple(
    "/".join(parts) for count in (1, 2, 3) for parts in itertools.product(SEGMENTS, repeat=count)
)
PARTS = (
    *SEGMENTS,
    *("{segment}", "{int:int}", "{float:float}", "{any:any}", "{bool:bool}"),
    *("{maybe?}", "{int:int?}", "{float:float?}", "{any:any?}", "{bool:bool?}"),
)


@st.composite
def patterns(draw):
    parts = [
        part.replace("{", f"{{f{number}_")
        for number, part in enumerate(draw(st.lists(st.sampled_from(PARTS), max_size=3)))
    ]
    if not parts or (len(parts) < 3 and draw(st.booleans())):
        parts.append("{p:rest}")
    return Pattern("/".join(parts))


@SETTINGS
@given(patterns(), patterns())
def test_patterns_overlap_exactly_if_a_path_matches_both(one, other):
    both = any(one.match(path) is not None and other.match(path) is not None for path in PATHS)
    assert one.overlaps(other) is other.overlaps(one) is both


@SETTINGS
@given(patterns(), st.data())
def test_the_values_of_a_path_that_matches_format_to_the_same_path(pattern, data):
    path = data.draw(st.sampled_from(PATHS) | st.text("aZ019_-=./eY", max_size=20))
    values = pattern.match(path)
    if values is not None:
        assert pattern.format(**values) == path


@SETTINGS
@given(
    segment=st.text("aZ019_-=.", min_size=1, max_size=9).filter(
        lambda text: text not in (".", "..")
    ),
    number=st.integers(-(10**20), 10**20),
    value=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
)
def test_values_survive_the_round_trip_through_a_path(segment, number, value, text):
    pattern = Pattern("s/{a}/{b:int}/{c:float}/{d:any}/{e:rest}")
    values = {"a": segment, "b": number, "c": value, "d": text, "e": f"{segment}/x"}
    assert pattern.match(pattern.format(**values)) == values


@SETTINGS
@given(
    st.text(max_size=12)
    | st.text("0123456789-W", min_size=8, max_size=10)
    | st.uuids().flatmap(lambda each: st.sampled_from([str(each), each.hex, each.urn]))
)
def test_each_value_has_one_spelling(path):
    for kind in ("int", "float", "any", "bool", "date", "uuid", "int?", "any?"):
        pattern = Pattern(f"{{v:{kind}}}")
        found = pattern.match(path)
        if found is not None:
            assert pattern.format(**found) == path


@SETTINGS
@given(st.dates() | st.uuids() | st.booleans())
def test_no_date_uuid_or_bool_is_the_base64_of_a_string(value):
    kind = {date: "date", UUID: "uuid", bool: "bool"}[type(value)]
    path = Pattern(f"{{v:{kind}}}").format(v=value)
    assert Pattern(f"{{v:{kind}}}").match(path) == {"v": value}
    assert Pattern("{v:any}").match(path) is None


def test_no_float_is_the_base64_of_a_string():
    floats, strings = Pattern("{v:float}"), Pattern("{v:any}")
    spelled = 0
    for digit in range(1, 10):
        for sign in ("", "-"):
            for exponent in range(-330, 310):
                path = (
                    f"{sign}{digit}e{exponent:03d}" if exponent < 0 else f"{sign}{digit}e{exponent}"
                )
                if floats.match(path) is not None:  # any other float has a decimal point
                    spelled += 1
                    assert strings.match(path) is None
    assert spelled > 5_000
