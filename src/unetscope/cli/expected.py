"""What retraining will take, before it begins: trainings, time, and how narrow the intervals will be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unetscope.cli.terminal import print_json, print_pairs

if TYPE_CHECKING:
    from unetscope.runs import ExpectedWidth, Trial


def print_expected(
    planned: Sequence[Trial], seconds: float, widths: Sequence[ExpectedWidth], *, margin: float, json: bool
) -> None:
    """What retraining will take, and how narrow the intervals will be."""
    from unetscope.analysis import FEWEST_SEEDS

    if json:
        intervals = [width.as_dict() for width in widths]
        print_json({"jobs": [trial.name for trial in planned], "seconds": seconds, "intervals": intervals})
        return
    names = ", ".join(dict.fromkeys(trial.variant.name for trial in planned))
    auto, seeds = len(widths) > 1, len({trial.seed for trial in planned})
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    time = "not known before one has begun" if math.isnan(seconds) else time
    rows = [("jobs, at most" if auto else "jobs", str(len(planned))), ("variants, the reference among them", names)]
    rows.append(("seeds", "added until a variant is decided" if auto else str(seeds)))
    rows.append(("training, at most, roughly" if auto else "training, roughly", time))
    print_pairs("What retraining will take", rows)
    print_widths(widths, margin)
    if seeds < FEWEST_SEEDS:
        print("With one seed nothing is decided: what another would change is not known")


def print_widths(widths: Sequence[ExpectedWidth], margin: float) -> None:
    """How narrow the intervals will be, how many seeds the margin needs, and where that is known from."""
    width = widths[0]
    halves = ", ".join(
        f"±{each.half_width:.3f} with {each.seeds}" if math.isfinite(each.half_width) else f"none with {each.seeds}"
        for each in widths
    )
    needed = "more than 64" if width.seeds_for_margin is None else f"{width.seeds_for_margin}"
    print(f"Expected intervals of a difference of Dice, by seeds: {halves}")
    print(f"Seeds for an interval no wider than the margin of ±{margin:g}: {needed}")
    spread = f"a training's score varies by {width.residual:.2g} with its seed"
    if width.assumed:
        print(f"Assumed: {spread}; and the interval over images, not known yet, adds to it")
    else:
        print(f"From earlier trainings (degrees of freedom: {width.freedom:.0f}): {spread}")
