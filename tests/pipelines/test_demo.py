"""The demo on a drawn image: what it says lies where it says."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from pipelines import demo
from pipelines.machines import SerialMachine
from tests.pipelines.conftest import SMOKE


def test_all_files_are_named_from_the_folder_that_was_given(drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(drawn.rgb).save(tmp_path / "image.png")
    monkeypatch.setattr(demo, "find_demo_image", lambda: tmp_path / "image.png")
    overrides = [s for s in SMOKE if not s.startswith("report.")]
    said = demo.run_demo(Path("demo out"), overrides, SerialMachine())
    assert str(tmp_path) not in said
    named = {
        line.split()[0]: line.split(maxsplit=1)[1]
        for line in said.splitlines()
        if "demo out" in line
    }
    assert set(named) == {"report", "picture", "slide", "QuPath", "Python", "tables"}
    for name in ("report", "picture", "slide"):
        assert Path(named[name]).is_file()
    assert all(Path(path).is_file() for path in named["tables"].split(", "))
    assert Path(named["Python"].split('"')[1]).is_dir()
