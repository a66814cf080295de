"""What to measure of a network, on which images, with which estimators; and the table of what was measured."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, SupportsInt

import torch
from torch import Tensor, nn

from unetscope.activations import (
    LARGEST_BATCH,
    ActivationBuffer,
    Budget,
    as_input,
    broadcast,
    default_budget,
    device_of,
    forward_bytes,
    held,
    pixels,
    to_input,
    unscaled,
    unwrap_model,
    with_shapes,
    world_size,
)
from unetscope.base import InvalidArgument, NetworkError, nearest, preserve_rng
from unetscope.data import SegmentationData
from unetscope.estimators import (
    KDE,
    Binning,
    BlockLabels,
    Convolutional,
    Estimator,
    Family,
    KMeansLabels,
    LabelScheme,
    Linear,
)
from unetscope.measure.estimating import measure, measure_usable
from unetscope.measure.layer_statistics import bytes_a_pair
from unetscope.measure.probe_data import Segmented
from unetscope.measure.probe_memory import probe_bytes
from unetscope.networks import inspect
from unetscope.table import (
    Epochs,
    Estimate,
    Flow,
    Layer,
    Quantity,
    Schedule,
    Skip,
    chosen_schedule,
    epoch_number,
    estimator_text,
    is_marked,
    listed_epochs,
)


@dataclass(frozen=True)
class Compute:
    """What a measurement may take of the machine.

    memory_budget: bytes that measuring may hold at once (default: a quarter of what is free); the less, the more forward
    passes. largest_batch: images that run through the network at a time, fewer if memory is short. share: under a process
    group (`torchrun`), every process measures its share of the images and all have the estimates; then all must call `measure`.
    """

    memory_budget: int | None = None
    largest_batch: int = LARGEST_BATCH
    share: bool = False


@dataclass(frozen=True)
class Probes:
    """The families of probes by which usable information is measured: of every layer, and of the merges alone.

    A family that probes every layer probes the merges too. The bits of verdicts are those of the merges. merge_epochs: the
    epochs at which `merges` are probed, of those that are measured; all if None.
    """

    layers: Sequence[Family] = (Linear(),)
    merges: Sequence[Family] = (Convolutional(),)
    merge_epochs: Epochs | None = None


class Scope:
    """What to measure of a network, and the table of what was measured.

    model: any network; it is read when `measure` is called, and not changed. probe_set: the fixed images on
    which activations are measured. layers: names of modules, patterns of them such as `"decoder.*"`, or `Layer` records
    (default: those that the model itself describes, as `unetscope.UNet` does, else what `inspect` finds). skips: the skips,
    likewise. estimators: `KDE`, `Mixture`, `Binning`, `Renyi` and `KSG` with their resolutions. labels: how masks become
    classes for I(Y;M). held_out: other images with masks; with them, usable information is measured too, by `probes`: of every
    layer and merge by each family of `Probes.layers` (a sequence of families stands for those), and what the streams of each
    merge add to each other by each family of `Probes.merges`. epochs: which epochs are marked. compute: memory, batch size and
    processes. Of images in groups (`SegmentationData.groups`), intervals, nulls and folds are of whole groups.

    memory_budget, largest_batch, share and merge_probes are values of `compute` and `probes` now; as keywords of their own they
    are accepted, with a warning, for one version.

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
        probes: Probes | Sequence[Family] = Probes(),
        epochs: Schedule | Epochs = "log",
        compute: Compute = Compute(),
        **moved: Any,
    ) -> None:
        compute, probes = _with_moved(compute, probes if isinstance(probes, Probes) else Probes(probes), moved)
        if not estimators and held_out is None:
            raise InvalidArgument("estimators is empty: give at least one, such as KDE(noise_variance=1.0)")
        if len(probe_set) < 2:
            raise InvalidArgument(f"a probe set of {len(probe_set)} image cannot be measured: give at least 2")
        _check_held_out(probe_set, held_out)
        _check_repeated(estimators, labels, probes)
        self.model = model = unwrap_model(model)
        self.probe_set = probe_set
        self.held_out = held_out
        everywhere = {family.name for family in probes.layers}
        self.probes = tuple(probes.layers) if held_out is not None else ()
        self.merge_probes = tuple(f for f in probes.merges if held_out is not None and f.name not in everywhere)
        merge_epochs = probes.merge_epochs
        self._merge_epochs = None if merge_epochs is None else listed_epochs(merge_epochs, "merge_epochs")
        self.estimators = tuple(estimators)
        self.epochs: Schedule = chosen_schedule(epochs)
        self.compute = replace(compute, share=compute.share and world_size() > 1)
        self._images = pixels(probe_set)
        example = self._prepare(self._images[:1])
        described, carried = described_layers(model, layers, skips, example)
        self.layers = with_shapes(model, described, example)
        self._forward_bytes = forward_bytes(model, example)
        self._budgets: dict[torch.device, Budget] = {}
        self._activation_buffer: ActivationBuffer | None = None
        self._budget_on(device_of(model))  # raises for one that is too small, before any training
        self.skips = checked_skips(carried, self.layers)
        ignored = {} if probe_set.ignore is None else {"ignored": probe_set.ignore}
        self.classes = {scheme.name: torch.from_numpy(scheme.labels(probe_set.masks, **ignored)) for scheme in labels}
        self._estimates: dict[tuple[object, ...], Estimate] = {}

    def is_marked(self, epoch: SupportsInt) -> bool:
        """Whether the schedule marks this epoch. Raises: InvalidArgument for what is no epoch."""
        return is_marked(self.epochs, epoch_number(epoch))

    @preserve_rng()
    @unscaled()
    def measure(
        self, epoch: SupportsInt, *, on_batch: Callable[[int, int], None] | None = None
    ) -> tuple[Estimate, ...]:
        """Measure every layer of the network as it is now and add the estimates to `flow` under this epoch.

        The memory for activations is kept for the next measurement, and released to the system in between.

        on_batch is called with (forward batches done, forward batches in all); the count starts again for layers that need
        float64 and for usable information.
        Raises: InvalidArgument for an epoch that is no whole number from 0 on; MeasurementError if an activation is not finite,
        naming the layer, or if memory runs out; NetworkError if another thread is measuring the network.
        """
        number = epoch_number(epoch)
        with held(self.model):  # throughout, so that it is the second thread that is refused
            estimates = self._measured(number, on_batch)
        self._estimates.update({estimate.key: estimate for estimate in estimates})
        return tuple(estimates)

    def _measured(self, number: int, on_batch: Callable[[int, int], None] | None) -> list[Estimate]:
        estimates = self._clustering(number, on_batch) if self.estimators else []
        for family in self.probes:
            estimates += self._usable(family, self.layers, number, on_batch)
        layers = self._at_merges() if self.probes_merges_at(number) else []
        if layers and self._activation_buffer is not None:
            self._activation_buffer.release()  # so that the memory is that of the larger of both
        for family in self.merge_probes if layers else ():
            usable = self._usable(family, layers, number, on_batch)
            estimates += [estimate for estimate in usable if estimate.quantity != Quantity.USABLE]
        return estimates

    def probe_bytes(self) -> tuple[int, int]:
        """What probes hold at most, in bytes beside the network's batch: those of the layers, and those of the merges."""
        if self.held_out is None:
            return 0, 0
        of_layers, of_merges = (
            [
                probe_bytes(
                    _segmented(self.probe_set),
                    _segmented(self.held_out),
                    layers,
                    self.skips,
                    family=family,
                    classes=self.probe_set.classes,
                    batch_size=self.budget.batch_size,
                )
                for family in families
            ]
            for layers, families in ((self.layers, self.probes), (self._at_merges(), self.merge_probes))
        )
        return max(of_layers, default=0), max(of_merges, default=0)

    def probes_merges_at(self, epoch: int) -> bool:
        """Whether a measurement of this epoch probes the merges."""
        return bool(self.merge_probes) and (self._merge_epochs is None or epoch in self._merge_epochs)

    def _at_merges(self) -> list[Layer]:
        """The layers that join at merges, and the merges."""
        labels = {label for skip in self.skips for label in (skip.source, skip.upsampled, skip.merge)}
        return [layer for layer in self.layers if layer.label in labels]

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
            share=self.compute.share,
            on_batch=on_batch,
        )

    def _clustering(self, epoch: int, on_batch: Callable[[int, int], None] | None) -> list[Estimate]:
        """Estimates of how the images cluster in each layer."""
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
                share=self.compute.share,
                activation_buffer=self._activation_buffer,
                prepare=self._prepare,
                groups=_groups(self.probe_set),
                on_batch=on_batch,
            )
        finally:
            self._activation_buffer.rest()

    def recall(self, flow: Flow) -> None:
        """Add earlier estimates of the same layers to `flow`."""
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
            allowed = self.compute.memory_budget
            if not allowed:  # the same in all processes, for their passes have to be the same
                allowed = broadcast(default_budget(device)) if self.compute.share else default_budget(device)
            self._budgets[device] = Budget(
                allowed,
                n=len(self.probe_set),
                pair_bytes=bytes_a_pair(self.layers, len(self.probe_set)),
                forward_bytes=self._forward_bytes,
                largest_batch=self.compute.largest_batch,
            )
        return self._budgets[device]

    def _prepare(self, batch: Tensor) -> Tensor:
        return to_input(batch, self.probe_set.scale)


def _segmented(data: SegmentationData) -> Segmented:
    prepare = partial(to_input, scale=data.scale)
    masks = torch.from_numpy(data.masks)
    return Segmented(pixels(data), masks, prepare, ignored=data.ignore, groups=_groups(data))


def _groups(data: SegmentationData) -> Tensor | None:
    """The number of each image's group; None if images are independent."""
    return None if data.group_numbers is None else torch.from_numpy(data.group_numbers)


def _with_moved(compute: Compute, probes: Probes, moved: dict[str, Any]) -> tuple[Compute, Probes]:
    """Both with the values that are given as keywords of their own, as in version 0.1."""
    for name, value in moved.items():
        if name in Compute.__dataclass_fields__:
            compute, instead = replace(compute, **{name: value}), f"compute=Compute({name}=…)"
        elif name == "merge_probes":
            probes, instead = replace(probes, merges=value), "probes=Probes(merges=…)"
        else:
            raise TypeError(f"Scope has no parameter {name!r}")
        text = f"Scope({name}=…) is Scope({instead}) now; the old keyword ends with the next version"
        warnings.warn(text, DeprecationWarning, stacklevel=4)
    return compute, probes


def _check_repeated(estimators: Sequence[Estimator], labels: Sequence[LabelScheme], probes: Probes) -> None:
    names_of = {
        "estimators": [estimator_text(*series) for estimator in estimators for series in estimator.series],
        "labels": [scheme.name for scheme in labels],
        "probes": [family.name for family in probes.layers],
        "merge_probes": [family.name for family in probes.merges],
    }
    for what, names in names_of.items():
        if repeated := [name for place, name in enumerate(names) if name in names[:place]]:
            raise InvalidArgument(f"{what} holds {repeated[0]} more than once: its estimates would be the same")


def _check_held_out(probe_set: SegmentationData, held_out: SegmentationData | None) -> None:
    if held_out is None:
        return
    if held_out.classes != probe_set.classes:
        raise InvalidArgument(
            f"held-out masks of {held_out.classes} classes do not go with a probe set of {probe_set.classes}"
        )
    if held_out.ignore != probe_set.ignore:
        raise InvalidArgument(
            f"held-out masks that ignore {held_out.ignore} do not go with a probe set that ignores {probe_set.ignore}"
        )
    if (held_out.channels, held_out.image_size) != (probe_set.channels, probe_set.image_size):
        raise InvalidArgument(
            f"held-out images of {held_out.channels} channels, {held_out.image_size} pixels do not go with a probe set of "
            f"{probe_set.channels} channels, {probe_set.image_size} pixels"
        )


def described_layers(
    model: nn.Module, layers: Sequence[Layer | str] | None, skips: Sequence[Skip] | None, example: Tensor
) -> tuple[tuple[Layer, ...], tuple[Skip, ...]]:
    """The layers and skips asked for, or those that the model itself describes, or those that are found in it."""
    own = getattr(model, "layers", None)
    if layers is None and not (isinstance(own, tuple) and own and all(isinstance(layer, Layer) for layer in own)):
        structure = inspect(model, as_input(model, example))
        for gap in filter(lambda gap: gap.may_hide_skips, structure.gaps):
            warnings.warn(f"{structure.name}: {gap}", UserWarning, stacklevel=4)
        return structure.layers, structure.skips if skips is None else tuple(skips)
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
            record = Layer(name, name) if isinstance(name, str) else name
            chosen.setdefault(record.label, record)
    if skips is None:
        ends = {layer.label for layer in chosen.values()}
        skips = [skip for skip in getattr(model, "skips", ()) if {skip.source, skip.upsampled, skip.merge} <= ends]
    return tuple(chosen.values()), tuple(skips)


def checked_skips(skips: Sequence[Skip], layers: Sequence[Layer]) -> tuple[Skip, ...]:
    """The skips, all of whose ends are layers. Raises: NetworkError for one that is not, with the nearest labels."""
    labels = [layer.label for layer in layers]
    for skip in skips:
        for end in (skip.source, skip.upsampled, skip.merge):
            if end not in labels:
                raise NetworkError(f"{skip.name} names layer {end!r}, which is not measured: {nearest(end, labels)}")
    return tuple(skips)
