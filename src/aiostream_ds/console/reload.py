"""Reloads the author's code when a file is saved.

A reload imports the author's file again, with every module in its folder and below; installed
packages stay. When the new code cannot be loaded, the old code keeps running, and the page and the
log show the traceback.
"""

import importlib
import linecache
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

import anyio
import anyio.to_thread
from watchfiles import Change, awatch

from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._loggers import get_logger
from aiostream_ds._telemetry import author_traceback
from aiostream_ds.console.hub import Hub

__all__ = ["Reloader"]

log = get_logger(__name__)

DEBOUNCE_MS = 50
"""Milliseconds without another change before a reload: editors save in several steps."""

_COMPARED_MS = 1_000
"""Milliseconds between two comparisons of the files with those that were loaded. The operating
system reports only what is saved after it has begun to watch."""


class Reloader:
    """Watches the author's file and the modules it imports, and reloads them.

    `load` imports the file and returns its catalog; it raises what the author's code raises. What
    is saved from now on is loaded, also before `run`.
    """

    def __init__(self, hub: Hub, load: Callable[[], Catalog], file: Path) -> None:
        self._hub = hub
        self._load = load
        self._file = file.resolve()
        self._loaded = self._versions()

    async def run(self) -> None:
        """Watch and reload until cancelled."""
        logging.getLogger("watchfiles").setLevel("WARNING")
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_set_at_end, stop)
            await self._watch(stop)

    async def _watch(self, stop: anyio.Event) -> None:
        while True:
            folders = self._folders()
            async for changes in awatch(
                *folders,
                recursive=False,
                watch_filter=_is_python,
                step=DEBOUNCE_MS,
                stop_event=stop,  # its thread looks at this, but not at a cancellation
                rust_timeout=_COMPARED_MS,
                yield_on_timeout=True,
            ):
                if not changes and not self._is_changed():
                    continue
                log.debug("changed: %s", sorted(path for _, path in changes))
                await self.reload()
                if not folders >= self._folders():
                    break  # the new code imports modules from other folders

    async def reload(self) -> bool:
        """Load the code again and replace the old. Return whether that succeeded."""
        start = time.perf_counter()
        versions = self._versions()  # before the load: what is saved meanwhile differs
        try:
            catalog = await anyio.to_thread.run_sync(self._load_again)
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
            text = author_traceback(error.__cause__ or error)
            log.error("cannot load the saved code; the old code keeps running\n%s", text.rstrip())
            await self._hub.report_reload(time.perf_counter() - start, text)
            return False
        finally:
            self._loaded = self._versions() | versions
        await self._hub.plugin.replace_code(catalog)
        seconds = time.perf_counter() - start
        log.info("reloaded in %.2f s", seconds)
        await self._hub.report_reload(seconds, "")
        return True

    def _load_again(self) -> Catalog:
        importlib.invalidate_caches()
        linecache.checkcache()  # tracebacks quote the current lines
        with _unloaded(self._modules()):
            return self._load()

    def _modules(self) -> dict[str, ModuleType]:
        """The author's modules: those whose files are in the file's folder or below."""
        folder = self._file.parent
        return {
            name: module
            for name, module in tuple(sys.modules.items())
            if name != "__main__" and _is_below(_file_of(module), folder)
        }

    def _versions(self) -> dict[Path, tuple[int, int]]:
        """Time and size of the author's files that exist."""
        found = {}
        for path in {self._file, *map(_file_of, self._modules().values())}:
            with suppress(OSError):
                stat = path.stat()
                found[path] = stat.st_mtime_ns, stat.st_size
        return found

    def _is_changed(self) -> bool:
        """Whether a file is another one than that which was loaded."""
        versions = self._versions()
        self._loaded = versions | self._loaded  # with modules that were imported since then
        return any(self._loaded[path] != version for path, version in versions.items())

    def _folders(self) -> set[Path]:
        return {self._file.parent, *(_file_of(m).parent for m in self._modules().values())}


async def _set_at_end(stop: anyio.Event) -> None:
    """Set the event when the task is cancelled."""
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


@contextmanager
def _unloaded(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Remove these modules, so that an import loads them again; restore them on an error."""
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
