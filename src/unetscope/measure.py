"""One network at one epoch to estimates in bits: the only place where capture meets estimators.

Imports records, errors, flow, schedule, labels, capture, distances, symbols, estimators and the data types. Estimators
speak nats; the division by ln 2 stands here, once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unetscope.capture import Block, default_budget, plan_passes, stream, with_shapes
from unetscope.data.segmentation import SegmentationData
from unetscope.distances import Distances
from unetscope.errors import InvalidArgument, MeasurementError, NetworkError
from unetscope.estimators.binning import Binning, symbol_information, symbol_label_information
from unetscope.estimators.kde import KDE
from unetscope.estimators.reading import Reading
from unetscope.flow import Flow
from unetscope.labels import BlockLabels, KMeansLabels, LabelScheme
from unetscope.records import Estimate, Layer, Skip
from unetscope.schedule import Schedule, is_marked
from unetscope.symbols import Symbols
from unetscope.tensors import pixels, to_input

SATURATED_FROM = 0.99  # of the ceiling: with 605 images, nine in ten are told apart from all others
BATCH_SIZE = 16

Estimator = KDE | Binning
Classes = Mapping[str, Int64[Tensor, " n"]]


class Scope:
    """What to measure of a network, on which images, with which estimators; and the table of what was measured.

    model: any network; it is read when `measure` is called and left exactly as it was. probe_set: the fixed images on
    which activations are measured. layers: module names or `Layer` records (default: those that the model itself
    describes, as `unetscope.UNet` does). skips: the skips, likewise. estimators: `KDE` and `Binning` with their
    resolutions. labels: how masks become classes for I(Y;M). epochs: which epochs are marked. memory_budget: bytes of
    activations held at once (default: a quarter of the free memory, at most 2 GiB); the less, the more forward passes.

    Raises: InvalidArgument or NetworkError for a description that does not fit, before anything is measured.

    >>> from unetscope.data.synthetic import synthetic_nuclei
    >>> from unetscope.unet import UNet
    >>> nuclei = synthetic_nuclei(8, image_size=32)
    >>> scope = Scope(UNet(width=2, depth=2), nuclei, estimators=[KDE(noise_variance=0.1)], labels=[KMeansLabels(k=4)])
    >>> len(scope.measure(epoch=0)), scope.flow.epochs      # 15 tensors × (I(X;M), I(Y;M)) × (upper, lower)
    (60, (0,))
    """

    def __init__(
        self,
        model: nn.Module,
        probe_set: SegmentationData,
        *,
        layers: Sequence[Layer | str] | None = None,
        skips: Sequence[Skip] | None = None,
        estimators: Sequence[Estimator] = (KDE(), Binning()),
        labels: Sequence[LabelScheme] = (KMeansLabels(), BlockLabels()),
        epochs: Schedule = "log",
        memory_budget: int | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        if not estimators:
            raise InvalidArgument("estimators is empty: give at least one, such as KDE(noise_variance=1.0)")
        if len(probe_set) < 2:
            raise InvalidArgument(f"a probe set of {len(probe_set)} image cannot be measured: give at least 2")
        self.model = model
        self.probe_set = probe_set
        names = [scheme.name for scheme in labels]
        for what, given in (("estimators", list(estimators)), ("labels", names)):
            if repeated := [one for place, one in enumerate(given) if one in given[:place]]:
                raise InvalidArgument(f"{what} holds {repeated[0]} more than once: its estimates would be the same")
        self.estimators = tuple(estimators)
        self.epochs: Schedule = epochs
        self.memory_budget = memory_budget
        self.batch_size = batch_size
        is_marked(epochs, 0)
        self._images = pixels(probe_set)
        self.layers = with_shapes(model, _described(model, layers), self._prepare(self._images[:1]))
        plan_passes(
            self.layers, len(probe_set), self._budget()
        )  # refuses a budget that is too small, before any training
        self.skips = tuple(skips if skips is not None else getattr(model, "skips", ()))
        self.classes = {scheme.name: torch.from_numpy(scheme.labels(probe_set.masks)) for scheme in labels}
        self._estimates: dict[tuple[object, ...], Estimate] = {}

    def is_marked(self, epoch: int) -> bool:
        """Whether the schedule marks this epoch."""
        return is_marked(self.epochs, epoch)

    def measure(self, epoch: int, *, on_batch: Callable[[int, int], None] | None = None) -> tuple[Estimate, ...]:
        """Measure every layer of the network as it is now and add the estimates to `flow` under this epoch.

        on_batch is told (forward batches done, forward batches in all).
        Raises: MeasurementError if an activation is not finite, naming the layer.
        """
        estimates = tuple(
            measure(
                self.model,
                self._images,
                self.layers,
                self.classes,
                self.estimators,
                epoch=epoch,
                budget_bytes=self._budget(),
                batch_size=self.batch_size,
                prepare=self._prepare,
                on_batch=on_batch,
            )
        )
        self._estimates.update({estimate.key: estimate for estimate in estimates})
        return estimates

    @property
    def flow(self) -> Flow:
        """The table of everything measured so far."""
        return Flow(self.layers, self.skips, tuple(self._estimates.values()))

    def _budget(self) -> int:
        return default_budget() if self.memory_budget is None else self.memory_budget

    def _prepare(self, batch: Tensor) -> Tensor:
        return to_input(batch, self.probe_set.scale)


def measure(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[Layer],
    classes: Classes,
    estimators: Sequence[Estimator],
    *,
    epoch: int,
    budget_bytes: int,
    batch_size: int = BATCH_SIZE,
    prepare: Callable[[Tensor], Tensor] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Estimates of I(X;M) and I(Y;M) in bits for every layer, in the order of the network.

    All estimators of a layer share its statistics, which are taken as the activations stream past. The distances and
    symbols of a merge are the sums of those of its parts, so it costs nothing. Arguments as in `capture.stream`.
    """
    ceilings = _ceilings(images, classes)
    merges = {layer.label: layer for layer in layers if layer.parts}
    statistics: dict[str, LayerStatistics] = {}
    readings: dict[str, list[Reading]] = {}
    blocks = stream(
        model, images, layers, budget_bytes=budget_bytes, batch_size=batch_size, prepare=prepare, on_batch=on_batch
    )
    for layer, one in layer_statistics(blocks, layers, estimators, len(images)):
        statistics[layer.label] = one
        readings[layer.label] = list(one.readings(estimators, classes))
        while ready := [merge for merge in merges.values() if all(part in statistics for part in merge.parts)]:
            for merge in ready:
                joined = LayerStatistics.joined([statistics[part] for part in merge.parts])
                statistics[merge.label] = joined
                readings[merge.label] = list(joined.readings(estimators, classes))
                del merges[merge.label]
        awaited = {part for merge in merges.values() for part in merge.parts}
        statistics = {label: kept for label, kept in statistics.items() if label in awaited}
    return [
        _estimate(reading, layer, epoch, len(images), ceilings[reading.labels])
        for layer in layers
        for reading in readings[layer.label]
    ]


def _ceilings(images: Tensor, classes: Classes) -> dict[str, float]:
    """The largest estimate in nats by label scheme ("" for I(X;M)): that of a layer which tells all different images apart.

    log n and H(Y) if no image stands twice; less if one does, since no layer can tell it from itself.
    """
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.cpu().contiguous().numpy().data, digest_size=16).digest() for image in images)
    identity = torch.tensor([seen.setdefault(digest, len(seen)) for digest in digests])
    about_label = {name: symbol_label_information(identity, labels.cpu()) for name, labels in classes.items()}
    return {"": symbol_information(identity), **about_label}


@dataclass(frozen=True)
class LayerStatistics:
    """All that estimators need to know of a layer: distances between images, and symbols for each bin size."""

    distances: Float[Tensor, "n n"] | None
    symbols: Mapping[float, Int64[Tensor, "n 8"]]

    @classmethod
    def joined(cls, parts: Sequence[LayerStatistics]) -> LayerStatistics:
        """The statistics of the concatenation of several layers: sums of theirs."""
        distances = [part.distances for part in parts if part.distances is not None]
        return cls(
            sum(distances[1:], distances[0]) if distances else None,
            {size: sum((part.symbols[size] for part in parts[1:]), words) for size, words in parts[0].symbols.items()},
        )

    def readings(self, estimators: Sequence[Estimator], classes: Classes) -> Iterator[Reading]:
        """What each estimator makes of them, in nats."""
        for estimator in estimators:
            if isinstance(estimator, KDE):
                assert self.distances is not None
                here = {name: labels.to(self.distances.device) for name, labels in classes.items()}
                yield from estimator.readings(self.distances, here)
            else:
                words = self.symbols[estimator.bin_size]
                yield from estimator.readings(
                    words, {name: labels.to(words.device) for name, labels in classes.items()}
                )


def layer_statistics(
    blocks: Iterator[Block], layers: Sequence[Layer], estimators: Sequence[Estimator], n: int
) -> Iterator[tuple[Layer, LayerStatistics]]:
    """Turn the stream of blocks into the statistics of one layer after the other."""
    salts = {layer.label: place for place, layer in enumerate(layers)}
    bin_sizes = dict.fromkeys(estimator.bin_size for estimator in estimators if isinstance(estimator, Binning))
    with_distances = any(isinstance(estimator, KDE) for estimator in estimators)
    distances, symbols = None, []
    for block in blocks:
        layer, start = block.slice.layer, block.slice.start
        if not torch.isfinite(block.values.sum(dtype=torch.float64)):
            raise MeasurementError(
                f"layer {layer.label}: activations are not finite; the network has diverged, use an earlier checkpoint"
            )
        if start == 0:
            distances = Distances(n) if with_distances else None
            symbols = [Symbols(n, size, salts[layer.label]) for size in bin_sizes]
        for symbol in symbols:
            symbol.add(block.values, start)
        if distances is not None:
            distances.add(block.values)
        if block.slice.completes_layer:
            squared = None if distances is None else distances.squared()
            yield layer, LayerStatistics(squared, {symbol.bin_size: symbol.words for symbol in symbols})


def _estimate(reading: Reading, layer: Layer, epoch: int, n: int, ceiling: float) -> Estimate:
    """A reading with its place, in bits; values that rounding put a hair above the ceiling are the ceiling."""
    bit = math.log(2)
    constant = ceiling <= 0
    lower, upper = max(0.0, reading.lower), min(ceiling, reading.upper)
    return Estimate(
        epoch=epoch,
        layer=layer.label,
        quantity=reading.quantity,
        estimator=reading.estimator,
        resolution=reading.resolution,
        labels=reading.labels,
        bits=math.nan if constant else min(reading.nats, ceiling) / bit,
        lower=math.nan if constant or math.isnan(reading.lower) else min(lower, upper) / bit,
        upper=math.nan if constant or math.isnan(reading.upper) else upper / bit,
        ceiling=ceiling / bit,
        saturated=not constant and reading.nats >= SATURATED_FROM * ceiling,
        n=n,
        d=layer.size,
        unique_share=reading.unique_share,
        reason=_reason(reading) if constant else "",
    )


def _reason(reading: Reading) -> str:
    return "every image has the same label" if reading.labels else "all images are equal"


def _described(model: nn.Module, layers: Sequence[Layer | str] | None) -> tuple[Layer, ...]:
    """The layers asked for, or those that the model itself describes."""
    if layers is None:
        own = getattr(model, "layers", None)
        if not (isinstance(own, tuple) and own and all(isinstance(layer, Layer) for layer in own)):
            raise NetworkError(
                f"{type(model).__name__} does not describe its layers: name those to measure, "
                "layers=[...], from model.named_modules()"
            )
        return own
    if not layers:
        raise InvalidArgument("layers is empty: name at least one module")
    return tuple(Layer(layer, layer) if isinstance(layer, str) else layer for layer in layers)
