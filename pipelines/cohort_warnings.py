"""What is to be said of a cohort as a whole, by `run`, `cluster` and the report alike."""

from __future__ import annotations

from collections.abc import Sequence

from ccrl_wsi.arrays import IntArray
from ccrl_wsi.clusters.codebook import Codebook
from ccrl_wsi.clusters.slide_bound import slides_sentence
from ccrl_wsi.slides.pixel_sizes import pixel_sizes_sentence
from pipelines.output_folder import OutputFolder, read_json
from pipelines.state import SlideState


def cohort_warnings(
    folder: OutputFolder,
    states: Sequence[SlideState],
    codebook: Codebook | None,
    counts: IntArray | None,
) -> list[str]:
    """Sentences on pixel sizes that differ, and on clusters that follow slides.

    ``counts`` (n, k) are cells of slides with clusters; None where there are none.
    """
    mpp = float(read_json(folder.run_file)["cells"]["tiles"]["mpp"])
    said = [pixel_sizes_sentence([state.mpp for state in states if state.tally.n_cells], mpp)]
    if codebook is not None and counts is not None:
        chosen, centred = codebook.is_k_chosen, codebook.centres_slides
        said.append(slides_sentence(counts, is_chosen=chosen, is_centred=centred))
    return [sentence for sentence in said if sentence]
