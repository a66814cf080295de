"""How a status, a decision, a rule and an agreement are marked, in notebooks, figures, on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unetscope.table.quantities import Status
from unetscope.table.records import Agreement, Decision, Rule


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


RULE_TITLES: Mapping[Rule, str] = {"conditional": "the conditional rule", "plateau": "the paper's rule"}
AGREEMENT_MARKS: Mapping[Agreement, str] = {"hit": "✓", "miss": "✗", "open": ""}
