"""A finished run for other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ccrl_wsi.config import Settings
from ccrl_wsi.errors import ConfigError
from ccrl_wsi.outputs.exports import export_anndata, export_geoparquet, export_tiaviz
from pipelines.finish import write_slide_overlay
from pipelines.output_folder import OutputFolder, open_output
from pipelines.state import SlideState, load_states
