"""README and docs: their Python runs, their tables are up to date, and all links and files exist.

The ```python blocks of a page are executed in their order, in one module for each page. After each
block its new `test_…` functions are run, so that a stream that a page shows is really followed.
`<!-- file: PATH -->` above a block: the block equals that file, byte for byte.
"""

import importlib
import importlib.util
import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple
from urllib.parse import unquote

import pytest
from msgspec import Struct

import aiostream_ds
from aiostream_ds._channels import policy
from aiostream_ds.cli import main as command_line
from tests.requirements import require

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "aiostream_ds"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])

_BLOCK = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n+)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """One fenced block: its kind, its text, the line of its first line, the file that it is."""

    kind: str
    text: str
    line: int
    file: str | None


def blocks(text: str, kind: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        if found["kind"] == kind:
            line = text.count("\n", 0, found.start("text")) + 1
            yield Block(kind, found["text"], line, found["file"])


def pages_with(kind: str) -> list[Path]:
    return [page for page in PAGES if any(blocks(page.read_text("utf-8"), kind))]


@pytest.fixture(scope="module", autouse=True)
def arrow():
    """Its import takes longer than a page's code."""
    importlib.import_module("pyarrow")


@pytest.fixture
def module(request):
    """An empty module that annotations of the page's classes can be resolved in."""
    module = ModuleType(f"page_{request.node.callspec.id.partition('.')[0]}")
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


@pytest.mark.slow
@pytest.mark.virtual
@pytest.mark.parametrize(
    "page", pages_with("python"), ids=[page.name for page in pages_with("python")]
)
async def test_the_python_of_a_page_runs(page, module):
    for library in ("pandas", "polars", "duckdb"):
        if re.search(rf"^import {library}\b", page.read_text("utf-8"), re.M):
            require(library, importlib.util.find_spec(library) is not None, f"{library} is missing")
    names = vars(module)
    for block in blocks(page.read_text("utf-8"), "python"):
        before = set(names)
        source = "\n" * (block.line - 1) + block.text  # tracebacks name the page's own lines
        exec(compile(source, str(page), "exec"), names)
        for name in [n for n in names if n not in before and n.startswith("test_")]:
            result = names[name]()
            if inspect.isawaitable(result):
                await result


@EACH_PAGE
def test_a_block_that_is_a_file_is_that_file(page):
    for block in blocks(page.read_text("utf-8"), "python"):
        if block.file is not None:
            assert block.text == (ROOT / block.file).read_text("utf-8")


def test_the_readme_shows_the_clock():
    text = (ROOT / "README.md").read_text("utf-8")
    assert "examples/clock.py" in [block.file for block in blocks(text, "python")]


@EACH_PAGE
def test_every_link_within_the_project_leads_somewhere(page):
    for link in _LINK.findall(page.read_text("utf-8")):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = (page.parent / unquote(target)).resolve() if target else page
        assert path.exists(), f"{page.name} links to {link}"
        if anchor and path.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.M)
            assert anchor in map(slug, heads), f"{page.name} links to {link}"


def test_every_page_is_in_the_list_of_pages():
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    listed = {(ROOT / "docs" / link.partition("#")[0]).resolve() for link in _LINK.findall(text)}
    pages = {page for page in PAGES if page.name not in ("index.md", "CODE_OF_CONDUCT.md")}
    assert pages - listed == {ROOT / "README.md"}


@EACH_PAGE
def test_a_test_that_a_page_names_as_a_proof_exists(page):
    for name, target in re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", page.read_text("utf-8")):
        assert f"def {name}(" in (page.parent / target).read_text("utf-8"), f"{page.name}: {name}"


@EACH_PAGE
def test_a_metric_that_a_page_names_exists(page):
    known = {row[0].strip("`") for row in behaviour().metrics()}
    for name in re.findall(r"\baiostream_ds_\w+", page.read_text("utf-8")):
        assert name in known or any(metric.startswith(name) for metric in known), name


def slug(head: str) -> str:
    return re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")


@EACH_PAGE
def test_every_file_of_the_project_that_a_page_names_exists(page):
    for name in re.findall(r"`((?:\./)?[\w./-]+)`", page.read_text("utf-8")):
        first = name.removeprefix("./").split("/")[0]
        if first in ("scripts", "docs", "tests", "examples", "protos", "frontend", "src"):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
        elif "/" in name and (PACKAGE / first).is_dir() and name.endswith(".py"):
            assert (PACKAGE / name).is_file(), f"{page.name} names {name}"


@EACH_PAGE
def test_the_commands_of_a_page_exist(page, capsys):
    text = page.read_text("utf-8")
    words = [line.split() for block in blocks(text, "sh") for line in block.text.splitlines()]
    for line in words:
        if line[:1] == ["aiostream-ds"]:
            with pytest.raises(SystemExit) as end:
                command_line([line[1], "--help"])
            assert end.value.code == 0, f"{page.name}: {line}"
            options = {word.partition("=")[0] for word in line if word.startswith("--")}
            assert options <= set(capsys.readouterr().out.replace(",", " ").split())
        elif line and "scripts/" in line[0]:
            assert (ROOT / line[0]).is_file(), f"{page.name}: {line}"


@EACH_PAGE
def test_a_name_that_a_page_imports_from_the_package_is_public(page):
    for block in blocks(page.read_text("utf-8"), "python"):
        for names in re.findall(
            r"^from aiostream_ds import (\(.*?\)|.+?)$", block.text, re.M | re.S
        ):
            for name in re.findall(r"\w+", names):
                assert name in aiostream_ds.__all__


# The tables that are made from the code


def behaviour() -> ModuleType:
    spec = importlib.util.spec_from_file_location("behaviour", ROOT / "scripts" / "behaviour.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_tables_of_the_documentation_are_fresh():
    assert behaviour().main(["--check"]) == 0


@pytest.mark.slow
def test_a_stale_table_is_reported_and_can_be_written_again(tmp_path, capsys):
    script = behaviour()
    (tmp_path / "docs").mkdir()
    for name in script.PAGES:
        shutil.copy(ROOT / name, tmp_path / name)
    page = tmp_path / "docs" / "behaviour.md"
    fresh = page.read_text("utf-8")
    page.write_text(fresh.replace("| 10,000 |", "| 10,001 |"), "utf-8")
    assert script.main(["--check"], tmp_path) == 1
    assert "docs/behaviour.md" in capsys.readouterr().err
    assert script.main([], tmp_path) == 0
    assert page.read_text("utf-8") == fresh


@pytest.mark.slow
def test_every_number_of_the_code_stands_in_the_documentation():
    script = behaviour()
    text = (ROOT / "docs" / "behaviour.md").read_text("utf-8")
    places = re.findall(r"<!-- table: constants (.+?) -->", text)[0].split()
    found = {row[0] for row in [*script.policy("_channels/policy"), *script.constants(*places)]}
    assert {name for name in found if name not in text} == set()


def test_every_constant_and_field_of_the_policies_has_a_one_line_description():
    lines = {line.name: line for line in behaviour().described(policy)}
    structs = [kind for kind in vars(policy).values() if isinstance(kind, type)]
    structs = [k for k in structs if issubclass(k, Struct) and k.__module__ == policy.__name__]
    constants = {name for name in vars(policy) if name.isupper() and not name.startswith("_")}
    fields = {f"{owner.__name__}.{name}" for owner in structs for name in owner.__struct_fields__}
    assert set(lines) == constants | fields
    assert lines["Buffer.rows"].default == 10_000 and lines["CLOSE_TIMEOUT"].default == 1.0
    for line in lines.values():
        assert line.description.endswith(".") and "\n" not in line.description
