"""The outcomes as docs/estimators.md."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from calibration.figures import NAMES
from calibration.study import Outcome
from calibration.sweeps import Sweep

LEAST, MOST = 0.90, 0.99  # of 95 % intervals, that have to hold the truth
FEWEST_REJECTED, MOST_REJECTED = 0.03, 0.07
FEWEST = 30  # intervals or p-values, of which a share is worth stating


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
    return (
        "\n\n".join([*parts, "## Everything, case by case", _LEGEND, *(_group(outcomes, group) for group in groups)])
        + "\n"
    )


def _head(repetitions: int) -> str:
    return f"""# Which estimator to believe, and when

Written by `make study`: every estimator, {repetitions} times over where not said otherwise, on data whose information is known. Numbers are bits, of masks bits a pixel. An estimator is to be believed where its 95 % intervals hold the truth in 90 to 99 % of repetitions, and where p ≤ 0.05 comes up in 3 to 7 % of those in which there is nothing to tell. Outside its domain an estimate has no interval, but a reason that begins with `out of domain`.

What each estimates is not the same. The mixture's truth is the information of a layer with Gaussian noise; that of the KDE bounds is where they themselves go with ever more images; that of binning is of the cells; that of KSG is of the code; that of probes is what the best probe of the family would tell. A trained network's own information is infinite or constant (Goldfeld et al. 2019): all of these say how images cluster at a resolution, or what can be read."""


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

Of {len(judged)} estimates that mostly have an interval (in half of {FEWEST} or more repetitions), {len(within)} hold the truth in 90 to 99 % of them, {len(below)} in fewer, {len(above)} in more. {len(refused)} estimates never have an interval, and say why.

![Coverage](figures/calibration_coverage.png)"""
    if below:
        text += "\n\nToo seldom:\n\n" + "\n".join(f"- {_where(outcome)}: {outcome.coverage:.0%}" for outcome in below)
    if sparse:
        text += "\n\nToo seldom, where most repetitions are refused and the rest slipped through:\n\n" + "\n".join(
            f"- {_where(outcome)}: {outcome.coverage:.0%} of the {outcome.in_domain:.0%} that have one"
            for outcome in sparse
        )
    if above:
        text += (
            f"\n\nMore often than 99 %, {len(above)} of them, which is no lie but wider than need be. Where nothing is told, where "
            "clusters are all equally likely or labels wholly told, an information stands at an end of its range, and what varies "
            "there is of the second order; KSG's jackknife is too wide by construction. By group:\n\n"
        ) + "\n".join(
            f"- {group}: {sum(one.case.group == group for one in above)} of {sum(one.case.group == group for one in judged)}"
            for group in dict.fromkeys(one.case.group for one in above)
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

How often p ≤ 0.05 where there is nothing to tell ({", ".join(map(str, sorted(counts)))} repetitions; of 600 repetitions at a true 5 %, chance alone makes 3.3 to 6.8 % in 95 of 100 cases). {len(nulls) - len(outside)} of {len(nulls)} lie within 3 to 7 %.

""" + _table(["", *(NAMES[e][0] for e in estimators)], rows)


def _skips(outcomes: Sequence[Outcome]) -> str:
    planted = [outcome for outcome in outcomes if outcome.case.group.startswith("Planted skips")]
    lines = []
    for outcome in planted:
        name, estimator, quantity = outcome.case.name.split(", ")[0], NAMES[outcome.of[0]][0], outcome.of[1]
        if quantity not in {"I(Y;S|U)", "I_V(S→Y|U)"}:
            continue
        found = _mean(outcome)
        if name == "skip redundant":
            lines.append(f"- {name}, {estimator}: {quantity} = {found:.4f} bits of 0")
        elif name == "skip unique":
            lines.append(
                f"- {name}, {estimator}: {quantity} = {found:.3f} of {outcome.truth:.3f} bits ({found / outcome.truth - 1:+.1%})"
            )
        elif name == "skip exclusive or":
            none = ", of which a linear probe can read none" if outcome.truth == 0 else ""
            lines.append(f"- {name}, {estimator}: {quantity} = {found:.3f} of 1 bit{none}")
    return f"""## Planted skips

Skips of which it is known what they add, in streams of 100,000 dimensions each (605 images, by distances), and in pixels (60 images to fit on and 60 to judge by, 20,480 dimensions each, by probes).

{chr(10).join(lines)}

![Planted skips](figures/calibration_skips.png)"""


def _mean(outcome: Outcome) -> float:
    known = outcome.bits[np.isfinite(outcome.bits)]
    return float(known.mean()) if len(known) else math.nan


def _breaks(sweeps: Sequence[Sweep]) -> str:
    return f"""## Where each breaks

Means over {len(next(iter(sweeps[0].found.values())))} repetitions of 605 images (probes: 40 to judge by). Filled points are in their domain in most repetitions, hollow ones are not; the mixture has no number there.

![Where each breaks](figures/calibration_breaks.png)

- **Gaussian channel.** What 605 images can tell ends at log₂ 605 = 9.24 bits. KDE's bounds lie where they must, above and below the truth, until they reach that end, from where on they say nothing more; the mixture follows the truth up to where it refuses.
- **Clusters.** KDE falls short where a cluster has fewer than about ten images, and says so; the mixture goes on to about five.
- **Labels that nothing tells.** Chance makes labels out of cells: the finer the classes, the more the plain estimate claims. p and the domain tell; the number alone does not.
- **Normal codes.** Nearest neighbours lose more with every dimension.
- **Probes.** With as many channels as images can pay for, a probe falls short of the best one; it says how far.
- **Rényi index.** It is what its bandwidth makes it. Only a kernel narrower than the gaps between clusters finds their entropy."""


def _believe(outcomes: Sequence[Outcome]) -> str:
    def spread(estimator: str) -> str:
        shares = [o.coverage for o in _judged(outcomes) if o.of[0] == estimator]
        if not shares:
            return "none was repeated often enough"
        return f"{min(shares):.0%} to {max(shares):.0%}, {len(shares)} estimates"

    names = {
        "usable_linear": "**Linear probes** (usable information). For segmentation masks, pixel by pixel, at any width of layer. It does not end at log₂ N, so it tells layers of trained networks apart. It knows nothing of what another family would read: an exclusive or is none of its business. Believe differences between layers by their paired interval.",
        "usable_convolutional": "**Convolutional probes.** The same for what channels say together and what neighbours say. More to read, more to fit: compare with the linear ones before concluding that a skip is needed.",
        "mixture": "**Mixture.** The only one whose number is the information of a noisy layer itself and not a bound. Believe it wherever it gives a number; it refuses early, and costs more than KDE.",
        "kde_upper": "**KDE.** Cheap, and comparable with the literature. Believe its limit and its interval, not its plain number; where it is `saturated` or out of domain it says only that images lie apart.",
        "binning": "**Binning.** The same in cells. In a layer of a hundred values nearly every image has a cell of its own: it is for narrow layers, or for comparison.",
        "ksg": "**KSG on PCA codes.** A cross-check for codes of up to three or four dimensions; of a layer it describes its first components only.",
        "renyi": "**Rényi index.** To compare layers with one bandwidth, against its own null. Its bits are not Shannon's.",
    }
    lines = [f"- {text} Coverage where it has an interval: {spread(estimator)}." for estimator, text in names.items()]
    return (
        "## Which to believe\n\n"
        + "\n".join(lines)
        + """

To ask whether a skip is needed, read the conditional gains of the probes first, then I(Y;S|U) by KDE or mixture where it is in its domain, and a marginal never: an exclusive or has none. Whatever the estimator, a p-value above 0.05 means that permuted labels do as well."""
    )


_LEGEND = """Mean and spread are of the number as it is printed, bias is of the limit that the interval is about. Coverage counts the repetitions that have an interval."""


def _group(outcomes: Sequence[Outcome], group: str) -> str:
    rows, notes = [], []
    for outcome in (one for one in outcomes if one.case.group == group):
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
