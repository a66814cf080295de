"""The values that name what an estimate is of, whether it may be compared and what is decided, with their marks.

Marks are the same in notebooks, figures, on the page and in the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from unetscope.base import InvalidArgument


class Quantity(StrEnum):
    """What is estimated: of one layer M, or of the skip S and the upsampled path U that meet at a merge.

    X is the image, Y its label or mask, ↓S the skip pooled to the next lower resolution. `I` is mutual information in bits;
    `I_V` is usable information in bits a pixel, by a family of probes V.

    Source: Lee & Bajić, ISBI 2021 (I); Xu et al., ICLR 2020 (I_V).

    Raises: InvalidArgument for a text that names no quantity.

    >>> Quantity("I_V(M→Y)").unit, Quantity.INPUT == "I(X;M)"
    ('bits a pixel', True)
    """

    INPUT = "I(X;M)"
    LABEL = "I(Y;M)"
    SKIP_GIVEN_UPSAMPLED = "I(Y;S|U)"
    UPSAMPLED_GIVEN_SKIP = "I(Y;U|S)"
    SHARED = "I(Y;S;U)"
    USABLE = "I_V(M→Y)"
    USABLE_SKIP_GIVEN_UPSAMPLED = "I_V(S→Y|U)"
    USABLE_UPSAMPLED_GIVEN_SKIP = "I_V(U→Y|S)"
    USABLE_SHARED = "I_V(S;U→Y)"
    USABLE_SKIP_GIVEN_POOLED = "I_V(S→Y|U,↓S)"

    @classmethod
    def _missing_(cls, value: object) -> Quantity:
        raise InvalidArgument(f"quantity must be one of {', '.join(cls)}, got {value!r}")

    def __repr__(self) -> str:
        return repr(self.value)  # in errors and in the text of an estimate as in the table

    @property
    def is_usable(self) -> bool:
        """Whether it is usable information, which is measured on held-out images and needs no label scheme."""
        return self in _USABLE

    @property
    def of_layer(self) -> bool:
        """Whether it is of one layer, not of the two streams of a merge."""
        return self in _OF_LAYER

    @property
    def unit(self) -> str:
        """The unit in which its estimates are given."""
        return "bits a pixel" if self.is_usable else "bits"

    @property
    def ceiling_name(self) -> str:
        """The formula of the largest value that its estimates can take."""
        return "H_V(Y|∅)" if self.is_usable else "log₂ N" if self is Quantity.INPUT else "H(Y)"


_OF_LAYER = frozenset({Quantity.INPUT, Quantity.LABEL, Quantity.USABLE})
_USABLE = frozenset(
    {
        Quantity.USABLE,
        Quantity.USABLE_SKIP_GIVEN_UPSAMPLED,
        Quantity.USABLE_UPSAMPLED_GIVEN_SKIP,
        Quantity.USABLE_SHARED,
        Quantity.USABLE_SKIP_GIVEN_POOLED,
    }
)


class Status(StrEnum):
    """Whether an estimate may be compared with those of other layers, and if not, why.

    ABSENT: there is no number. SATURATED: the number is at its ceiling, where layers cannot be ranked. OUT_OF_DOMAIN: the
    number describes these images alone; with more images it would change. OK: none of these.
    """

    OK = "ok"
    SATURATED = "saturated"
    OUT_OF_DOMAIN = "out of domain"
    ABSENT = "absent"


Decision = Literal["needed", "redundant", "undecided"]
Rule = Literal["loss", "conditional", "plateau"]
Agreement = Literal["hit", "miss", "open"]  # of a decision with the outcome of retraining


@dataclass(frozen=True, slots=True)
class StatusMark:
    """sign: beside a number. marker: of a point, as matplotlib names it. hollow: whether the point is. letter: in page data."""

    sign: str
    marker: str
    hollow: bool
    letter: str


STATUS_MARKS: Mapping[Status, StatusMark] = {
    Status.OK: StatusMark("", "o", False, "."),
    Status.SATURATED: StatusMark("○", "o", True, "s"),
    Status.OUT_OF_DOMAIN: StatusMark("×", "x", False, "o"),
    Status.ABSENT: StatusMark("—", "", False, "-"),
}


@dataclass(frozen=True, slots=True)
class DecisionMark:
    """sign, letter: beside the decision and alone in a cell. ink: of text, read on white and on black paper alike.

    fill: of an area in a figure. style: of text in the terminal, as rich names it.
    """

    sign: str
    letter: str
    ink: str
    fill: str
    style: str


# The fills are Okabe & Ito's vermillion and blue ("Color Universal Design", 2008), and a light grey.
DECISION_MARKS: Mapping[Decision, DecisionMark] = {
    "needed": DecisionMark("●", "N", "#d9622b", "#D55E00", "red"),
    "redundant": DecisionMark("○", "R", "#3a87c8", "#0072B2", "blue"),
    "undecided": DecisionMark("?", "?", "#7d8590", "#E4E4E4", "dim"),
}


RULE_TITLES: Mapping[Rule, str] = {
    "loss": "the loss of Dice to expect",
    "conditional": "the conditional rule",
    "plateau": "the paper's rule",
}
AGREEMENT_MARKS: Mapping[Agreement, str] = {"hit": "✓", "miss": "✗", "open": ""}
