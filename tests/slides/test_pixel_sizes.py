"""Which slides are called enlarged, and which cohorts unlike."""

from __future__ import annotations

import pytest

from ccrl_wsi.slides.pixel_sizes import enlarged_sentence, pixel_sizes_sentence


def test_a_slide_at_20x_is_enlarged_for_networks_of_40x():
    assert enlarged_sentence(0.499, 0.25).startswith(
        "its pixels of 0.499 um are enlarged 2.0 times"
    )


@pytest.mark.parametrize(("slide_mpp", "mpp"), [(0.25, 0.25), (0.2738, 0.25), (0.12, 0.25)])
def test_scanners_of_one_kind_and_finer_ones_are_not(slide_mpp, mpp):
    assert enlarged_sentence(slide_mpp, mpp) == ""


def test_a_cohort_of_two_pixel_sizes_is_warned_about():
    said = pixel_sizes_sentence([0.25, 0.499, 0.2738, 0.465], 0.25)
    assert said.startswith("2 of 4 slides have larger pixels than the others (up to 0.499 um, ")


@pytest.mark.parametrize(
    ("slide_mpps", "mpp"), [([], 0.25), ([0.5], 0.25), ([0.5, 0.499], 0.25), ([0.25, 0.5], 0.5)]
)
def test_slides_that_show_the_same_detail_are_not(slide_mpps, mpp):
    assert pixel_sizes_sentence(slide_mpps, mpp) == ""
