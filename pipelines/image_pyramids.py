"""`ccrl-wsi pyramid`: plain images as slides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ccrl_wsi.datasets.image_files import read_rgb
from ccrl_wsi.errors import CcrlError, ConfigError
from ccrl_wsi.slides.pyramid import write_pyramid
from pipelines.output_folder import check_writable


def make_pyramids(images: Sequence[Path], out: Path, mpp: float) -> tuple[list[Path], list[str]]:
    """Write each image as tiled TIFF in levels below ``out``, every pixel as it is.

    An image is held in memory as a whole, three bytes a pixel and a third more.

    Returns
    -------
    written, problems
        The files, and a sentence for each image that cannot be used.

    Raises
    ------
    ConfigError
        If two images would be one file, an image would be written over, or ``out`` cannot be
        written.
    """
    targets = {image: out / f"{image.stem}.tif" for image in images}
    names = [target.resolve() for target in targets.values()]
    for image, name in zip(targets, names, strict=True):
        if names.count(name) > 1 or name in {other.resolve() for other in targets}:
            raise ConfigError(
                f"{image} would be written to {targets[image]}, which is another image's place or "
                "its own. Give another folder with -o, or rename it."
            )
    check_writable(out)
    written, problems = [], []
    for image, target in targets.items():
        try:
            write_pyramid(target, read_rgb(image), mpp)
            written.append(target)
        except CcrlError as error:
            problems.append(str(error))
        except Image.DecompressionBombError:
            problems.append(
                f"{image} is too large to be read at once. `vips tiffsave {image} {target} --tile "
                "--pyramid --compression jpeg` does it in pieces; give slides.mpp to `run` then."
            )
    return written, problems
