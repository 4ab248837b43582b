"""The command line: options to settings, errors to exit codes. Commands live in other files.

Everything heavy is imported when a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

import ccrl_wsi
from pipelines.cli_learning import add_learning_commands
from pipelines.cli_options import (
    ConfigFiles,
    Finished,
    On,
    Out,
    Overrides,
    RunOut,
    Slides,
    from_disk,
    on_disk,
)

if TYPE_CHECKING:
    from ccrl_wsi.config import Settings
    from pipelines.run import RunResult

app = typer.Typer(
    name="ccrl-wsi",
    help="Find, embed and cluster the nuclei of whole-slide images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED, TERMINATED = 130, 143
"""What shells take for Ctrl-C and for SIGTERM."""


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ccrl-wsi {ccrl_wsi.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Warnings and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for name in ("ccrl_wsi", "pipelines"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


@app.command()
def run(
    slides: Slides,
    out: RunOut,
    config: ConfigFiles = [],  # noqa: B006 (typer reads the default, nobody changes it)
    set_: Overrides = [],  # noqa: B006
    on: On = "local",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N slides.")] = None,
) -> None:
    """Slides to nuclei, embeddings, clusters, overlays and a report. Resumable."""
    from ccrl_wsi.slides.slide_list import list_slides
    from pipelines.inputs import check_inputs
    from pipelines.machines import load_machine
    from pipelines.run import check_codebook, run_cohort

    settings, machine = _settings(config, set_), load_machine(on)
    check_codebook(settings)
    sources = list_slides(slides)[:limit]
    check_inputs(sources, out, settings, machine)
    result = run_cohort(sources, out, settings, machine)
    _say_results(result)
    raise typer.Exit(result.exit_code)


@app.command()
def cluster(
    out: Finished,
    config: ConfigFiles = [],  # noqa: B006
    set_: Overrides = [],  # noqa: B006
    on: On = "serial",
    codebook: Annotated[
        Path | None,
        typer.Option(
            callback=from_disk,
            help="Apply the clusters of another run, by its folder, instead of fitting.",
        ),
    ] = None,
) -> None:
    """Cluster the cells of a finished run again. Nuclei and embeddings stay as they are."""
    from pipelines.machines import load_machine
    from pipelines.run import (
        check_codebook,
        cluster_again,
        refuse_cell_settings,
        settings_of_last_clusters,
    )

    # As JSON, which is YAML too: a path is a path, whatever it looks like.
    overrides = [*set_, *([f"clusters.codebook={json.dumps(str(codebook))}"] if codebook else [])]
    base = settings_of_last_clusters(out)
    check_codebook(_settings(config, overrides))
    settings = _settings(config, overrides, base)
    refuse_cell_settings(out, settings)
    result = cluster_again(out, settings, load_machine(on))
    _say_results(result)
    raise typer.Exit(result.exit_code)


@app.command()
def report(
    out: Finished,
    groups: Annotated[
        Path | None,
        typer.Option(help="CSV with slide_id and/or patient, and group, site or scanner."),
    ] = None,
    config: ConfigFiles = [],  # noqa: B006
    set_: Overrides = [],  # noqa: B006
) -> None:
    """Write the cohort report of a finished run: report.html."""
    from pipelines.report import report_again
    from pipelines.run import refuse_cell_settings, settings_of_last_clusters

    settings = _settings(config, set_, settings_of_last_clusters(out))
    refuse_cell_settings(out, settings)
    typer.echo(report_again(out, settings, groups))


@app.command()
def export(  # noqa: PLR0913 (the options of the command line)
    out: Finished,
    to: Annotated[str, typer.Option(help="qupath, anndata, geoparquet or tiaviz.")],
    target: Annotated[
        Path | None,
        typer.Option(
            "--target",
            "-t",
            callback=on_disk,
            help="anndata: a file, .h5ad or .zarr; geoparquet: a file .parquet, or a folder; "
            "else a folder. Without: a place in OUT/exports.",
        ),
    ] = None,
    set_: Overrides = [],  # noqa: B006
    points: Annotated[bool, typer.Option("--points", help="qupath: centroids only.")] = False,
    region: Annotated[
        str,
        typer.Option(
            metavar="X0,Y0,X1,Y1", help="qupath: only cells in here, level-0 px of each slide."
        ),
    ] = "",
    clusters: Annotated[
        str, typer.Option(metavar="C01,C02", help="qupath: only cells of these clusters.")
    ] = "",
    at_most: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="qupath: objects a file; then several.")
    ] = None,
    slide: Annotated[
        list[str], typer.Option(metavar="ID", help="Only this slide. Repeatable.")
    ] = [],  # noqa: B006
) -> None:
    """Write a finished run for another program."""
    from pipelines.export import ExportOptions, export_cohort, overlay_selection
    from pipelines.run import settings_of_last_clusters

    settings = _settings([], set_, settings_of_last_clusters(out))
    chosen = overlay_selection(region, clusters)
    options = ExportOptions(settings, chosen, points, at_most, tuple(slide))
    for path in export_cohort(out, to, target, options):
        typer.echo(path)


@app.command("import-labels")
def import_labels(
    out: Finished,
    files: Annotated[
        list[Path],
        typer.Argument(help="GeoJSON that QuPath exported, also .gz.", show_default=False),
    ],
    slide: Annotated[
        str | None,
        typer.Option(help="Their slide; else the file's name, or the ids in it, tell."),
    ] = None,
) -> None:
    """Take classes that people gave in QuPath into the cells' column `label`."""
    from pipelines.import_labels import import_labels as import_labels_

    typer.echo(import_labels_(out, files, slide))


@app.command()
def info(
    slides: Slides,
    config: ConfigFiles = [],  # noqa: B006
    set_: Overrides = [],  # noqa: B006
) -> None:
    """What slides hold, and whether they can be processed."""
    from ccrl_wsi.slides.regions import check_regions
    from ccrl_wsi.slides.slide_list import list_slides
    from pipelines.info import describe_slides

    sources, settings = list_slides(slides), _settings(config, set_)
    check_regions(len(sources), settings.tissue)
    text, all_usable = describe_slides(sources, settings)
    typer.echo(text)
    raise typer.Exit(0 if all_usable else 1)


@app.command()
def pyramid(
    images: Annotated[
        list[Path],
        typer.Argument(help="JPEG, PNG, TIFF or BMP.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", callback=on_disk, help="Folder for NAME.tif of each.")
    ],
    mpp: Annotated[float, typer.Option(min=0.01, help="Micrometres per pixel of the images.")],
) -> None:
    """Make plain images slides that `run` takes: tiled TIFF in levels, with their pixel size."""
    from pipelines.image_pyramids import make_pyramids

    written, problems = make_pyramids(images, out, mpp)
    for path in written:
        typer.echo(path)
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(1 if problems else 0)


@app.command()
def doctor(
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", callback=on_disk, help="Check this folder too."),
    ] = None,
) -> None:
    """What this machine has: OpenSlide, GPU, weights, disk, Dask."""
    from pipelines.doctor import diagnose, render

    checks = diagnose(out)
    typer.echo(render(checks))
    raise typer.Exit(1 if any(check.state == "fail" for check in checks) else 0)


add_learning_commands(app)


@app.command("config")
def config_(
    config: ConfigFiles = [],  # noqa: B006
    set_: Overrides = [],  # noqa: B006
    explain: Annotated[bool, typer.Option(help="Say what each setting means.")] = False,
) -> None:
    """Print the settings a run would use; those it would refuse are refused."""
    from pipelines.resolved_settings import check_networks, resolved
    from pipelines.show_settings import as_yaml

    settings = _settings(config, set_)
    check_networks(settings)
    typer.echo(as_yaml(resolved(settings), explain=explain), nl=False)


@app.command()
def verify(out: Finished) -> None:
    """Check a finished result: counts, ids, outlines, checksums, overlays."""
    from pipelines.verify import verify_output

    problems, summary = verify_output(out)
    for problem in problems:
        typer.echo(problem, err=True)
    typer.echo(summary)
    raise typer.Exit(1 if problems else 0)


@app.command()
def demo(
    out: Out = Path("demo"),
    set_: Overrides = [],  # noqa: B006
    on: On = "local",
) -> None:
    """The whole job on a real H&E image that is installed already. A few minutes."""
    from pipelines.demo import run_demo
    from pipelines.machines import load_machine

    typer.echo(run_demo(out, set_, load_machine(on)))


def main() -> None:
    """Run a command; a known error becomes one sentence and exit code 2."""
    from ccrl_wsi.errors import CcrlError, RunStopped

    _heed_sigterm()
    try:
        code = _invoke()
    except CcrlError as error:
        sys.stderr.write(f"ccrl-wsi: {error}\n")
        raise SystemExit(1 if isinstance(error, RunStopped) else 2) from None
    except OSError as error:
        place = error.filename or "a file"
        sys.stderr.write(
            f"ccrl-wsi: {place}: {error.strerror}. Check free space and permissions.\n"
        )
        raise SystemExit(2) from None
    if code in (INTERRUPTED, TERMINATED):
        sys.stderr.write("Stopped. The same command continues where it was.\n")
    raise SystemExit(code)


def _heed_sigterm() -> None:
    """Batch systems end a job so. What Ctrl-C puts in order is put in order then too."""

    def end(*_: object) -> None:
        raise SystemExit(TERMINATED)

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


def _invoke() -> int:
    """Run the command; what it asks for as exit code. Click's own errors are shown as it does."""
    command = typer.main.get_command(app)
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 1
    return code if isinstance(code, int) else 0


def _settings(
    files: list[str], overrides: list[str], base: dict[str, Any] | None = None
) -> Settings:
    from ccrl_wsi.config import load_settings
    from ccrl_wsi.config_files import find_config

    return load_settings([find_config(file) for file in files], overrides, base)


def _say_results(result: RunResult) -> None:
    from pipelines.summary import results_there

    folder = result.folder
    there = results_there(folder)
    if there:
        typer.echo(f"Results in {folder.name}: {', '.join(there)}")
    else:
        typer.echo(f"No slide in {folder.name} has results.")
    if result.report:
        typer.echo(f"Report: {folder.place_of(result.report)}")
    if result.failures:
        failures = folder.place_of(folder.table("failures.csv"))
        typer.echo(f"{len(result.failures)} failed; see {failures}", err=True)


if __name__ == "__main__":
    main()
