from __future__ import annotations

import pytest

from ccrl_wsi.errors import ConfigError
from ccrl_wsi.slides.slide_list import list_slides, safe_name


@pytest.fixture
def folder(tmp_path):
    for name in ("b.svs", "a.NDPI", "deep/c.mrxs", "notes.txt", ".hidden/d.svs"):
        file = tmp_path / "slides" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "slides"


def names(sources):
    return [source.path.name for source in sources]


def table(folder, text, name="list.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_folder_gives_the_slides_in_it_and_below(folder):
    assert names(list_slides([str(folder)])) == ["a.NDPI", "b.svs", "c.mrxs"]


def test_patterns_the_shell_left_alone_are_expanded(folder):
    assert names(list_slides([f"{folder}/*.svs"])) == ["b.svs"]
    assert names(list_slides([f"{folder}/**/*.mrxs"])) == ["c.mrxs"]


def test_a_file_with_brackets_in_its_name_is_no_pattern(folder):
    (folder / "s [1].svs").touch()
    (source,) = list_slides([f"{folder}/s [1].svs"])
    assert (source.path.name, source.slide_id) == ("s [1].svs", "s_1")


def test_a_slide_named_twice_is_listed_once(folder):
    assert len(list_slides([str(folder), f"{folder}/b.svs", f"{folder}/*.svs"])) == 3


def test_a_missing_file_is_listed_because_the_others_must_finish(folder):
    sources = list_slides([f"{folder}/b.svs", f"{folder}/gone.svs"])
    assert names(sources) == ["b.svs", "gone.svs"]


@pytest.mark.parametrize("argument", ["empty", "*.svs", "gone/**/*.ndpi"])
def test_a_folder_or_pattern_without_slides_is_an_error(tmp_path, argument):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no slides|No file matches"):
        list_slides([str(tmp_path / argument)])


def test_no_slides_at_all_is_an_error():
    with pytest.raises(ConfigError, match="No slides given"):
        list_slides([])


@pytest.mark.parametrize(
    ("stem", "name"),
    {
        "test3-TRITC 2 (560)": "test3-TRITC_2_560",
        "TCGA-01.4f-2": "TCGA-01_4f-2",
        "Größe": "Größe",
        "../..": "slide",
    }.items(),
)
def test_names_are_safe_for_files(stem, name):
    assert safe_name(stem) == name


@pytest.mark.parametrize("second", ["b.ndpi", "deep/b.svs", "B.svs"])
def test_two_slides_of_one_name_are_an_error_that_says_how(folder, second):
    with pytest.raises(ConfigError, match=r"would both be called b\b.*slide_id column of a CSV"):
        list_slides([f"{folder}/{second}", f"{folder}/b.svs"][::-1]) if second != "B.svs" else (
            list_slides([f"{folder}/B.svs", f"{folder}/b.svs"])
        )


def test_a_table_tells_everything_about_its_slides(folder):
    text = (
        "path,slide_id,mpp,patient,group,site,scanner\n"
        "b.svs,first,0.25,P1,case,Basel,GT450\n\n/x/y z.svs,,,,,,\n"
    )
    first, second = list_slides([table(folder, text)])
    assert first.path == folder / "b.svs"
    assert (first.slide_id, first.mpp, first.patient, first.group) == ("first", 0.25, "P1", "case")
    assert (first.site, first.scanner) == ("Basel", "GT450")
    assert (str(second.path), second.slide_id) == ("/x/y z.svs", "y_z")
    assert (second.mpp, second.patient, second.group) == (None, None, None)


def test_a_table_outweighs_a_folder_that_also_holds_its_slide(folder):
    listed = table(folder, "path,mpp\nb.svs,0.25\n")
    for arguments in ([listed, str(folder)], [str(folder), listed]):
        mpps = {source.slide_id: source.mpp for source in list_slides(arguments)}
        assert mpps == {"a": None, "b": 0.25, "c": None}


def test_two_pieces_on_one_glass_are_two_slides(folder):
    text = "path,slide_id,patient\nb.svs,,P1\nb.svs,lower,P2\nb.svs,lower,P2\n"
    for arguments in ([table(folder, text)], [f"{folder}/b.svs", table(folder, text)]):
        patients = {source.slide_id: source.patient for source in list_slides(arguments)}
        assert patients == {"b": "P1", "lower": "P2"}


def test_tables_from_spreadsheets_are_read(folder):
    text = "\ufeffPath;MPP;# remark\r\nb.svs;0.5;from the archive\r\n"
    (source,) = list_slides([table(folder, text)])
    assert (source.path.name, source.mpp) == ("b.svs", 0.5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    {
        "path,patient_id\nb.svs,1\n": "'patient_id'.*Known are path",
        "slide_id\nb\n": "needs a column named path",
        "path,mpp\nb.svs,wide\n": "line 2: mpp 'wide' is not a positive number",
        "path,mpp\nb.svs,-1\n": "not a positive number",
        "path,mpp\n,0.5\n": "line 2: the path is empty",
        "slide_id,path\nb\n": "line 2: the path is empty",
        "path\n": "has no lines below its header",
        "": "needs a column named path",
        "path,slide_id\nb.svs,a/b\n": "'a_b' would do",
        "path,mpp,group\nb.svs,0.25,a\nb.svs,0.5,b\n": "twice as b, with another mpp and group",
        "path,slide_id\nb.svs,x\nb.svs,X\n": "would both be called X",
        "path,slide_id\nb.svs,x\na.NDPI,x\n": "would both be called x",
    }.items(),
)
def test_a_faulty_table_says_what_and_where(folder, text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        list_slides([table(folder, text)])


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read the slide list"):
        list_slides([str(tmp_path / "gone.csv")])


def test_a_name_never_looks_like_an_option():
    assert safe_name("--help") == "help"
