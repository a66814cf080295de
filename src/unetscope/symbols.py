"""Each image's quantised activation as a 128-bit symbol, accumulated over slices. Imports capture's chunk size."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.capture import FEATURES_AT_ONCE

WORDS = 2  # of 64 bits each


class Symbols:
    """The symbol of each of n images: a 128-bit hash of the integers floor(t / bin_size) of its activation t.

    The hash is linear, sum_k a_k floor(t_k / bin_size) modulo 2⁶⁴ in two words, with pseudo-random a_k that depend on the
    salt and on the place k alone. So slices add up, and the symbol of a concatenation of two layers is the sum of theirs
    if their salts differ. Two different rows share a symbol with a chance of about 2⁻¹⁰⁰.

    >>> symbols = Symbols(n=3, bin_size=0.5, salt=0)
    >>> symbols.add(torch.tensor([[0.1, 0.6], [0.4, 0.9], [0.4, 1.1]]), start=0)
    >>> symbols.words[0].equal(symbols.words[1]), symbols.words[0].equal(symbols.words[2])
    (True, False)
    """

    def __init__(self, n: int, bin_size: float, salt: int) -> None:
        self.bin_size = bin_size
        self.words: Int64[Tensor, "n 2"] = torch.zeros((n, WORDS), dtype=torch.int64)
        self._salt = salt

    def add(self, values: Float[Tensor, "n width"], start: int) -> None:
        """Take in the values `start`, `start + 1`, … of all images."""
        self.words = self.words.to(values.device)
        for offset in range(0, values.shape[1], FEATURES_AT_ONCE):
            chunk = values[:, offset : offset + FEATURES_AT_ONCE]
            # float64, as the definition has it: 0.6 / 0.2 is 3.0 in float32 and 2.999… for the float32 number 0.6
            integers = (chunk.double() / self.bin_size).floor_().to(torch.int64)
            factors = _factors(self._salt, start + offset, chunk.shape[1]).to(values.device)
            for word in range(WORDS):
                self.words[:, word] += (integers * factors[word]).sum(dim=1)


def _factors(salt: int, start: int, width: int) -> Int64[Tensor, "2 width"]:
    """Odd pseudo-random 64-bit factors for the places start, start + 1, …: splitmix64 of (salt, word, place)."""
    place = torch.arange(start, start + width, dtype=torch.int64)
    words = torch.stack([place + (salt * WORDS + word) * 0x1000193_0000_0001 % 2**63 for word in range(WORDS)])
    mixed = words * _signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shifted(mixed, shift)) * _signed(factor)
    return (mixed ^ _shifted(mixed, 31)) | 1


def _shifted(words: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (words >> bits) & (2 ** (64 - bits) - 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
