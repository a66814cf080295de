"""Means and covariances of a layer's channels and of the masks above them, accumulated over images.

Every least-squares probe of a layer follows from them, so activations are not stored. A *place* is one location of one
image's activation; above it lies a block of r × r mask pixels (r = mask size / layer size), which is to be predicted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unetscope.base import InvalidArgument

ROWS_IN_SHIFT = 1024  # of a batch, the mean of which is subtracted before products


class Moments:
    """Count, means and scatter of features X [m, channels] and targets Y [m, outputs], fed in any number of batches.

    Products of a batch are float32, of features less about their mean; batches are joined in float64 by the parallel formula
    of Chan, Golub & LeVeque (1979). So a mean far above the spread costs no digits.

    >>> moments = Moments(channels=1, outputs=1)
    >>> moments.add(torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]]))
    >>> moments.add(torch.tensor([[3.0]]), torch.tensor([[6.0]]))
    >>> moments.count, moments.features_mean.item(), moments.scatter.item(), moments.cross.item()
    (3, 2.0, 2.0, 4.0)
    """

    def __init__(self, channels: int, outputs: int, device: torch.device | None = None) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.count = 0
        self.features_mean, self.targets_mean = zeros(channels), zeros(outputs)
        self.scatter, self.cross = zeros(channels, channels), zeros(channels, outputs)

    def add(self, features: Float[Tensor, "m channels"], targets: Float[Tensor, "m outputs"]) -> None:
        """Take in further places, float32."""
        m = len(features)
        if not m:
            return
        near = features[:: -(-m // ROWS_IN_SHIFT)].mean(dim=0)
        x = features - near
        rest, y_mean = x.mean(dim=0).double(), targets.mean(dim=0).double()
        scatter = (x.T @ x).double().addr_(rest, rest, alpha=-m)
        cross = (x.T @ targets).double().addr_(rest, y_mean, alpha=-m)
        self._join(m, near.double() + rest, y_mean, scatter, cross)

    @classmethod
    def joined(cls, parts: Iterable[Moments]) -> Moments:
        """The moments of all places of several."""
        first, *others = parts
        channels, outputs = first.cross.shape
        whole = cls(channels, outputs, first.cross.device)
        for part in (first, *others):
            whole._join(part.count, part.features_mean, part.targets_mean, part.scatter, part.cross)
        return whole

    def gather(self, summed: Callable[..., None]) -> None:
        """Become the moments of the places of all processes; `summed` replaces tensors by their sums over the processes."""
        count = torch.tensor(self.count, dtype=torch.float64, device=self.scatter.device)
        means = [self.features_mean * self.count, self.targets_mean * self.count]
        summed(count, *means)
        x_mean, y_mean = (mean / max(1.0, count.item()) for mean in means)
        x_step, y_step = self.features_mean - x_mean, self.targets_mean - y_mean
        self.scatter.addr_(x_step, x_step, alpha=self.count)
        self.cross.addr_(x_step, y_step, alpha=self.count)
        summed(self.scatter, self.cross)
        self.count, self.features_mean, self.targets_mean = int(count.item()), x_mean, y_mean

    def _join(self, count: int, x_mean: Tensor, y_mean: Tensor, scatter: Tensor, cross: Tensor) -> None:
        if not count:
            return
        total = self.count + count
        x_step, y_step = x_mean - self.features_mean, y_mean - self.targets_mean
        weight = self.count * count / total
        self.scatter.add_(scatter).addr_(x_step, x_step, alpha=weight)
        self.cross.add_(cross).addr_(x_step, y_step, alpha=weight)
        self.features_mean = self.features_mean + x_step * (count / total)
        self.targets_mean = self.targets_mean + y_step * (count / total)
        self.count = total


def ratios(layer_sides: Sequence[int], mask_sides: Sequence[int]) -> tuple[int, ...]:
    """How many mask pixels lie above one location of a layer, along each side.

    Raises: InvalidArgument if a side of the mask is not a multiple of the layer's.

    >>> ratios((8, 8), (64, 64))
    (8, 8)
    """
    if len(layer_sides) != len(mask_sides) or any(
        not side or mask % side for side, mask in zip(layer_sides, mask_sides, strict=False)
    ):
        raise InvalidArgument(
            f"a layer of {_by(layer_sides)} locations does not lie under a mask of {_by(mask_sides)} pixels: "
            "each side of the mask must be a multiple of the layer's"
        )
    return tuple(mask // side for side, mask in zip(layer_sides, mask_sides, strict=True))


def _by(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides)) or "no"


def features_of(activation: Float[Tensor, "b channels *sides"]) -> Float[Tensor, "m channels"]:
    """The channels at every place, image by image; no copy where the channels stand together in memory."""
    return activation.movedim(1, -1).reshape(-1, activation.shape[1])


def blocks_of(masks: Tensor, grid: Sequence[int]) -> Tensor:
    """Masks [b, *sides] as the blocks of pixels above every place, [m, r·r]; a layer's locations are grid.

    >>> blocks_of(torch.arange(16).reshape(1, 4, 4), (2, 2))[1].tolist()
    [2, 3, 6, 7]
    """
    sides = masks.shape[1:]
    cut = [size for side, r in zip(grid, ratios(grid, sides), strict=True) for size in (side, r)]
    axes = range(1, 2 * len(sides) + 1)
    spread = masks.reshape(len(masks), *cut).permute(0, *axes[::2], *axes[1::2])
    return spread.reshape(len(masks) * math.prod(grid), -1)


def folded(activation: Float[Tensor, "b channels *sides"]) -> Float[Tensor, "b more *halves"]:
    """The same values at half as many places along each side, those of 2 × 2 as channels of one; sides must be even.

    >>> folded(torch.arange(4.0).reshape(1, 1, 2, 2)).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    b, channels, *sides = activation.shape
    cut = activation.reshape(b, channels, *(half for side in sides for half in (side // 2, 2)))
    axes = range(2, 2 + 2 * len(sides))
    return cut.permute(0, 1, *axes[1::2], *axes[::2]).reshape(b, -1, *(side // 2 for side in sides))


def halved(activation: Float[Tensor, "b channels *sides"]) -> Float[Tensor, "b channels *halves"]:
    """The largest of every 2 × 2 places, as max pooling leaves it."""
    b, channels, *sides = activation.shape
    return folded(activation).reshape(b, channels, -1, *(side // 2 for side in sides)).amax(dim=2)


def folded_channels(dimensions: int, upsampled: int, source: int) -> tuple[int, int, int]:
    """The channels of the upsampled path folded, of the skip halved, and of the skip folded."""
    return 2**dimensions * upsampled, source, 2**dimensions * source
