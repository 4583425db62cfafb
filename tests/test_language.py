"""Words that must not come back. docs/glossary.md has the terms to use instead.

`python -m tests.test_language [PATH …]` lists them.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WORDS = (
    r"tell(s|ing)?|told|says|said",
    r"who(so)?ever|who comes next",
    r"amid|beside|behind|anew|of now|in (its|their) own time",
    r"hungry|on_hungry|crowded|wound|odd|oddly|sound|unsound|usual|plainly|unmistakabl[ey]",
    r"lasting|passing|seams?|governors?|mailbox(es)?|pumps?",
    r"rooms?|grounds?|floors?|marks?|marked|marking",
    r"(?<!there )(is|are) no(?! (longer|more))(?= \w)|is none of",
    r"allowed (is|are)|allowed:",
)
"""Whole words, in any case, in names too: `_told`, `on_hungry`, `MarkKind`."""

ALLOWED = (
    r"marks=|pytest\.mark|pytestmark|get_closest_marker|\bmarkers?\b|--strict-markers|[Mm]arkdown|MARKDOWN",
    r"[mM]ath\.floor|\bfloor\(|benchmarks?\b|Benchmarks?\b|BENCHMARKS?\b|\bquestion mark",
    r"\bbehind a (proxy|load balancer|reverse proxy)\b",
)
"""What the words stand in rightly."""

FOLDERS = (
    "src",
    "frontend/src",
    "frontend/tests",
    "frontend/compat",
    "frontend/stubs",
    "frontend/build.mjs",
    "docs",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "tests",
    "examples",
    "scripts",
    "launcher",
    "benchmarks",
    "pyproject.toml",
    "containers",
    "builtin",
    ".ci",
)
SKIPPED = re.compile(
    r"package-lock\.json$|/static/|\.(png|webp|svg|arrow|sum)$|/_pb/|results\.json$|growth\.json$"
)

_WORDS = re.compile("|".join(rf"(?<![A-Za-z])(?:{each})(?![a-z])" for each in WORDS), re.I)
_ALLOWED = re.compile("|".join(ALLOWED))


def found(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, word and line of each word in a text."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in _WORDS.finditer(_ALLOWED.sub("", line)):
            yield number, match[0], line.strip()


def files(places: Sequence[str]) -> Iterator[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *places],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in listed.splitlines():
        path = ROOT / name
        if not SKIPPED.search(name) and path.is_file() and path != Path(__file__).resolve():
            yield path


def report(places: Sequence[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {word!r} in: {line[:120]}"
        for path in files(places)
        for number, word, line in found(path.read_text("utf-8"))
    ]


def test_a_word_is_found_in_names_and_sentences():
    text = "def _told():\n    '''It says so: allowed is 3.'''\n@pytest.mark.go\nis no longer"
    assert [(number, word) for number, word, _ in found(text)] == [
        (1, "told"), (2, "says"), (2, "allowed is"),
    ]  # fmt: skip


@pytest.mark.slow
def test_none_of_the_words_is_used():
    assert report(FOLDERS) == []


if __name__ == "__main__":
    lines = report(sys.argv[1:] or FOLDERS)
    print(*lines, f"{len(lines)} words", sep="\n")
