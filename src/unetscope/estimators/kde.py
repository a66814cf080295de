"""Mutual information from pairwise distances (kernel density estimation). Imports errors, labels and readings.

A layer T with Gaussian noise of variance σ² added to it is a mixture of n Gaussians, one an image. Bounds of that
mixture's entropy need the squared distances D between the images and nothing else.

Source: Kolchinsky & Tracey, Entropy 19:361 (2017); Saxe et al., ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.errors import InvalidArgument
from unetscope.estimators.reading import Reading

Bound = Literal["upper", "lower"]
BOUNDS: tuple[Bound, ...] = ("upper", "lower")


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
    log_kernel = _log_kernel(squared_distances, noise_variance, bound)
    return math.log(len(log_kernel)) - torch.logsumexp(log_kernel, dim=1).mean().item()


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
    if classes.shape != squared_distances.shape[:1]:
        raise InvalidArgument(f"{len(classes)} labels for {len(squared_distances)} images: expected one an image")
    log_kernel = _log_kernel(squared_distances, noise_variance, bound)
    same_class = classes[:, None] == classes[None, :]
    log_sums = torch.logsumexp(log_kernel.masked_fill(~same_class, -math.inf), dim=1)
    return (same_class.sum(dim=1).double().log() - log_sums).mean().item()


def _log_kernel(squared_distances: Tensor, noise_variance: float, bound: Bound) -> Tensor:
    check_noise_variance(noise_variance)
    return squared_distances.double() / (-{"upper": 2.0, "lower": 8.0}[bound] * noise_variance)


def check_noise_variance(noise_variance: float) -> None:
    """Refuse a noise variance that is not a positive number."""
    if not 0 < noise_variance < math.inf:
        raise InvalidArgument(f"noise_variance must be > 0, got {noise_variance}")


@dataclass(frozen=True, slots=True)
class KDE:
    """I(X;M) and I(Y;M) by pairwise distances, upper and lower, for one noise variance (the paper's is 1).

    I(Y;M) is I(X;M) less the information inside the classes, with the same bound for both: `kde_upper` is the published
    estimate. A difference of upper bounds is no bound, so its bracket is
    [lower(all) - sum_c p_c upper(c), upper(all) - sum_c p_c lower(c)].

    Raises: InvalidArgument if noise_variance is not positive.
    """

    noise_variance: float = 1.0
    statistic = "distances"

    def __post_init__(self) -> None:
        check_noise_variance(self.noise_variance)

    def readings(
        self, squared_distances: Float[Tensor, "n n"], classes: Mapping[str, Int64[Tensor, " n"]]
    ) -> Iterator[Reading]:
        """I(X;M), then I(Y;M) for each label scheme, by both bounds."""
        whole = {bound: mixture_information(squared_distances, self.noise_variance, bound=bound) for bound in BOUNDS}
        yield from self._pair("I(X;M)", "", whole, whole["lower"], whole["upper"])
        for name, labels in classes.items():
            inside = {
                bound: within_class_information(squared_distances, self.noise_variance, labels, bound=bound)
                for bound in BOUNDS
            }
            values = {bound: whole[bound] - inside[bound] for bound in BOUNDS}
            lower, upper = whole["lower"] - inside["upper"], whole["upper"] - inside["lower"]
            yield from self._pair("I(Y;M)", name, values, lower, upper)

    def _pair(
        self,
        quantity: Literal["I(X;M)", "I(Y;M)"],
        labels: str,
        values: Mapping[Bound, float],
        lower: float,
        upper: float,
    ) -> Iterator[Reading]:
        for bound in BOUNDS:
            name = f"kde_{bound}"
            yield Reading(quantity, name, self.noise_variance, values[bound], lower, upper, labels)
