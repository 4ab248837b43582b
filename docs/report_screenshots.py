"""Pictures of each part of a report, for the README: ``make screenshots OUT=folder-of-a-run``.

They are small: no cell can be told from them that is not shown large on purpose.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from tests.chromium import draw_everything, open_chromium

DOCS = Path(__file__).parent
PARTS = {
    "overview": ("header, #overview", 1400),
    "composition": ("#composition", 1500),
    "clusters": ("#clusters", 1500),
    "neighbours": ("#neighbourhoods", 1000),
    "slides": ("#slides", 1500),
    "groups": ("#groups", 1300),
}
"""Name of the picture, what it shows, and how many pixels of height at most."""

WIDTH_PX = 1160
SHOWN_WIDTH_PX = 900
COLOURS = 128


def main(out: Path, target: Path) -> None:
    """Take a picture of every part that the report of ``out`` has."""
    with tempfile.TemporaryDirectory() as folder, open_chromium(Path(folder), WIDTH_PX) as driver:
        driver.get((out / "report.html").resolve().as_uri())
        draw_everything(driver)
        # Cards and slides beyond the screen are drawn only when they are near.
        driver.execute_script(
            "document.head.insertAdjacentHTML('beforeend',"
            " '<style>nav{position:static!important}"
            ".card,.slide{content-visibility:visible!important}</style>')"
        )
        for name, (selector, height) in PARTS.items():
            box = _box(driver, selector)
            if box is None:
                continue
            picture = _shot(driver, {**box, "height": min(box["height"], height)})
            path = target / f"report_{name}.png"
            _small(picture).save(path, optimize=True)
            print(f"{path}: {picture.size}, {path.stat().st_size / 1000:.0f} kB")  # noqa: T201


def _box(driver: Any, selector: str) -> dict[str, float] | None:
    """The rectangle of all elements that match, in pixels of the page."""
    found: dict[str, float] | None = driver.execute_script(
        """
        const found = [...document.querySelectorAll(arguments[0])];
        if (!found.length) return null;
        const boxes = found.map((element) => element.getBoundingClientRect());
        const top = Math.min(...boxes.map((box) => box.top));
        const bottom = Math.max(...boxes.map((box) => box.bottom));
        const width = document.documentElement.clientWidth;
        return {x: 0, y: top + scrollY, width, height: bottom - top + 12};
        """,
        selector,
    )
    return found


def _shot(driver: Any, box: dict[str, float]) -> Image.Image:
    told = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"clip": {**box, "scale": 1}, "captureBeyondViewport": True}
    )
    return Image.open(io.BytesIO(base64.b64decode(told["data"]))).convert("RGB")


def _small(picture: Image.Image) -> Image.Image:
    height = round(picture.height * SHOWN_WIDTH_PX / picture.width)
    return picture.resize((SHOWN_WIDTH_PX, height), Image.Resampling.LANCZOS).quantize(COLOURS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else DOCS)
