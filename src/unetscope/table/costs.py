"""What a network costs, and what a smaller one saves: plain numbers, as they are stored and shown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unetscope.table.saving import save_rows


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one image.

    parameters: the size of all of them. multiply_adds: of a forward pass, in convolutions, matrix products and attention.
    activation_bytes: the most memory that tensors of an inference pass take at a time, the image among them. training_bytes:
    what a training step keeps of a pass for the backward pass, parameters aside; 0 where that was not measured. seconds: the
    shortest of several inference passes, on one thread of the machine that measured them, or its GPU.
    """

    parameters: int
    multiply_adds: int
    activation_bytes: int
    seconds: float
    training_bytes: int = 0

    def text(self, name: str) -> str:
        """One of the costs with its unit.

        >>> Cost(485_817, 8, 688_128, 0.0126).text("activation_bytes")
        '688 kB'
        """
        return _with_prefix(getattr(self, name), COST_TITLES[name].unit)

    def cells(self) -> list[str]:
        """All of them as a row of a table."""
        return [self.text(name) for name in COST_TITLES]


@dataclass(frozen=True, slots=True)
class CostTitle:
    """How a cost is named, also where there is little room, and its unit."""

    title: str
    short: str
    unit: str = ""


# By field of `Cost`, in the order in which they are shown.
COST_TITLES = {
    "parameters": CostTitle("parameters", "parameters"),
    "multiply_adds": CostTitle("multiply-adds", "multiply-adds"),
    "activation_bytes": CostTitle("peak activation memory", "peak memory", "B"),
    "training_bytes": CostTitle("activations kept to train", "kept to train", "B"),
    "seconds": CostTitle("time of a forward pass, here", "time", "s"),
}


@dataclass(frozen=True, slots=True)
class Savings:
    """The costs of a network and of a smaller one, of which the times were measured in turns."""

    whole: Cost
    slim: Cost

    def as_dict(self) -> dict[str, Any]:
        """Both costs by name, as JSON takes them."""
        return {"whole": asdict(self.whole), "slim": asdict(self.slim)}

    def change(self, name: str) -> float:
        """The relative change of a cost, such as -0.25 for a quarter less; NaN if the whole network's is not known.

        >>> Savings(Cost(4, 8, 16, 1.0), Cost(3, 8, 16, 0.5)).change("parameters")
        -0.25
        """
        whole = getattr(self.whole, name)
        return getattr(self.slim, name) / whole - 1 if whole else math.nan

    def text(self, name: str) -> str:
        """A cost of the smaller network, with its relative change.

        >>> Savings(Cost(4000, 8, 16, 1.0), Cost(3000, 8, 16, 0.5)).text("parameters")
        '3 k (-25%)'
        """
        change = self.change(name)
        return "not measured" if math.isnan(change) else f"{self.slim.text(name)} ({change:+.0%})"

    def cells(self) -> list[str]:
        """The costs of the smaller network as a row of a table; of its time only the change, since times of rows were not taken
        together.

        >>> Savings(Cost(4000, 8, 16, 1.0), Cost(3000, 8, 16, 0.5)).cells()
        ['3 k (-25%)', '8 (+0%)', '16 B (+0%)', 'not measured', '-50%']
        """
        return [f"{self.change(name):+.0%}" if name == "seconds" else self.text(name) for name in COST_TITLES]

    def rows(self) -> list[tuple[str, str]]:
        """Each cost with its title: before, after and the relative change."""
        return [
            (about.title, f"{self.whole.text(name)} → {self.text(name)}")
            for name, about in COST_TITLES.items()
            if not math.isnan(self.change(name))
        ]


COST_COLUMNS = ("design", *(field.name for field in fields(Cost)), *(f"{cost}_change" for cost in COST_TITLES))


def save_costs(designs: Iterable[tuple[str, Savings]], path: str | Path) -> Path:
    """Write what designs cost to a `.csv` or `.parquet` file, a row each, whole or not at all; returns the path.

    Costs are those of `Cost`, in its units. Of `NAME_change`, the change relative to the whole network. Times of rows were not
    taken together: of these compare the changes.
    """
    rows = [
        {"design": name, **asdict(saved.slim), **{f"{cost}_change": saved.change(cost) for cost in COST_TITLES}}
        for name, saved in designs
    ]
    return save_rows(rows, list(COST_COLUMNS), Path(path))


def _with_prefix(value: float, unit: str) -> str:
    """A number with an SI prefix.

    >>> _with_prefix(485817, ""), _with_prefix(688128, "B"), _with_prefix(0.0126, "s")
    ('486 k', '688 kB', '12.6 ms')
    """
    for power, prefix in ((9, "G"), (6, "M"), (3, "k"), (0, ""), (-3, "m"), (-6, "µ")):
        if value >= 10.0**power:
            return f"{value / 10.0**power:.3g} {prefix}{unit}".rstrip()
    return f"{value:g} {unit}".rstrip()
