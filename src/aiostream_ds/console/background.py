"""`show`: the console of a data source while a script or a notebook goes on.

The data source and the page's server run in a thread with an event loop of its own. One more
thread waits for the end of the program, and closes what is still open.
"""

import asyncio
import html
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import anyio
import msgspec

from aiostream_ds._grafana.catalog import Catalog, Target
from aiostream_ds._installation import install_command
from aiostream_ds._loggers import add_handler, get_logger, remove_handler
from aiostream_ds._routing.plan import Plan
from aiostream_ds._telemetry import TextLines
from aiostream_ds.console.path_ranges import followed_text
from aiostream_ds.datasource import DataSource
from aiostream_ds.errors import ConfigError
from aiostream_ds.settings import unknown_keys

if TYPE_CHECKING:
    from aiostream_ds.console.web_server import ConsoleSocket

__all__ = ["CLOSE_LIMIT", "Console", "show"]

log = get_logger(__name__)

CLOSE_LIMIT = 15.0
"""Seconds that `Console.close` waits for streams, lifespans and pages to end."""

_WAIT_STEP = 1.0
"""Seconds after which a wait looks for Ctrl-C, where it does not interrupt one."""

_lock = threading.Lock()
_open: "set[Console]" = set()
_exit_thread: threading.Thread | None = None
_terminal_log: logging.Handler | None = None


def show(
    target: Target,
    *,
    path: str = "",
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    by: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = True,
) -> "Console":
    """Show a data source in the browser while the program goes on: its streams, queries and log.

        with show(Training):      # or: page = show(Training) … page.close()
            train()

    Returns as soon as the page can be opened, and prints its address. The console stays open until
    the `with` block ends, `close` is called, or the program ends: then streams are cancelled, and
    lifespans closed, in order. `show(Sensors).wait()` keeps a program running that has nothing else
    to do, until Ctrl-C.

    The data source runs in a thread of its own. Called from a script, a notebook or a running event
    loop, which it blocks for a fraction of a second; several consoles can be open. Thread-safe.

    Args:
        target, by: as `serve` takes them.
        path: the path that the page follows, or several, as `walk/10/{1..6}`; by default the first
            that needs no argument. Fields at its end that have defaults may be left out.
        settings, secrets: the data source's jsonData (camelCase) and secureJsonData.
        host: the address to listen on. Any other than this machine's own needs the token that is
            part of the printed address.
        port: by default 3030 or the next free port; 0: any free port.
        browser: whether to open the page in a browser, if the program has a terminal on a display.

    Raises:
        ModuleNotFoundError: a package of `aiostream-ds[console]` is not installed.
        ConfigError: the port cannot be opened, no class has the name in the settings, or the class
            has no such setting.
        NotFound: no stream of the class has the path.
        Exception: what the class raises when it is imported.
    """
    try:
        from aiostream_ds.console import app  # noqa: F401  # not in the thread, for the error
        from aiostream_ds.console.web_server import listen
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"show needs the package {error.name!r}; run: {install_command('console')}",
            name=error.name,
        ) from None
    catalog = Catalog(target, by)
    kind = catalog.pick(msgspec.json.encode(dict(settings or {})))
    _check_names(kind, by, settings or {}, secrets or {})
    if path:
        path = followed_text(path, partial(_read_path, kind._ds_plan))
    else:
        path = kind._ds_plan.default_path() or ""
    console = Console(catalog, listen(host, port), kind.__name__, path, settings, secrets)
    console._start(browser)
    print(f"Console   {console.url}", flush=True)  # noqa: T201  # as `dev` does
    return console


def _read_path(plan: Plan, text: str) -> str:
    """The path for a text. Raises NotFound if no stream has it."""
    path = plan.spell(text)
    plan.match(path)
    return path


def _check_names(
    kind: type[DataSource[Any]],
    by: str | None,
    settings: Mapping[str, Any],
    secrets: Mapping[str, str],
) -> None:
    """Raises ConfigError for a name that no setting of the class has: it would be ignored."""
    declared = kind._ds_plan.settings
    for argument, given, is_secret in (("settings", settings, False), ("secrets", secrets, True)):
        unknown = [key for key in unknown_keys(declared, given, secret=is_secret) if key != by]
        if unknown:
            names = [field.encode_name for field in msgspec.structs.fields(declared)]
            known = unknown_keys(declared, names, secret=not is_secret)
            raise ConfigError(
                f"{argument} must name those of {kind.__name__} ({', '.join(known) or 'none'}), got"
                f" {unknown[0]!r}"
            )


class Console:
    """An open console. Made by `show`.

    A notebook shows it as a link.
    """

    def __init__(
        self,
        catalog: Catalog,
        listener: "ConsoleSocket",
        title: str,
        path: str,
        settings: Mapping[str, Any] | None,
        secrets: Mapping[str, str] | None,
    ) -> None:
        self._catalog = catalog
        self._listener = listener
        self._title = title
        self._path = path
        self._settings = settings
        self._secrets = secrets
        self._opened: Future[None] = Future()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aiostream-ds console", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None  # until the thread has begun
        self._stop: asyncio.Event

    @property
    def url(self) -> str:
        """The address of the page."""
        return self._listener.url

    @property
    def is_open(self) -> bool:
        """Whether the page can be opened."""
        return not self._closed.is_set()

    def wait(self) -> None:
        """Wait until the console is closed, or Ctrl-C, which closes it."""
        try:
            while not self._closed.wait(_WAIT_STEP):
                pass
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """End the streams and lifespans, and close the page. Waits for them, up to CLOSE_LIMIT.

        Thread-safe; may be called again.
        """
        if self._loop is not None:
            with suppress(RuntimeError):  # its event loop is closed
                self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is self._thread:
            return
        self._thread.join(CLOSE_LIMIT)
        if self._thread.is_alive():
            log.warning("the console %s has not ended within %g s", self.url, CLOSE_LIMIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Console {self.url}{'' if self.is_open else ' (closed)'}>"

    def _repr_html_(self) -> str:
        """For notebooks: a link, since the page refuses to be shown in a frame of another page."""
        if not self.is_open:
            return f"{html.escape(self.url)} (closed)"
        url = html.escape(self.url)
        return f'<a href="{url}" target="_blank" rel="noopener">{url}</a>'

    # The thread

    def _start(self, browser: bool) -> None:
        self._browser = browser
        _add(self)
        self._thread.start()
        try:
            self._opened.result()
        except BaseException:
            self._listener.sock.close()
            if self._opened.done():
                self._thread.join(CLOSE_LIMIT)  # it ends with this error
            raise

    def _run(self) -> None:
        try:
            anyio.run(self._serve)
        except BaseException as error:  # of the author's code too, such as SystemExit
            if self._opened.done():
                log.exception("the console %s has ended", self.url)
            else:
                self._opened.set_exception(error)
        finally:
            self._closed.set()
            _discard(self)

    async def _serve(self) -> None:
        from aiostream_ds.console.app import make_app
        from aiostream_ds.console.browser import has_display, open_browser
        from aiostream_ds.console.hub import open_hub
        from aiostream_ds.console.web_server import serve_app

        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        listener = self._listener
        async with open_hub(
            self._catalog,
            settings=self._settings,
            secrets=self._secrets,
            title=self._title,
            first_path=self._path,
        ) as hub:
            app = make_app(hub, hosts=listener.hosts, token=listener.token)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve_app, app, listener)
                if self._browser and has_display():
                    tasks.start_soon(open_browser, self.url)
                self._opened.set_result(None)
                await self._stop.wait()
                self._closed.set()
                tasks.cancel_scope.cancel()


def _add(console: Console) -> None:
    """Close the console when the program ends, if it is still open then.

    Not by `atexit`: the thread still needs other threads to close, and none can be started then.
    """
    global _exit_thread, _terminal_log
    with _lock:
        _open.add(console)
        if _exit_thread is None or not _exit_thread.is_alive():
            name = "aiostream-ds console exit"
            _exit_thread = threading.Thread(target=_close_all, name=name, daemon=False)
            _exit_thread.start()
        if not logging.getLogger().handlers:
            # the page's log is a handler too: without this one it would take the place of stderr
            _terminal_log = logging.StreamHandler()
            _terminal_log.setLevel("WARNING")
            _terminal_log.setFormatter(TextLines())
            add_handler(_terminal_log)


def _discard(console: Console) -> None:
    global _terminal_log
    with _lock:
        _open.discard(console)
        if not _open and _terminal_log is not None:
            remove_handler(_terminal_log)
            _terminal_log = None


def _close_all() -> None:
    threading.main_thread().join()
    with _lock:
        consoles = tuple(_open)
    for console in consoles:
        console.close()
