"""Mutual information from quantised activations (histogram).

An image's activation, each value replaced by floor(t / bin_size), is one symbol. In a high dimension nearly every symbol
occurs once, and the estimate is at its ceiling; the share of unique symbols is the warning.

Source: Saxe et al., ICLR 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Int64
from torch import Tensor

from unetscope.base import InvalidArgument, whole_fields
from unetscope.estimators.groups import Groups
from unetscope.estimators.interface import Estimator, LayerStatistics, Needs, Reading, with_reasons
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.permuted import permuted_symbols
from unetscope.estimators.resampling import (
    PERMUTATIONS,
    check_permutations,
    quarters,
    symbol_entropy,
    with_interval,
)
from unetscope.table import Quantity

SMALLEST_BIN = 1e-200  # a float32 divided by it is still a finite float64


def symbol_label_information(symbols: Int64[Tensor, " n"], classes: Int64[Tensor, " k"]) -> float:
    """I(T; Y) = H(symbols) + H(classes) - H(both) in nats, equal to H(symbols) - sum_c p_c H(symbols in c).

    Raises: InvalidArgument if the labels are not one an image.

    >>> symbols, classes = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 1, 1])
    >>> round(symbol_label_information(symbols, classes), 4)    # the symbol determines the class: H(Y) = ln 2
    0.6931
    """
    if classes.shape != symbols.shape:
        raise InvalidArgument(f"{len(classes)} labels for {len(symbols)} images: expected one an image")
    both = torch.unique(torch.stack((symbols, classes)), dim=1, return_inverse=True)[1]
    return max(0.0, entropy_nats(symbols) + entropy_nats(classes) - entropy_nats(both))


@dataclass(frozen=True, slots=True)
class Binning(Estimator):
    """I(X;M) and I(Y;M) by quantising every activation with one bin size.

    permutations: of the labels, for the null of I(Y;M).

    Raises: InvalidArgument if bin_size is not positive.
    """

    bin_size: float = 0.2
    permutations: int = PERMUTATIONS
    seed: int = 0

    @property
    def needs(self) -> Needs:
        """The symbols of its bin size."""
        return Needs(bin_sizes=(self.bin_size,))

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """The name and resolution of its estimates."""
        return (("binning", self.bin_size),)

    def __post_init__(self) -> None:
        whole_fields(self, "permutations", "seed")
        if not 0 < self.bin_size < math.inf:
            raise InvalidArgument(f"bin_size must be > 0, got {self.bin_size}")
        if self.bin_size < SMALLEST_BIN:
            raise InvalidArgument(f"bin_size must be at least {SMALLEST_BIN}, got {self.bin_size}")
        check_permutations(self.permutations)

    def readings(self, statistics: LayerStatistics, classes: Mapping[str, Int64[Tensor, " k"]]) -> Iterator[Reading]:
        """I(X;M), then I(Y;M) for each label scheme. Raises: InvalidArgument if labels are not one an image."""
        return with_reasons(
            partial(self._readings, classes=classes, groups=statistics.groups),
            statistics.symbols[self.bin_size],
            classes,
        )

    def _readings(
        self, symbols: Int64[Tensor, " n"], classes: Mapping[str, Int64[Tensor, " n"]], groups: Groups | None
    ) -> Iterator[Reading]:
        quarter = quarters(len(symbols), symbols.device, self.seed, groups)
        _, numbers, counts = torch.unique(symbols, return_inverse=True, return_counts=True)
        unique_share = (counts == 1).sum().item() / len(symbols)
        of_symbols = symbol_entropy(numbers, quarter, groups)
        whole = Reading(Quantity.INPUT, *self.series[0], of_symbols.nats, capped=True, unique_share=unique_share)
        yield with_interval(whole, of_symbols)
        for name, labels in classes.items():
            classed = torch.unique(labels, return_inverse=True)[1]
            both = symbol_entropy(numbers + len(counts) * classed, quarter, groups)  # pairs are numbers again
            shared = of_symbols - (both - symbol_entropy(labels, quarter, groups))
            null = permuted_symbols(symbols, labels, self.permutations, self.seed, groups)
            reading = replace(whole, quantity=Quantity.LABEL, nats=max(0.0, shared.nats), labels=name)
            yield with_interval(null.beside(reading), shared, of_symbols.nats, entropy_nats(labels))
