"""Each image's quantised activation as one symbol, accumulated over slices. Imports capture's chunk size."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.capture import FEATURES_AT_ONCE

WORDS = 8
MOST_DIGITS = 64  # a float32 divided by the smallest sensible bin has fewer
DIGIT_BITS = 20  # 20 bits of an integer times 20 bits of a factor, over 2**12 features, is exact in float64
assert 2 * DIGIT_BITS + (FEATURES_AT_ONCE - 1).bit_length() <= 53


class Symbols:
    """The symbol of each of n images: a 160-bit hash of the integers floor(t / bin_size) of its activation t.

    The hash is linear: eight words sum_k a_k floor(t_k / bin_size), with pseudo-random 20-bit factors a_k that depend on
    the salt and on the place k alone. So slices add up, and the symbol of a concatenation of two layers is the sum of
    theirs if their salts differ. Two different rows share a word with a chance of at most 2⁻²⁰, all eight with 2⁻¹⁶⁰.
    Sums are exact: products of integers run as float64 matrix products that never leave 53 bits, then as int64.

    >>> symbols = Symbols(n=3, bin_size=0.5, salt=0)
    >>> symbols.add(torch.tensor([[0.1, 0.6], [0.4, 0.9], [0.4, 1.1]]), start=0)
    >>> symbols.words[0].equal(symbols.words[1]), symbols.words[0].equal(symbols.words[2])
    (True, False)
    """

    def __init__(self, n: int, bin_size: float, salt: int) -> None:
        self.bin_size = bin_size
        self.words: Int64[Tensor, "n 8"] = torch.zeros((n, WORDS), dtype=torch.int64)
        self._salt = salt

    def add(self, values: Float[Tensor, "n width"], start: int) -> None:
        """Take in the values `start`, `start + 1`, … of all images."""
        self.words = self.words.to(values.device)
        for offset in range(0, values.shape[1], FEATURES_AT_ONCE):
            chunk = values[:, offset : offset + FEATURES_AT_ONCE]
            # float64, as the definition has it: 0.7 / 0.1 is 7.0 in float32 and 6.999… for the float32 number 0.7
            integers = chunk.double().div_(self.bin_size).floor_()
            for digit, part in enumerate(_digits(integers)):
                factors = _factors(self._salt, digit, start + offset, chunk.shape[1]).to(values.device)
                self.words += (part @ factors).to(torch.int64)


def _digits(integers: Float[Tensor, "n width"]) -> list[Tensor]:
    """Integers kept as floats, as digits in base 2²⁰, the lowest first; mostly there is one, the integers themselves."""
    base = 2.0**DIGIT_BITS
    digits = []
    while integers.abs().max() >= base:
        higher = (integers / base).floor()
        digits.append(integers - higher * base)
        integers = higher
    return [*digits, integers]


def _factors(salt: int, digit: int, start: int, width: int) -> Float[Tensor, "width 8"]:
    """Pseudo-random integers below 2²⁰ for the places start, start + 1, …: splitmix64 of (salt, digit, word, place)."""
    place = torch.arange(start, start + width, dtype=torch.int64)[:, None]
    stream = (torch.arange(WORDS) + WORDS * (digit + MOST_DIGITS * salt))[None]
    mixed = (place + (stream << 40)) * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shifted(mixed, shift)) * _signed(factor)
    return (_shifted(mixed ^ _shifted(mixed, 31), 64 - DIGIT_BITS)).double()


def _shifted(words: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (words >> bits) & (2 ** (64 - bits) - 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
