"""Slide files, through OpenSlide."""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import openslide
from openslide import lowlevel

from ccrl_wsi.arrays import ByteArray
from ccrl_wsi.config import SlideSettings
from ccrl_wsi.errors import SlideError
from ccrl_wsi.geometry import Box, PixelGrid
from ccrl_wsi.records import SlideInfo, SlideSource
from ccrl_wsi.slides.resampling import read_grid

MAX_ANISOTROPY = 0.05

# Of a level whose pixels do not begin on level-0 pixels: see `_read_level`.
CHUNK_PX = 512

# Decoded file tiles that all open slides of a process keep together. Twice what OpenSlide keeps for
# each: enough for what the tiles of a partition share, read in `reading_order`.
KEPT_BYTES = 64 << 20

_HOW_TO_GIVE_MPP = "Give it with --set slides.mpp=0.25 or in the mpp column of the slide list."


def open_slide(source: SlideSource, settings: SlideSettings) -> OpenSlideReader:
    """Open a slide file and check what it says of itself.

    The pixel size is that of the slide list, else that of the settings, else the file's.

    Raises
    ------
    SlideError
        If the file cannot be opened, or its pixel size is missing or implausible.
    """
    handle = _open_file(source.path)
    properties: Mapping[str, str] = handle.properties
    width, height = handle.dimensions
    info = SlideInfo(
        # A worker may stand in another folder.
        path=source.path.absolute(),
        slide_id=source.slide_id,
        mpp=_find_mpp(source, settings, properties),
        width_px=width,
        height_px=height,
        bounds_px=_find_bounds(properties, Box(0, 0, width, height)),
        level_downsamples=tuple(handle.level_downsamples),
        vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
        content_key=properties.get(openslide.PROPERTY_NAME_QUICKHASH1) or _hash_file(source.path),
        level_tiles_px=tuple(_find_tile(properties, n) for n in range(handle.level_count)),
    )
    return OpenSlideReader(info, handle)


class OpenSlideReader:
    """An open slide file. Safe to read from several threads.

    Parameters
    ----------
    info
        As :func:`open_slide` makes it; enough to open the slide again elsewhere.
    handle
        The open file; opened here where it is not given.
    """

    def __init__(self, info: SlideInfo, handle: openslide.OpenSlide | None = None) -> None:
        self._info = info
        self._handle = _open_file(info.path) if handle is None else handle
        self._lock = threading.Lock()

    @property
    def info(self) -> SlideInfo:
        """What the slide says of itself."""
        return self._info

    def read(self, box: Box, grid: PixelGrid) -> ByteArray:
        """Pixels of ``box`` (grid pixels): (height, width, 3) uint8 RGB, white outside the slide.

        Raises
        ------
        SlideError
            If the file cannot be decoded there.
        """
        return read_grid(self._read_level, self._info, box, grid)

    def close(self) -> None:
        """Release the file."""
        self._handle.close()

    def __enter__(self) -> OpenSlideReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_level(self, level: int, box: Box) -> ByteArray:
        downsample = self._info.level_downsamples[level]
        if downsample.is_integer():
            return self._read_from(level, box, box)
        # OpenSlide takes positions in whole level-0 pixels, here fractions of a level's pixel,
        # and interpolates. Reading from fixed corners gives a pixel the same value every time.
        rgb = np.empty((box.height, box.width, 3), np.uint8)
        for top in range(box.top // CHUNK_PX * CHUNK_PX, box.bottom, CHUNK_PX):
            for left in range(box.left // CHUNK_PX * CHUNK_PX, box.right, CHUNK_PX):
                chunk = Box(left, top, CHUNK_PX, CHUNK_PX)
                part = chunk.clipped(box)
                rows = slice(part.top - box.top, part.bottom - box.top)
                columns = slice(part.left - box.left, part.right - box.left)
                rgb[rows, columns] = self._read_from(level, chunk, part)
        return rgb

    def _read_from(self, level: int, chunk: Box, part: Box) -> ByteArray:
        """Pixels of ``part``, read from the corner of ``chunk``; both in the level's pixels."""
        downsample = self._info.level_downsamples[level]
        x, y = round(chunk.left * downsample), round(chunk.top * downsample)
        size = (part.right - chunk.left, part.bottom - chunk.top)
        argb = self._decode((x, y), level, size)
        return _on_white(argb)[part.top - chunk.top :, part.left - chunk.left :]

    def _decode(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> ByteArray:
        handle = self._handle
        try:
            return _read_region(handle, corner, level, size)
        except openslide.OpenSlideError:
            # After one failure a handle repeats its message whatever is asked of it, so this
            # may be another region's. A handle nobody else has used yet knows better.
            with self._lock:
                if self._handle is handle:
                    self._handle = _open_file(self._info.path)
        try:
            return _read_region(_open_file(self._info.path), corner, level, size)
        except openslide.OpenSlideError as error:
            raise SlideError(
                f"{self._info.path} cannot be decoded at x={corner[0]}, y={corner[1]} "
                f"(level {level}, {size[0]} x {size[1]} px): {error}. The file is probably "
                "incomplete or damaged: copy it again, or leave the slide out."
            ) from error


def _open_file(path: Path) -> openslide.OpenSlide:
    try:
        with path.open("rb"):
            pass
        handle = openslide.OpenSlide(path)
        handle.set_cache(_kept_tiles())
        return handle
    except FileNotFoundError:
        problem = f"There is no file {path}. Check the path in the slide list."
    except IsADirectoryError:
        problem = f"{path} is a folder, not a slide."
    except PermissionError:
        problem = f"{path} may not be read by this user. Ask for read access (chmod a+r)."
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}."
    except openslide.OpenSlideUnsupportedFormatError:
        problem = (
            f"{path} is not a slide that OpenSlide can read. Plain images (JPEG, PNG, TIFF) must "
            "be made slides first: ccrl-wsi pyramid IMAGE --mpp 0.25 -o FOLDER. An incomplete copy "
            "must be copied again."
        )
    except openslide.OpenSlideError as error:
        problem = f"{path} cannot be opened: {error}. Copy it again if the copy is incomplete."
    raise SlideError(problem)


@cache
def _kept_tiles() -> openslide.OpenSlideCache:
    return openslide.OpenSlideCache(KEPT_BYTES)


def _read_region(
    handle: openslide.OpenSlide, corner: tuple[int, int], level: int, size: tuple[int, int]
) -> ByteArray:
    """Premultiplied pixels (height, width, 4), blue first.

    The public call makes a Pillow image of them, which takes as long as decoding.
    """
    argb = np.empty((size[1], size[0], 4), np.uint8)
    if argb.size:
        pointer = argb.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
        lowlevel._read_region(handle._osr, pointer, *corner, level, *size)
    return argb


def _on_white(argb: ByteArray) -> ByteArray:
    if not argb.size:
        return np.empty((*argb.shape[:2], 3), np.uint8)
    rgb: ByteArray = cv2.cvtColor(argb, cv2.COLOR_BGRA2RGB)
    if np.bitwise_and.reduce(argb.view(np.uint32), axis=None) < 0xFF000000:
        lacking = 255 - argb[..., 3]
        cv2.add(rgb, cv2.merge([lacking, lacking, lacking]), dst=rgb)
    return rgb


def _find_mpp(source: SlideSource, settings: SlideSettings, properties: Mapping[str, str]) -> float:
    if source.mpp is not None:
        mpp, origin = source.mpp, "the slide list"
    elif settings.mpp is not None:
        mpp, origin = settings.mpp, "slides.mpp"
    else:
        mpp, origin = _stored_mpp(source.path, properties), "the file"
    if not settings.min_mpp <= mpp <= settings.max_mpp:
        raise SlideError(
            f"{source.path}: {origin} gives a pixel size of {mpp:g} um, which is not between "
            f"{settings.min_mpp:g} and {settings.max_mpp:g}. {_HOW_TO_GIVE_MPP}"
        )
    return mpp


def _stored_mpp(path: Path, properties: Mapping[str, str]) -> float:
    names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    found = [float(properties[name]) for name in names if name in properties]
    if not found:
        power = properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        hint = f" (only the objective's power, {power}x)" if power else ""
        raise SlideError(f"{path} stores no pixel size{hint}. {_HOW_TO_GIVE_MPP}")
    if max(found) > min(found) * (1 + MAX_ANISOTROPY):
        raise SlideError(
            f"{path} stores pixels that are not square: {found[0]:g} x {found[1]:g} um. "
            f"If that is wrong, give the true size. {_HOW_TO_GIVE_MPP}"
        )
    return sum(found) / len(found)


def _find_tile(properties: Mapping[str, str], level: int) -> tuple[int, int] | None:
    names = (f"openslide.level[{level}].tile-{side}" for side in ("width", "height"))
    width, height = (int(properties.get(name, 0)) for name in names)
    return (width, height) if width > 0 and height > 0 else None


def _find_bounds(properties: Mapping[str, str], whole: Box) -> Box:
    names = (
        openslide.PROPERTY_NAME_BOUNDS_X,
        openslide.PROPERTY_NAME_BOUNDS_Y,
        openslide.PROPERTY_NAME_BOUNDS_WIDTH,
        openslide.PROPERTY_NAME_BOUNDS_HEIGHT,
    )
    values = [properties.get(name) for name in names]
    if any(value is None for value in values):
        return whole
    bounds = Box(*(int(value) for value in values if value is not None)).clipped(whole)
    return bounds if bounds.area else whole


def _hash_file(path: Path, piece: int = 1 << 20) -> str:
    """Of size, head and tail: OpenSlide gives no hash where it would cost too much."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(piece))
        file.seek(max(0, size - piece))
        digest.update(file.read(piece))
    return digest.hexdigest()
