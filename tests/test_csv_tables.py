import gzip

import numpy as np
import pytest

from ccrl_wsi.datasets.csv_tables import concentration_key, read_csv, well_name
from ccrl_wsi.errors import StoreError

TEXT = '"compound","dose","f"\n"NA",0.3,1.5\n" taxol ",1,\n'


@pytest.mark.parametrize("ends", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_gzip_and_byte_order_marks_do_not_matter(tmp_path, ends, packed, mark):
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    content = mark + TEXT.replace("\n", ends).encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    table = read_csv(path, lambda name: name == "compound")
    assert list(table.columns) == ["compound", "dose", "f"]
    assert table["compound"].tolist() == ["NA", "taxol"]  # a name, not a gap; no blanks
    assert table["dose"].tolist() == [0.3, 1]
    assert table["f"].iloc[0] == 1.5
    assert np.isnan(table["f"].iloc[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read"), (b"a,b,a\n1,2,3\n", "two columns named a"), (b"\x1f\x8b", "cannot")],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=message):
        read_csv(path, lambda name: True)


def test_an_absent_table_is_told(tmp_path):
    with pytest.raises(StoreError, match="There is no table"):
        read_csv(tmp_path / "t.csv", lambda name: True)


def test_a_row_that_is_too_long_is_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n1,2,3,4\n")
    with pytest.raises(StoreError, match="cannot be read as a table"):
        read_csv(path, lambda name: True)


@pytest.mark.parametrize(
    ("text", "name"), [("b2", "B02"), ("B002", "B02"), ("AA12", "AA12"), (" x-1 ", "x-1")]
)
def test_wells_are_called_alike(text, name):
    assert well_name(text) == name


@pytest.mark.parametrize(
    ("value", "key"),
    [("0.300000", "0.3"), (0.30000001, "0.3"), ("10", "10"), ("", ""), ("nan", ""), ("DMSO", "")],
)
def test_concentrations_are_compared_by_value(value, key):
    assert concentration_key(value) == key
