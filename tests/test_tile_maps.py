"""Maps of a tile whose windows are cut on the device: those of windows cut on the host."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ccrl_wsi import device_work
from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.device_work import listening
from ccrl_wsi.devices import warn_of_slow_precision
from ccrl_wsi.nuclei import tile_maps
from ccrl_wsi.nuclei.compact import load_compact
from ccrl_wsi.nuclei.folding import fold_norms_in_sequences
from ccrl_wsi.nuclei.hovernet_instances import extract_instances, mean_probability
from ccrl_wsi.nuclei.hovernet_maps import imitate_network, scatter_nuclei
from ccrl_wsi.nuclei.inference import as_sent
from ccrl_wsi.nuclei.tile_maps import Question, cut_windows, predict_tile
from ccrl_wsi.nuclei.windows import plan_windows, predict_in_windows

MARGIN = 12


def noise(shape=(130, 170)):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def look(images):
    """A little network, whose maps have all kinds of types."""
    smooth = nn.functional.avg_pool2d(images, 2 * MARGIN + 1, 1).permute(0, 2, 3, 1)
    return {"mean": smooth, "argmax": smooth.argmax(-1).byte(), "half": smooth[..., 0].half()}


def on_the_host(rgb, windows, batch_size):
    def infer(batch):
        images = torch.from_numpy(batch).permute(0, 3, 1, 2).float()
        return {name: tensor.numpy() for name, tensor in look(images).items()}

    return predict_in_windows(rgb, windows, batch_size, infer)


def question(device="cpu", batch_size=4):
    return Question(look, device, "float32", batch_size)


def same(maps, others):
    assert maps.keys() == others.keys()
    for name, array in maps.items():
        assert array.dtype == others[name].dtype
        assert np.array_equal(array, others[name])


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 30))
def test_windows_cut_on_the_device_are_those_cut_on_the_host(height, width, margin):
    rgb = noise((height, width))
    windows = plan_windows((height, width), 2 * margin + 40, margin, multiple=8)

    cuts = cut_windows(torch.from_numpy(rgb), windows, range(len(windows.starts)))

    assert cuts.is_contiguous(memory_format=torch.channels_last)
    expected = np.stack(list(windows.cut(rgb)))
    assert np.array_equal(cuts.permute(0, 2, 3, 1).byte().numpy(), expected)


def test_maps_of_a_tile_are_those_of_its_windows():
    rgb = noise()
    windows = plan_windows(rgb.shape[:2], 80, MARGIN, multiple=8)
    prediction = predict_tile(rgb, windows, question())

    same(prediction.wait(), on_the_host(rgb, windows, 1))
    assert prediction.tile is None


def test_pixels_that_must_not_be_written_to_are_no_trouble(recwarn):
    rgb = noise()
    rgb.flags.writeable = False
    windows = plan_windows(rgb.shape[:2], 80, MARGIN, multiple=8)

    same(predict_tile(rgb, windows, question()).wait(), on_the_host(rgb, windows, 1))
    assert not recwarn.list


def test_a_batch_holds_as_many_pixels_whatever_the_windows():
    small, large = (plan_windows((4096, 4096), side, 64, 8) for side in (512, 2048))

    assert question("cuda", 4).at_once(large) == 1
    assert question("cuda", 4).at_once(small) >= 16
    assert question("cpu", 4).at_once(small) == 1


def test_the_way_over_the_gpu_waits_where_it_must(pretended_gpu):
    rgb = noise()
    windows = plan_windows(rgb.shape[:2], 80, MARGIN, multiple=8)

    prediction = tile_maps._on_gpu(rgb, windows, question("cpu"))

    same(prediction.wait(), on_the_host(rgb, windows, 1))
    compute = pretended_gpu.compute
    up, down = (pretended_gpu.stream(use) for use in ("upload", "download"))
    # The network waits for the upload, the download for the network, the host for the download.
    work, tile = prediction.work, prediction.tile
    assert tile.there.recorded_on is up
    assert compute.waits == [tile.there]
    assert down.waits == [work.ended]
    assert work.began.recorded_on is work.ended.recorded_on is compute
    assert prediction.arrived.recorded_on is down
    assert prediction.arrived.is_over
    # Memory is not handed out again before the other streams have done with it.
    assert pretended_gpu.used == [compute] + [down] * 3
    # For crops.
    assert np.array_equal(tile.pixels.numpy(), rgb)


def test_what_a_gpu_makes_of_the_maps_comes_down_instead(pretended_gpu):
    rgb = noise()
    windows = plan_windows(rgb.shape[:2], 80, MARGIN, multiple=8)
    asked = Question(look, "cpu", "float32", 4, lambda maps: {"red": maps["mean"][..., 0]})

    assert prediction_of(asked, rgb, windows).keys() == {"red"}
    whole = on_the_host(rgb, windows, 1)["mean"]
    assert np.array_equal(prediction_of(asked, rgb, windows)["red"], whole[..., 0])
    # CPU cores leave it to the host.
    same(predict_tile(rgb, windows, asked).wait(), on_the_host(rgb, windows, 1))


def prediction_of(asked, rgb, windows):
    return tile_maps._on_gpu(rgb, windows, asked).wait()


def test_when_the_gpu_worked_is_told_in_the_hosts_time(pretended_gpu):
    rgb, heard = noise(), []
    windows = plan_windows(rgb.shape[:2], 80, MARGIN, multiple=8)
    began = time.perf_counter()
    prediction = tile_maps._on_gpu(rgb, windows, question("cpu"))
    asked = time.perf_counter()
    with listening(heard.append):
        prediction.wait()
    prediction.wait()

    assert [span.work for span in heard] == ["network"]
    assert began - 1e-3 < heard[0].begin < heard[0].end < asked + 1e-3


def test_a_gpu_that_fails_is_never_taken_for_a_bad_slide(pretended_gpu, monkeypatch):
    def fail(self):
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda.Event, "synchronize", fail)
    windows = plan_windows((60, 60), 80, MARGIN, multiple=8)
    with pytest.raises(RuntimeError, match="launch failure"):
        tile_maps._on_gpu(noise((60, 60)), windows, question("cpu")).wait()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_the_maps_of_the_cpu_tile_after_tile():
    tiles = [noise((500 + 8 * i, 700)) for i in range(6)]
    windows = [plan_windows(t.shape[:2], 400, MARGIN, multiple=8) for t in tiles]
    flying = [predict_tile(t, w, question("cuda", 1)) for t, w in zip(tiles, windows, strict=True)]

    heard = []
    for rgb, window, prediction in zip(tiles, windows, flying, strict=True):
        with listening(heard.append):
            maps = prediction.wait()
        expected = on_the_host(rgb, window, 1)
        np.testing.assert_allclose(maps["mean"], expected["mean"], atol=1e-2)
        assert (maps["argmax"] == expected["argmax"]).mean() > 0.999
        assert torch.equal(prediction.tile.pixels.cpu(), torch.from_numpy(rgb))
    # One tile after the other, before now.
    ends = [end for span in heard for end in (span.begin, span.end)]
    assert ends == sorted(ends)
    assert ends[-1] < time.perf_counter() + 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_gpu_finds_the_nuclei_of_the_cpu(precision):
    rgb = noise((600, 900))
    settings = NucleiSettings(segmenter="compact", precision=precision)
    here, there = (load_compact(settings, device).predict_maps(rgb) for device in ("cpu", "cuda"))

    nuclei = [maps[..., 0] >= 0.5 for maps in (here, there)]
    assert (nuclei[0] == nuclei[1]).mean() > (0.999 if precision == "float32" else 0.98)


@given(st.floats(0, 1, width=32))
def test_half_precision_keeps_what_is_nucleus(probability):
    exact = torch.tensor([probability])
    sent = as_sent(exact, torch.bfloat16)

    assert sent.dtype == torch.float16
    assert bool(sent >= 0.5) == bool(exact >= 0.5)
    assert abs(float(sent) - probability) < 3e-4
    assert as_sent(exact, torch.float32) is exact


@pytest.mark.parametrize("computed", [torch.bfloat16, torch.float16])
def test_no_instance_changes_on_the_way_to_the_host(computed):
    rng = np.random.default_rng(1)
    drawn = imitate_network(scatter_nuclei(700, 250, rng), rng)
    hv = torch.from_numpy(drawn.hv).to(computed)
    probability = torch.from_numpy(drawn.probability)

    said = extract_instances(drawn.probability, hv.float().numpy())
    sent = as_sent(probability, computed).numpy().astype(np.float32)
    arrived = extract_instances(sent, hv.half().numpy().astype(np.float32))

    assert said.max() > 150
    assert np.array_equal(said, arrived)
    np.testing.assert_allclose(
        mean_probability(said, drawn.probability), mean_probability(arrived, sent), atol=3e-4
    )


def small_network():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16))
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), inner)
    with torch.inference_mode():
        for _ in range(3):
            network.train()(torch.rand(4, 3, 32, 32) * 255)
    return network.eval()


def test_folding_changes_nothing_but_the_number_of_layers():
    network, images = small_network(), torch.rand(2, 3, 40, 40) * 255
    with torch.inference_mode():
        expected = network(images)
        fold_norms_in_sequences(network)
        found = network(images)

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    left = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    # The one that comes before its convolution, with a ReLU between, has to stay.
    assert len(left) == 1


def test_a_network_in_training_is_not_folded():
    with pytest.raises(ValueError, match="eval"):
        fold_norms_in_sequences(small_network().train())


def test_a_precision_that_cores_only_emulate_is_warned_of(monkeypatch, caplog):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: False, raising=False)
    for precision in ("auto", "float32"):
        warn_of_slow_precision("nuclei", precision, "cpu")
    warn_of_slow_precision("nuclei", "bfloat16", "cuda")
    assert not caplog.records
    warn_of_slow_precision("nuclei", "bfloat16", "cpu")
    assert "emulate" in caplog.text


def test_threads_that_ask_at_once_share_a_gpus_streams(pretended_gpu, monkeypatch):
    class SlowStream:
        def __init__(self, device, priority):
            time.sleep(0.05)

    monkeypatch.setattr(torch.cuda, "Stream", SlowStream)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _: device_work.stream_of("cuda", "upload"), range(4)))
    assert len(found) == 1
    assert device_work.stream_of("cuda", "download") not in found


def test_threads_change_no_bit_of_what_compact_says():
    rgb, threads = noise((200, 260)), torch.get_num_threads()
    segmenter = load_compact(NucleiSettings(segmenter="compact"), "cpu")
    try:
        said = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            said.append(segmenter.predict_maps(rgb).tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(set(said)) == 1
