"""Which images share each symbol: activations quantised as they stream past."""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.activations import FEATURES_AT_ONCE
from unetscope.estimators import first_alike

WORDS = 8
MOST_DIGITS = 64  # a float32 divided by the smallest sensible bin has fewer
DIGIT_BITS = 20  # 20 bits of an integer times 20 bits of a factor, over 2**12 features, is exact in float64
assert 2 * DIGIT_BITS + (FEATURES_AT_ONCE - 1).bit_length() <= 53
RUN = 64  # neighbouring features that a sample takes together
ROWS_AT_ONCE = 256


class Symbols:
    """The symbol of each of n images, which is the row of integers floor(t / bin_size) of its activation t.

    Rows are distinguished by a 160-bit hash that grows chunk by chunk: eight words sum_k a_k floor(t_k / bin_size), with
    pseudo-random factors a_k. Two different rows of a chunk share a word with a chance of at most 2⁻²⁰, all eight with 2⁻¹⁶⁰
    (if they were not chosen for it: the factors are always the same).
    Sums are exact: products of integers run as float64 matrix products that never leave 53 bits, then as int64.

    An image whose hash differs from all others is complete: further features cannot change that. So only rows that are
    not yet distinct are quantised at all, and of them only features that fall into more than one bin. A sample
    spread over the whole layer comes first, which for most layers leaves nothing else to do.

    >>> symbols = Symbols(n=3, bin_size=0.5)
    >>> symbols.add(torch.tensor([[0.1, 0.6], [0.4, 0.9], [0.4, 1.1]]))
    >>> symbols.groups().tolist()
    [0, 0, 2]
    """

    def __init__(self, n: int, bin_size: float) -> None:
        self.bin_size = bin_size
        self._words: Int64[Tensor, "n 8"] = torch.zeros((n, WORDS), dtype=torch.int64)
        self._open: Int64[Tensor, " open"] = torch.arange(n)  # rows that share their words with another
        self._chunks = 0

    def add(self, values: Float[Tensor, "n width"]) -> None:
        """Add further features of all images."""
        self._words, self._open = self._words.to(values.device), self._open.to(values.device)
        width = values.shape[1]
        if (runs := FEATURES_AT_ONCE // RUN) < width // RUN:
            # a sample in runs of neighbours, as memory is read; it is hashed a second time with the rest, which harms nothing
            step = width // runs
            self._take(values[:, : runs * step].unflatten(1, (runs, step))[:, :, :RUN].flatten(1))
        for chunk in values.split(FEATURES_AT_ONCE, dim=1):
            self._take(chunk)

    def groups(self) -> Int64[Tensor, " n"]:
        """Of each image, the first image that has the same symbol."""
        groups = torch.arange(len(self._words), device=self._words.device)
        if len(self._open):
            groups[self._open] = self._open[first_alike(self._words[self._open])]
        return groups

    def _take(self, chunk: Float[Tensor, "n width"]) -> None:
        self._chunks += 1
        if len(self._open) == 0:
            return
        rows = chunk if len(self._open) == len(chunk) else chunk[self._open]
        # rounding down is monotonic: a feature whose extremes share a bin has the same integer in every row
        least, most = self._quantised(rows.amin(dim=0)), self._quantised(rows.amax(dim=0))
        telling = (least != most).nonzero().squeeze(1)
        if len(telling) == 0:
            return
        # odd, so that a chunk's difference is not lost modulo 2⁶⁴; different in every chunk, so that chunks do not cancel
        weights = _mixed(torch.arange(WORDS) + WORDS * self._chunks).to(chunk.device) | 1
        factors = [_factors(digit).to(chunk.device)[telling] for digit in range(_digits_in(least, most))]
        for first in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[first : first + ROWS_AT_ONCE]  # [rows, features]
            integers = self._quantised(part if len(telling) == part.shape[1] else part[:, telling])
            for digit, digit_factors in zip(_digits(integers, len(factors)), factors, strict=True):
                products = (digit @ digit_factors).to(torch.int64)  # [rows, words], exact below 2⁵³
                self._words[self._open[first : first + ROWS_AT_ONCE]] += products * weights
        alone = _alone(self._words[self._open])
        self._open = self._open[~alone]

    def _quantised(self, values: Tensor) -> Tensor:
        # float64, as the definition has it: 0.7 / 0.1 is 7.0 in float32 and 6.999… for the float32 number 0.7
        return values.double().div_(self.bin_size).floor_()


def _alone(words: Int64[Tensor, "n 8"]) -> Tensor:
    """Which rows surely equal no other, by one word mixed from the eight: where that differs, they differ."""
    _, number, counts = torch.unique(
        (words * _mixed(torch.arange(WORDS)).to(words.device)).sum(dim=1), return_inverse=True, return_counts=True
    )
    return counts[number] == 1


def _digits_in(least: Tensor, most: Tensor) -> int:
    """How many digits in base 2²⁰ the integers between two bounds have."""
    largest, digits = torch.maximum(least.abs(), most.abs()).max().item(), 1
    while largest >= 2.0**DIGIT_BITS and digits < MOST_DIGITS:
        largest, digits = largest / 2.0**DIGIT_BITS, digits + 1
    return digits


def _digits(integers: Float[Tensor, "n width"], count: int) -> list[Tensor]:
    """Integers kept as floats, as digits in base 2²⁰, the lowest first, the last with its sign."""
    base, digits = 2.0**DIGIT_BITS, []
    for _ in range(count - 1):
        higher = (integers / base).floor()
        digits.append(integers - higher * base)
        integers = higher
    return [*digits, integers]


@cache
def _factors(digit: int) -> Float[Tensor, "features 8"]:
    """Pseudo-random integers below 2²⁰ for each feature of a chunk and each word."""
    count = FEATURES_AT_ONCE * WORDS
    mixed = _mixed(torch.arange(count) + count * (digit + 1))
    return _shifted(mixed, 64 - DIGIT_BITS).double().reshape(FEATURES_AT_ONCE, WORDS)


def _mixed(places: Int64[Tensor, " k"]) -> Int64[Tensor, " k"]:
    """Pseudo-random 64-bit words, one for each place: splitmix64."""
    mixed = (places + 1) * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shifted(mixed, shift)) * _signed(factor)
    return mixed ^ _shifted(mixed, 31)


def _shifted(words: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (words >> bits) & (2 ** (64 - bits) - 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
