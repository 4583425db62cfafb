"""Virtual time for tests with `@pytest.mark.virtual`, and checks that tests leave no tasks.

A virtual test runs on an event loop whose clock jumps instead of waiting, and may not block that
loop. No async test may leave a task.
"""

import asyncio
import gc
import inspect
import logging
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from aiostream_ds import _loggers
from aiostream_ds.testing.virtual_loop import VirtualLoop
from tests import strategies  # noqa: F401  (loads Hypothesis' profile before tests are collected)
from tests.file_shares import find_files, is_of_another_process
from tests.hangs import (
    end_callbacks,
    end_tasks,
    pytest_runtest_makereport,  # noqa: F401  (a hook)
    pytest_runtest_teardown,  # noqa: F401
    pytest_timeout_set_timer,  # noqa: F401
    pytest_unconfigure,  # noqa: F401
    renew,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="play more random schedules of exact streams"
    )
    parser.addoption(
        "--split-files",
        action="store_true",
        help="with -n N --dist each: each process imports and runs its own files",
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


_MODULES_MARKERS = re.compile(r"^pytestmark = .*(?:\n[ \])].*)*", re.M)
_MARKER = re.compile(r"pytest\.\w+\.(\w+)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files of whose tests none is selected, as in the fast loop."""
    left_out = {
        word.removeprefix("not ")
        for word in config.option.markexpr.split(" and ")
        if word.startswith("not ") and "(" not in word
    }
    if collection_path.is_dir():
        files = find_files(collection_path)
    else:
        files = [collection_path] if collection_path.match("test_*.py") else []

    def is_left_out(file: Path) -> bool:
        return _is_of_another_process(file, config) or bool(_markers(file) & left_out)

    return (bool(files) and all(map(is_left_out, files))) or None


def _is_of_another_process(file: Path, config: pytest.Config) -> bool:
    if not config.option.split_files:
        return False
    return is_of_another_process(file, config.rootpath / "tests")


@cache
def _markers(file: Path) -> set[str]:
    """The markers of all tests in a file."""
    found = _MODULES_MARKERS.search(file.read_text("utf-8"))
    return set(_MARKER.findall(found[0])) if found else set()


def pytest_collection_finish() -> None:
    # what was imported and collected never goes away: the garbage collector need not visit it
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # a tenth of the time of all tests
    gc.enable()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual") is not None:
        return {"virtual": VirtualLoop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.hookimpl(tryfirst=True, specname="pytest_collection_modifyitems")
def keep_own_files(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that the command line names are imported by each process."""
    items[:] = [item for item in items if not _is_of_another_process(item.path, config)]


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
    those of `packaging` use the same packages. A test may have a group of its own."""
    for item in items:
        if item.get_closest_marker("xdist_group") is not None:
            continue
        path = item.path.relative_to(config.rootpath)
        group = path.parent if path.parent.name == "packaging" else path
        item.add_marker(pytest.mark.xdist_group(str(group)))


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
        if "nothing_left" not in item.fixturenames:
            item.fixturenames.insert(0, "nothing_left")


class _BlockingCheck:
    """Whether blocking calls in an event loop are errors. To switch takes 2 ms: it stays as it is
    between tests that want the same."""

    def __init__(self) -> None:
        self._calls = BlockBuster("aiostream_ds")
        write = self._calls.functions["io.TextIOWrapper.write"]
        write.can_block_in("pytest_timeout.py", "timeout_sigalrm")  # stacks of a test that hangs
        self._is_active = False

    def switch(self, is_active: bool) -> None:
        if is_active and not self._is_active:
            self._calls.activate()
        elif self._is_active and not is_active:
            self._calls.deactivate()
        self._is_active = is_active


_blocking_check = _BlockingCheck()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _blocking_check.switch(item.get_closest_marker("virtual") is not None)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Restore the root logger: `_telemetry.configure` in one test must not change the next. No
    fixture: that would take a quarter of a millisecond for each test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        return (yield)
    finally:
        for handler in root.handlers[:]:
            _loggers.remove_handler(handler)
        _loggers._handlers.clear()
        _loggers.set_level("NOTSET")
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)


@pytest.fixture
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Not async: that would take a millisecond for each test."""
    runner = request.getfixturevalue(f"_{request.node._loop_scope}_scoped_runner")
    loop = runner.get_loop()
    before = asyncio.all_tasks(loop)
    yield
    left = end_tasks(loop, before) + end_callbacks(loop)
    renew(loop)
    if left:
        pytest.fail(left)
