"""What viewers fill into a template of the admin stays where it was meant to be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiostream_ds.errors import BadQuery, ConfigError
from aiostream_ds.sources.http_client.templates import (
    MessageTemplate,
    UrlTemplate,
    parse_parameters,
)

SCHEMES = ("http", "https")


def url(text: str, **values: str) -> str:
    return UrlTemplate(text, SCHEMES).fill(values)


def test_values_are_encoded_in_a_path_and_in_a_query():
    template = UrlTemplate("https://h:8443/a/{s}@trade/{p:rest}?x={q}&n={n:int}", SCHEMES)
    assert template.names == ("s", "p", "q", "n")
    assert template.base == "https://h:8443/a/"
    filled = template.fill({"s": "BTC ü", "p": "a/b c", "q": "a&b=c/../#", "n": "-5"})
    assert filled == "https://h:8443/a/BTC%20%C3%BC@trade/a/b%20c?x=a%26b%3Dc%2F..%2F%23&n=-5"


@pytest.mark.parametrize(
    "value",
    [
        "..",
        ".",
        "",
        "a/b",
        "/",
        "a\\b",
        "%2e%2e",
        "%2E",
        "a%2fb",
        "a%252fb",
        "%252e%252e",
        "..;x",
        "a\nb",
        "a%0d%0ab",
        "\x7f",
    ],
)
def test_a_segment_cannot_leave_its_place(value):
    with pytest.raises(BadQuery):
        url("https://h/a/{s}/b", s=value)


@pytest.mark.parametrize(
    "value", ["../b", "a/../b", "/a", "a//b", "a/", "a/%2e%2e/b", "a/.", "a\\b"]
)
def test_the_rest_of_a_path_cannot_leave_the_base(value):
    with pytest.raises(BadQuery):
        url("https://h/a/{p:rest}", p=value)


@given(st.text(min_size=1, max_size=30))
def test_no_value_changes_server_or_base(value):
    template = UrlTemplate("https://h:8443/base/{a}/{b:rest}?q={c}", SCHEMES)
    for values in ({"a": value, "b": "b", "c": "c"}, {"a": "a", "b": value, "c": value}):
        try:
            filled = URL(template.fill(values), encoded=True)
        except (BadQuery, UnicodeEncodeError):
            continue
        assert str(filled.origin()) == "https://h:8443"
        normal = URL(str(filled))  # resolves dots
        assert normal.raw_path.startswith("/base/") and not filled.fragment
        assert dict(filled.query) == {"q": values["c"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ftp://h/", "http://HOST/PATH or https://HOST/PATH"),
        ("h/path", "http://HOST/PATH"),
        ("https:///x", "http://HOST/PATH"),
        ("https://user:secret@h/", "must not have a user or password"),
        ("https://{h}/x", "fixed host and port"),
        ("https://h:{p}/x", "must be a URL|fixed host and port"),
        ("https://h:99999/", "must be a URL"),
        ("https://h/#a", "no fragment"),
        ("https://h/a/../b", "without '.' and '..'"),
        ("https://h/{a:any}", "expected {a} or {a:rest}, {a:int}, {a:float}, got {a:any}"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(text, expected):
    with pytest.raises(ConfigError, match=expected.replace("{", r"\{")) as raised:
        UrlTemplate(text, SCHEMES)
    assert "secret" not in str(raised.value)


def test_hosts_are_spelled_for_the_network():
    assert url("http://bücher.example/ü?q=ü") == "http://xn--bcher-kva.example/%C3%BC?q=%C3%BC"
    assert url("http://[::1]:8080/a") == "http://[::1]:8080/a"
    assert url("https://h") == "https://h/"
    assert url("https://h/a%20b?x=%2F") == "https://h/a%20b?x=%2F", "what is encoded stays so"


def test_values_cannot_end_a_string_of_json():
    template = MessageTemplate('{"op":"sub","args":["{a}@x",{"n":"{n:int}"}],"f":"{f:float}"}', "s")
    assert template.names == ("a", "n", "f")
    filled = template.fill({"a": 'x","admin":true,"y":"\n', "n": "7", "f": "1.5"})
    assert json.loads(filled) == {
        "op": "sub",
        "args": ['x","admin":true,"y":"\n@x', {"n": 7}],
        "f": 1.5,
    }


def test_values_cannot_begin_another_line_of_a_text():
    template = MessageTemplate("SUB {subject} {n:int}", "s")
    assert template.fill({"subject": "a.b", "n": "1"}) == "SUB a.b 1"
    for bad in ("a\r\nPUB b", "a\0", "a\x7f"):
        with pytest.raises(BadQuery):
            template.fill({"subject": bad, "n": "1"})


@pytest.mark.parametrize("value", ["x", "1.5", "1e3", "١", "01", "1 ", "9" * 16, "+1"])
def test_an_integer_is_one(value):
    with pytest.raises(BadQuery, match="n must be an integer"):
        MessageTemplate("N {n:int}", "s").fill({"n": value})


@pytest.mark.parametrize("value", ["nan", "inf", "1_0", "0x1", "1e400", "", " 1"])
def test_a_number_is_finite(value):
    with pytest.raises(BadQuery, match="n must be"):
        MessageTemplate('["{n:float}"]', "s").fill({"n": value})


@pytest.mark.parametrize("text", ['{"a": {b}}', '{"a":1', '{"{k}": 1}', '[{"a":"{b:rest}"}]'])
def test_a_template_of_json_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="^subscribe"):
        MessageTemplate(text, "subscribe")


@pytest.mark.parametrize("text", ["{name} x", "ping", "[x]", "42", ""])
def test_anything_else_is_a_text(text):
    assert not MessageTemplate(text, "subscribe").is_json


def test_one_parameter_is_the_whole_text():
    assert parse_parameters("a&b=c%20+", ["topic"]) == {"topic": "a&b=c%20+"}
    assert parse_parameters("topic=a", ["topic"]) == {"topic": "a"}


def test_several_parameters_are_named():
    names = ["symbol", "interval"]
    parsed = parse_parameters("interval=1%20m+&symbol=A%26B", names)
    assert parsed == {"symbol": "A&B", "interval": "1 m+"}
    for bad in ("BTC", "symbol=a", "symbol=a&symbol=b", "symbol=a&interval=b&c=d", "", None):
        with pytest.raises(BadQuery, match="symbol=…&interval=…"):
            parse_parameters(bad, names)


def test_a_url_without_placeholders_takes_no_parameters():
    assert parse_parameters(None, []) == parse_parameters("", []) == {}
    with pytest.raises(BadQuery, match="must be empty"):
        parse_parameters("x", [])
