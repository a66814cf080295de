"""The claims of the paper, each held against a run of its protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from paper_protocol import FULL, MERGES, PAPER_EPOCHS, Model, Protocol, epoch_text, last_of_all

CLOSE: Final = 0.02  # Dice within which a model reaches another's
SURE: Final = 0.01  # a gap is near or far from it by so much, or one seed does not tell
SHARES: Final = (0.90, 0.95)  # of H(Y): what is said of a maximum holds by both, or it is not decided
FAR: Final = 0.75  # of H(Y): below it a layer is far from its maximum
ALIKE: Final = 0.9  # rank correlation of two estimators, over layers and epochs, of one shape
END: Final = 0.95 * PAPER_EPOCHS  # who is short by then stays so
ABOUT: Final = 1.25  # about an epoch: up to so many times it, and down to it by as many
LATE: Final = 1.1  # times an epoch, by which larger steps of SGD may be late
Answer = Literal["held", "did not hold", "not decided"]

# Each merge by the two tensors that the paper's layer may be: its text has the first, its authors' code the second.
TENSORS: Final[Mapping[str, str]] = {"": "merged", "up": "before the merge"}
# Full, a merge lets the skip above it be left out: the model without that skip, and those above.
RULE: Final[Mapping[str, str]] = {"17": "model2", "14": "model3", "11": "model4"}


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, with the number there and ours."""

    text: str
    in_paper: str
    measured: str
    answer: Answer

    def cells(self) -> tuple[str, ...]:
        """Its row."""
        return self.text, self.in_paper, self.measured, f"**{self.answer}**"


def claims(protocol: Protocol) -> list[Claim]:
    """The paper's claims, each held against a run. What needs a training that has not ended is not decided."""
    return [*_of_information(protocol), *_of_the_rule(protocol), *_of_dice(protocol)]


def _of_information(protocol: Protocol) -> Iterator[Claim]:
    """Those about the table of estimates, of the tensor that the paper's text speaks of and of its authors' code's."""
    for suffix, tensor in TENSORS.items():
        epochs = {layer: protocol.full_from(layer + suffix) for layer in MERGES}
        yield Claim(
            f"I(Y;M) of layers 20, 17, 14 and 11 ({tensor}) reaches its maximum in that order",
            "20 and 17 at about 1,000, 14 between 1,000 and 10,000, 11 never",
            ", ".join(f"{layer} {_at(epoch)}" for layer, epoch in epochs.items()),
            _in_order(list(epochs.values()), is_over=protocol.is_measured_to_the_end),
        )
    by_share = [protocol.full_from("14", share) for share in SHARES]
    yield Claim(
        "I(Y;M) of layer 14 (merged) reaches its maximum between epochs 1,000 and 10,000",
        "1,000 to 10,000",
        ", ".join(f"{share:.0%} of H(Y) {_at(epoch)}" for share, epoch in zip(SHARES, by_share, strict=True)),
        _agreed(
            _answer(
                epoch is not None or protocol.is_measured_to_the_end,
                epoch is not None and 1000 <= epoch <= PAPER_EPOCHS,
            )
            for epoch in by_share
        ),
    )
    rows = protocol.information("11")
    most = max(row.bits / row.ceiling for row in rows)
    far: Answer = "did not hold" if most >= FULL else "not decided"
    yield Claim(
        "I(Y;M) of layer 11 (merged) stays far from its maximum",
        "half of it",
        f"at most {most:.0%} of {rows[-1].ceiling:.2f} bits",
        "held" if most < FAR and protocol.is_measured_to_the_end else far,
    )
    yield from _of_shapes(protocol)


def _of_shapes(protocol: Protocol) -> Iterator[Claim]:
    """Those about curves over the layers."""
    for quantity in ("I(X;M)", "I(Y;M)"):
        series = protocol.flow.select(quantity=quantity).narrowed(estimator=None, resolution=None, labels=None)
        first = series.epochs[0]
        bits = {row.layer: row.bits for row in series.select(epoch=first).estimates}
        lowest = min((str(number) for number in range(1, 11)), key=lambda layer: bits[layer])
        steps = {layer: (bits[str(int(layer) - 1)], bits[layer]) for layer in reversed(MERGES)}
        yield Claim(
            f"{quantity} over the layers is a U at first, and rises at each merge",
            "falls to the bottom, rises at the merges",
            f"at epoch {first:,}: of layers 1 to 10 lowest at {lowest}; "
            + ", ".join(f"at {layer} {before:.2f} to {after:.2f}" for layer, (before, after) in steps.items())
            + " bits",
            _answer(True, lowest in {"9", "10"} and all(before < after for before, after in steps.values())),
        )
    yield _alike(protocol, "The histogram of bins of 0.2 has similar shapes", estimator="binning")
    yield _alike(protocol, "Labels by spatial coarsening have similar shapes", labels="blocks(4x4)")


def _alike(protocol: Protocol, text: str, *, estimator: str | None = None, labels: str | None = None) -> Claim:
    """Whether another estimator, or other labels, rank I(Y;M) of the layers and epochs as the first does."""
    of_label = protocol.flow.select(quantity="I(Y;M)")
    first = of_label.narrowed(estimator=None, resolution=None, labels=None)
    compared = of_label.select(**({"estimator": estimator} if estimator else {"labels": labels}))
    if not compared.estimates:
        return Claim(text, "similar", "not measured", "not decided")
    compared = compared.narrowed(estimator=None, resolution=None, labels=None)
    by_place = {(row.epoch, row.layer): row for row in compared.estimates}
    pairs = [
        (row.bits, by_place[row.epoch, row.layer]) for row in first.estimates if (row.epoch, row.layer) in by_place
    ]
    merges = [row for row in compared.estimates if row.layer in MERGES]
    ranks = _rank_correlation([bits for bits, _ in pairs], [row.bits for _, row in pairs])
    at_ceiling = sum(row.saturated for row in merges) / len(merges)
    return Claim(
        text,
        "similar",
        f"rank correlation over layers and epochs {ranks:.2f}; of the merges {at_ceiling:.0%} at the ceiling",
        _answer(True, ranks >= ALIKE),
    )


def _rank_correlation(first: list[float], compared: list[float]) -> float:
    """Spearman's; 0 where one of the two is the same throughout."""
    from scipy.stats import rankdata

    ranks = rankdata(first), rankdata(compared)
    return 0.0 if min(each.std() for each in ranks) == 0 else float(np.corrcoef(*ranks)[0, 1])


def _in_order(epochs: list[int | None], *, is_over: bool) -> Answer:
    """Whether layers reach something one after the other; of those that never do, one may be the last."""
    if any(later is not None and (earlier is None or later < earlier) for earlier, later in pairwise(epochs)):
        return "did not hold"
    ties = any(later is not None and later == earlier for earlier, later in pairwise(epochs))
    never = epochs.count(None)
    return "not decided" if ties or never > 1 or (never == len(epochs) and not is_over) else "held"


def _of_the_rule(protocol: Protocol) -> Iterator[Claim]:
    """The rule itself: a skip can be left out once the merge below it is full, by either tensor, against what was trained."""
    for suffix, tensor in TENSORS.items():
        for layer, name in RULE.items():
            full = protocol.full_from(layer + suffix)
            expected = "reaches Model 1" if full is not None else "falls short"
            text = f"Skip rule by layer {layer} ({tensor}): if it gets full, {_called(name)} reaches Model 1, else it does not"
            rule = f"{layer} full {_at(full)}, so {_called(name)} {expected}"
            if (reason := _not_compared(protocol, name)) is not None:
                yield Claim(text, "held", f"{rule}; {reason}", "not decided")
                continue
            until = last_of_all([protocol.models["model1"], protocol.models[name]])
            gap = protocol.models["model1"].level(until) - protocol.models[name].level(until)
            is_sure = abs(gap - CLOSE) >= SURE and (gap <= CLOSE or until >= END)
            yield Claim(
                text,
                "held",
                f"{rule}; it is {_apart(gap)} in the thousand epochs before {until:,}",
                _answer(is_sure, (gap <= CLOSE) == (full is not None)),
            )


def _not_compared(protocol: Protocol, name: str) -> str | None:
    """Why a model cannot be compared with Model 1; None if it can."""
    for each in ("model1", name):
        if each not in protocol.models:
            return f"{_called(each)} was not trained"
        if not protocol.models[each].has_started:
            return f"{_called(each)} has not started: {protocol.models[each].why_not}"
    return None


def _of_dice(protocol: Protocol) -> Iterator[Claim]:
    for name in ("model1", "model2"):
        yield _at_its_best(protocol, name)
    for name, by, text in (("model2", 3000, "by 3,000"), ("model3", 8000, "at about 8,000")):
        reason = _not_compared(protocol, name)
        reaches, when = f"{_called(name)} reaches the Dice of Model 1", f"{_called(name)} does so {text}"
        if reason is not None:
            yield from (Claim(reaches, text, reason, "not decided"), Claim(when, text, reason, "not decided"))
            continue
        reached, until, gap = _meets(protocol.models["model1"], protocol.models[name])
        measured = f"within {CLOSE:g} {_at(reached)}; {_apart(gap)} at {until:,}"
        yield Claim(reaches, text, measured, _answer(reached is not None or until >= END, reached is not None))
        late, early = by * ABOUT, 0 if name == "model2" else by / ABOUT
        in_time = reached is not None and early <= reached <= late
        yield Claim(when, text, measured, _answer(reached is not None or until >= late, in_time))
    text = "Model 4 does not reach the Dice of Model 1"
    if (reason := _not_compared(protocol, "model4")) is not None:
        yield Claim(text, "never", reason, "not decided")
        return
    reached, until, gap = _meets(protocol.models["model1"], protocol.models["model4"])
    measured = f"within {CLOSE:g} {_at(reached)}; {_apart(gap)} at {until:,}"
    yield Claim(text, "never", measured, _answer(reached is not None or until >= END, reached is None))


def _at_its_best(protocol: Protocol, name: str) -> Claim:
    """Whether a model comes near its best when the paper's does; by two distances, as a slow rise has no peak."""
    text = f"{_called(name)} is at its best between epochs 2,000 and 3,000"
    if name not in protocol.models:
        return Claim(text, "2,000 to 3,000", "not trained", "not decided")
    model = protocol.models[name]
    best, at = model.best
    near = [model.reaches(best - distance) for distance in (SURE, CLOSE)]
    answers = [_answer(model.is_whole, 2000 / LATE <= epoch <= 3000 * LATE) for epoch in near if epoch is not None]
    if all(epoch is not None and epoch > 3000 * LATE for epoch in near):
        answers = ["did not hold"]  # what a training still brings only moves it further
    return Claim(
        text,
        "2,000 to 3,000",
        f"{best:.3f} at {at:,}; within {CLOSE:g} of it from {epoch_text(near[1])} on, within {SURE:g} from {epoch_text(near[0])}",
        _agreed(answers),
    )


def _meets(first: Model, later_model: Model) -> tuple[int | None, int, float]:
    """The epoch at which a model is as good as the first, which is near its best by then; the last of both; its gap there."""
    until = last_of_all([first, later_model])
    arrived = first.reaches(first.best[0] - CLOSE) or until
    shared = [epoch for epoch in np.union1d(first.epochs, later_model.epochs) if arrived <= epoch <= until]
    reached = next((int(epoch) for epoch in shared if later_model.at(epoch) >= first.at(epoch) - CLOSE), None)
    return reached, until, first.at(until) - later_model.at(until)


def _apart(gap: float) -> str:
    return f"{gap:.3f} short" if gap > 0 else f"{-gap:.3f} above"


def _called(name: str) -> str:
    return f"Model {name.removeprefix('model')}"


def _at(epoch: int | None) -> str:
    text = epoch_text(epoch)
    return text if epoch is None else f"at {text}"


def _agreed(answers: Iterable[Answer]) -> Answer:
    """The answer that all give; not decided if they differ."""
    different = set(answers)
    return different.pop() if len(different) == 1 else "not decided"


def _answer(is_known: bool, holds: bool) -> Answer:
    return "not decided" if not is_known else "held" if holds else "did not hold"
