"""Thirty shapes of drawn ellipses, rectangles and crescents, against closed forms."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.special import ellipe
from skimage.measure import regionprops

from ccrl_wsi.measurement_names import NAMES, SHAPE_NAMES
from ccrl_wsi.nuclei.boundary_shapes import curvatures, measure_boundaries, resampled
from ccrl_wsi.nuclei.outlines import trace_outlines
from ccrl_wsi.records import Outlines

UM = 0.5


def ring_of(x, y):
    xy = np.stack([x, y], axis=1)
    xy = np.vstack([xy, xy[:1]])
    return Outlines(xy, np.array([0, len(xy)], np.int64))


def ellipse_ring(a, b, turn=0.0, n=720):
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = a * np.cos(t), b * np.sin(t)
    c, s = np.cos(turn), np.sin(turn)
    return ring_of(100 + c * x - s * y, 50 + s * x + c * y)


def shapes_of(outlines, um=UM):
    (row,) = measure_boundaries(outlines, um)
    return dict(zip(SHAPE_NAMES, row.tolist(), strict=True))


def test_a_circle_in_closed_form():
    r = 12.0 * UM
    found = shapes_of(ellipse_ring(12, 12))
    lengths = {
        "perimeter_um": 2 * np.pi * r,
        "vectors_perimeter_um": 2 * np.pi * r,
        "polygon_perimeter_um": 2 * np.pi * r,
        "ellipse_perimeter_um": 2 * np.pi * r,
        "circle_perimeter_um": 2 * np.pi * r,
        "equivalent_diameter_um": 2 * r,
        "ellipse_major_axis_um": 2 * r,
        "ellipse_minor_axis_um": 2 * r,
        "rectangle_long_side_um": 2 * r,
        "rectangle_short_side_um": 2 * r,
        "circle_radius_um": r,
    }
    for name, value in lengths.items():
        assert found[name] == pytest.approx(value, rel=2e-3), name
    for name in ("area_um2", "polygon_area_um2", "ellipse_area_um2", "circle_area_um2"):
        assert found[name] == pytest.approx(np.pi * r**2, rel=2e-3), name
    for name in ("solidity", "compactness", "convexity", "circularity"):
        assert found[name] == pytest.approx(1, abs=2e-3), name
    for name in ("circle_variance", "ellipse_variance", "elongation", "curvature_std_per_um"):
        assert found[name] == pytest.approx(0, abs=3e-3), name
    # A knot is the mean of an arc, so the spline's circle is a little smaller.
    for name in ("curvature_mean_per_um", "curvature_max_per_um", "curvature_min_per_um"):
        assert found[name] == pytest.approx(1 / r, rel=3e-2), name
    assert (found["n_protrusions"], found["n_indentations"]) == (0, 0)
    assert found["extent"] == pytest.approx(np.pi / 4, rel=2e-3)


def test_an_ellipse_in_closed_form():
    a, b = 20 * UM, 12 * UM
    found = shapes_of(ellipse_ring(20, 12))
    squared = 1 - (b / a) ** 2
    assert found["area_um2"] == pytest.approx(np.pi * a * b, rel=1e-3)
    assert found["perimeter_um"] == pytest.approx(4 * a * ellipe(squared), rel=1e-3)
    assert found["ellipse_perimeter_um"] == pytest.approx(4 * a * ellipe(squared), rel=1e-3)
    assert found["ellipse_eccentricity"] == pytest.approx(np.sqrt(squared), rel=1e-3)
    assert found["rectangle_long_side_um"] == pytest.approx(2 * a, rel=1e-3)
    assert found["elongation"] == pytest.approx(1 - b / a, rel=1e-3)
    assert found["compactness"] == pytest.approx(np.sqrt(b / a), rel=1e-3)
    # Points of an ellipse, mapped to a circle, would all be as far from its centre if they were
    # as dense everywhere as there.
    assert found["ellipse_variance"] < 0.05 < 0.1 < found["circle_variance"]
    assert (found["n_protrusions"], found["n_indentations"]) == (2, 0)
    # Curvature is a / b^2 at the ends of the long axis, b / a^2 at those of the short one.
    assert found["curvature_max_per_um"] == pytest.approx(a / b**2, rel=0.12)
    assert found["curvature_min_per_um"] == pytest.approx(b / a**2, rel=0.12)


def test_a_rectangle_in_closed_form():
    w, h = 30 * UM, 10 * UM
    found = shapes_of(ring_of(np.array([0.0, 30, 30, 0]), np.array([0.0, 0, 10, 10])))
    expected = {
        "area_um2": w * h,
        "perimeter_um": 2 * (w + h),
        "rectangle_long_side_um": w,
        "rectangle_short_side_um": h,
        "extent": 1,
        "solidity": 1,
        "convexity": 1,
        "elongation": 1 - h / w,
        "compactness": np.sqrt(4 * w * h / np.pi) / w,
        "circularity": 4 * np.pi * w * h / (2 * (w + h)) ** 2,
        # A filled rectangle has variance w^2 / 12, an ellipse of that axis (axis / 4)^2.
        "ellipse_major_axis_um": 4 * w / np.sqrt(12),
        "ellipse_minor_axis_um": 4 * h / np.sqrt(12),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_a_crescent_is_dented():
    t = np.linspace(0, np.pi, 200)
    outer = np.stack([20 * np.cos(t), 20 * np.sin(t)])
    inner = np.stack([14 * np.cos(t[::-1]), 14 * np.sin(t[::-1])])
    found = shapes_of(ring_of(*np.hstack([outer, inner])))
    assert found["solidity"] < 0.7
    assert found["convexity"] < 0.9
    assert found["curvature_min_per_um"] < 0
    assert found["n_indentations"] >= 1
    assert found["n_protrusions"] >= 2


@pytest.mark.parametrize("turn", [0.3, 1.0, np.pi / 2, 2.5])
def test_all_but_the_extent_stay_as_a_nucleus_turns(turn):
    flat, turned = shapes_of(ellipse_ring(20, 12)), shapes_of(ellipse_ring(20, 12, turn))
    for name in SHAPE_NAMES:
        if name != "extent":
            assert turned[name] == pytest.approx(flat[name], rel=0.02, abs=5e-3), name


def test_lengths_areas_and_curvatures_have_their_units():
    small, large = shapes_of(ellipse_ring(20, 12), 0.25), shapes_of(ellipse_ring(20, 12), 0.5)
    for name in SHAPE_NAMES:
        power = 2 if name.endswith("_um2") else -1 if name.endswith("_per_um") else 0
        power = 1 if name.endswith("_um") and power == 0 else power
        assert large[name] == pytest.approx(2**power * small[name], rel=1e-4, abs=1e-5), name


def test_drawn_pixels_agree_with_scikit_image():
    labels = np.zeros((80, 90), np.int32)
    cv2.ellipse(labels, (45, 40), (25, 14), 30, 0, 360, 1, cv2.FILLED)
    (properties,) = regionprops(labels)
    found = shapes_of(trace_outlines(labels), um=1.0)
    expected = {
        "area_um2": properties.area,
        "equivalent_diameter_um": properties.equivalent_diameter_area,
        "ellipse_major_axis_um": properties.axis_major_length,
        "ellipse_minor_axis_um": properties.axis_minor_length,
        "ellipse_eccentricity": properties.eccentricity,
        "perimeter_um": properties.perimeter_crofton,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.03), name
    assert found["extent"] == pytest.approx(properties.extent, rel=0.05)


def test_as_pixels_turn_lengths_stay_and_counts_of_curvature_do_not():
    """What the module says of an ellipse at the size of a nucleus, every ten degrees."""
    found = []
    for degrees in range(0, 180, 10):
        labels = np.zeros((60, 60), np.int32)
        cv2.ellipse(labels, (30, 30), (14, 10), degrees, 0, 360, 1, cv2.FILLED)
        found.append(shapes_of(trace_outlines(labels), um=1.0))
    for name in ("area_um2", "perimeter_um", "ellipse_major_axis_um", "solidity", "circularity"):
        values = np.array([shapes[name] for shapes in found])
        assert np.ptp(values) < 0.06 * values.mean(), name
    protrusions = [shapes["n_protrusions"] for shapes in found]
    indentations = [shapes["n_indentations"] for shapes in found]
    assert (min(protrusions), max(protrusions)) == (2, 7)
    assert (min(indentations), max(indentations)) == (0, 3)


def test_many_at_once_are_each_alone(monkeypatch):
    monkeypatch.setattr("ccrl_wsi.nuclei.boundary_shapes.AT_ONCE", 4)
    rings = [ellipse_ring(8 + i, 6 + (i % 3), 0.2 * i) for i in range(9)]
    together = measure_boundaries(Outlines.concat(rings), UM)
    alone = np.concatenate([measure_boundaries(ring, UM) for ring in rings])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert measure_boundaries(Outlines.concat([]), UM).shape == (0, 30)


def test_the_smallest_nuclei_are_finite():
    labels = np.zeros((9, 20), np.int32)
    labels[2, 2] = 1
    labels[5, 4:7] = 2
    labels[1:3, 10] = 3
    assert np.isfinite(measure_boundaries(trace_outlines(labels), 0.25)).all()


def test_points_are_equally_far_apart():
    ring = ring_of(np.array([0.0, 3, 3, 0]), np.array([0.0, 0, 1, 1]))
    points = resampled(ring, 8)[0]
    expected = [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1], [2, 1], [1, 1], [0, 1]]
    assert points == pytest.approx(np.array(expected, float), abs=1e-9)


def test_curvature_of_a_circle_is_one_over_its_radius():
    points = resampled(ellipse_ring(9, 9), 128)
    assert curvatures(points) == pytest.approx(np.full((1, 500), 1 / 9), rel=3e-2)


def test_names_are_thirty_and_apart_from_the_stored_ones():
    assert len(SHAPE_NAMES) == len(set(SHAPE_NAMES)) == 30
    assert len(NAMES) == 20  # what stores have has not changed
