"""The claims of the paper, each held against a run of its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from paper_protocol import MERGES, Protocol, epoch_text

CLOSE = 0.02  # Dice within which a model reaches another's
Answer = Literal["held", "did not hold", "not decided"]


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
    return [*_of_information(protocol), *_of_dice(protocol)]


def _of_information(protocol: Protocol) -> Iterator[Claim]:
    """Those about the table of estimates, which hold or not whether the estimates are at their ceiling or not."""
    reached = {layer: protocol.full_from(layer) for layer in MERGES}
    epochs = {layer: epoch for layer, (epoch, _, _) in reached.items()}
    measured = protocol.run.flow.epochs[-1] * protocol.scale >= protocol.epochs
    order = [np.inf if epochs[layer] is None else epochs[layer] for layer in MERGES]
    is_ordered = all(upper <= lower for upper, lower in pairwise(order))
    yield Claim(
        "I(Y;M) of layers 20, 17, 14 and 11 reaches its maximum in that order",
        "20 and 17 at about 1,000, 14 between 1,000 and 10,000, 11 never",
        ", ".join(f"{layer} {_at(epochs[layer])}" for layer in MERGES),
        # with one layer left, whatever comes later comes after the others
        _answer(measured or not is_ordered or epochs[MERGES[-2]] is not None, is_ordered),
    )
    most, ceiling = reached["11"][1:]
    yield Claim(
        "I(Y;M) of layer 11 stays below the maximum",
        "1.5 of 3 bits",
        f"{most:.2f} of {ceiling:.2f} bits",
        _answer(measured, epochs["11"] is None),
    )
    of_input = {
        layer.label: protocol.run.flow.select(quantity="I(X;M)", layer=layer.label).estimates[0].bits
        for layer in protocol.run.flow.layers
    }
    down = [str(number) for number in range(1, 11)]
    lowest = min(down, key=lambda layer: of_input[layer])
    lowest_of_all = min(of_input, key=lambda layer: of_input[layer])
    up = [of_input[layer] for layer in reversed(MERGES)]
    yield Claim(
        "I(X;M) over the layers is a U at first",
        "falls to the bottom, rises at the merges",
        f"of layers 1 to 10 lowest at {lowest} (of all at {lowest_of_all}); at 11, 14, 17 and 20 {', '.join(f'{bits:.2f}' for bits in up)} bits",
        _answer(True, lowest in {"9", "10"} and all(lower < upper for lower, upper in pairwise(up))),
    )


def _at(epoch: float | None) -> str:
    text = epoch_text(epoch)
    return text if epoch is None else f"at {text}"


def _of_dice(protocol: Protocol) -> Iterator[Claim]:
    at_best = {
        "model1": "Model 1 is at its best between epochs 2,000 and 3,000",
        "model2": "Model 2 is at its best between epochs 2,000 and 3,000",
    }
    for name, text in at_best.items():
        if name not in protocol.models:
            yield Claim(text, "2,000 to 3,000", "not trained", "not decided")
            continue
        dice, epoch = protocol.best(name)
        within = protocol.close_from(name, dice - CLOSE)
        yield Claim(
            text,
            "2,000 to 3,000",
            f"best {dice:.3f} at {epoch:,.0f}; within {CLOSE:g} of it from {epoch_text(within)} on",
            _answer(protocol.is_whole(name) or epoch > 3000, 2000 <= epoch <= 3000),  # later ones only confirm that
        )
    for name, text, paper, expected in (
        ("model2", "Model 2 reaches the Dice of Model 1", "by 3,000", True),
        ("model3", "Model 3 reaches the Dice of Model 1, later", "about 8,000", True),
        ("model4", "Model 4 does not reach the Dice of Model 1", "never", False),
    ):
        yield _reaching(protocol, name, text, paper, expected=expected)


def _reaching(protocol: Protocol, name: str, text: str, paper: str, *, expected: bool) -> Claim:
    """Whether a model comes within 0.02 of the best mean Dice of Model 1; one that does not start says nothing."""
    if name not in protocol.models or "model1" not in protocol.models:
        return Claim(text, paper, "not trained", "not decided")
    best, _ = protocol.best("model1")
    reached, dice = protocol.close_from(name, best - CLOSE), protocol.best(name)[0]
    measured = f"within {CLOSE:g} {_at(reached)}; best {dice:.3f} against {best:.3f}"
    training = protocol.models[name]
    if training.started_at is None:
        return Claim(text, paper, f"{measured}; it has not started: {training.why_not}", "not decided")
    is_known = protocol.is_whole("model1") and (protocol.is_whole(name) or reached is not None)
    return Claim(text, paper, measured, _answer(is_known, (reached is not None) == expected))


def _answer(is_known: bool, holds: bool) -> Answer:
    return "not decided" if not is_known else "held" if holds else "did not hold"
