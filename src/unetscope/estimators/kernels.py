"""Gaussian kernels of pairwise distances: what bounds of a noisy layer's information are made of, and how rounding moves them.

A layer T with Gaussian noise of variance σ² added to it is a mixture of n Gaussians, one an image. Bounds of that
mixture's entropy need the squared distances D between the images and nothing else.

Source: Kolchinsky & Tracey, Entropy 19:361 (2017); Saxe et al., ICLR 2018.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from unetscope.base import InvalidArgument

Bound = Literal["upper", "lower"]
BOUNDS: tuple[Bound, ...] = ("upper", "lower")
EXPONENT = {"upper": 2.0, "lower": 8.0}  # c in exp(-D / (c * noise_variance))
ROWS_AT_ONCE = 128


def noise_kernel(
    squared_distances: Float[Tensor, "n n"], noise_variance: float, bound: Bound = "upper"
) -> Float[Tensor, "n n"]:
    """exp(-D_ij / (c * noise_variance)), c = 2 for the upper (Kullback-Leibler) and 8 for the lower (Bhattacharyya) bound.

    Source: Kolchinsky & Tracey (2017), section 4.
    """
    return torch.exp(squared_distances / (-EXPONENT[bound] * noise_variance))


def shift_by_errors(
    squared_distances: Float[Tensor, "n n"],
    errors: Float[Tensor, " n"],
    noise_variance: float,
    *,
    bound: Bound = "upper",
) -> float:
    """How far, in nats, an estimate moves if every D_ij is off by e_i + e_j: its first order.

    (1/n) sum_i sum_j K_ij (e_i + e_j) / (c * noise_variance) / (1 + sum_j K_ij), j other than i, with K and c as of
    `noise_kernel`. The kernel is taken at the smallest D_ij that such errors leave possible, four of them below the one at
    hand: else a near pair that errors drove apart would vouch for itself. Distances too large for the kernel to see may be off
    by any amount. Errors of either sign, as rounding makes them, move an estimate less.

    >>> from unetscope.estimators.resampling import kernel_information, quarters
    >>> squared = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    >>> shift = shift_by_errors(squared, torch.tensor([1e-4, 1e-4]), noise_variance=0.5)
    >>> kernels = (noise_kernel(squared + step * (1 - torch.eye(2)), 0.5) for step in (0.0, 2e-4))
    >>> before, after = (kernel_information(kernel, quarters(2, kernel.device)).nats for kernel in kernels)
    >>> after - before < shift < 1.002 * (after - before)
    True
    """
    scale = EXPONENT[bound] * noise_variance
    moved = 0.0
    for rows in torch.arange(len(errors), device=errors.device).split(
        ROWS_AT_ONCE
    ):  # n × n in float64 is too much at once
        off = errors[rows, None] + errors[None]  # [rows, n]
        kernel = torch.exp((squared_distances[rows] - 4 * off).clamp_(min=0) / -scale)
        kernel[torch.arange(len(rows), device=rows.device), rows] = 0.0  # an image's distance to itself has no error
        moved += ((kernel * off).sum(dim=1) / (scale * (1 + kernel.sum(dim=1)))).sum().item()
    return moved / len(errors)


def check_noise_variance(noise_variance: float) -> None:
    """Refuse a noise variance that is not a positive number."""
    if not 0 < noise_variance < math.inf:
        raise InvalidArgument(f"noise_variance must be > 0, got {noise_variance}")
