"""A cohort of 200 small slides of which ten are broken in ten ways: 190 finish, ten are explained.

python benchmarks/broken_cohort.py             # about three minutes
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from chaos import draw_cohort
from measured import Table
from PIL import Image

from ccrl_wsi.config import Settings, load_settings

SETTINGS = (
    "nuclei.segmenter=watershed",
    "embedding.encoder=morphology",
    "tiles.mpp=0.5",
    "tiles.core_px=256",
    "clusters.k=4",
    "clusters.n_init=2",
    "report.make=false",
)


def _missing(path: Path, whole: Path) -> None:
    """There is no such file."""


def _empty(path: Path, whole: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path, whole: Path) -> None:
    path.write_bytes(b"these are no pixels" * 500)


def _folder(path: Path, whole: Path) -> None:
    path.mkdir()


def _cut_short(path: Path, whole: Path) -> None:
    content = whole.read_bytes()
    path.write_bytes(content[: len(content) // 3])


def _picture(path: Path, whole: Path) -> None:
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(path, format="PNG")


def _spoilt_tile(path: Path, whole: Path) -> None:
    shutil.copy(whole, path)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        middle = len(page.dataoffsets) // 2
        offset, size = page.dataoffsets[middle], page.databytecounts[middle]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(size))


def _write(path: Path, whole: Path, **tags: object) -> None:
    with tifffile.TiffFile(whole) as tiff:
        rgb = tiff.pages[0].asarray()
    tifffile.imwrite(path, rgb, tile=(64, 64), photometric="rgb", compression="zlib", **tags)


def _without_pixel_size(path: Path, whole: Path) -> None:
    _write(path, whole, resolutionunit="NONE")


def _huge_pixels(path: Path, whole: Path) -> None:
    _write(path, whole, resolution=(10.0, 10.0), resolutionunit="CENTIMETER")


def _oblong_pixels(path: Path, whole: Path) -> None:
    _write(path, whole, resolution=(20000.0, 10000.0), resolutionunit="CENTIMETER")


WAYS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "missing": (_missing, "There is no file"),
    "empty": (_empty, "is not a slide that OpenSlide can read"),
    "garbage": (_garbage, "is not a slide that OpenSlide can read"),
    "folder": (_folder, "is a folder, not a slide"),
    "cut_short": (_cut_short, "cut_short"),
    "picture": (_picture, "is not a slide that OpenSlide can read"),
    "spoilt_tile": (_spoilt_tile, "cannot be decoded at x="),
    "without_pixel_size": (_without_pixel_size, "stores no pixel size"),
    "huge_pixels": (_huge_pixels, "gives a pixel size of 1000 um"),
    "oblong_pixels": (_oblong_pixels, "stores pixels that are not square"),
}
"""By name: what breaks a slide, and words that explain it."""


def break_slides(folder: Path, whole: Path) -> dict[str, Path]:
    """One slide for each of :data:`WAYS`, made of the sound one ``whole``."""
    paths = {name: folder / f"{name}.tif" for name in WAYS}
    for name, path in paths.items():
        WAYS[name][0](path, whole)
    return paths


def unexplained(out: Path) -> list[str]:
    """Names of broken slides for which ``failures.csv`` does not say what is wrong with them."""
    with (out / "failures.csv").open(newline="", encoding="utf-8") as file:
        said = {row["slide_id"]: row["message"] for row in csv.DictReader(file)}
    unknown = [name for name in said if name not in WAYS]
    return unknown + [name for name, (_, words) in WAYS.items() if words not in said.get(name, "")]


def run(slides: list[Path], out: Path, settings: Settings) -> int:
    """The job on two Dask workers; its exit code."""
    from ccrl_wsi.slides.slide_list import list_slides
    from pipelines.machines import LocalMachine
    from pipelines.run import run_cohort

    machine = LocalMachine(workers=2)
    return run_cohort(list_slides([str(s) for s in slides]), out, settings, machine).exit_code


def main() -> None:
    """Draw, break, run, run again, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=190, help="sound ones")
    n_sound = parser.parse_args().slides
    table = Table("a cohort with broken slides", ("run", "finished", "failed", "unexplained", "s"))
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "slides", Path(name) / "out"
        sound = draw_cohort(folder, n_sound)
        broken = list(break_slides(folder, sound[0]).values())
        # Between the others, not at the end.
        slides = [*sound[: n_sound // 2], *broken, *sound[n_sound // 2 :]]
        settings = load_settings(overrides=SETTINGS)
        for title in ("first", "again"):
            began = time.monotonic()
            code = run(slides, out, settings)
            seconds = time.monotonic() - began
            n_finished = len(list((out / "state").glob("*.json")))
            assert code == 1
            n_failed = len((out / "failures.csv").read_text().splitlines()) - 1
            table.row(title, n_finished, n_failed, len(unexplained(out)), seconds)
    table.publish("broken_cohort")


if __name__ == "__main__":
    main()
