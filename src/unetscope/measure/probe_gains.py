"""From fitted probes and their held-out cross-entropies to readings of usable information."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unetscope.estimators import (
    Reading,
    extrapolated,
    negligible,
    out_of_domain_reason,
    reason_of_few,
    shuffled_masks,
    sign_flipped,
)
from unetscope.measure.probe_data import FOLDS, ProbeData, Share
from unetscope.measure.probe_inputs import DEEPER, Probe, ProbeInput, ProbeInputs
from unetscope.table import PIXELS, Quantity, Skip, ratio_values, student

FEWEST_JUDGED = 5  # held-out images: of fewer, Student's interval rests on their being normal
SMALLEST_GAP = 0.005  # nats a pixel that a probe may always be short of one of ever more images
UNSURE = 2.0  # how many times what ever more images would change the bracket is stretched by


class Gains:
    """What the probes of one family gain over guessing, and over each other, paired over the held-out images."""

    def __init__(self, inputs: ProbeInputs, data: ProbeData, estimator: str) -> None:
        self._inputs, self._data, self._estimator = inputs, data, estimator
        self._guess = data.guess()
        self._shortfalls: dict[ProbeInput, float] = {}

    def of_layer(self, label: str) -> Reading:
        """I_V(M→Y)."""
        key = ProbeInput(label)
        if key in self._inputs.reasons:
            return self._without_value(Quantity.USABLE, self._inputs.reasons[key])
        probe = self._inputs.probes[key]
        null = shuffled_masks(self._guess, probe.held_out[Share.WHOLE], seed=self._data.seed)
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
        return next((self._inputs.reasons[key] for key in keys if key in self._inputs.reasons), "")

    def _without_value(self, quantity: Quantity, reason: str) -> Reading:
        return Reading(quantity, self._estimator, 0.0, math.nan, labels=PIXELS, reason=reason)

    def _gain(self, quantity: Quantity, signs: Mapping[ProbeInput, int]) -> Reading:
        """A sum of cross-entropies, and of the best guess's if it has one more of those taken off, in nats a pixel.

        The interval reaches from where the value may be to where it would be of ever more training images, by either account;
        the bracket twice as far beyond, and is known where the interval would not hold.
        """
        probes = {self._inputs.probes[key]: sign for key, sign in signs.items()}
        pixels = next(iter(probes)).held_out[Share.WHOLE].truth.pixels.cpu()  # [n], those that are not ignored
        judged = pixels > 0
        values = {}
        for share in Share:
            gain = -sum(signs.values()) * self._guess  # [n], nats
            for probe, sign in probes.items():
                gain = gain + sign * probe.held_out[share].own.cpu()
            values[share] = ratio_values(gain[judged], pixels[judged])
        interval, images = student(values[Share.WHOLE]), len(values[Share.WHOLE])
        curve = tuple(float(values[share].mean()) for share in Share)
        limit = extrapolated(curve)
        shortfall = sum(sign * self._shortfall(key) for key, sign in signs.items())
        # two accounts of what ever more training images would change: the curve, and the optimism of the fit
        gaps = (0.0, limit - interval.value, -shortfall)
        reason = self._out_of_domain(images, interval.high - interval.value, max(gaps, key=abs))
        bracketed = images >= FEWEST_JUDGED and not self._data.unseen
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
        )

    def _shortfall(self, key: ProbeInput) -> float:
        """What a probe of ever more training images would gain, in nats a pixel, from those that it was fitted on.

        A fit of n images gains about as much on them as it loses on others, c/n each (Akaike 1974). One that was fitted on all
        folds but one loses more, so the two differ on the same pixels by c/n (1 + folds / (folds − 1)).
        """
        if key not in self._shortfalls:
            probe = self._inputs.probes[key]
            optimism = self._in_training(probe, seen=True) - self._in_training(probe, seen=False)
            self._shortfalls[key] = optimism / (1 + FOLDS / (FOLDS - 1))
        return self._shortfalls[key]

    def _in_training(self, probe: Probe, *, seen: bool) -> float:
        """The gain in nats a pixel on some pixels of training images, by a fit that has seen them or by fits that have not."""
        scores = torch.cat(probe.seen_scores if seen else probe.scores[Share.WHOLE])
        labels = torch.cat(probe.labels[Share.WHOLE])
        logits: Float[Tensor, "m classes"] = functional.pad(probe.calibrations[Share.WHOLE].logits(scores), (0, 1))
        frequencies = self._data.frequencies.log().expand(len(labels), -1).float()
        return float(functional.nll_loss(frequencies, labels) - functional.cross_entropy(logits, labels))

    def _out_of_domain(self, images: int, half: float, gap: float) -> str:
        """Why an interval would not hold; empty if it does."""
        if self._data.unseen:
            return out_of_domain_reason(
                f"held-out masks have class {', '.join(self._data.unseen)}, which no training mask has"
            )
        if images < FEWEST_JUDGED:
            return out_of_domain_reason(f"{images} held-out images with labels are too few for an interval")
        if not negligible(gap, half, SMALLEST_GAP):
            return reason_of_few(self._data.fitted_on, "ever more of them it goes", gap, "training images")
        return ""


def _without_false_interval(reading: Reading) -> Reading:
    """The reading, without its interval if it is out of its domain."""
    return replace(reading, low=math.nan, high=math.nan, per_image=()) if reading.out_of_domain else reading
