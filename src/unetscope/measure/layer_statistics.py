"""From the stream of activations to the statistics of one layer after the other, merges among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from unetscope.activations.capture import Block
from unetscope.base.errors import MeasurementError
from unetscope.estimators.binning import Binning
from unetscope.estimators.kde import EXPONENT, KDE, shift_by_errors
from unetscope.estimators.ksg import KSG
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.reading import Reading, without_value
from unetscope.estimators.renyi import Renyi
from unetscope.measure.distances import Distances, Pairwise
from unetscope.measure.quantization import Symbols, joint_symbols
from unetscope.table.records import Layer

LARGEST_SHIFT = 3e-4  # nats, of I(X;M) by rounding; I(Y;M), a difference of two such, stays within 1e-3 bits
NO_SCALE = (
    "more than half of the pairs of images are equal here: there is no median distance that noise could be relative to"
)
ROUNDED_AWAY = "distances are lost in the rounding of float64: this noise variance is too small for such activations"

Estimator = KDE | Mixture | Renyi | KSG | Binning
Classes = Mapping[str, Int64[Tensor, " n"]]


@dataclass(frozen=True)
class LayerStatistics:
    """All that estimators need to know of a layer: distances between images, absolute and in units of the median one, and
    symbols by bin size. In a concatenation each part keeps its own unit, so relative noise is the same there as in the part.
    """

    distances: Pairwise | None
    relative: Pairwise | None
    symbols: Mapping[float, Int64[Tensor, " n"]]
    precise: bool

    @classmethod
    def joined(cls, parts: Sequence[LayerStatistics]) -> LayerStatistics:
        """The statistics of the concatenation of several layers: distances add up, and images are alike where all parts are."""
        distances = [part.distances for part in parts if part.distances is not None]
        relative = [part.relative for part in parts if part.relative is not None]
        return cls(
            Pairwise.joined(distances) if distances else None,
            Pairwise.joined(relative) if relative else None,
            {size: joint_symbols([part.symbols[size] for part in parts]) for size in parts[0].symbols},
            any(part.precise for part in parts),
        )

    def settled(self, estimator: Estimator, tolerance: float) -> bool:
        """Whether rounding of the distances moves no estimate of I(X;M) by more than `tolerance` nats."""
        if estimator.reads == "symbols":
            return True
        pairwise = self._pairwise(estimator)
        if not pairwise.errors.isfinite().all():
            return self._has_no_scale(estimator)
        most = 2 * pairwise.errors.max().item()
        return all(
            most <= tolerance * EXPONENT[bound] * noise_variance  # true of most layers; else look closer
            or shift_by_errors(*pairwise, noise_variance, bound=bound) <= tolerance
            for noise_variance, bound in estimator.kernels
        )

    def _statistic(self, estimator: Estimator) -> Tensor:
        return self.symbols[estimator.bin_size] if isinstance(estimator, Binning) else self._pairwise(estimator).squared

    def _pairwise(self, estimator: Estimator) -> Pairwise:
        pairwise = self.relative if estimator.reads == "relative" else self.distances
        assert pairwise is not None
        return pairwise

    def _has_no_scale(self, estimator: Estimator) -> bool:
        """Whether noise is relative to distances that are not there."""
        known = self.distances is not None and bool(self.distances.errors.isfinite().all())
        return known and estimator.reads == "relative"

    def readings(
        self, estimators: Sequence[Estimator], classes: Classes, inputs: Tensor | None = None
    ) -> Iterator[Reading]:
        """What each estimator makes of them, in nats; NaN if not even float64 settles the distances at its resolution.

        inputs: squared distances [n, n] between the images themselves, for estimators that hold layers against them.
        """
        for estimator in estimators:
            binned = isinstance(estimator, Binning)
            statistic = self._statistic(estimator)
            if isinstance(estimator, KDE) and not self.precise:
                largest = torch.finfo(torch.float32).max  # kernels cost much, and 1e-6 nats is near enough
                statistic = statistic.clamp(max=largest).float()
            here = {name: labels.to(statistic.device) for name, labels in classes.items()}
            reason = ""
            if not binned and not statistic.isfinite().all():
                reason = NO_SCALE
            elif self.precise and not self.settled(estimator, LARGEST_SHIFT):
                reason = ROUNDED_AWAY
            if isinstance(estimator, KSG):
                found = estimator.readings(statistic, here, None if inputs is None else inputs.to(statistic.device))
            else:
                found = estimator.readings(statistic, here)
            for reading in found:
                yield without_value(reading, reason) if reason else reading


def layer_statistics(
    blocks: Iterable[Block], estimators: Sequence[Estimator], n: int, *, precise: bool = False, share: bool = False
) -> Iterator[tuple[Layer, LayerStatistics]]:
    """Turn the stream of blocks into the statistics of one layer after the other; precise: with distances in float64.

    share: the processes of a group, which are all given the blocks, share the products among them.

    Raises: MeasurementError if an activation is not finite, naming the layer.
    """
    bin_sizes = dict.fromkeys(estimator.bin_size for estimator in estimators if isinstance(estimator, Binning))
    read = {estimator.reads for estimator in estimators}
    distances, symbols = None, []
    for block in blocks:
        layer = block.slice.layer
        if block.slice.start == 0:
            distances = Distances(n, precise=precise, share=share) if read & {"distances", "relative"} else None
            symbols = [Symbols(n, size) for size in bin_sizes]
        if distances is not None:
            distances.add(block.values)
        if (share or distances is None or not distances.norms.isfinite().all()) and not _finite(block.values):
            raise MeasurementError(
                f"layer {layer.label}: activations are not finite; the network has diverged, use an earlier checkpoint"
            )
        for symbol in symbols:
            symbol.add(block.values)
        if block.slice.completes_layer:
            if distances is not None:
                distances.gather()
            groups = {symbol.bin_size: symbol.groups() for symbol in symbols}
            pairwise = None if distances is None else Pairwise(errors=distances.errors, squared=distances.squared())
            relative = pairwise.relative() if pairwise is not None and "relative" in read else None
            yield layer, LayerStatistics(pairwise, relative, groups, precise)


def _finite(values: Tensor) -> bool:
    return bool(torch.stack(values.aminmax()).isfinite().all())


class Merging:
    """Statistics of layers come in, and go out again with those of the merges that they complete; parts wait for each other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._merges = {layer.label: layer.parts for layer in layers if layer.parts}
        self._waiting: dict[str, LayerStatistics] = {}

    def add(self, label: str, statistics: LayerStatistics) -> Iterator[tuple[str, LayerStatistics]]:
        """What is complete now: this layer, and merges of it with those that waited."""
        yield label, statistics
        if not any(label in parts for parts in self._merges.values()):
            return
        self._waiting[label] = statistics
        ready = [
            merge for merge, parts in self._merges.items() if label in parts and self._waiting.keys() >= set(parts)
        ]
        for merge in ready:
            joined = LayerStatistics.joined([self._waiting[part] for part in self._merges.pop(merge)])
            awaited = {part for parts in self._merges.values() for part in parts} | {
                part for later in ready for part in self._merges.get(later, ())
            }
            self._waiting = {part: kept for part, kept in self._waiting.items() if part in awaited}
            yield from self.add(merge, joined)


def most_parts(layers: Sequence[Layer]) -> int:
    """Of how many captured layers a merge consists at most; a merge of merges has all of theirs."""
    parts = {layer.label: layer.parts for layer in layers}

    def captured(label: str) -> int:
        return sum(map(captured, parts[label])) or 1

    return max(map(captured, parts))


def most_matrices(layers: Sequence[Layer]) -> int:
    """How many n × n matrices `measure` holds at most: every part of a merge while it waits, one layer, and what is joined."""
    return len({part for layer in layers for part in layer.parts}) + 2
