"""The verbs that look at a network, at data and at this machine: `inspect`, `check-data`, `data fetch` and `selfcheck`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unetscope.cli.options import Json, Quiet
from unetscope.cli.print_check import print_checks, print_problems, print_structure
from unetscope.cli.progress_bar import progress_bar
from unetscope.cli.terminal import print_json


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
    from unetscope.networks.named import build_network, inspect_shape

    structure = inspect_shape(build_network(network), shape, every)
    if draw is not None:
        from unetscope import plots

        figure = plots.architecture(structure.layers, structure.skips).get_figure(root=True)
        assert figure is not None
        draw = plots.save(figure, draw.parent, draw.stem)[0]
    print_structure(structure, draw, json=json)


def check_data(
    path: Annotated[Path, typer.Argument(help="Folder or zip of images and masks.")],
    val: Annotated[Path | None, typer.Option(help="Folder or zip of validation images.")] = None,
    image_size: Annotated[int, typer.Option(help="Pixels a side that images will be resized to.")] = 128,
    accept: Annotated[list[str] | None, typer.Option(help="Kind of problem to leave out; repeatable.")] = None,
    json: Json = False,
) -> None:
    """List every problem of a data set: by file, what is wrong, how to mend it."""
    from unetscope.data import check

    problems = check(path, validation=val, image_size=image_size, accept=accept or ())
    print_problems(problems, path, json=json)
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(2)


def fetch(
    folder: Annotated[Path | None, typer.Option(help="Where to put the archive [default: the cache folder].")] = None,
    url: Annotated[str | None, typer.Option(help="Another address of the same archive.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Download the 670 public nuclei images (BBBC038v1 stage 1) and verify every one of them."""
    from unetscope.data import fetch as fetch_archive
    from unetscope.data.download import PUBLIC_URL

    with progress_bar(quiet or json) as progress:
        progress.stage("downloading", 0)
        archive = fetch_archive(folder, url=url or PUBLIC_URL, progress=progress.measure)
    print_json({"path": str(archive)}) if json else typer.echo(archive)


def selfcheck(json: Json = False) -> None:
    """Measure cases whose information is known in closed form, with every estimator, on this machine."""
    from unetscope.measure.selfcheck import run_selfcheck

    with progress_bar(json) as progress:
        progress.stage("measuring", 0)
        checks = run_selfcheck(progress.measure)
    print_checks(checks, json=json)
    if not all(check.passed for check in checks):
        raise typer.Exit(2)
