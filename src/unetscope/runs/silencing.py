"""Silence parts of a run's network: how much Dice it loses at once, with zeros in the place of all that a design lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from unetscope.activations import device_of, eval_mode
from unetscope.data import SegmentationData
from unetscope.networks import ablated
from unetscope.runs.building import BuiltNetwork, names_in
from unetscope.runs.carrying import inspected
from unetscope.table import LEVEL, Part, Silenced, Variant, design_name
from unetscope.training import validation_scores

Dice = NDArray[np.float64]  # of each validation image


class Silencing:
    """The parts of a network, which stays as it is. design: of the network.

    Raises: NetworkError if its skips are not those that its structure shows, or for a part for which zeros cannot stand in.
    """

    def __init__(self, network: BuiltNetwork, design: Variant, held_out: SegmentationData) -> None:
        self._network, self._design, self._held_out = network, design, held_out
        image = torch.rand(1, held_out.channels, *held_out.image_size, generator=torch.Generator().manual_seed(0))
        self.structure = network.structure or inspected(network.model, image)
        skips = names_in(self.structure, [skip.part for skip in network.skips])
        levels = {Part(LEVEL, part.level): f"level{Part.named(name).level}" for part, name in skips.items()}
        self._names = skips | levels
        for part in self._names.values():
            with ablated(network.model, self.structure, part), eval_mode(network.model):
                network.model(image.to(device_of(network.model)))

    @property
    def designs(self) -> tuple[Variant, ...]:
        """The designs that lack one part: each skip alone, and the network from each level down."""
        return tuple(self.smaller(self._design, one_level=False))

    def smaller(self, design: Variant, *, one_level: bool = True) -> Iterator[Variant]:
        """A design without one part more. one_level: whether of levels only the deepest may go, and not all from any on."""
        depths = range(design.depth - 1, max(0, design.depth - 2) if one_level else 0, -1)
        for depth in depths:
            yield self._variant(depth, design.without)
        for skip in self._network.skips:
            if skip.part.level <= design.depth and skip.part not in design.without:
                yield self._variant(design.depth, (*design.without, skip.part))

    def _variant(self, depth: int, without: Sequence[Part]) -> Variant:
        kept = tuple(sorted(skip for skip in without if skip.level <= depth))
        name = design_name(depth, {*kept} - {*self._design.without}, of_depth=self._design.depth)
        return Variant(name, depth, kept)

    def silenced_parts(self, design: Variant) -> list[str]:
        """The names in the network's structure of what a design lacks: skips, and the first level below its depth."""
        return [
            name
            for part, name in self._names.items()
            if (part in design.without if part.is_skip else part.level == design.depth + 1)
        ]

    def dice(self, design: Variant | None = None) -> Dice:
        """Dice of each validation image, with zeros in the place of what a design lacks."""
        with ablated(self._network.model, self.structure, [] if design is None else self.silenced_parts(design)):
            scores = validation_scores(self._network.model, self._held_out, self._network.reading)
        return scores.images.double().numpy()

    def losses(self, epoch: int, designs: Iterable[Variant]) -> tuple[Silenced, ...]:
        """The mean validation Dice that is lost in each design. epoch: of the weights that the network has."""
        whole = self.dice()
        return tuple(Silenced(epoch, design, float(np.nanmean(whole - self.dice(design)))) for design in designs)
