"""What Python said when a slide failed, in a file of the output folder."""

from __future__ import annotations

from ccrl_wsi.errors import StorageError, StoreError
from pipelines.faults import Fault
from pipelines.output_folder import OutputFolder, write_text


def write_log(folder: OutputFolder, name: str, fault: Fault) -> str:
    """Where in the folder the trace was written; nothing where that was not possible."""
    path = folder.log(name)
    try:
        folder.make(path.parent)
        write_text(path, folder.told(f"{fault.message}\n\n{fault.trace}"))
        folder.publish(path)
    except (StoreError, StorageError):
        return ""
    return path.relative_to(folder.root).as_posix()
