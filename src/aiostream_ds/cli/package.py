"""`aiostream-ds package [FILE.py[:Class]]`: a folder and a zip that Grafana loads."""

import argparse
from pathlib import Path

from aiostream_ds.cli.target import CommandError, find_target
from aiostream_ds.packaging.build import build
from aiostream_ds.packaging.build_config import Recipe
from aiostream_ds.packaging.findings import PackagingError, Progress

__all__ = ["arguments", "run"]

_GIVEN = {
    "id": "the plugin's id, ORG-NAME-datasource; default: local-<class>-datasource",
    "name": "what Grafana calls it; default: the class's name",
    "version": "its version; default: that of pyproject.toml, else 0.1.0",
    "author": "who made it",
}


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    add = command.add_argument
    add("file", nargs="?", metavar="FILE.py[:Class]",
        help="an author's file; default: the built-in plugin")  # fmt: skip
    add("-o", "--out", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    for name, text in _GIVEN.items():
        add(f"--{name}", help=text)
    add("--runtime", choices=("bundled", "host"), default="bundled",
        help="the Python that serves: this one, packed inside (default), or the machine's",
    )  # fmt: skip
    add("--address", default="", metavar="HOST:PORT",
        help="the plugin runs there, started by you (see `run --listen`); no Python is inside",
    )  # fmt: skip
    add("--tls", action="store_true", help="with --address: over TLS")
    add("--tls-ca", type=Path, metavar="FILE",
        help="with --address: over TLS, trusting these authorities (PEM), not the system's",
    )  # fmt: skip
    add("--include", type=Path, action="append", default=[], metavar="PATH",
        help="a file or folder that the author's code reads; may be repeated")  # fmt: skip
    add("--with", action="append", default=[], metavar="REQUIREMENT", dest="requires",
        help="an installed package that is imported only later; may be repeated")  # fmt: skip
    add("--frontend", type=Path, metavar="DIR",
        help="a folder with a module.js of yours and what it loads, in place of ours")  # fmt: skip
    add("--whole-arrow", action="store_true", help="pyarrow with Parquet, datasets and the rest")
    add("--no-zip", action="store_true", help="only the folder")
    add("--quiet", action="store_true", help="say only warnings and what was made")


def run(parsed: argparse.Namespace) -> int:
    """Make it, and print where it is."""
    target, by = find_target(parsed.file)
    file = None
    if parsed.file is not None:
        name = parsed.file if parsed.file.endswith(".py") else parsed.file.rpartition(":")[0]
        file = Path(name)
    recipe = Recipe(
        target=target, by=by, file=file, out=parsed.out,
        runtime="address" if parsed.address else parsed.runtime,
        given={name: getattr(parsed, name) for name in _GIVEN},
        include=tuple(parsed.include), requires=tuple(parsed.requires),
        whole_arrow=parsed.whole_arrow, frontend=parsed.frontend, zip=not parsed.no_zip,
        address=parsed.address, tls=parsed.tls, ca=parsed.tls_ca,
    )  # fmt: skip
    progress = Progress(quiet=parsed.quiet)
    try:
        built = build(recipe, progress)
    except PackagingError as error:
        raise CommandError(str(error)) from None
    if recipe.runtime == "address" and not (recipe.tls or recipe.ca):
        progress.warn(
            f"between Grafana and {recipe.address} nothing is encrypted, the data sources' secrets "
            "neither: keep it in a private network, or use --tls"
        )
    print(built.folder)
    if built.zip is not None:
        print(built.zip)
    return 0
