"""What `unetscope verdict --effort` says of single parts, and which design it leaves, on tasks that its lines have not seen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from calibration.verdict_cells import EFFORT
from calibration.verdict_fit import LEAST, MARGIN, MEAN, Predicted, Row, names_of
from unetscope.analysis import BEYOND, ExpectedLosses, LossLine
from unetscope.analysis.loss_verdicts import expected_losses
from unetscope.base import without_nan
from unetscope.base.files import whole_file
from unetscope.runs.kept_evidence import evidence_of
from unetscope.runs.kept_silenced import silenced_of
from unetscope.table import (
    PROBED,
    SILENCED,
    TRAINED_ON,
    Decision,
    Evidence,
    Interval,
    Silenced,
    Variant,
    decided_loss,
    named_variants,
)

AT_ONCE: Final = f"{PROBED}{LEAST}{SILENCED}"
"""What is known before anything is trained."""
BOTH: Final = f"{TRAINED_ON}{MEAN}{AT_ONCE}"
USED: Final = (BOTH, TRAINED_ON, AT_ONCE, SILENCED)
"""The predictors of which the package has lines, the surest first."""


@dataclass(frozen=True)
class Effort:
    """What the command finds of a network at a budget, and what the network loses at once.

    probed: the Dice that probes lose without what a design lacks, by its name.
    """

    task: str
    network: str
    budget: int
    evidence: Evidence
    silenced: tuple[Silenced, ...]
    probed: Mapping[str, float] = field(default_factory=dict)

    @property
    def cell(self) -> tuple[str, str, int]:
        """As that of `Row`."""
        return self.task, self.network, self.budget

    @property
    def trainings(self) -> float:
        """What was spent, in trainings of the network."""
        return self.evidence.networks * self.evidence.epochs / self.budget

    def losses(self, lines: Sequence[LossLine], more_error: float = 0.0) -> ExpectedLosses:
        """What designs are expected to lose by these lines. more_error: what the run adds to half of an interval."""
        of_run = {"depth": self.evidence.depth, "without": self.evidence.without}

        def probed(design: Variant, _epoch: int) -> float:
            return self.probed.get(design.name, math.nan)

        of_lines = {"lines": lines, "more_error": {self.budget: more_error}}
        losses = expected_losses(self.silenced, self.evidence, **of_run, margin=MARGIN, probed=probed, **of_lines)
        return losses[self.budget]

    def design(self, name: str) -> Variant:
        """A design by its name."""
        evidence = self.evidence
        return named_variants([name], depth=evidence.depth, without=evidence.without)[1]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        of_cell = {"task": self.task, "network": self.network, "budget": self.budget}
        silenced = [row.as_dict() for row in self.silenced]
        return {**of_cell, "evidence": self.evidence.as_dict(), "silenced": silenced, "probed": dict(self.probed)}


def effort_of(values: Mapping[str, Any], task: str, network: str, budget: int) -> Effort:
    """An effort from plain values."""
    probed = {name: lost for name, lost in values.get("probed", {}).items() if lost is not None}
    return Effort(task, network, budget, evidence_of(values["evidence"]), silenced_of(values["silenced"]), probed)


def kept_efforts(path: Path) -> list[Effort]:
    """Those of earlier cells; none without the file."""
    if not path.exists():
        return []
    kept = json.loads(path.read_text(encoding="utf-8"))
    return [effort_of(values, values["task"], values["network"], values["budget"]) for values in kept]


def keep_efforts(efforts: Iterable[Effort], path: Path) -> None:
    """Keep them for the next time."""
    values = without_nan([each.as_dict() for each in efforts])
    with whole_file(path) as beside:
        beside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def efforts_of(kept: Mapping[str, Any], task: str, network: str) -> list[Effort]:
    """Those of a cell, of what `verdict_cells` keeps of it."""
    return [
        effort_of({**kept[name], "probed": kept.get("probed", {}).get(budget, {})}, task, network, int(budget))
        for budget in kept["losses"]["budgets"]
        if (name := f"effort-{budget}") in kept
    ]


@dataclass(frozen=True)
class CommandVerdict:
    """What the command says of a retrained design. loss: None if it expects none. proven: whether a network shows it. tried:
    whether one without it was trained on.
    """

    row: Row
    loss: Interval | None
    decision: Decision
    proven: bool
    tried: bool

    @property
    def shown(self) -> bool:
        """Whether it is redundant by a network that was trained on: itself, or one that has no part more."""
        return self.decision == "redundant" and (self.tried or self.proven)


def proposed(commanded: Sequence[CommandVerdict]) -> list[tuple[Row, Decision]]:
    """Of every design, what the command says of it as one to propose: no other where one that was trained on is redundant."""
    shown = {each.row.cell for each in commanded if each.shown}
    return [
        (each.row, each.decision if each.shown or each.row.cell not in shown else "undecided") for each in commanded
    ]


def command_verdicts(
    rows: Sequence[Row], efforts: Sequence[Effort], lines: Mapping[str, Sequence[LossLine]]
) -> list[CommandVerdict]:
    """What the command says of every retrained design of the cells in which it was tried, the surest first.

    lines: by task, those of the other tasks.
    """
    by_cell = {each.cell: each for each in efforts}
    losses = losses_by_cell(rows, efforts, lines)
    verdicts = []
    for row in rows:
        if row.cell in by_cell:
            design = by_cell[row.cell].design(row.design)
            expected = losses[row.cell].of(design)
            decision = losses[row.cell].decision(design)
            if expected is None:
                verdicts.append(CommandVerdict(row, None, decision, proven=False, tried=False))
            else:
                proven, tried = expected.proof is not None, TRAINED_ON in expected.known
                verdicts.append(CommandVerdict(row, expected.loss, decision, proven, tried))
    return sorted(verdicts, key=lambda each: (not each.proven, math.inf if each.loss is None else each.loss.high))


def losses_by_cell(
    rows: Sequence[Row], efforts: Sequence[Effort], lines: Mapping[str, Sequence[LossLine]]
) -> dict[tuple[str, str, int], ExpectedLosses]:
    """What the command expects of all designs, by lines of the other tasks; those that the package has are used."""
    used = {
        task: [line for name in USED for line in some if line.predictors == names_of(name)]
        for task, some in lines.items()
    }
    more_error = {row.cell: BEYOND * row.error_of_run for row in rows}
    return {
        each.cell: each.losses(used[each.task], more_error[each.cell]) for each in efforts if each.cell in more_error
    }


def never_retrained(rows: Sequence[Row], efforts: Sequence[Effort], lines: Mapping[str, Sequence[LossLine]]) -> int:
    """Of how many cells the command proposes a design that nobody retrained."""
    retrained = {(*row.cell, row.design) for row in rows}
    smallest = ((cell, losses.smallest()) for cell, losses in losses_by_cell(rows, efforts, lines).items())
    return sum(design is not None and (*cell, design.name) not in retrained for cell, design in smallest)


def decided_parts(
    predictions: Mapping[str, Predicted], commanded: Sequence[CommandVerdict], efforts: Sequence[Effort]
) -> Iterator[str]:
    """How verdicts do on single parts, a line for each kind of verdict."""

    def surest(*names: str) -> list[tuple[Row, Decision]]:
        by_place = {(*row.cell, row.design): (row, loss) for name in names for row, loss in predictions.get(name, ())}
        return [(row, decided_loss(loss, MARGIN)) for row, loss in by_place.values()]

    at_once, trained_on = surest(SILENCED, AT_ONCE), surest(TRAINED_ON, BOTH)
    verdicts: dict[str, list[tuple[Row, Decision]]] = {
        "always redundant": [(row, "redundant") for row, _ in at_once],
        "bits": [(row, row.by_bits) for row, _ in at_once],
        "at once": at_once,
        "all trained on": [(row, "redundant" if row.most < MARGIN else decision) for row, decision in trained_on],
    }
    for budget in sorted({each.budget for each in efforts}):
        spent = [each.trainings for each in efforts if each.budget == budget]
        name = f"effort of {EFFORT:g}, {budget} epochs ({sum(spent) / len(spent):.2f} trainings)"
        verdicts[name] = [(each.row, each.decision) for each in commanded if each.row.budget == budget]
    for name, decided in verdicts.items():
        yield _counted(name, [(row, decision) for row, decision in decided if is_single(row.design)])


def _counted(name: str, decided: Sequence[tuple[Row, Decision]]) -> str:
    parts = len(decided)
    right = sum(decision == row.truth for row, decision in decided)
    of_needed = [decision for row, decision in decided if row.truth == "needed"]
    wrongly_needed = sum(decision == "needed" for row, decision in decided if row.truth == "redundant")
    undecided = sum(decision == "undecided" for _, decision in decided)
    settled = [(row.retrained, decision) for row, decision in decided if row.retrained != "undecided"]
    agreeing = sum(decision == retrained for retrained, decision in settled)
    against = sum(set(each) == {"needed", "redundant"} for each in settled)
    found, missed = of_needed.count("needed"), of_needed.count("redundant")
    return (
        f"| {name} | {parts} | {right / parts:.0%} | {missed / parts:.1%} | {wrongly_needed / parts:.1%} | "
        f"{undecided / parts:.0%} | {found} found, {missed} missed of {len(of_needed)} | "
        f"{agreeing} right, {against} wrong of {len(settled)} |"
    )


def is_single(design: str) -> bool:
    """Whether a design lacks one skip, or the levels from one on.

    >>> [is_single(name) for name in ("without-skip1", "depth2", "no-skips", "depth2-without-skip1", "without-skip1-skip2")]
    [True, True, False, False, False]
    """
    return design.count("-") == 1 if design.startswith("without") else design.startswith("depth") and "-" not in design


def decided_by_cell(decided: Iterable[tuple[Row, Decision]]) -> list[list[tuple[Row, Decision]]]:
    """The designs of each cell, with what is said of them."""
    cells: dict[tuple[str, str, int], list[tuple[Row, Decision]]] = {}
    for row, decision in decided:
        cells.setdefault(row.cell, []).append((row, decision))
    return list(cells.values())


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
