"""Arguments that several subcommands share."""

import argparse
from collections.abc import Sequence

from aiostream_ds.cli.target import CommandError, UsageError, find_target, patterns

__all__ = ["add_count", "add_file", "add_operands", "add_settings", "split_operands"]


def add_file(command: argparse.ArgumentParser) -> None:
    """An optional file."""
    command.add_argument(
        "file",
        nargs="?",
        metavar="FILE.py[:Class]",
        help="an author's file; default: the built-in plugin",
    )


def add_operands(command: argparse.ArgumentParser, *names: str) -> None:
    """An optional file, then the operands `names`. argparse cannot express this order."""
    command.add_argument(
        "operands",
        nargs="+",
        metavar=" ".join(("[FILE.py[:Class]]", *names)),
        help=f"an author's file (default: the built-in plugin), then {' and '.join(names)}",
    )
    command.set_defaults(names=names)


def add_count(command: argparse.ArgumentParser, text: str = "stop after N rows") -> None:
    """--count."""
    command.add_argument("--count", type=_positive, default=0, metavar="N", help=text)


def add_settings(command: argparse.ArgumentParser) -> None:
    """--set and --secret."""
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="a setting (jsonData); VALUE is JSON, otherwise a string; may be repeated",
    )
    command.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a secret setting (secureJsonData), a string; may be repeated",
    )


def split_operands(parsed: argparse.Namespace) -> tuple[str | None, Sequence[str]]:
    """The file, or None, and the other operands.

    Raises:
        CommandError: There is only a file.
        UsageError: The number of operands is wrong.
    """
    operands, names = parsed.operands, parsed.names
    if len(operands) == len(names) and operands[0].partition(":")[0].endswith(".py"):
        target, by = find_target(operands[0])
        raise CommandError(
            f"expected {' and '.join(names)} after {operands[0]}; it has the paths: "
            f"{patterns(target, by, {})}"
        )
    if len(operands) == len(names):
        return None, operands
    if len(operands) == len(names) + 1:
        return operands[0], operands[1:]
    raise UsageError(f"expected [FILE.py[:Class]] {' '.join(names)}, got {' '.join(operands)!r}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)
