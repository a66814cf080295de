"""From the stream of activations to the statistics of one layer after the other, and from these to readings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unetscope.activations import Block
from unetscope.base import MeasurementError
from unetscope.estimators import (
    EXPONENT,
    MANY,
    Classes,
    Estimator,
    Groups,
    LayerStatistics,
    Needs,
    Pairwise,
    Reading,
    shift_by_errors,
    without_value,
)
from unetscope.measure.distances import Distances
from unetscope.measure.merges import Merging
from unetscope.measure.quantization import Symbols
from unetscope.table import Layer

LARGEST_SHIFT = 3e-4  # nats, of I(X;M) by rounding; I(Y;M), a difference of two such, stays within 1e-3 bits
NO_SCALE = (
    "more than half of the pairs of images are equal here: there is no median distance that noise could be relative to"
)
ROUNDED_AWAY = "distances are lost in the rounding of float64: this noise variance is too small for such activations"


def settled(statistics: LayerStatistics, estimator: Estimator, tolerance: float) -> bool:
    """Whether rounding of the distances moves every estimate of I(X;M) by at most `tolerance` nats."""
    pairwise = _distances_read(statistics, estimator)
    if pairwise is None:
        return True
    if not pairwise.errors.isfinite().all():  # float64 settles activations that are too large, but not a median of 0
        return estimator.needs.relative and bool(statistics.pairwise(relative=False).errors.isfinite().all())
    most = 2 * pairwise.errors.max().item()
    return all(
        most
        <= tolerance * EXPONENT[bound] * noise_variance  # true of most layers; otherwise the exact shift is computed
        or shift_by_errors(pairwise.squared, pairwise.errors, noise_variance, bound=bound) <= tolerance
        for noise_variance, bound in estimator.kernels
    )


def readings_of(statistics: LayerStatistics, estimators: Sequence[Estimator], classes: Classes) -> Iterator[Reading]:
    """The readings of each estimator in nats; NaN if even float64 distances are too inexact at its resolution."""
    on_device = {name: labels.to(statistics.device) for name, labels in classes.items()}
    for estimator in estimators:
        reason = _no_value(statistics, estimator)
        for reading in estimator.readings(statistics, on_device):
            yield without_value(reading, reason) if reason else _over_groups(reading, statistics)


def _over_groups(reading: Reading, statistics: LayerStatistics) -> Reading:
    """The reading, without the interval and null of an estimator that takes images in groups for independent."""
    if statistics.groups is None or not math.isnan(reading.groups) or math.isnan(reading.nats):
        return reading
    reason = reading.reason or f"{reading.estimator} knows no groups of images: its interval and p would be too good"
    nan = math.nan
    return replace(reading, low=nan, high=nan, null_mean=nan, null_high=nan, p=nan, per_image=(), reason=reason)


def _distances_read(statistics: LayerStatistics, estimator: Estimator) -> Pairwise | None:
    """The distances that an estimator reads, if it reads any."""
    needs = estimator.needs
    return statistics.pairwise(relative=needs.relative) if needs.distances or needs.relative else None


def _no_value(statistics: LayerStatistics, estimator: Estimator) -> str:
    """Why an estimator cannot use the distances; empty if it can."""
    pairwise = _distances_read(statistics, estimator)
    if pairwise is not None and not pairwise.squared.isfinite().all():
        return NO_SCALE
    if statistics.precise and not settled(statistics, estimator, LARGEST_SHIFT):
        return ROUNDED_AWAY
    return ""


def layer_statistics(
    blocks: Iterable[Block],
    estimators: Sequence[Estimator],
    n: int,
    *,
    precise: bool = False,
    share: bool = False,
    inputs: Float[Tensor, "n n"] | None = None,
    groups: Groups | None = None,
) -> Iterator[tuple[Layer, LayerStatistics]]:
    """Turn the stream of blocks into the statistics of one layer after the other; precise: with distances in float64.

    share: the processes of a group, which are all given the blocks, share the products among them. inputs: squared distances
    between the images themselves, for estimators that compare layers with them. groups: of images that are not independent.

    Raises: MeasurementError if an activation is not finite, naming the layer.
    """
    needs = Needs.of_all(estimators)
    distances, symbols = None, []
    for block in blocks:
        layer = block.slice.layer
        if block.slice.start == 0:
            distances = Distances(n, precise=precise, share=share) if needs.distances or needs.relative else None
            symbols = [Symbols(n, size) for size in needs.bin_sizes]
        if distances is not None:
            distances.add(block.values)
        # finite norms imply finite activations, if this process has all of the products
        if (share or distances is None or not distances.norms.isfinite().all()) and not _finite(block.values):
            raise diverged(layer.label)
        for symbol in symbols:
            symbol.add(block.values)
        if block.slice.completes_layer:
            if distances is not None:
                distances.gather()
            shared = {symbol.bin_size: symbol.groups() for symbol in symbols}
            pairwise = None if distances is None else Pairwise(errors=distances.errors, squared=distances.squared())
            relative = pairwise.relative() if pairwise is not None and needs.relative else None
            of_images = None if groups is None else groups.to(block.values.device)
            yield (
                layer,
                LayerStatistics(pairwise, relative, shared, precise, _on_device(inputs, block.values), of_images),
            )


def diverged(label: str) -> MeasurementError:
    """The error for a layer whose activations are not finite."""
    return MeasurementError(
        f"layer {label}: activations are not finite; the network has diverged, use an earlier checkpoint"
    )


def _on_device(inputs: Tensor | None, values: Tensor) -> Tensor | None:
    return None if inputs is None else inputs.to(values.device)


def _finite(values: Tensor) -> bool:
    return bool(torch.stack(values.aminmax()).isfinite().all())


def most_parts(layers: Sequence[Layer]) -> int:
    """Of how many captured layers a merge consists at most; a merge of merges has all of theirs."""
    parts = {layer.label: layer.parts for layer in layers}

    def captured(label: str) -> int:
        return sum(map(captured, parts[label])) or 1

    return max(map(captured, parts))


def bytes_a_pair(layers: Sequence[Layer], n: int) -> int:
    """The bytes that `measure` holds at most for each pair of n images: distances of layers that wait for their merge, those of
    one layer in float64, those that join or their kernel, and the kernel of the other bound or a strip of it.
    """
    of_waiting = 4 if n >= MANY else 8
    merging = Merging(layers, join=len, keep=int)
    most = 0
    for layer in layers:
        if not layer.parts:
            for _ in merging.add(layer.label, 0):
                most = max(most, merging.waiting)
    return of_waiting * most + 2 * 8
