"""Which networks a run uses: found and checked before any slide is opened."""

from __future__ import annotations

from dataclasses import dataclass

from ccrl_wsi.config import Settings
from ccrl_wsi.measurement_names import MEASUREMENTS
from ccrl_wsi.provenance import versions
from ccrl_wsi.store import StoreDescription
from pipelines.jobs import SlidePlan, Tally, tissue_seen_mm2


@dataclass(frozen=True, slots=True)
class Models:
    """Names and fingerprints of segmenter and encoder.

    Parameters
    ----------
    standardise
        Whether the encoder wants its dimensions scaled before clustering.
    """

    segmenter: str
    segmenter_fingerprint: str
    type_names: tuple[str, ...]
    encoder: str
    encoder_fingerprint: str
    standardise: bool

    @property
    def fingerprints(self) -> str:
        """Changes when another network would be used."""
        return f"{self.segmenter_fingerprint} {self.encoder_fingerprint}"

    def recorded(self) -> dict[str, str]:
        """As the output folder remembers them."""
        return {
            "segmenter": self.segmenter_fingerprint,
            "encoder": self.encoder_fingerprint,
            "encoder_name": self.encoder,
            "standardise": "yes" if self.standardise else "no",
        }

    def describe(self, plan: SlidePlan, settings: Settings, tally: Tally) -> StoreDescription:
        """What the slide's store says of itself."""
        source = plan.source
        return StoreDescription(
            slide=plan.info,
            fingerprint=plan.fingerprint,
            measurement_names=tuple(m.name for m in MEASUREMENTS),
            type_names=self.type_names,
            segmenter=self.segmenter,
            encoder=self.encoder,
            encoder_fingerprint=self.encoder_fingerprint,
            mpp=plan.grid.mpp,
            settings=settings.model_dump(mode="json", exclude={"compute"}),
            versions=versions(),
            notes={
                "patient": source.patient,
                "group": source.group,
                "core_px": plan.core_px,
                "tissue_mm2": tissue_seen_mm2(plan, tally),
                "n_clipped": tally.n_clipped,
                "n_tiles_skipped": tally.n_skipped,
                "warnings": list(plan.warnings),
            },
        )


def find_models(settings: Settings) -> Models:
    """Load what ``settings`` names, so that a missing weight file is told at once.

    Raises
    ------
    ConfigError, ModelError
        If a name is unknown or weights cannot be had.
    """
    from ccrl_wsi.embeddings.encoders import check_encoder
    from ccrl_wsi.nuclei.segmenters import check_segmenter, segmenter_fingerprint
    from pipelines.tools import encoder_of, segmenter_of

    check_encoder(settings.embedding, settings.crops, settings.tiles.mpp)
    check_segmenter(settings.nuclei, settings.tiles.mpp)
    segmenter, encoder = segmenter_of(settings), encoder_of(settings)
    return Models(
        segmenter=segmenter.name,
        segmenter_fingerprint=segmenter_fingerprint(settings.nuclei),
        type_names=segmenter.type_names,
        encoder=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        standardise=encoder.standardise,
    )
