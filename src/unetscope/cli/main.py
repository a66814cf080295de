"""The command: parse, call, print.

Exit codes: 0 success, 2 what the user can mend (one line, no traceback), 130 stopped by the user, 1 a bug.
"""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unetscope.base.errors import InvalidArgument, UnetscopeError

if TYPE_CHECKING:
    from unetscope.training.config import RunConfig

app = typer.Typer(
    name="unetscope",
    help="See how information flows through a U-Net, and which parts of it your task needs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="The public data set.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

# Of a place to write to: it is full, or may not be written, or is a folder where a file is wanted.
MENDABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
}

SWEPT_NOISE_VARIANCES = tuple(float(f"{10 ** (power / 2):.3g}") for power in range(-6, 9))  # 0.001 to 10,000
SWEPT_BIN_SIZES = tuple(float(f"{10 ** (power / 2):.3g}") for power in range(-4, 5))  # 0.01 to 100

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines instead of text.")]
NoiseVariance = Annotated[list[float] | None, typer.Option(help="Noise variance of the KDE; repeatable.")]
MixtureNoise = Annotated[
    list[float] | None,
    typer.Option("--mixture", help="Noise variance of the mixture's information; repeatable."),
]
RelativeNoise = Annotated[
    list[float] | None,
    typer.Option(
        "--relative-noise-variance", help="Noise variance over the layer's median squared distance; repeatable."
    ),
]
BinSize = Annotated[list[float] | None, typer.Option(help="Bin size of the binning estimate; repeatable.")]
RenyiBandwidth = Annotated[
    list[float] | None,
    typer.Option(
        "--renyi",
        help="Bandwidth of the Rényi index over the layer's median squared distance, such as 0.5; repeatable.",
    ),
]
KSGComponents = Annotated[
    list[int] | None, typer.Option("--ksg", help="PCA components of the KSG estimate, 1 to 10; repeatable.")
]
Sweep = Annotated[
    bool, typer.Option("--sweep", help="KDE and binning over seven decades of noise variance and four of bin size.")
]
Track = Annotated[
    str | None,
    typer.Option(
        help="Tracker to give scalars and figures to: tensorboard, mlflow or wandb, in the run folder, offline."
    ),
]
Run = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]


def main() -> None:
    """Entry point of the `unetscope` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal has no letters for is spelled out
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UnetscopeError as mistake:
        _refuse(str(mistake))
    except OSError as refused:
        if refused.errno not in MENDABLE:
            raise
        where = refused.filename2 or refused.filename or "what was being written"
        _refuse(f"{where}: {refused.strerror}: choose another place or make room in this one")


def _refuse(mistake: str) -> None:
    """One line on the standard error, and on the standard output too where a machine reads."""
    from unetscope.cli.terminal import one_line, print_json

    text = one_line(mistake)
    if "--json" in sys.argv:
        print_json({"error": text})
    sys.stderr.write(f"unetscope: {text}\n")
    raise SystemExit(2)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from unetscope import __version__

        typer.echo(f"unetscope {__version__}")
        raise typer.Exit


@app.command()
def run(
    out: Annotated[Path | None, typer.Option(help="Run folder to make [default: runs/PRESET].")] = None,
    preset: Annotated[
        str | None, typer.Option(help="demo, quick, paper or paper-code [default: demo without --data, else quick].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this run was stopped.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what it will take in time, memory and disk.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Folder or zip of images and masks [default: synthetic nuclei].")
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Folder or zip of validation images [default: a share of --data].")
    ] = None,
    validation_share: Annotated[float | None, typer.Option(help="Share held out without --val.")] = None,
    synthetic_images: Annotated[int | None, typer.Option(help="Number of synthetic nuclei images.")] = None,
    data_seed: Annotated[int | None, typer.Option(help="Seed of synthetic images and of the held-out share.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="Kind of data problem not to stop at; repeatable.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side that images are resized to.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels at full resolution.")] = None,
    depth: Annotated[int | None, typer.Option(help="Levels below full resolution, 1 to 6.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="Skip to take out, such as skip1; repeatable.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Training epochs.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr", help="Learning rate.")] = None,
    warm_up_epochs: Annotated[int | None, typer.Option(help="Epochs over which the learning rate rises.")] = None,
    initialisation: Annotated[str | None, typer.Option(help="Of weights: glorot or he.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a training step.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    channels_last: Annotated[
        bool | None, typer.Option("--channels-last/--no-channels-last", help="Memory layout.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and batches.")] = None,
    marked: Annotated[str | None, typer.Option(help="Epochs to measure: log, paper, or such as 1,10,100.")] = None,
    probe_images: Annotated[int | None, typer.Option(help="Training images to measure on [default: all].")] = None,
    noise_variance: NoiseVariance = None,
    mixture: MixtureNoise = None,
    relative_noise_variance: RelativeNoise = None,
    bin_size: BinSize = None,
    renyi: RenyiBandwidth = None,
    ksg: KSGComponents = None,
    sweep: Sweep = False,
    usable: Annotated[
        bool | None, typer.Option("--usable/--no-usable", help="Usable information by linear probes.")
    ] = None,
    merge_probes: Annotated[
        bool | None,
        typer.Option("--merge-probes/--no-merge-probes", help="Convolutional probes of the merges, for verdicts."),
    ] = None,
    convolutional: Annotated[
        bool | None,
        typer.Option(
            "--convolutional/--no-convolutional", help="Usable information of every layer by convolutional probes too."
        ),
    ] = None,
    clusters: Annotated[int | None, typer.Option(help="K of the K-means labels.")] = None,
    cluster_initialisations: Annotated[int | None, typer.Option(help="Initialisations of K-means.")] = None,
    blocks: Annotated[int | None, typer.Option(help="Blocks a side of the coarsened masks.")] = None,
    block_threshold: Annotated[int | None, typer.Option(help="Pixels above which a block is 1.")] = None,
    memory_budget: Annotated[
        str | None, typer.Option(help="Memory for measuring, such as 2GiB [default: a quarter of what is free].")
    ] = None,
    track: Track = None,
    live: Annotated[bool, typer.Option("--open", help="Open the page in a browser, live while it trains.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    json: Json = False,
) -> None:
    """Train a U-Net, measure how information flows through it, draw and report it."""
    given = {
        "data.path": _absolute(data),
        "data.validation": _absolute(val),
        "data.validation_share": validation_share,
        "data.synthetic_images": synthetic_images,
        "data.seed": data_seed,
        "data.accept": accept,
        "data.image_size": image_size,
        "network.width": width,
        "network.depth": depth,
        "network.without": without,
        "training.epochs": epochs,
        "training.optimizer": optimizer,
        "training.learning_rate": learning_rate,
        "training.warm_up_epochs": warm_up_epochs,
        "network.initialisation": initialisation,
        "training.batch_size": batch_size,
        "training.precision": precision,
        "training.channels_last": channels_last,
        "training.device": device,
        "threads": threads,
        "seed": seed,
        "measuring.marked": _marked(marked),
        "measuring.probe_images": probe_images,
        "measuring.noise_variances": _swept(noise_variance, SWEPT_NOISE_VARIANCES, sweep),
        "measuring.mixtures": mixture,
        "measuring.relative_noise_variances": relative_noise_variance,
        "measuring.bin_sizes": _swept(bin_size, SWEPT_BIN_SIZES, sweep),
        "measuring.renyi_bandwidths": renyi,
        "measuring.ksg_components": ksg,
        "measuring.usable": usable,
        "measuring.merge_probes": merge_probes,
        "measuring.convolutional": convolutional,
        "measuring.clusters": clusters,
        "measuring.cluster_initialisations": cluster_initialisations,
        "measuring.blocks": blocks,
        "measuring.block_threshold": block_threshold,
        "measuring.memory_budget": _bytes(memory_budget),
    }
    overrides = {name: value for name, value in given.items() if value not in (None, [])}
    if val is not None and data is None:
        raise InvalidArgument("--val needs --data: the images to train on")
    config, folder = _configured(preset, overrides, out, resume)

    from unetscope.cli.terminal import print_forecast, print_json, print_run, progress_bar

    with progress_bar(quiet or json) as progress:
        if dry_run:
            from unetscope.runs.forecast import forecast_run

            expected = forecast_run(config, folder, resume=resume, progress=progress)
        else:
            from unetscope.report.render import render_run
            from unetscope.runs.experiment import run as run_experiment
            from unetscope.runs.trackers import check_tracker
            from unetscope.runs.trackers import track as hand_over

            if track is not None:
                check_tracker(track)
            try:
                with _viewed(folder) if live else nullcontext():
                    finished = run_experiment(config, folder, resume=resume, progress=progress, track=track)
                    page = render_run(finished, progress=progress)
                if track is not None:
                    hand_over(finished, track)
            except KeyboardInterrupt:
                progress.warn(f"stopped; go on with: unetscope run --out {folder} --resume")
                raise typer.Exit(130) from None
    if dry_run:
        print_json(expected.as_dict()) if json else print_forecast(expected)
    else:
        print_run(finished, page, json=json)


@app.command()
def measure(
    run: Run,
    noise_variance: NoiseVariance = None,
    mixture: MixtureNoise = None,
    relative_noise_variance: RelativeNoise = None,
    bin_size: BinSize = None,
    renyi: RenyiBandwidth = None,
    ksg: KSGComponents = None,
    sweep: Sweep = False,
    usable: Annotated[bool, typer.Option("--usable", help="Usable information by linear probes.")] = False,
    merge_probes: Annotated[
        bool, typer.Option("--merge-probes", help="Convolutional probes of the merges, for verdicts.")
    ] = False,
    convolutional: Annotated[
        bool, typer.Option("--convolutional", help="Usable information of every layer by convolutional probes.")
    ] = False,
    epochs: Annotated[
        str | None, typer.Option(help="Epochs with a checkpoint, such as 10,100 [default: all measured].")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    json: Json = False,
) -> None:
    """Measure the kept checkpoints of a run again, with what is named; what was measured before stays."""
    from unetscope.cli.terminal import print_run, progress_bar
    from unetscope.report.render import render_run
    from unetscope.runs.experiment import measure_again

    given = {
        "noise_variances": _swept(noise_variance, SWEPT_NOISE_VARIANCES, sweep),
        "mixtures": mixture,
        "relative_noise_variances": relative_noise_variance,
        "bin_sizes": _swept(bin_size, SWEPT_BIN_SIZES, sweep),
        "renyi_bandwidths": renyi,
        "ksg_components": ksg,
        "usable": usable,
        "merge_probes": merge_probes,
        "convolutional": convolutional,
    }
    with progress_bar(quiet or json) as progress:
        folder = measure_again(
            run, {name: value for name, value in given.items() if value}, epochs=_epochs(epochs), progress=progress
        )
        page = render_run(folder, progress=progress)
    print_run(folder, page, json=json)


@app.command()
def verdict(
    run: Run,
    epoch: Annotated[int | None, typer.Option(help="Training budget, a measured epoch [default: the last].")] = None,
    margin: Annotated[
        float | None, typer.Option(help="Share of what the network tells that counts as nothing.")
    ] = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Time the proposed design on this machine.")] = True,
    json: Json = False,
) -> None:
    """Say which skips and levels the task needs, from which epoch, how sure, and what a network without the others saves."""
    from unetscope.analysis.verdict import MARGIN, judge
    from unetscope.cli.terminal import print_judgement
    from unetscope.runs.folder import RunFolder

    folder = RunFolder.open(run)
    flow = folder.flow()
    judgement = judge(flow, margin=MARGIN if margin is None else margin)
    if epoch is not None:
        judgement.at(epoch)
    saved = None
    if cost and folder.own_network and (design := judgement.design(epoch)) is not None:
        from unetscope.runs.slimming import savings

        saved = savings(folder, design)
    print_judgement(judgement, flow, run, epoch, saved, own=folder.own_network, json=json)


@app.command()
def verify(
    run: Run,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            help="paper, skips, depths, proposed, no-skips, without-skip2, depth3, …; repeatable [default: paper]."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="How many seeds, or which, such as 0,1,5.")] = "3",
    workers: Annotated[int | None, typer.Option(help="Jobs at a time [default: as many as the cores carry].")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads of a job.")] = 1,
    engine: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    margin: Annotated[float | None, typer.Option(help="Loss of Dice that counts as none [default: 0.02].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it will take.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    json: Json = False,
) -> None:
    """Retrain variants of a run's network over seeds, and hold the verdicts against them; started again, it goes on."""
    from unetscope.analysis.outcomes import DICE_MARGIN, check_margin
    from unetscope.cli.terminal import print_expected, print_verification, progress_bar
    from unetscope.report.render import render_run
    from unetscope.runs.engines import cores, engine_named
    from unetscope.runs.folder import RunFolder
    from unetscope.runs.retraining import expected_seconds, on_gpu, retrain, trials
    from unetscope.runs.verification import chosen_seeds, chosen_variants, verification

    folder = RunFolder.open(run)
    chosen = chosen_variants(folder, variants or ["paper"])
    planned = trials(folder, chosen, chosen_seeds(folder, _seeds(seeds)))
    trained_by = engine_named(engine, workers=workers, threads=threads, gpu=on_gpu(folder))
    if dry_run:
        at_once = workers or max(1, cores() // threads)
        print_expected(planned, expected_seconds(folder, planned, workers=at_once, threads=threads), json=json)
        return
    loss = DICE_MARGIN if margin is None else margin
    check_margin(loss)
    with progress_bar(quiet or json) as progress:
        try:
            failed = retrain(folder, planned, engine=trained_by, threads=threads, progress=progress)
        except KeyboardInterrupt:
            progress.warn("stopped; the same command goes on where it was")
            raise typer.Exit(130) from None
        found = verification(folder, planned, margin=loss)
        page = render_run(folder, progress=progress, dice_margin=loss)
    print_verification(found, page, {trial.name: reason for trial, reason in failed.items()}, json=json)


@app.command()
def slim(
    run: Run,
    design: Annotated[
        str,
        typer.Option(
            help="What to leave out, such as without-skip1 or depth2 [default: what the verdicts propose].",
            show_default=False,
        ),
    ] = "proposed",
    fine_tune: Annotated[int, typer.Option(help="Epochs to train the carried weights on.")] = 0,
    retrained: Annotated[
        bool, typer.Option("--retrained", help="Take the weights of its retraining by verify.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write ONNX too.")] = False,
    torch_export: Annotated[bool, typer.Option("--torch-export", help="Write a program of torch.export too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    json: Json = False,
) -> None:
    """Write the smaller network with weights carried over, and its Dice before and after."""
    from unetscope.cli.terminal import print_slim, progress_bar
    from unetscope.runs.slimming import Export
    from unetscope.runs.slimming import slim as make_slim

    if fine_tune < 0:
        raise InvalidArgument(f"--fine-tune must be 0 or more, got {fine_tune}")
    kinds: dict[Export, bool] = {"onnx": onnx, "torch": torch_export}
    with progress_bar(quiet or json) as progress:
        found = make_slim(
            run,
            design,
            fine_tune=fine_tune,
            retrained=retrained,
            exports=tuple(kind for kind, wanted in kinds.items() if wanted),
            progress=progress,
        )
    print_slim(found, json=json)


@app.command()
def inspect(
    network: Annotated[
        str,
        typer.Argument(
            help="What builds it: FILE.py:NAME or package.module:NAME, a network or what returns one.",
            metavar="NETWORK",
        ),
    ],
    shape: Annotated[str, typer.Option(help="One image: channels and sides, such as 1,128,128.")] = "3,128,128",
    every: Annotated[
        str | None, typer.Option(help="kernels or stages: which layers [default: all kernels up to forty].")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Draw the U with its skips: NAME.png and NAME.svg.", metavar="NAME")
    ] = None,
    json: Json = False,
) -> None:
    """Find the layers, merges and skips of any network. It runs what it names, as python would."""
    from unetscope.cli.terminal import print_structure
    from unetscope.networks.named import build_network, inspect_shape

    structure = inspect_shape(build_network(network), shape, every)
    if draw is not None:
        from unetscope import plots

        figure = plots.architecture(structure.layers, structure.skips).get_figure(root=True)
        assert figure is not None
        draw = plots.save(figure, draw.parent, draw.stem)[0]
    print_structure(structure, draw, json=json)


@app.command("check-data")
def check_data(
    path: Annotated[Path, typer.Argument(help="Folder or zip of images and masks.")],
    val: Annotated[Path | None, typer.Option(help="Folder or zip of validation images.")] = None,
    image_size: Annotated[int, typer.Option(help="Pixels a side that images will be resized to.")] = 128,
    accept: Annotated[list[str] | None, typer.Option(help="Kind of problem to leave out; repeatable.")] = None,
    json: Json = False,
) -> None:
    """List every problem of a data set: by file, what is wrong, how to mend it."""
    from unetscope.cli.terminal import print_problems
    from unetscope.data import check

    problems = check(path, validation=val, image_size=image_size, accept=accept or ())
    print_problems(problems, path, json=json)
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(2)


@data_app.command()
def fetch(
    folder: Annotated[Path | None, typer.Option(help="Where to put the archive [default: the cache folder].")] = None,
    url: Annotated[str | None, typer.Option(help="Another address of the same archive.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    json: Json = False,
) -> None:
    """Download the 670 public nuclei images (BBBC038v1 stage 1) and verify every one of them."""
    from unetscope.cli.terminal import print_json, progress_bar
    from unetscope.data import fetch as fetch_archive
    from unetscope.data.download import PUBLIC_URL

    with progress_bar(quiet or json) as progress:
        progress.stage("downloading", 0)
        archive = fetch_archive(folder, url=url or PUBLIC_URL, progress=progress.measure)
    print_json({"path": str(archive)}) if json else typer.echo(archive)


@app.command()
def selfcheck(json: Json = False) -> None:
    """Measure cases whose information is known in closed form, with every estimator, on this machine."""
    from unetscope.cli.terminal import print_checks, progress_bar
    from unetscope.measure.selfcheck import run_selfcheck

    with progress_bar(json) as progress:
        progress.stage("measuring", 0)
        checks = run_selfcheck(progress.measure)
    print_checks(checks, json=json)
    if not all(check.passed for check in checks):
        raise typer.Exit(2)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="One run folder, or several to stand side by side.", metavar="RUN...")
    ],
    to: Annotated[
        Path | None, typer.Option(help="Page to write [default: RUN/report.html; of several, comparison.html here].")
    ] = None,
    track: Track = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress.")] = False,
    json: Json = False,
) -> None:
    """Draw the figures and write the page of a run again, or one page of several runs."""
    from unetscope.cli.terminal import print_json, progress_bar
    from unetscope.report.render import compare, render_run
    from unetscope.runs.folder import RunFolder
    from unetscope.runs.trackers import track as hand_over

    folders = [RunFolder.open(run) for run in runs]
    if len(folders) > 1 or to is not None:
        page = compare(folders, to or Path("comparison.html"))
    else:
        with progress_bar(quiet or json) as progress:
            page = render_run(folders[0], progress=progress)
    if track is not None:
        for folder in folders:
            hand_over(folder, track)
    print_json({"report": str(page)}) if json else typer.echo(page)


@app.command()
def view(
    runs: Annotated[
        list[Path], typer.Argument(help="One run folder, or several to stand side by side.", metavar="RUN...")
    ],
    host: Annotated[
        str, typer.Option(help="Interface to serve on; any other than this one lets others in the network ask.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="Port [default: the one of the last time, else any free one].")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Serve the page of a run to this machine's browser, live while it trains; ends with Ctrl+C."""
    import webbrowser

    from unetscope.base.processes import end_with_parent
    from unetscope.cli.terminal import one_line
    from unetscope.report.live import server
    from unetscope.runs.folder import RunFolder

    if with_parent:
        end_with_parent()
    else:
        for run in runs:
            RunFolder.open(run)
    with server(runs, host=host, port=port) as serving:
        typer.echo(f"{', '.join(one_line(str(run)) for run in runs)}: {serving.url}", err=with_parent)
        if browser and _has_screen():
            webbrowser.open(serving.url)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit from None


@app.command()
def export(
    run: Run,
    to: Annotated[Path, typer.Option(help="Table of estimates to write: .csv or .parquet.")],
    epochs_to: Annotated[
        Path | None, typer.Option(help="Table of Dice and loss to write [default: beside, NAME-epochs].")
    ] = None,
    json: Json = False,
) -> None:
    """Write the estimates, and beside them the Dice and loss of every epoch, as CSV or Parquet."""
    from unetscope.cli.terminal import print_json
    from unetscope.runs.folder import RunFolder
    from unetscope.table.flow import save_epochs

    folder = RunFolder.open(run)
    estimates = folder.flow().save(to)
    epochs = save_epochs(folder.epochs(), epochs_to or to.with_name(f"{to.stem}-epochs{to.suffix}"))
    if json:
        print_json({"estimates": str(estimates), "epochs": str(epochs)})
    else:
        typer.echo(f"{estimates}\n{epochs}")


def _has_screen() -> bool:
    """Whether a browser has somewhere to open: on a server it might take the terminal instead."""
    return sys.platform != "linux" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


@contextmanager
def _viewed(folder: Path) -> Iterator[None]:
    """Serve the page of a run from a process of its own, which neither slows the training nor outlives it."""
    words = [sys.executable, "-m", "unetscope", "view", str(folder), "--with-parent"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as viewer:  # noqa: S603
        try:
            yield
        finally:
            viewer.kill()


def _configured(
    preset: str | None, overrides: dict[str, Any], out: Path | None, resume: bool
) -> tuple[RunConfig, Path]:
    """The configuration asked for, and its run folder; a resumed run that names no preset keeps its own."""
    from unetscope.runs.folder import RunFolder
    from unetscope.training.config import preset_config

    name = preset or ("quick" if "data.path" in overrides else "demo")
    folder = out or Path("runs") / name
    if resume and preset is None and RunFolder.exists(folder):
        from unetscope.training.config import overridden_config

        return overridden_config(RunFolder.open(folder).configuration, overrides), folder
    return preset_config(name, overrides), folder


def _swept(given: list[float] | None, sweep: tuple[float, ...], wanted: bool) -> list[float] | None:
    """What was given and, if wanted, a sweep."""
    return sorted({*(given or ()), *sweep}) if wanted else given


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().resolve())


def _marked(text: str | None) -> str | list[int] | None:
    if text is None or text in ("log", "paper"):
        return text
    try:
        return _epochs(text)
    except InvalidArgument:
        raise InvalidArgument(f"--marked {text}: expected log, paper, or epochs such as 1,10,100") from None


def _epochs(text: str | None) -> list[int]:
    try:
        return [] if text is None else [int(epoch) for epoch in text.split(",")]
    except ValueError:
        raise InvalidArgument(f"--epochs {text}: expected epochs such as 10,100") from None


def _seeds(text: str) -> int | list[int]:
    """How many seeds, or which."""
    try:
        numbers = [int(number) for number in text.split(",")]
    except ValueError:
        raise InvalidArgument(f"--seeds {text}: expected a number of seeds, or seeds such as 0,1,5") from None
    return numbers if "," in text else numbers[0]


def _bytes(text: str | None) -> int | None:
    """A size such as 2GiB, 500MB or 1000000 as bytes."""
    if text is None:
        return None
    units = {"": 1, "b": 1, **{f"{p}b": 1000**i for i, p in enumerate("kmgt", 1)}}
    units |= {f"{p}ib": 1024**i for i, p in enumerate("kmgt", 1)}
    number = text.strip().lower().rstrip("kmgtib ")
    unit = text.strip().lower()[len(number) :].strip()
    try:
        size = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        raise InvalidArgument(f"--memory-budget {text}: expected a size such as 2GiB or 500MB") from None
    if size <= 0:
        raise InvalidArgument(f"--memory-budget must be > 0, got {text}")
    return size
