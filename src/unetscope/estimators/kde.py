"""Mutual information from pairwise distances (kernel density estimation).

A layer T with Gaussian noise of variance σ² added to it is a mixture of n Gaussians, one an image. Bounds of that
mixture's entropy need the squared distances D between the images and nothing else.

Source: Kolchinsky & Tracey, Entropy 19:361 (2017); Saxe et al., ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.base.errors import InvalidArgument
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.reading import Reading, explained
from unetscope.estimators.resampling import (
    NO_NULL,
    PERMUTATIONS,
    Null,
    Resampled,
    Sharing,
    check_permutations,
    judged,
    kernel_information,
    permuted_kernel,
    quarters,
)
from unetscope.table.quantities import Quantity

Bound = Literal["upper", "lower"]
BOUNDS: tuple[Bound, ...] = ("upper", "lower")
EXPONENT = {"upper": 2.0, "lower": 8.0}  # c in exp(-D / (c * noise_variance))
ROWS_AT_ONCE = 128


def mixture_information(
    squared_distances: Float[Tensor, "n n"], noise_variance: float, *, bound: Bound = "upper"
) -> float:
    """I(X; T + noise) in nats, for n equally likely inputs and Gaussian noise added to the layer T.

    The n blurred activations form a Gaussian mixture. Its entropy, less the noise's own, is bounded through the pairwise
    squared distances D by  -(1/n) sum_i ln (1/n) sum_j exp(-D_ij / (c * noise_variance)),  c = 2 for the upper
    (Kullback-Leibler) and 8 for the lower (Bhattacharyya) bound. It never exceeds ln n, whatever the layer.

    Source: Kolchinsky & Tracey, Entropy 19:361 (2017), section 4.
    Raises: InvalidArgument if noise_variance is not positive.

    >>> apart = 1e6 * (1 - torch.eye(4))
    >>> round(mixture_information(apart, noise_variance=1.0), 4)    # four inputs told apart: ln 4
    1.3863
    """
    log_sums = _log_kernel_sums(squared_distances, noise_variance, bound)
    return math.log(len(log_sums)) - log_sums.mean().item()


def within_class_information(
    squared_distances: Float[Tensor, "n n"],
    noise_variance: float,
    classes: Int64[Tensor, " k"],
    *,
    bound: Bound = "upper",
) -> float:
    """I(X; T + noise | Y) in nats: `mixture_information` inside each class, averaged with the classes' frequencies.

    -(1/n) sum_i ln (1/n_c(i)) sum_{j in c(i)} exp(-D_ij / (c * noise_variance)). A class of one image contributes 0.

    Source: Kolchinsky & Tracey (2017), section 4; Saxe et al. (2018), appendix.
    Raises: InvalidArgument if noise_variance is not positive or the labels are not one an image.

    >>> apart = 1e6 * (1 - torch.eye(4))
    >>> round(within_class_information(apart, 1.0, torch.tensor([0, 0, 1, 1])), 4)    # two in each class: ln 2
    0.6931
    """
    log_sums = _log_kernel_sums(squared_distances, noise_variance, bound, classes)
    return (_class_sizes(classes).log() - log_sums).mean().item()


def shift_by_errors(
    squared_distances: Float[Tensor, "n n"],
    errors: Float[Tensor, " n"],
    noise_variance: float,
    *,
    bound: Bound = "upper",
) -> float:
    """How far, in nats, an estimate moves if every D_ij is off by e_i + e_j: the first order of `mixture_information`.

    (1/n) sum_i sum_j K_ij (e_i + e_j) / (c * noise_variance) / (1 + sum_j K_ij), j other than i, with c as there. The kernel
    K_ij = exp(-D_ij / (c * noise_variance)) is taken at the smallest D_ij that such errors leave possible, four of them below
    the one at hand: else a near pair that errors drove apart would vouch for itself. Distances too large for the kernel to
    see may be off by any amount. Errors of either sign, as rounding makes them, move an estimate less.

    >>> squared = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    >>> shift = shift_by_errors(squared, torch.tensor([1e-4, 1e-4]), noise_variance=0.5)
    >>> moved = mixture_information(squared + 2e-4 * (1 - torch.eye(2)), 0.5) - mixture_information(squared, 0.5)
    >>> moved < shift < 1.002 * moved
    True
    """
    scale = EXPONENT[bound] * noise_variance
    moved = 0.0
    for rows in torch.arange(len(errors), device=errors.device).split(ROWS_AT_ONCE):
        off = errors[rows, None] + errors[None]
        kernel = torch.exp((squared_distances[rows] - 4 * off).clamp_(min=0) / -scale)
        kernel[torch.arange(len(rows), device=rows.device), rows] = 0.0  # an image's distance to itself has no error
        moved += ((kernel * off).sum(dim=1) / (scale * (1 + kernel.sum(dim=1)))).sum().item()
    return moved / len(errors)


def _log_kernel_sums(
    squared_distances: Float[Tensor, "n n"],
    noise_variance: float,
    bound: Bound,
    classes: Int64[Tensor, " k"] | None = None,
) -> Float[Tensor, " n"]:
    """ln sum_j exp(-D_ij / (c * noise_variance)) of every image i, over all j or those in its class, a few rows at a time.

    Raises: InvalidArgument if noise_variance is not positive or labels are not one an image.
    """
    check_noise_variance(noise_variance)
    if classes is not None and classes.shape != squared_distances.shape[:1]:
        raise InvalidArgument(f"{len(classes)} labels for {len(squared_distances)} images: expected one an image")
    sums = []
    for rows in torch.arange(len(squared_distances), device=squared_distances.device).split(ROWS_AT_ONCE):
        kernel = torch.exp(squared_distances[rows].double() / (-EXPONENT[bound] * noise_variance))
        same = kernel if classes is None else kernel * (classes[rows, None] == classes[None])
        sums.append(same.sum(dim=1))
    return torch.cat(sums).log()


def _class_sizes(classes: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Of each image, how many images have its label."""
    _, number, counts = torch.unique(classes, return_inverse=True, return_counts=True)
    return counts[number].double()


def check_noise_variance(noise_variance: float) -> None:
    """Refuse a noise variance that is not a positive number."""
    if not 0 < noise_variance < math.inf:
        raise InvalidArgument(f"noise_variance must be > 0, got {noise_variance}")


@dataclass(frozen=True, slots=True)
class KDE:
    """I(X;M) and I(Y;M) by pairwise distances, upper and lower, for one noise variance (the paper's is 1).

    I(Y;M) is I(X;M) less the information inside the classes, with the same bound for both: `kde_upper` is the published
    estimate. A difference of upper bounds is no bound, so its bracket is
    [lower(all) - sum_c p_c upper(c), upper(all) - sum_c p_c lower(c)]. Bounds are of the mixture of these n images; where they
    go with ever more images, `resampling` judges.

    noise_variance: in units of the activation, squared; if `relative`, of the median squared distance between images, so
    that it means the same in every layer. permutations: of the labels, for the null of I(Y;M).

    Raises: InvalidArgument if noise_variance is not positive.
    """

    noise_variance: float = 1.0
    relative: bool = False
    permutations: int = PERMUTATIONS
    seed: int = 0

    @property
    def reads(self) -> Literal["distances", "relative"]:
        """The statistic of a layer that it is made of."""
        return "relative" if self.relative else "distances"

    @property
    def kernels(self) -> tuple[tuple[float, Bound], ...]:
        """The noise variances and bounds that it takes kernels of distances with."""
        return tuple((self.noise_variance, bound) for bound in BOUNDS)

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """The names and resolutions of its estimates."""
        return tuple((f"kde_{bound}{'_relative' * self.relative}", self.noise_variance) for bound in BOUNDS)

    def __post_init__(self) -> None:
        check_noise_variance(self.noise_variance)
        check_permutations(self.permutations)

    def readings(
        self, squared_distances: Float[Tensor, "n n"], classes: Mapping[str, Int64[Tensor, " k"]]
    ) -> Iterator[Reading]:
        """I(X;M), then I(Y;M) for each label scheme, by both bounds. Raises: InvalidArgument for labels not one an image."""
        return explained(partial(self._readings, classes=classes), squared_distances, classes)

    def _readings(
        self, squared_distances: Float[Tensor, "n n"], classes: Mapping[str, Int64[Tensor, " n"]]
    ) -> Iterator[Reading]:
        quarter = quarters(len(squared_distances), squared_distances.device, self.seed)
        found: dict[str, dict[Bound, Resampled]] = {name: {} for name in ("", *classes)}
        nulls = {}
        sharing = {name: Sharing.of(labels, quarter) for name, labels in classes.items()}
        for bound in BOUNDS:
            kernel = torch.exp(squared_distances / (-EXPONENT[bound] * self.noise_variance))
            found[""][bound] = kernel_information(kernel, quarter)
            for name, labels in classes.items():
                found[name][bound] = kernel_information(kernel, quarter, sharing[name])
                nulls[name, bound] = permuted_kernel(kernel, labels, self.permutations, self.seed)
        whole = {bound: resampled.nats for bound, resampled in found[""].items()}
        for bound in BOUNDS:
            yield self._reading(Quantity.INPUT, "", bound, found[""][bound], whole["lower"], whole["upper"])
        for name, labels in classes.items():
            inside = {bound: resampled.nats for bound, resampled in found[name].items()}
            lower, upper = whole["lower"] - inside["upper"], whole["upper"] - inside["lower"]
            for bound in BOUNDS:
                resampled, null = found[""][bound] - found[name][bound], nulls[name, bound]
                yield self._reading(
                    Quantity.LABEL, name, bound, resampled, lower, upper, null, whole[bound], entropy_nats(labels)
                )

    def _reading(
        self,
        quantity: Quantity,
        labels: str,
        bound: Bound,
        resampled: Resampled,
        lower: float,
        upper: float,
        null: Null = NO_NULL,
        of_images: float = 0.0,
        entropy: float = math.inf,
    ) -> Reading:
        series = self.series[BOUNDS.index(bound)]
        reading = Reading(quantity, *series, resampled.nats, lower, upper, labels, capped=True)
        return judged(null.beside(reading), resampled, of_images, entropy)
