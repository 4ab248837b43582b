"""Small data sets on disk, in the forms that real ones have."""

from __future__ import annotations

import cv2
import numpy as np
import scipy.io

RGB = np.random.default_rng(5).integers(0, 256, (4, 4, 3), dtype=np.uint8)
LABELS = np.array([[0, 7, 7, 0], [0, 0, 0, 0], [300, 0, 0, 2], [300, 0, 0, 2]], np.int32)
"""Three nuclei, with gaps in their numbers, one of a size that 8 bits do not hold."""


def save_image(path, rgb):
    """Write colours or numbers; channels are in the order red, green, blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if rgb.ndim == 3:
        order = [2, 1, 0, 3][: rgb.shape[2]]
        rgb = rgb[..., order]
    assert cv2.imwrite(str(path), rgb)


def save_consep(folder, name, labels=LABELS, rgb=None, split="Train", **content):
    """One image of CoNSeP; ``content`` goes into the .mat file beside inst_map."""
    rgb = np.zeros((*labels.shape, 3), np.uint8) if rgb is None else rgb
    save_image(folder / split / "Images" / f"{name}.png", rgb)
    (folder / split / "Labels").mkdir(exist_ok=True)
    file = folder / split / "Labels" / f"{name}.mat"
    scipy.io.savemat(file, {"inst_map": labels.astype(np.float64), **content})
    return file


def nucls_mask(labels, codes, *, field_of_view=True):
    """Mask (h, w, 3) of objects numbered from 0 in drawing order, -1 outside all of them.

    Object 0 is the field of view. Pairs are drawn in the order (1, 2), (1, 3), ... (2, 3), ...
    """
    pairs = [(a, b) for a in range(1, 256) for b in range(a + 1, 256)]
    mask = np.zeros((*labels.shape, 3), np.uint8)
    mask[:] = (253, 1, 2) if field_of_view else (0, 0, 0)
    for number, code in codes.items():
        mask[labels == number] = (code, *pairs[number])
    return mask


def save_nucls(folder, stem, mask, rgb=None, rows=None, rgb_folder="rgb"):
    """One field of view; ``rows`` are the classes in its table."""
    rgb = np.zeros((*mask.shape[:2], 3), np.uint8) if rgb is None else rgb
    save_image(folder / rgb_folder / f"{stem}.png", rgb)
    save_image(folder / "mask" / f"{stem}.png", mask)
    if rows is not None:
        (folder / "csv").mkdir(exist_ok=True)
        text = "\n".join(["raw_classification,xmin", *(f"{row},1" for row in rows)])
        (folder / "csv" / f"{stem}.csv").write_text(text)


def save_fold(folder, fold, train, test):
    """The lists of a fold, with the columns of the official ones."""
    (folder / "train_test_splits").mkdir(parents=True, exist_ok=True)
    for split, slides in (("train", train), ("test", test)):
        rows = [f"{i},{s},{s.split('-')[1]},{split},{fold}" for i, s in enumerate(slides)]
        text = "\n".join([",slide_name,hospital,type,fold", *rows])
        (folder / "train_test_splits" / f"fold_{fold}_{split}.csv").write_text(text + "\n")
