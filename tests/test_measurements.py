import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.measure import regionprops
from skimage.segmentation import relabel_sequential

from ccrl_wsi.measurement_names import MEASUREMENTS, NAMES, columns_of
from ccrl_wsi.nuclei.measurements import measure
from ccrl_wsi.nuclei.outlines import trace_outlines
from ccrl_wsi.nuclei.regions import find_regions

MPP = 0.25
HAEMATOXYLIN = np.array([0.650, 0.704, 0.286])
EOSIN = np.array([0.072, 0.990, 0.105])


def measured(rgb, labels, mpp=MPP):
    """The values of each column by name, (n,) each."""
    regions = find_regions(labels)
    table = measure(rgb, labels, regions, trace_outlines(labels, regions), mpp)
    return dict(zip(NAMES, table.T, strict=True))


def plain(labels, value=200):
    return np.full((*labels.shape, 3), value, np.uint8)


def ellipse(a, b, degrees=0.0, side=120):
    """One filled ellipse of half-axes a, b (px), turned counter-clockwise on the screen."""
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    t = np.radians(degrees)
    along, across = x * np.cos(t) - y * np.sin(t), x * np.sin(t) + y * np.cos(t)
    return ((along / a) ** 2 + (across / b) ** 2 <= 1).astype(np.int32)


def stained(haematoxylin, eosin, shape):
    h, e = (v / np.linalg.norm(v) for v in (HAEMATOXYLIN, EOSIN))
    density = np.multiply.outer(haematoxylin * np.ones(shape), h) + eosin * e
    return np.round(255 * 10**-density).astype(np.uint8)


def test_a_disc_measures_as_a_disc():
    found = measured(plain(ellipse(20, 20)), ellipse(20, 20))

    assert found["area_um2"][0] == ellipse(20, 20).sum() * MPP**2
    assert found["equivalent_diameter_um"][0] == pytest.approx(10, rel=5e-3)
    assert found["perimeter_um"][0] == pytest.approx(10 * np.pi, rel=0.02)
    assert found["major_axis_um"][0] == pytest.approx(10, rel=0.015)
    assert found["minor_axis_um"][0] == pytest.approx(10, rel=0.015)
    assert found["circularity"][0] > 0.97
    assert found["solidity"][0] > 0.98
    assert found["extent"][0] == pytest.approx(np.pi / 4, rel=0.01)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135, 170])
def test_an_ellipse_gives_its_axes_and_direction(degrees):
    labels = ellipse(30, 12, degrees)

    found = measured(plain(labels), labels)

    assert found["major_axis_um"][0] == pytest.approx(2 * 30 * MPP, rel=0.02)
    assert found["minor_axis_um"][0] == pytest.approx(2 * 12 * MPP, rel=0.02)
    assert found["eccentricity"][0] == pytest.approx(np.sqrt(1 - 0.4**2), abs=0.01)
    off = (found["orientation_deg"][0] - degrees + 90) % 180 - 90
    assert abs(off) < 1


def test_a_rectangle_has_the_moments_of_a_rectangle():
    labels = np.zeros((60, 90), np.int32)
    labels[20:30, 20:60] = 1

    found = measured(plain(labels), labels)

    # A side s has variance s^2 / 12; axes are 4 standard deviations long.
    assert found["major_axis_um"][0] == pytest.approx(40 * MPP * 4 / np.sqrt(12), rel=0.02)
    assert found["minor_axis_um"][0] == pytest.approx(10 * MPP * 4 / np.sqrt(12), rel=0.02)
    assert found["perimeter_um"][0] == pytest.approx(100 * MPP, rel=0.03)
    assert found["extent"][0] == 1
    assert abs(np.sin(np.radians(found["orientation_deg"][0]))) < 0.01


def test_a_bent_nucleus_is_less_solid_than_a_straight_one():
    labels = np.zeros((60, 90), np.int32)
    labels[10:40, 10:20] = labels[30:40, 10:40] = 1
    labels[10:40, 50:70] = 2

    solidity = measured(plain(labels), labels)["solidity"]

    assert solidity[0] == pytest.approx(500 / 700, rel=0.04)
    assert solidity[1] > 0.98


@pytest.mark.parametrize(("haematoxylin", "eosin"), [(0.5, 0.1), (0.2, 0.4), (0.9, 0.0)])
def test_a_known_stain_is_found_inside_and_around(haematoxylin, eosin):
    labels = ellipse(15, 10)
    rgb = stained(0.05, 0.3, labels.shape)
    rgb[labels == 1] = stained(haematoxylin, eosin, ())

    found = measured(rgb, labels)

    assert found["haematoxylin_mean"][0] == pytest.approx(haematoxylin, abs=0.01)
    assert found["eosin_mean"][0] == pytest.approx(eosin, abs=0.01)
    assert found["haematoxylin_around"][0] == pytest.approx(0.05, abs=0.01)
    assert found["eosin_around"][0] == pytest.approx(0.3, abs=0.01)
    assert found["haematoxylin_std"][0] == pytest.approx(0, abs=1e-3)


def test_neighbouring_nuclei_are_not_the_surroundings():
    labels = np.zeros((60, 60), np.int32)
    labels[20:40, 15:30], labels[20:40, 30:45] = 1, 2
    rgb = stained(0.0, 0.2, labels.shape)
    rgb[labels == 1], rgb[labels == 2] = stained(0.3, 0, ()), stained(0.9, 0, ())

    found = measured(rgb, labels)

    np.testing.assert_allclose(found["haematoxylin_around"], 0, atol=0.01)
    np.testing.assert_allclose(found["haematoxylin_mean"], [0.3, 0.9], atol=0.01)


def test_a_flat_nucleus_has_no_texture():
    labels = ellipse(15, 10)

    found = measured(plain(labels), labels)

    for name in ("gradient", "contrast", "grey_std", "entropy"):
        assert found[name][0] == pytest.approx(0, abs=1e-6), name


def test_a_slope_has_its_slope_as_gradient_and_its_square_as_contrast():
    labels = ellipse(15, 15)
    rgb = np.repeat(np.repeat(2 * np.arange(120, dtype=np.uint8)[None, :, None], 120, 0), 3, 2)

    found = measured(rgb, labels)

    assert found["gradient"][0] == pytest.approx(2 / MPP, rel=1e-3)
    # About half of the pairs lie along the slope (difference 2), the other half across (0).
    assert found["contrast"][0] == pytest.approx(4 / 2, rel=0.02)


def test_two_equally_common_greys_are_one_bit():
    labels = np.zeros((20, 20), np.int32)
    labels[5:15, 5:15] = 1
    rgb = plain(labels, 40)
    rgb[:, 10:] = 240

    found = measured(rgb, labels)

    assert found["entropy"][0] == pytest.approx(1)
    assert found["grey_std"][0] == pytest.approx(100)


def test_shapes_agree_with_regionprops_on_ordinary_nuclei():
    rng = np.random.default_rng(7)
    labels = np.zeros((300, 300), np.int32)
    for i in range(36):
        centre = (25 + 50 * (i % 6), 25 + 50 * (i // 6))
        axes = tuple(int(v) for v in rng.uniform(9, 20, 2))
        cv2.ellipse(labels, centre, axes, rng.uniform(0, 180), 0, 360, i + 1, -1)

    found = measured(plain(labels), labels)

    theirs = regionprops(labels, spacing=MPP)
    for name, attribute, tolerance in [
        ("area_um2", "area", 1e-6),
        ("equivalent_diameter_um", "equivalent_diameter_area", 1e-6),
        ("major_axis_um", "axis_major_length", 0.02),
        ("minor_axis_um", "axis_minor_length", 0.02),
        ("perimeter_um", "perimeter", 0.06),
        ("extent", "extent", 1e-6),
        ("solidity", "solidity", 0.06),
    ]:
        np.testing.assert_allclose(
            found[name], [getattr(p, attribute) for p in theirs], rtol=tolerance, err_msg=name
        )


def test_textures_agree_with_plain_loops():
    rng = np.random.default_rng(3)
    labels = (rng.random((24, 24)) < 0.7).astype(np.int32)
    rgb = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(float)

    found = measured(rgb, labels)

    steps = [
        (grey[y, x] - grey[y + dy, x + dx]) ** 2
        for y in range(24)
        for x in range(24)
        for dy, dx in [(0, 1), (1, 0)]
        if labels[y, x] and y + dy < 24 and x + dx < 24 and labels[y + dy, x + dx]
    ]
    assert found["contrast"][0] == pytest.approx(np.mean(steps), rel=1e-5)
    assert found["grey_std"][0] == pytest.approx(grey[labels == 1].std(), rel=1e-5)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_neighbours_are_no_further_than_the_next_pixel_and_in_one_nucleus(width):
    rng = np.random.default_rng(width)
    for _ in range(20):
        # Nuclei reach from one side to the other: the next pixel may lie in the next row.
        drawn = rng.integers(0, 4, (9, width))
        labels = relabel_sequential(drawn)[0].astype(np.int32)
        rgb = rng.integers(0, 256, (9, width, 3), dtype=np.uint8)
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(float)
        found = measured(rgb, labels)["contrast"]
        for number in range(1, labels.max() + 1):
            own = np.where(labels == number, grey, np.nan)
            steps = np.concatenate([np.diff(own, axis=axis).ravel() for axis in (0, 1)])
            steps = steps[np.isfinite(steps)]
            expected = (steps**2).mean() if len(steps) else 0
            assert found[number - 1] == pytest.approx(expected, rel=1e-5)


@settings(max_examples=120, deadline=None)
@given(
    arrays.arrays(
        np.int32,
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.integers(0, 3),
    ),
    st.sampled_from(["white", "black", "noise"]),
)
def test_every_measurement_of_any_nucleus_is_finite(labels, look):
    labels = relabel_sequential(labels)[0].astype(np.int32)
    rng = np.random.default_rng(0)
    rgb = {
        "white": plain(labels, 255),
        "black": plain(labels, 0),
        "noise": rng.integers(0, 256, (*labels.shape, 3), dtype=np.uint8),
    }[look]

    found = measured(rgb, labels)

    for name in NAMES:
        assert np.isfinite(found[name]).all(), name
        assert len(found[name]) == labels.max()
    for name in ("eccentricity", "circularity", "solidity", "extent"):
        assert ((found[name] >= 0) & (found[name] <= 1)).all(), name


def test_a_nucleus_measures_the_same_in_another_tile():
    rng = np.random.default_rng(1)
    labels = np.zeros((90, 90), np.int32)
    labels[30:60, 30:60] = ellipse(14, 9, 20, side=30)
    rgb = rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)

    here = measured(rgb, labels)
    there = measured(rgb[17:83, 11:80], labels[17:83, 11:80])

    for name in NAMES:
        assert here[name].tobytes() == there[name].tobytes(), name


def test_measurements_have_one_row_a_nucleus_and_known_columns():
    labels = np.zeros((50, 50), np.int32)
    labels[5:15, 5:15], labels[30:40, 20:40] = 1, 2
    regions = find_regions(labels).where(np.array([1]))

    table = measure(plain(labels), labels, regions, trace_outlines(labels, regions), MPP)

    assert table.dtype == np.float32
    assert table.shape == (1, len(MEASUREMENTS))
    assert columns_of(table, ["extent", "area_um2"]).tolist() == [[1, 200 * MPP**2]]


def test_no_nuclei_give_an_empty_table():
    labels = np.zeros((10, 10), np.int32)
    regions = find_regions(labels)

    table = measure(plain(labels), labels, regions, trace_outlines(labels, regions), MPP)

    assert table.shape == (0, len(MEASUREMENTS))


def test_names_are_unique_and_carry_their_unit():
    assert len(set(NAMES)) == len(NAMES)
    for m in MEASUREMENTS:
        assert m.unit not in ("um", "um2", "deg") or m.name.endswith(f"_{m.unit}")
