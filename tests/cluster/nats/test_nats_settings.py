"""Settings of the NATS engine: each invalid one is named."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiostream_ds._cluster.nats.nats_settings import NatsEngineSettings
from aiostream_ds._cluster.nats.nats_subjects import from_token, to_token
from aiostream_ds._nats import nats_credentials
from aiostream_ds._nats.nats_credentials import parse_credentials
from aiostream_ds._nats.nats_servers import (
    NatsLogin,
    NatsServer,
    discovered_server,
    parse_servers,
)
from aiostream_ds.errors import ConfigError
from tests.cluster.nats.nkeys import Key
from tests.servers import Nats


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("nats://a", [NatsServer("a", 4222, False, "a")]),
        ("a:1", [NatsServer("a", 1, False, "a")]),
        ("tls://a:1, nats://b", [NatsServer("a", 1, True, "a"), NatsServer("b", 4222, False, "b")]),
        ("nats://u:p%40x@[::1]:7", [NatsServer("::1", 7, False, "::1", NatsLogin("u", "p@x"))]),
        ("nats://token@a/", [NatsServer("a", 4222, False, "a", NatsLogin(token="token"))]),
        ("nats://u:@a", [NatsServer("a", 4222, False, "a", NatsLogin("u", ""))]),
    ],
)
def test_urls_name_servers_and_logins(url, servers):
    assert list(parse_servers(url)) == servers


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "got none"),
        (" , ", "got none"),
        ("http://a", "got http://"),
        ("ws://a", "got ws://"),
        ("nats://u:secret@a:0", "from 1 to 65535, got 'a:0'"),
        ("nats://u:secret@a:99999", "from 1 to 65535, got 'a:99999'"),
        ("nats://u:secret@a:x", "from 1 to 65535, got 'a:x'"),
        ("nats://", "expected the host"),
        ("nats://u:secret@", "expected the host"),
        ("nats://u:secret@a/b", "without a path, got 'a/b'"),
        ("nats://u:secret@a?x=1", "without a path"),
        ("nats://u:secret@[::1", "got"),
        ("nats://u:secret,x@a", "from 1 to 65535, got '…'"),
        ("nats://b, nats://u:secret y@a", "from 1 to 65535, got '…'"),
    ],
)
def test_an_invalid_url_is_named_without_its_password(url, message):
    with pytest.raises(ConfigError) as caught:
        NatsEngineSettings(url)
    assert message in caught.value.message and "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "a.b"),
        ("name", ""),
        ("name", "x" * 65),
        ("storage", "disk"),
        ("replicas", 2),
        ("replicas", 0),
        ("entries", 1),
        ("max_bytes", 0),
        ("idle", 1),
        ("idle", float("nan")),
        ("timeout", 0),
        ("login", NatsLogin(credentials="x")),
    ],
)
def test_an_invalid_setting_is_named(name, value):
    with pytest.raises(ConfigError, match="credentials" if name == "login" else name):
        NatsEngineSettings("nats://a", **{name: value})


def test_the_settings_are_shown_without_the_login():
    settings = NatsEngineSettings("nats://u:secret@a", login=NatsLogin("u", "secret"))
    assert "secret" not in repr(settings)


def test_the_server_of_a_cluster_has_the_name_of_the_certificate_of_the_known_one():
    known = NatsServer("nats.example", 4222, True, "nats.example", NatsLogin("u", "p"))
    assert discovered_server("10.0.0.7:4222", known) == known._replace(host="10.0.0.7")
    assert discovered_server("[::1]:4", known) == known._replace(host="::1", port=4)
    named = known._replace(host="b.example", tls_name="b.example")
    assert discovered_server("b.example:4222", known) == named
    for text in ("", "x", ":1", "a:x", "a:99999", "[::1"):
        assert discovered_server(text, known) is None


@given(st.text())
def test_any_text_is_one_token_of_a_subject_and_can_be_read_again(text):
    token = to_token(text)
    assert not set(token) & set(". *>\r\n\t")
    assert from_token(token) == text


@given(st.text(), st.text())
def test_two_texts_are_two_tokens(one, two):
    assert (to_token(one) == to_token(two)) == (one == two)


def test_credentials_are_read_with_any_line_breaks():
    key = Key("user")
    text = key.credentials("the.jwt")
    for each in (
        text,
        text.replace("\n", "\r\n"),
        text.replace("\n", " "),
        text.replace("\n", "\\n"),
    ):
        found = parse_credentials(each)
        assert found.jwt == "the.jwt" and found.key == key.private


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text, seed: "", "neither"),
        (lambda text, seed: text.partition("----BEGIN USER")[0], "with NATS USER JWT"),
        (lambda text, seed: text.replace(seed, seed[:-3] + "AAA"), "damaged"),
        (lambda text, seed: text.replace(seed, seed[:-8]), "damaged"),
        (lambda text, seed: text.replace(seed, "1!" + seed[2:]), "damaged"),
        (lambda text, seed: text.replace(seed, Key("account").seed), "SU"),
    ],
)
def test_damaged_credentials_are_named_without_the_seed(change, message):
    key = Key("user")
    with pytest.raises(ConfigError) as caught:
        parse_credentials(change(key.credentials("the.jwt"), key.seed))
    assert message in caught.value.message and key.seed[4:20] not in caught.value.message


def test_the_documented_rights_are_those_that_the_tests_have():
    page = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text("utf-8")
    block = page.partition("publish = [")[2].partition("```")[0]
    published, _, subscribed = block.partition("subscribe = ")
    assert set(re.findall(r'"([^"]+)"', published)) == set(Nats.RIGHTS["publish"])
    assert set(re.findall(r'"([^"]+)"', subscribed)) == set(Nats.RIGHTS["subscribe"])


def test_credentials_without_the_package_cryptography_are_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(nats_credentials, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="need the package cryptography; install aiostream-ds"):
        parse_credentials("")
