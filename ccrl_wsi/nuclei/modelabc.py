"""Any TIAToolbox ``ModelABC`` as a segmenter, named ``package.module:ClassOrFactory``.

What is asked of the model:

- Called without arguments, the class or factory gives a torch module with ``preproc``,
  ``infer_batch`` and ``postproc``.
- ``preproc`` takes one window (h, w, 3) uint8. ``infer_batch(model, batch, device=...)`` takes
  what ``preproc`` returned, stacked to (n, h, w, 3), and gives one array (n, h', w', ...) or a
  tuple of such. Outputs may be smaller than windows; they are taken to be centred, at the same
  resolution. ``nuclei.window_px`` (1024 if not given) must be a side that the
  network accepts.
- ``infer_batch`` and ``postproc`` may be called from different threads, each by one at a time.
- ``postproc`` takes the maps of the whole image, a list where ``infer_batch`` gave a tuple, and
  returns a label image, TIAToolbox's dictionary (``predictions`` and/or ``info_dict``), or a pair
  of label image and ``info_dict``. For a nucleus to be the same in every tile, it must not
  normalise by the image.
- ``class_dict`` names the types: ``{0: "Background", ...}``, or such by task.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import cv2
import numpy as np

from ccrl_wsi.arrays import ByteArray, IntArray
from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.device_work import told_work
from ccrl_wsi.devices import computing
from ccrl_wsi.errors import ModelError
from ccrl_wsi.interfaces import Maps, Prediction
from ccrl_wsi.nuclei.hovernet import contained_logging
from ccrl_wsi.nuclei.tile_maps import Arrived
from ccrl_wsi.nuclei.weights import load_weights
from ccrl_wsi.nuclei.windows import ON_CPU_PX, Windows, predict_in_windows
from ccrl_wsi.records import Segmentation

_NEEDED = ("preproc", "infer_batch", "postproc")
_ONLY = "only"
"""The name of a map that the model gives alone, not in a tuple."""


@dataclass(frozen=True, eq=False, slots=True)
class ModelAbcSegmenter:
    """A user's model as a segmenter; :func:`load_modelabc` makes one from settings.

    Parameters
    ----------
    name
        The import path.
    type_names
        From the model's ``class_dict``; empty where it has none.
    model
        The model, on ``device``.
    device
        Passed to ``infer_batch``.
    window_px, batch_size
        Side of a window, and windows at once.
    margin
        Pixels by which an output is smaller than its window, on every side.
    """

    name: str
    type_names: tuple[str, ...]
    model: Any
    device: str
    window_px: int
    batch_size: int
    margin: int
    _asking: Lock = field(default_factory=Lock, init=False, repr=False)
    _finishing: Lock = field(default_factory=Lock, init=False, repr=False)

    def __call__(self, rgb: ByteArray, mpp: float) -> Segmentation:
        """Nuclei of ``rgb`` (height, width, 3) uint8; ``mpp`` is the model's own affair."""
        return self.segment(self.predict(rgb, mpp).wait())

    def predict(self, rgb: ByteArray, mpp: float) -> Prediction:
        """What the model's heads say of ``rgb``."""
        del mpp
        kept = self.window_px - 2 * self.margin
        windows = Windows(rgb.shape[:2], (kept, kept), self.margin)
        with self._asking:
            return Arrived(predict_in_windows(rgb, windows, self.batch_size, self._heads))

    def segment(self, maps: Maps) -> Segmentation:
        """What the model's ``postproc`` makes of them."""
        postproc = getattr(self.model, "postproc_func", self.model.postproc)
        height, width = next(iter(maps.values())).shape[:2]
        with self._finishing:  # Nobody promised that a user's model stands several threads.
            result = postproc(maps[_ONLY] if _ONLY in maps else list(maps.values()))
        return read_result(result, (height, width), self.name, is_typed=bool(self.type_names))

    def _heads(self, batch: ByteArray) -> dict[str, np.ndarray]:
        """What the model says of windows (n, h, w, 3), in the order of its heads."""
        output = _infer(self.model, batch, self.device)
        if isinstance(output, tuple):
            return {str(number): head for number, head in enumerate(output)}
        return {_ONLY: output}


def load_modelabc(settings: NucleiSettings, device: str) -> ModelAbcSegmenter:
    """The model that ``settings.segmenter`` names, on ``device``.

    Raises
    ------
    ModelError
        If it cannot be imported, is no such model, or its weights do not fit.
    """
    import torch

    name = settings.segmenter
    with contained_logging():
        model = _make_model(name)
    if settings.weights is not None:
        load_weights(model, settings.weights, name)
    model.eval()
    # A ModelABC's own `to` would spread it over every GPU it sees.
    torch.nn.Module.to(model, device=device)
    window_px = settings.window_px or ON_CPU_PX
    return ModelAbcSegmenter(
        name=name,
        type_names=_type_names(model),
        model=model,
        device=device,
        window_px=window_px,
        batch_size=settings.batch_size,
        margin=_measure_margin(model, window_px, device, name),
    )


def read_result(result: Any, shape: tuple[int, int], name: str, *, is_typed: bool) -> Segmentation:
    """What ``postproc`` returned for an image of ``shape``, as a segmentation.

    Raises
    ------
    ModelError
        If it is neither labels nor outlines of nuclei.
    """
    labels, info = _labels_and_info(result, shape)
    if info is not None:
        contours = [_clean_contour(c) for c in info.get("contours", ())]
        labels = _draw(contours, shape) if labels is None else _pick(labels, contours)
        return _with_types(labels, info, is_typed)
    if labels is not None:
        return Segmentation.untyped(_renumber(labels))
    raise ModelError(
        f"The postproc of {name} returns neither a label image of {shape[0]} x {shape[1]} px "
        "nor an info_dict of nuclei: see the documentation of ccrl_wsi.nuclei.modelabc."
    )


def _make_model(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"nuclei.segmenter={name} cannot be imported ({error}). It must be installed, or its "
            "folder named in PYTHONPATH."
        ) from error
    model = factory()
    missing = [method for method in _NEEDED if not callable(getattr(model, method, None))]
    if missing:
        raise ModelError(f"{name} is no TIAToolbox ModelABC: it has no {', '.join(missing)}.")
    return model


def _infer(model: Any, cuts: Iterable[ByteArray], device: str) -> Any:
    import torch

    preproc = getattr(model, "preproc_func", model.preproc)
    batch = torch.from_numpy(np.stack([np.asarray(preproc(cut)) for cut in cuts]))
    # The user's own precision, if any: that of the settings is not asked.
    with computing(device, "float32"), told_work("network", device):
        output = model.infer_batch(model, batch, device=device)
    if isinstance(output, list | tuple):
        return tuple(np.asarray(head) for head in output)
    return np.asarray(output)


def _measure_margin(model: Any, window_px: int, device: str, name: str) -> int:
    blank = np.full((window_px, window_px, 3), 255, np.uint8)
    output = _infer(model, [blank], device)
    heads = output if isinstance(output, tuple) else (output,)
    sizes = {head.shape[1:3] for head in heads}
    height, width = next(iter(sizes))
    margin = (window_px - int(height)) // 2
    if len(sizes) > 1 or height != width or height + 2 * margin != window_px or margin < 0:
        raise ModelError(
            f"{name} turns windows of {window_px} px into outputs of {sorted(sizes)} px: they must "
            "be one square, smaller by an even number of pixels or by none."
        )
    return margin


def _type_names(model: Any) -> tuple[str, ...]:
    """Names by index, from ``{0: name}`` or ``{task: {0: name}}``."""
    table = getattr(model, "class_dict", None) or {}
    if not all(isinstance(key, int | np.integer) for key in table):
        table = next((t for t in table.values() if t), {})
    n = max(table, default=-1) + 1
    return tuple(str(table.get(i, f"type {i}")) for i in range(n))


def _labels_and_info(
    result: Any, shape: tuple[int, int]
) -> tuple[IntArray | None, Mapping[str, Any] | None]:
    if isinstance(result, list | tuple) and len(result) == 1:
        return _labels_and_info(result[0], shape)
    if isinstance(result, list | tuple):
        return _labels_and_info({"predictions": result[0], "info_dict": result[1]}, shape)
    if not isinstance(result, Mapping):
        return _as_labels(result, shape), None
    if "contours" in result:
        return None, result
    info = result.get("info_dict")
    return _as_labels(result.get("predictions"), shape), None if info is None else _columns(info)


def _as_labels(image: Any, shape: tuple[int, int]) -> IntArray | None:
    array: np.ndarray = np.asarray(image) if image is not None else np.zeros(0)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    is_labels = array.shape == tuple(shape) and array.dtype.kind in "iub"
    return array.astype(np.int32) if is_labels else None


def _columns(info: Mapping[Any, Any]) -> Mapping[str, Any]:
    """``{id: {key: value}}`` turned into ``{key: [value, ...]}``, as TIAToolbox 2.1 gives it."""
    rows = list(info.values())
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        return info
    return {key: [row.get(key) for row in rows] for key in rows[0]}


def _clean_contour(contour: Any) -> IntArray:
    """Vertices (k, 2) without the padding that TIAToolbox adds to make rows of equal length."""
    vertices = np.asarray(contour, np.float64).reshape(-1, 2)
    vertices = vertices[(vertices > np.iinfo(np.int32).min).all(axis=1)]
    return np.rint(vertices).astype(np.int32)


def _draw(contours: Sequence[IntArray], shape: tuple[int, int]) -> IntArray:
    labels = np.zeros(shape, np.int32)
    for number, contour in enumerate(contours, start=1):
        cv2.fillPoly(labels, [contour], number)
    return labels


def _pick(labels: IntArray, contours: Sequence[IntArray]) -> IntArray:
    """The nuclei of ``labels`` that have a contour, numbered as the contours are."""
    number = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    for row, contour in enumerate(contours, start=1):
        # The first vertex lies on the nucleus' own edge.
        x, y = contour[0]
        number[labels[y, x]] = row
    number[0] = 0
    return np.take(number, labels)


def _with_types(labels: IntArray, info: Mapping[str, Any], is_typed: bool) -> Segmentation:
    """Nuclei with what ``info`` says of each row; rows that cover no pixel are left out."""
    rows = np.unique(labels)
    rows = rows[rows > 0] - 1
    labels = _renumber(labels)
    unknown = np.full(len(rows), np.nan, np.float32)
    share = _column(info, "prob", rows, unknown)
    if not is_typed:
        # TIAToolbox writes 0 where a model without types knows no probability.
        return Segmentation.untyped(labels, share if share.any() else unknown)
    types = _column(info, "type", rows, np.zeros(len(rows), np.int16))
    return Segmentation(labels, unknown, types, share)


def _column(info: Mapping[str, Any], key: str, rows: IntArray, absent: np.ndarray) -> np.ndarray:
    return np.asarray(list(info[key]), absent.dtype)[rows] if key in info else absent


def _renumber(labels: IntArray) -> IntArray:
    values, index = np.unique(labels, return_inverse=True)
    first = 0 if len(values) and values[0] == 0 else 1
    return (index.reshape(labels.shape) + first).astype(np.int32)
