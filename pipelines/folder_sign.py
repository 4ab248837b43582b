"""By what another computer knows that an output folder is the one of this very run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ccrl_wsi.errors import StorageError
from ccrl_wsi.object_storage import ObjectFolder


@dataclass(frozen=True, slots=True)
class Sign:
    """A file, or an object, that holds a text nobody else would write.

    Another computer may have another folder of the same name, or none.
    """

    folder: Path | ObjectFolder
    name: str
    text: str

    @property
    def place(self) -> str:
        """The folder, for people."""
        return str(self.folder) if isinstance(self.folder, Path) else self.folder.url

    def is_seen(self) -> bool:
        """Whether it can be read from here."""
        try:
            if isinstance(self.folder, Path):
                found = (self.folder / self.name).read_bytes()
            else:
                found = self.folder.read(self.name)
        except (OSError, StorageError):
            return False
        return self.text.encode() in found
