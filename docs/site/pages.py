"""Writes the folder from which Sphinx builds the site: the pages of the project as they are, with
links that lead within the site, and the pages that are made from the code.

README.md is the front page, and docs/index.md, which lists all pages, is the navigation. A link to
another file of the project (an example, a test) leads to a page with its text.
"""

import posixpath
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import api_reference
import error_messages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

FRONT = ROOT / "README.md"
RENAMED = {
    FRONT: "index.md",
    DOCS / "index.md": "contents.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "SECURITY.md": "security.md",
}
"""Pages that have another name in the site than in the project."""

LANGUAGES = {
    ".py": "python",
    ".go": "go",
    ".ts": "typescript",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".service": "ini",
}

LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
FENCE = re.compile(r"^(```.*?^```)$", re.M | re.S)


class Page(NamedTuple):
    """A page of the project."""

    file: Path
    """In the project."""
    name: str
    """In the site's source folder."""


def version() -> str:
    """The version of the project."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def project_pages() -> list[Page]:
    """All pages, the front page first."""
    found = [Page(file, name) for file, name in RENAMED.items()]
    plain = [file for file in sorted(DOCS.glob("*.md")) if file not in RENAMED]
    return found + [Page(file, file.name) for file in plain]


def write(target: Path) -> None:
    """Write the source folder of the site."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copytree(DOCS / "img", target / "img")
    for picture in DOCS.glob("*.svg"):
        shutil.copy(picture, target / picture.name)
    names = {page.file: page.name for page in project_pages()}
    shown: dict[Path, str] = {}
    for page in project_pages():
        text = with_links(page.file.read_text("utf-8"), page.file, names, shown)
        if page.file == FRONT:
            text = front_page(text, navigation())
        (target / page.name).write_text(text, "utf-8")
    for file, name in shown.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file_page(file), "utf-8")
    (target / "error-messages.md").write_text(error_messages.page(), "utf-8")
    api_reference.write(target / "api")


def with_links(text: str, file: Path, names: dict[Path, str], shown: dict[Path, str]) -> str:
    """The text with links that lead within the site. Files without a page are added to `shown`."""

    def link(match: re.Match[str]) -> str:
        address, _, anchor = match[1].partition("#")
        if "://" in address or not address:
            return match[1]
        found = (file.parent / address).resolve()
        if found.is_relative_to(DOCS) and found.suffix in (".png", ".webp", ".svg"):
            return found.relative_to(DOCS).as_posix()
        name = names.get(found)
        if name is None:
            name = shown.setdefault(found, f"source/{found.relative_to(ROOT).as_posix()}.md")
        return name + (f"#{anchor}" if anchor else "")

    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)


def navigation() -> Iterator[tuple[str, list[str]]]:
    """The groups of docs/index.md with their pages, in its order."""
    names = {page.file: page.name for page in project_pages()}
    for group in re.split(r"^## ", (DOCS / "index.md").read_text("utf-8"), flags=re.M)[1:]:
        caption, _, text = group.partition("\n")
        files = ((DOCS / link.partition("#")[0]).resolve() for link in LINK.findall(text))
        found = list(dict.fromkeys(names[file] for file in files if file in names))
        if caption == "Reference":
            found += ["api/index.rst", "error-messages.md"]
        if caption == "Project":
            found.append(names[DOCS / "index.md"])
        if found:
            yield caption, found


def front_page(text: str, groups: Iterator[tuple[str, list[str]]]) -> str:
    """The front page with the navigation, which only the side bar shows."""
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n"
        + "\n".join(posixpath.splitext(name)[0] for name in names)
        + "\n```\n"
        for caption, names in groups
    ]
    return "---\nhide-toc: true\n---\n" + text + "\n" + "\n".join(trees)


def file_page(file: Path) -> str:
    """A page with the text of a file, or with the files of a folder."""
    files = sorted(f for f in file.rglob("*") if f.is_file()) if file.is_dir() else [file]
    head = f"---\norphan: true\n---\n# {file.relative_to(ROOT).as_posix()}\n"
    if files == [file] and file.suffix == ".md":
        return f"---\norphan: true\n---\n{file.read_text('utf-8')}"
    parts = []
    for each in files:
        if len(files) > 1:
            parts.append(f"## {each.relative_to(file).as_posix()}\n")
        language = LANGUAGES.get(each.suffix, "text")
        parts.append(f"`````{language}\n{each.read_text('utf-8')}\n`````\n")
    return head + "\n" + "\n".join(parts)
