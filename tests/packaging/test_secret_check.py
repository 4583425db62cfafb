"""Secrets that a package would contain are named; other files are not."""

from pathlib import Path

import pytest

from aiostream_ds.packaging.secret_check import find_secrets

from .conftest import Package

VALUE = "s3cr3t-of-the-broker"
KEY = f"-----BEGIN {'RSA PRIVATE'} KEY-----\nMIIE\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "package"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def write(root: Path, name: str, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    "name",
    [".env", ".env.local", "data/.netrc", "Secrets.json", "id_rsa", "tls.key", "credentials.yaml"],
)
def test_a_file_with_the_name_of_one_for_secrets_is_named(root: Path, project: Path, name: str):
    write(root, f"app/{name}", "x")
    (text,) = find_secrets(root, project, {})
    assert text.startswith(f"the package contains app/{name}, which has the name of a file for")


@pytest.mark.parametrize("name", ["data.txt", "cert.pem", "img/logo.svg"])
def test_a_private_key_is_found_in_any_file(root: Path, project: Path, name: str):
    write(root, name, f"x\n{KEY}")
    (text,) = find_secrets(root, project, {})
    assert f"contains {name}, which has a private key" in text


def test_the_value_of_a_variable_for_secrets_is_found(root: Path, project: Path):
    write(root, "app/plant.py", f"PASSWORD = '{VALUE}'\n")
    (text,) = find_secrets(root, project, {"BROKER_PASSWORD": VALUE})
    assert "which has the value of the environment variable BROKER_PASSWORD" in text
    assert VALUE not in text
    assert not list(find_secrets(root, project, {"BROKER_HOST": VALUE}))


@pytest.mark.parametrize(
    "line", [f"API_KEY={VALUE}", f'export api_key = "{VALUE}"', f"x=1\n\n API_KEY='{VALUE}'\n#"]
)
def test_the_value_of_a_line_in_the_projects_env_file_is_found(
    root: Path, project: Path, line: str
):
    write(project, ".env", line)
    write(root, "app/settings.toml", f"key = '{VALUE}'")
    (text,) = find_secrets(root, project, {})
    assert "api_key in .env" in text.lower() and VALUE not in text


HARMLESS = {
    "app/.env.example": "PASSWORD=",
    "app/secrets.py": "import secrets",
    "app/cert.pem": "-----BEGIN CERTIFICATE-----",
    "app/keys.txt": "PRIVATE KEY",
    "py/other/id_rsa": KEY,
    "rt/lib/x.key": "",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_other_files_are_not_named(root: Path, project: Path, name: str):
    write(root, name, HARMLESS[name])
    environ = {"SECRET_FILE": "/etc/hosts", "TOKEN": "short", "PASSWORD": ""}
    assert not list(find_secrets(root, project, environ))


@pytest.mark.package
@pytest.mark.timeout(300)
def test_package_warns_of_an_included_secret(
    package: Package, author: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANT_TOKEN", VALUE)
    folder = tmp_path / "plant"
    for name in ("plant.py", "helper.py", "LICENSE"):
        write(folder, name, (author.parent / name).read_text())
    write(folder, "data/start.txt", "100")
    write(folder, ".env", "A_PASSWORD=unused-password")
    words = (folder / "plant.py", "--runtime", "host", "-o", tmp_path / "out", "--no-zip")
    done = package(*words, "--include", folder / "data")
    assert "which has" not in done.stderr, "what is not included is not packaged"
    assert not list((tmp_path / "out").rglob(".env"))
    write(folder, "data/deep/config.ini", f"token = {VALUE}")
    write(folder, "data/.env", "")
    done = package(*words, "--include", folder / "data")
    assert "warning: the package contains app/data/.env, which has the name of" in done.stderr
    assert "config.ini, which has the value of the environment variable PLANT_TOKEN" in done.stderr
    assert VALUE not in done.stderr
