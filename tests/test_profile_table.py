import numpy as np
import pandas as pd
import pytest

from ccrl_wsi.datasets.profile_table import add_treatments, read_profile_table
from ccrl_wsi.errors import ConfigError, StoreError
from tests.drawn_profiles import profile_frame


def written(tmp_path, frame, suffix):
    path = tmp_path / f"profiles{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".zarr":
        anndata = pytest.importorskip("anndata")
        is_about = [c.startswith("Metadata_") for c in frame]
        obs = frame.loc[:, is_about].copy()
        obs.index = obs.index.astype(str)
        values = frame.loc[:, [not a for a in is_about]]
        var = pd.DataFrame(index=values.columns)
        anndata.AnnData(X=values.to_numpy(), obs=obs, var=var).write_zarr(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".zarr"])
def test_every_form_says_the_same(tmp_path, suffix):
    frame = profile_frame()
    table = read_profile_table(written(tmp_path, frame, suffix), {})
    profiles = table.profiles
    assert table.remarks == ()
    assert profiles.names == tuple(f"Cells_F{i}" for i in range(8))
    np.testing.assert_allclose(profiles.features, frame.filter(like="Cells_").to_numpy())
    assert profiles.text("compound") == list(frame["Metadata_Compound"])
    assert profiles.text("mechanism") == list(frame["Metadata_Moa"])
    assert profiles.text("batch")[0] == "Week1"  # of the plate Week1_101
    assert profiles.is_control("dmso").sum() == 8


def test_names_of_columns_can_be_told(tmp_path):
    frame = profile_frame().rename(columns={"Metadata_Compound": "Metadata_drug"})
    path = written(tmp_path, frame, ".csv")
    table = read_profile_table(path, {"compound": "Metadata_drug", "batch": "Metadata_Well"})
    assert table.profiles.text("compound")[0] == "DMSO"
    assert table.profiles.text("batch") == table.profiles.text("well")
    with pytest.raises(ConfigError, match="columns.compound=drug"):
        read_profile_table(path, {"compound": "drug"})


def test_counters_and_files_are_no_features_and_text_is_told(tmp_path):
    frame = profile_frame().assign(
        ImageNumber=1, Image_FileName_DAPI="x.tif", Cells_Colour="red", Metadata_Site=3
    )
    table = read_profile_table(written(tmp_path, frame, ".csv"), {})
    assert table.profiles.names == tuple(f"Cells_F{i}" for i in range(8))
    assert table.remarks == (
        "1 columns do not hold numbers only and are left out: Cells_Colour ('red')",
    )


def test_tables_that_are_none_are_told(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("Metadata_Well,f\n")
    with pytest.raises(StoreError, match="0 rows"):
        read_profile_table(empty, {})
    with pytest.raises(StoreError, match="There is no table"):
        read_profile_table(tmp_path / "absent.csv", {})
    foreign = tmp_path / "profiles.xlsx"
    foreign.write_bytes(b"")
    with pytest.raises(ConfigError, match="no table of profiles"):
        read_profile_table(foreign, {})
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 not really")
    with pytest.raises(StoreError, match="Parquet"):
        read_profile_table(damaged, {})
    (tmp_path / "damaged.zarr").mkdir()
    with pytest.raises(StoreError, match="AnnData"):
        read_profile_table(tmp_path / "damaged.zarr", {})


def test_treatments_come_by_plate_and_well(tmp_path):
    frame = profile_frame()
    wells = pd.DataFrame(
        {
            "plate": frame["Metadata_Plate"],
            "well": frame["Metadata_Well"],
            "compound": frame["Metadata_Compound"],
            "concentration": frame["Metadata_Concentration"],
            "mechanism": frame["Metadata_Moa"],
        }
    ).iloc[:-1]
    bare = frame.drop(columns=["Metadata_Compound", "Metadata_Concentration", "Metadata_Moa"])
    bare["Metadata_Well"] = [w[0].lower() + str(int(w[1:])) for w in bare["Metadata_Well"]]  # b2
    profiles = read_profile_table(written(tmp_path, bare, ".csv"), {}).profiles
    joined, remarks = add_treatments(profiles, wells)
    assert joined.text("compound") == list(frame["Metadata_Compound"])[:-1]
    assert len(remarks) == 1
    assert "1 rows are of wells" in remarks[0]
