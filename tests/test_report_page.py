"""The page of a report: whatever it is told it shows, whole, as text, and in one piece."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_wsi.outputs.report.bokeh_json import figure_json
from ccrl_wsi.outputs.report.cell_maps import (
    count_cells,
    over_pale,
    paint_clusters,
    paint_one,
)
from ccrl_wsi.outputs.report.composition_figures import Bars, heat_map, stacked_bars
from ccrl_wsi.outputs.report.page import render_report, script_json
from ccrl_wsi.outputs.report.words import (
    count,
    duration,
    listed,
    number,
    percent,
    short_names,
    signed,
    traits_in_words,
)
from ccrl_wsi.report_content import MeasurementSummary, ReportContent
from tests.report_examples import SCRIPT, made_up_overview, made_up_report

MAX_MB = 20
RED, BLUE = (200, 0, 0), (0, 0, 200)


class Page(HTMLParser):
    """Elements, the texts people see, and what is in scripts."""

    def __init__(self, html):
        super().__init__()
        self.scripts, self.tags, self.texts, self.links = [], [], [], []
        self.ids, self._inside = [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for key, value in attrs if key == "id"]
        self.links += [value for key, value in attrs if key in ("href", "src")]
        assert not [key for key, _ in attrs if key.startswith("on")]
        if tag in ("script", "style"):
            self._inside = tag
            if tag == "script":
                self.scripts.append("")

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside is None:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self):
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def hostile():
    return Page(render_report(made_up_report(8, 3, name=SCRIPT, n_crops=2)))


def test_names_that_are_html_are_shown_as_text(hostile):
    assert f"{SCRIPT}001" in hostile.text
    for what in ("patient 001", "group 1", "cannot be read & so on", "tumour", "type 75.0 %"):
        assert f"{SCRIPT} {what}" in hostile.text
    # The data, BokehJS, and the page's own script; nothing that a name has brought along.
    assert len(hostile.scripts) == 3


def test_names_that_are_html_reach_the_figures_unchanged(hostile):
    assert f"{SCRIPT}001" in json.dumps(hostile.data["figures"])
    assert "<script" not in hostile.scripts[0]


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())))
def test_json_in_a_script_cannot_end_it_and_reads_back(tree):
    text = script_json(tree)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == tree


def test_every_figure_has_its_place(hostile):
    targets = {item["target_id"] for item in hostile.data["figures"]}
    assert targets == {
        "slide-bars", "patient-bars", "density-bars", "heat", "components", "neighbours",
        "curve", "groups-0",
    }  # fmt: skip
    assert targets <= set(hostile.ids)
    assert len(set(hostile.ids)) == len(hostile.ids)


def test_every_link_stays_in_the_page_or_the_folder(hostile):
    for link in hostile.links:
        inside = link.startswith("#") and link[1:] in hostile.ids
        assert inside or link.startswith(("data:", "overlays/")), link[:60]


def test_equal_contents_give_equal_pages():
    one, other = (render_report(made_up_report(4, 3, n_crops=1)) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(("n_slides", "k"), [(1, 2), (2, 30), (45, 4)])
def test_cohorts_of_any_size_are_shown(n_slides, k):
    page = Page(render_report(made_up_report(n_slides, k, n_crops=1, n_pictures=2)))
    assert page.tags.count("article") == k + min(n_slides, 2)
    has_components = "components" in {item["target_id"] for item in page.data["figures"]}
    assert has_components == (n_slides >= 3)


def test_five_hundred_slides_fit_into_twenty_megabytes():
    html = render_report(made_up_report(500, 30, picture_px=560))
    assert len(html.encode()) < MAX_MB * 1e6
    page = Page(html)
    assert page.text.count("slide499") >= 1
    assert page.tags.count("article") == 30 + 40


def test_many_bars_are_put_by_likeness_at_first():
    few, many = (Page(render_report(made_up_report(n, 2, n_pictures=0))) for n in (5, 41))
    for page, is_first in ((few, False), (many, True)):
        orders = {order["name"]: order for order in page.data["orders"]["slide-bars"]}
        assert orders["likeness"]["first"] is is_first
        assert all(sorted(o["rows"]) == list(range(len(o["rows"]))) for o in orders.values())


def test_a_run_without_cells_or_clusters_is_told():
    overview = made_up_overview("x")
    page = Page(render_report(ReportContent("Nothing", overview, (), sentences=("No slide.",))))
    assert "No slide." in page.text
    assert "x cannot be read & so on" in page.text
    assert len(page.scripts) == 2  # without BokehJS


def test_slides_without_cells_stand_in_the_table_only():
    content = made_up_report(4, 3, n_crops=1)
    empty = replace(content.slides[0], slide_id="empty", n_cells=0, counts=(0, 0, 0), tissue_mm2=0)
    slides = (*content.slides, empty)
    page = Page(render_report(replace(content, slides=slides)))
    assert "empty" in page.text
    assert "NaN" not in page.scripts[0]


def test_too_few_patients_are_told_plainly():
    page = Page(render_report(made_up_report(8, 3, n_crops=1)))
    assert (
        "Too few patients: with 2 and 2, the smallest p-value that can come out is 0.33"
        in page.text
    )


def test_figures_are_numbered_anew():
    def bars():
        shown = Bars("slide", ["a"], np.ones((1, 2)), "share of cells", "r")
        return stacked_bars(shown, ["C01", "C02"], [RED, BLUE])

    one, other = figure_json(bars(), "here"), figure_json(bars(), "here")
    assert one == other
    assert one["target_id"] == "here"


def test_the_heat_map_shows_each_slide_in_its_place():
    compositions = made_up_report(4, 3, n_crops=1).compositions
    plot = heat_map(compositions, ["C01", "C02", "C03"])
    data = plot.renderers[0].data_source.data
    for x, y, value, title in zip(data["x"], data["y"], data["value"], data["title"], strict=True):
        row, column = compositions.slide_tree.order[int(y)], compositions.cluster_tree.order[int(x)]
        expected = compositions.ratios[row, column] - compositions.ratios[:, column].mean()
        assert value == pytest.approx(expected, abs=1e-5)
        assert title == compositions.slides[row].slide_id


def test_cells_are_counted_where_they_lie():
    counts = np.zeros((2, 3, 4))
    xy = np.array([[0.0, 0.0], [39.9, 29.9], [40.0, 30.0], [15.0, 5.0], [1.0, 1.0]])
    count_cells(counts, xy, np.array([0, 1, 1, 0, -1], np.int16), 10.0)
    assert counts.sum() == 4
    assert counts[0, 0, 0] == 1
    assert counts[0, 0, 1] == 1
    assert counts[1, 2, 3] == 2


def test_a_single_cell_is_seen_and_empty_glass_is_not():
    counts = np.zeros((2, 60, 80))
    counts[1, 30, 40] = 1
    picture = paint_clusters(counts, [RED, BLUE])
    assert tuple(picture[30, 40, :3]) == BLUE
    assert picture[30, 40, 3] > 100
    assert picture[5, 5, 3] == 0
    assert not paint_clusters(np.zeros((2, 4, 4)), [RED, BLUE])[..., 3].any()


def test_a_place_has_the_colour_of_most_of_its_cells():
    counts = np.zeros((2, 40, 40))
    counts[0] += 3
    counts[1] += 5
    counts[0, :, :20] += 6
    picture = paint_clusters(counts, [RED, BLUE])
    assert tuple(picture[20, 5, :3]) == RED
    assert tuple(picture[20, 35, :3]) == BLUE


def test_the_map_of_a_cluster_shows_the_other_cells_in_grey():
    counts = np.zeros((2, 40, 40))
    counts[0, :, :10] = 4
    counts[1, :, 10:30] = 4
    picture = paint_one(counts, 0, RED, 40)
    red = picture[..., 0].astype(int) - picture[..., 2]
    assert red[20, 4] > 150
    assert abs(red[20, 25]) < 10
    assert picture[20, 25, 3] == 255
    assert picture[20, 38, 3] == 0
    assert paint_one(counts, 0, RED, 10).shape == (10, 10, 4)


def test_cells_lie_over_the_pale_slide():
    cells = np.zeros((4, 4, 4), np.uint8)
    cells[0, 0] = (*RED, 255)
    slide = np.full((8, 8, 3), 100, np.uint8)
    over = over_pale(slide, cells)
    assert tuple(over[0, 0]) == RED
    assert 180 < over[3, 3, 0] == over[3, 3, 1] < 230
    assert tuple(over_pale(None, cells)[3, 3]) == (255, 255, 255)


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(8, 20))
def test_short_names_are_all_different(names, most):
    short = short_names(names, most)
    assert len(set(short)) == len(names)
    if len(set(names)) == len(names) and all(len(name) <= most for name in names):
        assert short == names


def test_a_cluster_is_described_by_what_stands_out():
    card = made_up_report(1, 2, n_crops=0).cards[0]
    assert traits_in_words(card) == "large"
    dark = MeasurementSummary("haematoxylin_mean", "OD", 0.8, 0.9, 1.0, (0.3, 0.4, 0.5))
    pink = MeasurementSummary("eosin_around", "OD", 0.1, 0.1, 0.1, (0.2, 0.4, 0.5))
    found = traits_in_words(replace(card, measurements=(*card.measurements, dark, pink)))
    assert found == "large and dark, with little eosin around"
    assert traits_in_words(replace(card, measurements=card.measurements[1:])) == ""


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number(12345.6), "12,346"),
        (number(float("nan")), "–"),
        (number(0.0653), "0.065"),
        (number(0.395), "0.40"),
        (number(38.14), "38.1"),
        (signed(-0.168), "−0.17"),
        (signed(-0.001), "0.00"),
        (signed(1.2), "+1.20"),
        (percent(0.0001), "< 0.1 %"),
        (percent(0.0), "0.0 %"),
        (duration(0.2), "< 1 s"),
        (duration(90), "90 s"),
        (duration(600), "10 min"),
        (duration(36000), "10.0 h"),
        (count(1, "slide"), "1 slide"),
        (count(1200, "slide"), "1,200 slides"),
        (listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_are_said_as_people_say_them(said, expected):
    assert said == expected


def test_a_card_says_how_much_of_it_is_one_slides(hostile):
    assert f"50.0 % of them on {SCRIPT}1.svs, which has 25.0 % of all cells." in hostile.text
    content = made_up_report(2, 2)
    assert "may follow the slides" not in Page(render_report(content)).text
    curve = replace(content.curve, follows_slides=True)
    page = Page(render_report(replace(content, curve=curve)))
    assert "the number may follow the slides, not the kinds of nuclei." in page.text


def test_densities_are_said_to_be_of_nuclei_that_were_found(hostile):
    assert "differences of densities between slides may be its own" in hostile.text
