"""Builds the documentation site. scripts/site calls it."""

import sys
import time
from pathlib import Path

import llms
import pages
from sphinx.cmd.build import build_main

TARGET = pages.ROOT / "build" / "site"


def main(arguments: list[str]) -> int:
    """Build the site into build/site/html; returns the exit status."""
    begin = time.monotonic()
    here, source = Path(__file__).parent, TARGET / "source"
    pages.write(source)
    builder = "linkcheck" if "--links" in arguments else "html"
    status = build_main(
        ["-q", "-W", "--keep-going", "-j", "2", "-b", builder, "-c", str(here)]
        + ["-d", str(TARGET / "doctrees"), str(source), str(TARGET / builder)]
    )
    if status == 0 and builder == "html":
        llms.write(source, TARGET / "html")
        took = time.monotonic() - begin
        print(f"{TARGET / 'html' / 'index.html'} ({took:.0f} s)")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
