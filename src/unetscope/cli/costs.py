"""What the designs of a run cost: measured where that is missing, and printed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from unetscope.base import Progress
from unetscope.cli.terminal import one_line, print_table
from unetscope.table import COST_TITLES, REFERENCE

if TYPE_CHECKING:
    from unetscope.analysis import Verification
    from unetscope.runs import AnalysedRun


def measure_missing_costs(run: AnalysedRun, progress: Progress) -> None:
    """Measure what designs of a run cost where that is not known yet and its code may run; warn of what cannot be."""
    from unetscope.runs import may_run_code

    if not (missing := [design for design in run.designs if run.costs.of(design) is None]):
        return
    if not may_run_code(run.folder):
        progress.warn("what designs cost is not known: the run names code that you have not run on this machine")
        return
    from unetscope.runs import keep_costs

    progress.stage("costs", len(missing))
    for name, reason in keep_costs(run.folder, missing).items():
        progress.warn(f"what {name} costs is not known: {one_line(reason)}")


def print_costs(run: AnalysedRun, verification: Verification) -> None:
    """Every design with its loss of Dice, if it was retrained, and its costs, below those of the whole network."""
    if not (known := run.design_costs):
        return
    lost = {row.variant.name: -row.outcome.difference.value for row in verification.rows()}
    rows = []
    for design, saved in known:
        is_whole = design.name == REFERENCE
        texts = saved.whole.cells() if is_whole else saved.cells()
        loss = lost.get(design.name)
        dice = "" if is_whole else "not retrained" if loss is None else _lost(loss)
        rows.append((design.name, dice, *texts))
    image = "×".join(map(str, run.costs.shape))
    heads = [about.short for about in COST_TITLES.values()]
    print_table(f"What designs cost, of one image of {image}", ("design", "Dice lost", *heads), rows)


def _lost(loss: float) -> str:
    """A loss of Dice, if both networks had one to compare."""
    return "not compared" if math.isnan(loss) else f"{loss:z.3f}"
