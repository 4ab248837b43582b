"""The commands that learn and judge. Everything heavy is imported when a command runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli_options import ConfigFiles, Out, Overrides, Slides, on_disk

Tables = Annotated[
    Path, typer.Option("-o", "--out", callback=on_disk, help="Folder for tables and pictures.")
]


def add_learning_commands(app: typer.Typer) -> None:
    """Make the commands of this file commands of ``app``."""
    app.command()(train)
    app.command("train-segmenter")(train_segmenter)
    app.command("label-fields")(label_fields)
    app.command()(evaluate)
    app.command()(profile)


def train(
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            callback=on_disk,
            help="Folder for the encoder; a begun one is continued.",
        ),
    ],
    config: ConfigFiles = [],  # noqa: B006
    set_: Overrides = [],  # noqa: B006
    data: Annotated[
        Path | None, typer.Option(help="The data set's folder: short for --set data.path=.")
    ] = None,
) -> None:
    """Train an encoder without labels. Resumable; under torchrun on several GPUs."""
    from ccrl_wsi.config_files import find_config
    from ccrl_wsi.settings_tree import load_tree
    from ccrl_wsi.training.settings import TrainSettings
    from pipelines.train import train_encoder

    # As JSON, which is YAML too: a path is a path, whatever it looks like.
    overrides = [*set_, *([f"data.path={json.dumps(str(data))}"] if data else [])]
    settings = load_tree(TrainSettings, [find_config(file) for file in config], overrides)
    trained = train_encoder(settings, out)
    typer.echo(f"{trained.encoder}: {trained.n_steps} steps on {trained.n_crops} crops")


def train_segmenter(
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            callback=on_disk,
            help="Folder for the segmenter; a begun one is continued.",
        ),
    ],
    config: ConfigFiles = [],  # noqa: B006
    set_: Overrides = [],  # noqa: B006
    data: Annotated[
        list[str],
        typer.Option(help="A data set's folder, as tnbc=FOLDER; the kind may be left out of one."),
    ] = [],  # noqa: B006
) -> None:
    """Train a compact segmenter on images with drawn nuclei. Resumable; also under torchrun."""
    from ccrl_wsi.config_files import find_config
    from ccrl_wsi.settings_tree import load_tree
    from ccrl_wsi.training.segment_settings import SegmentTrainSettings
    from pipelines.field_sets import with_paths
    from pipelines.train_segmenter import train_segmenter as train_

    settings = load_tree(SegmentTrainSettings, [find_config(file) for file in config], set_)
    settings = settings.model_copy(update={"data": with_paths(settings.data, data)})
    trained = train_(settings, out)
    for name, score in trained.scores.items():
        typer.echo(f"{name}: PQ {score.pq:.3f}, AJI {score.aji:.3f}, Dice {score.dice:.3f}")
    typer.echo(f"{trained.segmenter}: {trained.n_steps} steps on {trained.n_fields} fields")


def label_fields(
    slides: Slides,
    out: Out,
    config: ConfigFiles = [],  # noqa: B006
    set_: Overrides = [],  # noqa: B006
    per_slide: Annotated[int, typer.Option(min=1, help="Fields of each slide.")] = 10,
    side: Annotated[int, typer.Option(min=64, help="Side of a field, in pixels.")] = 512,
) -> None:
    """Cut fields out of slides and label their nuclei, to correct by hand or to learn from."""
    from ccrl_wsi.config import load_settings
    from ccrl_wsi.config_files import find_config
    from ccrl_wsi.slides.slide_list import list_slides
    from ccrl_wsi.wording import counted
    from pipelines.label_fields import FieldPlan
    from pipelines.label_fields import label_fields as label

    plan = FieldPlan(per_slide, side)
    n_fields, problems = label(
        list_slides(slides), out, plan, load_settings([find_config(file) for file in config], set_)
    )
    typer.echo(f"{counted(n_fields, 'field')} in {out}: images, labels, unsure")
    raise typer.Exit(1 if problems else 0)


def evaluate(  # noqa: PLR0913
    out: Tables,
    encoders: Annotated[
        list[str] | None,
        typer.Argument(
            help="ccrl, morphology, morphological, manual, imagenet, pixels, untrained, or "
            "checkpoints (.safetensors); with --table: its rows, such as dcae or dcae=FILE.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFiles = [],  # noqa: B006
    set_: Overrides = [],  # noqa: B006
    data: Annotated[
        str | None,
        typer.Option(help="The data set's folder; with its kind, as consep=FOLDER, if not CoNSeP."),
    ] = None,
    on_train: Annotated[
        bool,
        typer.Option("--on-train", help="Fit and score on the training cells only, to choose by."),
    ] = False,
    table: Annotated[
        int | None, typer.Option(help="Make a table of the CCRL paper anew: 2 or 3.")
    ] = None,
    schedule: Annotated[
        Literal["paper", "cpu"] | None,
        typer.Option(help="--table: train at length, for a GPU (paper), or briefly (cpu)."),
    ] = None,
    moa: Annotated[
        Path | None,
        typer.Option(help="Score these profiles (.csv, .parquet, .zarr) by mechanism of action."),
    ] = None,
) -> None:
    """Judge encoders by classes that people gave to nuclei, as in the CCRL paper.

    With --moa, judge profiles of wells by the mechanisms of action of compounds instead: NSC, NSCB
    and drop. --data is then the folder of BBBC021's tables, if the profiles do not name compounds.

    Never choose a checkpoint or a setting by its score on the test cells: it would have learnt
    from their labels. Choose with --on-train, which does not open the test images.
    """
    from ccrl_wsi.config_files import find_config
    from ccrl_wsi.errors import ConfigError
    from ccrl_wsi.evaluation.settings import EvaluateSettings
    from ccrl_wsi.settings_tree import load_tree
    from pipelines.evaluate import evaluate as evaluate_
    from pipelines.evaluation_report import write_report

    if schedule and table is None:
        raise ConfigError("--schedule is for --table: it says how the rows' networks are trained.")
    kind, overrides = _data_overrides(data)
    if moa is not None:
        if encoders or on_train or table is not None:
            raise typer.BadParameter("encoders, --on-train and --table are not for --moa")
        folder = None if data is None else Path(data)
        _evaluate_moa(moa, out, [find_config(file) for file in config], set_, folder)
        return
    overrides = [*set_, *overrides, *(["on_train=true"] if on_train else [])]
    files = [*_files_of(kind), *config]
    if table is not None:
        _table(out, encoders or [], files, overrides, (table, schedule))
        return
    overrides += [f"encoders={json.dumps(encoders)}"] if encoders else []
    settings = load_tree(EvaluateSettings, [find_config(file) for file in files], overrides)
    evaluation = evaluate_(settings)
    write_report(evaluation, out)
    typer.echo((out / "scores.md").read_text(encoding="utf-8"), nl=False)
    typer.echo(f"Results in {out}: scores.csv, scores.md, confusion.csv, evaluation.json")
    raise typer.Exit(evaluation.exit_code)


def _data_overrides(data: str | None) -> tuple[str, list[str]]:
    """The kind that ``--data KIND=FOLDER`` names, if it does, and the settings it stands for."""
    from typing import get_args

    from ccrl_wsi.data_settings import DataSettings

    if not data:
        return "", []
    kinds = get_args(DataSettings.model_fields["kind"].annotation)
    kind, equals, path = data.partition("=")
    if not equals or kind not in kinds:
        kind, path = "", data
    # As JSON, which is YAML too: a path is a path, whatever it looks like.
    told = [f"data.path={json.dumps(path)}"]
    return kind, [f"data.kind={kind}", *told] if kind else told


def _files_of(kind: str) -> list[str]:
    """The settings file of a data set's evaluation, if there is one."""
    from ccrl_wsi.config_files import config_names

    name = f"evaluate/{kind}"
    return [name] if name in config_names() else []


def _table(
    out: Path,
    wanted: list[str],
    config: list[str],
    overrides: list[str],
    which: tuple[int, Literal["paper", "cpu"] | None],
) -> None:
    from ccrl_wsi.config_files import find_config
    from ccrl_wsi.evaluation.settings import EvaluateSettings
    from ccrl_wsi.settings_tree import load_tree
    from pipelines.paper_table_record import read_rows
    from pipelines.paper_table_report import write_table
    from pipelines.paper_tables import TablePlan, given_rows, make_table

    number, schedule = which
    given = given_rows(wanted)
    files = [find_config(file) for file in config]
    settings = load_tree(EvaluateSettings, files, ["probes=false", *overrides])
    plan = TablePlan(number, given, schedule)
    read_rows(out / f"table{number}.json", settings)  # of other settings: before hours of work
    rows = make_table(
        plan, settings, out, lambda so_far: write_table(number, so_far, settings, out)
    )
    typer.echo((out / f"table{number}.md").read_text(encoding="utf-8"), nl=False)
    typer.echo(f"Results in {out}: table{number}.csv, table{number}.md, table{number}.png")
    raise typer.Exit(1 if any(row.could_not for row in rows) else 0)


def profile(
    encoder: Annotated[Path, typer.Argument(help="Encoder that was trained on such fields.")],
    data: Annotated[Path, typer.Option(help="Folder of fields and tables, as BBBC021's.")],
    out: Annotated[
        Path,
        typer.Option("-o", "--out", callback=on_disk, help="The table: .csv, .csv.gz, .parquet."),
    ],
    set_: Annotated[
        list[str], typer.Option("--set", help="Setting of the crops, such as fields=all.")
    ] = [],  # noqa: B006
) -> None:
    """Profiles of wells of cultured cells, for `evaluate --moa` and for other tools."""
    from pipelines.profile import profile as profile_

    profiles = profile_(encoder, data, out, set_)
    typer.echo(f"{out}: {len(profiles)} wells, {len(profiles.names)} features")


def _evaluate_moa(
    profiles: Path, out: Path, config: list[Path], set_: list[str], data: Path | None
) -> None:
    from ccrl_wsi.evaluation.moa_settings import MoaSettings
    from ccrl_wsi.settings_tree import load_tree
    from pipelines.evaluate_moa import evaluate_moa
    from pipelines.moa_report import write_moa_report

    overrides = [*set_, *([f"data={json.dumps(str(data))}"] if data else [])]
    evaluation = evaluate_moa(profiles, load_tree(MoaSettings, config, overrides))
    write_moa_report(evaluation, out)
    typer.echo((out / "moa_scores.md").read_text(encoding="utf-8"), nl=False)
    names = "moa_scores.csv, moa_scores.md, moa_nearest.csv, moa_confusion.csv, pictures/"
    typer.echo(f"Results in {out}: {names}")
