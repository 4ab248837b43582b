"""Which drawn regions a slide's cells come from, so that it can be told later."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import sha256

from ccrl_wsi.config import TissueSettings
from ccrl_wsi.records import SlideInfo
from ccrl_wsi.slides.regions import regions_file


@dataclass(frozen=True, slots=True)
class UsedRegions:
    """The file of regions, and the SHA-256 of its bytes, as `sha256sum` prints it."""

    path: str
    sha256: str

    def record(self) -> dict[str, str]:
        """As a store and a state remember it."""
        return asdict(self)


def used_regions(info: SlideInfo, settings: TissueSettings) -> UsedRegions | None:
    """Those that ``settings`` give the slide; None where cells are not looked for in regions."""
    if settings.method != "geojson":
        return None
    file = regions_file(info, settings)
    return UsedRegions(str(file), sha256(file.read_bytes()).hexdigest())
