"""`aiostream-ds dev [FILE.py[:Class]]`: serves a data source and shows it in the console.

It listens on a local port as the plugin process does, so that a Grafana can use it, serves the
console's page, and loads the file again when it is saved. With --terminal it prints the rows of a
path instead.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from aiostream_ds._grafana.application import Application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._installation import install_command
from aiostream_ds._process.runtime import serve_application, serve_standalone
from aiostream_ds._process.standalone import plugin_id
from aiostream_ds._process.stdio import redact_output
from aiostream_ds.cli.arguments import add_count, add_file, add_settings
from aiostream_ds.cli.dev_folder import make_dev_folder
from aiostream_ds.cli.live import show
from aiostream_ds.cli.local_plugin import LocalPlugin, load_plugin, run_async
from aiostream_ds.cli.target import CommandError, UsageError, file_of, find_target, first_path
from aiostream_ds.testing.grafana import open_grafana

if TYPE_CHECKING:
    from aiostream_ds.console.web_server import ConsoleSocket

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add_file(command)
    command.add_argument(
        "--path", help="the path to subscribe to; default: the first that needs no argument"
    )
    command.add_argument(
        "--push",
        action="store_true",
        help="show the rows that programs push: the built-in plugin with its source push",
    )
    add_settings(command)
    page = command.add_argument_group("the console")
    page.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on; default: %(default)s"
    )
    page.add_argument("--port", type=int, default=None, help="default: 3030, or the next free port")
    page.add_argument("--no-browser", action="store_true", help="do not open a browser")
    page.add_argument("--no-reload", action="store_true", help="do not reload a saved file")
    page.add_argument(
        "--terminal", action="store_true", help="print rows in this terminal, without a console"
    )
    add_count(command, "print N rows in this terminal, then stop")
    grafana = command.add_argument_group("a Grafana on this machine").add_mutually_exclusive_group()
    grafana.add_argument(
        "--grafana",
        type=Path,
        metavar="DIR",
        help="Grafana's plugin folder: make a plugin of the file there, and serve it",
    )
    grafana.add_argument(
        "--plugin-dir",
        type=Path,
        metavar="DIR",
        help="the folder of an installed plugin: serve it for the running Grafana",
    )


def run(parsed: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    if parsed.push:
        if parsed.file is not None:
            raise UsageError(f"--push is for the built-in plugin, got {parsed.file!r}, too")
        if parsed.terminal or parsed.count:
            raise UsageError("--push needs the console, got --terminal or --count, too")
        parsed.settings = ["source=push", *parsed.settings]
    plugin = load_plugin(parsed.file, parsed)
    directory = _plugin_directory(parsed)
    if parsed.terminal or parsed.count:
        path = plugin.path(parsed.path or first_path(plugin.target, plugin.by, plugin.settings))
        run_async(lambda: _serve_in_terminal(parsed, plugin, directory, path))
        return 0
    try:  # not in the event loop, which an import would block
        from aiostream_ds.console import app, reload  # noqa: F401
        from aiostream_ds.console.path_ranges import followed_text
        from aiostream_ds.console.web_server import listen
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the console needs the package {error.name!r}; "
            f"run: {install_command('console')}; or use --terminal"
        ) from None
    redact_output("stdout")  # of the author's code
    path = followed_text(parsed.path or _first_path(plugin), plugin.path)
    listener = listen(parsed.host, parsed.port)
    run_async(lambda: _serve_console(parsed, plugin, directory, path, listener))
    return 0


def _plugin_directory(parsed: argparse.Namespace) -> Path | None:
    """The folder of the plugin in Grafana; this process writes its address there."""
    if parsed.grafana is not None:
        return make_dev_folder(parsed.file, parsed.grafana)
    here = Path(".")
    directory: Path | None = parsed.plugin_dir or (here if plugin_id(here) else None)
    if directory is not None and not plugin_id(directory):
        raise CommandError(
            f"expected a folder with a plugin.json with an id, got {str(directory)!r}"
        )
    return directory


def _first_path(plugin: LocalPlugin) -> str:
    try:
        return first_path(plugin.target, plugin.by, plugin.settings)
    except CommandError:
        return ""  # every path needs an argument; the page asks for it


async def _serve_in_terminal(
    parsed: argparse.Namespace, plugin: LocalPlugin, directory: Path | None, path: str
) -> None:
    async def ready(application: Application, address: str) -> None:
        _print_attached(parsed, directory)
        print(f"Serving {parsed.file or 'the built-in plugin'} on {address}; Ctrl-C stops it.")
        print(f"Live rows of {path}:", flush=True)
        async with open_grafana(
            application, settings=plugin.settings, secrets=plugin.secrets, uid="local"
        ) as grafana:
            await show(grafana, path, count=parsed.count)

    await serve_standalone(plugin.catalog, directory, ready)


async def _serve_console(
    parsed: argparse.Namespace,
    plugin: LocalPlugin,
    directory: Path | None,
    path: str,
    listener: "ConsoleSocket",
) -> None:
    from aiostream_ds.console.app import make_app
    from aiostream_ds.console.browser import has_display, open_browser
    from aiostream_ds.console.hub import open_hub
    from aiostream_ds.console.reload import Reloader
    from aiostream_ds.console.web_server import serve_app

    title = Path(parsed.file).name if parsed.file else "the built-in plugin"
    async with open_hub(
        plugin.catalog,
        settings=plugin.settings,
        secrets=plugin.secrets,
        title=title,
        first_path=path,
    ) as hub:

        async def ready(address: str) -> None:
            reloader = None
            if parsed.file is not None and not parsed.no_reload:
                file = file_of(parsed.file)
                reloader = Reloader(hub, lambda: Catalog(*find_target(parsed.file)), file)
            _print_attached(parsed, directory)
            print(f"Console   {listener.url}")
            if hub.takes_pushes:
                print(f"Push      {_curl_line(listener)}")
            print(f"Plugin    {title} on {address}; Ctrl-C stops it", flush=True)
            async with anyio.create_task_group() as tasks:
                if reloader is not None:
                    tasks.start_soon(reloader.run)
                if not parsed.no_browser and has_display():
                    tasks.start_soon(open_browser, listener.url)
                app = make_app(hub, hosts=listener.hosts, token=listener.token)
                try:
                    await serve_app(app, listener)
                finally:
                    print("Stopping", file=sys.stderr, flush=True)

        await serve_application(hub.plugin, directory, ready)


def _curl_line(listener: "ConsoleSocket") -> str:
    """A command that pushes a row to the console."""
    access = f" -H 'Authorization: Bearer {listener.token}'" if listener.token else ""
    address = listener.url.partition("?")[0]
    return f"curl {address}push/lab/run-1 -d '{{\"loss\": 0.1}}'{access}"


def _print_attached(parsed: argparse.Namespace, directory: Path | None) -> None:
    if parsed.grafana is not None or parsed.plugin_dir is not None:
        print(f"Grafana   the plugin in {directory} uses this process")
