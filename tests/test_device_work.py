"""When a GPU was at what, told to who listens, in the host's time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from ccrl_wsi import device_work
from ccrl_wsi.config import NucleiSettings
from ccrl_wsi.device_work import Span, enough_memory, gpu_work, listening, tell, told_work
from ccrl_wsi.errors import ModelError
from ccrl_wsi.nuclei.modelabc import load_modelabc
from tests.drawn_networks import DarkBlobs

SPAN = Span("network", 1.0, 2.0)


def test_who_listens_in_a_thread_hears_what_that_thread_tells():
    outer, inner = [], []
    tell(SPAN)
    with listening(outer.append):
        with listening(inner.append), ThreadPoolExecutor(1) as pool:
            tell(SPAN)
            pool.submit(tell, SPAN).result()
        with pytest.raises(ZeroDivisionError), listening(inner.append):
            raise ZeroDivisionError
        tell(SPAN._replace(work="crops"))

    assert inner == [SPAN]
    assert [span.work for span in outer] == ["crops"]


def test_work_is_told_when_it_is_over_and_lies_where_it_was(pretended_gpu):
    heard, began = [], time.perf_counter()
    with listening(heard.append):
        with told_work("encoder", "cuda:1"):
            time.sleep(0.02)
            assert heard == []
        with told_work("encoder", "cpu"):
            pass
    ended = time.perf_counter()

    (span,) = heard
    assert began - 1e-3 < span.begin < span.end < ended + 1e-3
    assert span.end - span.begin == pytest.approx(0.02, abs=0.015)


def test_a_clock_is_read_anew_before_its_times_get_rough(pretended_gpu, monkeypatch):
    with torch.cuda.device("cuda"):
        with gpu_work("network", "cuda") as first, gpu_work("network", "cuda") as second:
            pass
        monkeypatch.setattr(device_work, "CLOCK_SECONDS", -1.0)
        with gpu_work("network", "cuda") as later:
            pass
    assert first.clock is second.clock is not later.clock


def test_too_little_memory_is_explained():
    memory = enough_memory("cuda:0", "a tile", "Take less.")
    with pytest.raises(ModelError, match=r"cuda:0 .* for a tile\. Take less\."), memory:
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="launch"), enough_memory("cuda:0", "a tile", ""):
        raise RuntimeError("launch failure")


def test_a_users_model_on_a_gpu_is_timed_too(pretended_gpu, monkeypatch):
    look = partial(DarkBlobs.infer_batch, device="cpu")
    monkeypatch.setattr(
        DarkBlobs, "infer_batch", staticmethod(lambda model, batch, *, device: look(model, batch))
    )
    settings = NucleiSettings(segmenter="tests.drawn_networks:DarkBlobs", window_px=256)
    segmenter, heard = replace(load_modelabc(settings, "cpu"), device="cuda"), []
    with listening(heard.append):
        prediction = segmenter.predict(np.full((60, 60, 3), 200, np.uint8), 0.25)

    assert {span.work for span in heard} == {"network"}
    # The host has waited for it: its crops are cut there.
    assert prediction.tile is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpus_moments_are_the_hosts():
    heard, ask = [], torch.rand(2048, 2048, device="cuda")
    torch.cuda.synchronize()
    began = time.perf_counter()
    with listening(heard.append), told_work("network", "cuda"):
        for _ in range(20):
            ask = ask @ ask * 1e-3
    torch.cuda.synchronize()
    ended = time.perf_counter()

    (span,) = heard
    assert began - 2e-3 < span.begin < span.end < ended + 2e-3
