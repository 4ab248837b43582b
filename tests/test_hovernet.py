"""TIAToolbox's HoVer-Nets behind our windows, and the ways their weights can be wrong."""

from __future__ import annotations

import copy
import logging
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.errors import ConfigError, ModelError
from ccrl_wsi.nuclei import hovernet
from ccrl_wsi.nuclei.hovernet import (
    HOVERNETS,
    REACHES,
    HoVerNetSegmenter,
    build_hovernet,
    check_mpp,
    contained_logging,
    find_weights,
    load_hovernet,
    make_fast,
)
from ccrl_wsi.nuclei.hovernet_instances import extract_instances
from ccrl_wsi.nuclei.weights import load_weights, weights_folder
from tests.drawn_networks import ink_segmenter, random_hovernet

FAST = "hovernet_fast-pannuke"


@pytest.fixture(scope="module")
def fast_network():
    return random_hovernet(FAST, (128, 128))


def as_segmenter(network, **changes):
    values = {
        "name": FAST,
        "type_names": (),
        "network": network,
        "mode": "fast",
        "device": "cpu",
        "window_px": 256,
        "batch_size": 2,
        "precision": "float32",
    }
    return HoVerNetSegmenter(**{**values, **changes})


def test_windows_put_together_are_one_pass_over_the_image(fast_network):
    rgb = np.random.default_rng(0).integers(0, 255, (8, 32, 3), np.uint8)

    one = as_segmenter(fast_network).predict_maps(rgb)
    several = as_segmenter(fast_network, window_px=168).predict_maps(rgb)

    assert one["hv"].std() > 0.1
    assert abs(one["probability"] - several["probability"]).max() < 1e-4
    assert abs(one["hv"] - several["hv"]).max() < 1e-4 * max(1, one["hv"].std())
    assert (one["types"] == several["types"]).mean() > 0.999


def test_the_same_number_of_threads_gives_the_same_bits_and_another_only_rounds(fast_network):
    rgb, threads = np.random.default_rng(2).integers(0, 255, (24, 40, 3), np.uint8), []
    before = torch.get_num_threads()
    try:
        for n in (1, 2, 1, 2):
            torch.set_num_threads(n)
            threads.append(as_segmenter(fast_network).predict_maps(rgb)["probability"])
    finally:
        torch.set_num_threads(before)
    assert [threads[i].tobytes() == threads[i + 2].tobytes() for i in (0, 1)] == [True, True]
    assert abs(threads[0] - threads[1]).max() < 1e-5


def test_a_network_made_fast_says_the_same_and_may_compute_in_bfloat16(fast_network):
    rgb = np.random.default_rng(1).integers(0, 255, (24, 40, 3), np.uint8)

    fast = make_fast(copy.deepcopy(fast_network))

    plain = as_segmenter(fast_network).predict_maps(rgb)
    exact = as_segmenter(fast).predict_maps(rgb)
    rough = as_segmenter(fast, precision="bfloat16").predict(rgb, 0.25).wait()
    for name in ("probability", "hv"):
        scale = max(1, abs(plain[name]).max())
        assert abs(plain[name] - exact[name]).max() < 1e-4 * scale
        assert rough[name].dtype == np.float16
        assert abs(plain[name] - rough[name]).mean() < 0.05 * scale
    assert (plain["types"] == exact["types"]).mean() > 0.999
    assert np.array_equal(
        extract_instances(plain["probability"], plain["hv"]),
        extract_instances(exact["probability"], exact["hv"]),
    )


@pytest.mark.parametrize(("name", "n_types"), list(zip(HOVERNETS, (6, 5, 5, 0), strict=True)))
def test_a_network_gives_back_what_its_reach_says(name, n_types):
    network, type_names = build_hovernet(name)
    lost = 2 * REACHES[network.mode].lost
    side = 256 if network.mode == "fast" else 270

    with torch.device("meta"):
        image = torch.zeros(1, 3, side, side)
    output = torch.nn.Module.to(network, "meta")(image)

    assert len(type_names) == n_types
    assert output["hv"].shape == (1, 2, side - lost, side - lost)
    assert ("tp" in output) == bool(n_types)


@pytest.mark.parametrize("mode", ["fast", "original"])
def test_nuclei_lie_where_they_are_in_the_image(mode):
    rgb = np.full((300, 220, 3), 240, np.uint8)
    rgb[10:30, 180:210] = (60, 40, 200)
    rgb[0:18, 0:15] = (60, 40, 60)
    rgb[240:262, 95:125] = (60, 40, 60)

    found = ink_segmenter(mode, window_px=300)(rgb, 0.25)

    assert found.n_nuclei == 3
    assert np.array_equal(found.labels > 0, rgb[..., 0] < 128)
    of_blue = found.labels[20, 190] - 1
    assert found.nucleus_type[of_blue] == 2
    assert np.delete(found.nucleus_type, of_blue).tolist() == [1, 1]
    assert found.probability.min() > 0.99


def test_another_resolution_is_refused():
    check_mpp(FAST, 0.263)
    with pytest.raises(ConfigError, match=r"tiles.mpp=0.25"):
        ink_segmenter()(np.zeros((9, 9, 3), np.uint8), 0.5)


def test_too_little_memory_is_one_sentence():
    class Greedy(torch.nn.Module):
        def forward(self, image):
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match="window_px"):
        replace(ink_segmenter(), network=Greedy())(np.zeros((9, 9, 3), np.uint8), 0.25)


def test_weights_come_from_any_of_the_usual_files(fast_network, tmp_path, monkeypatch):
    state = fast_network.state_dict()
    torch.save(state, tmp_path / "raw.pth")
    old = {f"module.{k}": v for k, v in state.items() if "unpool_mat" not in k}
    torch.save({"desc": old}, tmp_path / "hover_net.tar")
    save_file({k: v.clone() for k, v in state.items()}, tmp_path / "w.safetensors")
    fresh, _ = build_hovernet(FAST)

    for file in tmp_path.iterdir():
        torch.nn.init.zeros_(fresh.conv_bot.weight)
        load_weights(fresh, file, FAST)
        assert torch.equal(fresh.conv_bot.weight, fast_network.conv_bot.weight)

    # The network itself is handed back: building one takes seconds.
    monkeypatch.setattr(hovernet, "build_hovernet", lambda name: (fresh, ("Background", "A")))
    loaded = load_hovernet(NucleiSettings(weights=tmp_path / "raw.pth"), "cpu")
    assert loaded.type_names == ("Background", "A")
    assert loaded.mode == "fast"
    assert not loaded.network.training


def test_weights_of_another_network_name_the_first_difference(fast_network, tmp_path):
    file = tmp_path / "fast.pth"
    torch.save(fast_network.state_dict(), file)
    for name, complaint in [("hovernet_fast-monusac", "tp"), ("hovernet_original-kumar", "tp")]:
        with pytest.raises(ModelError, match=rf"another network than {name}.*{complaint}"):
            load_weights(build_hovernet(name)[0], file, name)


class Evil:
    def __reduce__(self):
        return (print, ("this must never be seen",))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"", "truncated"),
        (b"PK\x03\x04 not a zip after all", "truncated"),
        (b"plain text", "truncated"),
    ],
)
def test_a_file_that_holds_no_weights_is_named_for_what_it_is(tmp_path, content, complaint):
    for name in ("weights.pth", "weights.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=complaint):
            load_weights(torch.nn.Linear(1, 1), tmp_path / name, FAST)


def test_a_truncated_file_is_told_from_a_whole_one(tmp_path):
    torch.save(torch.nn.Linear(50, 50).state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(ModelError, match="truncated"):
        load_weights(torch.nn.Linear(50, 50), tmp_path / "half.pth", "linear")


def test_code_in_a_weight_file_is_not_run(tmp_path, capsys):
    file = tmp_path / "evil.pth"
    torch.save({"weight": Evil()}, file)
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil(), protocol=2))

    for evil in (file, tmp_path / "evil.pkl"):
        with pytest.raises(ModelError):
            load_weights(torch.nn.Linear(1, 1), evil, FAST)
    assert "never be seen" not in capsys.readouterr().out


def test_a_checkpoint_without_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "log.pth")

    with pytest.raises(ModelError, match="state dictionary"):
        load_weights(torch.nn.Linear(1, 1), tmp_path / "log.pth", FAST)


def test_a_missing_weight_file_is_told_before_anything_is_loaded(tmp_path):
    settings = NucleiSettings(weights=tmp_path / "none.pth")

    with pytest.raises(ModelError, match=r"none.pth.*nuclei.weights=FILE.*compact"):
        load_hovernet(settings, "cpu")


def test_weights_that_cannot_be_had_say_where_to_put_them(tmp_path, monkeypatch):
    import tiatoolbox.models.architecture as architecture

    from ccrl_wsi.nuclei import weights

    def no_network(name):
        raise OSError("Name or service not known")

    monkeypatch.setattr(weights, "weights_folder", lambda: tmp_path / "models")
    monkeypatch.setattr(architecture, "fetch_pretrained_weights", no_network)
    with pytest.raises(ModelError, match=rf"{FAST}.pth.*nuclei.weights=FILE.*compact"):
        find_weights(FAST)

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{FAST}.pth").touch()
    assert find_weights(FAST) == tmp_path / "models" / f"{FAST}.pth"


def test_an_import_that_rearranges_logging_leaves_no_trace():
    root = logging.getLogger()
    before = (list(root.handlers), root.level)

    with contained_logging():
        root.addHandler(logging.StreamHandler())
        root.setLevel(logging.DEBUG)
        logging.captureWarnings(True)

    assert (root.handlers, root.level) == before
    assert logging._warnings_showwarning is None


def test_the_weights_folder_is_tiatoolboxs_own():
    from tiatoolbox import rcParam

    assert weights_folder() == Path(rcParam["TIATOOLBOX_HOME"]) / "models"
