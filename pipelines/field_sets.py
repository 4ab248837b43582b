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

import numpy as np

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.datasets.consep import read_consep
from ccrl_wsi.datasets.image_files import check_same_size, read_label_map
from ccrl_wsi.datasets.label_maps import read_label_maps
from ccrl_wsi.datasets.labelled_image import LabelledImage
from ccrl_wsi.datasets.monuseg import read_monuseg
from ccrl_wsi.datasets.tnbc import read_tnbc
from ccrl_wsi.errors import ConfigError, StoreError
from ccrl_wsi.training.field_set import FieldSet, cut_fields
from ccrl_wsi.training.field_targets import without_specks
from ccrl_wsi.training.segment_settings import FieldDataSettings, FieldSourceSettings

log = logging.getLogger("ccrl_wsi")

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


def gather_fields(data: FieldDataSettings) -> FieldSet:
    """The fields of all ``data.sources``.

    Raises
    ------
    ConfigError
        If a folder is missing or a setting does not fit the data.
    StoreError
        If no image can be used, or no nucleus is drawn in any.
    """
    parts: list[FieldSet] = []
    for source in data.sources:
        found = list(_checked(source, data))
        if not found:
            raise StoreError(f"No image in {source.path} can be learned from.")
        for each in found:
            image = each.image
            parts.append(
                cut_fields(
                    image.rgb,
                    image.labels,
                    image.mpp,
                    f"{source.kind} {image.slide}",
                    side_px=data.field_px,
                    unsure=each.unsure,
                )
            )
    fields = FieldSet.concat(parts)
    if fields.n_nuclei == 0:
        raise StoreError("There is not one nucleus to learn from in all the images.")
    return fields


def read_images(source: FieldSourceSettings) -> Iterator[LabelledImage]:
    """The images of ``source`` that can be read; of the others a sentence is logged.

    Raises
    ------
    ConfigError
        If there is no such folder, or label maps come without ``mpp``.
    """
    if not source.path.is_dir():
        raise ConfigError(f"There is no folder {source.path}. Name the folder with --data.")
    for image in _read(source):
        names = (image.name, f"{image.name}.")
        if source.only and not _fits(names, source.only):
            continue
        if _fits(names, source.without):
            continue
        yield image if source.mpp is None else replace(image, mpp=source.mpp)


def _read(source: FieldSourceSettings) -> Iterator[LabelledImage]:
    if source.kind == "tnbc":
        return read_tnbc(source.path, _tell)
    if source.kind == "monuseg":
        return read_monuseg(source.path, _tell)
    if source.kind == "consep":
        return read_consep(source.path, source.split, tell=_tell)
    if source.mpp is None:
        raise ConfigError(
            f"The label maps in {source.path} do not say how large a pixel is. Set mpp of the "
            "source, for example mpp: 0.25."
        )
    return read_label_maps(source.path, source.mpp, _tell)


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
        yield TrainingField(replace(image, labels=labels, slide=_slide_of(source, image)), unsure)
    if specks:
        log.warning(
            "%s: %d nuclei of fewer than %d pixels are left out, in %d images, such as %s.",
            *(source.path, sum(specks.values()), data.least_px, len(specks), next(iter(specks))),
        )


def _read_unsure(source: FieldSourceSettings, image: LabelledImage) -> IntArray | None:
    file = source.path / UNSURE_FOLDER / f"{image.name}.png"
    if source.kind != "label_maps" or not file.is_file():
        return None
    unsure = read_label_map(file)
    check_same_size(file, image.rgb, unsure)
    return unsure


def _slide_of(source: FieldSourceSettings, image: LabelledImage) -> str:
    """Who is drawn from as often as any other: TNBC's patient, a slide, else the image."""
    if source.kind == "label_maps":
        return image.name.split("__")[0]
    return image.slide


def _is_grey(image: LabelledImage) -> bool:
    red, green, blue = np.moveaxis(image.rgb, 2, 0)
    return bool(np.array_equal(red, green) and np.array_equal(red, blue))


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for name in names for pattern in patterns)


def _tell(sentence: str) -> None:
    log.warning("Left out: %s", sentence)


def with_paths(data: FieldDataSettings, given: Sequence[str]) -> FieldDataSettings:
    """``data`` with folders given as ``kind=path``, for all sources of that kind.

    A path alone is that of the only source.

    Raises
    ------
    ConfigError
        If no source is of that kind, or a path alone could be of several.
    """
    sources, validation = data.sources, data.validation
    for text in given:
        kind, equals, path = text.partition("=")
        if not equals:
            kinds = {source.kind for source in (*sources, *validation)}
            if len(kinds) > 1:
                raise ConfigError(
                    f"--data {text}: there are several kinds of images ({', '.join(sorted(kinds))})"
                    ". Write it as kind=path."
                )
            kind, path = next(iter(kinds)), text
        if kind not in {source.kind for source in (*sources, *validation)}:
            raise ConfigError(f"--data {text}: the settings have no images of the kind {kind}.")
        sources, validation = (
            tuple(s.model_copy(update={"path": Path(path)}) if s.kind == kind else s for s in which)
            for which in (sources, validation)
        )
    return data.model_copy(update={"sources": sources, "validation": validation})
