"""Clusters of one slide, and clusters that only look so because a slide is large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ccrl_wsi.clusters.slide_bound import (
    LEAST_CELLS,
    follow_slides,
    nearly_of_one_slide,
    slides_sentence,
)

THREE_SLIDES = np.array([[995, 3, 2], [80, 880, 40], [60, 80, 860]])
"""Three slides and the three clusters that were chosen on them."""


def test_a_cluster_a_slide_is_told():
    assert nearly_of_one_slide(THREE_SLIDES).tolist() == [True, True, True]
    said = slides_sentence(THREE_SLIDES, is_chosen=True, is_centred=False)
    assert said.startswith("3 of 3 clusters are nearly one slide's (80 % of their cells or more")
    assert "clusters.k=auto chose may follow the slides" in said
    assert "clusters.centre_slides=true" in said


def test_only_what_helps_is_advised():
    said = slides_sentence(THREE_SLIDES, is_chosen=False, is_centred=True)
    assert "auto" not in said
    assert "centre_slides" not in said
    assert said.endswith("Try another encoder, or more slides.")


def test_a_large_slide_is_not_blamed_for_its_size():
    counts = np.array([[90_000, 90_000], [100, 100], [110, 90]])
    assert not nearly_of_one_slide(counts).any()
    assert not slides_sentence(counts, is_chosen=True, is_centred=False)


@pytest.mark.parametrize(
    "counts",
    [[], [[500, 500]], [[500, 0], [0, LEAST_CELLS - 1]], [[0, 0], [0, 0]]],
)
def test_one_slide_alone_or_of_few_cells_says_nothing(counts):
    assert not slides_sentence(
        np.array(counts, np.int64).reshape(-1, 2), is_chosen=False, is_centred=False
    )


def test_half_of_the_clusters_are_not_most():
    counts = np.array([[400, 0, 300, 300], [0, 400, 300, 300]])
    assert nearly_of_one_slide(counts).tolist() == [True, True, False, False]
    assert not follow_slides(counts)


@given(arrays(np.int64, (4, 3), elements=st.integers(10, 1000)), st.integers(1, 50))
def test_more_cells_of_the_same_mix_change_nothing(counts, times):
    larger = counts * np.array([[times], [1], [1], [1]])
    assert nearly_of_one_slide(larger).tolist() == nearly_of_one_slide(counts).tolist()
