"""Profiles whose scores are known: mechanisms are directions, batches a shift."""

import numpy as np
import pandas as pd


def profile_frame(seed=0, shift=0.0, n_controls=4):
    """Three mechanisms of two compounds each at two doses, two wells each, in two weeks.

    Controls lie around 0, treatments well away from it; ``shift`` moves the second week's.
    """
    rng = np.random.default_rng(seed)
    d, rows, features = 8, [], []
    directions = 6 * np.linalg.qr(rng.normal(size=(d, d)))[0][:3]
    for week in (1, 2):
        plate = f"Week{week}_{100 + week}"
        wells = (f"{row}{column:02d}" for row in "BCDEFG" for column in range(2, 12))
        for _ in range(n_controls):
            rows.append((plate, next(wells), "DMSO", 0.0, "DMSO"))
            features.append(rng.normal(size=d) + shift * (week == 2))
        for mechanism in range(3):
            for dose in (0.1, 1.0):
                for _ in range(2):
                    name = f"compound{mechanism}-{week}"
                    rows.append((plate, next(wells), name, dose, f"mechanism {mechanism}"))
                    noise = 0.5 * rng.normal(size=d)
                    features.append(directions[mechanism] + noise + shift * (week == 2))
    columns = ["plate", "well", "compound", "concentration", "moa"]
    about = pd.DataFrame(rows, columns=[f"Metadata_{name.capitalize()}" for name in columns])
    values = pd.DataFrame(features, columns=[f"Cells_F{i}" for i in range(d)])
    return pd.concat([about, values], axis=1)
