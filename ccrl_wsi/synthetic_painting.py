"""Paints drawn slides: tissue, stain, pen, blur and noise.

Colours come from stain densities: a pixel is ``255 * 10 ** -(haematoxylin * h + eosin * e)`` with
the stain vectors h and e of Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001) 291.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ccrl_wsi.arrays import BoolArray, ByteArray, FloatArray, IntArray
from ccrl_wsi.synthetic_spec import DrawnSlideSpec, rng_of

HAEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
PEN_COLOUR = (24, 84, 60)


def draw_tissue(spec: DrawnSlideSpec) -> BoolArray:
    """Islands of tissue that leave ``background_share`` of the slide bare."""
    shape = (spec.height_px, spec.width_px)
    if spec.background_share <= 0:
        return np.ones(shape, bool)
    small = (max(4, spec.height_px // 32), max(4, spec.width_px // 32))
    relief = smooth_noise(rng_of(spec, "tissue"), small, max(small) / 8)
    relief = cv2.resize(relief, shape[::-1], interpolation=cv2.INTER_CUBIC)
    is_tissue: BoolArray = relief > np.quantile(relief, spec.background_share)
    return is_tissue


def draw_eosin(spec: DrawnSlideSpec, is_tissue: BoolArray, labels: IntArray) -> FloatArray:
    """Pink fibres and cytoplasm where there is tissue, paler below nuclei."""
    rng = rng_of(spec, "eosin")
    shape = labels.shape
    small = (max(8, shape[0] // 4), max(8, shape[1] // 4))
    fibres = cv2.GaussianBlur(rng.standard_normal(small, np.float32), (0, 0), 6, sigmaY=1)
    clouds = smooth_noise(rng, small, 20 / spec.mpp / 4)
    relief = cv2.resize(0.04 * fibres / fibres.std() + 0.05 * clouds, shape[::-1])
    eosin = np.clip(0.22 + relief, 0.05, 0.6) * np.where(labels > 0, 0.6, 1.0)
    # Tissue does not end in a knife's edge.
    cover = cv2.GaussianBlur(is_tissue.astype(np.float32), (0, 0), 1.0 / spec.mpp)
    density: FloatArray = (eosin * cover).astype(np.float32)
    return density


def stain(haematoxylin: FloatArray, eosin: FloatArray) -> ByteArray:
    """Densities to colours, seen through optics that blur by less than a pixel."""
    # Cytoplasm takes a little haematoxylin too.
    seen = cv2.GaussianBlur(haematoxylin, (0, 0), 0.8) + 0.12 * eosin
    colours = [
        cv2.exp((seen * h + eosin * e) * np.float32(-math.log(10))) * 245.0
        for h, e in zip(HAEMATOXYLIN, EOSIN, strict=True)
    ]
    rgb: ByteArray = np.stack([colour.astype(np.uint8) for colour in colours], axis=-1)
    return rgb


def blur_patch(rgb: ByteArray, is_spoiled: BoolArray, spec: DrawnSlideSpec) -> None:
    """Put a third of the slide's width and height, at the lower right, out of focus."""
    rows = slice(spec.height_px // 2, spec.height_px // 2 + spec.height_px // 3)
    columns = slice(spec.width_px // 2, spec.width_px // 2 + spec.width_px // 3)
    rgb[rows, columns] = cv2.GaussianBlur(rgb[rows, columns], (0, 0), 1.5 / spec.mpp)
    is_spoiled[rows, columns] = True


def draw_pen(rgb: ByteArray, is_spoiled: BoolArray, spec: DrawnSlideSpec) -> None:
    """A marker's stroke along the slide's upper third."""
    x = np.linspace(0, spec.width_px, 64)
    y = spec.height_px * (0.2 + 0.05 * np.sin(x / spec.width_px * 9))
    stroke = np.zeros(is_spoiled.shape, np.uint8)
    points = np.stack([x, y], axis=1).astype(np.int32)
    cv2.polylines(stroke, [points], False, 1, thickness=max(3, round(30 / spec.mpp / 4)))
    marked = stroke > 0
    rgb[marked] = (0.15 * rgb[marked] + 0.85 * np.asarray(PEN_COLOUR)).astype(np.uint8)
    is_spoiled |= marked


def add_noise(rgb: ByteArray, spec: DrawnSlideSpec) -> None:
    """Camera noise, from one small pattern laid side by side."""
    pattern = rng_of(spec, "camera").normal(0, 1.5, (256, 256, 3)).round().astype(np.int16)
    for top in range(0, rgb.shape[0], 256):
        for left in range(0, rgb.shape[1], 256):
            piece = rgb[top : top + 256, left : left + 256]
            noisy = piece + pattern[: piece.shape[0], : piece.shape[1]]
            piece[:] = np.clip(noisy, 0, 255).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma_px: float) -> FloatArray:
    """Noise of mean 0 and standard deviation 1 without detail below ``sigma_px``."""
    noise = rng.standard_normal(shape, np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), max(0.3, sigma_px), borderType=cv2.BORDER_REFLECT)
    scaled: FloatArray = (smooth - smooth.mean()) / smooth.std()
    return scaled
