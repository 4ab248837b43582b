"""From folders of labelled images to the fields that a segmenter is trained on.

Unlike crops, fields need no image in particular: one that cannot be used is told in a sentence and
left out, and the training goes on with the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import cv2
import numpy as np

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.datasets.consep import read_consep
from ccrl_wsi.datasets.image_files import (
    MPP_40X,
    check_same_size,
    list_images,
    read_label_map,
)
from ccrl_wsi.datasets.label_maps import LABEL_SUFFIXES, read_label_maps
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.datasets.monuseg import read_monuseg
from ccrl_wsi.datasets.tnbc import read_tnbc
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.training.field_set import FieldSet, cut_fields
from ccrl_wsi.training.field_targets import without_specks
from ccrl_wsi.training.segment_settings import FieldDataSettings, FieldSourceSettings

log = logging.getLogger("ccrl_wsi")

IMAGE_FOLDERS = {
    "tnbc": ("Slide",),
    "monuseg": ("images",),
    "consep": ("Train/Images", "Test/Images"),
    "label_maps": ("images",),
}
"""Where the images of each kind lie in its folder."""

AVERAGE_ABOVE = 1.25
"""Steps between the pixels that are read from which on they are averaged, as in a run."""

MPP_TOLERANCE = 0.1

UNSURE_FOLDER = "unsure"
"""Beside ``images`` and ``labels``: masks of what is not to be learned from, of the same names."""


@dataclass(frozen=True, eq=False, slots=True)
class TrainingField:
    """An image to learn from, checked.

    Parameters
    ----------
    image
        With labels that are nuclei, no specks.
    unsure
        (h, w) above 0 where nobody knows what there is; None: nowhere.
    """

    image: LabelledImage
    unsure: IntArray | None


def gather_fields(data: FieldDataSettings, mpp: float) -> FieldSet:
    """The fields of all ``data.sources``, for a network that works at ``mpp`` um per pixel.

    Raises
    ------
    ConfigError
        If a folder is missing or a setting does not fit the data.
    StoreError
        If no image can be used, or no nucleus is drawn in any.
    """
    check_validation(data, mpp)
    parts: list[FieldSet] = []
    for source in data.sources:
        found = [at_resolution(each, mpp) for each in _checked(source, data)]
        if not found:
            raise StoreError(f"No image in {source.path} can be learned from.")
        parts += [_cut(each, source, data.field_px) for each in found]
    fields = FieldSet.concat(parts)
    if fields.n_nuclei == 0:
        raise StoreError("There is not one nucleus to learn from in all the images.")
    return fields


def check_validation(data: FieldDataSettings, mpp: float) -> None:
    """Look at what the segmenter will be scored on before hours are spent.

    Raises
    ------
    ConfigError
        If there is nothing, it has another resolution, or it is learned from too.
    """
    learned = {name for source in data.sources for name in _names(source)}
    for source in data.validation:
        own = source.mpp or MPP_40X
        if abs(own / mpp - 1) > MPP_TOLERANCE:
            raise ConfigError(
                f"{source.path} has {own:g} um per pixel, the network {mpp:g}: it cannot be scored "
                "there. Leave it out of data.validation, or set network.mpp."
            )
        both = learned.intersection(_names(source))
        if both:
            raise ConfigError(
                f"{min(both)[1]} in {source.path} would be learned from and scored on. Name it in "
                "`without` of the source, or choose other images with `only`."
            )


def _names(source: FieldSourceSettings) -> list[tuple[str, str]]:
    """Folder and name of every image that is meant, readable or not."""
    folder = _existing(source)
    images = [
        path
        for name in IMAGE_FOLDERS[source.kind]
        if (folder / name).is_dir()
        for path in list_images(folder / name)
        if source.split == "all" or source.kind != "consep" or name.lower().startswith(source.split)
    ]
    stems = [path.stem for path in images]
    for pattern in (*source.only, *source.without):
        if not any(fnmatch(stem, pattern) for stem in stems):
            raise ConfigError(
                f"No image in {source.path} is called {pattern!r}. Names are without suffix, such "
                f"as {stems[0] if stems else 'img_1'}."
            )
    return [(str(folder), stem) for stem in stems if _is_chosen(source, stem)]


def _existing(source: FieldSourceSettings) -> Path:
    if not source.path.is_dir():
        raise ConfigError(f"There is no folder {source.path}. Name the folder with --data.")
    if source.kind == "label_maps" and source.mpp is None:
        raise ConfigError(
            f"The label maps in {source.path} do not say how large a pixel is. Set mpp of the "
            "source, for example mpp: 0.25."
        )
    return source.path.resolve()


def _is_chosen(source: FieldSourceSettings, name: str) -> bool:
    if source.only and not any(fnmatch(name, pattern) for pattern in source.only):
        return False
    return not any(fnmatch(name, pattern) for pattern in source.without)


def _cut(each: TrainingField, source: FieldSourceSettings, field_px: int) -> FieldSet:
    image = each.image
    name = f"{source.kind} {image.slide}"
    return cut_fields(
        image.rgb, image.labels, image.mpp, name, side_px=field_px, unsure=each.unsure
    )


def at_resolution(each: TrainingField, mpp: float) -> TrainingField:
    """The image made coarser by averaging where the network works at a much coarser ``mpp``.

    Views are read bilinearly, which would leave pixels out.
    """
    image = each.image
    factor = image.mpp / mpp
    if factor > 1 / AVERAGE_ABOVE:
        return each
    height, width = (max(1, round(n * factor)) for n in image.labels.shape)

    def coarse(labels: IntArray) -> IntArray:
        smaller = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(smaller, np.int32)

    rgb = cv2.resize(image.rgb, (width, height), interpolation=cv2.INTER_AREA)
    smaller = replace(image, rgb=rgb, labels=coarse(image.labels), mpp=mpp)
    return TrainingField(smaller, None if each.unsure is None else coarse(each.unsure))


def read_images(source: FieldSourceSettings) -> Iterator[LabelledImage]:
    """The images of ``source`` that can be read; of the others a sentence is logged.

    Raises
    ------
    ConfigError
        If there is no such folder, label maps come without ``mpp``, or a pattern fits no image.
    """
    _names(source)
    for image in _read(source):
        if _is_chosen(source, image.name):
            yield image if source.mpp is None else replace(image, mpp=source.mpp)


def _read(source: FieldSourceSettings) -> Iterator[LabelledImage]:
    if source.kind == "tnbc":
        return read_tnbc(source.path, _tell)
    if source.kind == "monuseg":
        return read_monuseg(source.path, _tell)
    if source.kind == "consep":
        return read_consep(source.path, source.split, tell=_tell)
    return read_label_maps(source.path, source.mpp or MPP_40X, _tell)


def _checked(source: FieldSourceSettings, data: FieldDataSettings) -> Iterator[TrainingField]:
    specks: dict[str, int] = {}
    for image in read_images(source):
        labels, n_specks = without_specks(image.labels, data.least_px)
        specks |= {image.name: n_specks} if n_specks else {}
        if not labels.any():
            log.warning("%s has no nuclei: it is learned as background.", image.name)
        if _is_grey(image):
            log.warning("%s is grey: it is learned with three equal channels.", image.name)
        try:
            unsure = _read_unsure(source, image)
        except StoreError as error:
            _tell(str(error))
            continue
        is_speck = (image.labels > 0) & (labels == 0)
        if is_speck.any():  # They may be pieces of nuclei: neither nucleus nor background.
            unsure = is_speck | (unsure > 0) if unsure is not None else is_speck
        checked = replace(image, labels=labels, slide=_slide_of(source, image))
        yield TrainingField(checked, None if unsure is None else unsure.astype(np.int32))
    if specks:
        log.warning(
            "%s: %d nuclei of fewer than %d pixels are left out, in %d images, such as %s.",
            *(source.path, sum(specks.values()), data.least_px, len(specks), next(iter(specks))),
        )


def _read_unsure(source: FieldSourceSettings, image: LabelledImage) -> IntArray | None:
    folder = source.path / UNSURE_FOLDER
    found = [p for suffix in LABEL_SUFFIXES if (p := folder / f"{image.name}{suffix}").is_file()]
    if source.kind != "label_maps" or not found:
        return None
    unsure = read_label_map(found[0])
    check_same_size(source.path / "images" / image.name, image.rgb, unsure)
    return unsure


def _slide_of(source: FieldSourceSettings, image: LabelledImage) -> str:
    """Who is drawn from as often as any other: TNBC's patient, a slide, else the image.

    Of label maps, a name is that of its slide up to the last ``__``, as `label-fields` writes it.
    """
    if source.kind == "label_maps":
        return image.name.rsplit("__", 1)[0]
    return image.slide


def _is_grey(image: LabelledImage) -> bool:
    red, green, blue = np.moveaxis(image.rgb, 2, 0)
    return bool(np.array_equal(red, green) and np.array_equal(red, blue))


def _tell(sentence: str) -> None:
    log.warning("Left out: %s", sentence)


def with_paths(data: FieldDataSettings, given: Sequence[str]) -> FieldDataSettings:
    """``data`` whose sources lie in the folders given as ``kind=path``.

    A path alone is that of the only source. What is scored on stays where the settings say.

    Raises
    ------
    ConfigError
        If not exactly one source is of a kind, or a kind is given twice.
    """
    kinds: list[str] = [source.kind for source in data.sources]
    paths: dict[str, Path] = {}
    for text in given:
        kind, equals, path = text.partition("=")
        if not equals or kind not in IMAGE_FOLDERS:
            if len(kinds) > 1:
                raise ConfigError(
                    f"--data {text}: there are several kinds of images ({', '.join(sorted(kinds))})"
                    ". Write it as kind=path."
                )
            kind, path = kinds[0], text
        if kinds.count(kind) != 1 or kind in paths:
            raise ConfigError(
                f"--data {text}: the settings have {kinds.count(kind)} sources of the kind {kind}"
                f"{', and it is given twice' if kind in paths else ''}. Name folders of others as "
                "data.sources in a settings file."
            )
        paths[kind] = Path(path)
    sources = tuple(
        source.model_copy(update={"path": paths.get(source.kind, source.path)})
        for source in data.sources
    )
    return data.model_copy(update={"sources": sources})
