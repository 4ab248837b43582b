"""What a report says of files: slide_ids and names, never where they lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.report_names import ReportNames

NAMES = ReportNames(
    {"S_a": "/data/of m/a b.svs", "S_b": "/data/of m/b.svs", "S_c": "/data/note"},
    Path("/res/out 1"),
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/data/of m/a b.svs is not a slide.", "S_a is not a slide."),
        ("b.svs: grey. ab.svs is another.", "S_b: grey. ab.svs is another."),
        ("a b.svs and b.svs", "S_a and S_b"),
        ("take note of /data/note", "take note of S_c"),
        ("Delete /res/out 1/slides/S_a.zarr.", "Delete slides/S_a.zarr."),
        ("No weights at '/home/me/w/net.pt'.", "No weights at 'net.pt'."),
        (r"No weights at C:\\me\\net.pt.", r"No weights at net.pt."),
        ("3 mm/s and/or s3://bucket/key", "3 mm/s and/or s3://bucket/key"),
    ],
)
def test_texts(text, said):
    assert NAMES.cleaned(text) == said


def test_settings():
    tree = {"nuclei": {"weights": "/home/m y/net.pt", "min": 2.0}, "list": ["C:\\a\\b.csv", "auto"]}
    cleaned = {"nuclei": {"weights": "net.pt", "min": 2.0}, "list": ["b.csv", "auto"]}
    assert NAMES.cleaned_tree(tree) == cleaned
