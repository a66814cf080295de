"""Usable information of every layer of a network: probes, fitted and evaluated in passes over its images.

Pass one accumulates every layer's moments on the training images, in folds, and keeps the features of some places; all probes
follow from these. Pass two, over a sample of the training images, calibrates the probes on folds that they were not fitted
on. Pass three evaluates them on the held-out images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unetscope.activations import all_reduce, device_of, visit
from unetscope.estimators import (
    Family,
    Linear,
    LinearProbe,
    Reading,
    extrapolated,
    negligible,
    out_of_domain_reason,
    reason_of_few,
    shuffled_masks,
    sign_flipped,
)
from unetscope.measure.probe_data import CALIBRATION_PIXELS, FOLDS, Pass, ProbeData, Segmented, Share
from unetscope.measure.probe_fits import calibrate, fit, gather_moments, gather_scores
from unetscope.measure.probe_inputs import DEEPER, Probe, ProbeInput, ProbeInputs, check_finite, images_at_once
from unetscope.table import (
    PIXELS,
    Layer,
    Quantity,
    Skip,
    cautious,
    effective_groups,
    group_values,
    student,
    too_few_groups,
)

EVEN = 1e-6  # images by which images with as many labelled pixels may be worth less than they are, by rounding
FEWEST_JUDGED = 5  # held-out images: of fewer, Student's interval rests on their being normal
SMALLEST_GAP = 0.005  # nats a pixel of bias that are always allowed
UNSURE = 2.0  # multiple of the expected change with more images by which the bracket is wider


class Gains:
    """What the probes of one family gain over guessing, and over each other, paired over the held-out images."""

    def __init__(self, inputs: ProbeInputs, data: ProbeData, estimator: str) -> None:
        self._inputs, self._data, self._estimator = inputs, data, estimator
        self._guess = data.guess()
        self._shortfalls: dict[ProbeInput, float] = {}

    def of_layer(self, label: str) -> Reading:
        """I_V(M→Y)."""
        key = ProbeInput(label)
        if reason := self._reason(key):
            return self._without_value(Quantity.USABLE, reason)
        probe = self._inputs.probes[key]
        null = shuffled_masks(
            self._guess, probe.held_out[Share.WHOLE], seed=self._data.seed, groups=self._data.held_out_groups
        )
        reading = null.beside(self._gain(Quantity.USABLE, {key: -1}))
        return _without_false_interval(replace(reading, train=self._in_training(probe, seen=True)))

    def at_merge(self, skip: Skip) -> Iterator[Reading]:
        """What the skip adds to the upsampled path, what that adds to the skip, and what both hold, paired over images."""
        if self._inputs.is_pooled(skip.merge):
            yield self._at_pooled(skip.merge)
        u, s = (self._inputs.alone(skip.merge, part) for part in (skip.upsampled, skip.source))
        both = ProbeInput(skip.merge)
        signs_of: dict[Quantity, dict[ProbeInput, int]] = {
            Quantity.USABLE_SKIP_GIVEN_UPSAMPLED: {u: 1, both: -1},
            Quantity.USABLE_UPSAMPLED_GIVEN_SKIP: {s: 1, both: -1},
            Quantity.USABLE_SHARED: {u: -1, s: -1, both: 1},
        }
        reason = self._reason(u, s, both)
        for quantity, signs in signs_of.items():
            if reason:
                yield self._without_value(quantity, reason)
                continue
            reading = self._gain(quantity, signs)
            if sum(signs.values()) == 0:  # what both hold may be of either sign, though neither is of chance
                reading = sign_flipped(reading.per_image, seed=self._data.seed).beside(reading)
            yield _without_false_interval(reading)

    def _at_pooled(self, merge: str) -> Reading:
        """What the skip adds to the upsampled path and to itself pooled."""
        whole, deeper = ProbeInput(merge, below=True), ProbeInput(merge, DEEPER, below=True)
        if reason := self._reason(deeper, whole):
            return self._without_value(Quantity.USABLE_SKIP_GIVEN_POOLED, reason)
        return _without_false_interval(self._gain(Quantity.USABLE_SKIP_GIVEN_POOLED, {deeper: 1, whole: -1}))

    def _reason(self, *keys: ProbeInput) -> str:
        reasons = (self._inputs.reasons[key] for key in keys if key in self._inputs.reasons)
        return self._data.too_few_groups or next(reasons, "")

    def _without_value(self, quantity: Quantity, reason: str) -> Reading:
        return Reading(quantity, self._estimator, 0.0, math.nan, labels=PIXELS, reason=reason)

    def _gain(self, quantity: Quantity, signs: Mapping[ProbeInput, int]) -> Reading:
        """A signed sum of cross-entropies in nats a pixel, with the best guess's if the signs do not cancel.

        The interval reaches from the value to its limit for many training images, by either of two estimates of the limit; the
        bracket reaches twice as far, and is also known where the interval would not hold.
        """
        probes = {self._inputs.probes[key]: sign for key, sign in signs.items()}
        pixels = next(iter(probes)).held_out[Share.WHOLE].truth.pixels.cpu()  # [n], those that are not ignored
        judged = pixels > 0
        values = {}
        for share in Share:
            gain = -sum(signs.values()) * self._guess  # [n], nats
            for probe, sign in probes.items():
                gain = gain + sign * probe.held_out[share].own.cpu()
            values[share] = self._values(gain[judged], pixels[judged], judged)
        groups, judges = self._data.held_out_groups, len(values[Share.WHOLE])
        worth = effective_groups((pixels[judged] if groups is None else groups.summed(pixels)).numpy())
        is_even = groups is None and worth > judges - EVEN
        interval = student(values[Share.WHOLE]) if is_even else cautious(values[Share.WHOLE], worth)
        curve = tuple(float(values[share].mean()) for share in Share)
        if any(probe.failed_on_a_quarter(self._guess) for probe in probes):
            curve = math.nan, *curve[1:]
        limit = extrapolated(curve)
        shortfall = sum(sign * self._shortfall(key) for key, sign in signs.items())
        # two estimates of the change with more training images: the curve, and the optimism of the fit
        gaps = (0.0, limit - interval.value, -shortfall)
        reason = self._out_of_domain(judges, worth, interval.high - interval.value, max(gaps, key=abs))
        bracketed = not (self._data.unseen or self._too_few(judges, worth))
        return Reading(
            quantity,
            self._estimator,
            0.0,
            interval.value,
            lower=interval.low + UNSURE * min(gaps) if bracketed else math.nan,
            upper=interval.high + UNSURE * max(gaps) if bracketed else math.nan,
            labels=PIXELS,
            ceiling=self._guess.sum().item() / pixels.sum().item(),
            low=interval.low + min(gaps),
            high=interval.high + max(gaps),
            curve=curve,
            extrapolated=limit,
            per_image=tuple(values[Share.WHOLE].tolist()),
            out_of_domain=bool(reason),
            reason=reason,
            groups=math.nan if groups is None else worth,
            dice=_added_dice(probes),
        )

    def _values(self, gain: Tensor, pixels: Tensor, judged: Tensor) -> NDArray[np.float64]:
        """Values whose mean is the gain a pixel: one an image, or one a group of images."""
        groups = self._data.held_out_groups
        of_image = range(len(gain)) if groups is None else groups.of_image.cpu()[judged]
        return group_values(gain, pixels, of_image)

    def _shortfall(self, key: ProbeInput) -> float:
        """The further gain of a probe with unlimited training images, in nats a pixel, estimated from those it was fitted on.

        A fit of n images gains about as much on them as it loses on others, c/n each (Akaike 1974). One that was fitted on all
        folds but one loses more, so the two differ on the same pixels by c/n (1 + folds / (folds − 1)).
        """
        if key not in self._shortfalls:
            probe = self._inputs.probes[key]
            optimism = probe.optimism
            if math.isnan(optimism):
                optimism = self._in_training(probe, seen=True) - self._in_training(probe, seen=False)
            self._shortfalls[key] = optimism / (1 + FOLDS / (FOLDS - 1))
        return self._shortfalls[key]

    def _in_training(self, probe: Probe, *, seen: bool) -> float:
        """The gain in nats a pixel on some pixels of training images, by a fit on them or by fits without them."""
        scores = torch.cat(probe.seen_scores if seen else probe.scores[Share.WHOLE])
        labels = torch.cat(probe.labels[Share.WHOLE])
        logits: Float[Tensor, "m classes"] = functional.pad(probe.calibrations[Share.WHOLE].logits(scores), (0, 1))
        frequencies = self._data.frequencies.log().expand(len(labels), -1).float()
        return float(functional.nll_loss(frequencies, labels) - functional.cross_entropy(logits, labels))

    def _too_few(self, judges: int, worth: float) -> str:
        """Why so many held-out images or groups are too few for an interval; empty if they are enough."""
        if self._data.held_out_groups is not None:
            few = too_few_groups(judges, worth)
            return f"held-out: {few}" if few else ""
        if judges < FEWEST_JUDGED:
            return f"{judges} held-out images with labels are too few for an interval"
        if worth < FEWEST_JUDGED - EVEN:
            return (
                f"{judges} held-out images, some with far more labels, are worth {worth:.1f}, too few for an interval"
            )
        return ""

    def _out_of_domain(self, judges: int, worth: float, half: float, gap: float) -> str:
        """Why an interval would not hold; empty if it does."""
        if self._data.unseen:
            return out_of_domain_reason(
                f"held-out masks have class {', '.join(self._data.unseen)}, which no training mask has"
            )
        if few := self._too_few(judges, worth):
            return out_of_domain_reason(few)
        if not negligible(gap, half, SMALLEST_GAP):
            return reason_of_few(self._data.fitted_on, "ever more of them it goes", gap, "training images")
        return ""


def _added_dice(probes: Mapping[Probe, int]) -> float:
    """The mean Dice of a probe, or by how much that of one of two is higher; NaN of more. probes: by sign of their losses."""
    if len(probes) > 2:
        return math.nan
    added = 0.0
    for probe, sign in probes.items():
        dice = probe.held_out[Share.WHOLE].dice
        assert dice is not None
        added -= sign * float(dice[probe.held_out[Share.WHOLE].truth.pixels > 0].nanmean())
    return added


def _without_false_interval(reading: Reading) -> Reading:
    """The reading, without its interval if it is out of its domain."""
    return replace(reading, low=math.nan, high=math.nan, per_image=()) if reading.out_of_domain else reading


LINEAR = Linear()

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
    of N/2 and N/4, which gives the limit for many images. The same seed gives the same folds. share: the
    processes of a group share the images, and all have the readings.

    Raises: MeasurementError if an activation is not finite, naming the layer; InvalidArgument for masks that do not fit.
    """
    data = ProbeData(
        train, held_out, classes=classes, batch_size=batch_size, seed=seed, share=share, device=device_of(model)
    )
    inputs = ProbeInputs(layers, skips, family, data)
    if data.too_few_groups:
        return _readings(Gains(inputs, data, family.key), layers, inputs.skips)
    passes = _Passes(model, [layer for layer in layers if not layer.parts], inputs, data, on_batch)
    if share:
        passes.run(Pass.FIRST, passes.draw)
    passes.run(Pass.MOMENTS, passes.take_moments)
    if share:
        gather_moments(inputs)
    fit(inputs, data)
    passes.run(Pass.CALIBRATION, passes.take_scores)
    if share:
        gather_scores(inputs)
    calibrate(inputs, data)
    passes.run(Pass.HELD_OUT, passes.judge)
    if share:
        for layer_probe in inputs.probes.values():
            for judged in layer_probe.held_out.values():
                all_reduce(*(each for each in (judged.own, judged.crossed, judged.dice) if each is not None))
    return _readings(Gains(inputs, data, family.key), layers, inputs.skips)


def _readings(gains: Gains, layers: Sequence[Layer], skips: Sequence[Skip]) -> dict[str, list[Reading]]:
    """The readings of every layer, and at every merge, by label of the layer."""
    readings = {layer.label: [gains.of_layer(layer.label)] for layer in layers}
    for skip in skips:
        readings[skip.merge] += gains.at_merge(skip)
    return readings


class _Passes:
    """Forward passes that give activations to the probes, and what each pass computes from them."""

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
        """Draw the random units, scaled by the first images."""
        self._inputs.probes[key].reader.features(activation)

    def take_moments(self, rows: Tensor, key: ProbeInput, activation: Tensor) -> None:
        """Add the places of a batch to the moments of its fold."""
        probe = self._inputs.probes[key]
        targets = self._data.targets(rows, probe.grid)
        check_finite(key, activation)
        fold = int(self._data.fold_of[rows[0]])
        features = probe.reader.features(activation, targets.places)
        probe.folds[fold].add(features, targets.indicators)
        if targets.sampled is not None:
            probe.sample.append((features[targets.sampled.number.to(features.device)], targets.sampled))

    def take_scores(self, rows: Tensor, key: ProbeInput, activation: Tensor) -> None:
        """Scores at some pixels of training images, by fits that have not seen them; of the whole fit, by that too."""
        probe, fold = self._inputs.probes[key], int(self._data.fold_of[rows[0]])
        shares = [share for share in Share if fold not in share.value]
        fits = [*(probe.fitted[share] for share in shares), probe.without_fold[fold], probe.fitted[Share.WHOLE]]
        pixels = self._data.pixels(rows, probe.grid)
        all_places = probe.places <= CALIBRATION_PIXELS  # then it is as quick to score them all
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
        at_once = images_at_once(probe)
        logits = torch.cat([probe.calibrated.scores(probe.reader.features(some)) for some in activation.split(at_once)])
        logits = logits.reshape(len(rows), -1, len(Share), probe.outputs)  # [b, places, shares, pixels · (classes − 1)]
        for number, share in enumerate(Share):
            of_share = logits[:, :, number].reshape(len(rows), -1, self._data.classes - 1)
            probe.held_out[share].add(int(rows[0]), of_share)
