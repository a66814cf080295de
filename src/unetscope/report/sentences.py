"""The sentences of the page: the summary of a run, the limits of its numbers, and what its verdicts propose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from unetscope.analysis import Judgement, Verification, dpi_violations, layer_rank_stability
from unetscope.runs import AnalysedRun
from unetscope.table import LEVEL, SKIP, Flow, Quantity, Status, Variant, entry_of, estimator_text, settings

MOST_RESOLUTIONS = 3  # of an estimator, of each of which there are figures; of more, a sweep
UNLEARNT = "It has not learnt to segment: what is measured is not the information of a trained network."
MOST_NAMED = 6  # skips and levels of a clause that are named; more are counted


def summary(run: AnalysedRun) -> str:
    """The run in two sentences."""
    flow, records = run.flow, run.epochs
    if not flow.epochs:
        return "This run has not been measured yet."
    if not records:
        return f"Measured at epochs {', '.join(map(str, flow.epochs))}."
    last = records[-1]
    left = run.epochs_left
    unfinished = f" of {last.epoch + left} (the run is not finished)" if left else ""
    sentence = (
        f"After {last.epoch} epochs{unfinished} the network reaches a validation Dice of {last.validation_dice:.3f}."
    )
    if not run.has_learnt:
        sentence += f" {UNLEARNT}"
    inputs = flow.select(quantity=Quantity.INPUT, epoch=flow.epochs[-1])
    if not inputs.series:
        return sentence
    series = inputs.series[0]
    finite = [row for row in series.estimates.values() if row.status is not Status.ABSENT]
    saturated = sum(row.status is Status.SATURATED for row in finite)
    if not finite:
        return sentence
    lowest = min(finite, key=lambda row: row.bits)
    return (
        f"{sentence} By {series.key.text}, I(X;M) is lowest at layer {lowest.layer}: "
        f"{lowest.bits:.1f} of at most {lowest.ceiling:.1f} bits. {saturated} of {len(finite)} recorded tensors are at the "
        "ceiling, where they cannot be ranked."
    )


def notes(flow: Flow) -> list[str]:
    """The limits of the numbers that a reader of the figures must know."""
    sentences = []
    rows = [row for row in flow.estimates if row.quantity == Quantity.LABEL]
    for labels in flow.labels:
        chosen = [row for row in rows if row.labels == labels]
        reasons = Counter(
            Status.OUT_OF_DOMAIN if row.out_of_domain else row.reason.partition(":")[0] for row in chosen if row.reason
        )
        counted = "".join(
            f"; {reason} ({count} of {len(chosen)} estimates)" for reason, count in sorted(reasons.items())
        )
        alone = chosen[0].singleton_share
        few = f"; {alone:.0%} of the images are alone in their cluster, so telling it is telling the image" * (
            alone > 0.05
        )
        sentences.append(f"{labels}: H(Y) = {chosen[0].ceiling:.2f} bits{few}{counted}.")
    inputs, sweeps = flow.select(quantity=Quantity.INPUT), swept_estimators(flow)
    resolutions = Counter(series.key.estimator for series in inputs.series)
    for key in (series.key for series in inputs.series):
        if key.estimator not in sweeps and resolutions[key.estimator] == 1:
            sentences += _notes_of_series(inputs, key.estimator, key.resolution)
    return sentences + [layer_rank_stability(flow, estimator=estimator).text for estimator in sweeps]


def _notes_of_series(inputs: Flow, estimator: str, resolution: float) -> list[str]:
    """The number of layers out of the estimator's domain at the last epoch, and violations of data processing."""
    rows = inputs.select(estimator=estimator, resolution=resolution, epoch=inputs.epochs[-1]).estimates
    beyond = [row for row in rows if row.out_of_domain]
    sentences = []
    if beyond:
        numbered = any(math.isfinite(row.bits) for row in beyond)
        meant = f"their numbers describe these {rows[0].n} images, not ever more of them" if numbered else "no number"
        sentences.append(
            f"{estimator_text(estimator, resolution)}: {len(beyond)} of {len(rows)} tensors are out of its domain at epoch "
            f"{inputs.epochs[-1]}: {meant}."
        )
    if entry_of(estimator).shannon:
        check = dpi_violations(inputs, estimator=estimator, resolution=resolution)
        sentences += [check.text] if check.violations else []
    return sentences


def swept_estimators(flow: Flow) -> dict[str, float]:
    """The estimators with so many resolutions that a figure of each would be too many, and the one that is shown alone."""
    defaults = {size for setting in settings() if not isinstance(setting.default, bool) for size in setting.default}
    resolutions: dict[str, list[float]] = {}
    for key in (series.key for series in flow.series):
        if key.quantity is Quantity.INPUT:
            resolutions.setdefault(key.estimator, []).append(key.resolution)
    return {
        estimator: next((size for size in sizes if size in defaults), sizes[0])
        for estimator, sizes in resolutions.items()
        if len(sizes) > MOST_RESOLUTIONS
    }


def sentence(judgement: Judgement, epoch: int) -> str:
    """The parts that a training of this many epochs needs, as the sentence at the top of the page.

    >>> from unetscope.table import Part, Verdict
    >>> verdicts = tuple(Verdict(Part.named(part), 10, "conditional", what) for part, what in
    ...                  (("skip1", "needed"), ("level1", "undecided"), ("level2", "redundant"), ("skip3", "redundant")))
    >>> sentence(Judgement(verdicts, 3, (), 0.05, {10: {}}), 10)
    'A training of 10 epochs needs skip1, could do without level2 (all below skip2), and leaves level1 undecided.'
    """
    parts: dict[str, list[str]] = {"needed": [], "redundant": [], "undecided": []}
    judged = {verdict.part: verdict for verdict in judgement.deciding(epoch)}
    redundant_levels = [part for part in judged if part.kind is LEVEL and judged[part].decision == "redundant"]
    spared = min(redundant_levels, default=None)  # the levels below it are removed with it
    for part, verdict in judged.items():
        if verdict.decision != "redundant" or spared is None or part.depth <= spared.depth:
            below = f" (all below {part.beside(SKIP)})" * (part == spared)
            parts[verdict.decision].append(f"{part}{below}")
    if len(parts["undecided"]) == len(judged):
        return f"Of {len(judged)} skips and levels, nothing is decided for a training of {epoch} epochs."
    clauses = [
        f"{verb} {_named_or_counted(parts[decision])}"
        for decision, verb in (("needed", "needs"), ("redundant", "could do without"), ("undecided", "leaves"))
        if parts[decision]
    ]
    if parts["undecided"]:
        clauses[-1] += " undecided"
    return f"A training of {epoch} epochs {listed(clauses, oxford=True)}."


def proposal(judgement: Judgement, design: Variant, epoch: int, verification: Verification | None) -> str:
    """A proposed design, with what it is expected to lose, and what it lost where it was retrained for so many epochs."""
    expected = judgement.expected(design, epoch)
    words = design.text if expected is None else f"{design.text}, expected to lose {expected.loss.text} Dice"
    retrained = () if verification is None or epoch not in verification.budgets else verification.variants
    if verification is not None and (same := next(filter(design.is_same_network, retrained), None)):
        outcome = verification.outcome(same.name, epoch)
        return f"{words}; retrained, {outcome.text}, so it is {outcome.decision}"
    return f"{words}, to be retrained before it is believed"


def _named_or_counted(parts: Sequence[str]) -> str:
    return listed(parts) if len(parts) <= MOST_NAMED else f"{len(parts)} skips and levels"


def listed(words: Sequence[str], *, oxford: bool = False) -> str:
    """Words joined by commas and "and".

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    comma = "," * (oxford and len(words) > 2)
    return f"{', '.join(words[:-1])}{comma} and {words[-1]}" if len(words) > 1 else "".join(words)
