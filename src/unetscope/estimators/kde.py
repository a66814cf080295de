"""Mutual information from pairwise distances (kernel density estimation)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.estimators.kernels import BOUNDS, Bound, check_noise_variance, noise_kernel
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.reading import Reading, with_reasons
from unetscope.estimators.resampling import (
    NO_NULL,
    PERMUTATIONS,
    Null,
    Resampled,
    Sharing,
    check_permutations,
    kernel_information,
    permuted_kernel,
    quarters,
    with_interval,
)
from unetscope.estimators.statistics import Estimator, LayerStatistics, Needs
from unetscope.table import Quantity

LARGEST_FLOAT32 = torch.finfo(torch.float32).max


@dataclass(frozen=True, slots=True)
class KDE(Estimator):
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
    def needs(self) -> Needs:
        """Distances in the unit of its noise."""
        return Needs(distances=not self.relative, relative=self.relative)

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

    def readings(self, statistics: LayerStatistics, classes: Mapping[str, Int64[Tensor, " k"]]) -> Iterator[Reading]:
        """I(X;M), then I(Y;M) for each label scheme, by both bounds. Raises: InvalidArgument for labels not one an image."""
        squared = statistics.pairwise(relative=self.relative).squared
        if not statistics.precise:  # kernels in float64 take twice as long, and 1e-6 nats is near enough
            squared = squared.clamp(max=LARGEST_FLOAT32).float()
        return with_reasons(partial(self._readings, classes=classes), squared, classes)

    def _readings(
        self, squared_distances: Float[Tensor, "n n"], classes: Mapping[str, Int64[Tensor, " n"]]
    ) -> Iterator[Reading]:
        quarter = quarters(len(squared_distances), squared_distances.device, self.seed)
        information: dict[str, dict[Bound, Resampled]] = {
            name: {} for name in ("", *classes)
        }  # "" is that of all images
        nulls = {}
        sharing = {name: Sharing.of(labels, quarter) for name, labels in classes.items()}
        for bound in BOUNDS:
            kernel = noise_kernel(squared_distances, self.noise_variance, bound)  # [n, n]
            information[""][bound] = kernel_information(kernel, quarter)
            for name, labels in classes.items():
                information[name][bound] = kernel_information(kernel, quarter, sharing[name])
                nulls[name, bound] = permuted_kernel(kernel, labels, self.permutations, self.seed)
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
