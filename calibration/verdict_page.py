"""Write docs/verdicts.md from the cells that `verdict_cells` has filled.

python -m calibration.verdict_page build/verdicts
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from calibration.verdict_cells import DRAWN, NETWORKS, TRAINED_ON
from calibration.verdict_fit import LEVEL, MARGIN, Judged, Row, judged, left_out_tasks, rows_of

DOCS = Path(__file__).parents[1] / "docs"
TASKS: Final = (*DRAWN, "nuclei", "membranes")
SETS: Final[tuple[tuple[str, ...], ...]] = (
    ("bits",),
    ("taylor",),
    ("silenced",),
    ("bits", "silenced"),
    ("trained on for 5 %",),
    ("bits", "trained on for 5 %"),
    ("silenced", "trained on for 5 %"),
    ("trained on for 15 %",),
    ("trained on, extrapolated",),
    ("bits", "trained on, extrapolated"),
    ("a fifth of a retraining",),
)
COST: Final = {"trained on for 5 %": 0.05, "trained on for 15 %": TRAINED_ON, "trained on, extrapolated": TRAINED_ON,
               "a fifth of a retraining": 0.2}  # of a training, for each network  # fmt: skip


def main() -> None:
    """Read the cells and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, default=DOCS)
    words = parser.parse_args()
    rows = read_rows(words.folder)
    if len({row.task for row in rows}) < 3:
        raise SystemExit(f"{words.folder} has the cells of fewer than three tasks: nothing can be left out")
    (words.docs / "verdicts.md").write_text("\n".join(page(rows)) + "\n", encoding="utf-8")


def read_rows(folder: Path) -> list[Row]:
    """The designs of all cells that are whole."""
    rows = []
    for task in TASKS:
        for network in NETWORKS:
            path = folder / f"{task}-{network}"
            if (path / "losses.json").exists():
                kept: dict[str, Any] = {
                    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in path.glob("*.json")
                }
                rows += rows_of(kept, task, network)
    return rows


def page(rows: Sequence[Row]) -> list[str]:
    """The lines of the page."""
    tasks, cells = sorted({row.task for row in rows}), {row.cell for row in rows}
    trained = {(row.task, row.network) for row in rows}
    of_each = len(rows) / len(cells)
    needed = sum(row.truth == "needed" for row in rows)
    table = [judged(rows, predictors) for predictors in SETS]
    return [
        "# What predicts the loss of Dice",
        "",
        "`python -m calibration.verdict_cells` trains a network on each task, keeps what may predict the loss of a design that lacks some of "
        "its parts, and retrains all designs; `python -m calibration.verdict_page` writes this page.",
        "",
        f"{len(tasks)} tasks ({', '.join(tasks)}), {len({network for _, network in trained})} networks, {len(trained)} of their pairs, each "
        f"at two budgets: {len(rows)} designs, {needed} of which lose more than {MARGIN:g} Dice when they are retrained with three seeds. "
        "Every number below is of tasks that the fit has not seen: each is left out in turn, and all weigh the same.",
        "",
        f"- *Ranks*: Spearman's correlation of the prediction with the retrained loss, within a network and budget.\n- *Covered*: losses that "
        f"lie in the {LEVEL:.0%} interval.\n- *Right*, *wrong*: decided so, against the mean loss of the retrainings and a margin of "
        f"{MARGIN:g}; the rest is undecided.\n- *Cost*: trainings for all designs of a network, beside its own.",
        "",
        "| predicted by | ranks | covered | width | right | wrong | undecided | cost |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(each, of_each) for each in table),
        "",
        "## The design that is chosen",
        "",
        "The smallest design whose whole interval lies under the margin, or the whole network. *Regret*: the Dice of the best design, the whole "
        "network among them, less that of the chosen one, as retrained.",
        "",
        "| predicted by | mean regret | largest | left out of the network |",
        "|---|---|---|---|",
        *(_choice(rows, each) for each in SETS),
    ]


def _line(each: Judged, designs: float) -> str:
    share = max((COST.get(name, 0.0) for name in each.predictors), default=0.0)
    cost = "—" if share == 0 else f"{share * (designs + 1):.2f}"
    undecided = 1 - each.right - each.wrong
    return (
        f"| {', '.join(each.predictors)} | {_number(each.ranks)} | {each.covered:.0%} | {each.width:.3f} | {each.right:.0%} | "
        f"{each.wrong:.1%} | {undecided:.0%} | {cost} |"
    )


def _number(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.2f}"


def _choice(rows: Sequence[Row], predictors: Sequence[str]) -> str:
    """How the chosen designs do: their regret, and in how many networks something is left out."""
    by_cell: dict[tuple[str, str, int], list[tuple[Row, bool]]] = {}
    for row, predicted in left_out_tasks(rows, predictors):
        by_cell.setdefault(row.cell, []).append((row, predicted.answer == "redundant"))
    regrets, smaller = [], 0
    for of_cell in by_cell.values():
        chosen = [row for row, is_redundant in of_cell if is_redundant]
        smallest = min(chosen, key=lambda row: size_of(row.design), default=None)
        loss = 0.0 if smallest is None else smallest.loss
        smaller += smallest is not None
        regrets.append(loss - min(0.0, *(row.loss for row, _ in of_cell)))
    return f"| {', '.join(predictors)} | {np.mean(regrets):.3f} | {max(regrets):.3f} | {smaller} of {len(by_cell)} |"


def size_of(design: str) -> tuple[int, int]:
    """A key by which designs are ordered from small to large: shallower ones first, then those with fewer skips.

    >>> sorted(["without-skip1", "depth2", "no-skips", "depth1-without-skip1", "model3"], key=size_of)
    ['depth1-without-skip1', 'depth2', 'no-skips', 'model3', 'without-skip1']
    """
    depth = int(design.removeprefix("depth").partition("-")[0]) if design.startswith("depth") else 99
    without = (
        99 if design == "no-skips" else int(design[5:]) - 1 if design.startswith("model") else design.count("skip")
    )
    return depth, -without


if __name__ == "__main__":
    main()
