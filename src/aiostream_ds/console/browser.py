"""Opens the console's page in the user's browser, if there is one."""

import os
import sys
import webbrowser

import anyio.to_thread

__all__ = ["has_display", "open_browser"]


async def open_browser(url: str) -> None:
    """Open a page, in a thread: starting a browser can take seconds."""
    await anyio.to_thread.run_sync(webbrowser.open, url)


def has_display() -> bool:
    """Whether the user would see a browser: there is a display, and a terminal on it."""
    display = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return display and sys.stdout.isatty()
