"""The settings of a cluster in grafana.ini, which are environment variables of the process."""

import base64

import pytest

from aiostream_ds._cluster.cluster_settings import cluster_access, cluster_settings
from aiostream_ds._process.cluster_of_process import cluster_of_process
from aiostream_ds.errors import ConfigError
from tests.servers import certificates

URL = "redis://redis.example"
KEY = base64.b64encode(bytes(32)).decode()


def environment(**values: str) -> dict[str, str]:
    return {f"GF_PLUGIN_CLUSTER_{name.upper()}": value for name, value in values.items()}


def test_without_a_url_there_is_no_cluster():
    assert cluster_settings({}) is None
    assert cluster_settings(environment(url=" ", name="!")) is None
    assert cluster_of_process({}) is None


@pytest.mark.parametrize(
    ("url", "engine"),
    [
        ("redis://redis.example", "redis"),
        ("rediss://redis.example:6380/1", "redis"),
        ("redis+sentinel://a:1,b:2/main", "redis"),
        ("redis+cluster://a:1,b:2", "redis"),
        ("nats://nats.example", "nats"),
        ("tls://nats.example", "nats"),
    ],
)
def test_the_scheme_of_the_url_selects_the_engine(url, engine):
    access = cluster_of_process(environment(url=url))
    assert access.engine.name == engine
    assert access.cipher is None


def test_each_process_has_a_name_of_its_own():
    names = {cluster_settings(environment(url=URL, node="web 1")).node for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("web-1-") for name in names)


def test_keys_encrypt_the_messages():
    settings = cluster_settings(environment(url=URL, encryption_keys=f"{KEY}, {KEY}"))
    assert settings.keys == (bytes(32), bytes(32))
    assert cluster_access(settings).cipher is not None


def test_files_are_read(tmp_path):
    file = tmp_path / "nats.creds"
    file.write_text("text")
    assert cluster_settings(environment(url=URL, credentials_file=str(file))).credentials == "text"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"url": "http://x"}, "cluster_url must begin with one of redis://, .*, got 'http'"),
        ({"url": "redis:6379"}, "cluster_url must begin with .*, got a text without ://"),
        ({"url": "secret@host"}, "got a text without ://"),
        ({"name": "a b"}, "cluster_name must have 1 to 40 letters, digits and `-_`, got 'a b'"),
        ({"name": "x" * 41}, "cluster_name must have 1 to 40"),
        (
            {"ca_file": "/nowhere"},
            "cluster_ca_file must be a file that can be read, got '/nowhere'",
        ),
        ({"replicas": "0"}, "cluster_replicas must be a whole number from 1 to 5, got '0'"),
        ({"entries": "many"}, "cluster_entries must be a whole number .*, got 'many'"),
        ({"encryption_keys": KEY + " c2hvcnQ="}, "32 bytes in base64, got another text as key 2"),
        ({"encryption_keys": "no base64!"}, "got another text as key 1"),
    ],
)
def test_an_invalid_value_is_named(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        cluster_settings(environment(**{"url": URL} | values))
    assert "secret" not in str(caught.value)


def test_a_certificate_needs_its_key(tmp_path):
    file = tmp_path / "client.pem"
    file.write_text("text")
    with pytest.raises(ConfigError, match="together, got one of them"):
        cluster_settings(environment(url=URL, certificate_file=str(file)))


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://a", "rediss"),
        ("redis+sentinel://a/main", "rediss\\+sentinel"),
        ("redis+cluster://a", "rediss\\+cluster"),
    ],
)
@pytest.mark.parametrize("key", ["ca_file", "certificate_file"])
def test_certificates_for_a_connection_without_tls_are_refused(tmp_path, url, wanted, key):
    file = tmp_path / "file.pem"
    file.write_text("text")
    values = {"url": url, key: str(file)}
    if key == "certificate_file":
        values["key_file"] = str(file)
    with pytest.raises(ConfigError, match=f"cluster_{key} is for TLS: .* with {wanted}:// then"):
        cluster_settings(environment(**values))


@pytest.mark.parametrize("url", ["rediss://a", "rediss+sentinel://a/main", "nats://a", "tls://a"])
def test_certificates_fit_to_urls_with_tls_and_those_of_nats(tmp_path, url):
    for name, text in (
        ("ca", certificates().ca),
        ("certificate", certificates().client.certificate),
        ("key", certificates().client.key),
    ):
        (tmp_path / name).write_text(text)
    files = {f"{name}_file": str(tmp_path / name) for name in ("certificate", "key")}
    for values in (files, files | {"ca_file": str(tmp_path / "ca")}):
        settings = cluster_settings(environment(url=url, **values))
        assert cluster_access(settings).engine.name == ("redis" if "redis" in url else "nats")


def test_an_invalid_setting_is_logged_and_nothing_is_shared(caplog):
    reason = cluster_of_process(environment(url="http://x"))
    assert isinstance(reason, str)
    assert f"streams are not shared with other Grafana servers: {reason}" in caplog.text
