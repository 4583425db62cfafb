"""`aiostream-ds run FILE.py[:Class]`: what an executable calls to be the plugin process.

With --listen it is a plugin elsewhere: in a container or a service of its own, which a package made
with --address names to Grafana.
"""

import argparse
from pathlib import Path

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._process.runtime import serve_at, serve_loaded
from aiostream_ds.cli.arguments import add_file
from aiostream_ds.cli.target import CommandError, find_target

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    add_file(command)
    command.add_argument(
        "-standalone", "--standalone", action="store_true",
        help="serve on a port of this machine, for a debugger",
    )  # fmt: skip
    command.add_argument(
        "--listen", metavar="HOST:PORT", help="serve there, for the Grafana of another machine"
    )
    for name, text in (
        ("cert", "with --listen: the certificate (PEM)"),
        ("key", "its key (PEM)"),
        ("client-ca", "let in only clients with a certificate of these authorities (PEM)"),
    ):
        command.add_argument(f"--tls-{name}", type=Path, metavar="FILE", help=text)


def run(parsed: argparse.Namespace) -> int:
    """Never returns: the process ends in `serve`."""

    def load() -> Catalog:
        return Catalog(*find_target(parsed.file))

    cert, key, client_ca = parsed.tls_cert, parsed.tls_key, parsed.tls_client_ca
    if (cert is None) != (key is None) or (client_ca and cert is None):
        raise CommandError("--tls-cert and --tls-key go together, and --tls-client-ca with them")
    if parsed.listen is None:
        if cert is not None:
            raise CommandError("--tls-cert is for --listen HOST:PORT")
        serve_loaded(load)
    context = None
    if cert is not None:
        from aiostream_ds._process.tls import server_context

        context = server_context(cert, key, client_ca)
    serve_at(load, parsed.listen, context)
