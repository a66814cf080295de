"""A smaller network on the disk: its files, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unetscope import __version__
from unetscope.analysis import DICE_MARGIN
from unetscope.base import whole_file, without_nan
from unetscope.networks import DESCRIPTION, FILE, Rewired, UNet, save_model, save_parts
from unetscope.runs.building import BuiltNetwork, code_and_arguments
from unetscope.runs.exporting import Export, exported
from unetscope.table import Savings, Variant
from unetscope.training import RunConfig, Task

FOLDER = "slim"  # in a run folder


@dataclass(frozen=True)
class Slim:
    """A smaller network on the disk, and how good it is.

    path: the file of its weights, which `loaded_by` loads. dice_*: mean validation Dice, in float32, of the whole network, of
    the smaller one with the weights carried over, and of the written file. carried: the share of its weights that come from
    the whole one. fine_tuned: epochs. exports: further files. dice_per_class: of class maps, that of the written file for
    each class. thin: how many directions are kept of which skips. by_loop: whether the user's own loop trained it; each Dice is
    then the last score that the loop gave, of the first seed, and NaN where it gave none.
    """

    path: Path
    design: Variant
    dice_whole: float
    dice_carried: float
    dice: float
    carried: float
    fine_tuned: int
    savings: Savings
    exports: tuple[Path, ...]
    dice_per_class: tuple[float, ...] = ()
    thin: dict[str, int] = field(default_factory=dict)
    by_loop: bool = False

    @property
    def text(self) -> str:
        """What is left of the network, for people."""
        return ", ".join([self.design.text, *(f"{skip} of {kept} directions" for skip, kept in self.thin.items())])

    @property
    def loaded_by(self) -> str:
        """The Python that loads it."""
        if (self.path.parent / DESCRIPTION).is_file():
            return f"us.networks.load_parts({str(self.path.parent)!r})"
        return f"us.load_model({str(self.path)!r})"

    @property
    def loses(self) -> bool:
        """Whether it is worse than the whole network by more than the margin that counts as none."""
        return self.dice < self.dice_whole - DICE_MARGIN

    def as_dict(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            **asdict(self),
            "path": str(self.path),
            "design": self.design.as_dict(),
            "exports": [str(path) for path in self.exports],
        }


def write_network(
    built: BuiltNetwork,
    config: RunConfig,
    out: Path,
    *,
    design: Variant,
    dice: float,
    shape: tuple[int, ...],
    task: Task,
    exports: tuple[Export, ...],
) -> tuple[Path, tuple[Path, ...]]:
    """Write the network to its own files, and its exports; their paths. shape: of an image, its channels first."""
    model = built.model
    if isinstance(model, UNet):
        about = {
            "unetscope": __version__,
            "of": design.text,
            "validation Dice": dice,
            "image size": list(shape[1:]),
        }
        path = save_model(model, out / FILE, about)
    else:
        assert isinstance(model, Rewired)
        path = save_parts(model, out, *code_and_arguments(config.network, shape[0], task)) / FILE
    return path, tuple(exported(model, out, kind, shape) for kind in exports)


def write_description(slim: Slim) -> None:
    """Write what is told of a smaller network beside it, to slim.json; what is not known is null."""
    with whole_file(slim.path.parent / "slim.json") as beside:
        beside.write_text(json.dumps(without_nan(slim.as_dict()), indent=2) + "\n", encoding="utf-8")
