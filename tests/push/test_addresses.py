"""Where a client pushes to, and with which token."""

import pytest

from aiostream_ds.push.addresses import DEFAULT_URL, find_address, read_token

RESOURCE = "/api/datasources/uid/u-1/resources/push/lab/run-1"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("AIOSTREAM_DS_PUSH_URL", "AIOSTREAM_DS_PUSH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def found(url=None, path="lab/run-1", uid=None, token=None):
    return find_address(url, path, uid=uid, token=token)


@pytest.mark.parametrize(
    "url, uid, expected",
    [
        (None, None, f"{DEFAULT_URL}/push/lab/run-1"),
        ("http://localhost:3030", None, "http://localhost:3030/push/lab/run-1"),
        ("http://localhost:3030/", None, "http://localhost:3030/push/lab/run-1"),
        ("http://[::1]:3030/push", None, "http://[::1]:3030/push/lab/run-1"),
        ("http://localhost:3030/push/lab/run-1", None, "http://localhost:3030/push/lab/run-1"),
        ("https://g.example", "u-1", f"https://g.example{RESOURCE}"),
        ("https://g.example/grafana/", "u-1", f"https://g.example/grafana{RESOURCE}"),
        (
            "https://g.example/connections/datasources/edit/u-1",
            None,
            f"https://g.example{RESOURCE}",
        ),
        ("https://g.example/a/datasources/edit/u-1/", None, f"https://g.example/a{RESOURCE}"),
        ("https://g.example/api/datasources/uid/u-1", None, f"https://g.example{RESOURCE}"),
        (
            "https://g.example/api/datasources/uid/u-1/resources/push",
            None,
            f"https://g.example{RESOURCE}",
        ),
        (f"https://g.example{RESOURCE}", "u-1", f"https://g.example{RESOURCE}"),
    ],
)
def test_an_address_that_people_have_becomes_that_of_the_resource(url, uid, expected):
    assert found(url, uid=uid).url == expected


def test_the_path_may_be_in_the_address():
    assert found(f"https://g.example{RESOURCE}", None).path == "lab/run-1"
    assert found("http://localhost:3030/push/a", None).path == "a"


def test_the_environment_has_the_address_and_the_token(environment):
    environment.setenv("AIOSTREAM_DS_PUSH_URL", "http://localhost:1234")
    environment.setenv("AIOSTREAM_DS_PUSH_TOKEN", " glsa_x\n")
    assert found().url == "http://localhost:1234/push/lab/run-1"
    assert found().token == "glsa_x"
    assert found("http://localhost:5", token="").url == "http://localhost:5/push/lab/run-1"
    assert found("http://localhost:5", token="").token == ""


def test_the_token_of_a_printed_address_is_not_in_the_url():
    address = found("http://lab.local:3030/?token=abc")
    assert (address.url, address.token) == ("http://lab.local:3030/push/lab/run-1", "abc")
    assert "abc" not in repr(address)


@pytest.mark.parametrize(
    "arguments, text",
    [
        ({"url": "localhost:3030"}, "url must be an http or https address, got 'localhost:3030'"),
        ({"url": "ftp://x"}, "url must be an http or https"),
        ({"url": "http://u:secret@x"}, "url must have no user and password, got one for x"),
        ({"url": "http://["}, "url must be"),
        ({"url": "http://x:99999"}, "url must be"),
        ({"path": None}, "path must be the name of a channel"),
        ({"path": ""}, "path must be"),
        ({"path": "a//b"}, "path must be segments"),
        ({"path": "a b"}, "got 'a b'"),
        ({"path": "../x?y"}, "path must be segments"),
        ({"path": "x" * 156}, "at most 155 characters, got 156"),
        ({"uid": "a/b"}, "uid must be that of a data source, got 'a/b'"),
        ({"token": "a b"}, "token must be ASCII characters without spaces"),
        ({"token": "a\r\nX: y"}, "token must be ASCII"),
        ({"url": f"https://g.example{RESOURCE}", "uid": "other"}, "uid must be that of url, 'u-1'"),
        ({"url": "http://x/push/other"}, "path must be that of url, 'other', or left out"),
    ],
)
def test_a_bad_address_is_an_error_that_names_it(arguments, text):
    with pytest.raises(ValueError) as error:
        found(**arguments)
    assert text in str(error.value) and "secret" not in str(error.value)


def test_a_token_is_read_from_a_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("glsa_x\n")
    assert read_token(file) == "glsa_x"
    file.write_text("\n")
    with pytest.raises(ValueError, match="expected a token in"):
        read_token(file)
