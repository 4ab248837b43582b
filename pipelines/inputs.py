"""What can be wrong with slides and output folder: told before anything heavy begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ccrl_wsi.config import Settings
from ccrl_wsi.devices import resolve_device
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.nuclei.segmenters import SEGMENTERS, WITHOUT_DOWNLOAD
from ccrl_wsi.object_storage import is_url
from ccrl_wsi.records import SlideSource
from ccrl_wsi.slides.regions import check_regions
from pipelines.machines import GpuMachine, LocalMachine, MachineSettings, SerialMachine
from pipelines.output_folder import OutputFolder

log = logging.getLogger("ccrl_wsi")

NAMED_AT_MOST = 5


def check_inputs(
    sources: Sequence[SlideSource], out: Path | str, settings: Settings, machine: MachineSettings
) -> None:
    """Refuse what cannot be meant; slides that are missing fail alone and are named.

    Raises
    ------
    ConfigError
        If no slide is there, one file of regions is given for several, or results would come to
        lie among slides.
    """
    check_regions(len(sources), settings.tissue)
    if not is_url(out):
        _refuse_slides_folder(sources, OutputFolder(Path(out)))
    if isinstance(machine, SerialMachine | LocalMachine | GpuMachine):
        _check_paths(sources)
    if isinstance(machine, SerialMachine | LocalMachine):
        _say_how_slow(settings)


def _say_how_slow(settings: Settings) -> None:
    name = settings.nuclei.segmenter
    if name in WITHOUT_DOWNLOAD or name not in SEGMENTERS:
        return
    if resolve_device(settings.compute.device) == "cpu":
        log.warning(
            "%s runs on CPU cores here, which takes hours per slide: `-c infer/compact` is made "
            "for them.",
            name,
        )


def _check_paths(sources: Sequence[SlideSource]) -> None:
    """Only on the computer that reads them: workers of a cluster may see other disks."""
    missing = [str(source.path) for source in sources if not source.path.exists()]
    if not missing:
        return
    named = ", ".join(missing[:NAMED_AT_MOST])
    if len(missing) > NAMED_AT_MOST:
        named += f" and {len(missing) - NAMED_AT_MOST} more"
    if len(missing) == len(sources):
        raise ConfigError(f"There is no file {named}. Check the path.")
    log.warning("Missing, so they will fail: %s. The other slides are done.", named)


def _refuse_slides_folder(sources: Sequence[SlideSource], folder: OutputFolder) -> None:
    """Results never lie beside slides, in the same folder or in one called ``slides`` too."""
    if folder.run_file.is_file():
        return  # An earlier run's, which is continued.
    root = folder.root.resolve()
    taken = {root, root / folder.slides.name}
    for source in sources:
        if source.path.absolute().parent.resolve() in taken:
            raise ConfigError(
                f"-o {folder.root} is where slides lie ({source.path}): results would be mixed "
                f"with them. Give a folder of its own, such as -o {folder.root / 'out'}."
            )
