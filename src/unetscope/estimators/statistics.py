"""What estimators read of a layer, and what is asked of an estimator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.estimators.kernels import Bound
from unetscope.estimators.reading import Reading

Classes = Mapping[str, Int64[Tensor, " n"]]


class Pairwise(NamedTuple):
    """Squared distances between images, and e such that rounding moves that of i and j by about e_i + e_j."""

    squared: Float[Tensor, "n n"]
    errors: Float[Tensor, " n"]

    @classmethod
    def joined(cls, parts: Sequence[Pairwise]) -> Pairwise:
        """Those of the concatenation of several layers."""
        return cls(
            sum(p.squared for p in parts[1:]) + parts[0].squared, sum(p.errors for p in parts[1:]) + parts[0].errors
        )

    def relative(self) -> Pairwise:
        """The same in units of the median over all pairs of images; not finite if more than half of the pairs are equal.

        >>> squared = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 8.0], [4.0, 8.0, 0.0]])
        >>> Pairwise(squared, torch.zeros(3)).relative().squared[0].tolist()
        [0.0, 0.5, 1.0]
        """
        n = len(self.squared)
        pairs = torch.triu_indices(n, n, 1, device=self.squared.device)
        median = self.squared[pairs[0], pairs[1]].median()
        return Pairwise(self.squared / median, self.errors / median)


@dataclass(frozen=True)
class Needs:
    """Which statistics of a layer an estimator reads.

    distances: squared, between the images. relative: the same in units of their median. bin_sizes: those of which it reads the
    symbols. inputs: squared distances between the images as the network is given them.
    """

    distances: bool = False
    relative: bool = False
    bin_sizes: tuple[float, ...] = ()
    inputs: bool = False

    @classmethod
    def of_all(cls, estimators: Sequence[Estimator]) -> Needs:
        """Whatever any of them reads."""
        needs = [estimator.needs for estimator in estimators]
        return cls(
            any(need.distances for need in needs),
            any(need.relative for need in needs),
            tuple(dict.fromkeys(size for need in needs for size in need.bin_sizes)),
            any(need.inputs for need in needs),
        )


@dataclass(frozen=True)
class LayerStatistics:
    """All that estimators read of a layer, for n images.

    distances: between the images. relative: in units of the median one; in a concatenation each part keeps its own unit, so
    relative noise is the same there as in the part. symbols: by bin size. precise: whether distances are those of float64
    products. inputs: squared distances between the images themselves.

    >>> layer = LayerStatistics.of_distances(torch.tensor([[0.0, 4.0], [4.0, 0.0]]))
    >>> LayerStatistics.joined([layer, layer]).distances.squared[0].tolist()
    [0.0, 8.0]
    """

    distances: Pairwise | None = None
    relative: Pairwise | None = None
    symbols: Mapping[float, Int64[Tensor, " n"]] = field(default_factory=dict)
    precise: bool = True
    inputs: Float[Tensor, "m m"] | None = None

    @classmethod
    def of_distances(cls, squared: Float[Tensor, "n n"], inputs: Float[Tensor, "m m"] | None = None) -> LayerStatistics:
        """From exact squared distances, in the unit that the estimator's resolution is in."""
        pairwise = Pairwise(squared, squared.new_zeros(len(squared)))
        return cls(pairwise, pairwise, inputs=inputs)

    @classmethod
    def of_symbols(cls, symbols: Int64[Tensor, " n"], bin_size: float) -> LayerStatistics:
        """From one symbol an image: `Symbols.groups`, or any other numbering."""
        return cls(symbols={bin_size: symbols})

    @classmethod
    def joined(cls, parts: Sequence[LayerStatistics]) -> LayerStatistics:
        """The statistics of the concatenation of several layers: distances add up, and images are alike where all parts are."""
        distances = [part.distances for part in parts if part.distances is not None]
        relative = [part.relative for part in parts if part.relative is not None]
        return cls(
            Pairwise.joined(distances) if distances else None,
            Pairwise.joined(relative) if relative else None,
            {size: joint_symbols([part.symbols[size] for part in parts]) for size in parts[0].symbols},
            any(part.precise for part in parts),
            parts[0].inputs,
        )

    @property
    def device(self) -> torch.device:
        """Where the statistics are."""
        distances = [pairwise.squared for pairwise in (self.distances, self.relative) if pairwise is not None]
        return next(iter([*distances, *self.symbols.values()])).device

    def pairwise(self, *, relative: bool) -> Pairwise:
        """The distances, in units of the activation or of the median distance."""
        pairwise = self.relative if relative else self.distances
        assert pairwise is not None, "the estimator does not say that it needs these distances"
        return pairwise


@runtime_checkable
class Estimator(Protocol):
    """Whatever reads the statistics of a layer and gives information back, in nats; defaults are those of a new estimator."""

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """The keys and resolutions of its estimates, as the registry has them."""
        ...

    @property
    def needs(self) -> Needs:
        """The statistics that it reads."""
        ...

    @property
    def kernels(self) -> tuple[tuple[float, Bound], ...]:
        """The noise variances and bounds with which it takes kernels of distances: how rounding of these moves it.

        There are none where rounding has no part in an estimate, or only which image is nearer than another counts.
        """
        return ()

    def readings(self, statistics: LayerStatistics, classes: Classes) -> Iterator[Reading]:
        """Estimates of one layer: of I(X;M), then of I(Y;M) for each label scheme."""
        ...


def joint_symbols(groups: Sequence[Int64[Tensor, " n"]]) -> Int64[Tensor, " n"]:
    """The groups of a concatenation of layers from those of its parts: alike where all parts are.

    >>> joint_symbols([torch.tensor([0, 0, 0]), torch.tensor([0, 1, 1])]).tolist()
    [0, 1, 1]
    """
    return first_alike(torch.stack(tuple(groups), dim=1))


def first_alike(rows: Int64[Tensor, "n k"]) -> Int64[Tensor, " n"]:
    """Of each row, the place of the first row equal to it."""
    _, number = torch.unique(rows, dim=0, return_inverse=True)
    first = torch.full_like(number, len(rows)).scatter_reduce(
        0, number, torch.arange(len(rows), device=rows.device), "amin"
    )
    return first[number]
