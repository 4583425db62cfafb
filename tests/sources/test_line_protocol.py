"""Line protocol, by InfluxData's grammar: names, values, escapes, and lines that are none."""

import pytest

from aiostream_ds.sources.decoding.bad_record import BadRecord
from aiostream_ds.sources.decoding.line_protocol import Point, points


def one(text):
    (found,) = points(text)
    return found


def test_a_point_has_a_measurement_tags_fields_and_a_time():
    assert one('cpu,host=a,zone=b usage=0.5,state="on" 1700000000000000000') == Point(
        "cpu", {"host": "a", "zone": "b"}, {"usage": 0.5, "state": "on"}, 1700000000000000000
    )
    assert one("m f=1") == Point("m", {}, {"f": 1.0}, None)
    assert one("  m   f=1   -5  ") == Point("m", {}, {"f": 1.0}, -5)


@pytest.mark.parametrize(
    "text, value",
    [
        ("1", 1.0),
        ("-1.", -1.0),
        (".5e-3", 0.0005),
        ("1E+2", 100.0),
        ("7i", 7),
        ("-9223372036854775808i", -(2**63)),
        ("18446744073709551615u", 2**64 - 1),
        ("0000000000000000000000001i", 1),
        *((each, True) for each in ("t", "T", "true", "True", "TRUE")),
        *((each, False) for each in ("f", "F", "false", "False", "FALSE")),
        ('""', ""),
        (r'"a, b=c \" \\ \n \t \x"', 'a, b=c " \\ \n \t \\x'),
        ('"two\nlines"', "two\nlines"),
    ],
)
def test_a_value_has_its_type(text, value):
    found = one(f"m f={text} 5").fields["f"]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "1e999",
        "9223372036854775808i",
        "-1u",
        "18446744073709551616u",
        "9" * 5000 + "i",
        "1.5i",
        "NaN",
        "inf",
        "+1",
        "1_000",
        "0x10",
        "tRUE",
        "'a'",
        '"a',
        "",
        "٣",
    ],
)
def test_a_value_of_no_type_is_refused_with_the_value(text):
    found = one(f"m f={text}")
    assert isinstance(found, BadRecord)
    assert repr(text)[1:4] in str(found) or str(found).startswith("expected ")


def test_commas_spaces_and_equals_signs_are_escaped_by_a_backslash():
    found = one(r"my\ m\,x=y,tag\ k\=1=v\,\ w f\ 1=2")
    assert found == Point("my m,x=y", {"tag k=1": "v, w"}, {"f 1": 2.0}, None)


def test_a_backslash_before_another_character_is_one():
    assert one(r"a\b,c\d=e\\f g\\,h=1") == Point(r"a\b", {r"c\d": r"e\\f"}, {r"g\,h": 1.0}, None)


def test_empty_lines_and_comments_are_left_out():
    text = "\n# a comment, f=1\n\r\n  \nm f=1\r\n\n#\nm f=2 7\n"
    assert [point.fields["f"] for point in points(text)] == [1.0, 2.0]


@pytest.mark.parametrize(
    "line, reason",
    [
        ("m", "expected a tag `,key=value`, or a space and a field"),
        ("m ", "expected a field `key=value`"),
        (",a=b f=1", "expected a measurement, got ',a=b f=1'"),
        ("m,a f=1", "expected a tag `,key=value`, or a space and a field, got ',a f=1'"),
        ("m,a= f=1", "expected a tag `,key=value`, or a space and a field, got ',a= f=1'"),
        ("m,a=b,a=c f=1", "expected each tag once, got 'a' twice"),
        ("m f=1,", "expected a field `key=value`"),
        ("m f=1 x", "expected a timestamp, got 'x'"),
        ("m f=1 5 6", "expected the end of the line, got ' 6'"),
        ('m f="a"b', "expected a space and a timestamp, got 'b'"),
        ("m f=1 9223372036854775808", "expected an integer of 64 bits, got '9223372036854775808'"),
        ("m\tf=1", "expected a tag `,key=value`, or a space and a field, got '\\tf=1'"),
    ],
)
def test_a_line_that_is_not_a_point_is_refused_and_the_next_one_is_read(line, reason):
    bad, good = points(f"{line}\nm f=1")
    assert str(bad) == reason
    assert good == Point("m", {}, {"f": 1.0}, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    ["a,", 'm f="', "m,a=b", "\\", "m f=1 ", "a b=", 'a b="\n', "a\\", "m f=1,"],
    ids=repr,
)
def test_no_text_takes_more_than_linear_time(line):
    """Quadratic time would exceed the test's timeout by far."""
    found = list(points(line * 50_000))
    assert len(found) <= 50_000
