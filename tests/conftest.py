"""Virtual time for tests with `@pytest.mark.virtual`, and checks that tests leave no tasks.

A virtual test runs on an event loop whose clock jumps instead of waiting, and may not block that
loop. No async test may leave a task.
"""

import asyncio
import gc
import inspect
import logging
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx

from aiostream_ds import _loggers
from aiostream_ds.testing.virtual_loop import VirtualLoop
from tests import strategies  # noqa: F401  (loads Hypothesis' profile before tests are collected)

_ITERATIONS = 20  # of the event loop, in which cancelled tasks may end


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="play more random schedules of exact streams"
    )


def _let_children_get_signals() -> None:
    """Under nohup, and in a background job of a shell, signals are ignored. Processes inherit
    that, and the runtime respects it; but tests send signals to those that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # ignored here only: a new program begins with the default of what has a handler
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def pytest_configure(config: pytest.Config) -> None:
    _let_children_get_signals()
    gc.disable()  # until the tests are collected
    config.addinivalue_line("markers", "virtual: the test runs in virtual time")
    config.addinivalue_line(
        "markers", "diagonal: each parameter's values once in the fast loop, all combinations slow"
    )


def pytest_collection_finish() -> None:
    # what was imported and collected never goes away: the garbage collector need not visit it
    gc.freeze()
    gc.enable()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual") is not None:
        return {"virtual": VirtualLoop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make combinations of parameters slow that are not on the diagonal of a test."""
    tests: dict[object, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("diagonal") is not None:
            tests.setdefault(item.function, []).append(item)
    for combinations in tests.values():
        ids = [item.callspec._idlist for item in combinations]  # one of each decorator
        values = [list(dict.fromkeys(column)) for column in zip(*ids, strict=True)]
        longest = max(range(len(values)), key=lambda n: len(values[n]))
        for item, each in zip(combinations, ids, strict=True):
            row = values[longest].index(each[longest])
            if any(each[n] != column[row % len(column)] for n, column in enumerate(values)):
                item.add_marker("slow")


@pytest.hookimpl(tryfirst=True, specname="pytest_collection_modifyitems")
def group_by_file(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--dist loadgroup` one process runs the tests of a file, and starts its servers once;
    those of `packaging` use the same packages."""
    for item in items:
        path = item.path.relative_to(config.rootpath)
        group = path.parent if path.parent.name == "packaging" else path
        item.add_marker(pytest.mark.xdist_group(str(group)))


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
        if "nothing_left" not in item.fixturenames:
            item.fixturenames.insert(0, "nothing_left")


@pytest.fixture(autouse=True)
def logging_is_restored() -> Iterator[None]:
    """Restore the root logger: `_telemetry.configure` in one test must not change the next."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        _loggers.remove_handler(handler)
    _loggers._handlers.clear()
    _loggers.set_level("NOTSET")
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest_asyncio.fixture
async def nothing_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    if request.node.get_closest_marker("virtual") is not None:
        with blockbuster_ctx("aiostream_ds"):
            yield
    else:
        yield
    for _ in range(_ITERATIONS):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail(f"the test left {len(left)} tasks: " + "\n".join(map(repr, left)))
