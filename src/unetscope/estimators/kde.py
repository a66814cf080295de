"""Mutual information from pairwise distances (kernel density estimation), and how rounding of the distances moves it.

A layer T with Gaussian noise of variance σ² added to it is a mixture of n Gaussians, one an image. Bounds of that
mixture's entropy need only the squared distances D between the images.

Source: Kolchinsky & Tracey, Entropy 19:361 (2017); Saxe et al., ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.base import InvalidArgument, whole_fields
from unetscope.estimators.groups import Groups
from unetscope.estimators.interface import Bound, Estimator, LayerStatistics, Needs, Reading, with_reasons
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.permuted import permuted_kernel
from unetscope.estimators.resampling import (
    NO_NULL,
    PERMUTATIONS,
    Null,
    Resampled,
    Sharing,
    check_permutations,
    kernel_information,
    quarters,
    row_strips,
    with_interval,
)
from unetscope.table import Quantity

BOUNDS: tuple[Bound, ...] = ("upper", "lower")
EXPONENT = {"upper": 2.0, "lower": 8.0}  # c in exp(-D / (c * noise_variance))
ROWS_AT_ONCE = 128
LARGEST_FLOAT32 = torch.finfo(torch.float32).max


def noise_kernel(
    squared_distances: Float[Tensor, "n n"],
    noise_variance: float,
    bound: Bound = "upper",
    *,
    precise: bool = True,
) -> Float[Tensor, "n n"]:
    """exp(-D_ij / (c * noise_variance)), c = 2 for the upper (Kullback-Leibler) and 8 for the lower (Bhattacharyya) bound.

    precise: in the precision of the distances, else in float32.

    Source: Kolchinsky & Tracey (2017), section 4.
    """
    dtype = squared_distances.dtype if precise else torch.float32
    kernel = torch.empty_like(squared_distances, dtype=dtype)
    for rows in row_strips(len(kernel)):
        strip = squared_distances[rows]
        if not precise:
            strip = strip.clamp(max=LARGEST_FLOAT32).float()
        kernel[rows] = torch.exp(strip / (-EXPONENT[bound] * noise_variance))
    return kernel


def shift_by_errors(
    squared_distances: Float[Tensor, "n n"],
    errors: Float[Tensor, " n"],
    noise_variance: float,
    *,
    bound: Bound = "upper",
) -> float:
    """How far, in nats, an estimate moves if every D_ij is off by e_i + e_j: its first order.

    (1/n) sum_i sum_j K_ij (e_i + e_j) / (c * noise_variance) / (1 + sum_j K_ij), j other than i, with K and c as of
    `noise_kernel`. The kernel is taken at the smallest D_ij that such errors leave possible, four errors below the
    measured one: otherwise a near pair that errors moved apart would count as settled. Errors of distances at which the kernel
    is zero have no effect. Errors of either sign, as those of rounding, move an estimate less.

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
    """Raises: InvalidArgument for a noise variance that is not a positive number."""
    if not 0 < noise_variance < math.inf:
        raise InvalidArgument(f"noise_variance must be > 0, got {noise_variance}")


@dataclass(frozen=True, slots=True)
class NoisyEstimator(Estimator):
    """An estimator of a layer to which Gaussian noise is added.

    noise_variance: in units of the activation, squared; if `relative`, of the median squared distance between images, so
    that it means the same in every layer.
    """

    noise_variance: float = 1.0
    relative: bool = False

    @property
    def needs(self) -> Needs:
        """Distances in the unit of its noise."""
        return Needs(distances=not self.relative, relative=self.relative)

    @property
    def kernels(self) -> tuple[tuple[float, Bound], ...]:
        """The noise variances and bounds that it takes kernels of distances with."""
        return tuple((self.noise_variance, bound) for bound in BOUNDS)


@dataclass(frozen=True, slots=True)
class KDE(NoisyEstimator):
    """I(X;M) and I(Y;M) by pairwise distances, upper and lower, for one noise variance (the paper's is 1).

    I(Y;M) is I(X;M) less the information inside the classes, with the same bound for both: `kde_upper` is the published
    estimate. A difference of upper bounds is no bound, so its bracket is
    [lower(all) - sum_c p_c upper(c), upper(all) - sum_c p_c lower(c)]. Bounds are of the mixture of these n images; their
    limit for many images is that of `resampling`.

    permutations: of the labels, for the null of I(Y;M).

    Raises: InvalidArgument if noise_variance is not positive.
    """

    permutations: int = PERMUTATIONS
    seed: int = 0

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """The names and resolutions of its estimates."""
        return tuple((f"kde_{bound}{'_relative' * self.relative}", self.noise_variance) for bound in BOUNDS)

    def __post_init__(self) -> None:
        whole_fields(self, "permutations", "seed")
        check_noise_variance(self.noise_variance)
        check_permutations(self.permutations)

    def readings(self, statistics: LayerStatistics, classes: Mapping[str, Int64[Tensor, " k"]]) -> Iterator[Reading]:
        """I(X;M), then I(Y;M) for each label scheme, by both bounds. Raises: InvalidArgument for labels not one an image."""
        squared = statistics.pairwise(relative=self.relative).squared
        # kernels in float64 take twice as long, and 1e-6 nats is near enough
        of_distances = partial(self._readings, classes=classes, groups=statistics.groups, precise=statistics.precise)
        return with_reasons(of_distances, squared, classes)

    def _readings(
        self,
        squared_distances: Float[Tensor, "n n"],
        classes: Mapping[str, Int64[Tensor, " n"]],
        groups: Groups | None,
        precise: bool,
    ) -> Iterator[Reading]:
        quarter = quarters(len(squared_distances), squared_distances.device, self.seed, groups)
        information: dict[str, dict[Bound, Resampled]] = {
            name: {} for name in ("", *classes)
        }  # "" is that of all images
        nulls = {}
        sharing = {name: Sharing.of(labels, quarter) for name, labels in classes.items()}
        for bound in BOUNDS:
            kernel = noise_kernel(squared_distances, self.noise_variance, bound, precise=precise)  # [n, n]
            information[""][bound] = kernel_information(kernel, quarter, groups=groups)
            for name, labels in classes.items():
                information[name][bound] = kernel_information(kernel, quarter, sharing[name], groups)
                nulls[name, bound] = permuted_kernel(kernel, labels, self.permutations, self.seed, groups)
        whole = {bound: resampled.nats for bound, resampled in information[""].items()}
        for bound in BOUNDS:
            yield self._reading(Quantity.INPUT, "", bound, information[""][bound], whole["lower"], whole["upper"])
        for name, labels in classes.items():
            inside = {bound: resampled.nats for bound, resampled in information[name].items()}
            lower, upper = whole["lower"] - inside["upper"], whole["upper"] - inside["lower"]
            for bound in BOUNDS:
                resampled, null = information[""][bound] - information[name][bound], nulls[name, bound]
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
        return with_interval(null.beside(reading), resampled, of_images, entropy)
