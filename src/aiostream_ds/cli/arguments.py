"""What several commands take, declared once."""

import argparse
from collections.abc import Sequence

from aiostream_ds.cli.target import CommandError, UsageError, find_target, patterns

__all__ = ["add_count", "add_file", "add_settings", "add_words", "split_words"]


def add_file(command: argparse.ArgumentParser) -> None:
    """One file, which may be left out."""
    command.add_argument(
        "file", nargs="?", metavar="FILE.py[:Class]",
        help="an author's file; default: the built-in plugin",
    )  # fmt: skip


def add_words(command: argparse.ArgumentParser, *names: str) -> None:
    """A file, which may be left out, and then what `names` says."""
    command.add_argument(
        "words", nargs="+", metavar=" ".join(("[FILE.py[:Class]]", *names)),
        help=f"an author's file (default: the built-in plugin), then {' and '.join(names)}",
    )  # fmt: skip
    command.set_defaults(names=names)


def add_count(command: argparse.ArgumentParser, text: str = "end after so many rows") -> None:
    """--count."""
    command.add_argument("--count", type=_positive, default=0, metavar="N", help=text)


def add_settings(command: argparse.ArgumentParser) -> None:
    """--set and --secret."""
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting (jsonData); VALUE is JSON, or else text",
    )  # fmt: skip
    command.add_argument(
        "--secret", action="append", default=[], metavar="KEY=VALUE",
        help="a secret setting (secureJsonData)",
    )  # fmt: skip


def split_words(parsed: argparse.Namespace) -> tuple[str | None, Sequence[str]]:
    """The file, if there is one, and the other words. Raises CommandError for another number."""
    words, names = parsed.words, parsed.names
    if len(words) == len(names) and words[0].partition(":")[0].endswith(".py"):
        target, by = find_target(words[0])
        there = patterns(target, by, {})
        raise CommandError(f"give {' and '.join(names)} after {words[0]}; it has: {there}")
    if len(words) == len(names):
        return None, words
    if len(words) == len(names) + 1:
        return words[0], words[1:]
    raise UsageError(f"give [FILE.py[:Class]] {' '.join(names)}, not {' '.join(words)!r}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)
