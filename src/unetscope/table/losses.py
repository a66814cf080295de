"""The Dice that a network loses without some of its parts: at once, with zeros in their place, and when it is retrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Final

from unetscope.table.evidence import TrainedOn
from unetscope.table.intervals import Interval
from unetscope.table.margins import check_margin
from unetscope.table.parts import Variant
from unetscope.table.quantities import Decision

EXPECTED_LEVEL = 0.9  # of an interval of an expected loss
SILENCED: Final = "silenced"
BITS: Final = "bits"
TRAINED_ON: Final = "trained on"
PROBED: Final = "probed"
TRAINED_ON_SHARE, FEWEST_TRAINED_ON = 0.05, 3


def epochs_trained_on(budget: int) -> int:
    """For how many epochs smaller networks are trained on, of a training of so many: a twentieth, and three or more.

    >>> epochs_trained_on(20), epochs_trained_on(100)
    (3, 5)
    """
    return max(FEWEST_TRAINED_ON, round(TRAINED_ON_SHARE * budget))


def decided_loss(loss: Interval, margin: float) -> Decision:
    """Whether a whole interval lies on one side of the margin: what is left out is redundant or, above it, needed.

    Raises: InvalidArgument unless the margin is between 0 and 1.

    >>> decided_loss(Interval(0.1, 0.03, 0.3), 0.02), decided_loss(Interval(0.0, -0.1, 0.1), 0.02)
    ('needed', 'undecided')
    """
    check_margin(margin)
    if loss.high < margin:
        return "redundant"
    return "needed" if loss.low > margin else "undecided"


@dataclass(frozen=True, slots=True)
class Silenced:
    """What a network lost at once after so many epochs, with zeros in the place of all that a design lacks.

    loss: of the mean validation Dice.
    """

    epoch: int
    design: Variant
    loss: float

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {"epoch": self.epoch, "design": self.design.as_dict(), "loss": self.loss}


@dataclass(frozen=True, slots=True)
class ExpectedLoss:
    """What a design is expected to lose: the mean validation Dice of the whole network less its own, each trained from its
    initial weights for as many epochs.

    loss: with a 90 % interval. known: what it follows from, by the name of the predictor. proof: a network that was trained on
    from the weights of the whole one, and shows that it does without what the design lacks.

    >>> ExpectedLoss(Variant("depth3", 3, ()), 60, Interval(0.004, -0.01, 0.015)).decision(0.02)
    'redundant'
    """

    design: Variant
    epoch: int
    loss: Interval
    known: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    proof: TrainedOn | None = None

    def decision(self, margin: float) -> Decision:
        """Whether what the design lacks is needed, of a loss of Dice that counts as none; not if a network shows it."""
        return "redundant" if self.proof is not None else decided_loss(self.loss, margin)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "design": self.design.as_dict(),
            "epoch": self.epoch,
            "loss": asdict(self.loss),
            "known": dict(self.known),
            "proof": None if self.proof is None else self.proof.as_dict(),
        }
