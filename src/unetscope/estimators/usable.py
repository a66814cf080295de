"""Usable information (V-information): how well a probe of one family predicts the mask from a layer's channels.

I_V(M→Y) = H_V(Y|∅) − H_V(Y|M): the held-out cross-entropy of the best guess without the layer, less that of a probe that
reads it. It needs no clustering of masks and is not bounded by log n. Information that only another family can read does not
count.

Source: Xu et al., ICLR 2020 (arXiv 2002.10689).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Integer
from torch import Tensor
from torch.nn import functional

from unetscope.estimators.groups import Groups
from unetscope.estimators.moments import Moments
from unetscope.estimators.resampling import Null

STRENGTHS = tuple(10.0**power for power in range(-7, 2))  # of the ridge, in units of a channel's variance
DEAD = 1e-12  # a channel whose variance is below this share of the largest one's is constant
NEWTON_STEPS, NEWTON_TOLERANCE = 50, 1e-10
SAME = 1e-6  # of a cross-entropy: the rounding of its float32 sums
SMALLEST_PENALTY = (
    1e-8  # on the calibration's slopes, so that they stay finite for a mask that is predicted without error
)


@dataclass(frozen=True)
class LinearProbe:
    """A linear map from the channels at a place to a score for each class of each pixel above it."""

    weights: Float[Tensor, "channels outputs"]
    offset: Float[Tensor, " outputs"]

    def scores(self, features: Float[Tensor, "m channels"]) -> Float[Tensor, "m outputs"]:
        """The scores at each place, float32."""
        return torch.addmm(self.offset, features, self.weights)

    @classmethod
    def beside(cls, probes: Sequence[LinearProbe]) -> LinearProbe:
        """One probe with the outputs of several, one after the other."""
        return cls(torch.cat([probe.weights for probe in probes], dim=1), torch.cat([probe.offset for probe in probes]))


def ridge(moments: Moments, strength: float) -> LinearProbe:
    """The least-squares probe with a penalty on its weights, each channel being measured in its standard deviations.

    >>> moments = Moments(channels=1, outputs=1)
    >>> moments.add(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [3.0], [5.0]]))
    >>> probe = ridge(moments, strength=0.0)
    >>> probe.weights.item(), probe.offset.item()
    (2.0, 1.0)
    """
    return Spectrum(moments).probe(strength)


class Spectrum:
    """The correlations of the channels, decomposed once for every strength of the ridge.

    scale: one over the standard deviation of each channel, 0 for a constant one. values, vectors: the eigenvalues of the
    correlations, rising, and the eigenvectors, in columns.
    """

    def __init__(self, moments: Moments) -> None:
        self._features_mean, self._targets_mean = moments.features_mean, moments.targets_mean
        variance = moments.scatter.diagonal() / moments.count
        alive = variance > DEAD * variance.max()
        self.scale = torch.where(alive, variance.clamp(min=torch.finfo(torch.float64).tiny).rsqrt(), 0.0)
        correlations = moments.scatter / moments.count * self.scale[:, None] * self.scale
        self.values, self.vectors = torch.linalg.eigh(correlations)
        self._targets = self.vectors.T @ (moments.cross / moments.count * self.scale[:, None])

    def probe(self, strength: float) -> LinearProbe:
        """The least-squares probe, as of `ridge`."""
        values = self.values.clamp(min=0) + strength
        shrunk = torch.where(values > DEAD * values.max(), 1 / values, 0.0)
        weights = self.scale[:, None] * (self.vectors @ (shrunk[:, None] * self._targets))
        offset = self._targets_mean - self._features_mean @ weights
        return LinearProbe(weights.float(), offset.float())


def cross_validated(folds: Sequence[Moments], strengths: Sequence[float] = STRENGTHS) -> tuple[float, list[Spectrum]]:
    """The strength of the ridge with the least squared error on each fold in turn, fitted on the others; and their spectra.

    The squared error of a linear probe follows from moments, so this costs no pass over images.
    """
    rests = [[*folds[:left_out], *folds[left_out + 1 :]] for left_out in range(len(folds))]
    spectra = [Spectrum(Moments.joined(rest)) for rest in rests]
    errors = [
        sum(_squared_error(spectrum.probe(strength), moments) for spectrum, moments in zip(spectra, folds, strict=True))
        for strength in strengths
    ]
    return strengths[min(range(len(strengths)), key=errors.__getitem__)], spectra


def _squared_error(probe: LinearProbe, moments: Moments) -> float:
    """Sum of squared errors on the places of some moments, less the targets' own scatter."""
    weights = probe.weights.double()
    off = moments.targets_mean - moments.features_mean @ weights - probe.offset.double()
    scatter = (weights * (moments.scatter @ weights - 2 * moments.cross)).sum()
    return (scatter + moments.count * off.square().sum()).item()


@dataclass(frozen=True)
class Calibration:
    """Logistic regression from a probe's scores to classes; the last class is the reference, with logit 0.

    Scores and logits have one column a class but the last, so binary masks have one.
    """

    slopes: Float[Tensor, "k k"]
    offset: Float[Tensor, " k"]

    @classmethod
    def fitted(cls, scores: Float[Tensor, "m k"], labels: Int64[Tensor, " m"]) -> Calibration:
        """The maximum of the likelihood, by Newton's method; labels in 0 … k.

        Platt's smoothing of the targets keeps the slopes finite where scores separate the classes.

        >>> scores, labels = torch.tensor([[0.0], [1.0], [1.0], [0.0]]), torch.tensor([1, 0, 0, 1])
        >>> [round(logit, 2) for logit in Calibration.fitted(scores, labels).logits(scores)[:, 0].tolist()]
        [-1.61, 1.61, 1.61, -1.61]
        """
        m, k = scores.shape
        mean, spread = scores.double().mean(dim=0), scores.double().std(dim=0, correction=0).clamp(min=1e-30)
        design = torch.cat(((scores.double() - mean) / spread, torch.ones(m, 1, dtype=torch.float64)), dim=1)
        targets = functional.one_hot(labels, k + 1).double()
        targets = ((1 - (k + 1) / (m + k + 1)) * targets + 1 / (m + k + 1))[:, :k]
        theta = _newton(design, targets)
        slopes = theta[:-1] / spread[:, None]
        return cls(slopes.float(), (theta[-1] - mean @ slopes).float())

    def logits(self, scores: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        """Log odds of each class against the last."""
        return torch.addmm(self.offset, scores, self.slopes)

    def of(self, probe: LinearProbe) -> LinearProbe:
        """The probe that gives the logits of this one's scores at once."""
        k, device = len(self.offset), probe.weights.device
        on_device = Calibration(self.slopes.to(device), self.offset.to(device))
        weights = probe.weights.reshape(-1, k) @ on_device.slopes
        return LinearProbe(
            weights.reshape(probe.weights.shape), on_device.logits(probe.offset.reshape(-1, k)).reshape(-1)
        )


def _newton(design: Float[Tensor, "m p"], targets: Float[Tensor, "m k"]) -> Float[Tensor, "p k"]:
    """The parameters of multinomial logistic regression with soft targets."""
    (m, p), k = design.shape, targets.shape[1]
    theta = torch.zeros((p, k), dtype=torch.float64, device=design.device)

    def at(parameters: Tensor) -> tuple[Tensor, Tensor, float]:
        """Logits, their partition, and the loss."""
        logits = design @ parameters
        partition = log_partition(logits)
        fit = (partition.sum() - (targets * logits).sum()) / m
        return logits, partition, float(fit + SMALLEST_PENALTY * parameters.square().sum() / 2)

    logits, partition, best = at(theta)
    for _ in range(NEWTON_STEPS):
        probabilities = torch.exp(logits - partition[:, None])
        gradient = design.T @ (probabilities - targets) / m + SMALLEST_PENALTY * theta
        hessian = torch.zeros((k, p, k, p), dtype=torch.float64, device=design.device)
        for row in range(k):
            for column in range(row, k):  # it is symmetric
                weight = probabilities[:, row] * (float(row == column) - probabilities[:, column])
                block = design.T @ (weight[:, None] * design) / m
                hessian[row, :, column, :] = block
                hessian[column, :, row, :] = block.T
        curvature = hessian.reshape(k * p, k * p)
        curvature.diagonal().add_(SMALLEST_PENALTY)
        step = torch.linalg.solve(curvature, gradient.T.reshape(-1)).reshape(k, p).T
        length = 1.0
        logits, partition, value = at(theta - step)
        while value > best and length > 1e-6:
            length /= 2
            logits, partition, value = at(theta - length * step)
        if not value < best - NEWTON_TOLERANCE:
            break
        theta, best = theta - length * step, value
    return theta


def log_partition(logits: Float[Tensor, "*places k"]) -> Float[Tensor, " *places"]:
    """ln of the sum of exp over all classes, the reference's logit being 0."""
    if logits.shape[-1] == 1:
        return functional.softplus(logits[..., 0])
    return torch.logsumexp(functional.pad(logits, (0, 1)), dim=-1)


class Truth:
    """Masks that probes are compared with: labels [n, pixels], 0 … classes − 1, or `ignored`."""

    def __init__(self, masks: Integer[Tensor, "n pixels"], classes: int, ignored: int | None = None) -> None:
        valid = torch.ones_like(masks, dtype=torch.bool) if ignored is None else masks != ignored
        self.one_hot = torch.stack([(masks == label) & valid for label in range(classes - 1)]).float()
        self.valid = None if bool(valid.all()) else valid.float()
        self.pixels = valid.sum(dim=1).double()

    def dice(self, rows: slice, logits: Float[Tensor, "b pixels k"]) -> Float[Tensor, " b"]:
        """Dice of the likeliest classes in some images, as a network's is scored: of binary masks of the foreground, with 1
        added to both sums; of several classes the mean over those that the mask has, NaN without any.
        """
        likeliest = functional.pad(logits, (0, 1)).argmax(dim=-1)  # the last class is the reference
        counted = torch.ones_like(likeliest, dtype=torch.float32) if self.valid is None else self.valid[rows]
        hot = [*(each[rows] for each in self.one_hot), counted - self.one_hot[:, rows].sum(dim=0)]
        predicted = [(likeliest == label).float() * counted for label in range(len(hot))]
        both = torch.stack([(p * t).sum(dim=1) for p, t in zip(predicted, hot, strict=True)], dim=1)
        sizes = torch.stack([(p + t).sum(dim=1) for p, t in zip(predicted, hot, strict=True)], dim=1)
        if len(hot) == 2:
            return (2 * both[:, 1] + 1) / (sizes[:, 1] + 1)
        present = torch.stack([t.sum(dim=1) > 0 for t in hot], dim=1)
        return torch.where(present, 2 * both / sizes, torch.nan).nanmean(dim=1)


class HeldOut:
    """Cross-entropy in nats of every held-out image under its own mask, and, if `crossed`, its Dice there, and the
    cross-entropy under every other's mask for a null.

    The cross-entropy is linear in the mask given the logits, so the n × n table is a product of matrices. Logits of an image
    come in the same order of pixels as its mask.
    """

    def __init__(self, truth: Truth, *, crossed: bool = True) -> None:
        self.truth = truth
        n, device = len(truth.pixels), truth.pixels.device
        self.own = torch.zeros(n, dtype=torch.float64, device=device)
        self.crossed = torch.zeros((n, n), dtype=torch.float64, device=device) if crossed else None
        self.dice = torch.zeros(n, dtype=torch.float64, device=device) if crossed else None

    def add(self, first: int, logits: Float[Tensor, "b pixels k"]) -> None:
        """Take in the logits of the images from `first` on."""
        truth, partition = self.truth, log_partition(logits)
        rows = slice(first, first + len(logits))
        own = partition if truth.valid is None else partition * truth.valid[rows]
        for label, hot in enumerate(truth.one_hot):
            own = own - logits[..., label] * hot[rows]
        self.own[rows] = own.sum(dim=1, dtype=torch.float64)
        if self.crossed is not None:
            whole = partition.sum(dim=1)[:, None] if truth.valid is None else partition @ truth.valid.T
            for label, hot in enumerate(truth.one_hot):
                whole = whole - logits[..., label] @ hot.T
            self.crossed[rows] = whole.double()
        if self.dice is not None:
            self.dice[rows] = truth.dice(rows, logits)


def guessed(masks: Integer[Tensor, "n pixels"], frequencies: Float[Tensor, " classes"]) -> Float[Tensor, " n"]:
    """Cross-entropy in nats of each mask under fixed frequencies of the classes, without a layer."""
    counts = torch.stack([(masks == label).sum(dim=1) for label in range(len(frequencies))], dim=1)
    return -(counts.double() @ frequencies.double().log())


def shuffled_masks(
    guess: Float[Tensor, " n"], held_out: HeldOut, *, times: int = 999, seed: int = 0, groups: Groups | None = None
) -> Null:
    """The information that the probe seems to have about masks that belong to other images.

    If layer and mask are independent of each other over images, every assignment of masks to images is as likely, so p is
    uniform (Phipson & Smyth 2010: the measured value counts as one of the shuffled). A layer that only has information which
    all masks share, such as where nuclei never lie, has usable information but a large p. groups: masks change places in them.
    """
    n, total = len(guess), held_out.truth.pixels.sum().item()
    rows = torch.arange(n)
    generator = torch.Generator().manual_seed(seed)
    assert held_out.crossed is not None
    crossed, gained = held_out.crossed.cpu(), guess.sum().item()
    value = (gained - crossed.trace().item()) / total
    rounding = SAME * (crossed.abs().sum().item() / n + gained) / total
    if groups is None:
        orders = torch.rand(times, n, generator=generator).argsort(dim=1)
        chance = (gained - crossed[rows, orders].sum(dim=1)) / total
        return Null.of(value, chance, rounding)
    orders = groups.orders(times, generator)
    # groups of other sizes take stretched masks, which need not have as many pixels with labels, nor as easy ones to guess
    pixels = held_out.truth.pixels.cpu()[orders].sum(dim=1)
    chance = (guess[orders].sum(dim=1) - crossed[rows, orders].sum(dim=1)) / pixels
    return Null.of(value, chance, rounding).of_groups(groups)
