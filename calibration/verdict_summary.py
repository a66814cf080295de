"""The first lines of docs/verdicts.md: how often the command's verdicts are right, and how sure its intervals are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from calibration.verdict_cells import EFFORT
from calibration.verdict_effort import CommandVerdict, Effort, is_single
from calibration.verdict_fit import LEVEL, MARGIN, is_covered

DRAWS: Final = 2000  # of tasks, with replacement
Of = Callable[[CommandVerdict], float]


def in_short(
    commanded: Sequence[CommandVerdict], efforts: Sequence[Effort], regret: float, missing: int
) -> Iterator[str]:
    """The lines. regret: the mean over cells of what the proposed design loses more than the best. missing: how many proposed
    designs nobody has retrained.
    """
    parts = [each for each in commanded if is_single(each.row.design)]
    expected = [each for each in commanded if each.loss is not None]
    if not parts or not expected:
        return
    wrong = [each for each in parts if each.decision not in ("undecided", each.row.truth)]
    needed = [each for each in parts if each.row.truth == "needed"]
    as_needed, as_redundant = (
        sum(each.decision == decision for each in needed) for decision in ("needed", "redundant")
    )
    cost = sum(each.trainings for each in efforts) / len(efforts)
    yield (
        f"How right are the verdicts of `unetscope verdict RUN --effort {EFFORT:g}`, on tasks that its numbers were not fitted "
        "on? Each part alone, a skip, or a level with all below it, against the mean of the retrainings and a margin of "
        f"{MARGIN:g} Dice:"
    )
    yield from ("", "| | goal | reached | of other tasks |", "|---|---|---|---|")
    rows: tuple[tuple[str, str, Sequence[CommandVerdict], Of], ...] = (
        (
            "parts decided rightly; undecided is not right",
            "80 % or more",
            parts,
            lambda each: each.decision == each.row.truth,
        ),
        ("parts decided wrongly", "3 % or less", parts, lambda each: each in wrong),
        (f"mean retrained losses within the {LEVEL:.0%} interval", "85 to 95 %", expected, _holds),
        ("the same, as far as the retrainings tell", "85 to 95 %", expected, _covers),
    )
    for title, goal, verdicts, of in rows:
        low, high = _of_other_tasks(verdicts, of)
        share = np.mean([of(each) for each in verdicts])
        yield f"| {title} | {goal} | {share:.1%} of {len(verdicts)} | {low:.0%} to {high:.0%} |"
    yield f"| trainings for all parts of a network | 0.3 or less | {cost:.2f} | |"
    yield f"| Dice of the best design less that of the proposed one, mean | 0.01 or less | {regret:.3f} | |"
    named = "; ".join(
        f"{row.design} of {row.task}, {row.network}, {row.budget} epochs" for row in (each.row for each in wrong)
    )
    yield from (
        "",
        f"*Of other tasks*: 90 % of the shares in {DRAWS:,} draws of the tasks, with replacement. To call all parts redundant "
        f"is right in {1 - len(needed) / len(parts):.0%}; of the {len(needed)} needed ones, the command finds {as_needed} and "
        f"calls {as_redundant} redundant. Decided wrongly: {named or 'none'}. The cost is beside that of measuring the run. Of "
        f"{len(efforts)} proposed designs {missing} were not retrained; there the regret is of the best proposal that was.",
        "",
    )


def _holds(each: CommandVerdict) -> float:
    return each.loss is not None and each.loss.low <= each.row.loss <= each.loss.high


def _covers(each: CommandVerdict) -> float:
    return each.loss is not None and is_covered(each.loss, each.row)


def _of_other_tasks(verdicts: Sequence[CommandVerdict], of: Of) -> tuple[float, float]:
    """The 5th and 95th percentile of a share over draws of tasks."""
    tasks = sorted({each.row.task for each in verdicts})
    counts = np.array(
        [[len(by), sum(map(of, by))] for task in tasks for by in [[v for v in verdicts if v.row.task == task]]]
    )
    drawn = counts[np.random.default_rng(0).integers(len(tasks), size=(DRAWS, len(tasks)))].sum(axis=1)
    low, high = np.percentile(drawn[:, 1] / drawn[:, 0], (5, 95))
    return float(low), float(high)
