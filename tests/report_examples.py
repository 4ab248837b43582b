"""Made-up cohorts to report on: as many slides and clusters as wanted, with pictures."""

from __future__ import annotations

import cv2
import numpy as np

from ccrl_wsi.clusters.palette import cluster_colors, cluster_names
from ccrl_wsi.cohort.group_differences import compare_groups
from ccrl_wsi.cohort.log_ratio import centred_log_ratio
from ccrl_wsi.outputs.report.cell_maps import paint_clusters, paint_one
from ccrl_wsi.report_content import (
    BatchFinding,
    ClusterCard,
    ClusterMap,
    Exemplar,
    Groups,
    KCurve,
    KPoint,
    LabelTable,
    LargestSlide,
    MeasurementSummary,
    Neighbourhoods,
    Overview,
    ReportContent,
    ReportFailure,
    ReportSlide,
    SlidePicture,
)
from pipelines.report_cohort import find_compositions

SCRIPT = "<script>alert(1)</script>"


def made_up_report(n_slides=3, k=5, *, name="slide", picture_px=160, n_pictures=40, n_crops=12):
    """A report with every part in it. ``name`` begins whatever is a name."""
    rng = np.random.default_rng(n_slides * 100 + k)
    slides = made_up_slides(rng, n_slides, k, name)
    compositions = find_compositions(slides)
    counts = made_up_places(rng, k, picture_px)
    rgb = made_up_tissue(rng, counts.shape[1:])
    painted = paint_clusters(counts, cluster_colors(k))
    pictures = {
        slide.slide_id: SlidePicture(slide.slide_id, rgb, painted, 9000.0)
        for slide in slides[:n_pictures]
    }
    cards = tuple(made_up_card(rng, j, k, name, counts, n_crops) for j in range(k))
    return ReportContent(
        title=f"Cells of {n_slides} slides {name}",
        overview=made_up_overview(name),
        slides=slides,
        names=cluster_names(k),
        colors=cluster_colors(k),
        sentences=(f"The table of groups names slides that this run does not have: {name}.",),
        compositions=compositions,
        cards=cards,
        neighbourhoods=Neighbourhoods(
            rng.normal(size=(k, k)), rng.normal(size=(k, k)), 1000, 2, "Made up."
        ),
        curve=KCurve(
            tuple(KPoint(n, 1 / n, 0.05, 0.3 / n, 0.02) for n in (2, 3, 4)), 3, is_stable=False
        ),
        pictures=pictures,
        groups=made_up_groups(compositions, name) if n_slides > 3 else None,
        batch=(BatchFinding("site", "composition", 0.5, 0.5, f"{name} is not told."),),
        labels=LabelTable((f"{name} tumour", "stroma"), rng.integers(0, 99, (2, k)), 0.4),
    )


def made_up_slides(rng, n_slides, k, name):
    base = rng.dirichlet(np.full(k, 1.5), size=2)
    counts = [
        rng.multinomial(50_000, rng.dirichlet(60 * base[_group_of(i)])) for i in range(n_slides)
    ]
    return tuple(
        ReportSlide(
            slide_id=f"{name}{i:03d}",
            patient=f"{name} patient {i // 2:03d}",
            group=f"{name} group {_group_of(i)}",
            mpp=0.25,
            tissue_mm2=20 + i % 7,
            n_cells=int(counts[i].sum()),
            n_clipped=i % 2,
            warnings=(f"{name}{i:03d}: does not look like H&E.",) if i == 1 else (),
            counts=tuple(counts[i].tolist()),
            overlays=(f"overlays/s{i:03d}.geojson.gz",),
        )
        for i in range(n_slides)
    )


def _group_of(slide):
    """Two slides a patient, patients in turn of one group and of the other."""
    return slide // 2 % 2


def made_up_overview(name):
    return Overview(
        facts=(("slides", "3"), ("nuclei", "1,234")),
        models=("watershed", name),
        failures=(ReportFailure(f"{name} bad", "open", f"{name} cannot be read & so on"),),
        stage_seconds=(("reading pixels", 12.0),),
        run_seconds=100.0,
        made="2020-01-01 12:00",
        settings=f"name: {name}",
        versions=(("ccrl-wsi", "0.1.0"),),
    )


def made_up_places(rng, k, side):
    smooth = [
        cv2.GaussianBlur(rng.random((side * 3 // 4, side)), (0, 0), side / 12) for _ in range(k)
    ]
    density = np.stack(smooth)
    return rng.poisson(np.clip((density - 0.49) * 120, 0, None)).astype(np.float64)


def made_up_tissue(rng, shape):
    fine = cv2.GaussianBlur(rng.random((*shape, 3)), (0, 0), 1.2)
    coarse = cv2.GaussianBlur(rng.random(shape), (0, 0), shape[1] / 15)[..., None]
    tissue = (coarse > coarse.mean()) * (fine * [180, 260, 140])
    return np.clip(255 - tissue, 0, 255).astype(np.uint8)


def made_up_card(rng, j, k, name, counts, n_crops):
    crops = [
        Exemplar(made_up_tissue(rng, (64, 64)), f"{name}{i}.svs", 0.1 * i) for i in range(n_crops)
    ]
    picture = paint_one(counts, j, cluster_colors(k)[j], 150)
    maps = tuple(ClusterMap(f"{name}{i}.svs", picture, 100 + i) for i in range(6))
    return ClusterCard(
        number=j,
        n_cells=1000 + j,
        fraction=1 / k,
        n_slides=3,
        measurements=(
            MeasurementSummary("area_um2", "um2", 55.0, 60.0, 70.0, (20.0, 30.0, 50.0)),
            MeasurementSummary("eccentricity", "", 0.5, 0.6, 0.7, (0.5, 0.6, 0.7)),
        ),
        type_fractions=((f"{name} type", 0.75), ("other", 0.25)),
        distance=(0.1, 0.2, 0.3, 0.4, 0.5),
        silhouette=0.1,
        nearest=tuple(crops),
        random=tuple(crops),
        maps=maps,
        beside_more=((j + 1) % k,),
        beside_less=((j + 2) % k,),
        largest=LargestSlide(f"{name}1.svs", 0.5, 0.25),
    )


def made_up_groups(compositions, name):
    in_second = np.arange(len(compositions.patients)) % 2 == 1
    found = compare_groups(
        centred_log_ratio(compositions.patient_counts),
        in_second,
        (f"{name} group 0", f"{name} group 1"),
        n_permutations=200,
        n_bootstrap=100,
        rng=np.random.default_rng(0),
    )
    return Groups((found,) if found else (), (f"{name}: two slides a patient.",))
