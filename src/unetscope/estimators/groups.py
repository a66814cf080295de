"""Groups of images that are not independent, such as those of a patient: what is resampled and permuted instead of images.

Values of the delete-a-group jackknife stand for those of images, and labels change places in whole groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from unetscope.table import effective_groups, too_few_groups

FEWEST_ORDERS = 20  # of the labels of groups: with fewer, p cannot get to 5 %
FEWEST_IN_BLOCK = 5  # groups of about one size, among which labels change places


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each of n images, 0 … groups − 1.

    >>> groups = Groups.of(torch.tensor([4, 4, 7, 7, 9, 9]))
    >>> groups.of_image.tolist(), groups.count, groups.effective, groups.distinct_orders
    ([0, 0, 1, 1, 2, 2], 3, 3.0, 6)
    """

    of_image: Int64[Tensor, " n"]

    @classmethod
    def of(cls, numbers: Int64[Tensor, " n"]) -> Groups:
        """Those of any numbers, equal within a group."""
        return cls(torch.unique(numbers, return_inverse=True)[1])

    @cached_property
    def sizes(self) -> Int64[Tensor, " groups"]:
        """How many images each has."""
        return torch.bincount(self.of_image)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.sizes)

    @cached_property
    def effective(self) -> float:
        """How many groups of one size they are worth."""
        return effective_groups(self.sizes.cpu().numpy())

    @cached_property
    def hot(self) -> Float[Tensor, "n groups"]:
        """1 where an image is in a group, else 0."""
        return functional.one_hot(self.of_image, self.count).double()

    @property
    def why_too_few(self) -> str:
        """Why there is no interval over so few; empty if there are enough."""
        return too_few_groups(self.count, self.effective)

    def to(self, device: torch.device) -> Groups:
        """The same on a device."""
        return self if self.of_image.device == device else Groups(self.of_image.to(device))

    def split(self, parts: int, generator: torch.Generator) -> Int64[Tensor, " n"]:
        """A part for each image by chance, the same for all of a group."""
        part_of_group = torch.randperm(self.count, generator=generator) % parts
        return part_of_group.to(self.of_image.device)[self.of_image]

    def summed(self, values: Float[Tensor, " n"]) -> Float[Tensor, " groups"]:
        """The sum of the values of each group."""
        return torch.zeros(self.count, dtype=values.dtype, device=values.device).index_add_(0, self.of_image, values)

    def jackknife(self, whole: float, without: Float[Tensor, " groups"]) -> Float[Tensor, " groups"]:
        """Values whose spread is that of an estimate, from the estimate without each group; their mean is the estimate."""
        values = (1 - self.count) * without
        return values - values.mean() + whole

    def first_order(self, whole: float, values: Float[Tensor, " n"]) -> Float[Tensor, " groups"]:
        """Likewise from the values of the images, whose sum over a group is about what the group changes."""
        rest = (len(values) - self.sizes).clamp(min=1)
        return self.jackknife(whole, whole - self.summed(values - values.mean()) / rest)

    @cached_property
    def blocks(self) -> tuple[tuple[int, ...], ...]:
        """The groups that labels change places among: of one size, or of neighbouring ones where few have one size.

        Labels may depend on the size of a group: whoever is ill has more slices. Groups that are unlike in size are then not
        exchangeable, and those of a size that few have would keep their labels if only groups of one size changed places.
        """
        blocks: list[list[int]] = [[]]
        sizes = self.sizes.tolist()
        for group in sorted(range(self.count), key=lambda group: sizes[group]):
            if len(blocks[-1]) >= FEWEST_IN_BLOCK and sizes[group] != sizes[blocks[-1][-1]]:
                blocks.append([])
            blocks[-1].append(group)
        if len(blocks) > 1 and len(blocks[-1]) < FEWEST_IN_BLOCK:
            last = blocks.pop()
            blocks[-1] += last
        return tuple(map(tuple, blocks))

    @cached_property
    def distinct_orders(self) -> int:
        """In how many ways labels can change places in whole groups of a block."""
        return math.prod(math.factorial(len(block)) for block in self.blocks)

    @property
    def has_p(self) -> bool:
        """Whether there are enough ways to change places for a p of 5 %."""
        return self.distinct_orders >= FEWEST_ORDERS

    def orders(self, times: int, generator: torch.Generator) -> Int64[Tensor, "times n"]:
        """By chance, of which image each image takes the label when whole groups of a block change places.

        Groups of one size do so image by image (exchangeable blocks); between groups of other sizes the labels of one are
        stretched to the size of the other. Laying groups end to end would not do: a group with the labels of two has less to do
        with them by chance than its own group has.

        Source: Winkler et al., NeuroImage 123:253 (2015), on exchangeability blocks.
        """
        by_group, ends = self.of_image.cpu().argsort(stable=True), self.sizes.cpu().cumsum(0)
        images, starts, sizes = by_group.tensor_split(ends[:-1]), ends - self.sizes.cpu(), self.sizes.cpu()
        places = [torch.empty((times, len(groups)), dtype=torch.int64) for groups in self.blocks]
        for time in range(times):
            for of_groups in places:
                torch.randperm(of_groups.shape[1], generator=generator, out=of_groups[time])
        orders = torch.empty((times, len(self.of_image)), dtype=torch.int64)
        for groups, of_groups in zip(self.blocks, places, strict=True):
            for group, giving in zip(groups, torch.tensor(groups)[of_groups].T, strict=True):
                rows = images[group]
                stretched = torch.arange(len(rows)) * sizes[giving, None] // len(rows)
                orders[:, rows] = by_group[starts[giving, None] + stretched]
        return orders
