"""The built site: each link leads somewhere, and nothing is loaded from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """The ids, the links and what is loaded by a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("img", "script", "iframe", "source") and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(values["href"])


@pytest.fixture
def pages(site) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html")}


def test_every_link_within_the_site_leads_somewhere(pages):
    missing = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            anchor = unquote(parts.fragment)
            if not target.is_file():
                missing.append(f"{file.name}: {link}")
            elif anchor and target in pages and anchor not in pages[target].ids:
                missing.append(f"{file.name}: {link}")
    assert missing == []


def test_pages_load_nothing_from_another_site(pages):
    for file, page in pages.items():
        for address in page.loaded:
            assert not urlsplit(address).netloc, f"{file.name} loads {address}"
            path = unquote(urlsplit(address).path)
            assert (file.parent / path).resolve().is_file(), f"{file.name} loads {address}"


def test_each_page_of_the_project_is_in_the_side_bar(site, pages):
    front = pages[site / "index.html"]
    docs = Path(__file__).parents[2] / "docs"
    names = {page.stem for page in docs.glob("*.md")} - {"index"}
    assert {f"{name}.html" for name in names} <= set(front.links)
    assert {"contents.html", "changelog.html", "api/index.html", "error-messages.html"} <= set(
        front.links
    )


def test_assistants_get_a_list_of_the_pages_and_their_text(site):
    index = (site / "llms.txt").read_text("utf-8")
    assert index.startswith("# aiostream_ds\n\n> Live data in Grafana")
    assert "[Tutorial: a random walk](tutorial.html)" in index
    text = (site / "llms-full.txt").read_text("utf-8")
    assert "class Clock(DataSource):" in text and "# Guarantees and their proofs" in text
    assert "{toctree}" not in text and "<!--" not in text


def test_the_api_has_each_public_name_with_its_errors(site):
    import aiostream_ds

    text = "".join(page.read_text("utf-8") for page in (site / "api").glob("*.html"))
    for name in aiostream_ds.__all__:
        if name not in ("Meta", "Table"):  # of msgspec, and a union
            assert f'id="aiostream_ds.{name}"' in text, name
    assert "Raises" in text


@pytest.mark.parametrize("picture", ["console.webp", "dashboard.png"])
def test_the_front_page_shows_pictures(pages, site, picture):
    assert any(address.endswith(picture) for address in pages[site / "index.html"].loaded)
