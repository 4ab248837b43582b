from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from ccrl_wsi.config import WatershedSettings
from ccrl_wsi.evaluation.segmentation_scores import count_overlaps, panoptic_quality
from ccrl_wsi.geometry import Box
from ccrl_wsi.nuclei.watershed import Watershed, local_threshold, nuclear_density
from ccrl_wsi.synthetic import EOSIN, HAEMATOXYLIN, DrawnSlideSpec, draw_slide

SEGMENT = Watershed()


@pytest.fixture(scope="module")
def drawn():
    return draw_slide(DrawnSlideSpec(1000, 800, n_nuclei=220, background_share=0.15, seed=5))


@pytest.fixture(scope="module")
def found(drawn):
    return SEGMENT(drawn.rgb, drawn.spec.mpp)


def test_most_drawn_nuclei_are_found_with_their_outline(drawn, found):
    quality = panoptic_quality(count_overlaps(drawn.labels, found.labels))
    assert quality.dq > 0.85
    assert quality.sq > 0.8


def test_touching_nuclei_are_parted():
    pair = draw_slide(
        DrawnSlideSpec(
            160,
            120,
            n_nuclei=2,
            centres_px=((68, 60), (93, 60)),
            kind_shares=(1, 0, 0),
        )
    )
    assert SEGMENT(pair.rgb, 0.25).n_nuclei == 2


def test_every_label_is_one_piece_and_none_is_missing(found):
    labels = found.labels
    assert labels.dtype == np.int32
    sizes = np.bincount(labels.ravel())[1:]
    assert len(sizes) == found.n_nuclei
    assert (sizes > 0).all()
    n_pieces = [
        cv2.connectedComponents((labels == i).astype(np.uint8), connectivity=4)[0] - 1
        for i in range(1, found.n_nuclei + 1)
    ]
    assert set(n_pieces) == {1}


def test_probability_is_one_number_a_nucleus_between_zero_and_one(found):
    assert found.probability.shape == (found.n_nuclei,)
    assert found.probability.dtype == np.float32
    assert ((found.probability > 0) & (found.probability < 1)).all()


@pytest.mark.parametrize("left", [0, 201, 300])
def test_a_nucleus_is_the_same_in_another_tile(drawn, found, left):
    part = SEGMENT(np.ascontiguousarray(drawn.rgb[:, left : left + 700]), drawn.spec.mpp)
    # What lies further from a cut than half a window and the blurs is not touched by it.
    margin = 128
    inner = slice(margin if left else 0, 700 - margin if left < 300 else 700)
    whole = found.labels[:, left : left + 700][:, inner]
    assert np.array_equal(part.labels[:, inner] > 0, whole > 0)
    overlaps = count_overlaps(whole, part.labels[:, inner])
    assert len(overlaps.truth_area) == len(overlaps.found_area) == len(overlaps.shared)
    assert (overlaps.iou == 1).all()


def test_the_coarser_scan_shows_the_same_nuclei(drawn, found):
    half = cv2.resize(drawn.rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    coarse = SEGMENT(half, 2 * drawn.spec.mpp).labels
    enlarged = np.kron(coarse, np.ones((2, 2), np.int32))
    assert panoptic_quality(count_overlaps(found.labels, enlarged)).dq > 0.85


def test_glass_and_flat_tissue_hold_no_nuclei():
    for colour in ((255, 255, 255), (230, 160, 200), (0, 0, 0), (20, 20, 120)):
        flat = np.full((300, 300, 3), colour, np.uint8)
        assert SEGMENT(flat, 0.25).n_nuclei == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 3), (33, 65)])
def test_small_images_are_no_special_case(shape):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = SEGMENT(rgb, 0.25)
    assert found.labels.shape == shape
    assert found.n_nuclei == found.labels.max()


def test_haematoxylin_is_dense_and_eosin_ink_and_glass_are_not():
    def density(rgb):
        return int(nuclear_density(np.array([[rgb]]).round().astype(np.uint8))[0, 0])

    assert density(255 * 10 ** -(0.6 * np.array(HAEMATOXYLIN))) > 60
    assert density(255 * 10 ** -(0.6 * np.array(EOSIN))) < 5
    assert density([255, 255, 255]) == 0
    assert density([40, 230, 90]) < 10  # green ink absorbs no green


def test_the_threshold_lies_at_its_level_between_pale_and_dark():
    image = np.full((400, 400), 30, np.uint8)
    image[:, 100:].reshape(400, 10, 30)[..., :10] = 130
    settings = WatershedSettings(level=0.5, min_contrast=0.04)
    bar = local_threshold(image, settings, 0.25)
    assert abs(int(bar[200, 300]) - 80) <= 1
    assert abs(int(bar[200, 10]) - (30 + 12)) <= 1  # flat: the least contrast, 0.04 of density


@pytest.mark.data
def test_small_and_large_cores_give_the_same_nuclei_on_a_real_slide(data_dir):
    openslide = pytest.importorskip("openslide")
    path = data_dir / "slides" / "ectopic_pancreas_HE_40x_crop6144.svs"
    area = Box(1024, 1024, 2048, 2048)
    with openslide.OpenSlide(path) as slide:
        mpp = float(slide.properties["openslide.mpp-x"])
        small = owned_nuclei(slide, area, 512, mpp)
        large = owned_nuclei(slide, area, 2048, mpp)
    assert len(large) > 2000
    # Every window fits into the halo: not one pixel of one nucleus differs.
    assert len(small) == len(large)
    distance, _ = cKDTree(small).query(large)
    assert distance.max() < 1e-6


def owned_nuclei(slide, area, core_px, mpp, halo_px=128):
    """Centroid and area of the nuclei of every core, in pixels of the slide: (n, 3)."""
    found = []
    for top in range(area.top, area.bottom, core_px):
        for left in range(area.left, area.right, core_px):
            core = Box(left, top, core_px, core_px)
            read = core.grown(halo_px)
            region = slide.read_region((read.left, read.top), 0, (read.width, read.height))
            labels = SEGMENT(np.ascontiguousarray(np.asarray(region)[..., :3]), mpp).labels
            rows, columns = np.nonzero(labels)
            label = labels[rows, columns]
            size = np.bincount(label)[1:]
            x = np.bincount(label, columns + 0.5)[1:] / size + read.left
            y = np.bincount(label, rows + 0.5)[1:] / size + read.top
            nuclei = np.stack([x, y, size], axis=1)[size * mpp**2 >= 8]
            found.append(nuclei[core.contains(nuclei[:, :2])])
    return np.concatenate(found)
