"""Shared fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before any library reads them: small arrays only wait for the threads of large ones.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402

from tests.object_stores import s3_server  # noqa: E402
from tests.pretended_gpu import pretended_gpu  # noqa: E402, F401

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The endpoint of an S3 server on loopback with a bucket; it is found by the environment."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data, or a skip that says how to give one."""
    folder = Path(os.environ.get("CCRL_WSI_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set CCRL_WSI_DATA")
    return folder
