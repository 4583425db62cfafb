"""`aiostream-ds dev [FILE.py[:Class]]`: serve a data source here, and see it in the console.

It listens on a port of this machine as the plugin process does, so that a Grafana can be attached,
serves the console's page beside it, and exchanges the code when the file is saved. In a terminal
alone (--terminal) it plays the viewer of one path.
"""

import argparse
import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from aiostream_ds._grafana.application import Application
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._process.runtime import serve_beside, serve_standalone
from aiostream_ds._process.standalone import plugin_id
from aiostream_ds.cli.arguments import add_count, add_file, add_settings
from aiostream_ds.cli.link import link
from aiostream_ds.cli.live import show
from aiostream_ds.cli.opened import Opened, open_target, run_loop
from aiostream_ds.cli.target import CommandError, find_target, first_path
from aiostream_ds.testing.grafana import open_grafana

if TYPE_CHECKING:
    from aiostream_ds.console.web_server import ConsoleSocket

__all__ = ["arguments", "run"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What the command line takes."""
    add_file(command)
    command.add_argument("--path", help="the path to follow; default: the first that needs nothing")
    add_settings(command)
    page = command.add_argument_group("the console")
    page.add_argument("--host", default="127.0.0.1", help="where it listens; default: %(default)s")
    page.add_argument("--port", type=int, default=None, help="default: 3030, or the next free one")
    page.add_argument("--no-browser", action="store_true", help="only print its address")
    page.add_argument("--no-reload", action="store_true", help="keep the code when it is saved")
    page.add_argument("--terminal", action="store_true", help="no console: rows in this terminal")
    add_count(command, "rows in this terminal; end after so many")
    grafana = command.add_argument_group("a Grafana on this machine").add_mutually_exclusive_group()
    grafana.add_argument(
        "--grafana", type=Path, metavar="DIR",
        help="a Grafana's folder of plugins: the file is put there as a plugin, and attached",
    )  # fmt: skip
    grafana.add_argument(
        "--plugin-dir", type=Path, metavar="DIR",
        help="an installed plugin's directory: its running Grafana is attached to this process",
    )  # fmt: skip


def run(parsed: argparse.Namespace) -> int:
    """Serve and show until interrupted."""
    opened = open_target(parsed.file, parsed)
    directory = _directory(parsed)
    if parsed.terminal or parsed.count:
        path = parsed.path or first_path(opened.target, opened.by, opened.settings)
        run_loop(lambda: _in_terminal(parsed, opened, directory, path))
        return 0
    try:  # here, not in the loop, which an import would block
        from aiostream_ds.console import app, reload  # noqa: F401
        from aiostream_ds.console.web_server import listen
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the console needs the package {error.name!r}: pip install 'aiostream-ds[console]';"
            " or see rows in the terminal with --terminal"
        ) from None
    path = parsed.path or _first_path(opened)
    listener = listen(parsed.host, parsed.port)
    run_loop(lambda: _in_browser(parsed, opened, directory, path, listener))
    return 0


def _directory(parsed: argparse.Namespace) -> Path | None:
    """The plugin's directory that a Grafana finds this process by."""
    if parsed.grafana is not None:
        return link(parsed.file, parsed.grafana)
    here = Path(".")
    directory: Path | None = parsed.plugin_dir or (here if plugin_id(here) else None)
    if directory is not None and not plugin_id(directory):
        raise CommandError(f"there is no plugin.json with an id in {str(directory)!r}")
    return directory


def _first_path(opened: Opened) -> str:
    try:
        return first_path(opened.target, opened.by, opened.settings)
    except CommandError:
        return ""  # every path needs an argument, which the page asks for


async def _in_terminal(
    parsed: argparse.Namespace, opened: Opened, directory: Path | None, path: str
) -> None:
    async def ready(application: Application, address: str) -> None:
        _say_attached(parsed, directory)
        print(f"Serving {parsed.file or 'the built-in plugin'} on {address}; Ctrl-C ends it.")
        print(f"Live rows of {path}:", flush=True)
        async with open_grafana(
            application, settings=opened.settings, secrets=opened.secrets, uid="local"
        ) as grafana:
            await show(grafana, path, count=parsed.count)

    await serve_standalone(opened.catalog, directory, ready)


async def _in_browser(
    parsed: argparse.Namespace,
    opened: Opened,
    directory: Path | None,
    path: str,
    listener: "ConsoleSocket",
) -> None:
    from aiostream_ds.console.app import make_app
    from aiostream_ds.console.hub import open_hub
    from aiostream_ds.console.reload import Reloader
    from aiostream_ds.console.web_server import serve_app

    title = Path(parsed.file).name if parsed.file else "the built-in plugin"
    async with open_hub(
        opened.catalog, settings=opened.settings, secrets=opened.secrets, title=title
    ) as hub:
        hub.first_path = path

        async def ready(address: str) -> None:
            _say_attached(parsed, directory)
            print(f"Console   {listener.url}")
            print(f"Plugin    {title} on {address}; Ctrl-C ends it", flush=True)
            async with anyio.create_task_group() as tasks:
                if parsed.file is not None and not parsed.no_reload:
                    file = Path(
                        parsed.file.partition(":")[0] if ".py:" in parsed.file else parsed.file
                    )
                    reloader = Reloader(hub, lambda: Catalog(*find_target(parsed.file)), file)
                    tasks.start_soon(reloader.run)
                if not parsed.no_browser and _has_display():
                    tasks.start_soon(_open_browser, listener.url)
                app = make_app(hub, hosts=listener.hosts, token=listener.token)
                await serve_app(app, listener)

        await serve_beside(hub.plugin, directory, ready)


async def _open_browser(url: str) -> None:
    await anyio.to_thread.run_sync(webbrowser.open, url)


def _say_attached(parsed: argparse.Namespace, directory: Path | None) -> None:
    if parsed.grafana is not None or parsed.plugin_dir is not None:
        print(f"Grafana   a Grafana that runs the plugin in {directory} attaches to this process")


def _has_display() -> bool:
    """Whether a browser that is opened would be seen."""
    here = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return here and sys.stdout.isatty()
