"""Pairwise squared distances between images in one layer, accumulated over slices."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unetscope.activations import FEATURES_AT_ONCE, all_reduce, full_float32, rank, world_size

# Of a strip of the triangle: a thin one computes few superfluous products, a thick one is fast.
ROWS_ON_CPU, ROWS_ON_GPU = 96, 2048
ROWS_IN_MEAN = 32
EQUAL_BELOW = 2.0**-44  # of ‖t_i‖² + ‖t_j‖²: the rounding of a sum of many products in float64
FLOAT32_ERROR = 2.0**-22  # likewise, of products in float32, if they round either way: 2⁻²⁵ to 2⁻²¹·³ on real layers
DRIFT_FROM = 2.0**-21  # of ‖t_i‖²: more than this is not chance; equal addends, or one large among small, round one way


class Distances:
    """The matrix ‖t_i − t_j‖² of n images, fed with the values of their activations in any number of slices.

    Distances are g_ii + g_jj − 2 g_ij, g being the products of the activations less a mean image: a shift changes no
    distance, and keeps the digits that a large mean would cost. Only the lower half of the symmetric g is computed, chunk
    by chunk of features. Products are float32 (float64 if `precise`), their sum over the chunks is float64.

    >>> distances = Distances(n=3)
    >>> distances.add(torch.tensor([[0.0, 1.0], [0.0, 3.0], [4.0, 1.0]]))
    >>> distances.squared().round().long().tolist()
    [[0, 4, 16], [4, 0, 20], [16, 20, 0]]
    """

    def __init__(self, n: int, *, precise: bool = False, share: bool = False) -> None:
        self.precise, self.share, self._chunks = precise, share, 0
        self._products = torch.zeros((n, n), dtype=torch.float64)
        self._errors = torch.zeros(n, dtype=torch.float64)

    def add(self, values: Float[Tensor, "n width"]) -> None:
        """Add further features of all images, float32; if they are shared, each process takes its own chunks."""
        n, dtype = len(values), torch.float64 if self.precise else torch.float32
        self._products, self._errors = self._products.to(values.device), self._errors.to(values.device)
        rows = _rows_at_once(values.device)
        with full_float32(), torch.autocast(values.device.type, enabled=False):
            for chunk in values.split(FEATURES_AT_ONCE, dim=1):
                self._chunks += 1
                if self.share and self._chunks % world_size() != rank():
                    continue
                mean = chunk[:: -(-n // ROWS_IN_MEAN)].double().mean(dim=0)
                centred = chunk.to(dtype) - mean.to(dtype)
                squares = []
                for first in range(0, n, rows):
                    strip = _products(centred[first:], centred[first : first + rows])
                    self._products[first:, first : first + rows] += strip
                    squares.append(strip.diagonal())
                self._errors += _chunk_errors(torch.cat(squares), centred)

    def gather(self) -> None:
        """Sum over the processes, once all features have been added."""
        if self.share:
            all_reduce(self._products, self._errors)

    @property
    def norms(self) -> Float[Tensor, " n"]:
        """‖t_i‖² less the mean image, float64; not finite if an activation is not, or if its square is too large."""
        return self._products.diagonal()

    @property
    def errors(self) -> Float[Tensor, " n"]:
        """e such that rounding moves the squared distance of i and j by about e_i + e_j."""
        return self._errors

    def squared(self) -> Float[Tensor, "n n"]:
        """The squared distances, float64: symmetric, not negative, exactly 0 on the diagonal; they overwrite the products.

        Distances within the rounding of ‖t_i‖² + ‖t_j‖² in float64 are 0 too, so with precise products equal images have
        no distance.
        """
        squared, norms, rows = self._products, self.norms.clone(), _rows_at_once(self._products.device)
        for first in range(0, len(norms), rows):
            strip = squared[first : first + rows, : first + rows]
            sums = norms[first : first + rows, None] + norms[None, : first + rows]
            strip.mul_(-2).add_(sums)
            strip[strip < EQUAL_BELOW * sums] = 0.0
            square = strip[:, first:].tril(-1)
            strip[:, first:] = square + square.T
            squared[:first, first : first + rows] = strip[:, :first].T
        return squared


def _chunk_errors(squares: Float[Tensor, " n"], centred: Float[Tensor, "n width"]) -> Float[Tensor, " n"]:
    """The error of the products of a chunk, estimated from those of each image with itself, whose exact values are known."""
    if centred.dtype == torch.float64:
        return EQUAL_BELOW * squares
    norms = centred.square().sum(dim=1).double()
    underflow = centred.shape[1] * torch.finfo(torch.float32).tiny
    drift = ((squares.double() - norms).abs() / (norms + underflow)).amax()
    relative = torch.where(drift > DRIFT_FROM, 2 * drift, 0.0) + FLOAT32_ERROR
    return relative * norms + underflow


def _rows_at_once(device: torch.device) -> int:
    return ROWS_ON_CPU if device.type == "cpu" else ROWS_ON_GPU


def _products(left: Float[Tensor, "n width"], right: Float[Tensor, "m width"]) -> Float[Tensor, "n m"]:
    """left @ right.T. On several CPU cores in float32, oneDNN's 1×1 convolution is up to twice as fast as the BLAS."""
    convolved = left.device.type == "cpu" and left.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if not convolved or torch.get_num_threads() == 1:  # on one thread torch would convolve without oneDNN
        return left @ right.T
    width = left.shape[1]
    pixels = left.reshape(1, 1, -1, width).permute(0, 3, 1, 2)  # one image, its channels last in memory
    return functional.conv2d(pixels, right.reshape(-1, width, 1, 1))[0, :, 0].T
