"""What a worker must agree on with the driver before it is given work, and what it loads first.

Results are equal whoever computes them only where software, networks and files are the same.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ccrl_wsi
from ccrl_wsi.config import Settings
from ccrl_wsi.errors import CcrlError
from ccrl_wsi.provenance import versions
from ccrl_wsi.records import SlideSource
from pipelines.folder_sign import Sign
from pipelines.models import Models

PATIENCE_SECONDS = 5.0
"""Network file systems show a new file to other computers after a while."""

CODE = "code of ccrl-wsi"
FOLDERS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What the driver has and every worker must have.

    Parameters
    ----------
    environment
        Of :func:`environment`.
    folders
        That must be there: those of the slides.
    sign
        Of the output folder, which must be there.
    settings, models
        Networks to be loaded, and what they must be; None where none is needed.
    """

    environment: Mapping[str, str]
    folders: tuple[Path, ...]
    sign: Sign
    settings: Settings | None = None
    models: Models | None = None


def make_setup(
    sources: Sequence[SlideSource],
    sign: Sign,
    settings: Settings | None = None,
    models: Models | None = None,
) -> WorkerSetup:
    """The setup of a run; folders that the driver itself does not see are not asked for."""
    folders = {source.path.absolute().parent for source in sources}
    seen = tuple(sorted(folder for folder in folders if folder.is_dir()))
    return WorkerSetup(environment(), seen, sign, settings, models)


def environment() -> dict[str, str]:
    """What decides results on a computer: versions of packages, and the code of this one."""
    found = versions()
    del found["platform"]
    found["python"] = found["python"].rpartition(".")[0]
    # Either package brings the same OpenCV.
    names = ("opencv-python", "opencv-python-headless")
    opencv = [v for name in names if (v := found.pop(name)) != "not installed"]
    return {**found, "opencv": max(opencv, default="not installed"), CODE: _digest_of_code()}


def _digest_of_code() -> str:
    digest = hashlib.sha256()
    library = Path(ccrl_wsi.__file__).parent
    for root in (library, Path(__file__).parent):
        for file in sorted(root.rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def problems_here(setup: WorkerSetup) -> list[str]:
    """Sentences about what this worker lacks; loads its networks on the way."""
    there = environment()
    problems = [
        f"{name} is {there.get(name, 'unknown')} there, {wanted} here"
        for name, wanted in setup.environment.items()
        if there.get(name) != wanted
    ]
    hidden = [str(folder) for folder in setup.folders if not folder.is_dir()]
    if hidden:
        more = f" and {len(hidden) - FOLDERS_SHOWN} more" if len(hidden) > FOLDERS_SHOWN else ""
        problems.append(f"it does not see {', '.join(hidden[:FOLDERS_SHOWN])}{more}")
    if not _sees(setup.sign):
        problems.append(f"it does not see this run's output folder {setup.sign.place}")
    return problems or _problems_of_networks(setup)


def _sees(sign: Sign) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not sign.is_seen():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _problems_of_networks(setup: WorkerSetup) -> list[str]:
    if setup.settings is None or setup.models is None:
        return []
    from pipelines.models import find_models

    try:
        found = find_models(setup.settings)
    except CcrlError as error:
        return [str(error)]
    wanted = setup.models.recorded()
    return [
        f"its {name} is another one ({value} there, {wanted[name]} here)"
        for name, value in found.recorded().items()
        if value != wanted[name]
    ]
