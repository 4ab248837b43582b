"""From any source of nuclei to the crops that are trained on: reading, cutting, remembering."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.cell_identity import CELLS_VERSION
from ccrl_wsi.crop_set import UNLABELLED, CropSet
from ccrl_wsi.crops.cache import load_crop_set, save_crop_set
from ccrl_wsi.crops.cut import crop_windows, cut_crops
from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.datasets.consep import FOLDERS, read_consep
from ccrl_wsi.datasets.crc import CLASSES as CRC_CLASSES
from ccrl_wsi.datasets.crc import MPP as CRC_MPP
from ccrl_wsi.datasets.crc import PointImage, read_crc, windows_around
from ccrl_wsi.datasets.label_maps import read_label_maps
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.datasets.nucls import read_nucls
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.nuclei.boundary_shapes import measure_boundaries
from ccrl_wsi.nuclei.measurements import measure
from ccrl_wsi.nuclei.outlines import trace_outlines
from ccrl_wsi.nuclei.regions import find_regions
from pipelines.kept_crops import gather_kept_crops, kept_cells

log = logging.getLogger("ccrl_wsi")

CROP_SETS_VERSION = 2
"""Raised when the same files and settings give other crops, so that old ones are not used."""
SECONDS_BETWEEN_WORDS = 10.0
SOURCES = {
    "nucls": ("rgb", "rgbs", "mask", "train_test_splits"),
    "label_maps": ("images", "labels", "types"),
    "crc": ("Classification", "Detection", "."),
}
"""Folders whose files decide the crops; CoNSeP has one a split."""
FIELD_SUFFIXES = (".tif", ".tiff", ".csv", ".gz")


def gather_crops(data: DataSettings, seed: int) -> CropSet:
    """The nuclei that ``data`` names, cut out and measured; from ``data.cache`` where it has them.

    Nuclei at the border of an image are among them: the image is mirrored there. Unlabelled nuclei
    of NuCLS are not, as in the paper; elsewhere they stay.

    Parameters
    ----------
    seed
        Of the draw of ``data.max_per_slide`` cells; decides nothing else.

    Raises
    ------
    ConfigError
        If the settings do not fit the data.
    StoreError
        If files are missing or damaged, with a line for each; or if there is no nucleus.
    """
    if not data.path.is_dir():
        raise ConfigError(f"There is no folder {data.path}. Set data.path to the data set.")
    file = None if data.cache is None else cache_file(data, seed)
    if file is not None and file.exists():
        crops = load_crop_set(file)
        log.info("%d nuclei from %s", len(crops), file)
        return crops
    start = perf_counter()
    crops = _gather(data, seed)
    if not len(crops):
        raise StoreError(f"There is not one nucleus to learn from in {data.path}.")
    log.info("%d nuclei in %.1f s", len(crops), perf_counter() - start)
    if file is not None:
        save_crop_set(file, crops)
    return crops


def cache_file(data: DataSettings, seed: int) -> Path:
    """Where the crops are remembered: the name changes with whatever decides them.

    These are the settings, the names, sizes and dates of the source files, and, for crops of a
    run, the fingerprints of its slides.
    """
    of_fields = set() if data.kind == "bbbc021" else {"fields", "illumination", "nucleus_px"}
    unused = of_fields if data.shapes else {*of_fields, "shapes"}
    settings = data.model_dump(mode="json", exclude={"cache", "path", *unused})
    if data.kind == "run":
        sources: list[Any] = [seed if data.max_per_slide else 0, kept_cells(data)]
    else:
        sources = [_stamp(path, data.path) for path in _source_files(data)]
        sources += [seed] if data.kind == "bbbc021" and data.max_per_slide else []
    versions = [CROP_SETS_VERSION, CELLS_VERSION, list(NAMES)]
    text = json.dumps([versions, settings, sources], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Path(data.cache or ".") / f"{data.kind}-{data.split}-{digest}.npz"


def crops_of_image(
    image: LabelledImage, scale: float, size_px: int, *, shapes: bool = False
) -> CropSet:
    """Every nucleus of ``image``, cut and measured as a run does it, in the order of its ids.

    ``shapes``: the columns ``SHAPE_NAMES`` too.
    """
    labels = _without_gaps(image)
    regions = find_regions(labels)
    outlines = trace_outlines(labels, regions)
    measured = measure(image.rgb, labels, regions, outlines, image.mpp)
    if shapes:
        measured = np.hstack([measured, measure_boundaries(outlines, image.mpp)])
    return CropSet(
        crops=cut_crops(image.rgb, crop_windows(regions.boxes, scale), size_px, "mirror"),
        measurements=measured,
        source=np.zeros(len(regions), np.int32),
        label=image.label,
        source_names=(image.slide,),
        class_names=image.class_names,
        scale=scale,
        mpp=image.mpp,
    )


def crops_of_points(image: PointImage, data: DataSettings) -> CropSet:
    """Every nucleus of ``image``, known by a point: windows of one size, measurements unknown."""
    n = len(image.xy)
    windows = windows_around(image.xy, data.scale)
    return CropSet(
        crops=cut_crops(image.rgb, windows, data.size_px, "mirror"),
        measurements=np.full((n, len(NAMES)), np.nan, np.float32),
        source=np.zeros(n, np.int32),
        label=image.label,
        source_names=(image.name,),
        class_names=CRC_CLASSES,
        scale=data.scale,
        mpp=data.mpp or CRC_MPP,
    )


def _cut_points(data: DataSettings) -> CropSet:
    if data.shapes:
        raise ConfigError("CRCHistoPhenotypes tells nuclei by points: they have no shapes.")
    images = read_crc(data.path, data.split)
    return CropSet.concat([crops_of_points(image, data) for image in images])


def _gather(data: DataSettings, seed: int) -> CropSet:
    if data.kind == "run":
        return gather_kept_crops(data, seed)
    if data.kind == "bbbc021":
        from pipelines.field_crops import gather_field_crops

        return gather_field_crops(data, seed)
    return _cut_all(data)


def _cut_all(data: DataSettings) -> CropSet:
    if data.kind == "crc":
        return _cut_points(data)
    parts: list[CropSet] = []
    n_nuclei, said = 0, perf_counter()
    for image in _read_images(data):
        crops = crops_of_image(image, data.scale, data.size_px, shapes=data.shapes)
        # The paper drops what NuCLS leaves unlabelled (code 99).
        parts.append(crops.where(crops.label != UNLABELLED) if data.kind == "nucls" else crops)
        n_nuclei += len(parts[-1])
        if perf_counter() - said > SECONDS_BETWEEN_WORDS:
            said = perf_counter()
            log.info("cutting crops: %d images, %d nuclei", len(parts), n_nuclei)
    return CropSet.concat(parts)


def _read_images(data: DataSettings) -> Iterator[LabelledImage]:
    if data.kind == "consep":
        images = read_consep(data.path, data.split, data.classes)
    elif data.kind == "nucls":
        images = read_nucls(data.path, data.split, data.fold)
    elif data.mpp is None:
        raise ConfigError(
            "Label maps do not say how large a pixel is. Set data.mpp, for example data.mpp=0.25."
        )
    else:
        images = read_label_maps(data.path, data.mpp)
    for image in images:
        yield image if data.mpp is None else replace(image, mpp=data.mpp)


def _without_gaps(image: LabelledImage) -> IntArray:
    """The labels renumbered 1..n in the order of the ids."""
    n = len(image.ids)
    if n == 0 or int(image.ids[-1]) == n:
        return image.labels
    number = np.searchsorted(image.ids, image.labels) + 1
    return np.where(image.labels > 0, number, 0).astype(np.int32)


def _source_files(data: DataSettings) -> list[Path]:
    if data.kind == "bbbc021":  # images lie in a folder a plate, with tables beside them
        return sorted(p for p in data.path.rglob("*") if p.suffix.lower() in FIELD_SUFFIXES)
    folders = FOLDERS[data.split] if data.kind == "consep" else SOURCES[data.kind]
    found = [path for name in folders for path in (data.path / name).rglob("*") if path.is_file()]
    return sorted(found)


def _stamp(path: Path, root: Path) -> list[Any]:
    status = path.stat()
    return [path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns]
