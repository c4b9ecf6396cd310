"""A page in headless Chromium, which is told that there is no network."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCHEMES = {"dark": 0, "light": 1}
"""As Blink numbers them."""


def chromium() -> str | None:
    """Return the browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def opened(browser: str, page: Path, profile: Path, *options: str, scheme: str = "light") -> tuple[str, list[str]]:
    """Return what the browser prints once the page's scripts have run, and what they said on the console but notes on speed.

    Parameters
    ----------
    browser, page, profile
        The program, a file, and the folder of the browser's settings.
    options
        More of its options, as ``--dump-dom``.
    scheme
        ``light`` or ``dark``: what the page is told of the reader's wish.
    """
    command = [
        browser, "--headless=new", "--no-sandbox", f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr", "--virtual-time-budget=8000", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        *options, page.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    console = re.findall(r":CONSOLE[^\]]*\] \"(.*)\", source", done.stderr)
    return done.stdout, [line for line in console if "Performance" not in line]
