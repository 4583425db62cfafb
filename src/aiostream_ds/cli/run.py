"""`aiostream-ds run FILE.py[:Class]`: the plugin process, for an executable that Grafana starts.

With --listen it is a remote plugin, in a container or as a service, for a package made with
--address.
"""

import argparse
from pathlib import Path

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._process.entry import load_runtime
from aiostream_ds.cli.arguments import add_file
from aiostream_ds.cli.target import CommandError, find_target

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_file(command)
    command.add_argument(
        "-standalone",
        "--standalone",
        action="store_true",
        help="listen on a port of this machine, for a debugger",
    )
    command.add_argument(
        "--listen", metavar="HOST:PORT", help="listen there, for a Grafana on another machine"
    )
    for name, text in (
        ("cert", "with --listen: the certificate (PEM)"),
        ("key", "with --listen: the certificate's key (PEM)"),
        ("client-ca", "with --listen: accept only clients with a certificate of these CAs (PEM)"),
    ):
        command.add_argument(f"--tls-{name}", type=Path, metavar="FILE", help=text)


def run(parsed: argparse.Namespace) -> int:
    """Never returns: the process ends in `serve_loaded` or `serve_at`."""
    load_runtime()
    from aiostream_ds._process.runtime import serve_at, serve_loaded

    def load() -> Catalog:
        return Catalog(*find_target(parsed.file))

    cert, key, client_ca = parsed.tls_cert, parsed.tls_key, parsed.tls_client_ca
    if (cert is None) != (key is None) or (client_ca and cert is None):
        raise CommandError(
            "--tls-cert and --tls-key must be used together, --tls-client-ca only with them"
        )
    if parsed.listen is None:
        if cert is not None:
            raise CommandError("--tls-cert must be used with --listen HOST:PORT")
        serve_loaded(load)
    context = None
    if cert is not None:
        from aiostream_ds._process.server_tls import server_context

        context = server_context(cert, key, client_ca)
    serve_at(load, parsed.listen, context)
