"""`aiostream-ds new [NAME]`: creates a project that runs. Asks for missing arguments."""

import argparse
import keyword
import os
import re
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import NamedTuple

from aiostream_ds._installation import install_command
from aiostream_ds.cli.target import CommandError

__all__ = ["KINDS", "arguments", "run"]


class Kind(NamedTuple):
    """What a data source reads."""

    text: str
    """As a person who chooses reads it."""
    client: str = ""
    """The client library: a module of the same name."""
    version: str = ""
    """The versions of the client library that the templates are for."""

    @property
    def requirement(self) -> str:
        """The client library as a requirement of the project; empty without one."""
        return self.client + self.version


KINDS = {
    "code": Kind("values that Python code computes or reads"),
    "file": Kind("a growing file, one JSON object a line"),
    "command": Kind("the output of a program"),
    "mqtt": Kind("topics of an MQTT broker", "aiomqtt", ">=2.5"),
    "websocket": Kind("messages of a WebSocket", "websockets", ">=14"),
    "redis": Kind("Redis streams, with history", "redis", ">=8"),
    "postgres": Kind("a table of PostgreSQL, with history", "asyncpg", ">=0.31"),
}
"""What the data source reads; each has a folder of templates."""

_IMPORTED = frozenset({"aiostream_ds", "anyio", "msgspec", "paho", "pytest", "test"}) | {
    kind.client for kind in KINDS.values()
}
"""Modules that projects import: a module of the same name would replace them."""

_TEMPLATES = Path(__file__).with_name("templates")

_SERVICES = "services.yml"
"""In a folder of templates: the servers that the tests need, for a workflow of GitHub."""

_TARGETS: dict[str, str] = {
    "source.py": "{module}.py",
    "test.py": "test_{module}.py",
    "sample.ndjson": "{module}.ndjson",
    "ci.yml": ".github/workflows/tests.yml",
    "gitignore": ".gitignore",
}
"""Template → path in the project, unless it is the template's name."""


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("name", nargs="?", help="the name of the data source and of its folder")
    command.add_argument("--reads", choices=KINDS, help="what the data source reads")


def run(parsed: argparse.Namespace) -> int:
    """Ask, write the files, print the next command."""
    name = parsed.name or _ask("Name", _validated_name)
    words = _words(name)
    reads = parsed.reads or _pick()
    folder = Path(name)
    if os.path.lexists(folder):  # also a link to nowhere
        raise CommandError(f"{name!r} exists; use another name")
    try:
        for file, text in make_files(words, reads).items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise CommandError(f"{name!r} cannot be made: {error.strerror}") from None
    module, kind = "_".join(words), KINDS[reads]
    print(f"Created {name}/: {module}.py, its test, pyproject.toml, README, AGENTS.md and CI.\n")
    print(f"  cd {name}")
    program, install = "aiostream-ds", _install_command(kind)
    environment = _inactive_environment()
    if environment is not None:
        program = shlex.quote(str(environment / program))
        install = f"{shlex.quote(sys.executable)} -m {install}"
    console_missing = _missing(*_CONSOLE, *filter(None, [kind.client]))
    if console_missing:
        print(f"  {install}")
    print(f"  {program} dev {module}.py")
    if not console_missing and _missing(*_TESTING):
        print(f"\nIts tests need further packages: {install}")
    return 0


_CONSOLE = ("starlette", "uvicorn", "watchfiles")
_TESTING = ("pytest", "pytest_asyncio")
"""Packages of the extras of these names."""


def _missing(*packages: str) -> bool:
    return any(find_spec(package) is None for package in packages)


def _inactive_environment() -> Path | None:
    """The folder of this program, if a shell does not find it; otherwise None."""
    folder = Path(sys.executable).parent
    found = which("aiostream-ds") is None and (folder / "aiostream-ds").is_file()
    return folder if found else None


def _install_command(kind: Kind) -> str:
    """What installs the project's packages, where this distribution came from."""
    command = install_command("console", "testing")
    return f'{command} "{kind.requirement}"' if kind.client else command


def make_files(words: list[str], reads: str) -> dict[str, str]:
    """The project's files: path → content."""
    module, kind = "_".join(words), KINDS[reads]
    requirements = [kind.requirement] if kind.client else []
    services = _TEMPLATES / reads / _SERVICES
    values = {
        "module": module,
        "class": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
        "project": "-".join(words),
        "install": _install_command(kind),
        "requirements": "".join(f', "{each}"' for each in requirements),
        "packages": "".join(f' "{each}"' for each in requirements),
        "services": services.read_text("utf-8") if services.is_file() else "",
    }
    found = {}
    for folder in ("common", reads):
        for template in sorted((_TEMPLATES / folder).glob("*.tmpl")):
            name = template.name.removesuffix(".tmpl")
            path = _TARGETS.get(name, name).format(module=module)
            found[path] = _fill(template.read_text("utf-8"), values)
    return found


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _words(name: str) -> list[str]:
    """The words of a name, in lower case.

    Raises:
        CommandError: They are not the name of a new Python module.
    """
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
    module = "_".join(words)
    if not re.fullmatch(r"[A-Za-z][\w-]*", name) or not name.isascii() or keyword.iskeyword(module):
        raise CommandError(
            f"name must be letters, digits, - and _, with a letter first, got {name!r}"
        )
    if module in sys.stdlib_module_names or module in _IMPORTED:
        raise CommandError(
            f"name must not be that of a module that projects import, got {module!r}"
        )
    return words


def _validated_name(text: str) -> str:
    _words(text)
    return text


def _pick() -> str:
    kinds = list(KINDS)
    print("What does the data source read?")
    for number, (name, kind) in enumerate(KINDS.items(), 1):
        print(f"  {number}  {name}: {kind.text}")
    numbers = {str(number): name for number, name in enumerate(KINDS, 1)}

    def picked(text: str) -> str:
        name = numbers.get(text, text or kinds[0])
        if name not in KINDS:
            raise CommandError(f"expected a number from 1 to {len(kinds)}, got {text!r}")
        return name

    return _ask(f"1 to {len(kinds)}", picked)


def _ask(question: str, check: Callable[[str], str]) -> str:
    while True:
        try:
            answer = input(f"{question}: ").strip()
        except EOFError:
            raise CommandError("expected NAME and --reads; stdin is not a terminal") from None
        try:
            return check(answer)
        except CommandError as error:
            print(error)
