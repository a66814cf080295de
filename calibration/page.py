"""Write docs/estimators.md from the outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from calibration.figures import NAMES
from calibration.study import Outcome
from calibration.sweeps import Sweep

LEAST, MOST = 0.90, 0.99  # share of 95 % intervals that contain the true value
FEWEST_REJECTED, MOST_REJECTED = 0.03, 0.07
FEWEST = 30  # intervals or p-values for which a share is stated


def page(outcomes: Sequence[Outcome], sweeps: Sequence[Sweep], repetitions: int) -> str:
    """The whole page as Markdown."""
    groups = list(dict.fromkeys(outcome.case.group for outcome in outcomes))
    parts = [
        _head(repetitions),
        _coverage(outcomes),
        _nulls(outcomes),
        _skips(outcomes),
        _breaks(sweeps),
        _believe(outcomes),
    ]
    return "\n\n".join([*parts, "## All cases", _LEGEND, *(_group(outcomes, group) for group in groups)]) + "\n"


def _head(repetitions: int) -> str:
    return f"""# Estimators on known distributions

`make study` writes this page. It runs every estimator, {repetitions} times unless stated otherwise, on data whose information is known. Values are in bits, for masks in bits per pixel. An estimator is reliable where its 95 % intervals contain the true value in 90 to 99 % of the repetitions, and where p ≤ 0.05 occurs in 3 to 7 % of the repetitions without information. Outside its domain an estimate has no interval; its status is `out of domain`, with a reason.

The estimators estimate different quantities. For the mixture, the true value is the information of a layer with Gaussian noise; for the KDE bounds, their own limit for infinitely many images; for binning, the information of the cells; for KSG, that of the code; for probes, the information that the best probe of the family reads. The information of a trained network itself is infinite or constant (Goldfeld et al. 2019): all estimators measure how images cluster at a resolution, or what a probe can read."""


def _judged(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [
        outcome
        for outcome in outcomes
        if not math.isnan(outcome.coverage) and np.isfinite(outcome.low).sum() >= FEWEST and outcome.in_domain >= 0.5
    ]


def _coverage(outcomes: Sequence[Outcome]) -> str:
    judged = _judged(outcomes)
    within = [outcome for outcome in judged if LEAST <= outcome.coverage <= MOST]
    below = [outcome for outcome in judged if outcome.coverage < LEAST]
    above = [outcome for outcome in judged if outcome.coverage > MOST]
    sparse = [
        outcome
        for outcome in outcomes
        if not math.isnan(outcome.coverage) and 0 < outcome.in_domain < 0.5 and outcome.coverage < LEAST
        and np.isfinite(outcome.low).sum() >= 5
    ]  # fmt: skip
    refused = [outcome for outcome in outcomes if outcome.in_domain == 0 and not math.isnan(outcome.truth)]
    text = f"""## Intervals

Of {len(judged)} estimates that mostly have an interval (in at least half of {FEWEST} or more repetitions), {len(within)} intervals contain the true value in 90 to 99 % of the repetitions, {len(below)} in fewer, {len(above)} in more. {len(refused)} estimates never have an interval, and state the reason.

![Coverage](figures/calibration_coverage.png)"""
    if below:
        text += "\n\nCoverage below 90 %:\n\n" + "\n".join(
            f"- {_where(outcome)}: {outcome.coverage:.0%}" for outcome in below
        )
    if sparse:
        text += "\n\nCoverage below 90 %, where most repetitions are out of domain:\n\n" + "\n".join(
            f"- {_where(outcome)}: {outcome.coverage:.0%} of the {outcome.in_domain:.0%} that have one"
            for outcome in sparse
        )
    if above:
        text += (
            f"\n\n{len(above)} intervals cover the true value in more than 99 %: they are valid but wider than necessary. Without "
            "information, with equally likely clusters or with fully determined labels, the information is at an end of its range, and "
            "its variation is of second order. KSG's jackknife is too wide by construction. By group:\n\n"
        ) + "\n".join(
            f"- {group}: {sum(o.case.group == group for o in above)} of {sum(o.case.group == group for o in judged)}"
            for group in dict.fromkeys(o.case.group for o in above)
        )
    return text


def _where(outcome: Outcome) -> str:
    return f"{NAMES[outcome.of[0]][0]}, {outcome.of[1]}; {outcome.case.group}: {outcome.case.name}"


def _nulls(outcomes: Sequence[Outcome]) -> str:
    nulls = [
        outcome
        for outcome in outcomes
        if outcome.case.null and np.isfinite(outcome.p).sum() >= FEWEST
    ]  # fmt: skip
    estimators = list(dict.fromkeys(outcome.of[0] for outcome in nulls))
    cases = list(dict.fromkeys(outcome.case.name for outcome in nulls))
    by = {(outcome.case.name, outcome.of[0]): outcome for outcome in nulls}
    rows = [[name, *(f"{by[name, e].rejected:.1%}" if (name, e) in by else "" for e in estimators)] for name in cases]
    outside = [o for o in nulls if not FEWEST_REJECTED <= o.rejected <= MOST_REJECTED]
    counts = {len(outcome.p) for outcome in nulls}
    return f"""## Nulls

Share of repetitions with p ≤ 0.05 in cases without information ({", ".join(map(str, sorted(counts)))} repetitions; with 600 repetitions and a true rate of 5 %, 95 % of the shares lie within 3.3 to 6.8 %). {len(nulls) - len(outside)} of {len(nulls)} lie within 3 to 7 %.

""" + _table(["", *(NAMES[e][0] for e in estimators)], rows)


def _skips(outcomes: Sequence[Outcome]) -> str:
    planted = [outcome for outcome in outcomes if outcome.case.group.startswith("Planted skips")]
    lines = []
    for outcome in planted:
        name, estimator, quantity = outcome.case.name.split(", ")[0], NAMES[outcome.of[0]][0], outcome.of[1]
        if quantity not in {"I(Y;S|U)", "I_V(S→Y|U)"}:
            continue
        mean = _mean(outcome)
        if name == "skip redundant":
            lines.append(f"- {name}, {estimator}: {quantity} = {mean:.4f} bits of 0")
        elif name == "skip unique":
            lines.append(
                f"- {name}, {estimator}: {quantity} = {mean:.3f} of {outcome.truth:.3f} bits ({mean / outcome.truth - 1:+.1%})"
            )
        elif name == "skip exclusive or":
            none = ", none of which a linear probe can read" if outcome.truth == 0 else ""
            lines.append(f"- {name}, {estimator}: {quantity} = {mean:.3f} of 1 bit{none}")
    return f"""## Planted skips

Skips that add a known amount of information, in streams of 100,000 dimensions each (605 images, by distances), and in pixels (60 images to fit on and 60 to evaluate on, 20,480 dimensions each, by probes).

{chr(10).join(lines)}

![Planted skips](figures/calibration_skips.png)"""


def _mean(outcome: Outcome) -> float:
    finite = outcome.bits[np.isfinite(outcome.bits)]
    return float(finite.mean()) if len(finite) else math.nan


def _breaks(sweeps: Sequence[Sweep]) -> str:
    return f"""## Limits of each estimator

Means over {len(next(iter(sweeps[0].bits.values())))} repetitions of 605 images (probes: 40 images to evaluate on). Filled points are in their domain in most repetitions, hollow points are not; there the mixture has no value.

![Limits of each estimator](figures/calibration_breaks.png)

- **Gaussian channel.** 605 images carry at most log₂ 605 = 9.24 bits. The KDE bounds lie above and below the true value until they reach this limit; beyond it they carry no information. The mixture follows the true value up to the end of its domain.
- **Clusters.** KDE is too low, and out of domain, where a cluster has fewer than about ten images. The mixture is correct down to about five.
- **Random labels.** The finer the classes, the larger the plain estimate is by chance. The p-value and the domain show this; the value alone does not.
- **Normal codes.** Nearest neighbours underestimate more with every dimension.
- **Probes.** With many channels and few images, a probe reads less than the best probe; the extrapolation estimates by how much.
- **Rényi index.** It depends on the bandwidth. Only a kernel narrower than the gaps between clusters finds their entropy."""


def _believe(outcomes: Sequence[Outcome]) -> str:
    def spread(estimator: str) -> str:
        shares = [o.coverage for o in _judged(outcomes) if o.of[0] == estimator]
        if not shares:
            return "not repeated often enough"
        return f"{min(shares):.0%} to {max(shares):.0%}, {len(shares)} estimates"

    names = {
        "usable_linear": "**Linear probes** (usable information). For segmentation masks, pixel by pixel, at any width of layer. They are not limited by log₂ N, so they distinguish layers of trained networks. They do not count information that only another family of probes reads, such as an exclusive or. Compare layers by the paired interval of their difference.",
        "usable_convolutional": "**Convolutional probes.** They also read combinations of channels and neighbouring pixels, and have more to fit. Compare them with linear probes before you conclude that a skip is needed.",
        "mixture": "**Mixture.** The only estimator of the information of a noisy layer itself, not of a bound. It is reliable wherever it gives a value. It leaves its domain early and costs more than KDE.",
        "kde_upper": "**KDE.** Fast, and comparable with the literature. Use its extrapolated limit and interval, not the plain value. Where it is saturated or out of domain, it shows only that the images are distinct.",
        "binning": "**Binning.** Like KDE, with cells. In a layer of a hundred values nearly every image has its own cell: use it for narrow layers, or for comparison.",
        "ksg": "**KSG on PCA codes.** A second method for codes of up to three or four dimensions. It describes only the first components of a layer.",
        "renyi": "**Rényi index.** Compares layers at one bandwidth, against its own null. Its bits are not Shannon's.",
    }
    lines = [f"- {text} Coverage of its intervals: {spread(estimator)}." for estimator, text in names.items()]
    return (
        "## Which estimator to use\n\n"
        + "\n".join(lines)
        + """

To judge whether a skip is needed, read the conditional gains of the probes first, then I(Y;S|U) by KDE or mixture where it is in its domain. Do not use marginal information: an exclusive or has none. For every estimator, a p-value above 0.05 means that permuted labels give as large an estimate."""
    )


_LEGEND = """Mean and spread refer to the plain value; bias and coverage refer to the extrapolated limit and its interval. Coverage counts only the repetitions that have an interval."""


def _group(outcomes: Sequence[Outcome], group: str) -> str:
    rows, notes = [], []
    for outcome in (o for o in outcomes if o.case.group == group):
        note = ""
        if outcome.in_domain < 0.5 and outcome.reason:
            if outcome.reason not in notes:
                notes.append(outcome.reason)
            note = f" ({notes.index(outcome.reason) + 1})"
        rows.append([*_row(outcome), note])
    table = _table(
        ["case", "estimator", "quantity", "truth", "mean", "spread", "bias", "in domain", "coverage", "times"],
        [[*row[:7], row[7] + row[10], *row[8:10]] for row in rows],
    )
    return f"### {group}\n\n{table}" + "".join(f"\n\n({place}) {note}" for place, note in enumerate(notes, start=1))


def _row(outcome: Outcome) -> Iterator[str]:
    mean = _mean(outcome)
    yield outcome.case.name
    yield NAMES[outcome.of[0]][0]
    yield outcome.of[1].replace("|", "\\|")
    yield "" if math.isnan(outcome.truth) else _digits(outcome.truth)
    yield "" if math.isnan(mean) else _digits(mean)
    yield "" if math.isnan(outcome.spread) else _digits(outcome.spread)
    yield "" if math.isnan(outcome.bias) else f"{outcome.bias:+.3f}"
    yield f"{outcome.in_domain:.0%}"
    yield "" if math.isnan(outcome.coverage) else f"{outcome.coverage:.1%}"
    yield str(len(outcome.bits))


def _digits(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000") if abs(value) < 1000 else f"{value:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
