"""The report of real runs on drawn slides: made by run and cluster, never in their way."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import yaml

from ccrl_wsi.clusters.codebook import load_codebook
from ccrl_wsi.config import load_settings
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.slides.pyramid import write_pyramid
from ccrl_wsi.slides.slide_list import list_slides
from ccrl_wsi.store import open_store, write_labels
from ccrl_wsi.synthetic import DrawnSlideSpec, draw_slide
from pipelines import report as report_module
from pipelines.machines import LocalMachine, SerialMachine
from pipelines.output_folder import open_output
from pipelines.report import gather, make_report, report_again
from pipelines.report_crops import crops_of
from pipelines.report_names import ReportNames
from pipelines.report_slides import open_slides
from pipelines.resolved_settings import resolved
from pipelines.run import cluster_again, run_cohort
from pipelines.state import load_states
from tests.pipelines.conftest import SMOKE

SETTINGS = [s for s in SMOKE if not s.startswith("report.")]
SERIAL = SerialMachine()


def settings(*more):
    return resolved(load_settings(overrides=[*SETTINGS, "report.n_permutations=200", *more]))


def without_times(html):
    return re.sub(r'<(span|div) class="time">.*?</\1>', "", html, flags=re.DOTALL)


def data_of(html):
    found = re.search(r'id="report-data">(.*?)</script>', html, flags=re.DOTALL)
    return json.loads(found.group(1))


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Four drawn slides, one of them without tissue, and one that is none."""
    folder = tmp_path_factory.mktemp("cohort")
    for number in range(3):
        spec = DrawnSlideSpec(width_px=420, height_px=380, mpp=0.5, n_nuclei=70, seed=number)
        write_pyramid(folder / f"drawn{number}.tif", draw_slide(spec).rgb, 0.5)
    write_pyramid(folder / "empty.tif", np.full((300, 300, 3), 255, np.uint8), 0.5)
    (folder / "broken.tif").write_bytes(b"this is not a slide" * 50)
    return folder


@pytest.fixture(scope="module")
def finished(slides, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    result = run_cohort(list_slides([str(slides)]), out, settings(), SERIAL)
    assert result.exit_code == 1
    assert result.report == out.resolve() / "report.html"
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def test_run_writes_a_report_with_all_its_parts(finished):
    html = (finished / "report.html").read_text()
    targets = {item["target_id"] for item in data_of(html)["figures"]}
    assert targets == {"slide-bars", "density-bars", "heat", "components", "neighbours"}
    for words in ("drawn0", "empty", "no tissue found", "broken", "is not a slide"):
        assert words in html
    assert html.count('class="card"') == 3
    assert html.count('class="slide"') == 4
    assert "overlays/drawn1.geojson.gz" in html


def test_shares_in_the_report_are_those_of_the_stores(finished):
    content = gather(open_output(finished), settings())
    for slide in content.slides:
        cluster = open_store(finished / "slides" / f"{slide.slide_id}.zarr").obs("cluster")
        assert slide.counts == tuple(np.bincount(cluster, minlength=3))
    assert sum(card.n_cells for card in content.cards) == sum(s.n_cells for s in content.slides)
    assert sum(card.fraction for card in content.cards) == pytest.approx(1)


def test_dask_writes_the_same_report(slides, finished, tmp_path):
    run_cohort(list_slides([str(slides)]), tmp_path, settings(), LocalMachine(workers=2))
    one, other = ((out / "report.html").read_text() for out in (finished, tmp_path))
    assert without_times(one) == without_times(other)


def test_cluster_writes_the_report_anew(copy):
    took = json.loads((copy / "run_report.json").read_text())["seconds"]
    result = cluster_again(copy, settings("clusters.k=4"), SERIAL)
    html = (copy / "report.html").read_text()
    assert html.count('class="card"') == 4
    assert result.report is not None
    overview = gather(open_output(copy), settings("clusters.k=4")).overview
    assert overview.run_seconds == took
    assert overview.finish_seconds is not None
    assert "Clusters, overlays and tables were written anew later" in html
    assert "of the cells looked at" in html


def test_a_chosen_number_of_clusters_shows_its_curve(copy):
    cluster_again(copy, settings("clusters.k=auto", "clusters.auto.resamples=2"), SERIAL)
    targets = [item["target_id"] for item in data_of((copy / "report.html").read_text())["figures"]]
    assert "curve" in targets
    html = (copy / "report.html").read_text()
    assert "spread over resamplings" in html
    assert "standard errors" not in html


def test_no_report_is_made_where_none_is_wanted(copy):
    (copy / "report.html").unlink()
    assert cluster_again(copy, settings("report.make=false"), SERIAL).report is None
    assert not (copy / "report.html").exists()


def test_a_report_that_fails_loses_nothing(copy, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(report_module, "render_report", fail)
    before = (copy / "report.html").read_bytes()
    result = cluster_again(copy, settings("clusters.k=2"), SERIAL)
    assert result.exit_code == 0
    assert result.report is None
    assert "no ink" in caplog.text
    assert "ccrl-wsi report" in caplog.text
    assert (copy / "report.html").read_bytes() == before
    assert (copy / "composition.csv").is_file()


def test_groups_come_from_a_table_and_are_remembered(copy, tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text(
        "slide_id,patient,group,site\n"
        "drawn0,p<0>,ill,A\ndrawn1.tif,p1,well,B\ndrawn2,p2,ill,A\nother,p9,ill,C\n"
    )
    report_again(copy, settings(), table)
    html = (copy / "report.html").read_text()
    assert "names slides that this run does not have: other." in html
    assert "p&lt;0&gt;" in html
    assert "ill and well cannot be compared: each needs 2 patients at least" in html
    assert "patient-bars" in {item["target_id"] for item in data_of(html)["figures"]}
    assert "Scanner and site" in html
    cluster_again(copy, settings("clusters.k=2"), SERIAL)
    assert "ill and well cannot be compared" in (copy / "report.html").read_text()


def test_sites_come_from_the_slide_list(slides, tmp_path):
    table = tmp_path / "slides.csv"
    rows = [f"{slides}/drawn{i}.tif,p{i},{'AB'[i % 2]}\n" for i in range(3)]
    table.write_text("path,patient,site\n" + "".join(rows))
    quiet = settings("report.make=false")
    run_cohort(list_slides([str(slides)]), tmp_path / "out", quiet, SERIAL)
    stores = [p for p in (tmp_path / "out" / "slides").rglob("*") if p.is_file()]
    before = {p: p.stat().st_mtime_ns for p in stores if "embedding" in str(p) or "/X/" in str(p)}
    run_cohort(list_slides([str(table)]), tmp_path / "out", settings(), SERIAL)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "<td>site</td>" in (tmp_path / "out" / "report.html").read_text()


def test_a_bad_table_is_refused_and_changes_nothing(copy, tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text("name\nx\n")
    with pytest.raises(ConfigError, match="slide_id or patient"):
        report_again(copy, settings(), table)
    assert not (copy / "groups.csv").exists()


def test_other_clusters_are_refused(finished):
    with pytest.raises(ConfigError, match=r"clusters\.k"):
        report_again(finished, settings("clusters.k=4"), None)


def test_a_slide_that_is_gone_is_told(slides, tmp_path):
    moved = shutil.copytree(slides, tmp_path / "moved")
    out = tmp_path / "out"
    run_cohort(list_slides([str(moved / "drawn0.tif")]), out, settings(), SERIAL)
    assert "not where" not in (out / "report.html").read_text()
    shutil.copyfile(moved / "drawn1.tif", moved / "drawn0.tif")  # another slide, the same name
    make_report(open_output(out), settings())
    html = (out / "report.html").read_text()
    assert "its file is not where it was, or has changed" in html
    assert "Crops cannot be shown" in html


def test_crops_are_those_the_encoder_saw(slides, tmp_path):
    kept = settings("crops.keep=true", "report.make=false")
    run_cohort(list_slides([str(slides / "drawn0.tif")]), tmp_path, kept, SERIAL)
    folder = open_output(tmp_path)
    states = load_states(folder)
    names = ReportNames({state.slide_id: state.path for state in states}, folder.root)
    opened, _ = open_slides(
        folder, states, names, gather_traits(states), load_codebook(folder.codebook)
    )
    rows = np.arange(0, opened[0].store.n_cells, 3)
    where = np.zeros(len(rows), int)
    stored = crops_of(opened, where, rows, kept.slides)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("pipelines.report_crops._kept", lambda *_: None)
        patch.setattr("pipelines.report_crops.SHOWN_PX", 32)
        cut = crops_of(opened, where, rows, kept.slides)
    assert stored.keys() == cut.keys()
    assert len(cut) == len(rows)
    error = [np.abs(stored[key].astype(float) - cut[key]).mean() for key in cut]
    assert np.median(error) < 4
    assert max(error) < 20


def gather_traits(states):
    from ccrl_wsi.cohort.slide_traits import Traits

    return {state.slide_id: Traits(state.patient, state.group) for state in states}


def test_too_many_clusters_leave_a_report_on_slides(copy):
    shutil.rmtree(copy / "slides" / "drawn1.zarr")
    result = cluster_again(copy, settings("clusters.k=30", "clusters.sample_in_all=8"), SERIAL)
    assert any(failure.stage == "cluster" for failure in result.failures)
    html = (copy / "report.html").read_text()
    assert "<h3>drawn0</h3>" in html


def test_a_slide_whose_clusters_are_missing_is_not_taken_for_the_first_cluster(copy):
    path = copy / "state" / "drawn0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finish": ""}))
    content = gather(open_output(copy), settings())
    slide = next(slide for slide in content.slides if slide.slide_id == "drawn0")
    assert slide.counts is None
    assert "no clusters yet" in content.pictures["drawn0"].note
    painted = content.pictures["drawn0"].cells
    assert content.colors[0] not in {tuple(c) for c in painted[painted[..., 3] > 0][:, :3].tolist()}
    assert {s.slide_id for s in content.compositions.slides} == {"drawn1", "drawn2"}


def test_labels_from_qupath_are_set_beside_clusters(copy):
    clusters = {}
    for name, labels in (("drawn0", ("stroma", "tumour")), ("drawn1", ("tumour",))):
        path = copy / "slides" / f"{name}.zarr"
        cluster = open_store(path).obs("cluster")
        # Every third cell is labelled: by its cluster on the first slide, all alike on the second.
        code = np.where(np.arange(len(cluster)) % 3 == 0, cluster % len(labels), -1)
        write_labels(path, code.astype(np.int8), labels, ("drawn.geojson",))
        clusters[name] = cluster[::3]
    table = gather(open_output(copy), settings()).labels
    assert table.labels == ("stroma", "tumour")
    even, odd = (
        np.bincount(clusters["drawn0"][clusters["drawn0"] % 2 == i], minlength=3) for i in (0, 1)
    )
    np.testing.assert_array_equal(table.counts[0], even)
    np.testing.assert_array_equal(
        table.counts[1], odd + np.bincount(clusters["drawn1"], minlength=3)
    )
    assert 0 < table.agreement < 1
    make_report(open_output(copy), settings())
    assert "<td>stroma</td>" in (copy / "report.html").read_text()


def test_only_some_slides_are_shown_as_pictures(finished):
    content = gather(open_output(finished), settings("report.slides_shown=2"))
    assert len(content.pictures) == 2
    none = gather(open_output(finished), settings("report.slides_shown=0"))
    every = gather(open_output(finished), settings())
    assert not none.pictures
    np.testing.assert_array_equal(none.neighbourhoods.z, every.neighbourhoods.z)
    for one, other in zip(none.cards, every.cards, strict=True):
        assert [m.title for m in one.maps] == [m.title for m in other.maps] != []


def damage(out, name, part):
    """Spoil all chunks of one array of a slide's store."""
    chunks = [p for p in (out / "slides" / f"{name}.zarr").rglob("*") if p.is_file()]
    spoilt = [p for p in chunks if f"/{part}/" in p.as_posix() and not p.name.endswith(".json")]
    assert spoilt
    for path in spoilt:
        path.write_bytes(b"spoilt")


def test_a_damaged_slide_is_left_out_of_the_report_and_named(copy):
    damage(copy, "drawn1", "X")
    content = gather(open_output(copy), settings())
    assert {s.slide_id for s in content.slides} == {"drawn0", "drawn2", "empty"}
    assert any(s.startswith("drawn1 is left out: ") for s in content.sentences)
    result = cluster_again(copy, settings("clusters.k=4"), SERIAL)
    assert [failure.slide_id for failure in result.failures if failure.stage == "finish"]
    assert result.report is not None
    assert not json.loads((copy / "state" / "drawn1.json").read_text())["finish"]
    assert (copy / "report.html").read_text().count('class="card"') == 4


def test_clusters_of_another_codebook_are_not_counted(copy):
    stale = copy / "slides" / "drawn1.zarr"
    kept = shutil.copytree(stale, copy / "kept")
    cluster_again(copy, settings("clusters.k=4"), SERIAL)
    shutil.rmtree(stale)
    kept.rename(stale)
    content = gather(open_output(copy), settings())
    assert {s.slide_id for s in content.compositions.slides} == {"drawn0", "drawn2"}
    assert any("drawn1 has clusters of another codebook" in s for s in content.sentences)


def test_patients_of_the_table_are_counted_and_a_failed_copy_keeps_the_old_table(
    copy, tmp_path, monkeypatch
):
    table = tmp_path / "cohort.csv"
    table.write_text("slide_id,patient\ndrawn0,p0\ndrawn1,p0\ndrawn2,p1\n")
    report_again(copy, settings(), table)
    assert ("patients", "2") in gather(open_output(copy), settings()).overview.facts

    def fill(_, target):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_module.shutil, "copyfile", fill)
    before = (copy / "groups.csv").read_text()
    with pytest.raises(OSError, match="No space"):
        report_again(copy, settings(), table)
    assert (copy / "groups.csv").read_text() == before
    assert not list(copy.glob("groups.csv.*"))


def test_slides_are_named_by_their_ids_alone(slides, tmp_path):
    """A slide_id may stand for a name that a report shall not tell."""
    home = tmp_path / "Srv Maier"
    home.mkdir()
    for file in ("drawn0.tif", "broken.tif"):
        shutil.copyfile(slides / file, home / f"Müller {file}")
    shutil.copyfile(slides / "empty.tif", home / "Schnitt O 1.tif")
    table = tmp_path / "slides.csv"
    table.write_text(
        f"path,slide_id\n{home}/Müller drawn0.tif,S_a\n{home}/Müller broken.tif,S_b\n"
        f"{home}/Schnitt O 1.tif,S_c\n",
        encoding="utf-8",
    )
    out = tmp_path / "out of Maier"
    result = run_cohort(list_slides([str(table)]), out, settings(), SERIAL)
    assert result.exit_code == 1
    html = (out / "report.html").read_text(encoding="utf-8")
    for word in ("Müller", "Schnitt", "Maier", str(tmp_path)):
        assert word not in html
    for name in ("S_a", "S_b", "S_c"):
        assert name in html
    assert "<td>S_b</td>" in html
    assert "S_c: no tissue found" in html


def test_clusters_that_follow_slides_are_warned_about(tmp_path, caplog):
    for number, name in enumerate(("pale", "dark")):
        spec = DrawnSlideSpec(width_px=300, height_px=300, mpp=0.5, n_nuclei=60, seed=number)
        # Stain of twice the strength: optical densities double.
        light = (draw_slide(spec).rgb / 255.0) ** (1 + number)
        write_pyramid(tmp_path / f"{name}.tif", np.uint8(light * 255), 0.5, compression="deflate")
    out, two = tmp_path / "out", settings("clusters.k=2")
    run_cohort(list_slides([str(tmp_path)]), out, two, SERIAL)
    content = gather(open_output(out), two)
    counts = np.array([slide.counts for slide in content.slides])
    assert (counts.max(axis=0) >= 0.9 * counts.sum(axis=0)).all()
    said = [s for s in content.sentences if "clusters are nearly one slide's" in s]
    assert said[0].startswith("2 of 2 clusters")
    assert said[0] in caplog.text
    for j, card in enumerate(content.cards):
        most = int(counts[:, j].argmax())
        assert card.largest.title == content.slides[most].slide_id
        assert card.largest.of_cluster == counts[most, j] / counts[:, j].sum()
        assert card.largest.of_all == counts[most].sum() / counts.sum()


def test_unlike_pixel_sizes_are_warned_about(tmp_path, caplog):
    for mpp in (0.5, 1.0):
        spec = DrawnSlideSpec(width_px=240, height_px=240, mpp=mpp, n_nuclei=40, seed=1)
        write_pyramid(tmp_path / f"of{mpp}.tif", draw_slide(spec).rgb, mpp)
    out = tmp_path / "out"
    run_cohort(list_slides([str(tmp_path)]), out, settings("clusters.k=2"), SERIAL)
    said = "1 of 2 slides has larger pixels than the others"
    assert said in caplog.text
    assert said in (out / "report.html").read_text()
    warned = {state.slide_id: state.warnings for state in load_states(open_output(out))}
    assert not warned["of0_5"]
    assert "enlarged 2.0 times" in warned["of1_0"][0]
    assert "enlarged 2.0 times" in (out / "slides.csv").read_text()


def test_methods_hold_the_settings_that_were_followed(copy):
    def shown():
        return yaml.safe_load(gather(open_output(copy), settings()).overview.settings)

    first = shown()
    assert first["cells"]["nuclei"]["watershed"]["window_um"] == 20.0
    assert not {"compact", "boundary_scale"} & set(first["cells"]["nuclei"])
    assert "auto" not in first["clusters"]
    run_file = copy / "run.json"
    run = json.loads(run_file.read_text())
    run["cells"]["nuclei"]["segmenter"] = "compact"
    run_file.write_text(json.dumps(run))
    other = shown()["cells"]["nuclei"]
    assert "watershed" not in other
    assert "compact" in other
    cluster_again(copy, settings("clusters.k=auto", "clusters.auto.resamples=2"), SERIAL)
    assert shown()["clusters"]["auto"]["resamples"] == 2


def test_one_of_a_thing_is_not_told_as_several(slides, tmp_path):
    run_cohort(list_slides([str(slides / "drawn0.tif")]), tmp_path, settings(), SERIAL)
    html = (tmp_path / "report.html").read_text()
    words = " ".join(re.sub(r"<script.*?</script>|<[^>]*>", " ", html, flags=re.DOTALL).split())
    assert not re.search(r"(?<![\d,.])1 (slides|patients|sites|warnings|cells)\b", words)
    assert "slide 1 nuclei" in words
