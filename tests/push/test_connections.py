"""TLS, proxies and redirections of the client."""

import ssl

import pytest

from aiostream_ds.push import Push, PushRejected
from tests.servers.certificates import certificates

from .push_server import PushServer


def context(certificate, folder):
    """The TLS of a server with a certificate."""
    file = folder / "server.pem"
    file.write_text(certificate.certificate + certificate.key)
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(file)
    return found


@pytest.fixture
def ca_file(tmp_path):
    file = tmp_path / "ca.pem"
    file.write_text(certificates().ca)
    return file


def test_the_certificates_of_a_file_are_trusted(tmp_path, ca_file):
    with PushServer(context(certificates().server, tmp_path)) as server:
        with Push(server.url, "a", ca_file=ca_file) as push:
            push.send({"n": 1})
        assert [row["n"] for row in server.rows] == [1]


@pytest.mark.parametrize(
    "name, trusted, text",
    [
        ("server", False, "self-signed certificate|unable to get local issuer"),
        ("expired", True, "certificate has expired"),
        ("other_name", True, "IP address mismatch"),
    ],
)
def test_a_certificate_that_is_not_accepted_is_an_error_in_words(
    tmp_path, ca_file, name, trusted, text
):
    with PushServer(context(getattr(certificates(), name), tmp_path)) as server:
        with pytest.raises(PushRejected, match=f"certificate is not accepted: .*({text})"):
            with Push(server.url, "a", ca_file=ca_file if trusted else None) as push:
                push.send({"n": 1})
        assert server.rows == []


def test_a_file_that_has_no_certificates_is_an_error_that_names_it(tmp_path):
    file = tmp_path / "empty.pem"
    file.write_text("nothing")
    with pytest.raises(
        ValueError, match="ca_file must be a file of certificates, got '.*empty.pem'"
    ):
        Push("https://localhost", "a", ca_file=file)


def test_the_proxy_of_the_environment_is_used_except_for_named_hosts(monkeypatch):
    with PushServer() as proxy, PushServer() as server:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:pass@"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with Push(server.url, "a") as push:
            push.send({"n": 1})
        assert proxy.requests == [] and len(server.rows) == 1
        with Push("http://grafana.test/x", "a") as push:
            push.send({"n": 2})
        path, headers, _ = proxy.requests[0]
        assert path == "http://grafana.test/x/push/a"
        headers = {name.lower(): value for name, value in headers.items()}
        assert headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
