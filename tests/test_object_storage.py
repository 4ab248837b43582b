"""Objects are written whole, read in pieces, and told about without secrets."""

from __future__ import annotations

import importlib
import io
import sys

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ccrl_wsi.errors import ConfigError, StorageError
from ccrl_wsi.object_storage import ObjectFolder, is_url
from pipelines.faults import guarded
from tests.object_stores import BUCKET, SECRET, empty_memory


@pytest.fixture(params=["memory", "s3"])
def folder(request):
    if request.param == "s3":
        request.getfixturevalue("s3")
    empty_memory()
    url = f"{request.param}://{BUCKET}/{request.node.name.partition('[')[0]}"
    return ObjectFolder.at(url)


def test_objects_are_written_read_listed_and_deleted(folder, tmp_path):
    assert (folder.entries(), folder.walk("b")) == (({}, []), [])
    assert folder.write("a.json", b"{}")
    assert not folder.write("a.json", b"[]", only_new=True)
    assert folder.write("new.json", b"", only_new=True)
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/x", "b/c/y"):
        (tmp_path / name).write_bytes(name.encode())
    folder.put_files(tmp_path, ["b/x", "b/c/y"])
    files, folders = folder.entries()
    assert (sorted(files), folders) == (["a.json", "new.json"], ["b"])
    assert list(folder.entries("b")[0]) == ["b/x"]
    assert folder.walk() == ["a.json", "b/c/y", "b/x", "new.json"]
    assert folder.inside("b").walk("c") == ["c/y"]
    folder.get_files(["b/x", "b/c/y"], tmp_path / "copy")
    assert (tmp_path / "copy" / "b" / "c" / "y").read_bytes() == b"b/c/y"
    assert [folder.exists(name) for name in ("b/x", "b", "nothing")] == [True, False, False]
    folder.delete(["b/x", "nothing"])
    assert folder.walk("b") == ["b/c/y"]
    for ask in (folder.read, folder.size, lambda n: folder.get_files([n], tmp_path)):
        with pytest.raises(FileNotFoundError):
            ask("nothing")


def test_a_stamp_changes_with_its_object(folder):
    folder.write("x", b"one")
    first = folder.entries()[0]
    assert folder.entries()[0] == first
    folder.write("x", b"another")
    assert folder.entries()[0] != first


def test_pieces_of_objects_are_read(folder):
    content = bytes(range(256)) * 600
    folder.write("x", content)
    assert folder.read("x", 10, 20) == content[10:20]
    assert folder.read("x", 10) == content[10:]
    assert folder.read("x", -7) == content[-7:]
    assert folder.read("x", 5, 5) == b""
    with folder.open("x") as file:
        assert file.seek(-9, io.SEEK_END) == len(content) - 9
        assert file.read() == content[-9:]
        assert file.seek(70_000) == 70_000
        assert file.read(80_000) == content[70_000:150_000]
        assert file.seek(0) == 0
        assert file.read() == content


def test_the_time_of_writing_is_the_stores(folder):
    folder.write("x", b"")
    written = folder.modified("x")
    folder.write("y", b"")
    assert 0 <= (folder.modified("y") - written).total_seconds() < 60
    assert folder.modified("nothing") is None


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ftp://server/x", r"ftp:// is no object store .* s3://, gs://"),
        ("file:///tmp/x", r"file:// is no object store"),
        ("s3://", r"s3:// names no bucket"),
        (f"s3://user:{SECRET}@bucket/x", r"no credentials and no options"),
        (f"az://container/x?sig={SECRET}", r"no credentials and no options"),
    ],
)
def test_addresses_that_will_not_do_are_told(url, sentence):
    with pytest.raises(ConfigError, match=sentence) as refused:
        ObjectFolder.at(url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [("s3://bucket/x", "s3fs", "'ccrl-wsi[s3]'"), ("gs://bucket/x", "gcsfs", "gcsfs")],
)
def test_a_missing_driver_is_named(monkeypatch, url, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    for name in ("s3", "gs"):
        monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, name, False)
    with pytest.raises(StorageError) as missing:
        ObjectFolder.at(url)
    scheme = url.partition(":")[0]
    assert str(missing.value) == (
        f"{scheme}:// needs a package that is not installed: pip install {package}."
    )


def test_a_missing_bucket_is_told(s3):
    folder = ObjectFolder.at("s3://no-such-bucket/x")
    for ask in (folder.entries, lambda: folder.write("x", b"")):
        with pytest.raises(StorageError, match="There is no bucket for s3://no-such-bucket/x"):
            ask()


def test_secrets_of_the_environment_are_not_told(monkeypatch, s3):
    folder = ObjectFolder.at(f"s3://{BUCKET}/x")

    def fail(*_: object) -> None:
        raise ValueError(f"signed with {SECRET} for nothing\nand more")

    with pytest.raises(StorageError) as failed:
        folder._do(fail, "x")
    assert SECRET not in str(failed.value)
    assert "signed with ... for nothing" in str(failed.value)


def test_secrets_are_not_in_the_trace_either(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=SEKRIT12345;")
    folder = ObjectFolder.at(f"memory://{BUCKET}/trace")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("bad connection string AccountKey=SEKRIT12345;")

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    _, fault = guarded(folder.read, "x")
    assert "the object store failed" in fault.message
    assert "in read" in fault.trace
    assert "SEKRIT" not in fault.message + fault.trace


def test_paths_are_no_addresses(tmp_path):
    assert is_url("s3://bucket/x")
    assert not any(is_url(place) for place in ("out", "/tmp/out", "C:\\out", "s3:/x", tmp_path))
