"""Pictures of each part of a report, for the README: ``make screenshots OUT=folder-of-a-run``.

Few colours and few pixels: they show what a report looks like, and no more of the slides.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from ccrl_wsi.outputs.report.page import render_report
from tests.chromium import draw_everything, open_chromium
from tests.report_examples import made_up_report

DOCS = Path(__file__).parent
PARTS = {
    "overview": ("header, #overview", 900),
    "composition": ("#composition", 1085),
    "clusters": ("#clusters", 1330),
    "neighbours": ("#neighbourhoods", 700),
    "slides": ("#slides", 1900),
}
"""Name of the picture, what it shows, and how many pixels of height at most."""

WIDTH_PX = 1160
SHOWN_WIDTH_PX = 860
COLOURS = 256


def main(out: Path, target: Path) -> None:
    """Take a picture of every part that the report of ``out`` has, and of made-up groups."""
    with tempfile.TemporaryDirectory() as folder, open_chromium(Path(folder), WIDTH_PX) as driver:
        _open(driver, out / "report.html")
        for name, (selector, height) in PARTS.items():
            _take(driver, selector, height, target / f"report_{name}.png")
        made_up = Path(folder) / "made_up.html"
        content = made_up_report(40, 6, name="Made-up", n_pictures=1, n_crops=1)
        made_up.write_text(render_report(content), encoding="utf-8")
        _open(driver, made_up)
        _take(driver, "#groups", 800, target / "report_groups.png")


def _open(driver: Any, page: Path) -> None:
    driver.get(page.resolve().as_uri())
    # Cards and slides beyond the screen are drawn only when they are near.
    driver.execute_script(
        "document.head.insertAdjacentHTML('beforeend', '<style>html{scroll-behavior:auto!important}"
        "nav{position:static!important}.card,.slide{content-visibility:visible!important}</style>')"
    )
    draw_everything(driver)


def _take(driver: Any, selector: str, at_most_px: int, path: Path) -> None:
    """A picture of all elements that match ``selector``, from the top, if there are any."""
    box: dict[str, float] | None = driver.execute_script(
        """
        const found = [...document.querySelectorAll(arguments[0])];
        if (!found.length) return null;
        const boxes = found.map((element) => element.getBoundingClientRect());
        const top = Math.min(...boxes.map((box) => box.top)) + scrollY;
        return {top, height: Math.max(...boxes.map((box) => box.bottom)) + scrollY - top + 12};
        """,
        selector,
    )
    if box is None:
        print(f"{path}: the report has no such part")  # noqa: T201
        return
    height = round(min(box["height"], at_most_px))
    size = {"width": WIDTH_PX, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_script("scrollTo(0, arguments[0])", box["top"])
    time.sleep(1.5)
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    small = (SHOWN_WIDTH_PX, round(picture.height * SHOWN_WIDTH_PX / picture.width))
    picture = picture.resize(small, Image.Resampling.LANCZOS)
    # Small coloured things must keep their colours beside large pale ones.
    picture = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    picture.save(path, optimize=True)
    print(f"{path}: {small[0]} x {small[1]}, {path.stat().st_size / 1000:.0f} kB")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else DOCS)
