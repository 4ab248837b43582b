"""Which software made a result."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = (
    "ccrl-wsi",
    "tiatoolbox",
    "torch",
    "torchvision",
    "openslide-python",
    "openslide-bin",
    "numpy",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "opencv-python",
    "opencv-python-headless",
    "shapely",
    "geopandas",
    "pyarrow",
    "zarr",
    "dask",
    "distributed",
)


def versions() -> dict[str, str]:
    """Versions of Python, the platform and every package that can change a result.

    They are read from the packages' metadata: nothing is imported.
    """
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return found | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
