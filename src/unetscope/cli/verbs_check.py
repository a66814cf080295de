"""The verbs that look at a network, at data and at this machine: `inspect`, `check-data`, `data fetch` and `selfcheck`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unetscope.base import parse_arguments
from unetscope.cli.flags import Json, Quiet
from unetscope.cli.progress import shown_progress
from unetscope.cli.terminal import one_line, print_json, print_sentence, print_table
from unetscope.table import estimator_title
from unetscope.training import parse_sides

if TYPE_CHECKING:
    from unetscope.data import Checked
    from unetscope.estimators import Check
    from unetscope.networks import Structure


def inspect(
    network: Annotated[
        str,
        typer.Argument(
            help="What builds it: FILE.py:NAME or package.module:NAME, a network or what returns one.",
            metavar="NETWORK",
        ),
    ],
    network_args: Annotated[
        list[str] | None, typer.Option(help="Argument of what builds it, such as width=16; repeatable, as of `run`.")
    ] = None,
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
    from unetscope.networks import build_network, inspect_shape

    structure = inspect_shape(build_network(network, parse_arguments(network_args or ())), shape, every)
    if draw is not None:
        from unetscope import plots
        from unetscope.runs import refuse_own_files

        refuse_own_files(draw)
        figure = plots.architecture(structure.layers, structure.skips).get_figure(root=True)
        assert figure is not None
        draw = plots.save(figure, draw.parent, draw.stem)[0]
    print_structure(structure, draw, json=json)


def check_data(
    path: Annotated[Path, typer.Argument(help="Folder or zip of images and masks.")],
    val: Annotated[Path | None, typer.Option(help="Folder or zip of validation images.")] = None,
    image_size: Annotated[
        str, typer.Option(help="Pixels a side that images will be resized to, or the sides of volumes, as of `run`.")
    ] = "128",
    volumes: Annotated[
        str | None, typer.Option(help="What volumes become: slices, patches or whole, as of `run`.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Images that belong together: a pattern or a table, as of `run`.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="What masks hold: binary, instances or classes [default: what the whole set looks like]."),
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Classes of class maps, numbered from 0 on.")] = None,
    ignore: Annotated[int | None, typer.Option(help="Value of pixels without a label, above the classes.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="Kind of problem to leave out; repeatable.")] = None,
    json: Json = False,
) -> None:
    """List every problem of a data set: by file, what is wrong, how to mend it; and what its masks were taken for."""
    from unetscope.data import checked

    contents = checked(
        path,
        validation=val,
        image_size=parse_sides("--image-size", image_size),
        volumes=volumes,
        groups=groups,
        masks=masks,
        classes=classes,
        ignore=ignore,
        accept=accept or (),
    )
    print_problems(contents, path, json=json)
    if any(problem.severity == "error" for problem in contents.problems):
        raise typer.Exit(2)


def fetch(
    folder: Annotated[Path | None, typer.Option(help="Where to put the archive [default: the cache folder].")] = None,
    url: Annotated[str | None, typer.Option(help="Another address of the same archive.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Download the 670 public nuclei images (BBBC038v1 stage 1) and verify every one of them."""
    from unetscope.data import PUBLIC_URL
    from unetscope.data import fetch as fetch_archive

    with shown_progress(quiet or json) as progress:
        progress.stage("downloading", 0)
        archive = fetch_archive(folder, url=PUBLIC_URL if url is None else url, progress=progress.measure)
    print_json({"path": str(archive)}) if json else typer.echo(archive)


def selfcheck(json: Json = False) -> None:
    """Measure cases whose information is known in closed form, with every estimator, on this machine."""
    from unetscope.measure import run_selfcheck

    with shown_progress(json) as progress:
        progress.stage("measuring", 0)
        checks = run_selfcheck(progress.measure)
    print_checks(checks, json=json)
    if not all(check.passed for check in checks):
        raise typer.Exit(2)


def print_structure(structure: Structure, drawn: Path | None, *, json: bool) -> None:
    """The layers of a network in their order, and its skips with their merges."""
    if json:
        print_json(_structure_data(structure))
        return
    from unetscope.networks import JOIN_NAMES

    kept = "every kernel" if structure.detail == "kernels" else f"the ends of stages, of {structure.kernels} kernels"
    print_table(
        f"{one_line(structure.name)}: layers ({kept})",
        ("layer", "role", "level", "one image", "where"),
        [
            (layer.label, layer.role, str(layer.level), "×".join(map(str, layer.shape)), one_line(layer.module))
            for layer in structure.layers
        ],
        right=("layer", "level"),
    )
    if structure.skips:
        print_table(
            "Skips, the last that joins first",
            ("skip", "carries", "meets", "at", "by"),
            [
                (skip.name, skip.source, skip.upsampled, skip.merge, JOIN_NAMES[structure.merge_of(skip.name).kind])
                for skip in structure.skips
            ],
        )
    else:
        print_sentence(f"{structure.why_no_merge}.")
    for gap in structure.gaps:
        print_sentence(f"warning: {gap}")
    if drawn is not None:
        print(f"drawn: {one_line(str(drawn))}")


def _structure_data(structure: Structure) -> dict[str, Any]:
    return {
        "network": structure.name,
        "detail": structure.detail,
        "layers": [asdict(layer) for layer in structure.layers],
        "skips": [asdict(skip) for skip in structure.skips],
        "merges": [
            {"label": merge.label, "kind": merge.kind, "at": merge.address, "skips": list(merge.skips)}
            for merge in structure.merges
        ],
        "gaps": [asdict(gap) for gap in structure.gaps],
    }


def print_problems(contents: Checked, path: Path, *, json: bool) -> None:
    """Every problem of a data set on a line of its own, or that there is none; and what its masks were taken for."""
    problems = contents.problems
    if json:
        of_masks = asdict(contents.masks)
        print_json(
            {"problems": [asdict(problem) for problem in problems], "masks": of_masks, "groups": contents.groups}
        )
        return
    print_sentence(f"masks: {contents.masks}")
    if sizes := contents.groups.values():
        images = str(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes)} to {max(sizes)}"
        print_sentence(f"groups: {len(sizes)} of {images} images, such as {next(iter(contents.groups))}")
    for problem in problems:
        print_sentence(f"{problem.severity}: {problem}")
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    print(f"{one_line(str(path))}: {errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")


def print_checks(checks: Sequence[Check], *, json: bool) -> None:
    """Each estimate beside its truth."""
    if json:
        print_json({"checks": [{**asdict(check), "passed": check.passed} for check in checks]})
        return
    print_table(
        "Estimates of what is known, in bits",
        ("case", "by", "truth", "measured", "says it lies in", ""),
        map(_check_row, checks),
        right=("truth", "measured"),
    )


def _check_row(check: Check) -> tuple[str, ...]:
    absent = "out of domain" if check.outside else "no number"
    measured = absent if math.isnan(check.bits) else f"{check.bits:z.3f}"
    bracket = "as it must" if check.outside and check.passed else f"{check.low:z.3f} to {check.high:z.3f}"
    title = estimator_title(check.estimator)
    return check.case, title, f"{check.truth:z.3f}", measured, bracket, "✓" if check.passed else "✗"
