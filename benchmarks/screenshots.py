"""Pictures of the demo's report and of the site, light and dark, by headless Chromium.

    make demo docs && python benchmarks/screenshots.py [--report FILE] [--site FILE] [-o docs/pictures]

Pages are opened as files; Chromium is told that there is no network. What a page says on the console is an error, but for notes
on speed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCHEMES = {"dark": 0, "light": 1}
"""As Blink numbers them."""


def chromium() -> str:
    """Return the browser's path; without one, end with a sentence."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        sys.exit(f"there is no Chromium; expected one of {', '.join(NAMES)} on PATH; install it and try again")
    return found


def picture(page: Path, target: Path, scheme: str, width: int, height: int) -> None:
    """Draw the top of a page into a PNG file."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium(),
            "--headless=new",
            "--no-sandbox",
            "--enable-unsafe-swiftshader",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
            f"--window-size={width},{height}",
            "--virtual-time-budget=8000",
            f"--screenshot={target.resolve()}",
            page.resolve().as_uri(),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    said = [line for line in re.findall(r":CONSOLE[^\]]*\] \"(.*)\", source", done.stderr) if "Performance" not in line]
    if said:
        sys.exit(f"{page} says on the console: {said}")


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, default=Path("demo/report.html"))
    parser.add_argument("--site", type=Path, default=Path("build/site/index.html"))
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/pictures"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, page, height in (("report", arguments.report, 1100), ("site", arguments.site, 900)):
        if not page.is_file():
            sys.exit(f"the page {page} does not exist; make it first: make demo docs")
        for scheme in SCHEMES:
            target = arguments.output / f"{name}-{scheme}.png"
            picture(page, target, scheme, 1280, height)
            print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
