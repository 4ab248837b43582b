"""From fields of cultured cells to single-cell crops: light, nuclei, windows, plate by plate.

A field that cannot be used is told and left out; the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from ccrl_wsi.arrays import AnyArray, ByteArray
from ccrl_wsi.crop_set import UNLABELLED, CropSet
from ccrl_wsi.crops.fixed import cut_fixed
from ccrl_wsi.data_settings import DataSettings
from ccrl_wsi.datasets.bbbc021 import Field, name_problems, read_fields, read_mechanisms
from ccrl_wsi.datasets.bbbc021_files import read_channels_of, read_locations
from ccrl_wsi.datasets.illumination import PlateLight, PlateLightEstimate
from ccrl_wsi.errors import StoreError
from ccrl_wsi.measurement_names import NAMES
from ccrl_wsi.nuclei.fluorescent_nuclei import centres_of, find_fluorescent_nuclei
from ccrl_wsi.seeding import rng_for

log = logging.getLogger("ccrl_wsi")

PIXELS = 1.0
"""Micrometres per pixel where nobody said: lengths are in pixels then."""


def gather_field_crops(data: DataSettings, seed: int) -> CropSet:
    """Crops of every cell of the fields that ``data`` asks for.

    A crop's source is its field, such as ``Week1_22123-B02-s1``; its label the mechanism, where
    known. Measurements are NaN: there is no outline to measure.

    Raises
    ------
    StoreError
        If a table is absent or damaged, or no field can be used.
    """
    mechanisms = read_mechanisms(data.path)
    fields = read_fields(data.path, mechanisms)
    problems = name_problems(fields, mechanisms)
    if data.fields == "labelled":
        fields = [field for field in fields if field.mechanism]
    fields = _once(fields, problems)
    # Sorted, so that plates come in one piece whatever the order of the table.
    fields = sorted(fields, key=lambda field: (field.plate, field.well, field.site))
    names = tuple(sorted({field.mechanism for field in fields if field.mechanism}))
    parts: list[CropSet] = []
    for plate, of_plate in groupby(fields, key=lambda field: field.plate):
        for field, crops in _plate_crops(list(of_plate), data, seed, problems):
            label = names.index(field.mechanism) if field.mechanism else UNLABELLED
            parts.append(_crop_set(field, crops, label, names, data))
        log.info("%s: %d fields so far", plate, len(parts))
    for problem in problems:
        log.warning("%s", problem)
    if not parts:
        more = f" The first problem: {problems[0]}" if problems else ""
        raise StoreError(f"No field of {data.path} can be used.{more}")
    if problems:
        log.warning("%d problems; %d of %d fields are used", len(problems), len(parts), len(fields))
    return CropSet.concat(parts)


def _once(fields: list[Field], problems: list[str]) -> list[Field]:
    """The fields without those that the table lists again, whose cells would count twice."""
    found: dict[str, Field] = {}
    for field in fields:
        if field.key in found:
            problems.append(f"{field.key} is listed again: its first row counts")
        else:
            found[field.key] = field
    return [*found.values()]


def _plate_crops(
    fields: list[Field], data: DataSettings, seed: int, problems: list[str]
) -> Iterator[tuple[Field, ByteArray]]:
    """Each usable field of one plate with its crops."""
    estimate = PlateLightEstimate(even=data.illumination)
    usable: list[Field] = []
    for field in fields:
        try:
            estimate.add(read_channels_of(data.path, field))
        except StoreError as error:
            problems.append(str(error))
        except ValueError as error:
            problems.append(f"{field.key} {error}")
        else:
            usable.append(field)
    if not usable:
        return
    light = estimate.light()
    for field in usable:
        try:
            pixels = read_channels_of(data.path, field)
            yield field, _field_crops(pixels, light, field, data, seed)
        except StoreError as error:  # its locations, or a disk that went away
            problems.append(str(error))


def _field_crops(
    pixels: AnyArray, light: PlateLight, field: Field, data: DataSettings, seed: int
) -> ByteArray:
    even = light.corrected(pixels)
    centres = read_locations(data.path, field)
    if centres is None:
        centres = centres_of(find_fluorescent_nuclei(even[..., 0], data.nucleus_px))
    crops, _ = cut_fixed(even, centres, data.size_px)
    if data.max_per_slide is not None and len(crops) > data.max_per_slide:
        rng = rng_for(seed, "cells of a field", field.key)
        crops = crops[np.sort(rng.choice(len(crops), data.max_per_slide, replace=False))]
    return crops


def _crop_set(
    field: Field, crops: ByteArray, label: int, names: tuple[str, ...], data: DataSettings
) -> CropSet:
    n = len(crops)
    return CropSet(
        crops=crops,
        measurements=np.full((n, len(NAMES)), np.nan, np.float32),
        source=np.zeros(n, np.int32),
        label=np.full(n, label, np.int32),
        source_names=(field.key,),
        class_names=names,
        scale=1.0,
        mpp=data.mpp or PIXELS,
    )
