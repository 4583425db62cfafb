"""A file that is saved: its code is loaded anew beside the old, and exchanged when it is whole.

What is loaded anew is the author's file and every module beside or below it; installed packages
stay. Code that cannot be loaded changes nothing: the old goes on, the page and the log say why.
"""

import importlib
import linecache
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import anyio
import anyio.to_thread
from watchfiles import Change, awatch

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._telemetry import authors_traceback
from aiostream_ds.console.hub import Hub

__all__ = ["Reloader"]

log = logging.getLogger(__name__)

SETTLE_MS = 50
"""Milliseconds without another change after which a save is over: editors write in steps."""


class Reloader:
    """Watches what the author's file consists of. `load` makes the catalog, and raises what the
    author's code raises."""

    def __init__(self, hub: Hub, load: Callable[[], Catalog], file: Path) -> None:
        self._hub = hub
        self._load = load
        self._file = file.resolve()

    async def run(self) -> None:
        """Watch and exchange until cancelled."""
        logging.getLogger("watchfiles").setLevel("WARNING")
        while True:
            folders = {self._file.parent, *(_file_of(m).parent for m in self._own().values())}
            async for changes in awatch(
                *folders, recursive=False, watch_filter=_is_python, step=SETTLE_MS,
                raise_interrupt=False,
            ):  # fmt: skip
                log.debug("changed: %s", sorted(path for _, path in changes))
                await self.reload()
                if not folders >= {_file_of(m).parent for m in self._own().values()}:
                    break  # there are modules in other folders now

    async def reload(self) -> bool:
        """Load the code anew and exchange it; whether that was possible."""
        begun = time.perf_counter()
        try:
            catalog = await anyio.to_thread.run_sync(self._load_anew)
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
            text = authors_traceback(error.__cause__ or error)
            log.error("the saved code cannot be loaded; the old goes on\n%s", text.rstrip())
            await self._hub.reloaded(time.perf_counter() - begun, text)
            return False
        await self._hub.front.swap(catalog)
        seconds = time.perf_counter() - begun
        log.info("reloaded in %.2f s", seconds)
        await self._hub.reloaded(seconds, "")
        return True

    def _load_anew(self) -> Catalog:
        importlib.invalidate_caches()
        linecache.checkcache()  # tracebacks quote the lines of now
        with _without(self._own()):
            return self._load()

    def _own(self) -> dict[str, ModuleType]:
        """The author's modules: those whose files lie beside the file or below."""
        folder = self._file.parent
        return {
            name: module
            for name, module in tuple(sys.modules.items())
            if name != "__main__" and _is_below(_file_of(module), folder)
        }


@contextmanager
def _without(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """These modules are not there meanwhile, so that they are loaded anew; back when that fails."""
    for name in modules:
        del sys.modules[name]
    try:
        yield
    except BaseException:
        sys.modules.update(modules)
        raise


def _file_of(module: ModuleType) -> Path:
    return Path(getattr(module, "__file__", None) or "/")


def _is_below(file: Path, folder: Path) -> bool:
    if not file.is_relative_to(folder):
        return False
    inner = file.relative_to(folder).parts
    return not any(part == "site-packages" or part.startswith(".") for part in inner)


def _is_python(change: Change, path: str) -> bool:
    return path.endswith(".py")
