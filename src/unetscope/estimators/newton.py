"""Logistic regression on a sample of places, by Newton's steps from a least-squares probe.

Least squares followed by calibration falls short of logistic regression where channels are not normal, as after a ReLU. So the
features of some places are kept, and every output pixel has a logistic regression of its own on them, multinomial where there
are several classes. It begins at the least-squares probe, which was fitted on more places, and its penalty is on the distance
from there. How strong the penalty is, and whether the regression replaces the least-squares probe, is decided by the
cross-entropy of places that the fits have not seen.

Source: le Cessie & van Houwelingen, Applied Statistics 41:191 (1992); Nocedal & Wright, Numerical Optimization (2006), chapter
7.1, on Newton's steps by conjugate gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from unetscope.estimators.usable import Calibration, LinearProbe, Spectrum, log_partition

LOYALTIES = (1e-2, 1e-3, 1e-4, 1e-5)  # strengths of the penalty on weights, in standard deviations of a channel
PLACES_A_FEATURE = 512  # of n places, a regression of p features falls short of the best one by p/2n nats
MOST_PLACES, ENOUGH_PLACES, FEWEST_PLACES = 16_384, 4_096, 2_048  # of a sample
MOST_SAMPLED, MOST_PRODUCTS = 2**21, 2**22  # places × features (8 MiB), and these × outputs
MOST_PAIRS = 8_192  # of a place and a pixel, that fits are compared on
MOST_VALUES = 2**20  # of logits held at a time
NEWTON_STEPS, CONJUGATE_STEPS, HALVINGS = 8, 10, 8
FORCING = 0.1  # of the gradient: what conjugate gradients may leave
CONVERGED, ROUNDING = 1e-6, 1e-7  # nats that a step is expected to gain, and that a loss may rise by
WORTHWHILE = 1e-4  # nats that a weaker penalty has to gain on unseen places
SMALLEST_DIRECTION, SMALLEST_CURVATURE = 1e-6, 1e-6  # of the largest variance of any direction, and of p (1 − p)
TINY = 1e-30


def sample_size(features: int, outputs: int) -> int:
    """How many places a probe is finished on, of so many features and outputs a place; 0 if that is too dear.

    512 places a feature, from 4,096 to 16,384; fewer for more than 128 features or for features × outputs of more than 256, and
    none for more than 1,024 features or features × outputs of more than 2,048: then the least-squares probe stays.

    >>> sample_size(16, 1), sample_size(128, 16), sample_size(256, 64)
    (8192, 2048, 0)
    """
    size = min(max(ENOUGH_PLACES, PLACES_A_FEATURE * features), MOST_PLACES)
    size = min(size, MOST_SAMPLED // features, MOST_PRODUCTS // (features * outputs))
    return size if size >= FEWEST_PLACES else 0


@dataclass(frozen=True)
class PlaceSample:
    """Some places of the training images as a probe reads them, with the masks above.

    labels: 0 … classes − 1, or −1 for a pixel without one. fold: that of the image. classes: how many there are.
    """

    features: Float[Tensor, "m features"]
    labels: Int64[Tensor, "m pixels"]
    fold: Int64[Tensor, " m"]
    classes: int

    def among(self, folds: Sequence[int]) -> Bool[Tensor, " m"]:
        """The places of images of these folds."""
        return torch.isin(self.fold, torch.tensor(folds, device=self.fold.device))

    def pairs(self, scores: Float[Tensor, "m outputs"], rows: Tensor) -> tuple[Float[Tensor, "k more"], Tensor]:
        """Scores and labels of at most `MOST_PAIRS` labelled pixels of some rows, evenly spread, on the CPU."""
        which = torch.nonzero((self.labels >= 0) & rows[:, None])
        which = which[:: max(1, -(-len(which) // MOST_PAIRS))]
        of_pixel = scores.reshape(*self.labels.shape, self.classes - 1)
        place, pixel = which.T
        return of_pixel[place, pixel].cpu(), self.labels[place, pixel].cpu()


@dataclass(frozen=True, eq=False)
class Fit:
    """A least-squares probe, and the folds that it was fitted on."""

    folds: tuple[int, ...]
    probe: LinearProbe


@dataclass(frozen=True)
class Refined:
    """Logistic regressions in place of least-squares probes.

    without_fold, shares: in the order in which the fits were given. optimism: nats a pixel by which the fit of all folds gains
    more on its own places than fits without them.
    """

    without_fold: list[LinearProbe]
    shares: list[LinearProbe]
    optimism: float


def refined(
    sample: PlaceSample,
    correlations: Spectrum,
    without_fold: Sequence[Fit],
    shares: Sequence[Fit],
    loyalties: Sequence[float] = LOYALTIES,
) -> Refined | None:
    """The fits finished by Newton's steps, or None if that gains nothing on places that they have not seen.

    correlations: of the channels. without_fold: fits on all folds but each in turn, by which the penalty is chosen. shares: the
    others, the last on all folds. loyalties: falling; the next is tried as long as the one before has gained something.
    """
    best = [fit.probe for fit in without_fold]
    loss, calibration = _out_of_fold(sample, without_fold, best)
    regressions, chosen, theta = Regressions(sample, correlations), None, None
    for loyalty in loyalties:
        probes, theta = regressions.fitted(without_fold, loyalty, theta)
        reached, of_reached = _out_of_fold(sample, without_fold, probes)
        if not reached < loss - WORTHWHILE:
            break
        best, loss, calibration, chosen = probes, reached, of_reached, loyalty
    if chosen is None:
        return None
    of_shares, _ = regressions.fitted(shares, chosen)
    everywhere = torch.ones_like(sample.fold, dtype=torch.bool)
    seen = _loss(calibration, *sample.pairs(of_shares[-1].scores(sample.features), everywhere))
    return Refined(best, of_shares, loss - seen)


def _out_of_fold(sample: PlaceSample, fits: Sequence[Fit], probes: Sequence[LinearProbe]) -> tuple[float, Calibration]:
    """Cross-entropy in nats a pixel of places by probes that have not seen them, and the calibration of their scores."""
    scores = sample.features.new_zeros(len(sample.features), len(probes[0].offset))
    for fit, probe in zip(fits, probes, strict=True):
        unseen = ~sample.among(fit.folds)
        scores[unseen] = probe.scores(sample.features[unseen])
    pairs = sample.pairs(scores, torch.ones_like(sample.fold, dtype=torch.bool))
    calibration = Calibration.fitted(*pairs)
    return _loss(calibration, *pairs), calibration


def _loss(calibration: Calibration, scores: Tensor, labels: Tensor) -> float:
    logits = functional.pad(calibration.logits(scores), (0, 1))
    return float(functional.cross_entropy(logits.double(), labels))


class Regressions:
    """Logistic regressions on a sample, each from a least-squares probe and with a penalty on the distance from there.

    Of a fit and an output pixel the minimum of the mean cross-entropy on the places of its folds plus loyalty/2 · Σ (σ_j (w_j −
    w⁰_j))², where w⁰ are the weights of the probe in logits and σ_j is the standard deviation of channel j.
    """

    def __init__(self, sample: PlaceSample, correlations: Spectrum) -> None:
        self._sample, self._mean = sample, sample.features.mean(dim=0)
        kept = correlations.values > SMALLEST_DIRECTION * correlations.values.max()
        self._turn = (correlations.scale[:, None] * correlations.vectors[:, kept]).float()  # [features, directions]
        # in the directions of the correlations the Hessian is nearly diagonal; the first column is for the offset
        self._x = functional.pad((sample.features - self._mean) @ self._turn, (1, 0), value=1.0)
        self._values = functional.pad(correlations.values[kept].float(), (1, 0), value=1.0)
        self._calibrated: dict[Fit, LinearProbe] = {}

    def fitted(
        self, fits: Sequence[Fit], loyalty: float, start: Tensor | None = None
    ) -> tuple[list[LinearProbe], Float[Tensor, "parameters fits pixels k"]]:
        """The regression of each fit, and the parameters of what it adds to the fit's logits; start: those to begin with."""
        sample, k = self._sample, self._sample.classes - 1
        bases = [self._in_logits(fit) for fit in fits]
        member = torch.stack([sample.among(fit.folds) for fit in fits], dim=1)
        pixels = sample.labels.shape[1]
        at_once = max(1, MOST_VALUES // (len(self._x) * len(fits) * k))
        if start is None:
            start = self._x.new_zeros(self._x.shape[1], len(fits), pixels, k)
        added = []
        for first in range(0, pixels, at_once):
            some = slice(first, first + at_once)
            columns = slice(first * k, (first + at_once) * k)
            logits = [
                LinearProbe(of_fit.weights[:, columns], of_fit.offset[columns]).scores(sample.features)
                for of_fit in bases
            ]
            base = torch.stack(logits, dim=1).reshape(len(member), len(fits), -1, k)
            descent = _Descent(self._x, self._values, sample.labels[:, some], member, base, loyalty)
            added.append(descent.minimum(start[:, :, some]))
        theta = torch.cat(added, dim=2)
        probes = []
        for of_fit, step in zip(bases, theta.flatten(2).unbind(dim=1), strict=True):
            weights = self._turn @ step[1:]
            probes.append(LinearProbe(of_fit.weights + weights, of_fit.offset + step[0] - self._mean @ weights))
        return probes, theta

    def _in_logits(self, fit: Fit) -> LinearProbe:
        """The fit's probe, calibrated by the places of its own folds."""
        if fit not in self._calibrated:
            scores = fit.probe.scores(self._sample.features)
            pairs = self._sample.pairs(scores, self._sample.among(fit.folds))
            self._calibrated[fit] = Calibration.fitted(*pairs).of(fit.probe)
        return self._calibrated[fit]


class _Descent:
    """The regressions of some fits and some output pixels, side by side.

    Parameters are [1 + directions, fits, pixels, k], the offset first: x times them is added to the logits that there are.
    """

    def __init__(
        self,
        x: Float[Tensor, "m parameters"],
        values: Float[Tensor, " parameters"],
        labels: Int64[Tensor, "m pixels"],
        member: Bool[Tensor, "m fits"],
        base: Float[Tensor, "m fits pixels k"],
        loyalty: float,
    ) -> None:
        self._x, self._base = x, base
        k = base.shape[-1]
        counted = (member[:, :, None] & (labels >= 0)[:, None]).float()  # [m, fits, pixels]
        self._share = counted / counted.sum(dim=0).clamp(min=1)
        hot = functional.one_hot(labels.clamp(min=0), k + 1)[:, None, :, :k]
        self._targets = hot * self._share[..., None]  # [m, fits, pixels, k]
        self._towards = self._back(self._targets).double()
        self._fixed = (self._targets * base).sum(dim=(0, 3), dtype=torch.float64)
        self._values = values[:, None, None, None]
        self._loyalty = torch.full_like(self._values, loyalty)
        self._loyalty[0] = 0

    def minimum(self, theta: Float[Tensor, "parameters fits pixels k"]) -> Float[Tensor, "parameters fits pixels k"]:
        """Where the loss is least."""
        logits = self._base + self._added(theta)
        loss = self._loss(logits, theta)
        for _ in range(NEWTON_STEPS):
            chance = self._chance(logits)
            gradient = self._back(chance * self._share[..., None] - self._targets) + self._loyalty * theta
            step, gain = self._step(chance, gradient)
            worthwhile = gain > CONVERGED
            if not bool(worthwhile.any()):
                break
            theta, logits, loss = self._forward(theta, torch.where(worthwhile[..., None], step, 0.0), loss)
        return theta

    def _forward(self, theta: Tensor, step: Tensor, loss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step, halved wherever it would lead uphill."""
        length = torch.ones_like(loss, dtype=step.dtype)
        for halving in range(HALVINGS + 1):
            further = theta - length[..., None] * step
            logits = self._base + self._added(further)
            reached = self._loss(logits, further)
            uphill = ~(reached <= loss + ROUNDING)
            if not bool(uphill.any()):
                break
            length = torch.where(uphill, length / 2 if halving < HALVINGS - 1 else torch.zeros_like(length), length)
        return further, logits, reached

    def _step(self, chance: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Newton's step by conjugate gradients, and what it is expected to gain, in nats, [fits, pixels]."""
        weight = chance * self._share[..., None]
        diagonal = weight * (1 - chance)
        curvature = diagonal.sum(dim=0).mean(dim=-1, keepdim=True).clamp(min=SMALLEST_CURVATURE)
        if chance.shape[-1] == 1:
            weight = diagonal
        hessian = curvature * self._values + self._loyalty  # as if every place had the same curvature
        step, rest = torch.zeros_like(gradient), gradient
        direction = ahead = rest / hessian
        size = first = _dot(rest, ahead)
        for _ in range(CONJUGATE_STEPS):
            unsolved = size > FORCING**2 * first
            if not bool(unsolved.any()):
                break
            bent = self._curved(chance, weight, direction)
            length = torch.where(unsolved, size / _dot(direction, bent).clamp(min=TINY), 0.0)[..., None]
            step, rest = step + length * direction, rest - length * bent
            ahead = rest / hessian
            before, size = size, _dot(rest, ahead)
            direction = ahead + (size / before.clamp(min=TINY))[..., None] * direction
        return step, _dot(gradient, step) / 2

    def _curved(self, chance: Tensor, weight: Tensor, direction: Tensor) -> Tensor:
        """The Hessian times a direction."""
        along = self._added(direction)
        if chance.shape[-1] > 1:
            along = along - (chance * along).sum(dim=-1, keepdim=True)
        return self._back(along.mul_(weight)) + self._loyalty * direction

    def _added(self, theta: Tensor) -> Float[Tensor, "m fits pixels k"]:
        """To the logits."""
        return (self._x @ theta.flatten(1)).reshape(-1, *theta.shape[1:])

    def _back(self, values: Float[Tensor, "m fits pixels k"]) -> Tensor:
        """The transpose of `_added`."""
        return (values.flatten(1).T @ self._x).T.reshape(-1, *values.shape[1:])

    def _chance(self, logits: Tensor) -> Tensor:
        """Of each class but the last."""
        if logits.shape[-1] == 1:
            return logits.sigmoid()
        return torch.exp(logits - log_partition(logits)[..., None])

    def _loss(self, logits: Tensor, theta: Tensor) -> Float[Tensor, "fits pixels"]:
        """In nats, float64: the part that is linear in the parameters follows from `_towards`."""
        partition = (log_partition(logits) * self._share).sum(dim=0, dtype=torch.float64)
        exact = theta.double()
        return partition - self._fixed + _dot(self._loyalty * exact / 2 - self._towards, exact)


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "fits pixels"]:
    return (a * b).sum(dim=(0, 3))
