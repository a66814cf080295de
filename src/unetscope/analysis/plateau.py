"""The paper's rule: a skip is redundant once I(Y;M) of the merge below it has reached H(Y)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from unetscope.analysis.gains import output_information
from unetscope.table import Decision, Estimate, Flow, Part, Quantity, Skip, Status, Verdict, estimator_text


def plateau_verdicts(flow: Flow, skips: Sequence[Skip], epochs: Sequence[int]) -> list[Verdict]:
    """The verdicts on all skips but the deepest, from the top down, at every epoch at which there is I(Y;M) of a merge.

    Of I(Y;M), the estimator, resolution and labels that were measured first.
    """
    of_label = flow.select(quantity=Quantity.LABEL)
    if not of_label.estimates:
        return []
    of_label = of_label.narrowed(estimator=None, resolution=None, labels=None)
    first = of_label.estimates[0]
    unlearnt = {epoch: why for epoch, (_, why) in output_information(flow, epochs).items()}
    label_rows = {(row.epoch, row.layer): row for row in of_label.estimates}
    of_input = flow.select(quantity=Quantity.INPUT, estimator=first.estimator, resolution=first.resolution)
    input_rows = {(row.epoch, row.layer): row for row in of_input.estimates}
    return [
        _by_the_merge_below(
            skip.part, label_rows[epoch, below.merge], input_rows.get((epoch, below.merge)), unlearnt[epoch]
        )
        for epoch in epochs
        for skip, below in pairwise(skips)
        if (epoch, below.merge) in label_rows
    ]


def _by_the_merge_below(part: Part, row: Estimate, of_input: Estimate | None, unlearnt: str) -> Verdict:
    verdict = Verdict(
        part, row.epoch, "plateau", "undecided", row.bits, row.low, row.high, row.ceiling, estimator=row.estimator
    )
    how = f"{estimator_text(row.estimator, row.resolution)}, {row.labels}"
    if unlearnt or row.status is Status.ABSENT:
        unknown = f"I(Y;M) of layer {row.layer} below is not known ({how}): {row.reason}"
        return replace(verdict, text=unlearnt or unknown)
    tells = f"layer {row.layer} below tells {row.bits:.2f} of {row.ceiling:.2f} bits of the label ({how})"
    if row.out_of_domain:  # saturated or not: a ceiling that shuffled labels reach decides nothing
        return replace(verdict, text=f"{tells}, {row.reason}")
    if row.status is Status.SATURATED:
        images_differ = of_input is not None and of_input.status in {Status.OK, Status.OUT_OF_DOMAIN}
        decision: Decision = "redundant" if images_differ else "undecided"
        why = "all there is to tell" if images_differ else "as would any layer that tells all images apart"
    elif math.isnan(row.high):
        decision, why = "undecided", row.reason or "and it has no interval"
    elif row.high >= row.ceiling:
        decision, why = "undecided", f"perhaps all ({row.low:.2f} to {row.high:.2f})"
    else:
        decision, why = "needed", "not all there is to tell"
    return replace(verdict, decision=decision, text=f"{tells}, {why}")
