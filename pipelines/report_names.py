"""Names in a report that is sent on: slides by slide_id, files without their folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

_ABSOLUTE = re.compile(
    r"""(?<![^\s'"(=])(?:/|[A-Za-z]:[\\/])[^\s'"():;,]*[\\/]([^\s'"():;,\\/]+)"""
)
"""A path from the root of a disk, and its last part."""


class ReportNames:
    """Takes out of texts what a slide_id was to hide, and where files lie.

    Parameters
    ----------
    paths
        The slides' files by slide_id.
    root
        The output folder: what lies in it is named from there.
    """

    def __init__(self, paths: Mapping[str, str], root: Path) -> None:
        known = {path: name for name, path in paths.items()}
        for name, path in paths.items():
            file = Path(path)
            if file.suffix:  # Without one it may be any word.
                known.setdefault(file.name, name)
        known[f"{root}/"] = ""
        ordered = sorted((text for text in known if text), key=len, reverse=True)
        self._known = {text: known[text] for text in ordered}
        ends = (
            text if text.endswith("/") else f"{text}(?![\\w-])" for text in map(re.escape, ordered)
        )
        self._pattern = re.compile(f"(?<![\\w-])(?:{'|'.join(ends)})")

    def cleaned(self, text: str) -> str:
        """``text`` with slide_ids for slides' files, and names for other files."""
        text = self._pattern.sub(lambda found: self._known[found[0]], text)
        return _ABSOLUTE.sub(r"\1", text)

    def cleaned_tree(self, tree: Any) -> Any:
        """The same of all texts in settings; a value that is a path becomes the file's name."""
        if isinstance(tree, Mapping):
            return {key: self.cleaned_tree(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return [self.cleaned_tree(value) for value in tree]
        if not isinstance(tree, str):
            return tree
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(tree).is_absolute():
                return kind(tree).name
        return self.cleaned(tree)
