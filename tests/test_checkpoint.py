import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from ccrl_wsi.config import CropSettings
from ccrl_wsi.embeddings.checkpoint import (
    ENCODER_FILE,
    CropRule,
    check_crop_rule,
    load_checkpoint,
    read_header,
    save_checkpoint,
)
from ccrl_wsi.embeddings.size_feature import SizeFeature
from ccrl_wsi.errors import ConfigError, ModelError
from tests.small_checkpoints import small_header, small_state, write_small_checkpoint


@pytest.fixture
def good(tmp_path):
    return write_small_checkpoint(tmp_path / "small.safetensors")


def test_what_was_saved_is_loaded(good):
    header, state = load_checkpoint(good)

    assert header == small_header()
    assert read_header(good) == header
    wanted = small_state()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)


def test_equal_encoders_are_equal_files(good, tmp_path):
    again = write_small_checkpoint(tmp_path / "again.safetensors")

    assert again.read_bytes() == good.read_bytes()


def test_the_header_lies_beside_the_file_for_people(good):
    beside = json.loads(good.with_suffix(".json").read_text())

    assert beside["training"] == {"data": "CoNSeP", "epochs": 500}
    assert {p.name for p in good.parent.iterdir()} == {"small.safetensors", "small.json"}


def test_only_what_is_inside_the_file_counts(good):
    good.with_suffix(".json").write_text('{"name": "another"}')

    assert read_header(good).name == "small"


def test_the_header_is_read_without_torch(good):
    code = (
        "import sys, pathlib\n"
        "from ccrl_wsi.embeddings.checkpoint import read_header\n"
        f"print(read_header(pathlib.Path({str(good)!r})).name, 'torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["small", "False"]


def test_sixteen_bits_are_loaded_as_thirty_two_and_differ_by_rounding_only(good, tmp_path):
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, small_state(), small_header(), half=True)

    header, state = load_checkpoint(half)

    assert header == small_header()
    wanted = small_state()
    for name, tensor in state.items():
        if wanted[name].is_floating_point():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, wanted[name].half().float())
        else:
            assert tensor.dtype == wanted[name].dtype
            assert torch.equal(tensor, wanted[name])
    assert any(not tensor.is_floating_point() for tensor in state.values())
    tensors = sum(t.numel() for t in wanted.values() if t.is_floating_point())
    assert good.stat().st_size - half.stat().st_size == pytest.approx(2 * tensors, abs=64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_whatever_floating_point_a_file_holds_comes_as_thirty_two_bits(good, tmp_path, dtype):
    state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in small_state().items()}
    save_checkpoint(tmp_path / "x.safetensors", state, small_header())

    loaded = load_checkpoint(tmp_path / "x.safetensors")[1]

    assert {t.dtype for t in loaded.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(("value", "fits"), [(65504.0, True), (65536.0, False), (-1e9, False)])
def test_values_that_sixteen_bits_cannot_hold_are_refused(tmp_path, value, fits):
    state = small_state()
    state["blocks.0.norm1.running_mean"][2] = value
    path = tmp_path / "x.safetensors"

    if fits:
        save_checkpoint(path, state, small_header(), half=True)
        assert load_checkpoint(path)[1]["blocks.0.norm1.running_mean"][2] == value
        return
    with pytest.raises(ModelError, match=r"running_mean has 1 values.*export\.half=false"):
        save_checkpoint(path, state, small_header(), half=True)
    assert not list(tmp_path.iterdir())
    save_checkpoint(path, state, small_header())


def test_many_batches_counted_are_still_counted_in_sixteen_bits(tmp_path):
    state = small_state()
    state["blocks.0.norm1.num_batches_tracked"].fill_(100_001)
    save_checkpoint(tmp_path / "x.safetensors", state, small_header(), half=True)

    loaded = load_checkpoint(tmp_path / "x.safetensors")[1]

    assert loaded["blocks.0.norm1.num_batches_tracked"].item() == 100_001


def test_a_size_is_remembered_and_without_one_there_is_no_word_of_it(good, tmp_path):
    size = SizeFeature(mean=3.5, std=0.5, factor=2.0)
    sized = write_small_checkpoint(tmp_path / "sized.safetensors", size=size, n_dimensions=9)

    assert read_header(sized).size == size
    assert read_header(good).size is None
    assert json.loads(sized.with_suffix(".json").read_text())["size"]["factor"] == 2.0
    assert "size" not in json.loads(good.with_suffix(".json").read_text())
    with safe_open(good, "numpy") as file:
        header = json.loads(file.metadata()[ENCODER_FILE.entry])["header"]
    assert not {"size", "unit_length"} & header.keys()
    unit = write_small_checkpoint(tmp_path / "unit.safetensors", unit_length=True)
    assert read_header(unit).unit_length


def _missing(path):
    path.unlink()


def _folder(path):
    path.unlink()
    path.mkdir()


def _pickled(path):
    path.write_bytes(pickle.dumps({"weights": 1}))


def _torch_saved(path):
    torch.save({"weights": torch.zeros(2)}, path)


def _text(path):
    path.write_text("this is a picture of a cat, not a network")


def _empty(path):
    path.write_bytes(b"")


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def _header_cut(path):
    path.write_bytes(path.read_bytes()[:200])


def _foreign(path):
    save_file({"weight": np.zeros((2, 2), np.float32)}, path, metadata={"format": "pt"})


def _bare(path):
    save_file({"weight": np.zeros((2, 2), np.float32)}, path)


def _rewritten(path, about, change=lambda tensors: None):
    tensors = {name: tensor.numpy() for name, tensor in load_checkpoint(path)[1].items()}
    change(tensors)
    save_file(tensors, path, metadata={ENCODER_FILE.entry: about})


def _header(**changes):
    return {**small_header().model_dump(mode="json"), **changes}


def _later_version(path):
    _rewritten(path, json.dumps({"version": 2, "header": {"new": "things"}}))


def _header_no_json(path):
    _rewritten(path, "{name")


def _header_a_list(path):
    _rewritten(path, "[1, 2]")


def _no_header(path):
    _rewritten(path, json.dumps({"version": 1}))


def _header_unknown_field(path):
    _rewritten(path, json.dumps({"version": 1, "header": _header(colour=1)}))


def _size_without_spread(path):
    size = {"mean": 3.5, "std": 0, "factor": 1}
    _rewritten(path, json.dumps({"version": 1, "header": _header(size=size)}))


def _one_std(path):
    _rewritten(path, json.dumps({"version": 1, "header": _header(std=[0.1])}))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_missing, "There is no checkpoint"),
        (_folder, "There is no checkpoint"),
        (_pickled, "PyTorch pickle"),
        (_torch_saved, "PyTorch pickle"),
        (_text, "is not a .safetensors file"),
        (_empty, "is not a .safetensors file"),
        (_truncated, "damaged or cut off"),
        (_header_cut, "damaged or cut off"),
        (_foreign, "not an encoder of ccrl-wsi"),
        (_bare, "not an encoder of ccrl-wsi"),
        (_later_version, "format version 2; this ccrl-wsi reads version 1"),
        (_header_no_json, "header of the checkpoint"),
        (_header_a_list, "header of the checkpoint"),
        (_no_header, "header of the checkpoint"),
        (_header_unknown_field, "colour"),
        (_one_std, "one value a channel"),
        (_size_without_spread, r"size\.std"),
    ],
)
def test_a_wrong_file_gives_one_sentence_that_names_it(good, harm, says):
    harm(good)

    for read in (read_header, load_checkpoint):
        with pytest.raises(ModelError, match=says) as raised:
            read(good)
        assert str(good) in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("stem.weight"), "stem.weight is missing"),
        (lambda t: t.update(projector=np.zeros(2, np.float32)), "projector is too much"),
        (lambda t: t.update({"stem.weight": np.zeros((9, 3, 3, 3), np.float32)}), "instead of"),
        (lambda t: [t.pop(k) for k in list(t)[:3]], "and 2 more"),
    ],
)
def test_wrong_tensors_are_named(good, change, says):
    _rewritten(good, json.dumps({"version": 1, "header": _header()}), change)

    with pytest.raises(ModelError, match=says):
        load_checkpoint(good)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "vit_giant"}, "does not know"),
        ({"arguments": {"depth": 18}}, "cannot be built"),
        ({"arguments": {"widths": []}}, "cannot be built"),
        ({"arguments": {"stem_stride": 0}}, "cannot be built"),
    ],
)
def test_an_unknown_network_is_refused_before_it_is_written(tmp_path, changes, says):
    with pytest.raises(ModelError, match=says):
        save_checkpoint(tmp_path / "x.safetensors", small_state(), small_header(**changes))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_has_its_suffix(tmp_path):
    with pytest.raises(ModelError, match=r"save it as best\.safetensors"):
        save_checkpoint(tmp_path / "best.pth", small_state(), small_header())


@pytest.mark.parametrize(
    ("crops", "mpp", "says"),
    [
        (CropSettings(scale=1.0), 0.25, r"crops\.scale=2 \(now 1\)"),
        (CropSettings(size_px=64), 0.25, r"crops\.size_px=32 \(now 64\)"),
        (CropSettings(), 0.5, r"tiles\.mpp=0\.25 \(now 0\.5\)"),
    ],
)
def test_other_crops_than_trained_on_are_refused_with_the_settings_to_use(crops, mpp, says):
    with pytest.raises(ConfigError, match=says):
        check_crop_rule(small_header(), crops, mpp)


def test_what_is_left_open_is_never_another_rule():
    check_crop_rule(
        small_header(crop=CropRule(scale=1, size_px=40, mpp=0.25)), CropSettings(), 0.25
    )


@pytest.mark.parametrize("mpp", [0.25, 0.2462, 0.263])
def test_the_crop_rule_allows_for_what_scanners_differ_by(mpp):
    check_crop_rule(small_header(crop=CropRule(scale=2, size_px=32, mpp=0.25)), CropSettings(), mpp)


def test_others_may_read_a_checkpoint_as_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    path = write_small_checkpoint(tmp_path / "small.safetensors")
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
