"""What this computer has and lacks for a run. Looks and tries; changes nothing that stays."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import yaml

from ccrl_wsi.config import EmbeddingSettings
from ccrl_wsi.errors import CcrlError
from ccrl_wsi.nuclei.weights import weights_folder
from pipelines.machines import LocalMachine

GIB = 2**30
ROOM_WANTED = 10 * GIB
ROOM_NEEDED = 0.2 * GIB
MEMORY_PER_CORE = 2 * GIB
NAMED_PACKAGES = ("ccrl-wsi", "tiatoolbox", "torch", "zarr", "dask", "numpy")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Parameters
    ----------
    name
        What was looked at.
    state
        ``ok``; ``warn``: works, but less or slower; ``fail``: a run will not work.
    detail
        What was found.
    advice
        What to do about it; empty where nothing is to be done.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""


def diagnose(out_dir: Path | None = None, *, start_workers: bool = True) -> list[Check]:
    """Look at everything a run stands on.

    Parameters
    ----------
    out_dir
        Where results are to go; it need not exist. Default: the current folder.
    start_workers
        Whether to try a Dask worker too, which takes some seconds.
    """
    looks: list[Callable[[], Check]] = [
        check_python,
        check_packages,
        check_openslide,
        check_opencv,
        check_gpu,
        check_weights,
        check_segmenters,
        check_encoders,
        check_computer,
        lambda: check_output(out_dir or Path()),
    ]
    if start_workers:
        looks.append(check_dask)
    return [look() for look in looks]


def render(checks: Iterable[Check]) -> str:
    """The findings as plain text, advice below what it is about."""
    lines = []
    for check in checks:
        lines.append(f"{check.state:<6}{check.name:<12}{check.detail}")
        if check.advice:
            lines += textwrap.wrap(
                check.advice,
                width=96,
                initial_indent=" " * 18 + "-> ",
                subsequent_indent=" " * 21,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def check_python() -> Check:
    """Whether this Python is one the packages are made for."""
    detail = f"{platform.python_version()} on {platform.platform()}"
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Check("Python", "ok", detail)
    return Check("Python", "fail", detail, "Make an environment with Python 3.11 or 3.12.")


def check_packages() -> Check:
    """Whether every package that is required is installed, in a version that fits."""
    wrong = _unmet_requirements()
    if wrong:
        advice = "Install again: `make install` in a checkout, else `pip install -U ccrl-wsi`."
        return Check("Packages", "fail", "; ".join(wrong), advice)
    named = ", ".join(f"{name} {metadata.version(name)}" for name in NAMED_PACKAGES)
    return Check("Packages", "ok", named)


def check_openslide() -> Check:
    """Whether the OpenSlide library loads, and which."""
    try:
        import openslide
    except (ImportError, OSError) as error:
        advice = "`pip install openslide-bin`, or install OpenSlide with the system's packages."
        return Check("OpenSlide", "fail", f"does not load: {error}", advice)
    return Check("OpenSlide", "ok", str(openslide.__library_version__))


def check_opencv() -> Check:
    """Whether OpenCV loads: its usual build needs libraries that servers often lack."""
    try:
        import cv2
    except ImportError as error:
        advice = (
            "Install libgl1 and libglib2.0-0 with the system's packages, or "
            "`pip install --force-reinstall --no-deps opencv-python-headless`."
        )
        return Check("OpenCV", "fail", f"does not load: {error}", advice)
    return Check("OpenCV", "ok", str(cv2.__version__))


def check_gpu() -> Check:
    """Which CUDA GPUs PyTorch can use."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("GPU", "fail", f"PyTorch does not load: {error}", "Install torch again.")
    if not torch.cuda.is_available():
        advice = (
            "HoVer-Net will take hours per slide here; --set nuclei.segmenter=compact is made for "
            "such computers."
        )
        return Check("GPU", "warn", "none that CUDA can use", advice)
    names = [
        f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    return Check("GPU", "ok", "; ".join(names))


def check_weights() -> Check:
    """Which HoVer-Net weights lie where TIAToolbox looks for them before it downloads."""
    repositories = _hovernet_repositories()
    if not repositories:
        detail = "tiatoolbox, or its list of models, is not installed"
        return Check("Weights", "fail", detail, "Install ccrl-wsi again.")
    folder = weights_folder()
    present = [name for name in repositories if (folder / f"{name}.pth").is_file()]
    missing = [name for name in repositories if name not in present]
    if not missing:
        return Check("Weights", "ok", f"all {len(present)} in {folder}")
    sources = ", ".join(sorted({repositories[name] for name in missing}))
    advice = (
        f"The first use downloads them. Without internet, put NAME.pth into {folder} "
        f"(from huggingface.co/{sources}; missing: {', '.join(missing)}), give a file with "
        "--set nuclei.weights=FILE, or use --set nuclei.segmenter=compact, which is here."
    )
    return Check("Weights", "warn", f"{', '.join(present) or 'none'} in {folder}", advice)


def check_segmenters() -> Check:
    """Whether the segmenter that comes with the package is there, and what it was trained on."""
    from ccrl_wsi.nuclei.compact import BUNDLED
    from ccrl_wsi.nuclei.compact_checkpoint import read_segmenter_header

    try:
        header = read_segmenter_header(BUNDLED)
    except CcrlError:
        return Check(
            "Segmenters",
            "warn",
            "compact: not usable",
            f"{BUNDLED} is missing or damaged: install ccrl-wsi again.",
        )
    data = header.training.get("data", ())
    licences = "; ".join(source.get("licence", "not said") for source in data)
    return Check("Segmenters", "ok", f"compact, {header.mpp:g} um per pixel (licences: {licences})")


def check_encoders() -> Check:
    """Whether the encoders that come with the package are there, and what they were trained on."""
    from ccrl_wsi.embeddings.checkpoint import read_header
    from ccrl_wsi.embeddings.encoders import BUNDLED, encoder_file

    said, problems = [], []
    for name in BUNDLED:
        try:
            header = read_header(encoder_file(name) or Path(name))
        except CcrlError as error:
            problems.append((name, str(error)))
            continue
        data, licence = (header.training.get(key, "not said") for key in ("data", "licence"))
        said.append(f"{name}: {header.name}, trained on {data} (licence: {licence})")
    if not problems:
        return Check("Encoders", "ok", "; ".join(said))
    is_default = EmbeddingSettings().encoder in {name for name, _ in problems}
    state: Literal["warn", "fail"] = "fail" if is_default else "warn"
    detail = "; ".join([*said, *(f"{name}: not usable" for name, _ in problems)])
    return Check("Encoders", state, detail, " ".join(error for _, error in problems))


def check_computer() -> Check:
    """Cores and memory this process may use: containers and batch jobs may allow less than all."""
    from dask.system import cpu_count
    from distributed.system import memory_limit

    cores, memory = cpu_count(), memory_limit()
    detail = f"{cores} cores, {memory / GIB:.1f} GiB of memory"
    if memory >= cores * MEMORY_PER_CORE:
        return Check("Computer", "ok", detail)
    workers = max(1, int(memory // MEMORY_PER_CORE))
    advice = (
        f"Less than 2 GiB a core: use a machine file with `kind: local` and `workers: {workers}`."
    )
    return Check("Computer", "warn", detail, advice)


def check_output(out_dir: Path) -> Check:
    """Whether results can be written, replaced in one step, and have room in ``out_dir``."""
    wanted = out_dir.absolute()
    folder = _nearest_folder(wanted)
    place = str(wanted) if folder == wanted else f"{wanted}, to be made in {folder}"
    try:
        _try_writing(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        reason = error.strerror or str(error)
        return Check("Output", "fail", f"{place}: {reason}", "Choose another folder with -o.")
    detail = f"{place}: writable, {free / GIB:.1f} GiB free"
    if free >= ROOM_WANTED:
        return Check("Output", "ok", detail)
    state: Literal["warn", "fail"] = "warn" if free >= ROOM_NEEDED else "fail"
    return Check("Output", state, detail, "Make room, or choose another folder with -o.")


def check_dask() -> Check:
    """Whether a Dask worker starts on this computer and answers."""
    from pipelines.dask_clusters import connect

    try:
        with connect(LocalMachine(workers=1)) as workers:
            answer = workers.client.submit(os.getpid).result(timeout=30)
    except (OSError, RuntimeError, TimeoutError, CcrlError) as error:
        advice = "Use --on serial, and see whether a firewall blocks 127.0.0.1."
        return Check("Dask", "fail", f"no worker answers: {error}", advice)
    return Check("Dask", "ok", f"a local worker answers (process {answer})")


def _unmet_requirements() -> list[str]:
    from packaging.requirements import Requirement

    wrong = []
    for requirement in map(Requirement, metadata.requires("ccrl-wsi") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    return wrong


def _hovernet_repositories() -> dict[str, str]:
    # TIAToolbox's own list, read as a file: importing the package takes half a minute.
    spec = importlib.util.find_spec("tiatoolbox")
    listed = Path(spec.origin if spec and spec.origin else "").parent / "data/pretrained_model.yaml"
    if not listed.is_file():
        return {}
    models: dict[str, Any] = yaml.safe_load(listed.read_text(encoding="utf-8"))
    return {name: m["hf_repo_id"] for name, m in models.items() if name.startswith("hovernet_")}


def _nearest_folder(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _try_writing(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".ccrl-wsi-", dir=folder) as scratch:
        old, new = Path(scratch, "old"), Path(scratch, "new")
        old.write_bytes(b"old")
        new.write_bytes(b"new")
        new.replace(old)
        if old.read_bytes() != b"new":
            raise OSError("a file that was replaced still has its old content")
