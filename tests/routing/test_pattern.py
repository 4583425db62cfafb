"""Patterns: what they match, format and refuse, and which of them overlap."""

import math
import re
from datetime import date, datetime
from uuid import UUID

import pytest

from aiostream_ds._paths import CHANNEL_LIMIT, KINDS, PATH_LIMIT, PathKind, Pattern, channel
from aiostream_ds.errors import BadQuery

UUID_TEXT = "9b2d7c4e-5a1f-4c3b-8e6d-0f1a2b3c4d5e"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "each segment must be of letters, .* got '' in ''"),
        ("/a", "each segment .* got '' in '/a'"),
        ("a//b", "each segment .* got ''"),
        ("a/", "each segment .* got ''"),
        ("a b", "each segment .* got 'a b'"),
        ("a/..", r"each segment .* got '\.\.'"),
        (".", r"each segment .* got '\.'"),
        ("é", "each segment .* got 'é'"),
        ("a{b}", "a field must be a whole segment, got 'a{b}'"),
        ("{a}{b}", "a field must be a whole segment"),
        ("{a", "a field must be a whole segment"),
        ("{}", "named as an argument, got '' in '{}'"),
        ("{1}", "named as an argument, got '1' in"),
        ("{class}", "named as an argument, got 'class' in"),
        (
            "{a:str}",
            "one of int, float, bool, date, uuid, any, user, rest, got 'str' in",
        ),
        ("{a:}", "kind must be one of .* got ''"),
        ("{a:segment}", "kind must be one of .* got 'segment'"),
        ("{a}/{a:int}", "got 'a' twice"),
        ("{a:rest?}", "a field of the kind rest must not be None, got '{a:rest.}'"),
        ("{a:user?}", "a field of the kind user must not be None, got '{a:user.}'"),
        ("{a?:int}", "a field must be a whole segment"),
        ("{a:rest}/b", "{a:rest} must be the last"),
        ("a" * (PATH_LIMIT + 1), "at most 155 characters, got 'aaa"),
        ("/".join([f"{{x{number}:float}}" for number in range(40)]), "at most 155 characters"),
    ],
)
def test_the_error_for_a_bad_pattern_names_the_bad_part(text, named):
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
        ("{b:bool}", "true", {"b": True}),
        ("{b:bool}", "false", {"b": False}),
        ("{b:bool}", "True", None),
        ("{b:bool}", "1", None),
        ("{d:date}", "2026-01-31", {"d": date(2026, 1, 31)}),
        ("{d:date}", "20260131", None),
        ("{d:date}", "2026-W05-6", None),
        ("{d:date}", "2026-02-30", None),
        ("{u:uuid}", UUID_TEXT, {"u": UUID(UUID_TEXT)}),
        ("{u:uuid}", UUID_TEXT.upper(), None),
        ("{u:uuid}", UUID_TEXT.replace("-", ""), None),
        ("{id?}", "-", {"id": None}),
        ("{id?}", "--", {"id": "--"}),
        ("{id}", "-", {"id": "-"}),
        ("{n:int?}/{b:bool?}", "-/-", {"n": None, "b": None}),
        ("{n:int?}/{b:bool?}", "-7/true", {"n": -7, "b": True}),
        ("{t:any?}", "LQ", {"t": "-"}),
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
        ("{v}", "", "v must be of letters, .* got ''"),
        ("{v}", "a/b", "v must be of letters, .* got 'a/b'"),
        ("{v}", "..", r"v must be of letters, .* got '\.\.'"),
        ("{v}", "é", "v must be of letters, .* got 'é'"),
        ("{v}", 3, "v must be a string, got 3"),
        ("{v:int}", True, "v must be an integer, got True"),
        ("{v:int}", 1.0, "v must be an integer, got 1.0"),
        ("{v:int}", "1", "v must be an integer, got '1'"),
        pytest.param("{v:int}", 10**5000, "an integer of at most 160 digits", id="huge"),
        ("{v:float}", math.nan, "v must be a finite number, got nan"),
        ("{v:float}", math.inf, "v must be a finite number, got inf"),
        ("{v:float}", 10**400, "v must be a finite number"),
        ("{v:float}", "1", "v must be a number, got '1'"),
        ("{v:float}", False, "v must be a number, got False"),
        ("{v:any}", "", "v must be a string that is not empty, got ''"),
        ("{v:any}", b"x", "v must be a string that is not empty, got b'x'"),
        ("{v:any}", "\ud800", "v must be a string that UTF-8 can encode"),
        ("{v:any}", "x" * 200, "at most 155 characters, got 267"),
        ("{v:rest}", "a//b", "v must be segments .* got 'a//b'"),
        ("{v:rest}", "", "v must be segments .* got ''"),
        ("{v:rest}", None, "v must be a string, got None"),
        ("{v:bool}", 1, "v must be true or false, got 1"),
        ("{v:date}", "2026-01-31", "v must be a date, got '2026-01-31'"),
        ("{v:date}", datetime(2026, 1, 31), "v must be a date, got datetime"),
        ("{v:uuid}", UUID_TEXT, f"v must be a UUID, got '{UUID_TEXT}'"),
        ("{v?}", "-", "v must not be '-', which a path has for None"),
        ("{v:int?}", "-", "v must be an integer, got '-'"),
    ],
)
def test_the_error_for_a_value_that_a_path_cannot_contain_names_it(text, value, named):
    with pytest.raises(BadQuery, match=named):
        Pattern(text).format(v=value)


def test_missing_and_unknown_fields_are_type_errors():
    with pytest.raises(TypeError, match="no value for b"):
        Pattern("{a}/{b}").format(a="x")
    with pytest.raises(TypeError, match="no field c"):
        Pattern("{a}").format(a="x", c=1)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
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
        ("{b:bool}", "{id}", True),
        ("{b:bool}", "{t:any}", False),
        ("{d:date}", "{t:any}", False),
        ("{d:date}", "{id}", True),
        ("{u:uuid}", "{t:any}", False),
        ("{u:uuid}", "{d:date}", False),
        ("{n:int?}", "{b:bool?}", True),
        ("{n:int?}", "{b:bool}", False),
        ("{n:int?}", "-", True),
        ("{n:int}", "-", False),
        ("a" * 100 + "/{p:rest}", "{x}/" + "b" * 53, True),
        ("a" * 100 + "/{p:rest}", "{x}/" + "b" * 54 + "/{y}", False),
    ],
)
def test_overlap(one, other, overlap):
    assert Pattern(one).overlaps(Pattern(other)) is overlap
    assert Pattern(other).overlaps(Pattern(one)) is overlap


def test_fields_and_first_segment():
    pattern = Pattern("s/{id}/{n:int}/{p:rest}")
    kinds = {name: kind.name for name, kind in pattern.fields.items()}
    assert kinds == {"id": "segment", "n": "int", "p": "rest"}
    assert pattern.first == "s" and Pattern("{a}").first == ""
    with pytest.raises(TypeError):
        pattern.fields["z"] = KINDS["int"]


def test_patterns_with_equal_text_are_equal():
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
        ("", "a", "uid must be of letters, .* got ''"),
        ("u/v", "a", "uid must be of letters, .* got 'u/v'"),
        ("u", "", "the path must be segments .* got ''"),
        ("u", "a//b", "the path must be segments .* got 'a//b'"),
        ("u", "a b", "the path must be segments .* got 'a b'"),
        ("u" * 40, "p" * 117, "at most 160 characters, got 161"),
    ],
)
def test_a_channel_that_grafana_would_refuse_is_a_bad_query(uid, path, named):
    with pytest.raises(BadQuery, match=named):
        channel(uid, path)


def test_a_new_kind_of_field_is_one_class(monkeypatch):
    monkeypatch.setattr("aiostream_ds._paths.KINDS", KINDS.copy())
    before = dict(KINDS)

    class Hexadecimal(PathKind):
        name = "hex"
        type = int
        samples = ("0x0",)

        def match(self, text):
            return int(text, 16) if re.fullmatch("0x[0-9a-f]+", text) else None

        def check(self, value):
            if type(value) is not int or value < 0:
                raise BadQuery(f"must be an integer of at least 0, got {value!r}")

        def format(self, value):
            self.check(value)
            return hex(value)

    pattern = Pattern("{n:hex}")
    assert pattern.match("0xff") == {"n": 255} and pattern.format(n=255) == "0xff"
    assert pattern.overlaps(Pattern("{id}")) and not pattern.overlaps(Pattern("{n:int}"))
    with pytest.raises(BadQuery, match="n must be an integer of at least 0, got -1"):
        pattern.format(n=-1)
    assert before == KINDS


@pytest.mark.parametrize(
    "pattern, text, path",
    [
        ("topics/{t:any}", "topics/home/+/temp", "topics/aG9tZS8rL3RlbXA"),
        ("{t:any}/{n:int}", "a b/7", "YSBi/7"),
        ("{t:any}/{n:int}", "a b/x", None),
        ("own/{login:user}", "own/ann@example.org", "own/YW5uQGV4YW1wbGUub3Jn"),
        ("topics/{t:any}", "other/a", None),
        ("topics/{t:any}", "topics/", None),
        ("topics/{t:any}", "topics/" + "x" * 200, None),
        ("plain/{name}", "plain/a", "plain/a"),
        ("plain/{name}", "plain/a b", None),
        ("p/{t:any}/{rest:rest}", "p/ä/x/y", "p/w6Q/x/y"),
    ],
)
def test_a_person_may_write_a_text_unencoded(pattern, text, path):
    assert Pattern(pattern).spell(text) == path


@pytest.mark.parametrize(
    "pattern, text, path",
    [
        ("ticks/{n:int}", "ticks", "ticks/7"),
        ("ticks/{n:int}/{name}", "ticks", "ticks/7/a"),
        ("ticks/{n:int}/{name}", "ticks/8", "ticks/8/a"),
        ("ticks/{n:int}/{name}", "ticks/8/b", None),
        ("ticks/{t:any}/{n:int}", "ticks/+", "ticks/Kw/7"),
        ("ticks/{t:any}", "ticks", "ticks/YSBi"),
        ("ticks/{n:int}/rows", "ticks", None),
        ("ticks/{none}", "ticks", None),
        ("ticks/{bad}", "ticks", None),
        ("{name}/{n:int}", "", None),
        ("{n:int}", "ticks", None),
        ("ticks/{rest:rest}", "ticks", "ticks/a/b"),
    ],
)
def test_a_person_may_leave_out_fields_at_the_end_that_have_defaults(pattern, text, path):
    defaults = {"n": 7, "name": "a", "t": "a b", "bad": "a b", "rest": "a/b"}
    assert Pattern(pattern).complete(text, defaults) == path
