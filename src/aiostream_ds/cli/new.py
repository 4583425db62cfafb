"""`aiostream-ds new [NAME]`: a project that runs at once. Asks for what the line does not say."""

import argparse
import keyword
import re
import sys
from collections.abc import Callable
from pathlib import Path

from aiostream_ds.cli.target import CommandError

__all__ = ["KINDS", "arguments", "run"]

KINDS = {
    "code": "values that Python code computes or fetches",
    "file": "a file that grows, one JSON object a line",
    "command": "what a program prints",
}
"""What a data source can read: each is a folder of templates."""

_TEMPLATES = Path(__file__).with_name("templates")

_PLACES: dict[str, str] = {
    "source.py": "{module}.py",
    "test.py": "test_{module}.py",
    "sample.ndjson": "{module}.ndjson",
    "ci.yml": ".github/workflows/tests.yml",
    "gitignore": ".gitignore",
}
"""Where the files go that do not keep their names."""


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    command.add_argument("name", nargs="?", help="the data source's name, and its folder's")
    command.add_argument("--reads", choices=KINDS, help="what it reads")


def run(parsed: argparse.Namespace) -> int:
    """Ask, write, and say what comes next."""
    name = parsed.name or _ask("Its name", _checked_name)
    words = _words(name)
    reads = parsed.reads or _pick()
    folder = Path(name)
    if folder.exists():
        raise CommandError(f"{name!r} is there already; give another name")
    for place, text in files(words, reads).items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    module = "_".join(words)
    print(f"Made {name}/: {module}.py, its test, pyproject.toml, README and CI.\n")
    print(f"  cd {name} && aiostream-ds dev {module}.py")
    return 0


def files(words: list[str], reads: str) -> dict[str, str]:
    """The project's files: their texts by their places."""
    module = "_".join(words)
    values = {
        "module": module,
        "class": "".join(word.capitalize() for word in words),
        "title": " ".join(words).capitalize(),
        "project": "-".join(words),
    }
    found = {}
    for folder in ("common", reads):
        for template in sorted((_TEMPLATES / folder).glob("*.tmpl")):
            name = template.name.removesuffix(".tmpl")
            place = _PLACES.get(name, name).format(module=module)
            found[place] = _filled(template.read_text("utf-8"), values)
    return found


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)


def _words(name: str) -> list[str]:
    """The words of a name, lower case. Raises CommandError for what can name no Python module."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]
    module = "_".join(words)
    if not re.fullmatch(r"[A-Za-z][\w-]*", name) or not name.isascii() or keyword.iskeyword(module):
        raise CommandError(
            f"{name!r} can name no project; give letters, digits, - and _, a letter first"
        )
    if module in sys.stdlib_module_names or module in ("aiostream_ds", "anyio", "test"):
        raise CommandError(f"{module!r} is a module of Python's or one of ours; give another name")
    return words


def _checked_name(text: str) -> str:
    _words(text)
    return text


def _pick() -> str:
    kinds = list(KINDS)
    print("What does it read?")
    for number, (kind, text) in enumerate(KINDS.items(), 1):
        print(f"  {number}  {kind}: {text}")

    def picked(text: str) -> str:
        kind = kinds[int(text) - 1] if text in ("1", "2", "3") else text or kinds[0]
        if kind not in KINDS:
            raise CommandError(f"{text!r} is none of 1, 2, 3")
        return kind

    return _ask("1, 2 or 3", picked)


def _ask(question: str, check: Callable[[str], str]) -> str:
    while True:
        try:
            answer = input(f"{question}: ").strip()
        except EOFError:
            raise CommandError("there is nobody to ask; give NAME and --reads") from None
        try:
            return check(answer)
        except CommandError as error:
            print(error)
