"""Regions that the user drew, as GeoJSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import shapely
from shapely.affinity import translate
from shapely.geometry import shape

from ccrl_wsi.config import TissueSettings
from ccrl_wsi.errors import ConfigError, SlideError
from ccrl_wsi.qupath_classes import class_of, is_ignored
from ccrl_wsi.records import SlideInfo

SUFFIXES = (".geojson", ".geojson.gz", ".json")


REGION = "Region*"
"""QuPath's class for areas that hold others, such as detected tissue: the only one with an asterisk
whose areas are looked at."""


def read_regions(info: SlideInfo, settings: TissueSettings) -> Any:
    """The drawn areas of a slide as one shapely geometry in level-0 pixels.

    Understood are a FeatureCollection, a Feature, a geometry, or a list of these; points and
    lines in them are left out. Areas of a class that QuPath ignores (``Ignore*``) are cut out of
    the others. QuPath counts from the corner of the scanned area: such coordinates are moved,
    unless ``settings.regions_from_bounds`` is off.

    Raises
    ------
    SlideError
        If there is no file for the slide, or no area in it.
    """
    path = regions_file(info, settings)
    found: dict[bool, list[Any]] = {False: [], True: []}
    with _telling(path):
        for geometry, is_cut in _geometries(_load(path)):
            found[is_cut] += _areas(shape(geometry))
    if not found[False]:
        but = f" but of ignored classes (with *; {REGION} is none)" if found[True] else ""
        raise SlideError(
            f"{path} holds no Polygon or MultiPolygon{but}. Draw regions and export again."
        )
    regions = shapely.union_all(found[False])
    if found[True]:
        regions = shapely.difference(regions, shapely.union_all(found[True]))
    if settings.regions_from_bounds:
        regions = translate(regions, info.bounds_px.left, info.bounds_px.top)
    return regions


def check_regions(n_slides: int, settings: TissueSettings) -> None:
    """Refuse one file of regions for several slides: drawn areas are of one slide.

    Raises
    ------
    ConfigError
        If there is one file and more than one slide.
    """
    given = settings.regions
    if n_slides > 1 and given is not None and given.is_file():
        raise ConfigError(
            f"tissue.regions={given} is the file of one slide, but there are {n_slides}. Give a "
            "folder that has <slide_id>.geojson for each (`ccrl-wsi info` tells their ids)."
        )


def regions_digest(info: SlideInfo, settings: TissueSettings) -> str:
    """Changes with the regions that were drawn, not only with the name of their file.

    Raises
    ------
    SlideError
        If there is no file for the slide, or it is no GeoJSON.
    """
    path = regions_file(info, settings)
    with _telling(path):
        cuts = any(is_cut for _, is_cut in _geometries(_load(path)))
    # Cells that were found when ignored areas still counted as tissue are not taken for today's.
    return sha256(path.read_bytes()).hexdigest() + (" without ignored areas" if cuts else "")


def regions_file(info: SlideInfo, settings: TissueSettings) -> Path:
    """The GeoJSON that holds a slide's regions.

    Raises
    ------
    SlideError
        If there is none.
    """
    given = settings.regions
    if given is None:
        raise SlideError("tissue.method=geojson needs tissue.regions=FILE or FOLDER.")
    files = [given / (info.slide_id + s) for s in SUFFIXES] if given.is_dir() else [given]
    for file in files:
        if file.is_file():
            return file
    raise SlideError(
        f"There are no regions for {info.slide_id}: {files[0]} does not exist. Add the file, "
        "correct tissue.regions, or leave the slide out."
    )


def _load(path: Path) -> Any:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError) as error:
        raise SlideError(f"{path} cannot be read: {error}. Export the regions again.") from None


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """What is wrong with a file's content, in a sentence."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise SlideError(
            f"{path} is not the GeoJSON of regions: {error}. Export the regions from QuPath "
            "(File > Export objects as GeoJSON) or correct the file."
        ) from None


def _geometries(tree: Any, *, is_cut: bool = False) -> Iterator[tuple[dict[str, Any], bool]]:
    """The bare geometries in a GeoJSON tree, and whether they are of an ignored class."""
    if isinstance(tree, list):
        for part in tree:
            yield from _geometries(part)
    elif tree["type"] == "FeatureCollection":
        yield from _geometries(tree["features"])
    elif tree["type"] == "Feature":
        name = class_of(tree)
        yield from _geometries(tree["geometry"], is_cut=is_ignored(name) and name != REGION)
    else:
        yield tree, is_cut


def _areas(geometry: Any) -> list[Any]:
    """The polygons of a geometry, made valid where lines cross."""
    parts = shapely.get_parts(shapely.make_valid(geometry))
    flat = [p for part in parts for p in shapely.get_parts(part)]
    return [part for part in flat if part.geom_type == "Polygon" and not part.is_empty]
