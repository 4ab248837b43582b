"""What a run's settings come to once its networks are known."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from ccrl_wsi.cell_identity import cell_settings, fingerprint
from ccrl_wsi.config import load_settings
from ccrl_wsi.embeddings import encoders
from ccrl_wsi.embeddings.checkpoint import CropRule
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store
from pipelines import dask_clusters
from pipelines.cli import app
from pipelines.dask_clusters import visible_gpus
from pipelines.machines import GpuMachine, LocalMachine, SerialMachine
from pipelines.models import find_models
from pipelines.output_folder import claim
from pipelines.resolved_settings import resolved, with_device
from pipelines.run import run_cohort, suited
from pipelines.tools import encoder_of
from tests.pipelines.conftest import SMOKE
from tests.small_checkpoints import write_small_checkpoint

RULE = CropRule(scale=1.5, size_px=24, mpp=0.5)
SMOKE_CCRL = [*SMOKE, "embedding.encoder=ccrl"]


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A small network in the place of the bundled one."""
    path = write_small_checkpoint(tmp_path / "bundled" / "ccrl.safetensors", crop=RULE)
    monkeypatch.setitem(encoders.BUNDLED, "ccrl", path)
    return path


def test_the_crop_rule_is_asked_of_the_encoder(bundled):
    settings = resolved(load_settings(overrides=SMOKE_CCRL))
    assert settings.crops.rule == (1.5, 24)
    assert cell_settings(settings)["crops"] == {"scale": 1.5, "size_px": 24, "keep": False}
    assert resolved(settings) == settings


def test_an_explicit_rule_that_is_the_encoders_is_the_same_run(bundled):
    asked = resolved(load_settings(overrides=SMOKE_CCRL))
    told = resolved(load_settings(overrides=[*SMOKE_CCRL, "crops.scale=1.5", "crops.size_px=24"]))
    assert fingerprint(asked) == fingerprint(told)


def test_an_explicit_other_rule_is_refused(bundled):
    other = resolved(load_settings(overrides=[*SMOKE_CCRL, "crops.scale=2"]))
    with pytest.raises(ConfigError, match=r"Set crops\.scale=1\.5 \(now 2\)\."):
        find_models(other)


def test_folders_made_with_the_rule_written_out_are_continued(tmp_path):
    told = load_settings(overrides=[*SMOKE, "crops.scale=2.0", "crops.size_px=32"])
    models = {"encoder": "e"}
    claim(tmp_path, told, models)
    claim(tmp_path, resolved(load_settings(overrides=SMOKE)), models)
    other = resolved(load_settings(overrides=[*SMOKE, "crops.scale=1"]))
    with pytest.raises(ConfigError, match=r"crops\.scale: 2\.0 -> 1\.0"):
        claim(tmp_path, other, models)


def test_a_bundled_encoder_that_is_absent_stops_the_run(tmp_path, monkeypatch, slide_file):
    monkeypatch.setitem(encoders.BUNDLED, "ccrl", tmp_path / "ccrl.safetensors")
    settings = load_settings(overrides=SMOKE_CCRL)
    with pytest.raises(ModelError, match="lacks the encoder ccrl"):
        run_cohort(list_slides([str(slide_file)]), tmp_path / "out", settings, SerialMachine())
    assert not (tmp_path / "out").exists()


def test_a_bundled_encoder_does_the_whole_job(bundled, slide_file, tmp_path):
    settings = load_settings(overrides=[*SMOKE_CCRL, "crops.keep=true"])
    slides = list_slides([str(slide_file)])
    assert run_cohort(slides, tmp_path / "a", settings, SerialMachine()).exit_code == 0
    store = open_store(tmp_path / "a" / "slides" / "drawn.zarr")
    assert store.crops(0, 1).shape == (1, 24, 24, 3)
    assert store.attrs["settings"]["crops"]["scale"] == 1.5
    assert store.attrs["encoder"]["name"] == "small"
    assert store.n_dimensions == 8


def test_a_replaced_bundled_file_is_loaded_anew(bundled):
    settings = load_settings(overrides=SMOKE_CCRL)
    first = encoder_of(settings)
    assert encoder_of(settings) is first
    write_small_checkpoint(bundled, name="another one", crop=RULE)
    assert encoder_of(settings).name == "another one"


def test_replaced_weights_of_photographs_are_loaded_anew(tmp_path, monkeypatch):
    file = tmp_path / "resnet18.pth"
    file.write_bytes(b"one")
    made = []
    monkeypatch.setattr(encoders, "make_encoder", lambda *asked: made.append(asked) or len(made))
    settings = load_settings(
        overrides=["embedding.encoder=imagenet", f"embedding.weights={file}", "compute.device=cpu"]
    )
    first = encoder_of(settings)
    assert encoder_of(settings) == first
    file.write_bytes(b"another")
    assert encoder_of(settings) != first


ON_CORES = LocalMachine(workers=8)


@pytest.fixture(autouse=True)
def a_large_computer(monkeypatch):
    monkeypatch.setattr(dask_clusters, "cpu_count", lambda: 8)
    monkeypatch.setattr(dask_clusters, "MEMORY_LIMIT", 128 * 2**30)


@pytest.mark.parametrize(
    ("segmenter", "gib", "workers"),
    [("watershed", 16, 8), ("watershed", 9, 4), ("compact", 9, 3), ("watershed", 1, 1)]
    + [("hovernet_fast-pannuke", 32, 4), ("mine:Network", 64, 6)],
)
def test_there_are_no_more_workers_than_memory(bundled, monkeypatch, segmenter, gib, workers):
    gpus(monkeypatch, "")
    monkeypatch.setattr(dask_clusters, "MEMORY_LIMIT", gib * 2**30)
    assert machine_for(f"nuclei.segmenter={segmenter}") == LocalMachine(workers=workers)


def test_what_is_compiled_needs_more_memory(bundled, monkeypatch):
    gpus(monkeypatch, "")
    monkeypatch.setattr(dask_clusters, "MEMORY_LIMIT", 32 * 2**30)
    compiled = machine_for("nuclei.segmenter=compact", "compute.compile=true")
    assert compiled == LocalMachine(workers=3)


def gpus(monkeypatch, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert visible_gpus() == [name for name in names.split(",") if name]


def machine_for(*overrides):
    return suited(LocalMachine(), with_device(load_settings(overrides=[*SMOKE, *overrides])))


HOVERNET = "nuclei.segmenter=hovernet_fast-pannuke"


def test_networks_get_one_worker_per_gpu_and_what_needs_none_one_per_core(bundled, monkeypatch):
    gpus(monkeypatch, "0,1")
    assert machine_for() == ON_CORES
    assert machine_for("embedding.encoder=ccrl") == ON_CORES
    assert machine_for(HOVERNET) == GpuMachine()
    assert machine_for(HOVERNET, "embedding.encoder=ccrl") == GpuMachine()
    assert machine_for(HOVERNET, "compute.device=cpu") == ON_CORES
    monkeypatch.setattr(encoders, "LIGHT", 1)
    assert machine_for("embedding.encoder=ccrl") == GpuMachine()


def test_without_gpus_there_is_one_worker_per_core(bundled, monkeypatch):
    gpus(monkeypatch, "")
    monkeypatch.setattr(encoders, "LIGHT", 1)
    assert machine_for("embedding.encoder=ccrl") == ON_CORES


@pytest.mark.parametrize(
    ("overrides", "device"),
    [
        ((), "cpu"),
        (("embedding.encoder=ccrl",), "cpu"),
        (("embedding.encoder=ccrl", "compute.device=cuda"), "cuda"),
        ((HOVERNET, "embedding.encoder=ccrl"), "auto"),
    ],
)
def test_a_light_encoder_alone_computes_where_nuclei_are_found(bundled, overrides, device):
    settings = load_settings(overrides=[*SMOKE, *overrides])
    found = with_device(settings)
    assert found.compute.device == device
    assert found.model_copy(update={"compute": settings.compute}) == settings


def test_the_config_command_shows_the_rule_that_would_be_used(bundled):
    def shown(*options):
        coarse = ["--set", "nuclei.segmenter=watershed", "--set", "tiles.mpp=0.5"]
        done = CliRunner().invoke(app, ["config", *coarse, *options])
        assert done.exit_code == 0
        return yaml.safe_load(done.output)["crops"]

    assert shown("--set", "embedding.encoder=ccrl") == {
        "scale": 1.5,
        "size_px": 24,
        "keep": False,
    }
    assert shown("--set", "embedding.encoder=ccrl", "--explain")["size_px"] == 24
    plain = ("--set", "embedding.encoder=morphology")
    assert shown(*plain) == {"scale": 2.0, "size_px": 32, "keep": False}


@pytest.mark.parametrize(
    ("override", "sentence"),
    {
        "nuclei.segmenter=hovernet": r"segmenter=hovernet: choose hovernet_fast-pannuke,",
        "tiles.mpp=100": r"Set tiles\.mpp=0\.25 \(now 100\)",
        "slides.mpp=99": r"slides\.mpp=99 is not between",
        "embedding.encoder=none": "Unknown encoder",
        "crops.size_px=9": "crops",
    }.items(),
)
def test_the_config_command_refuses_what_a_run_would_refuse(override, sentence):
    done = CliRunner().invoke(app, ["config", "--set", override])
    with pytest.raises(ConfigError, match=sentence):
        raise done.exception
    assert done.output == ""


def test_settings_are_resolved_without_what_is_slow_to_load():
    code = "import sys, pipelines.resolved_settings; print({'torch', 'zarr'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
