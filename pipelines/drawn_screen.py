"""A drawn screen as files, in the layout of BBBC021: what training and profiling are shown on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import tifffile

from ccrl_wsi.datasets.bbbc021 import (
    CHANNELS,
    COMPOUND,
    CONCENTRATION,
    IMAGE_TABLE,
    MOA_TABLE,
    PLATE,
    WELL,
)
from ccrl_wsi.datasets.bbbc021_files import X, Y
from ccrl_wsi.synthetic_fields import DrawnScreen, draw_field, wells_of


def write_drawn_screen(folder: Path, screen: DrawnScreen, *, locations: bool = False) -> None:
    """Draw all fields of ``screen`` into ``folder``, with both tables.

    ``locations``: where the cells are as well; else they are found in the DNA.
    """
    rows, mechanisms = [], {}
    for well in wells_of(screen):
        mechanisms[well.compound, well.concentration] = well.mechanism
        place = Path(well.plate.split("_")[0], well.plate)
        (folder / place).mkdir(parents=True, exist_ok=True)
        for site in range(1, screen.n_fields + 1):
            field, centres = draw_field(screen, well, site)
            if locations:
                places = folder / "locations" / well.plate / f"{well.well}-{site}-Nuclei.csv"
                places.parent.mkdir(parents=True, exist_ok=True)
                np.savetxt(places, centres, "%.2f", ",", header=f"{X},{Y}", comments="")
            row: dict[str, object] = {}
            for number, channel in enumerate(CHANNELS):
                name = f"{well.well}_s{site}_w{(1, 2, 4)[number]}.tif"
                tifffile.imwrite(folder / place / name, field[..., number])
                row[f"Image_FileName_{channel}"] = name
                row[f"Image_PathName_{channel}"] = place.as_posix()
            row |= {PLATE: well.plate, WELL: well.well, "Replicate": 1}
            rows.append(row | {COMPOUND: well.compound, CONCENTRATION: well.concentration})
    with (folder / IMAGE_TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with (folder / MOA_TABLE).open("w", newline="", encoding="utf-8") as file:
        # The line ends of the original.
        table = csv.writer(file, lineterminator="\r")
        table.writerow(["compound", "concentration", "moa"])
        table.writerows([*treatment, name] for treatment, name in mechanisms.items())
