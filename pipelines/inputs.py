"""What can be wrong with slides and output folder: told before anything heavy begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.records import SlideSource
from pipelines.machines import GpuMachine, LocalMachine, MachineSettings, SerialMachine

log = logging.getLogger("ccrl_wsi")

NAMED_AT_MOST = 5


def check_inputs(sources: Sequence[SlideSource], machine: MachineSettings) -> None:
    """Refuse slides of which none is there; slides that are missing fail alone and are named.

    Raises
    ------
    ConfigError
        If no slide is there.
    """
    if isinstance(machine, SerialMachine | LocalMachine | GpuMachine):
        _check_paths(sources)


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
