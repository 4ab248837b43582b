"""Object stores to test with: one in memory, and a server on loopback that speaks S3."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ccrl_wsi.object_storage import ObjectFolder

SECRET = "a-secret-that-nobody-may-see"
BUCKET = "ccrl-wsi-test"


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint of a server with the bucket ``BUCKET``; credentials are in the environment."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    fsspec = pytest.importorskip("fsspec")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        # Checksums of requests, and a line for each, would take most of the time.
        patch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        patch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        patch.setattr(logging.getLogger("werkzeug"), "disabled", True)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield endpoint
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def contents(url: str) -> dict[str, bytes]:
    """All objects below ``url``."""
    folder = ObjectFolder.at(url)
    return {name: folder.read(name) for name in folder.walk()}


def empty_memory() -> None:
    """Forget all objects in memory, which outlive a test."""
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def files_on_disk(folder: Path) -> dict[str, bytes]:
    """The same of a folder on disk, but its lock."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
