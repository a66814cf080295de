"""The inputs of probes: a layer, one part of a merge alone, or a merge at the places of the level below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unetscope.base import InvalidArgument
from unetscope.estimators import (
    Calibration,
    Family,
    HeldOut,
    LayerReader,
    LinearProbe,
    Moments,
    Reader,
    features_of,
    folded,
    folded_channels,
    halved,
    ratios,
    sample_size,
)
from unetscope.measure.layer_statistics import diverged
from unetscope.measure.merges import Merging
from unetscope.measure.probe_data import FOLDS, Grid, ProbeData, SampledPlaces, Share
from unetscope.table import Layer, Skip

ROUNDING = 1e-6  # of a mean: a spread below it is none
MOST_POOLED = 64  # channels of a stream that is read beside the skip pooled, where each counts for all places below
MOST_FEATURES = 2**22  # at a time where a probe reads every place, unless an image has more: 16 MiB, near the caches
DEEPER = (0, 1)  # of what is read below a merge: the upsampled path and the skip pooled, without the skip itself
ONE_CLASS = "every pixel of the training masks has the same label"


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """What one probe reads.

    layer: its label. shown: for a concatenation, the numbers of the parts that the probe reads; all if empty.
    below: of a merge, whether its streams are read at the places of the level below, with the skip pooled beside them.
    """

    layer: str
    shown: tuple[int, ...] = ()
    below: bool = False


FAILED = 1.1  # times the loss of the best guess


@dataclass(eq=False)
class Probe:
    """One probe as the passes go on: its moments, its fits by share of the images, and what they score.

    width, outputs: how many features it reads at a place, and how many numbers it predicts there. folds: moments by fold, until
    it is fitted. sample: features of some places, by batch. without_fold: fits on all folds but one. optimism: nats a
    pixel by which the fit of all folds gains more on its own places than on others, NaN for a fit of least squares. calibrated:
    the fits of all shares, calibrated, as one.
    scores, labels: of pixels that a fit has not seen; seen_scores: those of the whole fit on its own images, in the order of
    the labels of `Share.WHOLE`.
    """

    reader: Reader
    grid: Grid
    width: int
    outputs: int
    folds: list[Moments]
    sample: list[tuple[Tensor, SampledPlaces]] = field(default_factory=list)
    optimism: float = math.nan
    fitted: dict[Share, LinearProbe] = field(default_factory=dict)
    without_fold: list[LinearProbe] = field(default_factory=list)
    calibrated: LinearProbe | None = None
    scores: dict[Share, list[Tensor]] = field(default_factory=lambda: {share: [] for share in Share})
    labels: dict[Share, list[Tensor]] = field(default_factory=lambda: {share: [] for share in Share})
    seen_scores: list[Tensor] = field(default_factory=list)
    calibrations: dict[Share, Calibration] = field(default_factory=dict)
    held_out: dict[Share, HeldOut] = field(default_factory=dict)

    @property
    def places(self) -> int:
        """Of one image."""
        return math.prod(self.grid)

    def failed_on_a_quarter(self, guess: Tensor) -> bool:
        """Whether the fit of a quarter of the images is far worse than the best guess, which its family could have made.

        So few images may leave a direction of the features undetermined, and the loss there without bound: the change from
        such a fit to that of half of the images says nothing of the change with more. guess: its loss, as `HeldOut.own`.
        """
        return bool(self.held_out[Share.QUARTER].own.cpu().sum() > FAILED * guess.sum())


class ProbeInputs:
    """The probes of some layers and skips by one family, and what each of them reads of a stream of activations.

    probes: by what they read, in an order in which a merge comes after its parts. reasons: by the label of a layer, why it
    has no probe. sampled: by grid, how many places its probes keep the features of.
    """

    def __init__(self, layers: Sequence[Layer], skips: Sequence[Skip], family: Family, data: ProbeData) -> None:
        self._family, self._data = family, data
        self._layers = {layer.label: layer for layer in layers}
        self.skips = [skip for skip in skips if self._layers.keys() >= {skip.source, skip.upsampled, skip.merge}]
        self.probes: dict[ProbeInput, Probe] = {}
        self.reasons: dict[ProbeInput, str] = {}
        self._readers: dict[str, LayerReader] = {}
        self._directions: dict[tuple[str, str], Tensor] = {}
        for layer in layers:
            self._add_layer(layer)
        self._pooled = {skip.merge: skip for skip in self.skips if self._add_below(skip)}
        self.sampled: dict[Grid, int] = {}
        for grid in {probe.grid for probe in self.probes.values()}:
            # what probes of one grid gain is compared: all are finished by Newton's steps, on the same places, or none
            widest = max(probe.width for probe in self.probes.values() if probe.grid == grid)
            self.sampled[grid] = sample_size(widest, data.outputs(grid))
            data.sample(grid, self.sampled[grid])

    def alone(self, merge: str, part: str) -> ProbeInput:
        """What reads a part of a merge: the merge with that part shown alone if there is such a probe, else the part itself."""
        parts = self._layers[merge].parts
        shown = ProbeInput(merge, (parts.index(part),)) if part in parts else ProbeInput(part)
        return shown if shown in self.probes else ProbeInput(part)

    def is_pooled(self, merge: str) -> bool:
        """Whether a merge is read at the places of the level below too."""
        return merge in self._pooled

    def merging(self) -> Merging[Tensor]:
        """Makes the activations of merges from those of their parts, batch by batch."""

        def join(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat(list(parts), dim=1)

        # what waits is copied, since the network may overwrite an activation in place
        return Merging(list(self._layers.values()), join, keep=Tensor.clone)

    def shown(self, label: str, activation: Tensor) -> Iterator[tuple[ProbeInput, Tensor]]:
        """Each probe that reads of a layer, with the activation that it reads."""
        parts = range(len(self._layers[label].parts))
        for key in (ProbeInput(label), *(ProbeInput(label, (part,)) for part in parts)):
            if key in self.probes:
                yield key, activation
        if label in self._pooled:
            beside_pooled = self._beside_pooled(activation, self._pooled[label])
            for key in (ProbeInput(label, below=True), ProbeInput(label, DEEPER, below=True)):
                if key in self.probes:
                    yield key, beside_pooled

    def _add_layer(self, layer: Layer) -> None:
        key = ProbeInput(layer.label)
        if reason := self._reason_for_none(layer):
            self.reasons[key] = reason
            return
        complete = all(part in self._readers for part in layer.parts)
        parts = [(self._readers[part], self._layers[part].shape[0]) for part in layer.parts] if complete else []
        reader = self._readers[layer.label] = self._family.reader(parts)
        self.probes[key] = self._unfitted(reader, layer.shape)
        for part in range(len(layer.parts)):
            # what a part adds is compared with a probe that has as many units of the other part alone
            if (alone := reader.alone((part,))) is not None:
                self.probes[ProbeInput(layer.label, (part,))] = self._unfitted(alone, layer.shape)

    def _reason_for_none(self, layer: Layer) -> str:
        try:
            ratios(layer.shape[1:], self._data.train.masks.shape[1:])
        except InvalidArgument as unfit:
            return str(unfit)
        if self._data.fitted_on < FOLDS:
            return f"{self._data.fitted_on} training images with labels: a probe needs at least {FOLDS}"
        return ONE_CLASS if (self._data.frequencies > 0).sum() < 2 else ""

    def _add_below(self, skip: Skip) -> bool:
        """Probes of a skip beside all that a deeper path could know, at the places of the level below: if it can be halved."""
        merge = self._layers[skip.merge]
        _, *sides = merge.shape
        if skip.merge not in self._readers or len(merge.parts) != 2 or any(side % 2 for side in sides):
            return False
        upsampled, source = (min(MOST_POOLED, self._layers[label].shape[0]) for label in (skip.upsampled, skip.source))
        shares = folded_channels(len(sides), upsampled, source)
        reader = self._family.reader([(self._family.reader(), share) for share in shares])
        if (deeper := reader.alone(DEEPER)) is None:
            return False
        shape = (sum(shares), *(side // 2 for side in sides))
        self.probes[ProbeInput(skip.merge, below=True)] = self._unfitted(reader, shape)
        self.probes[ProbeInput(skip.merge, DEEPER, below=True)] = self._unfitted(deeper, shape)
        return True

    def _unfitted(self, reader: Reader, shape: tuple[int, ...]) -> Probe:
        channels, *sides = shape
        grid, width = tuple(sides), reader.width(channels)
        outputs = self._data.outputs(grid)
        moments = [Moments(width, outputs, self._data.device) for _ in range(FOLDS)]
        return Probe(reader, grid, width, outputs, moments)

    def _beside_pooled(self, merged: Tensor, skip: Skip) -> Tensor:
        """Of a merge: the upsampled path, the skip pooled, and the skip, all at the places of the level below."""
        parts = self._layers[skip.merge].parts
        channels = [self._layers[part].shape[0] for part in parts]
        streams = dict(zip(parts, merged.split(channels, dim=1), strict=True))
        upsampled, source = (
            self._strongest(skip.merge, label, streams[label]) for label in (skip.upsampled, skip.source)
        )
        return torch.cat((folded(upsampled), halved(source), folded(source)), dim=1)  # [b, channels, *sides / 2]

    def _strongest(self, merge: str, label: str, stream: Tensor) -> Tensor:
        """Of a wide stream its strongest directions, each channel in its own spread, over the first images seen."""
        if stream.shape[1] <= MOST_POOLED:
            return stream
        features = features_of(stream).float()  # [places, channels]
        if (merge, label) not in self._directions:
            spread, mean = torch.std_mean(features, dim=0, correction=0)
            scale = torch.where(spread > ROUNDING * mean.abs(), 1 / spread, 0.0)
            centred = ((features - mean) * scale).double()
            vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -MOST_POOLED:]
            self._directions[merge, label] = scale[:, None] * vectors.float()
        strongest = features @ self._directions[merge, label]
        return strongest.reshape(len(stream), *stream.shape[2:], -1).movedim(-1, 1)


def images_at_once(probe: Probe) -> int:
    """Images whose features a probe computes at all places at a time."""
    return max(1, MOST_FEATURES // (probe.places * probe.width))


def check_finite(key: ProbeInput, activation: Tensor) -> None:
    """Raises: MeasurementError if an activation is not finite, naming the layer."""
    if not activation.sum().isfinite():
        raise diverged(key.layer)
