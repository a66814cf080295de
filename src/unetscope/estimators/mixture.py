"""The information of a layer with Gaussian noise itself, not a bound of it, with its interval and its limit for many images.

A layer T with noise of variance σ² is a mixture of n Gaussians, one an image. `estimators.kde` bounds its information from the
distances between images. It can also be computed: noise is drawn, and its effect on the distances follows from them alone. The
jackknife, which leaves out one image at a time, then gives the bias of n images and the standard error. Where the bias is
larger than the interval allows, the estimate is out of its domain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.base import InvalidArgument, whole_fields
from unetscope.estimators.groups import Groups
from unetscope.estimators.interface import LayerStatistics, Reading, out_of_domain_reason, with_reasons
from unetscope.estimators.kde import NoisyEstimator, check_noise_variance
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.permuted import permuted_kernel
from unetscope.estimators.resampling import (
    GROUPS,
    check_permutations,
    interval_about,
    negligible,
    reason_of_chance,
    reason_of_few,
)
from unetscope.table import Quantity, student

JITTER = 1e-10  # of the mean variance: what rounding may take from the smallest eigenvalue of a Gram matrix

Kernel = tuple[Tensor, Tensor]  # [n, n] and [n, 1], as `_kernel` makes them


@dataclass(frozen=True, slots=True)
class Mixture(NoisyEstimator):
    """I(X;M) and I(Y;M) of a layer with Gaussian noise, by Monte Carlo over the noise and the jackknife over images.

    noise_variance, relative: as of `KDE`. draws: of noise, for each image. permutations: of the labels, for the
    null of I(Y;M). A layer costs about 2n³ operations a draw.

    Each image's noisy activation is evaluated under the mixture: −ln (1/n) Σ_j exp(−(‖t_i + ε_i − t_j‖² − ‖ε_i‖²) / 2σ²) is
    averaged over images and noise. The jackknife corrects the bias of order 1/n. The change of its value from n/2 to n
    images widens the interval; if it is more than a third of the half width and more than 0.05 nats, n is too small: there is
    a reason instead of a number. Permuted labels are treated likewise, as in `resampling.with_interval`.

    Source: Kolchinsky & Tracey, Entropy 19:361 (2017), equation 2; Efron & Stein, Annals of Statistics 9:586 (1981).
    Raises: InvalidArgument if a value is out of its domain.

    >>> clusters = torch.arange(4).repeat(50)                # four tight clusters, far apart: ln 4 = 1.386
    >>> squared = 1e6 * (clusters[:, None] != clusters).double()
    >>> (reading,) = Mixture().readings(LayerStatistics.of_distances(squared), {})
    >>> round(reading.nats, 2), reading.reason
    (1.39, '')
    """

    draws: int = 2
    permutations: int = 99
    seed: int = 0

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """The name and resolution of its estimates."""
        return ((f"mixture{'_relative' * self.relative}", self.noise_variance),)

    def __post_init__(self) -> None:
        whole_fields(self, "draws", "permutations", "seed")
        check_noise_variance(self.noise_variance)
        if self.draws < 1:
            raise InvalidArgument(f"draws must be 1 or more, got {self.draws}")
        check_permutations(self.permutations)

    def readings(self, statistics: LayerStatistics, classes: Mapping[str, Int64[Tensor, " k"]]) -> Iterator[Reading]:
        """I(X;M), then I(Y;M) for each label scheme. Raises: InvalidArgument if labels are not one an image."""
        squared = statistics.pairwise(relative=self.relative).squared
        return with_reasons(partial(self._readings, classes=classes, groups=statistics.groups), squared, classes)

    def _readings(
        self,
        squared_distances: Float[Tensor, "n n"],
        classes: Mapping[str, Int64[Tensor, " n"]],
        groups: Groups | None,
    ) -> Iterator[Reading]:
        squared = squared_distances.double()
        generator = torch.Generator(squared.device).manual_seed(self.seed)
        root = _root(squared)
        kernels = [_kernel(squared, root, self.noise_variance, generator) for _ in range(self.draws)]
        of_images = _mean_values(kernels, None, groups)
        reading = Reading(Quantity.INPUT, *self.series[0], math.nan)
        yield self._with_interval(reading, of_images, kernels[0], None, groups)
        for name, labels in classes.items():
            null = permuted_kernel(kernels[0][0], labels, self.permutations, self.seed, groups)
            reading = null.beside(Reading(Quantity.LABEL, *self.series[0], math.nan, labels=name))
            of_labels = _mean_values(kernels, labels, groups)
            yield self._with_interval(reading, of_labels, kernels[0], labels, groups, of_images.mean().item())

    def _with_interval(
        self,
        reading: Reading,
        values: Float[Tensor, " k"],
        kernel: Kernel,
        labels: Int64[Tensor, " n"] | None,
        groups: Groups | None,
        whole: float = 0.0,
    ) -> Reading:
        """The reading with its number and interval, or the reason why there is none; kernel: of the first draw."""
        effective = math.nan if groups is None else groups.effective
        n, interval = len(values), student(values.cpu().numpy(), effective)
        reading = replace(reading, groups=effective)
        halves = [
            _pseudo_values(
                _among(kernel, rows),
                None if labels is None else labels[rows],
                None if groups is None else Groups.of(groups.of_image[rows]),
            )
            for rows in self._halves(len(kernel[0]), kernel[0].device, groups)
        ]
        before = torch.stack([half.mean() for half in halves]).mean().item()
        change, half = _pseudo_values(kernel, labels, groups).mean().item() - before, interval.high - interval.value
        entropy = math.inf if labels is None else entropy_nats(labels)
        reason = reason_of_chance(reading.null_mean, interval.value, whole, entropy, half)
        if not negligible(change, half):
            what = "images" if groups is None else GROUPS
            reason = reason_of_few(n, "half of them the estimate is", -change, what)
        if groups is not None and groups.why_too_few:
            reason = out_of_domain_reason(groups.why_too_few)
        if reason:
            return replace(reading, reason=reason, out_of_domain=True)
        low, high = interval_about(interval.value, values.cpu().numpy(), change, effective)
        return replace(
            reading,
            nats=interval.value,
            low=low,
            high=high,
            curve=(math.nan, interval.value - change, interval.value),
            per_image=tuple(values.tolist()),
        )

    def _halves(self, n: int, device: torch.device, groups: Groups | None) -> list[Int64[Tensor, " m"]]:
        """The images in two halves by chance, whole groups in one of them."""
        generator = torch.Generator().manual_seed(self.seed)
        if groups is None:
            return list(torch.randperm(n, generator=generator).to(device).chunk(2))
        halves = groups.split(2, generator)
        return [torch.nonzero(halves == half)[:, 0].to(device) for half in (0, 1)]


def _root(squared: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """L with L Lᵀ = G, the products of the centred activations whose squared distances these are."""
    centred = squared - squared.mean(dim=0)
    gram = (centred - centred.mean(dim=1, keepdim=True)) / -2
    scale = gram.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)
    jitter = JITTER
    while True:
        root, failed = torch.linalg.cholesky_ex(
            gram / scale + jitter * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        )
        if not failed:
            return root * scale.sqrt()
        jitter *= 10


def _kernel(
    squared: Float[Tensor, "n n"], root: Float[Tensor, "n n"], noise_variance: float, generator: torch.Generator
) -> Kernel:
    """exp of −(‖t_i + ε_i − t_j‖² − ‖ε_i‖²) / 2σ² less the largest exponent of its row, and that exponent.

    ε_i·t_j over all j is Gaussian with covariance σ²G, G being the products of the activations: none of them is needed.
    """
    noise = torch.randn(squared.shape, dtype=squared.dtype, device=squared.device, generator=generator)
    moved = math.sqrt(noise_variance) * noise @ root.T
    exponent = (squared + 2 * (moved.diagonal()[:, None] - moved)) / (-2 * noise_variance)
    largest = exponent.amax(dim=1, keepdim=True)
    return torch.exp(exponent - largest), largest


def _mean_values(
    kernels: Sequence[Kernel], labels: Int64[Tensor, " n"] | None, groups: Groups | None
) -> Float[Tensor, " k"]:
    """The jackknife's values, averaged over the draws of noise."""
    return torch.stack([_pseudo_values(kernel, labels, groups) for kernel in kernels]).mean(dim=0)


def _among(kernel: Kernel, rows: Int64[Tensor, " m"]) -> Kernel:
    return kernel[0][rows][:, rows], kernel[1][rows]


def _pseudo_values(kernel: Kernel, labels: Int64[Tensor, " n"] | None, groups: Groups | None) -> Float[Tensor, " k"]:
    """The jackknife's values of I(X;M), of I(Y;M) if there are labels: n times the estimate less n − 1 times that without k.

    Of images in groups, k is a group, and n their number.
    """
    value, without = _left_out(kernel, None, groups)
    if labels is not None:
        inside, without_inside = _left_out(kernel, labels, groups)
        value, without = value - inside, without - without_inside
    n = len(without)
    return n * value - (n - 1) * without


def _left_out(
    kernel: Kernel, labels: Int64[Tensor, " n"] | None, groups: Groups | None
) -> tuple[Float[Tensor, ""], Float[Tensor, " k"]]:
    """The mean of ln n − ln Σ_j over the images, inside their classes if there are labels; and that without each image.

    Of images in groups, that without each group.
    """
    weights, largest = kernel
    n = len(weights)
    ones = torch.ones_like(weights) if labels is None else (labels[:, None] == labels).to(weights.dtype)
    weights = weights * ones
    sums, sizes = weights.sum(dim=1, keepdim=True), ones.sum(dim=1, keepdim=True)
    value = (sizes.log() - sums.log() - largest).mean()
    own = weights.diagonal()[:, None].clamp(min=torch.finfo(weights.dtype).tiny)
    if groups is not None:
        left = torch.maximum(sums - weights @ groups.hot, own).log()  # [n, groups]
        terms = (sizes - ones @ groups.hot).clamp(min=1).log() - left - largest
        return value, (terms * (1 - groups.hot)).sum(dim=0) / (n - groups.sizes)
    rest = torch.maximum(sums - weights, own).log_()
    terms = (sizes - ones).clamp(min=1).log() - rest - largest
    without = (terms.sum(dim=0) - terms.diagonal()) / (n - 1)
    return value, without
