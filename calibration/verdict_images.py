"""How expected losses hold where a run has few validation images: on samples of those of the cells."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from calibration.verdict_fit import MARGIN, Predicted, Row
from unetscope.analysis import error_over_images, mean_step
from unetscope.analysis.trainings import SCORED_SHARE
from unetscope.base import without_nan
from unetscope.base.files import whole_file
from unetscope.runs.folder import RunFolder
from unetscope.table import EpochRecord, Interval

COUNTS: Final = (48, 24, 12, 6)  # of validation images
SAMPLES: Final = 100  # of the images of a cell, for each design
DIGITS: Final = 4


@dataclass(frozen=True)
class CellImages:
    """Of every validation image of a cell, NaN for one without a label.

    dice: of the run, by epoch, those that its score is of and the one before. losses: by design, as the mean over seeds of the
    Dice of the whole network less that of the design, both retrained and scored over the last tenth of their epochs.
    """

    task: str
    network: str
    budget: int
    dice: Mapping[int, Sequence[float]]
    losses: Mapping[str, Sequence[float]]

    @property
    def cell(self) -> tuple[str, str, int]:
        """As that of `Row`."""
        return self.task, self.network, self.budget

    @property
    def step(self) -> float:
        """By how much the mean Dice of the run jumps from one epoch to the next."""
        records = [
            EpochRecord(epoch, 0.0, 0.0, 0.0, float(np.nanmean(dice)), 0.0) for epoch, dice in sorted(self.dice.items())
        ]
        return mean_step(records, self.budget)


def with_steps(rows: Sequence[Row], cells: Sequence[CellImages]) -> list[Row]:
    """Rows with how much the Dice of their runs jumps."""
    steps = {each.cell: each.step for each in cells}
    return [replace(row, step=steps.get(row.cell, row.step)) for row in rows]


def images_of(cell: Path, task: str, network: str, budgets: Iterable[int]) -> Iterator[CellImages]:
    """Those of a cell in its folder, at each budget."""
    run = _dice(cell / "run")
    trained = {
        design: {path.name: _dice(path) for path in sorted(design_folder.glob("seed-*"))}
        for design_folder in sorted((cell / "run" / "verification").iterdir())
        if design_folder.is_dir()
        for design in [design_folder.name]
    }
    whole = trained.pop("model1")
    for budget in budgets:
        scored = range(budget - max(1, budget // SCORED_SHARE) + 1, budget + 1)
        losses = {}
        for design, by_seed in trained.items():
            pairs = [
                np.mean([np.subtract(whole[seed][epoch], dice[epoch]) for epoch in scored], axis=0)
                for seed, dice in by_seed.items()
                if seed in whole and all(epoch in dice and epoch in whole[seed] for epoch in scored)
            ]
            if pairs:
                losses[design] = _rounded(np.mean(pairs, axis=0))
        dice = {epoch: _rounded(run[epoch]) for epoch in (scored[0] - 1, *scored) if epoch in run}
        yield CellImages(task, network, budget, dice, losses)


def _dice(run: Path) -> dict[int, tuple[float, ...]]:
    """By epoch, the Dice of every validation image of a run, or of a retraining."""
    return {record.epoch: record.dice_per_image for record in RunFolder.open(run).epochs() if record.dice_per_image}


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), DIGITS) for value in values]


def keep_images(cells: Iterable[CellImages], path: Path) -> None:
    """Keep them for the next time."""
    with whole_file(path) as beside:
        beside.write_text(json.dumps(without_nan([asdict(each) for each in cells])) + "\n", encoding="utf-8")


def kept_images(path: Path) -> list[CellImages]:
    """Those of earlier cells; none without the file."""
    if not path.exists():
        return []

    def known(values: Mapping[str, Sequence[float | None]]) -> dict[str, list[float]]:
        return {name: [math.nan if value is None else value for value in of] for name, of in values.items()}

    return [
        CellImages(
            each["task"],
            each["network"],
            each["budget"],
            {int(epoch): dice for epoch, dice in known(each["dice"]).items()},
            known(each["losses"]),
        )
        for each in json.loads(path.read_text(encoding="utf-8"))
    ]


def of_few_images(losses: Predicted, cells: Sequence[CellImages], real: Sequence[str]) -> Iterator[str]:
    """The rows of a table: of so many images, how often intervals hold the mean loss over them and lie under the margin.

    Of both without what few images add, and with it.

    losses: what designs are expected to lose. real: the tasks of photographs; the others are drawn.
    """
    by_cell = {each.cell: each for each in cells}
    for kind, is_real in (("drawn", False), ("photographs", True)):
        of_kind = [
            (by_cell[row.cell], row.design, expected)
            for row, expected in losses
            if row.cell in by_cell and row.design in by_cell[row.cell].losses and (row.task in real) == is_real
        ]
        for count in COUNTS:
            tried = [each for of_design in of_kind for each in _sampled(*of_design, count)]
            if tried:
                columns = np.mean(np.array(tried, dtype=float), axis=0)
                yield f"| {kind} | {count} | {' | '.join(f'{share:.0%}' for share in columns)} |"


def _sampled(cell: CellImages, design: str, expected: Interval, count: int) -> Iterator[tuple[bool, bool, bool, bool]]:
    """Of samples of so many images: whether the interval holds their mean loss, without and with what few images add, and
    whether it lies under the margin.
    """
    of_images, dice = np.asarray(cell.losses[design]), {epoch: np.asarray(of) for epoch, of in cell.dice.items()}
    labelled = np.flatnonzero(np.isfinite(of_images))
    random = np.random.default_rng(count)
    for _ in range(SAMPLES if len(labelled) > count else 0):
        sample = random.choice(labelled, count, replace=False)
        records = [
            EpochRecord(epoch, 0.0, 0.0, 0.0, 0.0, 0.0, dice_per_image=tuple(of[sample])) for epoch, of in dice.items()
        ]
        more = error_over_images(records, cell.budget)
        loss = of_images[sample].mean()
        wider = Interval(
            expected.value,
            expected.value - math.hypot(expected.value - expected.low, more),
            expected.value + math.hypot(expected.high - expected.value, more),
        )
        yield (
            expected.low <= loss <= expected.high,
            wider.low <= loss <= wider.high,
            expected.high < MARGIN,
            wider.high < MARGIN,
        )
