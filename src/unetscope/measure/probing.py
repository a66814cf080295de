"""Probes of every layer of a network, fitted and judged in passes over its images.

Pass one takes every layer's moments on the training images, in folds; all probes follow. Pass two, over a sample of the
training images, calibrates them on folds that they have not seen; pass three judges them on the held-out images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from unetscope.activations import all_gather, all_reduce, device_of, visit
from unetscope.estimators import (
    Calibration,
    Family,
    HeldOut,
    Linear,
    LinearProbe,
    Moments,
    Reading,
    cross_validated,
    ridge,
)
from unetscope.measure.probe_data import CALIBRATION_PIXELS, Pass, ProbeData, Segmented, Share
from unetscope.measure.probe_gains import Gains
from unetscope.measure.probe_inputs import ROUNDING, ProbeInput, ProbeInputs, check_finite
from unetscope.table import Layer, Skip

LINEAR = Linear()
DEAD_LAYER = "the layer is the same at every place of every image"

Take = Callable[[Tensor, ProbeInput, Tensor], None]


def probe(
    model: nn.Module,
    train: Segmented,
    held_out: Segmented,
    layers: Sequence[Layer],
    skips: Sequence[Skip] = (),
    *,
    family: Family = LINEAR,
    classes: int = 2,
    batch_size: int = 16,
    seed: int = 0,
    share: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[str, list[Reading]]:
    """Usable information of each layer, and what each skip and its upsampled path add to each other, by label of the layer.

    layers: with their shapes known; a merge is probed through its parts. A probe of N training images is judged beside those
    of N/2 and N/4, which tells where it would end with ever more of them. The same seed gives the same folds. share: the
    processes of a group share the images, and all have the readings.

    Raises: MeasurementError if an activation is not finite, naming the layer; InvalidArgument for masks that do not fit.
    """
    data = ProbeData(
        train, held_out, classes=classes, batch_size=batch_size, seed=seed, share=share, device=device_of(model)
    )
    inputs = ProbeInputs(layers, skips, family, data)
    passes = _Passes(model, [layer for layer in layers if not layer.parts], inputs, data, on_batch)
    if share:
        passes.run(Pass.FIRST, passes.draw)
    passes.run(Pass.MOMENTS, passes.take_moments)
    if share:
        for layer_probe in inputs.probes.values():
            for moments in layer_probe.folds:
                moments.gather(all_reduce)
    _fit(inputs)
    passes.run(Pass.CALIBRATION, passes.take_scores)
    if share:
        _gather_scores(inputs)
    _calibrate(inputs, data)
    passes.run(Pass.HELD_OUT, passes.judge)
    if share:
        for layer_probe in inputs.probes.values():
            for judged in layer_probe.held_out.values():
                all_reduce(judged.own, *([] if judged.crossed is None else [judged.crossed]))
    gains = Gains(inputs, data, family.key)
    readings = {layer.label: [gains.of_layer(layer.label)] for layer in layers}
    for skip in inputs.skips:
        readings[skip.merge] += gains.at_merge(skip)
    return readings


class _Passes:
    """Forward passes that show the probes what they read, and what each pass takes of it."""

    def __init__(
        self,
        model: nn.Module,
        captured: Sequence[Layer],
        inputs: ProbeInputs,
        data: ProbeData,
        on_batch: Callable[[int, int], None] | None,
    ) -> None:
        self._model, self._captured, self._inputs, self._data = model, captured, inputs, data
        self._on_batch, self._done = on_batch, 0

    def run(self, name: Pass, take: Take) -> None:
        """Show the activation of every layer, merges too, of one batch after the other to `take`."""
        if not self._inputs.probes:
            return
        merging, images = self._inputs.merging(), self._data.of(name)
        self._data.next_batch()

        def receive(rows: Tensor, layer: Layer, activation: Tensor) -> None:
            for label, complete in merging.add(layer.label, activation):
                for key, read in self._inputs.shown(label, complete):
                    take(rows, key, read)

        def next_batch(_done: int) -> None:
            self._done += 1
            self._data.next_batch()
            if self._on_batch is not None:
                self._on_batch(self._done, sum(map(len, self._data.batches.values())))

        visit(
            self._model,
            images.images,
            self._captured,
            receive,
            batches=self._data.batches[name],
            prepare=images.prepare,
            on_batch=next_batch,
        )

    def draw(self, _rows: Tensor, key: ProbeInput, activation: Tensor) -> None:
        """Have random units drawn from the first images seen."""
        self._inputs.probes[key].reader.features(activation)

    def take_moments(self, rows: Tensor, key: ProbeInput, activation: Tensor) -> None:
        """Add the places of a batch to the moments of its fold."""
        probe = self._inputs.probes[key]
        targets = self._data.targets(rows, probe.grid)
        check_finite(key, activation)
        fold = int(self._data.fold_of[rows[0]])
        probe.folds[fold].add(probe.reader.features(activation, targets.places), targets.indicators)

    def take_scores(self, rows: Tensor, key: ProbeInput, activation: Tensor) -> None:
        """Scores at some pixels of training images, by fits that have not seen them; of the whole fit, by that too."""
        probe, fold = self._inputs.probes[key], int(self._data.fold_of[rows[0]])
        shares = [share for share in Share if fold not in share.value]
        fits = [*(probe.fitted[share] for share in shares), probe.without_fold[fold], probe.fitted[Share.WHOLE]]
        pixels = self._data.pixels(rows, probe.grid)
        all_places = math.prod(probe.grid) <= CALIBRATION_PIXELS  # then it is as quick to score them all
        features = probe.reader.features(activation, None if all_places else pixels.place)
        scores = LinearProbe.beside(fits).scores(features)
        scores = scores.reshape(
            len(scores), len(fits), -1, self._data.classes - 1
        )  # [places, fits, pixels, classes − 1]
        place = pixels.place if all_places else torch.arange(len(pixels.place), device=pixels.place.device)
        *of_shares, seen = (scores[place, number, pixels.output][pixels.counted].cpu() for number in range(len(fits)))
        for share, of_share in zip((*shares, Share.WHOLE), of_shares, strict=True):
            probe.scores[share].append(of_share)
            probe.labels[share].append(pixels.labels)
        probe.seen_scores.append(seen)

    def judge(self, rows: Tensor, key: ProbeInput, activation: Tensor) -> None:
        """Cross-entropies of a batch of held-out images, by the fit of every share."""
        check_finite(key, activation)
        probe = self._inputs.probes[key]
        assert probe.calibrated is not None
        logits = probe.calibrated.scores(probe.reader.features(activation))
        logits = logits.reshape(len(rows), -1, len(Share), probe.outputs)  # [b, places, shares, pixels · (classes − 1)]
        for number, share in enumerate(Share):
            of_share = logits[:, :, number].reshape(len(rows), -1, self._data.classes - 1)
            probe.held_out[share].add(int(rows[0]), of_share)


def _fit(inputs: ProbeInputs) -> None:
    """Fit every probe on every share of the images, and on all folds but each; a layer that is constant has no probe."""
    for key, probe in list(inputs.probes.items()):
        whole = Moments.joined(probe.folds)
        spread = (whole.scatter.diagonal() / whole.count).clamp(min=0).sqrt()
        if not bool((spread > ROUNDING * whole.features_mean.abs()).any()):
            inputs.reasons[key] = DEAD_LAYER
            del inputs.probes[key]
            continue
        strength, probe.without_fold = cross_validated(probe.folds)
        for share in Share:
            probe.fitted[share] = ridge(Moments.joined([probe.folds[fold] for fold in share.value]), strength)


def _calibrate(inputs: ProbeInputs, data: ProbeData) -> None:
    """Calibrate the fits of all shares by the scores of images that they have not seen; hold the held-out masks ready."""
    truths = {grid: data.truth(grid) for grid in dict.fromkeys(probe.grid for probe in inputs.probes.values())}
    for probe in inputs.probes.values():
        for share in Share:
            scores, labels = torch.cat(probe.scores[share]), torch.cat(probe.labels[share])
            probe.calibrations[share] = Calibration.fitted(scores, labels)
            probe.held_out[share] = HeldOut(truths[probe.grid], crossed=share is Share.WHOLE)
        probe.calibrated = LinearProbe.beside([probe.calibrations[share].of(probe.fitted[share]) for share in Share])


def _gather_scores(inputs: ProbeInputs) -> None:
    """Give all processes the scores of all, in their order."""
    own = [(probe.scores, probe.labels, probe.seen_scores) for probe in inputs.probes.values()]
    for probe, parts in zip(inputs.probes.values(), zip(*all_gather(own), strict=True), strict=True):
        probe.scores = {share: [part for scores, _, _ in parts for part in scores[share]] for share in Share}
        probe.labels = {share: [part for _, labels, _ in parts for part in labels[share]] for share in Share}
        probe.seen_scores = [part for _, _, seen in parts for part in seen]
