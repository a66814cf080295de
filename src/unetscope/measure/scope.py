"""One network at one epoch to estimates in bits: the only place where capture meets estimators.

Estimators speak nats; the division by ln 2 stands here, once.
"""

from __future__ import annotations

import fnmatch
import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unetscope.activations.activation_buffer import ActivationBuffer
from unetscope.activations.capture import as_input, bare, device_of, forward_bytes, stream, with_shapes
from unetscope.activations.distributed import broadcast, world_size
from unetscope.activations.memory_budget import FEATURES_AT_ONCE, LARGEST_BATCH, Budget, default_budget
from unetscope.activations.precision import full_float32, unscaled
from unetscope.activations.tensors import pixels, to_input
from unetscope.base.errors import InvalidArgument, NetworkError, nearest
from unetscope.base.random_state import preserve_rng
from unetscope.data.segmentation import SegmentationData
from unetscope.estimators.binning import Binning, symbol_information, symbol_label_information
from unetscope.estimators.families import Convolutional, Family, Linear
from unetscope.estimators.kde import KDE
from unetscope.estimators.ksg import KSG
from unetscope.estimators.labels import BlockLabels, KMeansLabels, LabelScheme, singleton_share
from unetscope.estimators.reading import SATURATED_FROM, Reading
from unetscope.measure.distances import Distances
from unetscope.measure.layer_statistics import (
    LARGEST_SHIFT,
    Classes,
    Estimator,
    Merging,
    layer_statistics,
    most_matrices,
    most_parts,
)
from unetscope.measure.merges import at_merge
from unetscope.measure.probing import Segmented, probe
from unetscope.networks.skip_detection import inspect
from unetscope.table.flow import Flow
from unetscope.table.quantities import Quantity
from unetscope.table.records import Estimate, Layer, Skip, estimator_text
from unetscope.table.schedule import Schedule, is_marked

LINEAR, CONVOLUTIONAL = Linear(), Convolutional()


class Scope:
    """What to measure of a network, on which images, with which estimators; and the table of what was measured.

    model: any network; it is read when `measure` is called and left exactly as it was. probe_set: the fixed images on
    which activations are measured. layers: names of modules, patterns of them such as `"decoder.*"`, or `Layer` records
    (default: those that the model itself describes, as `unetscope.UNet` does, else what `inspect` finds). skips: the skips,
    likewise. estimators: `KDE`, `Mixture`, `Binning`, `Renyi` and
    `KSG` with their resolutions. labels: how masks become classes for I(Y;M). held_out: other images with masks; with them,
    the usable information of every layer and merge is measured too, by each family of `probes`, and what the streams of each
    merge add to each other by each family of `merge_probes`, on which verdicts rest. epochs: which epochs are marked.
    memory_budget: bytes that measuring may hold at once (default: a quarter of what is free); the less, the more forward
    passes. largest_batch: images that run through the network at a time, fewer if memory is short. share: under a process
    group (`torchrun`), every process measures its share of the images and all have the estimates; then all must call `measure`.

    Raises: InvalidArgument or NetworkError for a description that does not fit, before anything is measured.

    >>> from unetscope.data.synthetic import synthetic_nuclei
    >>> from unetscope.networks.unet import UNet
    >>> nuclei = synthetic_nuclei(8, image_size=32)
    >>> scope = Scope(UNet(width=2, depth=2), nuclei, estimators=[KDE(noise_variance=0.1)], labels=[KMeansLabels(k=4)])
    >>> len(scope.measure(epoch=0)), scope.flow.epochs      # (15 tensors × (X, Y) + 2 merges × 3) × (upper, lower)
    (72, (0,))
    """

    @preserve_rng()
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
        probes: Sequence[Family] = (LINEAR,),
        merge_probes: Sequence[Family] = (CONVOLUTIONAL,),
        epochs: Schedule = "log",
        memory_budget: int | None = None,
        largest_batch: int = LARGEST_BATCH,
        share: bool = False,
    ) -> None:
        if not estimators and held_out is None:
            raise InvalidArgument("estimators is empty: give at least one, such as KDE(noise_variance=1.0)")
        if len(probe_set) < 2:
            raise InvalidArgument(f"a probe set of {len(probe_set)} image cannot be measured: give at least 2")
        self.model = model = bare(model)
        self.probe_set = probe_set
        self.held_out = held_out
        self.probes = tuple(probes) if held_out is not None else ()
        of_all = {family.name for family in self.probes}
        self.merge_probes = tuple(f for f in merge_probes if held_out is not None and f.name not in of_all)
        _check_held_out(probe_set, held_out)
        given = {
            "estimators": [estimator_text(*series) for estimator in estimators for series in estimator.series],
            "labels": [scheme.name for scheme in labels],
            "probes": [family.name for family in probes],
            "merge_probes": [family.name for family in merge_probes],
        }
        for what, names in given.items():
            if repeated := [one for place, one in enumerate(names) if one in names[:place]]:
                raise InvalidArgument(f"{what} holds {repeated[0]} more than once: its estimates would be the same")
        self.estimators = tuple(estimators)
        self.epochs: Schedule = epochs
        self.memory_budget = memory_budget
        self.largest_batch = largest_batch
        self.share = share and world_size() > 1
        is_marked(epochs, 0)
        self._images = pixels(probe_set)
        example = self._prepare(self._images[:1])
        described, carried = _described(model, layers, skips, example)
        self.layers = with_shapes(model, described, example)
        self._forward_bytes = forward_bytes(model, example)
        self._budgets: dict[torch.device, Budget] = {}
        self._activation_buffer: ActivationBuffer | None = None
        self._budget_on(device_of(model))  # refuses one that is too small, before any training
        self.skips = _checked(carried, self.layers)
        self.classes = {scheme.name: torch.from_numpy(scheme.labels(probe_set.masks)) for scheme in labels}
        self._estimates: dict[tuple[object, ...], Estimate] = {}

    def is_marked(self, epoch: int) -> bool:
        """Whether the schedule marks this epoch."""
        return is_marked(self.epochs, epoch)

    @preserve_rng()
    @unscaled()
    def measure(self, epoch: int, *, on_batch: Callable[[int, int], None] | None = None) -> tuple[Estimate, ...]:
        """Measure every layer of the network as it is now and add the estimates to `flow` under this epoch.

        The memory that holds activations is kept for the next measurement, and left to the system in between.

        on_batch is told (forward batches done, forward batches in all); for layers that float64 has to settle, and for usable
        information, it begins anew.
        Raises: MeasurementError if an activation is not finite, naming the layer, or if memory runs out.
        """
        estimates = self._clustering(epoch, on_batch) if self.estimators else []
        for family in self.probes:
            estimates += self._usable(family, self.layers, epoch, on_batch)
        at_merges = {label for skip in self.skips for label in (skip.source, skip.upsampled, skip.merge)}
        layers = [layer for layer in self.layers if layer.label in at_merges]
        for family in self.merge_probes if layers else ():
            found = self._usable(family, layers, epoch, on_batch)
            estimates += [estimate for estimate in found if estimate.quantity != Quantity.USABLE]
        self._estimates.update({estimate.key: estimate for estimate in estimates})
        return tuple(estimates)

    def _usable(
        self, family: Family, layers: Sequence[Layer], epoch: int, on_batch: Callable[[int, int], None] | None
    ) -> list[Estimate]:
        """What probes of a family make of some layers, and of the merges among them."""
        assert self.held_out is not None
        return measure_usable(
            self.model,
            _segmented(self.probe_set),
            _segmented(self.held_out),
            layers,
            self.skips,
            family=family,
            epoch=epoch,
            classes=self.probe_set.classes,
            batch_size=self.budget.batch_size,
            share=self.share,
            on_batch=on_batch,
        )

    def _clustering(self, epoch: int, on_batch: Callable[[int, int], None] | None) -> list[Estimate]:
        """What the estimators make of how the images cluster in each layer."""
        if self._activation_buffer is None or self._activation_buffer.device != device_of(self.model):
            self._activation_buffer = ActivationBuffer(device_of(self.model))
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
                share=self.share,
                activation_buffer=self._activation_buffer,
                prepare=self._prepare,
                on_batch=on_batch,
            )
        finally:
            self._activation_buffer.rest()

    def recall(self, flow: Flow) -> None:
        """Take up what was measured before of the same layers, so that `flow` holds it too."""
        self._estimates = {estimate.key: estimate for estimate in flow.estimates} | self._estimates

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
                self.memory_budget or (broadcast(default_budget(device)) if self.share else default_budget(device)),
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
    activation_buffer: ActivationBuffer | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    share: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Estimates of I(X;M) and I(Y;M) in bits for every layer, in the order of the network; at the merges of the skips, too,
    what the two streams tell of the label beyond each other.

    All estimators of a layer share its statistics, which are taken as the activations stream past. Those of a merge follow
    from those of its parts, so it costs nothing. Layers whose distances float32 does not settle are streamed once more
    and measured in float64. Other arguments as in `capture.stream`.
    """
    ceilings = _ceilings(images, classes)
    singletons = {name: singleton_share(labels) for name, labels in classes.items()}
    inputs = _squared(images) if any(isinstance(estimator, KSG) for estimator in estimators) else None
    activation_buffer = activation_buffer or ActivationBuffer(device_of(model))
    readings: dict[str, list[Reading]] = {}
    merging = Merging(layers)
    tolerance = LARGEST_SHIFT / most_parts(layers)
    wanted: list[Layer] = [layer for layer in layers if not layer.parts]
    for precise in (False, True):
        unsettled = []
        blocks = stream(
            model,
            images,
            budget.passes(wanted),
            batch_size=budget.batch_size,
            activation_buffer=activation_buffer,
            prepare=prepare,
            share=share,
            on_batch=on_batch,
        )
        for layer, statistics in layer_statistics(blocks, estimators, len(images), precise=precise, share=share):
            if not precise and not all(statistics.settled(estimator, tolerance) for estimator in estimators):
                unsettled.append(layer)
                continue
            for label, known in merging.add(layer.label, statistics):
                with full_float32(), torch.autocast(device_of(model).type, enabled=False):
                    readings[label] = list(known.readings(estimators, classes, inputs))
        wanted = unsettled
    estimates = [
        to_estimate(
            reading,
            layer,
            epoch,
            len(images),
            ceilings[reading.labels] if math.isnan(reading.ceiling) else reading.ceiling,
            singletons.get(reading.labels, math.nan),
        )
        for layer in layers
        for reading in readings[layer.label]
    ]
    return estimates + [estimate for skip in skips for estimate in at_merge(skip, estimates)]


def measure_usable(
    model: nn.Module,
    train: Segmented,
    held_out: Segmented,
    layers: Sequence[Layer],
    skips: Sequence[Skip] = (),
    *,
    family: Family = LINEAR,
    epoch: int,
    classes: int = 2,
    batch_size: int = LARGEST_BATCH,
    share: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Usable information in bits a pixel of every layer, and at every skip's merge, in the order of the network.

    Arguments and Raises as of `probing.probe`.
    """
    readings = probe(
        model,
        train,
        held_out,
        layers,
        skips,
        family=family,
        classes=classes,
        batch_size=batch_size,
        share=share,
        on_batch=on_batch,
    )
    return [
        to_estimate(reading, layer, epoch, len(reading.per_image) or len(held_out.images), reading.ceiling)
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


def _squared(images: Tensor) -> Float[Tensor, "n n"]:
    """Squared distances between the images as they are stored."""
    distances, flat = Distances(len(images)), images.flatten(1)
    for columns in flat.split(FEATURES_AT_ONCE, dim=1):
        distances.add(columns.float())
    return distances.squared()


def to_estimate(
    reading: Reading, layer: Layer, epoch: int, n: int, ceiling: float, singletons: float = math.nan
) -> Estimate:
    """A reading with its place, in bits; values that rounding put a hair above the ceiling are the ceiling.

    Near its ceiling an estimate that cannot exceed it does not vary either: it has no interval, since it has nothing to tell.
    """
    bit = math.log(2)
    constant, none = ceiling <= 0, math.isnan(reading.nats)
    reason = _reason(reading) if constant else reading.reason
    saturated = reading.capped and not constant and reading.nats >= SATURATED_FROM * ceiling
    lower, upper = max(0.0, reading.lower), min(ceiling, reading.upper)
    low, high = (math.nan, math.nan) if saturated or constant else (reading.low, reading.high)
    quarter, half, _ = reading.curve or (math.nan,) * 3
    return Estimate(
        epoch=epoch,
        layer=layer.label,
        quantity=reading.quantity,
        estimator=reading.estimator,
        resolution=reading.resolution,
        labels=reading.labels,
        bits=math.nan if constant or none else (min(reading.nats, ceiling) if reading.capped else reading.nats) / bit,
        lower=math.nan if constant or math.isnan(reading.lower) else min(lower, upper, reading.nats) / bit,
        upper=math.nan if constant or math.isnan(reading.upper) else upper / bit,
        ceiling=ceiling / bit,
        saturated=saturated,
        n=n,
        d=layer.size,
        unique_share=reading.unique_share,
        reason=reason,
        low=low / bit,
        high=high / bit,
        null_mean=reading.null_mean / bit,
        null_high=reading.null_high / bit,
        p=reading.p,
        train_bits=reading.train / bit,
        quarter_bits=quarter / bit,
        half_bits=half / bit,
        extrapolated=reading.extrapolated / bit,
        singleton_share=singletons,
        out_of_domain=reason.startswith("out of domain"),
        per_image=() if math.isnan(low) else tuple(nats / bit for nats in reading.per_image),
    )


def _reason(reading: Reading) -> str:
    return "every image has the same label" if reading.labels else "all images are equal"


def _segmented(data: SegmentationData) -> Segmented:
    return Segmented(pixels(data), torch.from_numpy(data.masks), lambda batch: to_input(batch, data.scale))


def _check_held_out(probe_set: SegmentationData, held_out: SegmentationData | None) -> None:
    if held_out is None:
        return
    if held_out.classes != probe_set.classes:
        raise InvalidArgument(
            f"held-out masks of {held_out.classes} classes do not go with a probe set of {probe_set.classes}"
        )
    if (held_out.channels, held_out.image_size) != (probe_set.channels, probe_set.image_size):
        raise InvalidArgument(
            f"held-out images of {held_out.channels} channels, {held_out.image_size} pixels do not go with a probe set of "
            f"{probe_set.channels} channels, {probe_set.image_size} pixels"
        )


def _described(
    model: nn.Module, layers: Sequence[Layer | str] | None, skips: Sequence[Skip] | None, example: Tensor
) -> tuple[tuple[Layer, ...], tuple[Skip, ...]]:
    """The layers and skips asked for, or those that the model itself describes, or those that are found in it."""
    own = getattr(model, "layers", None)
    if layers is None and not (isinstance(own, tuple) and own and all(isinstance(layer, Layer) for layer in own)):
        found = inspect(model, as_input(model, example))
        return found.layers, found.skips if skips is None else tuple(skips)
    if layers is None:
        assert own is not None
        return own, tuple(skips if skips is not None else getattr(model, "skips", ()))
    if not layers:
        raise InvalidArgument("layers is empty: name at least one module")
    modules = [name for name, _ in model.named_modules() if name]
    chosen: dict[str, Layer] = {}
    for layer in layers:
        names = fnmatch.filter(modules, layer) if isinstance(layer, str) and set(layer) & set("*?[") else [layer]
        if not names:
            raise NetworkError(f"no module matches {layer!r}: {nearest(str(layer), modules)}")
        for name in names:
            one = Layer(name, name) if isinstance(name, str) else name
            chosen.setdefault(one.label, one)
    if skips is None:
        ends = {layer.label for layer in chosen.values()}
        skips = [one for one in getattr(model, "skips", ()) if {one.source, one.upsampled, one.merge} <= ends]
    return tuple(chosen.values()), tuple(skips)


def _checked(skips: Sequence[Skip], layers: Sequence[Layer]) -> tuple[Skip, ...]:
    """The skips, all of whose ends are layers. Raises: NetworkError for one that is not, with the nearest labels."""
    labels = [layer.label for layer in layers]
    for skip in skips:
        for end in (skip.source, skip.upsampled, skip.merge):
            if end not in labels:
                raise NetworkError(f"{skip.name} names layer {end!r}, which is not measured: {nearest(end, labels)}")
    return tuple(skips)
