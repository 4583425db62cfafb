"""llms.txt, a list of the pages for assistants, and llms-full.txt, the text of all of them.

The form is that of llmstxt.org: a title, a sentence, and sections with links.
"""

import re
from pathlib import Path

import pages


def write(source: Path, target: Path) -> None:
    """Write both files into the folder of the site."""
    readme = (source / "index.md").read_text("utf-8")
    summary = next(p for p in body(readme).split("\n\n")[1:] if not p.startswith(("#", "|", "!")))
    index = [f"# aiostream_ds\n\n> {' '.join(summary.split())}\n"]
    full = [body(readme)]
    for caption, names in pages.navigation():
        index.append(f"\n## {caption}\n")
        for name in names:
            if not name.endswith(".md"):
                continue
            text = body((source / name).read_text("utf-8"))
            title = text.splitlines()[0].lstrip("# ")
            index.append(f"- [{title}]({name.removesuffix('.md')}.html)")
            if name != "error-messages.md":
                full.append(text)
    (target / "llms.txt").write_text("\n".join(index) + "\n", "utf-8")
    (target / "llms-full.txt").write_text("\n\n".join(full) + "\n", "utf-8")


def body(text: str) -> str:
    """A page without what only the site needs."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
    text = re.sub(r"^```\{toctree\}.*?^```\n", "", text, flags=re.M | re.S)
    return re.sub(r"^<!--.*?-->\n", "", text, flags=re.M | re.S).strip()
