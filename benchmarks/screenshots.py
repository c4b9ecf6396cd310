"""Pictures of the demo's report and of the site, light and dark, by headless Chromium.

    make demo docs && python benchmarks/screenshots.py [--report FILE] [--site FILE] [-o docs/pictures]

Pages are opened as files; Chromium is told that there is no network. What a page says on the console is an error, but for notes
on speed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from headless import NAMES, SCHEMES, chromium, opened


def picture(browser: str, page: Path, target: Path, scheme: str, height: int) -> None:
    """Draw the top of a page into a PNG file."""
    options = (
        "--enable-unsafe-swiftshader", "--hide-scrollbars", f"--window-size=1280,{height}", f"--screenshot={target.resolve()}",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as profile:
        _, said = opened(browser, page, Path(profile), *options, scheme=scheme)
    if said:
        sys.exit(f"{page} says on the console: {said}")


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, default=Path("demo/report.html"))
    parser.add_argument("--site", type=Path, default=Path("build/site/index.html"))
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/pictures"))
    arguments = parser.parse_args()
    browser = chromium()
    if browser is None:
        sys.exit(f"there is no Chromium; expected one of {', '.join(NAMES)} on PATH; install it and try again")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, page, height in (("report", arguments.report, 1100), ("site", arguments.site, 900)):
        if not page.is_file():
            sys.exit(f"the page {page} does not exist; make it first: make demo docs")
        for scheme in SCHEMES:
            target = arguments.output / f"{name}-{scheme}.png"
            picture(browser, page, target, scheme, height)
            print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
