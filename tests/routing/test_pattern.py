"""Patterns: what they accept, build and refuse, and which of them meet."""

import math

import pytest

from aiostream_ds._paths import CHANNEL_LIMIT, PATH_LIMIT, Pattern, channel
from aiostream_ds.errors import BadQuery


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "segment ''"),
        ("/a", "segment ''"),
        ("a//b", "segment ''"),
        ("a/", "segment ''"),
        ("a b", "segment 'a b'"),
        ("a/..", r"segment '\.\.'"),
        (".", r"segment '\.'"),
        ("é", "segment 'é'"),
        ("a{b}", "fills a segment"),
        ("{a}{b}", "fills a segment"),
        ("{a", "fills a segment"),
        ("{}", "'' in '{}' cannot be the name"),
        ("{1}", "'1' in"),
        ("{class}", "'class' in"),
        ("{a:str}", "kind 'str' .* int, float, any, rest and user"),
        ("{a:}", "kind ''"),
        ("{a:segment}", "kind 'segment'"),
        ("{a}/{a:int}", "'a' stands twice"),
        ("{a:rest}/b", "{a:rest} .* must be the last"),
        ("a" * (PATH_LIMIT + 1), "too long"),
        ("/".join([f"{{x{number}:float}}" for number in range(40)]), "too long"),
    ],
)
def test_a_bad_pattern_is_refused_by_name(text, named):
    with pytest.raises(ValueError, match=named):
        Pattern(text)


@pytest.mark.parametrize(
    ("text", "path", "values"),
    [
        ("a", "a", {}),
        ("a", "b", None),
        ("a", "a/b", None),
        ("a/b", "a", None),
        ("{id}", "kitchen-2_b.c=", {"id": "kitchen-2_b.c="}),
        ("{id}", "", None),
        ("{id}", ".", None),
        ("{id}", "..", None),
        ("{id}", "...", {"id": "..."}),
        ("{id}", "a b", None),
        ("{id}", "a\n", None),
        ("s/{id}", "s/", None),
        ("{n:int}", "0", {"n": 0}),
        ("{n:int}", "-12", {"n": -12}),
        ("{n:int}", "007", None),
        ("{n:int}", "+7", None),
        ("{n:int}", "-0", None),
        ("{n:int}", "1e3", None),
        ("{n:int}", "1_0", None),
        ("{n:int}", "٣", None),
        ("{n:int}", "7\n", None),
        ("{n:int}", "9" * PATH_LIMIT, {"n": int("9" * PATH_LIMIT)}),
        ("{n:int}", "9" * (PATH_LIMIT + 1), None),
        ("{x:float}", "0.5", {"x": 0.5}),
        ("{x:float}", "5", None),
        ("{x:float}", "5.0", {"x": 5.0}),
        ("{x:float}", "-0.0", None),
        ("{x:float}", "1e3", None),
        ("{x:float}", "1000.0", {"x": 1000.0}),
        ("{x:float}", "1e22", {"x": 1e22}),
        ("{x:float}", "1e-07", {"x": 1e-07}),
        ("{x:float}", "1E22", None),
        ("{x:float}", "nan", None),
        ("{x:float}", "inf", None),
        ("{x:float}", "1e999", None),
        ("{x:float}", "0.1_0", None),
        ("{x:float}", "x", None),
        ("{t:any}", "YS9iIGM", {"t": "a/b c"}),
        ("{t:any}", "YS9iIGM=", None),
        ("{t:any}", "YR", None),
        ("{t:any}", "Y", None),
        ("{t:any}", "_w", None),
        ("{t:any}", "a.b", None),
        ("{p:rest}", "a", {"p": "a"}),
        ("{p:rest}", "a/b/c", {"p": "a/b/c"}),
        ("{p:rest}", "a//c", None),
        ("{p:rest}", "a/..", None),
        ("s/{p:rest}", "s/a/b", {"p": "a/b"}),
        ("s/{p:rest}", "s", None),
        ("s/{p:rest}", "s/", None),
        ("s/{id}/{n:int}", "s/k/3", {"id": "k", "n": 3}),
    ],
)
def test_match(text, path, values):
    pattern = Pattern(text)
    found = pattern.match(path)
    assert found == values
    if found is not None:
        assert pattern.format(**found) == path
        assert {key: type(value) for key, value in found.items()} == {
            key: type(value) for key, value in values.items()
        }


@pytest.mark.parametrize(
    ("text", "values", "path"),
    [
        ("s/{id}", {"id": "a"}, "s/a"),
        ("{x:float}", {"x": 5}, "5.0"),
        ("{x:float}", {"x": -0.0}, "0.0"),
        ("{x:float}", {"x": 1e22}, "1e22"),
        ("{t:any}", {"t": "é/ #"}, "w6kvICM"),
        ("{n:int}/{p:rest}", {"n": -3, "p": "a/b"}, "-3/a/b"),
    ],
)
def test_format(text, values, path):
    pattern = Pattern(text)
    assert pattern.format(**values) == path
    assert pattern.match(path) is not None


@pytest.mark.parametrize(
    ("text", "value", "named"),
    [
        ("{v}", "", "v is ''; allowed are letters"),
        ("{v}", "a/b", "v is 'a/b'"),
        ("{v}", "..", r"v is '\.\.'"),
        ("{v}", "é", "v is 'é'"),
        ("{v}", 3, "v is 3; allowed is a text"),
        ("{v:int}", True, "v is True; allowed is a whole number"),
        ("{v:int}", 1.0, "v is 1.0"),
        ("{v:int}", "1", "v is '1'"),
        pytest.param("{v:int}", 10**5000, "whole number of more than 160 digits", id="huge"),
        ("{v:float}", math.nan, "v is nan; allowed is a finite number"),
        ("{v:float}", math.inf, "v is inf"),
        ("{v:float}", 10**400, "allowed is a finite number"),
        ("{v:float}", "1", "v is '1'; allowed is a number"),
        ("{v:float}", False, "v is False"),
        ("{v:any}", "", "v is ''; allowed is a text that is not empty"),
        ("{v:any}", b"x", "v is b'x'"),
        ("{v:any}", "\ud800", "UTF-8"),
        ("{v:any}", "x" * 200, "characters; at most 155"),
        ("{v:rest}", "a//b", "v is 'a//b'; allowed are segments"),
        ("{v:rest}", "", "v is ''"),
        ("{v:rest}", None, "v is None; allowed is a text"),
    ],
)
def test_a_value_that_a_path_cannot_hold_is_named(text, value, named):
    with pytest.raises(BadQuery, match=named):
        Pattern(text).format(v=value)


def test_missing_and_unknown_fields_are_a_mistake_of_the_caller():
    with pytest.raises(TypeError, match="no value for b"):
        Pattern("{a}/{b}").format(a="x")
    with pytest.raises(TypeError, match="no field c"):
        Pattern("{a}").format(a="x", c=1)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "{id}", True),
        ("a", "a/{id}", False),
        ("{a}/b", "a/{b}", True),
        ("{a}/b", "{a}/c", False),
        ("{n:int}", "7", True),
        ("{n:int}", "07", False),
        ("{n:int}", "{x:float}", False),
        ("{n:int}", "{t:any}", True),
        ("{x:float}", "{t:any}", False),
        ("{x:float}", "{id}", True),
        ("{t:any}", "YQ", True),
        ("{t:any}", "a.b", False),
        ("a/{p:rest}", "a", False),
        ("a/{p:rest}", "a/b/c", True),
        ("a/{p:rest}", "{x}/{y}/{z:int}", True),
        ("a/{p:rest}", "b/{p:rest}", False),
        ("a/b/{p:rest}", "{q:rest}", True),
        ("{n:int}/{p:rest}", "x/{p:rest}", False),
        ("a" * 100 + "/{p:rest}", "{x}/" + "b" * 53, True),
        ("a" * 100 + "/{p:rest}", "{x}/" + "b" * 54 + "/{y}", False),
    ],
)
def test_overlap(one, other, meet):
    assert Pattern(one).overlaps(Pattern(other)) is meet
    assert Pattern(other).overlaps(Pattern(one)) is meet


def test_fields_and_first_segment():
    pattern = Pattern("s/{id}/{n:int}/{p:rest}")
    assert dict(pattern.fields) == {"id": "segment", "n": "int", "p": "rest"}
    assert pattern.first == "s" and Pattern("{a}").first == ""
    with pytest.raises(TypeError):
        pattern.fields["z"] = "int"


def test_equal_texts_are_equal_patterns():
    assert Pattern("a/{b}") == Pattern("a/{b}") != Pattern("a/{c}")
    assert len({Pattern("a"), Pattern("a")}) == 1
    assert Pattern("a") != "a" and repr(Pattern("a")) == "Pattern('a')"


def test_the_channel_of_a_path():
    assert channel("uid-1_x.y", "a/b=1") == "ds/uid-1_x.y/a/b=1"
    assert len(channel("u" * 40, "p" * 116)) == CHANNEL_LIMIT
    assert len(channel("u", "p" * PATH_LIMIT)) == CHANNEL_LIMIT


@pytest.mark.parametrize(
    ("uid", "path", "named"),
    [
        ("", "a", "uid ''"),
        ("u/v", "a", "uid 'u/v'"),
        ("u", "", "path ''"),
        ("u", "a//b", "path 'a//b'"),
        ("u", "a b", "path 'a b'"),
        ("u" * 40, "p" * 117, "161 characters; at most 160"),
    ],
)
def test_a_channel_that_grafana_would_refuse(uid, path, named):
    with pytest.raises(BadQuery, match=named):
        channel(uid, path)
