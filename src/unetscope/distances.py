"""Pairwise squared distances between images in one layer, accumulated over slices. Imports capture's chunk size."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from unetscope.capture import FEATURES_AT_ONCE

ROWS_AT_ONCE = 160
ROUNDING = 2.0**-44  # of a sum of many products in float64, relative to their size


class Distances:
    """The matrix ‖t_i − t_j‖² of n images, fed with the values of their activations in any number of slices.

    Every slice is centred on its mean image first: distances do not change, and the digits that a large mean would cost
    are kept. Products are float64, since ‖t_i‖² + ‖t_j‖² − 2 t_i·t_j of two near images far from the mean would lose in
    float32 all that tells them apart. Only the half of the symmetric product that is needed is computed.

    >>> distances = Distances(n=3)
    >>> distances.add(torch.tensor([[0.0, 1.0], [0.0, 3.0], [4.0, 1.0]]))
    >>> distances.squared().round().long().tolist()
    [[0, 4, 16], [4, 0, 20], [16, 20, 0]]
    """

    def __init__(self, n: int) -> None:
        self._gram = torch.zeros((n, n), dtype=torch.float64)

    def add(self, values: Float[Tensor, "n width"]) -> None:
        """Take in further features of all images, float32."""
        self._gram = self._gram.to(values.device)
        for chunk in values.split(FEATURES_AT_ONCE, dim=1):
            centred = chunk.double()
            centred -= centred.mean(dim=0)
            for first in range(0, len(values), ROWS_AT_ONCE):
                rows = slice(first, first + ROWS_AT_ONCE)
                self._gram[first:, rows] += centred[first:] @ centred[rows].T

    def squared(self) -> Float[Tensor, "n n"]:
        """The squared distances, float64: symmetric, not negative, exactly 0 on the diagonal.

        What cannot be told from the rounding of ‖t_i‖² + ‖t_j‖², centred, is 0 too: equal images have no distance.
        """
        gram = torch.tril(self._gram)
        gram = gram + torch.tril(gram, diagonal=-1).T
        norms = gram.diagonal()
        sums = norms[:, None] + norms[None, :]
        squared = sums - 2 * gram
        squared[squared < ROUNDING * sums] = 0.0
        return squared.fill_diagonal_(0.0)
