"""Write docs/verdicts.md from the cells that `verdict_cells` has filled, and the lines by which the package expects losses.

python -m calibration.verdict_page build/verdicts

Cells take hours, so what the page needs of them is kept in docs/data/verdicts.json; cells of the folder take the place of those
that are kept. Without a folder, the page is written from what is kept.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from calibration.verdict_cells import DRAWN, EFFORT, HELD_OUT, NETWORKS, REAL, SMALL, TRAIN, TRAINED_ON_FOR
from calibration.verdict_effort import (
    AT_ONCE,
    USED,
    CommandVerdict,
    Effort,
    command_verdicts,
    decided_by_cell,
    decided_parts,
    efforts_of,
    keep_efforts,
    kept_efforts,
    never_retrained,
    proposed,
    size_of,
)
from calibration.verdict_fit import (
    LEVEL,
    MARGIN,
    Judged,
    Predicted,
    Row,
    judged,
    left_out_lines,
    lines_of,
    names_of,
    predicted,
    rows_of,
)
from calibration.verdict_images import CellImages, images_of, keep_images, kept_images, of_few_images, with_steps
from calibration.verdict_summary import in_short
from unetscope.base import without_nan
from unetscope.base.files import whole_file
from unetscope.table import BITS, PROBED, SILENCED, TRAINED_ON, Decision, Interval, decided_loss, epochs_trained_on

OfCell = TypeVar("OfCell", Row, Effort, CellImages)
ROOT = Path(__file__).parents[1]
DOCS, LINES = ROOT / "docs", ROOT / "src" / "unetscope" / "analysis" / "loss_lines.json"
TRAINED_ON_TEXT = "a twentieth of the epochs, and three or more"
PHOTOGRAPHS: Final = ("nuclei", "membranes")
TASKS: Final = (*DRAWN, *PHOTOGRAPHS)
TITLES: Final = {
    "unet": "this package's U-Net",
    "plain-conv-unet": "nnU-Net's PlainConvUNet",
    "basic-unet": "MONAI's BasicUNet",
}
PREDICTORS: Final = (
    BITS, "taylor", SILENCED, PROBED, TRAINED_ON, "trained on for 15 %", "trained on, extrapolated", "a fifth of a retraining",
)  # fmt: skip
COST: Final[dict[str, Callable[[int], float]]] = {
    TRAINED_ON: lambda budget: epochs_trained_on(budget) / budget,
    "trained on for 15 %": lambda _: TRAINED_ON_FOR,
    "trained on, extrapolated": lambda _: TRAINED_ON_FOR,
    "a fifth of a retraining": lambda _: 0.2,
}
"""Of a training, for each network of a budget."""


def main() -> None:
    """Read the cells and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--lines", type=Path, default=LINES)
    words = parser.parse_args()
    names = "verdicts.json", "efforts.json", "verdict_images.json"
    kept, kept_of_efforts, kept_of_images = (words.docs / "data" / name for name in names)
    read, read_efforts = read_cells(words.folder) if words.folder else ([], [])
    rows = sorted(joined(kept_rows(kept) if kept.exists() else [], read), key=lambda row: (*_place(row), row.design))
    efforts = sorted(joined(kept_efforts(kept_of_efforts), read_efforts), key=_place)
    if len({row.task for row in rows}) < 3:
        raise SystemExit("there are cells of fewer than three tasks: nothing can be left out")
    images = sorted(joined(kept_images(kept_of_images), read_images(words.folder)), key=_place)
    rows = with_steps(rows, images)
    kept.parent.mkdir(exist_ok=True)
    with whole_file(kept) as beside:
        beside.write_text(json.dumps(without_nan([asdict(row) for row in rows]), indent=1) + "\n", encoding="utf-8")
    keep_efforts(efforts, kept_of_efforts)
    keep_images(images, kept_of_images)
    (words.docs / "verdicts.md").write_text("\n".join(page(rows, efforts, images)) + "\n", encoding="utf-8")
    lines = [line.as_dict() for line in lines_of(rows, USED)]
    with whole_file(words.lines) as beside:
        beside.write_text(json.dumps({"lines": lines}, indent=1) + "\n", encoding="utf-8")


def kept_rows(path: Path) -> list[Row]:
    """The rows of earlier cells."""

    def known(values: dict[str, Any]) -> dict[str, Any]:
        return {name: math.nan if value is None else value for name, value in values.items()}

    rows = json.loads(path.read_text(encoding="utf-8"))
    by_seed = [[math.nan if loss is None else loss for loss in row.get("by_seed", ())] for row in rows]
    return [
        Row(**{**known(row), "values": known(row["values"]), "by_seed": seeds})
        for row, seeds in zip(rows, by_seed, strict=True)
    ]


def joined(kept: Sequence[OfCell], read: Sequence[OfCell]) -> list[OfCell]:
    """What was kept and what is read, which takes the place of the same cells."""
    again = {each.cell[:2] for each in read}
    return [*(each for each in kept if each.cell[:2] not in again), *read]


def _place(each: Row | Effort | CellImages) -> tuple[int, str, int]:
    return TASKS.index(each.task), each.network, each.budget


def read_cells(folder: Path) -> tuple[list[Row], list[Effort]]:
    """The designs of all cells that are whole, and what the command finds of them."""
    rows, efforts = [], []
    for task in TASKS:
        for network in NETWORKS:
            path = folder / f"{task}-{network}"
            if (path / "losses.json").exists():
                kept: dict[str, Any] = {
                    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in path.glob("*.json")
                }
                rows += rows_of(kept, task, network)
                efforts += efforts_of(kept, task, network)
    return rows, efforts


def read_images(folder: Path | None) -> list[CellImages]:
    """The Dice of single images of all cells that are whole and have their runs."""
    if folder is None:
        return []
    return [
        images
        for task in TASKS
        for network in NETWORKS
        if (cell := folder / f"{task}-{network}") and (cell / "losses.json").exists() and (cell / "run").exists()
        for images in images_of(cell, task, network, (REAL if task in PHOTOGRAPHS else SMALL).budgets)
    ]


def page(rows: Sequence[Row], efforts: Sequence[Effort], images: Sequence[CellImages] = ()) -> list[str]:
    """The lines of the page."""
    names = tuple(dict.fromkeys((*PREDICTORS, *USED)))
    lines = left_out_lines(rows, names)
    predictions = {name: losses for name in names if (losses := predicted(rows, name, lines))}
    commanded = command_verdicts(rows, efforts, lines)
    regret = float(np.mean(_regrets(proposed(commanded)))) if commanded else math.nan
    return [
        "# What predicts the loss of Dice",
        "",
        *in_short(commanded, efforts, regret, never_retrained(rows, efforts, lines)),
        *_of_predictors(rows, predictions, commanded, efforts),
        *_of_parts(predictions, commanded, efforts),
        *_of_designs(rows, predictions, commanded),
        *_of_images(predictions, images),
    ]


def _of_predictors(
    rows: Sequence[Row],
    predictions: Mapping[str, Predicted],
    commanded: Sequence[CommandVerdict],
    efforts: Sequence[Effort],
) -> list[str]:
    """What the page is of, and how well each predictor does over designs."""
    tasks, cells = sorted({row.task for row in rows}), {row.cell for row in rows}
    trained = {(row.task, row.network) for row in rows}
    networks = [name for name in NETWORKS if any(network == name for _, network in trained)]
    of_each, budgets = len(rows) / len(cells), sorted({budget for _, _, budget in cells})
    needed = sum(row.truth == "needed" for row in rows)
    seeds = [str(number) for number in sorted({len(row.by_seed) for row in rows})]
    return [
        "## How it is known",
        "",
        "`python -m calibration.verdict_cells` trains a network on each task, keeps what may predict the loss of a design that lacks some of "
        "its parts, and retrains all designs; `python -m calibration.verdict_page` writes this page.",
        "",
        f"{len(tasks)} tasks ({', '.join(tasks)}), {len(networks)} networks ({', '.join(TITLES[name] for name in networks)}), {len(trained)} of their pairs, each "
        f"at two budgets: {len(rows)} designs, {needed} of which lose more than {MARGIN:g} Dice when they are retrained with {', '.join(seeds)} seeds; the run itself is one of them. "
        f"{scope_of(tasks)} Lines are judged on tasks that they were not fitted on: each is left out in turn. In the first table all "
        "tasks weigh the same; in the others parts do, and networks.",
        "",
        "- *Silenced*: the Dice that is lost at once with zeros in the place of what is left out; *probed*: the Dice that probes of the merges "
        "lose without one part; *trained on*: what a network without it loses when it is trained on; *A or B*: the least of both; *A and B or C*: the "
        "mean of A and of the least of B and C.\n"
        f"- *Ranks*: Spearman's correlation of the prediction with the retrained loss, within a network and budget.\n- *Covered*: losses that "
        f"lie in the {LEVEL:.0%} interval, as far as their retrainings tell; *strictly*, as if these told exactly; *if needed*, of the designs "
        f"that lose more than {MARGIN:g}.\n- *Right*, *wrong*: decided so, against the mean loss of the retrainings and a margin of "
        f"{MARGIN:g}; the rest is undecided.\n- *Cost*: trainings for all designs of a network, beside its own.",
        "",
        "| predicted by | ranks | covered | strictly | if needed | width | right | wrong | undecided | cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_line(judged(name, losses), _cost(name, of_each, budgets)) for name, losses in predictions.items()),
        *_command_line(commanded, efforts),
        "",
    ]


def _of_parts(
    predictions: Mapping[str, Predicted],
    commanded: Sequence[CommandVerdict],
    efforts: Sequence[Effort],
) -> list[str]:
    """How the parts of the networks are decided."""
    return [
        "## Decided, part by part",
        "",
        f"Of single skips, and of levels with all below them: what the rule of bits says, and the verdicts of the package, by lines that the "
        f"task was left out of: at once, by zeros and by probes; if a network without each part were trained on for {TRAINED_ON_TEXT}; and as "
        f"`unetscope verdict --effort {EFFORT:g}` finds and says them of a run of so many epochs. "
        "*Right* and *wrong* by the mean loss of the retrainings, which is uncertain itself: the last column counts only parts on which "
        "retraining decides with its 95 % interval, which are those of the quieter trainings. *Of those needed*: how many were found, and how "
        "many were called redundant.",
        "",
        "By what is lost at once with zeros in the place of a part none is called needed: much or nothing of that may come back, and the more "
        "it is the less is known. Probes with and without what a part adds tell of some. The rules were compared on these tasks too, so the "
        "one that the package has is a little better here than on others.",
        "",
        "| verdict | parts | right | wrongly redundant | wrongly needed | undecided | of those needed | right and wrong where retraining decides |",
        "|---|---|---|---|---|---|---|---|",
        *decided_parts(predictions, commanded, efforts),
        "",
    ]


def _of_designs(
    rows: Sequence[Row],
    predictions: Mapping[str, Predicted],
    commanded: Sequence[CommandVerdict],
) -> list[str]:
    """Which design each predictor chooses, and what that costs."""
    return [
        "## The design that is chosen",
        "",
        "The smallest design whose whole interval lies under the margin, or the whole network. *Regret*: the Dice of the best design, the whole "
        "network among them, less that of the chosen one, as retrained. The best of many is partly luck; so *beside retraining* takes the best "
        "by all seeds but one, and compares the two on that one, for each seed in turn. Only designs that were retrained are chosen from, which some of those that the command proposes were not.",
        "",
        "| predicted by | mean regret | largest | beside retraining | left out of the network |",
        "|---|---|---|---|---|",
        _choice("nothing left out", [(row, "undecided") for row in rows]),
        *(
            _choice(name, [(row, decided_loss(loss, MARGIN)) for row, loss in losses])
            for name, losses in predictions.items()
        ),
        *([_choice(f"effort of {EFFORT:g}", proposed(commanded))] if commanded else []),
    ]


def _of_images(predictions: Mapping[str, Predicted], images: Sequence[CellImages]) -> list[str]:
    """How expected losses hold of few validation images."""
    if not images:
        return []
    return [
        "",
        "## Few validation images",
        "",
        "What is expected at once, of samples of the validation images: how often the interval holds the mean loss over the sample, as "
        "retrained, and in how many designs it lies under the margin. *Wider*: as the package has it, by how much the sample's Dice varies "
        "from one epoch to the next. With all images nothing is added: there it holds as often as *probed or silenced* does *strictly*, in "
        "the first table.",
        "",
        "| tasks | images | holds | wider holds | under the margin | wider under the margin |",
        "|---|---|---|---|---|---|",
        *of_few_images(predictions.get(AT_ONCE, []), images, PHOTOGRAPHS),
    ]


def scope_of(tasks: Sequence[str]) -> str:
    """What the networks and images of these tasks are."""
    small, real = SMALL.values, REAL.values
    texts = [
        f"Drawn tasks have {TRAIN} images to train on and {HELD_OUT} to validate on, of {small['data.image_size']}×"
        f"{small['data.image_size']}; their U-Nets have width {small['network.width']} and depth {small['network.depth']}."
    ]
    if set(tasks) - set(DRAWN):
        texts.append(
            f"Images of {' and '.join(sorted(set(tasks) - set(DRAWN)))} are scaled to {real['data.image_size']}×"
            f"{real['data.image_size']}; their U-Nets have width {real['network.width']} and depth {real['network.depth']}."
        )
    return " ".join([*texts, "Elsewhere the intervals may hold less often."])


def _cost(predictor: str, designs: float, budgets: Sequence[int]) -> float:
    """In trainings, for all designs of a network."""
    surest = names_of(predictor)[0][0]
    share = sum(COST[surest](budget) for budget in budgets) / len(budgets) if surest in COST else 0.0
    return share * (designs + 1)


def _command_line(commanded: Sequence[CommandVerdict], efforts: Sequence[Effort]) -> list[str]:
    with_losses = [(each.row, each.loss, each.decision) for each in commanded if each.loss is not None]
    if not with_losses:
        return []
    cost = sum(each.trainings for each in efforts) / len(efforts)
    losses, decisions = [(row, loss) for row, loss, _ in with_losses], [decision for _, _, decision in with_losses]
    # without an interval, what all parts together lose is decided by theirs
    of_all = [(each.row, each.loss or Interval(0.0, 0.0, 0.0)) for each in commanded]
    decided = judged("", of_all, [each.decision for each in commanded])
    whole = replace(judged(f"effort of {EFFORT:g}", losses, decisions), right=decided.right, wrong=decided.wrong)
    return [_line(whole, cost)]


def _line(each: Judged, cost: float) -> str:
    undecided = 1 - each.right - each.wrong
    covered = " | ".join(f"{share:.0%}" for share in (each.covered, each.strictly, each.of_needed))
    return (
        f"| {each.name} | {_number(each.ranks, 2)} | {covered} | {each.width:.3f} | {each.right:.0%} | {each.wrong:.1%} | "
        f"{undecided:.0%} | {f'{cost:.2f}' if cost else '—'} |"
    )


def _number(value: float, places: int = 3) -> str:
    return "—" if math.isnan(value) else f"{value:z.{places}f}"


def _choice(name: str, decided: Sequence[tuple[Row, Decision]]) -> str:
    """How the chosen designs do: their regret, and in how many networks something is left out."""
    beside, smaller = [], 0
    for of_cell in decided_by_cell(decided):
        smallest = _smallest(of_cell)
        smaller += smallest is not None
        beside.append(beside_retraining(smallest, [row for row, _ in of_cell]))
    regrets = _regrets(decided)
    finite = [more for more in beside if math.isfinite(more)]
    columns = (np.mean(regrets), max(regrets), np.mean(finite) if finite else math.nan)
    return f"| {name} | {' | '.join(map(_number, columns))} | {smaller} of {len(regrets)} |"


def _regrets(decided: Sequence[tuple[Row, Decision]]) -> list[float]:
    """By cell, what the chosen design loses more than the best of all, the whole network among them."""
    return [
        (0.0 if (smallest := _smallest(of_cell)) is None else smallest.loss)
        - min(0.0, *(row.loss for row, _ in of_cell))
        for of_cell in decided_by_cell(decided)
    ]


def _smallest(decided: Sequence[tuple[Row, Decision]]) -> Row | None:
    """The smallest design that is redundant; None for the whole network."""
    redundant = [row for row, decision in decided if decision == "redundant"]
    return min(redundant, key=lambda row: size_of(row.design), default=None)


def beside_retraining(design: Row | None, rows: Sequence[Row]) -> float:
    """What a design loses more than the one that is best by all seeds but one, on that seed; the mean over seeds.

    design: None for the whole network. NaN with fewer than two seeds, and if none is known of both.

    >>> losses = {"depth1": [0.1, 0.1, 0.1], "depth2": [-0.02, 0.03, 0.0], "depth3": [0.02, -0.03, 0.02]}
    >>> rows = [Row("ring", "unet", 20, name, 0.0, {}, by_seed=by_seed) for name, by_seed in losses.items()]
    >>> round(beside_retraining(rows[0], rows), 3), round(beside_retraining(None, rows), 3)
    (0.077, -0.023)
    """
    whole = np.zeros((1, len(rows[0].by_seed)))
    losses = np.concatenate([whole, [row.by_seed for row in rows]])
    of_design = losses[0 if design is None else 1 + rows.index(design)]
    more = []
    for seed in range(losses.shape[1] if losses.shape[1] > 1 else 0):
        others = np.delete(losses, seed, axis=1)
        is_finite = np.isfinite(losses).all(axis=1)
        best = np.flatnonzero(is_finite)[np.argmin(others[is_finite].mean(axis=1))]
        more.append(of_design[seed] - losses[best, seed])
    finite = [loss for loss in more if math.isfinite(loss)]
    return float(np.mean(finite)) if finite else math.nan


if __name__ == "__main__":
    main()
