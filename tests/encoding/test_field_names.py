"""Field names of series: unique with their labels, and read back."""

from hypothesis import example, given
from hypothesis import strategies as st

from aiostream_ds._encoding.field_names import base_name, full_name

NAMES = st.text(max_size=8) | st.sampled_from(["load", "{", '"', 'a {b="c"}', '"quoted"'])


@given(NAMES, st.dictionaries(NAMES, NAMES, max_size=3))
@example("load", {"host": "a"})
@example('load {host="a"}', {"host": "a"})
def test_the_name_without_labels_is_found_again(name, labels):
    if labels or not ("{" in name or name.startswith('"')):
        assert base_name(full_name(name, labels), labels) == name


def test_a_name_that_was_not_made_with_labels_stays():
    assert base_name("load", {"host": "a"}) == "load"
    assert base_name('load {host="b"}', {"host": "a"}) == 'load {host="b"}'
    assert base_name('"load"', {}) == '"load"'
