"""What goes wrong with an object store: exit code 2 and one sentence, without secrets."""

from __future__ import annotations

import socket
import sys
import urllib.request

import pytest
import typer

from pipelines.cli import app
from tests.object_stores import BUCKET, SECRET
from tests.pipelines.conftest import SMOKE
from tests.pipelines.test_bad_input import call


@pytest.fixture
def run(monkeypatch, capfd, slide_file):
    def run_(url: str) -> str:
        settings = [part for setting in SMOKE for part in ("--set", setting)]
        options = ["-o", url, "--on", "serial", *settings]
        code, said = call(monkeypatch, capfd, "run", slide_file, *options)
        assert code == 2
        assert "Traceback" not in said
        assert SECRET not in said
        [sentence] = [line for line in said.splitlines() if line.startswith("ccrl-wsi: ")]
        return sentence

    return run_


def forget_connections() -> None:
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_missing_bucket(s3, run):
    assert "There is no bucket for s3://no-such-bucket/out" in run("s3://no-such-bucket/out")


def test_wrong_credentials(s3, run):
    def check_them(n_calls_without: str) -> None:
        address, kind = f"{s3}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        wanted = urllib.request.Request(address, n_calls_without.encode(), kind)
        urllib.request.urlopen(wanted).close()

    check_them("0")
    try:
        sentence = run(f"s3://{BUCKET}/out")
    finally:
        check_them("inf")
    assert f"s3://{BUCKET}/out: access is refused" in sentence
    assert "AWS_ACCESS_KEY_ID" in sentence


def test_no_credentials(s3, run, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_connections()
    assert "access is refused (Unable to locate credentials)" in run(f"s3://{BUCKET}/out")
    forget_connections()


def test_an_endpoint_that_does_not_answer(s3, run, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_connections()
    sentence = run(f"s3://{BUCKET}/out")
    assert f"s3://{BUCKET}/out cannot be reached (EndpointConnectionError)" in sentence
    forget_connections()


def test_an_unknown_scheme(run):
    assert "sftp:// is no object store" in run("sftp://host/out")


def test_a_missing_driver(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert "gs:// needs a package that is not installed: pip install gcsfs." in run("gs://b/out")


WRITERS = [
    *[
        "demo",
        "doctor",
        "train",
        "train-segmenter",
        "evaluate",
        "evaluate ccrl",
        "label-fields x.tif",
    ],
    "evaluate --moa x.csv",
    "profile x.safetensors --data x",
    "pyramid x.png --mpp 0.5",
]


def refused(monkeypatch, capfd, command, folder):
    """What a command in ``folder`` says that refuses to begin and leaves nothing there."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "1000")
    code, said = call(monkeypatch, capfd, *command)
    assert code == 2
    assert "Traceback" not in said
    assert list(folder.iterdir()) == []
    return said


@pytest.mark.parametrize("command", [*(f"{c} -o" for c in WRITERS), "export out --to qupath -t"])
def test_commands_that_need_a_disk_say_so(monkeypatch, capfd, command, tmp_path):
    said = refused(monkeypatch, capfd, [*command.split(), "s3://bucket/out"], tmp_path)
    assert "s3://bucket/out is an address, and a folder on disk is needed here. Only `run`" in said


def test_every_option_that_is_written_to_was_thought_of():
    def options(command):
        return {name for o in command.params if o.param_type_name == "option" for name in o.opts}

    commands = typer.main.get_command(app).commands
    takes_out = {name for name, command in commands.items() if options(command) & {"--out", "-t"}}
    assert takes_out == {line.split()[0] for line in WRITERS} | {"run", "export"}


@pytest.mark.parametrize("command", ["run x.tif -o", "cluster", "verify", "report"])
def test_one_slash_makes_no_folder(monkeypatch, capfd, command, tmp_path):
    said = refused(monkeypatch, capfd, [*command.split(), "s3:/bucket/out"], tmp_path)
    assert "An address has two slashes: s3://bucket/out." in said


def test_a_codebook_is_read_from_disk(monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "1000")
    code, said = call(monkeypatch, capfd, "cluster", "out", "--codebook", "s3://bucket/out")
    assert code == 2
    assert "s3://bucket/out is an address, and this is read from disk" in said


@pytest.mark.parametrize("command", ["verify", "cluster", "report", "export"])
def test_there_is_no_run(s3, monkeypatch, capfd, command):
    options = ["--to", "qupath"] if command == "export" else []
    code, said = call(monkeypatch, capfd, command, f"s3://{BUCKET}/nothing", *options)
    assert code == 2
    assert f"s3://{BUCKET}/nothing is not the output of `ccrl-wsi run`" in said
