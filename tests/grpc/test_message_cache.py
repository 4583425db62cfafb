"""Messages are decoded once, in whatever order the entries of their maps come."""

import random
from itertools import permutations
from typing import Any

import pytest

from aiostream_ds._grpc.decode import Decoder
from aiostream_ds._grpc.message_cache import CachingMessageDecoder
from aiostream_ds._pb import pluginv2 as pb

SECRETS = {"basicAuthPassword": "p", "token": "t" * 200, "httpHeaderValue1": ""}
CONFIG = {
    "GF_APP_URL": "https://grafana.example/",
    "GF_CONCURRENT_QUERY_COUNT": "10",
    "GF_INSTANCE_FEATURE_TOGGLES_ENABLE": ",".join(f"toggle{number}" for number in range(300)),
    "GF_USER_FACING_DEFAULT_ERROR": "please inspect Grafana server log for details",
    "GF_SQL_ROW_LIMIT": "1000000",
    "GF_SQL_MAX_OPEN_CONNS_DEFAULT": "100",
    "GF_SQL_MAX_IDLE_CONNS_DEFAULT": "100",
    "GF_SQL_MAX_CONN_LIFETIME_SECONDS_DEFAULT": "14400",
    "GF_RESPONSE_LIMIT": "",
}


def encoded(
    config: dict[str, str] = CONFIG,
    secrets: dict[str, str] = SECRETS,
    login: str = "ada",
    updated: int = 1_700_000_000_000,
) -> bytes:
    settings = pb.DataSourceInstanceSettings(
        id=7, uid="P1", decrypted_secure_json_data=secrets, last_updated_ms=updated
    )
    user = pb.User(login=login, role="Editor")
    return bytes(
        pb.PluginContext(
            org_id=1,
            user=user,
            app_instance_settings=pb.AppInstanceSettings(decrypted_secure_json_data=secrets),
            data_source_instance_settings=settings,
            grafana_config=config,
            namespace="default",
        )
    )


def shuffled(entries: dict[str, str], order: random.Random) -> dict[str, str]:
    return dict(order.sample(list(entries.items()), len(entries)))


def kept(parse: CachingMessageDecoder[Any]) -> int:
    return len({id(each.message) for each in parse.kept()})


def field(number: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes((number << 3 | 2, len(value))) + value


def entry(key: bytes, value: bytes) -> bytes:
    """An entry of `grafana_config`."""
    return field(6, field(1, key) + field(2, value))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of messages that are kept in this test."""
    monkeypatch.setattr("aiostream_ds._grpc.message_cache._ITEMS", 300)
    return 300


def test_the_same_bytes_give_the_same_message_also_of_a_class_without_maps() -> None:
    parse = CachingMessageDecoder(pb.TimeRange)
    data = bytes(pb.TimeRange(from_epoch_ms=1, to_epoch_ms=2))
    assert parse(bytes(data)) is parse(bytes(bytearray(data)))


def test_a_context_with_map_entries_in_another_order_is_the_same_object() -> None:
    order = random.Random(1)
    parse = CachingMessageDecoder(pb.PluginContext)
    first = parse(encoded())
    assert first == pb.PluginContext.parse(encoded())
    for _ in range(1000):
        data = encoded(shuffled(CONFIG, order), shuffled(SECRETS, order))
        assert parse(data) is first
    assert kept(parse) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"login": "eve"},
        {"updated": 1_700_000_000_001},
        {"secrets": {**SECRETS, "basicAuthPassword": "q"}},
        {"secrets": {"basicAuthPassword": "p"}},
        {"config": {**CONFIG, "GF_SQL_ROW_LIMIT": "1000001"}},
        {
            "config": {
                **CONFIG,
                "GF_APP_URL": CONFIG["GF_RESPONSE_LIMIT"],
                "GF_RESPONSE_LIMIT": CONFIG["GF_APP_URL"],
            }
        },
    ],
    ids=["user", "time", "secret", "fewer secrets", "config", "exchanged values"],
)
def test_a_context_that_differs_in_a_value_is_another_object(other: dict[str, Any]) -> None:
    parse = CachingMessageDecoder(pb.PluginContext)
    first = parse(encoded())
    second = parse(encoded(**other))
    assert second is not first
    assert second == pb.PluginContext.parse(encoded(**other)) != first
    assert kept(parse) == 2


def test_of_entries_with_the_same_key_the_last_one_counts_in_every_order() -> None:
    parse = CachingMessageDecoder(pb.PluginContext)
    for entries in permutations((entry(b"a", b"1"), entry(b"a", b"2"), entry(b"b", b"3"))):
        data = b"".join(entries)
        assert parse(data) == pb.PluginContext.parse(data)
    assert kept(parse) == 6


def test_entries_of_one_map_are_not_those_of_another_one() -> None:
    secret = field(1, b"k") + field(2, b"v")
    own, data_source = field(4, secret), field(5, field(9, secret))
    app = field(4, field(4, secret))
    parse = CachingMessageDecoder(pb.PluginContext)
    seen = [parse(data) for data in (own, data_source, app, app + data_source, b"")]
    for one, other in permutations(seen, 2):
        assert one is not other
    assert parse(data_source + app) == pb.PluginContext.parse(app + data_source)


def test_of_a_message_twice_the_order_matters() -> None:
    first, second = (field(5, field(11, uid) + field(9, field(1, uid))) for uid in (b"x", b"y"))
    parse = CachingMessageDecoder(pb.PluginContext)
    for data, uid in ((first + second, "y"), (second + first, "x")):
        settings = parse(data).data_source_instance_settings
        assert settings is not None and settings.uid == uid


def test_a_truncated_context_is_rejected_when_the_whole_one_is_kept() -> None:
    parse = CachingMessageDecoder(pb.PluginContext)
    settings = field(11, b"P1") + field(9, field(1, b"k") + field(2, b"v"))
    kept_context = parse(field(5, settings))
    assert parse(field(5, settings)) is kept_context
    for data in (
        bytes((5 << 3 | 2, len(settings) + 1)) + settings,
        field(5, settings)[:-1],
        field(5, settings) + b"\x32\x05",
    ):
        with pytest.raises(ValueError, match="truncated"):
            parse(data)


def test_what_is_kept_is_bounded_in_messages_and_bytes(few: int) -> None:
    parse = CachingMessageDecoder(pb.PluginContext)
    for number in range(600):
        parse(encoded(login=f"user {number}"))
        assert kept(parse) <= few
    parse = CachingMessageDecoder(pb.PluginContext)
    large = {"GF_X": "x" * 60_000}
    for number in range(200):
        parse(encoded(large, login=f"user {number}"))
        assert kept(parse) * 60_000 <= 8 * 1024 * 1024
    assert kept(parse) > 130
    data = encoded({"GF_X": "x" * 70_000})
    assert parse(data) == parse(data) and parse(data) is not parse(data)


def test_the_context_that_was_not_used_for_longest_is_dropped_first(few: int) -> None:
    parse = CachingMessageDecoder(pb.PluginContext)
    first = [parse(encoded(login=f"user {number}")) for number in range(few)]
    used = first[0], first[150]
    assert parse(encoded(login="user 0")) is first[0]
    assert parse(encoded(login="user 150")) is first[150]
    for number in range(few, 2 * few - 2):
        parse(encoded(login=f"user {number}"))
    left = [each.message for each in parse.kept()]
    assert len(left) == few and left[:2] == list(used)
    assert parse(encoded(login="user 0")) is first[0]
    assert parse(encoded(login="user 1")) is not first[1]


def test_the_contexts_of_a_thousand_viewers_are_kept_together() -> None:
    order = random.Random(4)
    parse = CachingMessageDecoder(pb.PluginContext)
    logins = [f"viewer {number}" for number in range(1000)]
    first = [parse(encoded(login=login)) for login in logins]
    for login, seen in zip(logins, first, strict=True):
        assert parse(encoded(shuffled(CONFIG, order), login=login)) is seen


def test_contexts_of_two_viewers_share_what_is_equal() -> None:
    parse = CachingMessageDecoder(pb.PluginContext)
    one, two = parse(encoded(login="ada")), parse(encoded(login="bob"))
    other = parse(encoded(login="eve", updated=1_700_000_000_001))
    assert two.data_source_instance_settings is one.data_source_instance_settings
    assert other.grafana_config is two.grafana_config is one.grafana_config
    expected = pb.PluginContext.parse(encoded(login="eve", updated=1_700_000_000_001))
    assert other == expected and two == pb.PluginContext.parse(encoded(login="bob"))
    first, second = (tuple(each._long_runs) for each in list(parse.kept())[:2])
    assert first and first[0].entries is second[0].entries


def test_few_messages_that_begin_alike_are_kept() -> None:
    parse = CachingMessageDecoder(pb.PluginContext)
    for number in range(100):
        parse(encoded({**CONFIG, "GF_SQL_ROW_LIMIT": f"{number:07}"}))
    values = [each.message.grafana_config["GF_SQL_ROW_LIMIT"] for each in parse.kept()]
    assert values == [f"{number:07}" for number in range(84, 100)]


def test_what_is_dropped_leaves_nothing(few: int) -> None:
    parse = CachingMessageDecoder(pb.PluginContext)
    for number in range(2 * few):
        parse(encoded(login=f"user {number}" * (number % 3 + 1)))
    parse.forget(lambda _: True)
    assert not parse._found and not parse._bytes and kept(parse) == 0


def test_a_forgotten_context_leaves_nothing_and_others_stay() -> None:
    order = random.Random(2)
    parse = CachingMessageDecoder(pb.PluginContext)
    stays = parse(encoded(login="stays"))
    for _ in range(9):
        parse(encoded(shuffled(CONFIG, order), shuffled(SECRETS, order), login="goes"))
    parse.forget(lambda context: context.user is not None and context.user.login == "goes")
    assert [each.message for each in parse.kept()] == [stays]
    assert parse(encoded(shuffled(CONFIG, order), login="stays")) is stays


LOOKALIKES = [b"", b"a", b"b", b"2\x05", b"2\x04\n\x00\x12\x00", entry(b"a", b"b")]
"""Keys and values; some look like entries or their starts."""


def some_context(choices: random.Random) -> bytes:
    """A context of few values: equal and nearly equal ones come again and again. Some are
    truncated."""

    def entries(number: int, most: int) -> list[bytes]:
        pairs = [choices.choices(LOOKALIKES, k=2) for _ in range(choices.randrange(most + 1))]
        return [field(number, field(1, key) + field(2, value)) for key, value in pairs]

    uid = field(11, choices.choice((b"P1", b"P2")))
    parts = [
        field(3, field(1, choices.choice((b"ada", b"eve")))),
        field(5, b"".join((*entries(9, 3), uid))),
        *entries(6, 5),
        field(7, choices.choice((b"1.0", b"2.0"))),
    ]
    if choices.random() < 0.3:
        choices.shuffle(parts)
    data = b"".join(parts)
    return data[: choices.randrange(len(data))] if choices.random() < 0.2 else data


def test_what_is_kept_never_answers_for_another_message() -> None:
    choices = random.Random(3)
    decode = Decoder(pb.PluginContext).parse
    for _ in range(60):
        parse = CachingMessageDecoder(pb.PluginContext)
        messages = [some_context(choices) for _ in range(6)]
        for data in choices.choices(messages, k=12):
            try:
                expected = decode(data)
            except ValueError:
                with pytest.raises(ValueError):
                    parse(data)
            else:
                assert parse(data) == expected


def test_values_that_look_like_entries_are_not_mixed_up() -> None:
    """Contexts with the same keys, whose values are exchanged: all have the same size and start."""
    choices = random.Random(4)
    decode = Decoder(pb.PluginContext).parse
    for _ in range(30):
        parse = CachingMessageDecoder(pb.PluginContext)
        values = choices.choices(LOOKALIKES, k=12)
        for _ in range(10):
            entries = [entry(b"%d" % number, value) for number, value in enumerate(values)]
            context = parse(b"".join(entries))
            assert context == decode(b"".join(entries))
            assert parse(b"".join(choices.sample(entries, len(entries)))) is context
            choices.shuffle(values)
