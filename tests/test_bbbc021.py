import gzip

import numpy as np
import pytest
import tifffile

from ccrl_wsi.datasets.bbbc021 import (
    IMAGE_TABLE,
    MOA_TABLE,
    name_problems,
    read_fields,
    read_mechanisms,
    read_wells,
)
from ccrl_wsi.datasets.bbbc021_files import find_file, read_channels_of, read_locations
from ccrl_wsi.errors import StoreError

HEADER = (
    'TableNumber,ImageNumber,"Image_FileName_DAPI","Image_PathName_DAPI","Image_FileName_Tubulin",'
    '"Image_PathName_Tubulin","Image_FileName_Actin","Image_PathName_Actin",'
    '"Image_Metadata_Plate_DAPI","Image_Metadata_Well_DAPI",Replicate,"Image_Metadata_Compound",'
    "Image_Metadata_Concentration"
)
PLATE = "Week4_27481"


def row(site, compound="taxol", dose="0.3", well="G10"):
    names = ",".join(f'"{well}_s{site}_w{c}A.tif","Week4/{PLATE}"' for c in (1, 2, 4))
    return f'4,{site},{names},"{PLATE}","{well}",1,"{compound}",{dose}'


def data_set(folder, rows, ends="\n", mechanisms=(("taxol", "0.300000", "Stabilizers"),)):
    (folder / IMAGE_TABLE).write_bytes(ends.join([HEADER, *rows, ""]).encode())
    lines = ['"compound","concentration","moa"']
    lines += [f'"{c}",{d},"{m}"' for c, d, m in mechanisms]
    (folder / MOA_TABLE).write_bytes("\r".join(lines).encode())  # and no end of the last line
    return folder


@pytest.mark.parametrize("ends", ["\n", "\r", "\r\n"])
def test_fields_and_mechanisms_whatever_the_line_ends(tmp_path, ends):
    folder = data_set(tmp_path, [row(1), row(2), row(1, "NA", "1e1", "b2")], ends)
    first, second, other = read_fields(folder, read_mechanisms(folder))
    assert (first.plate, first.well, first.site, first.batch) == (PLATE, "G10", 1, "Week4")
    assert second.key == "Week4_27481-G10-s2"
    assert first.mechanism == "Stabilizers"  # 0.3 is 0.300000
    assert (other.well, other.compound, other.concentration) == ("B02", "NA", 10.0)
    assert other.mechanism == ""
    assert name_problems([first, other], read_mechanisms(folder)) == [
        f"NA: not in {MOA_TABLE}; its 1 fields have no mechanism"
    ]


def test_gzipped_tables_are_read_too(tmp_path):
    folder = data_set(tmp_path, [row(1)])
    for name in (IMAGE_TABLE, MOA_TABLE):
        path = folder / name
        (folder / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_wells(folder)["mechanism"].tolist() == ["Stabilizers"]


def test_contradictions_are_told(tmp_path):
    twice = (("taxol", "0.3", "A"), ("taxol", "0.30", "B"))
    with pytest.raises(StoreError, match="two mechanisms of taxol at 0.3"):
        read_mechanisms(data_set(tmp_path, [row(1)], mechanisms=twice))
    with pytest.raises(StoreError, match="G10.*got taxol and DMSO"):
        read_wells(data_set(tmp_path, [row(1), row(2, "DMSO", "0")]))
    with pytest.raises(StoreError, match="no BBBC021_v1_moa.csv"):
        read_mechanisms(tmp_path / "elsewhere")


def written_field(folder, where):
    (field,) = read_fields(data_set(folder, [row(1)]))
    for number, name in enumerate(field.files):
        path = folder / where / name.rsplit("/", 1)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.full((6, 8), 1000 * (number + 1), np.uint16))
    return field


@pytest.mark.parametrize("where", [f"Week4/{PLATE}", PLATE, f"images/{PLATE}", "."])
def test_channels_are_found_wherever_the_archives_were_unpacked(tmp_path, where):
    pixels = read_channels_of(tmp_path, written_field(tmp_path, where))
    assert pixels.dtype == np.uint16
    assert pixels.shape == (6, 8, 3)
    assert pixels[0, 0].tolist() == [1000, 2000, 3000]  # DAPI, tubulin, actin


def test_missing_damaged_and_unlike_channels_are_told(tmp_path):
    field = written_field(tmp_path, PLATE)
    actin = find_file(tmp_path, field, field.files[2])
    tifffile.imwrite(actin, np.zeros((5, 8), np.uint16))
    with pytest.raises(StoreError, match="differ in size"):
        read_channels_of(tmp_path, field)
    actin.write_bytes(b"II*\0 not a TIFF")
    with pytest.raises(StoreError, match="cannot be read"):
        read_channels_of(tmp_path, field)
    actin.unlink()
    with pytest.raises(StoreError, match="no Actin"):
        read_channels_of(tmp_path, field)


def test_locations_are_optional(tmp_path):
    field = written_field(tmp_path, PLATE)
    assert read_locations(tmp_path, field) is None
    path = tmp_path / "locations" / PLATE / "G10-1-Nuclei.csv"
    path.parent.mkdir(parents=True)
    path.write_text("Nuclei_Location_Center_X,Nuclei_Location_Center_Y\n3.5,4\nnan,2\n")
    assert read_locations(tmp_path, field).tolist() == [[3.5, 4.0]]
    path.write_text("X,Y\n1,2\n")
    with pytest.raises(StoreError, match="no column Nuclei_Location_Center_X"):
        read_locations(tmp_path, field)


@pytest.mark.data
def test_the_real_tables(data_dir):
    folder = data_dir / "bbbc021"
    mechanisms = read_mechanisms(folder)
    fields = read_fields(folder, mechanisms)
    assert len(mechanisms) == 104
    assert len(fields) == 13_200
    known = [f for f in fields if f.mechanism]
    assert len(known) == 3_848
    assert len({(f.compound, f.concentration) for f in known} - {("DMSO", 0.0)}) == 103
    assert len({f.mechanism for f in known} - {"DMSO"}) == 12
    assert len(read_wells(folder)) == 3_300
