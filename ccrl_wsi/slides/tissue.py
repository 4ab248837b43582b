"""Where on a slide to look for nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import shapely

from ccrl_wsi.arrays import BoolArray, FloatArray
from ccrl_wsi.config import TissueSettings
from ccrl_wsi.errors import SlideError
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.records import SlideInfo
from ccrl_wsi.slides.regions import read_regions, regions_file
from ccrl_wsi.slides.staining import find_stained
from ccrl_wsi.slides.thumbnail import Thumbnail


@dataclass(frozen=True, eq=False, slots=True)
class Tissue:
    """The part of a slide that is looked at.

    Parameters
    ----------
    mask
        (grid.height, grid.width) boolean.
    grid
        Where the mask lies on the slide.
    geometry
        The exact area (shapely, level-0 px) where the user drew it; it decides instead of the
        mask, which is then its picture.
    """

    mask: BoolArray
    grid: PixelGrid
    geometry: Any = None

    def __post_init__(self) -> None:
        if self.mask.shape != (self.grid.height, self.grid.width):
            raise ValueError(f"mask {self.mask.shape} does not fit {self.grid}")
        if self.geometry is not None:
            shapely.prepare(self.geometry)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to look at."""
        return not self.mask.any() if self.geometry is None else bool(self.geometry.is_empty)

    @property
    def area_um2(self) -> float:
        """Area in square micrometres."""
        if self.geometry is None:
            return float(self.mask.sum() * self.grid.mpp**2)
        return float(self.geometry.area * (self.grid.mpp / self.grid.scale) ** 2)

    def contains(self, xy_px: FloatArray) -> BoolArray:
        """Which of the points ``xy_px`` (n, 2), level-0 pixels, lie in the tissue: boolean (n,)."""
        if self.geometry is not None:
            inside: BoolArray = shapely.intersects_xy(self.geometry, xy_px[:, 0], xy_px[:, 1])
            return inside
        xy = np.floor(self.grid.from_level0(xy_px))
        found = self.grid.extent.contains(xy)
        columns, rows = xy[found].astype(np.int64).T
        found[found] = self.mask[rows, columns]
        return found

    def touches(self, box: Box, grid: PixelGrid) -> bool:
        """Whether there is tissue in ``box``, in pixels of ``grid`` (a tile's)."""
        corners = grid.to_level0(np.array([[box.left, box.top], [box.right, box.bottom]]))
        if self.geometry is not None:
            return bool(self.geometry.intersects(shapely.box(*corners.ravel())))
        # A float that should be whole must not reach into the next pixel.
        reach = self.grid.from_level0(corners)
        left, top = np.floor(reach[0] + 1e-6).astype(int)
        right, bottom = np.ceil(reach[1] - 1e-6).astype(int)
        seen = Box(left, top, right - left, bottom - top).clipped(self.grid.extent)
        return bool(self.mask[seen.top : seen.bottom, seen.left : seen.right].any())

    def area_in_um2(self, box: Box, grid: PixelGrid) -> float:
        """Area of the tissue in ``box``, in pixels of ``grid`` (a tile's): square micrometres."""
        corners = grid.to_level0(np.array([[box.left, box.top], [box.right, box.bottom]]))
        if self.geometry is not None:
            seen = shapely.intersection(self.geometry, shapely.box(*corners.ravel()))
            return float(seen.area * (self.grid.mpp / self.grid.scale) ** 2)
        (left, top), (right, bottom) = self.grid.from_level0(corners)
        rows = _overlap(top, bottom, self.grid.height)
        columns = _overlap(left, right, self.grid.width)
        return float(rows @ self.mask @ columns * self.grid.mpp**2)

    def to_npz(self, path: Path) -> None:
        """Write a file that :meth:`from_npz` reads, without pickle."""
        grid = self.grid
        wkb = b"" if self.geometry is None else shapely.to_wkb(self.geometry)
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                mask=self.mask,
                resolution=np.array([grid.mpp, grid.scale]),
                origin_px=np.array(grid.origin_px, np.int64),
                wkb=np.frombuffer(wkb, np.uint8),
            )

    @staticmethod
    def from_npz(path: Path) -> Tissue:
        """The tissue that :meth:`to_npz` wrote."""
        with np.load(path, allow_pickle=False) as file:
            mask, wkb = file["mask"], file["wkb"].tobytes()
            mpp, scale = file["resolution"].tolist()
            x, y = file["origin_px"].tolist()
        grid = PixelGrid(mpp, scale, (x, y), mask.shape[1], mask.shape[0])
        return Tissue(mask, grid, shapely.from_wkb(wkb) if wkb else None)


def find_tissue(thumbnail: Thumbnail, info: SlideInfo, settings: TissueSettings) -> Tissue:
    """The tissue of a slide, by ``settings.method``: see ``staining`` and ``regions``.

    Raises
    ------
    SlideError
        If the slide's regions cannot be read, or lie outside its scanned area.
    """
    grid = thumbnail.grid
    if settings.method == "otsu":
        return Tissue(find_stained(thumbnail.rgb, grid.mpp, settings), grid)
    if settings.method == "none":
        return Tissue(np.ones((grid.height, grid.width), np.bool_), grid)
    bounds = info.bounds_px
    scanned = shapely.box(bounds.left, bounds.top, bounds.right, bounds.bottom)
    drawn = read_regions(info, settings)
    regions = shapely.intersection(drawn, scanned)
    if regions.area == 0:
        raise SlideError(_outside(regions_file(info, settings), drawn, bounds))
    return Tissue(_drawn(regions, grid), grid, regions)


def _outside(path: Path, drawn: Any, bounds: Box) -> str:
    if drawn.area == 0:
        return f"{path}: areas of ignored classes (with *) cover all regions. Draw them again."
    reach = "x {0:.0f} to {2:.0f}, y {1:.0f} to {3:.0f}".format(*drawn.bounds)
    return (
        f"{path}: the regions ({reach}) lie outside the scanned area (x {bounds.left} to "
        f"{bounds.right}, y {bounds.top} to {bounds.bottom}; level-0 pixels). See whether they are "
        "of this slide, in pixels, and whether tissue.regions_from_bounds is as it should be."
    )


def _overlap(first: float, last: float, n: int) -> FloatArray:
    """How much of each of ``n`` pixels in a row lies between two places: (n,), 0 to 1."""
    places = np.arange(n)
    share: FloatArray = np.minimum(places + 1, last) - np.maximum(places, first)
    return share.clip(0, 1)


def _drawn(regions: Any, grid: PixelGrid) -> BoolArray:
    """A picture of polygons: boolean (grid.height, grid.width)."""
    mask = np.zeros((grid.height, grid.width), np.uint8)
    polygons = [
        p for p in shapely.get_parts(regions) if p.geom_type == "Polygon" and not p.is_empty
    ]
    rings = [ring for p in polygons for ring in (p.exterior, *p.interiors)]
    # Even-odd filling of all rings at once leaves the holes open.
    corners = [np.rint(grid.from_level0(np.asarray(r.coords)) - 0.5).astype(int) for r in rings]
    if corners:
        cv2.fillPoly(mask, [c.astype(np.int32) for c in corners], 1)
    drawn: BoolArray = mask.astype(np.bool_)
    return drawn
