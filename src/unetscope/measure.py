"""One network at one epoch to estimates in bits: the only place where capture meets estimators.

Imports records, errors, flow, schedule, labels, arena, budget, capture, distances, symbols, estimators and the data types.
Estimators speak nats; the division by ln 2 stands here, once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from unetscope.arena import Arena
from unetscope.budget import LARGEST_BATCH, Budget, default_budget
from unetscope.capture import Block, device_of, forward_bytes, stream, with_shapes
from unetscope.data.segmentation import SegmentationData
from unetscope.distances import Distances, Pairwise
from unetscope.errors import InvalidArgument, MeasurementError, NetworkError
from unetscope.estimators.binning import Binning, symbol_information, symbol_label_information
from unetscope.estimators.kde import BOUNDS, EXPONENT, KDE, shift_by_errors
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.reading import Reading, lost
from unetscope.flow import Flow
from unetscope.intervals import Interval, student
from unetscope.labels import BlockLabels, KMeansLabels, LabelScheme
from unetscope.probing import Segmented, probe
from unetscope.records import Estimate, Layer, Quantity, Skip
from unetscope.schedule import Schedule, is_marked
from unetscope.symbols import Symbols, joint_symbols
from unetscope.tensors import pixels, to_input

SATURATED_FROM = 0.99  # of the ceiling: with 605 images, nine in ten are told apart from all others
LARGEST_SHIFT = 3e-4  # nats, of I(X;M) by rounding; I(Y;M), a difference of two such, stays within 1e-3 bits
NO_DIFFERENCE = "the layer is the same for every image"
ONE_BIN = "every image falls into the same bins: the layer is the same for all, or the bin size too large"
NO_SCALE = (
    "more than half of the pairs of images are equal here: there is no median distance that noise could be relative to"
)
ROUNDED_AWAY = "distances are lost in the rounding of float64: this noise variance is too small for such activations"

Estimator = KDE | Mixture | Binning
Classes = Mapping[str, Int64[Tensor, " n"]]


class Scope:
    """What to measure of a network, on which images, with which estimators; and the table of what was measured.

    model: any network; it is read when `measure` is called and left exactly as it was. probe_set: the fixed images on
    which activations are measured. layers: module names or `Layer` records (default: those that the model itself
    describes, as `unetscope.UNet` does). skips: the skips, likewise. estimators: `KDE` and `Binning` with their
    resolutions. labels: how masks become classes for I(Y;M). held_out: other images with masks; with them, the usable
    information of every layer and merge is measured too. epochs: which epochs are marked. memory_budget: bytes that
    measuring may hold at once (default: a quarter of what is free); the less, the more forward passes. largest_batch: images
    that run through the network at a time, fewer if memory is short.

    Raises: InvalidArgument or NetworkError for a description that does not fit, before anything is measured.

    >>> from unetscope.data.synthetic import synthetic_nuclei
    >>> from unetscope.unet import UNet
    >>> nuclei = synthetic_nuclei(8, image_size=32)
    >>> scope = Scope(UNet(width=2, depth=2), nuclei, estimators=[KDE(noise_variance=0.1)], labels=[KMeansLabels(k=4)])
    >>> len(scope.measure(epoch=0)), scope.flow.epochs      # (15 tensors × (X, Y) + 2 merges × 3) × (upper, lower)
    (72, (0,))
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
        held_out: SegmentationData | None = None,
        epochs: Schedule = "log",
        memory_budget: int | None = None,
        largest_batch: int = LARGEST_BATCH,
    ) -> None:
        if not estimators and held_out is None:
            raise InvalidArgument("estimators is empty: give at least one, such as KDE(noise_variance=1.0)")
        if len(probe_set) < 2:
            raise InvalidArgument(f"a probe set of {len(probe_set)} image cannot be measured: give at least 2")
        self.model = model
        self.probe_set = probe_set
        self.held_out = held_out
        _check_held_out(probe_set, held_out)
        names = [scheme.name for scheme in labels]
        for what, given in (("estimators", list(estimators)), ("labels", names)):
            if repeated := [one for place, one in enumerate(given) if one in given[:place]]:
                raise InvalidArgument(f"{what} holds {repeated[0]} more than once: its estimates would be the same")
        self.estimators = tuple(estimators)
        self.epochs: Schedule = epochs
        self.memory_budget = memory_budget
        self.largest_batch = largest_batch
        is_marked(epochs, 0)
        self._images = pixels(probe_set)
        example = self._prepare(self._images[:1])
        self.layers = with_shapes(model, _described(model, layers), example)
        self._forward_bytes = forward_bytes(model, example)
        self._budgets: dict[torch.device, Budget] = {}
        self._arena: Arena | None = None
        self._budget_on(device_of(model))  # refuses one that is too small, before any training
        self.skips = tuple(skips if skips is not None else getattr(model, "skips", ()))
        self.classes = {scheme.name: torch.from_numpy(scheme.labels(probe_set.masks)) for scheme in labels}
        self._estimates: dict[tuple[object, ...], Estimate] = {}

    def is_marked(self, epoch: int) -> bool:
        """Whether the schedule marks this epoch."""
        return is_marked(self.epochs, epoch)

    def measure(self, epoch: int, *, on_batch: Callable[[int, int], None] | None = None) -> tuple[Estimate, ...]:
        """Measure every layer of the network as it is now and add the estimates to `flow` under this epoch.

        The memory that holds activations is kept for the next measurement, and left to the system in between.

        on_batch is told (forward batches done, forward batches in all); for layers that float64 has to settle, and for usable
        information, it begins anew.
        Raises: MeasurementError if an activation is not finite, naming the layer, or if memory runs out.
        """
        estimates = self._clustering(epoch, on_batch) if self.estimators else []
        if self.held_out is not None:
            estimates += measure_usable(
                self.model,
                _segmented(self.probe_set),
                _segmented(self.held_out),
                self.layers,
                self.skips,
                epoch=epoch,
                batch_size=self.budget.batch_size,
                on_batch=on_batch,
            )
        self._estimates.update({estimate.key: estimate for estimate in estimates})
        return tuple(estimates)

    def _clustering(self, epoch: int, on_batch: Callable[[int, int], None] | None) -> list[Estimate]:
        """What the estimators make of how the images cluster in each layer."""
        if self._arena is None or self._arena.device != device_of(self.model):
            self._arena = Arena(device_of(self.model))
        try:
            return measure(
                self.model,
                self._images,
                self.layers,
                self.classes,
                self.estimators,
                epoch=epoch,
                budget=self.budget,
                skips=self.skips,
                arena=self._arena,
                prepare=self._prepare,
                on_batch=on_batch,
            )
        finally:
            self._arena.rest()

    @property
    def flow(self) -> Flow:
        """The table of everything measured so far."""
        return Flow(self.layers, self.skips, tuple(self._estimates.values()))

    @property
    def budget(self) -> Budget:
        """How the memory allowed is shared out on the device where the network is."""
        return self._budget_on(device_of(self.model))

    def _budget_on(self, device: torch.device) -> Budget:
        if device not in self._budgets:
            self._budgets[device] = Budget(
                self.memory_budget or default_budget(device),
                n=len(self.probe_set),
                matrices=most_matrices(self.layers),
                forward_bytes=self._forward_bytes,
                largest_batch=self.largest_batch,
            )
        return self._budgets[device]

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
    budget: Budget,
    skips: Sequence[Skip] = (),
    arena: Arena | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Estimates of I(X;M) and I(Y;M) in bits for every layer, in the order of the network; at the merges of the skips, too,
    what the two streams tell of the label beyond each other.

    All estimators of a layer share its statistics, which are taken as the activations stream past. Those of a merge follow
    from those of its parts, so it costs nothing. Layers whose distances float32 does not settle are streamed once more
    and measured in float64. Other arguments as in `capture.stream`.
    """
    ceilings = _ceilings(images, classes)
    arena = arena or Arena(device_of(model))
    readings: dict[str, list[Reading]] = {}
    merging = _Merging(layers)
    tolerance = LARGEST_SHIFT / most_parts(layers)
    wanted: list[Layer] = [layer for layer in layers if not layer.parts]
    for precise in (False, True):
        unsettled = []
        blocks = stream(
            model,
            images,
            budget.passes(wanted),
            batch_size=budget.batch_size,
            arena=arena,
            prepare=prepare,
            on_batch=on_batch,
        )
        for layer, statistics in layer_statistics(blocks, estimators, len(images), precise=precise):
            if not precise and not all(statistics.settled(estimator, tolerance) for estimator in estimators):
                unsettled.append(layer)
                continue
            for label, known in merging.add(layer.label, statistics):
                readings[label] = list(known.readings(estimators, classes))
        wanted = unsettled
    estimates = [
        _estimate(reading, layer, epoch, len(images), ceilings[reading.labels])
        for layer in layers
        for reading in readings[layer.label]
    ]
    return estimates + [estimate for skip in skips for estimate in at_merge(skip, estimates)]


def at_merge(skip: Skip, estimates: Sequence[Estimate]) -> list[Estimate]:
    """I(Y;S|U) = I(Y;S,U) − I(Y;U), its counterpart, and I(Y;S) + I(Y;U) − I(Y;S,U), by every estimator of I(Y;M).

    estimates: of one epoch. Brackets are those of the sums, intervals are paired over the images. Where the merge tells nearly
    all images apart, differences of what it tells about the label are differences of ceilings: they are marked as saturated.

    Source: Cover & Thomas, Elements of Information Theory, section 2.5.
    """
    known = {(e.layer, e.quantity, e.estimator, e.resolution, e.labels): e for e in estimates}
    found = []
    for both in estimates:
        if both.layer != skip.merge or both.quantity != "I(Y;M)":
            continue
        how = both.estimator, both.resolution
        s, u = (known.get((layer, "I(Y;M)", *how, both.labels)) for layer in (skip.source, skip.upsampled))
        if s is None or u is None:
            continue
        apart = known[skip.merge, "I(X;M)", *how, ""]
        sums: dict[Quantity, tuple[list[Estimate], list[Estimate]]] = {
            "I(Y;S|U)": ([both], [u]),
            "I(Y;U|S)": ([both], [s]),
            "I(Y;S;U)": ([s, u], [both]),
        }
        for quantity, (plus, minus) in sums.items():
            per_image: tuple[float, ...] = ()
            if all(e.per_image for e in (both, s, u)):
                added, taken = (np.sum([e.per_image for e in part], axis=0) for part in (plus, minus))
                per_image = tuple((added - taken).tolist())
            interval = student(per_image) if per_image else Interval(math.nan, math.nan, math.nan)
            found.append(
                replace(
                    both,
                    quantity=quantity,
                    low=interval.low,
                    high=interval.high,
                    per_image=per_image,
                    null_mean=math.nan,
                    null_high=math.nan,
                    p=math.nan,
                    bits=sum(e.bits for e in plus) - sum(e.bits for e in minus),
                    lower=sum(e.lower for e in plus) - sum(e.upper for e in minus),
                    upper=sum(e.upper for e in plus) - sum(e.lower for e in minus),
                    saturated=apart.saturated,
                    reason=next((e.reason for e in (both, s, u) if e.reason), ""),
                )
            )
    return found


def measure_usable(
    model: nn.Module,
    train: Segmented,
    held_out: Segmented,
    layers: Sequence[Layer],
    skips: Sequence[Skip] = (),
    *,
    epoch: int,
    classes: int = 2,
    batch_size: int = LARGEST_BATCH,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Usable information in bits a pixel of every layer, and at every skip's merge, in the order of the network.

    Arguments and Raises as of `probing.probe`.
    """
    readings = probe(model, train, held_out, layers, skips, classes=classes, batch_size=batch_size, on_batch=on_batch)
    return [
        _estimate(reading, layer, epoch, len(held_out.images), reading.ceiling)
        for layer in layers
        for reading in readings[layer.label]
    ]


class _Merging:
    """Layers come in, and go out again together with the merges that they complete; parts wait for each other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._merges = {layer.label: layer.parts for layer in layers if layer.parts}
        self._waiting: dict[str, LayerStatistics] = {}

    def add(self, label: str, statistics: LayerStatistics) -> Iterator[tuple[str, LayerStatistics]]:
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
        if isinstance(estimator, Binning):
            return True
        pairwise = self._read_by(estimator)
        if not pairwise.errors.isfinite().all():
            return self._has_no_scale(estimator)
        most = 2 * pairwise.errors.max().item()
        return all(
            most <= tolerance * EXPONENT[bound] * estimator.noise_variance  # true of most layers; else look closer
            or shift_by_errors(*pairwise, estimator.noise_variance, bound=bound) <= tolerance
            for bound in BOUNDS
        )

    def _statistic(self, estimator: Estimator) -> Tensor:
        return self.symbols[estimator.bin_size] if isinstance(estimator, Binning) else self._read_by(estimator).squared

    def _read_by(self, estimator: KDE | Mixture) -> Pairwise:
        pairwise = self.relative if estimator.relative else self.distances
        assert pairwise is not None
        return pairwise

    def _has_no_scale(self, estimator: Estimator) -> bool:
        """Whether noise is relative to distances that are not there."""
        if isinstance(estimator, Binning) or not estimator.relative:
            return False
        return self.distances is not None and bool(self.distances.errors.isfinite().all())

    def readings(self, estimators: Sequence[Estimator], classes: Classes) -> Iterator[Reading]:
        """What each estimator makes of them, in nats; NaN if not even float64 settles the distances at its resolution."""
        for estimator in estimators:
            binned = isinstance(estimator, Binning)
            statistic = self._statistic(estimator)
            here = {name: labels.to(statistic.device) for name, labels in classes.items()}
            reason, note = "", ""
            if not binned and not statistic.isfinite().all():
                reason, statistic = NO_SCALE, torch.zeros_like(statistic)
            elif self.precise and not self.settled(estimator, LARGEST_SHIFT):
                reason = ROUNDED_AWAY
            elif bool((statistic == statistic.flatten()[0]).all()):
                note = ONE_BIN if binned else NO_DIFFERENCE
            for reading in estimator.readings(statistic, here):
                yield lost(reading, reason) if reason else replace(reading, reason=reading.reason or note)


def layer_statistics(
    blocks: Iterable[Block], estimators: Sequence[Estimator], n: int, *, precise: bool = False
) -> Iterator[tuple[Layer, LayerStatistics]]:
    """Turn the stream of blocks into the statistics of one layer after the other; precise: with distances in float64.

    Raises: MeasurementError if an activation is not finite, naming the layer.
    """
    bin_sizes = dict.fromkeys(estimator.bin_size for estimator in estimators if isinstance(estimator, Binning))
    with_distances = any(not isinstance(estimator, Binning) for estimator in estimators)
    with_relative = any(not isinstance(estimator, Binning) and estimator.relative for estimator in estimators)
    distances, symbols = None, []
    for block in blocks:
        layer = block.slice.layer
        if block.slice.start == 0:
            distances = Distances(n, precise=precise) if with_distances else None
            symbols = [Symbols(n, size) for size in bin_sizes]
        if distances is not None:
            distances.add(block.values)
        if (distances is None or not distances.norms.isfinite().all()) and not _finite(block.values):
            raise MeasurementError(
                f"layer {layer.label}: activations are not finite; the network has diverged, use an earlier checkpoint"
            )
        for symbol in symbols:
            symbol.add(block.values)
        if block.slice.completes_layer:
            groups = {symbol.bin_size: symbol.groups() for symbol in symbols}
            pairwise = None if distances is None else Pairwise(errors=distances.errors, squared=distances.squared())
            relative = pairwise.relative() if pairwise is not None and with_relative else None
            yield layer, LayerStatistics(pairwise, relative, groups, precise)


def _finite(values: Tensor) -> bool:
    return bool(torch.stack(values.aminmax()).isfinite().all())


def _estimate(reading: Reading, layer: Layer, epoch: int, n: int, ceiling: float) -> Estimate:
    """A reading with its place, in bits; values that rounding put a hair above the ceiling are the ceiling."""
    bit = math.log(2)
    constant, none = ceiling <= 0, math.isnan(reading.nats)
    reason = _reason(reading) if constant else reading.reason
    no_interval = math.isnan(reading.low)  # then it is what these images give, which cannot exceed their ceiling
    lower, upper = max(0.0, reading.lower), min(ceiling, reading.upper)
    return Estimate(
        epoch=epoch,
        layer=layer.label,
        quantity=reading.quantity,
        estimator=reading.estimator,
        resolution=reading.resolution,
        labels=reading.labels,
        bits=math.nan if constant or none else (min(reading.nats, ceiling) if no_interval else reading.nats) / bit,
        lower=math.nan if constant or math.isnan(reading.lower) else min(lower, upper) / bit,
        upper=math.nan if constant or math.isnan(reading.upper) else upper / bit,
        ceiling=ceiling / bit,
        saturated=not constant and no_interval and reading.nats >= SATURATED_FROM * ceiling,
        n=n,
        d=layer.size,
        unique_share=reading.unique_share,
        reason=reason,
        low=reading.low / bit,
        high=reading.high / bit,
        null_mean=reading.null_mean / bit,
        null_high=reading.null_high / bit,
        p=reading.p,
        train_bits=reading.train / bit,
        extrapolated=reading.extrapolated / bit,
        per_image=tuple(nats / bit for nats in reading.per_image),
    )


def _reason(reading: Reading) -> str:
    return "every image has the same label" if reading.labels else "all images are equal"


def _segmented(data: SegmentationData) -> Segmented:
    return Segmented(pixels(data), torch.from_numpy(data.masks), lambda batch: to_input(batch, data.scale))


def _check_held_out(probe_set: SegmentationData, held_out: SegmentationData | None) -> None:
    if held_out is not None and (held_out.channels, held_out.image_size) != (probe_set.channels, probe_set.image_size):
        raise InvalidArgument(
            f"held-out images of {held_out.channels} channels, {held_out.image_size} pixels do not go with a probe set of "
            f"{probe_set.channels} channels, {probe_set.image_size} pixels"
        )


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
