import csv
import gzip

import numpy as np
import pytest
from typer.testing import CliRunner

from ccrl_wsi.errors import CcrlError, ConfigError, EvaluationError
from ccrl_wsi.evaluation.moa_settings import MoaSettings
from ccrl_wsi.settings_tree import load_tree
from pipelines.cli import app
from pipelines.evaluate_moa import evaluate_moa
from pipelines.moa_report import scores_page, write_moa_report
from tests.drawn_profiles import profile_frame


def evaluated(tmp_path, frame, *overrides):
    path = tmp_path / "profiles.csv"
    frame.to_csv(path, index=False)
    return evaluate_moa(path, load_tree(MoaSettings, [], overrides))


def by_name(evaluation):
    return {result.name: result.scores for result in evaluation.results}


def test_every_kind_of_profiles_is_scored(tmp_path):
    evaluation = evaluated(tmp_path, profile_frame())
    scores = by_name(evaluation)
    assert [*scores] == [
        f"{clean}{norm}"
        for clean in ("as given", "standardised", "cleaned up")
        for norm in ("", ", whitening", ", TVN", ", centred TVN")
    ]
    # Two compounds a mechanism, one in each week, far apart: all are right under both rules.
    assert all(s.nsc.accuracy == 1 and s.nscb.accuracy == 1 for s in scores.values())
    assert all(s.nsc.n_scored == 12 for s in scores.values())
    assert evaluation.remarks == ()


def test_the_order_of_rows_and_columns_does_not_matter(tmp_path):
    frame = profile_frame(seed=1)
    frame.iloc[:, 5:] += 2.5 * np.random.default_rng(0).normal(size=frame.iloc[:, 5:].shape)
    first = by_name(evaluated(tmp_path, frame))
    shuffled = frame.sample(frac=1, random_state=0)[frame.columns[::-1]]
    second = by_name(evaluated(tmp_path, shuffled))
    assert 0.3 < first["as given"].nsc.accuracy < 1
    for name, scores in first.items():
        assert scores.nsc.accuracy == pytest.approx(second[name].nsc.accuracy)


def test_without_controls_or_batches_what_is_left_is_scored_and_said(tmp_path):
    frame = profile_frame()
    treated = frame[frame["Metadata_Compound"] != "DMSO"]
    evaluation = evaluated(tmp_path, treated)
    assert [*by_name(evaluation)] == ["as given"]
    assert any("0 wells of DMSO" in remark for remark in evaluation.remarks)
    evaluation = evaluated(tmp_path, frame.drop(columns=["Metadata_Plate", "Metadata_Well"]))
    assert all(scores.nscb is None for scores in by_name(evaluation).values())
    assert any("neither NSCB nor CORAL" in remark for remark in evaluation.remarks)
    assert "| - | - |" in scores_page(evaluation)


def test_cells_become_wells_and_gaps_are_left_out(tmp_path):
    frame = profile_frame()
    cells = frame.loc[frame.index.repeat(3)].reset_index(drop=True)
    cells["Cells_Gap"] = np.where(np.arange(len(cells)) == 5, np.nan, np.arange(len(cells)))
    cells["Cells_Same"] = 4.0
    cells.loc[7, cells.columns[5:]] = np.nan  # a cell nothing was measured of
    evaluation = evaluated(tmp_path, cells)
    assert len(evaluation.wells) == len(frame)
    told = " ".join(evaluation.remarks)
    assert "1 rows are mostly no numbers" in told
    assert (
        "2 of 10 features are left out: 1 lack numbers in some rows, 1 are always the same" in told
    )
    assert by_name(evaluation)["as given"].nsc.accuracy == 1


def test_what_a_week_adds_to_every_well_is_gone_after_centring(tmp_path):
    """A constant in every feature of one week: the neighbour is of that week, unless centred."""
    found = {}
    for shift in (0.0, 40.0):
        evaluation = evaluated(tmp_path, profile_frame(shift=shift))
        found[shift] = {result.name: result for result in evaluation.results}
    assert found[40]["as given"].scores.nsc.accuracy < 0.5
    for name, is_same in (("centred TVN", True), ("TVN", False)):
        pair = [found[shift][f"as given, {name}"].treatments.features for shift in (0, 40)]
        # Principal axes have no sign: angles and lengths are compared.
        first, second = (features @ features.T for features in pair)
        assert np.allclose(first, second, atol=1e-6) == is_same
    assert found[40]["as given, centred TVN"].scores.nscb.accuracy == 1


def test_unknown_mechanisms_are_told_and_not_scored(tmp_path):
    frame = profile_frame()
    frame.loc[frame["Metadata_Compound"] == "compound0-1", "Metadata_Moa"] = ""
    evaluation = evaluated(tmp_path, frame)
    assert any(
        "4 wells have no known mechanism" in r and "compound0-1" in r for r in evaluation.remarks
    )
    nsc = by_name(evaluation)["as given"].nsc
    assert nsc.left_out == ("mechanism 0",)  # its other compound is alone now
    assert nsc.n_scored == 8


def test_two_mechanisms_of_one_treatment_are_refused(tmp_path):
    frame = profile_frame()
    frame.loc[5, "Metadata_Moa"] = "mechanism 2"
    with pytest.raises(EvaluationError, match="several mechanisms to one treatment"):
        evaluated(tmp_path, frame)


def test_a_table_without_compounds_needs_the_data_set(tmp_path):
    with pytest.raises(ConfigError, match="no column of compounds"):
        evaluated(tmp_path, profile_frame().drop(columns=["Metadata_Compound"]))
    with pytest.raises(ConfigError, match="no column of mechanisms"):
        evaluated(tmp_path, profile_frame().drop(columns=["Metadata_Moa"]))


def plain(frame):
    return frame.to_csv(index=False).encode()


def changed(**columns):
    return profile_frame().assign(**columns)


REFUSED = {
    "nothing": (b"", "cannot be read as a table"),
    "lines without anything": (b"\n\n", "cannot be read as a table"),
    "a header only": (plain(profile_frame().iloc[:0]), "holds 0 rows"),
    "no header": (plain(profile_frame()).split(b"\n", 1)[1], "two columns named"),
    "a column twice": (plain(profile_frame()).replace(b"Cells_F1", b"Cells_F0"), "two columns"),
    "semicolons": (plain(profile_frame()).replace(b",", b";"), "separated by semicolons"),
    "tabs": (plain(profile_frame()).replace(b",", b"\t"), "separated by tabs"),
    "UTF-16": (plain(profile_frame()).decode().encode("utf-16"), "cannot be read as a table"),
    "noise": (np.random.default_rng(0).bytes(4000), "cannot be read as a table"),
    "half a gzip": (gzip.compress(plain(profile_frame()))[:400], "cannot be read as a table"),
    "a row that is too long": (plain(profile_frame()) + b"1," * 40, "cannot be read as a table"),
    "an open quote": (plain(profile_frame()) + b'"Week1', "cannot be read as a table"),
    "no numbers": (plain(changed(**{f"Cells_F{i}": "x" for i in range(8)})), "0 columns of num"),
    "no plates": (plain(changed(Metadata_Plate="")), "has several compounds: compound"),
    "one well": (plain(changed(Metadata_Well="A01")), "Name the columns of plates and wells"),
    "one compound": (plain(profile_frame().iloc[:6]), "treatments of two compounds"),
    "controls only": (plain(profile_frame().iloc[:4]), "No well but the controls"),
}
READ = {
    "CR": plain(profile_frame()).replace(b"\n", b"\r"),
    "CRLF": plain(profile_frame()).replace(b"\n", b"\r\n"),
    "BOM": b"\xef\xbb\xbf" + plain(profile_frame()),
    "gzip by another name": gzip.compress(plain(profile_frame())),
}


def evaluated_bytes(tmp_path, content, name="profiles.csv"):
    path = tmp_path / name
    path.write_bytes(content)
    return evaluate_moa(path, MoaSettings())


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_scored_is_told_in_a_sentence(tmp_path, name):
    content, message = REFUSED[name]
    with pytest.raises(CcrlError, match=message) as refused:
        evaluated_bytes(tmp_path, content)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", READ)
def test_tables_as_programs_write_them_give_the_same_scores(tmp_path, name):
    scores = by_name(evaluated_bytes(tmp_path, READ[name]))
    assert scores["as given"].nsc.accuracy == 1
    assert scores["cleaned up, TVN"].nscb.accuracy == 1


def test_a_plain_table_named_gz_is_read_too(tmp_path):
    assert len(evaluated_bytes(tmp_path, plain(profile_frame()), "profiles.csv.gz").wells) == 32


def test_metadata_in_the_index_of_parquet_are_read(tmp_path):
    path = tmp_path / "profiles.parquet"
    profile_frame().set_index(["Metadata_Plate", "Metadata_Well"]).to_parquet(path)
    evaluation = evaluate_moa(path, MoaSettings())
    assert evaluation.remarks == ()
    assert by_name(evaluation)["as given"].nscb.accuracy == 1


def test_what_is_left_out_of_a_feature_or_a_dose_is_told(tmp_path):
    text, infinite, huge = (profile_frame().astype(object) for _ in range(3))
    text.iloc[3, 6] = "broken"
    assert evaluated(tmp_path, text).remarks == (
        "1 columns do not hold numbers only and are left out: Cells_F1 ('broken')",
    )
    infinite.iloc[3, 6] = np.inf
    huge.iloc[3, 6] = 1e300
    for frame in (infinite, huge):
        (remark,) = evaluated(tmp_path, frame).remarks
        assert remark.startswith("1 of 8 features are left out: 1 lack numbers")
    (remark,) = evaluated(tmp_path, changed(Metadata_Concentration="high")).remarks
    assert "32 concentrations are no numbers, such as 'high'" in remark


def test_a_ridge_that_drowns_the_variances_is_told(tmp_path):
    frame = profile_frame()
    frame.iloc[:, 5:] /= 100
    (remark,) = evaluated(tmp_path, frame).remarks
    assert "vary among controls by" in remark
    assert "far less than the ridge of 1" in remark
    assert evaluated(tmp_path, frame, "ridge=1e-4").remarks == ()


def test_the_report_has_every_number(tmp_path):
    evaluation = evaluated(tmp_path, profile_frame())
    write_moa_report(evaluation, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "moa_scores.csv").open()))
    overall = [r for r in rows if r["rule"] == "NSC" and not r["mechanism"]]
    assert [float(r["accuracy"]) for r in overall] == [1.0] * 12
    nearest = list(csv.DictReader((tmp_path / "out" / "moa_nearest.csv").open()))
    assert len(nearest) == 12 * (12 + 12)
    assert all(r["mechanism"] == r["nearest_mechanism"] for r in nearest)
    assert all(r["compound"] != r["nearest_compound"] for r in nearest)
    pictures = {file.name for file in (tmp_path / "out" / "pictures").iterdir()}
    assert {"moa_accuracy.png", "moa_confusion_cleaned_up_TVN.png"} <= pictures
    # Published figures belong beside BBBC021's treatments only.
    assert "Published" not in scores_page(evaluation)


def test_the_command(tmp_path):
    path = tmp_path / "profiles.parquet"
    profile_frame().to_parquet(path)
    arguments = ["evaluate", "--moa", str(path), "-o", str(tmp_path / "out"), "--set", "tvn=false"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "| cleaned up | 8 | 100.0 | 100.0 | 0.0 | 12 / 12 | 12 / 12 |" in shown.output
    assert "TVN" not in shown.output
    refused = CliRunner().invoke(app, [*arguments, "--on-train"])
    assert refused.exit_code == 2


@pytest.mark.data
def test_the_means_of_2013_give_the_published_score(data_dir):
    means = data_dir / "bbbc021" / "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz"
    evaluation = evaluate_moa(means, MoaSettings(data=data_dir / "bbbc021"))
    assert len(evaluation.wells) == 632
    scores = by_name(evaluation)
    plain, best = scores["standardised"], scores["cleaned up, TVN"]
    assert plain.nsc.n_scored == 103
    assert plain.nscb.n_scored == 92
    assert plain.nscb.left_out == ("Cholesterol-lowering", "Kinase inhibitors")
    assert 0.82 < plain.nsc.accuracy < 0.85  # published: 83 to 84 %
    assert best.nsc.accuracy > plain.nsc.accuracy
    assert best.nscb.accuracy > plain.nscb.accuracy + 0.1
    page = scores_page(evaluation)
    assert "quoted, not read in the source" in page
    assert "read in the primary source" in page
