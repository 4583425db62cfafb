"""Settings and secrets: what is decoded, what is refused, and what never comes out."""

import copy
import pickle
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta, Struct

from aiostream_ds import ConfigError, Secret, Settings, secret
from aiostream_ds._telemetry import redact
from aiostream_ds.settings import check_settings, convert, decode_settings, json_schema


class Broker(Settings):
    url: str
    keep_alive: Annotated[int, Meta(ge=1)] = 60
    password: Secret = secret()
    token: Secret | None = None
    pin: Annotated[Secret | None, Meta(description="four digits")] = None


class Tls(Struct):
    names: dict[str, int] = {}


def test_plain_fields_come_from_json_data_in_camel_case_and_secrets_from_the_other_map():
    settings = decode_settings(
        Broker, b'{"url":"u","keepAlive":5}', {"password": "hunter2", "token": "t", "pin": "1234"}
    )
    assert (settings.url, settings.keep_alive) == ("u", 5)
    assert settings.password.reveal() == "hunter2"
    assert settings.token is not None and settings.token.reveal() == "t"
    assert settings.pin is not None and settings.pin.reveal() == "1234"


def test_unknown_keys_of_grafana_are_ignored():
    settings = decode_settings(Broker, b'{"url":"u","tlsAuth":true}', {"basicAuthPassword": "x"})
    assert settings == Broker(url="u")


def test_a_secret_in_json_data_is_not_read():
    data = b'{"url":"u","password":"open","token":"open","pin":"open"}'
    settings = decode_settings(Broker, data, {})
    assert not settings.password and settings.token is None and settings.pin is None


def test_a_plain_field_in_the_secret_map_is_not_read():
    with pytest.raises(ConfigError, match="url"):
        decode_settings(Broker, b"", {"url": "u"})


@pytest.mark.parametrize(
    "data, message",
    [
        (b"{", "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"{}", "url is missing"),
        (b'{"url":3}', "url = 3: Expected str, got int"),
        (b'{"url":"u","keepAlive":0}', "keepAlive = 0: Expected int >= 1"),
        (b'{"url":"u","keepAlive":"5"}', "keepAlive = '5': Expected int, got str"),
    ],
)
def test_wrong_settings_are_a_config_error_that_names_field_value_and_what_is_allowed(
    data, message
):
    with pytest.raises(ConfigError) as caught:
        decode_settings(Broker, data, {})
    assert message in caught.value.message


@pytest.mark.parametrize(
    "value, kind, message",
    [
        ("x", int, "Expected int, got str"),
        ({"names": {"a": "x"}}, Tls, "names[...]: Expected int, got str"),
        ({"names": {1: 1}}, Tls, "key in names: Expected str, got int"),
        ([{"names": 3}], list[Tls], "value[0].names = 3: Expected object, got int"),
        ([1, "x"], list[int], "value[1] = 'x': Expected int, got str"),
        ({"tls": {}}, dict[str, int], "value[...]: Expected int, got object"),
        (["y" * 200], list[int], "value[0] = '" + "y" * 76 + "...: Expected int, got str"),
    ],
)
def test_a_value_that_does_not_fit_is_explained(value, kind, message):
    with pytest.raises(ValueError) as caught:
        convert(value, kind)
    assert str(caught.value) == message


def test_a_missing_field_inside_says_where():
    class Inner(Struct):
        port: int

    with pytest.raises(ValueError, match="value.0..port is missing"):
        convert([{}], list[Inner])


def test_settings_take_keywords_only_and_are_frozen():
    with pytest.raises(TypeError):
        Broker("u")  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Broker(url="u").url = "v"  # type: ignore[misc]


def test_a_required_field_may_follow_one_with_a_default_in_a_subclass():
    class More(Broker):
        topic: str

    assert decode_settings(More, b'{"url":"u","topic":"t"}', {}) == More(url="u", topic="t")


@pytest.mark.parametrize("show", [str, repr, "{}".format, lambda s: f"{s.password!s}"])
def test_a_secret_is_never_printed(show):
    assert "hunter2" not in show(Broker(url="u", password=Secret("hunter2")))


@pytest.mark.parametrize(
    "leak",
    [
        pickle.dumps,
        copy.deepcopy,
        msgspec.json.encode,
        msgspec.to_builtins,
        lambda s: vars(s.password),
    ],
    ids=["pickle", "deepcopy", "json", "builtins", "vars"],
)
def test_a_secret_does_not_leave_by_accident(leak):
    with pytest.raises(TypeError):
        leak(Broker(url="u", password=Secret("hunter2")))


def test_a_secret_is_hidden_in_texts_while_it_lives():
    password = Secret("hunter2")
    assert redact("login with hunter2 failed") == "login with *** failed"
    del password
    assert redact("hunter2") == "hunter2"


def test_secrets_compare_by_value_and_are_false_when_empty():
    assert Secret("a") == Secret("a") != Secret("b") and Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") and not Secret() and repr(Secret()) == "Secret('')"


def test_the_schema_says_password_and_holds_no_value():
    properties = json_schema(Broker)["$defs"]["Broker"]["properties"]
    assert properties["password"] == {"type": "string", "format": "password", "writeOnly": True}
    assert properties["keepAlive"] == {"type": "integer", "minimum": 1, "default": 60}


class Hidden(Struct):
    password: Secret


class Nested(Settings):
    auth: Hidden


class Listed(Settings):
    keys: list[Secret] = []


class Keyed(Settings):
    keys: dict[str, Secret] = {}


@pytest.mark.parametrize("kind", [Nested, Listed, Keyed])
def test_a_secret_inside_a_field_is_refused_it_would_be_stored_in_the_open(kind):
    with pytest.raises(TypeError, match=f"{kind.__name__} has a Secret inside"):
        check_settings(kind)


class Foreign(Settings):
    thing: object


class Ambiguous(Settings):
    thing: list[int] | set[int] = []


class Unknown(Settings):
    thing: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("kind", [Foreign, Ambiguous, Unknown])
def test_settings_that_no_json_can_become_are_refused(kind):
    with pytest.raises(TypeError, match=kind.__name__):
        check_settings(kind)


def test_good_settings_pass():
    for kind in (Settings, Broker):
        check_settings(kind)


def test_an_author_s_own_check_is_a_config_error_too():
    class Checked(Settings):
        low: int = 0
        high: int = 0

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"low = {self.low} is above high = {self.high}")

    with pytest.raises(ConfigError, match="low = 3 is above high = 0"):
        decode_settings(Checked, b'{"low":3}', {})


def test_any_is_read_as_it_is():
    assert convert({"a": [1]}, Any) == {"a": [1]}
