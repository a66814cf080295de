"""The step of an estimate from each layer to the next, and whether it is more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from unetscope.table import Flow, Interval, Quantity, difference


@dataclass(frozen=True)
class Neighbours:
    """Two consecutive layers, and by how many bits the second is above the first; None where either has no number."""

    first: str
    second: str
    step: Interval | None

    @property
    def apart(self) -> bool:
        """Whether the 95 % interval of the difference leaves out zero."""
        return self.step is not None and (self.step.low > 0 or self.step.high < 0)


def neighbours(
    flow: Flow,
    *,
    quantity: str = Quantity.USABLE,
    estimator: str | None = None,
    resolution: float | None = None,
    labels: str | None = None,
    epoch: int | None = None,
) -> list[Neighbours]:
    """The steps from layer to layer at one epoch (by default the last), paired over images; of a merge, after the joining.

    Raises: InvalidArgument, with what was measured, if what is asked for was not.
    """
    series = flow.series_of(quantity, estimator, resolution, labels)
    epoch = series.measured_epoch(epoch)
    layers = [layer.label for layer in flow.layers if layer.role != "upsampled" or layer.parts]
    steps = []
    for first, second in pairwise(layers):
        before, after = (series.estimates.get((label, epoch)) for label in (first, second))
        paired = before is not None and after is not None and before.per_image and after.per_image
        steps.append(Neighbours(first, second, difference(after, before) if paired and before and after else None))
    return steps
