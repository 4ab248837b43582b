"""The table of groups: what it may say, and what is refused."""

from __future__ import annotations

import pytest

from ccrl_wsi.cohort.slide_traits import Traits, read_traits, traits_of
from ccrl_wsi.errors import ConfigError

KNOWN = {"s1": Traits("p1", "old"), "s2": Traits("p1"), "s3": Traits()}


def table(tmp_path, text):
    path = tmp_path / "cohort.csv"
    path.write_text(text, encoding="utf-8")
    return read_traits(path)


def test_a_line_speaks_of_a_slide(tmp_path):
    found, said = traits_of(
        KNOWN, {}, table(tmp_path, "slide_id,group,site\ns1,new,Basel\ns3,new,\n")
    )
    assert found["s1"] == Traits("p1", "new", "Basel")
    assert found["s2"] == Traits("p1")
    assert found["s3"] == Traits(None, "new")
    assert said == []


def test_a_line_without_a_slide_speaks_of_all_slides_of_the_patient(tmp_path):
    found, _ = traits_of(KNOWN, {}, table(tmp_path, "patient;scanner;group\np1;GT450;ill\n"))
    assert found["s1"] == Traits("p1", "ill", None, "GT450")
    assert found["s2"] == Traits("p1", "ill", None, "GT450")
    assert found["s3"] == Traits()


def test_what_is_said_of_a_slide_outweighs_what_is_said_of_the_patient(tmp_path):
    text = "slide_id,patient,group\ns2,p1,tumour\n,p1,normal\ns3,p1,\n"
    found, _ = traits_of(KNOWN, {}, table(tmp_path, text))
    assert [found[name].group for name in ("s1", "s2", "s3")] == ["normal", "tumour", "normal"]


def test_slides_may_be_named_by_their_files(tmp_path):
    found, said = traits_of(
        KNOWN, {"a b.svs": "s1"}, table(tmp_path, "slide_id,group\na b.svs,x\n")
    )
    assert found["s1"].group == "x"
    assert said == []


def test_strangers_and_unused_columns_are_told(tmp_path):
    text = "slide_id,patient,group,age\nnobody,,x,70\n,p9,x,60\ns1,,x,50\n"
    _, said = traits_of(KNOWN, {}, table(tmp_path, text))
    assert len(said) == 3
    assert "nobody" in said[0]
    assert "p9" in said[1]
    assert "age" in said[2]


def test_long_lists_of_strangers_are_cut(tmp_path):
    rows = "".join(f"x{i},g\n" for i in range(9))
    _, said = traits_of(KNOWN, {}, table(tmp_path, "slide_id,group\n" + rows))
    assert said[0].endswith("x4 and 4 more.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "slide_id or patient"),
        ("name,group\ns1,x\n", "slide_id or patient"),
        ("slide_id,age\ns1,4\n", "says nothing"),
        ("slide_id,group\n", "no line"),
        ("slide_id,group\ns1,a\ns1,b\n", "line 3"),
        ("slide_id,group,group\ns1,a,b\n", "twice"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        table(tmp_path, text)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read"):
        read_traits(tmp_path / "none.csv")


def test_a_byte_order_mark_is_no_letter(tmp_path):
    path = tmp_path / "cohort.csv"
    path.write_bytes(b"\xef\xbb\xbfslide_id,group\ns1,x\n")
    assert read_traits(path).slides == {"s1": Traits(None, "x")}
