"""Versions are read, not imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from ccrl_wsi.provenance import versions


def test_versions_name_what_is_installed():
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == sys.version.split()[0]


def test_versions_import_no_heavy_package():
    code = (
        "import sys, ccrl_wsi.provenance as p; p.versions();"
        "print({'torch', 'tiatoolbox', 'zarr', 'dask'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
