"""`aiostream-ds package [FILE.py[:Class]]`: makes a folder and a zip that Grafana loads."""

import argparse
from pathlib import Path

from aiostream_ds.cli.arguments import add_file
from aiostream_ds.cli.target import CommandError, file_of, find_target
from aiostream_ds.packaging.build import build
from aiostream_ds.packaging.build_config import BuildConfig
from aiostream_ds.packaging.findings import PackagingError, Progress

__all__ = ["arguments", "run"]

_MANIFEST = {
    "id": "the plugin's id, ORG-NAME-datasource; default: local-<class>-datasource",
    "name": "its name in Grafana; default: the class's name",
    "version": "its version; default: that of pyproject.toml, otherwise 0.1.0",
    "author": "its author",
}


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_file(command)
    add = command.add_argument
    add("-o", "--out", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    for name, text in _MANIFEST.items():
        add(f"--{name}", help=text)
    add(
        "--runtime",
        choices=("bundled", "host"),
        default="bundled",
        help="which Python serves the plugin: a copy of this one (default), or the machine's",
    )
    add(
        "--address",
        default="",
        metavar="HOST:PORT",
        help="a remote plugin, which you start there with `run --listen`; no Python is packaged",
    )
    add("--tls", action="store_true", help="with --address: use TLS")
    add(
        "--tls-ca",
        type=Path,
        metavar="FILE",
        help="with --address: use TLS and trust these CAs (PEM) instead of the system's",
    )
    add(
        "--include",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="a file or folder that the author's code reads; may be repeated",
    )
    add(
        "--with",
        action="append",
        default=[],
        metavar="REQUIREMENT",
        dest="requires",
        help="an installed package that is imported at run time; may be repeated",
    )
    add(
        "--frontend",
        type=Path,
        metavar="DIR",
        help="a folder with your own module.js and what it loads",
    )
    add(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH",
        help="linux/amd64 or linux/arm64; default: this machine's; may be repeated",
    )
    add(
        "--oci",
        type=Path,
        metavar="FILE.tar",
        help="also write a container image: an OCI layout, which docker, podman and skopeo load",
    )
    add(
        "--small",
        action="store_true",
        help="leave out what is probably not used, and compress what a start does not import",
    )
    add("--whole-arrow", action="store_true", help="package all of pyarrow (Parquet, datasets, …)")
    add("--no-zip", action="store_true", help="make only the folder")
    add("--quiet", action="store_true", help="print only warnings and the result")


def run(parsed: argparse.Namespace) -> int:
    """Make the package and print its path."""
    target, by = find_target(parsed.file)
    config = BuildConfig(
        target=target,
        by=by,
        file=None if parsed.file is None else file_of(parsed.file),
        out=parsed.out,
        runtime="address" if parsed.address else parsed.runtime,
        given={name: getattr(parsed, name) for name in _MANIFEST},
        include=tuple(parsed.include),
        requires=tuple(parsed.requires),
        whole_arrow=parsed.whole_arrow,
        frontend=parsed.frontend,
        zip=not parsed.no_zip,
        address=parsed.address,
        tls=parsed.tls,
        ca=parsed.tls_ca,
        platforms=tuple(parsed.platform),
        small=parsed.small,
        image=parsed.oci,
    )
    progress = Progress(quiet=parsed.quiet)
    try:
        built = build(config, progress)
    except PackagingError as error:
        raise CommandError(str(error)) from None
    except OSError as error:  # a full disk, a file that is written meanwhile
        raise CommandError(f"the package cannot be written: {error}") from error
    if config.runtime == "address" and not (config.tls or config.ca):
        progress.warn(
            f"the connection from Grafana to {config.address} is not encrypted, including secrets; "
            "use a private network, or --tls"
        )
    print(built.folder)
    for path in (*built.zips, *([built.image] if built.image else [])):
        print(path)
    return 0
