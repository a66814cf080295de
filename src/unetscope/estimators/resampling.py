"""Intervals, limits for many images and null distributions of estimates.

All are computed from the statistics of a layer, without a further pass over images. Of images in groups, groups are left out,
divided and permuted instead of images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unetscope.base import InvalidArgument
from unetscope.estimators.groups import Groups
from unetscope.estimators.interface import SATURATED_FROM, Reading, out_of_domain_reason
from unetscope.table import cautious, student, too_few_groups

LARGEST_BIAS = 1 / 3  # of an interval's half width: with such a bias, 90 % of intervals would still hold
SMALLEST_BIAS = 0.05  # nats: always allowed, as it is corrected for
SMALLEST_CHANCE = 0.02  # nats of information about permuted labels that are always allowed
UNSEEN = 3.0  # images of n: a rarer event may occur in none of them, at 95 %
RAREST = 0.03  # of images: rarer events are not considered
GROUPS = "groups of images"
ROUNDING = 1e-6  # nats by which equal estimates may differ
PERMUTATIONS = 39  # then p is a multiple of 1/40
SPLITS = 4  # of the images into quarters: the estimate of one split depends on chance
TERMS_AT_ONCE = 4_000_000  # of a kernel, in a strip of its rows or gathered for permuted labels


@dataclass(frozen=True)
class Resampled:
    """An estimate as a mean over images, and the same of fewer images.

    values: one an image in nats, with the estimate as their mean and the spread of the jackknife's, or of the influence
    function (the infinitesimal jackknife); of images in groups one a group, and effective is how many groups of one size
    these are worth. curve: the estimate of a quarter, of half and of all of the images, the former
    averaged over the parts that the images fall into.

    Source: Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982), chapters 2 and 6.
    """

    values: Float[Tensor, " n"]
    curve: tuple[float, float, float]
    effective: float = math.nan

    @property
    def nats(self) -> float:
        """The estimate."""
        return self.curve[2]

    def __sub__(self, subtrahend: Resampled) -> Resampled:
        quarter, half, whole = (nats - less for nats, less in zip(self.curve, subtrahend.curve, strict=True))
        return Resampled(self.values - subtrahend.values, (quarter, half, whole), self.effective)


def quarters(n: int, device: torch.device, seed: int = 0, groups: Groups | None = None) -> Int64[Tensor, "n splits"]:
    """Which quarter of the images each is in, by several splits at random; the first two quarters are one half.

    groups: whole ones are in one quarter.
    """
    generator = torch.Generator().manual_seed(seed)
    if groups is not None:
        return torch.stack([groups.split(4, generator) for _ in range(SPLITS)], dim=1).to(device)
    return torch.stack([torch.randperm(n, generator=generator) % 4 for _ in range(SPLITS)], dim=1).to(device)


@dataclass(frozen=True)
class Sharing:
    """The class of each image, and with how many images of each quarter it shares it."""

    classes: Int64[Tensor, " n"]
    sizes: Float[Tensor, "n splits 4"]

    @classmethod
    def of(cls, labels: Int64[Tensor, " n"], quarter: Int64[Tensor, "n splits"]) -> Sharing:
        """That of labels."""
        classes, hot = torch.unique(labels, return_inverse=True)[1], functional.one_hot(quarter, 4).double()
        return cls(classes, _added_up(hot.flatten(1), classes)[classes].reshape(hot.shape))

    def among(self, of_images: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """Of each image, the sum of values over the images of its class."""
        return _added_up(of_images, self.classes)[self.classes]


def _added_up(values: Float[Tensor, "n k"], classes: Int64[Tensor, " n"]) -> Float[Tensor, "classes k"]:
    sums = values.new_zeros((int(classes.max()) + 1, values.shape[1]))
    return sums.index_add_(0, classes, values)


def row_strips(n: int) -> Iterator[slice]:
    """Strips of rows of an n × n matrix, so thin that what is computed of one takes little memory beside the matrix."""
    rows = max(1, TERMS_AT_ONCE // max(1, n))
    return (slice(first, min(n, first + rows)) for first in range(0, n, rows))


def kernel_information(
    kernel: Float[Tensor, "n n"],
    quarter: Int64[Tensor, "n splits"],
    sharing: Sharing | None = None,
    groups: Groups | None = None,
) -> Resampled:
    """-(1/n) sum_i ln (1/n) sum_j K_ij of a symmetric kernel; inside classes if `sharing` says which images share one.

    Values are the jackknife's: n times the estimate less n − 1 times that without image k, which takes K_ik from the sum of
    each image i. Where that is a large part of it, the influence function (its first order) varies too little.

    >>> apart = torch.eye(8, dtype=torch.float64)                      # eight distinct images: ln 8, ln 4 with half of them
    >>> [round(nats / math.log(2), 9) for nats in kernel_information(apart, quarters(8, apart.device)).curve]
    [1.0, 2.0, 3.0]
    """
    hot = functional.one_hot(quarter, 4)  # [n, splits, 4]
    sizes = hot.double().sum(dim=0).expand(hot.shape) if sharing is None else sharing.sizes
    mates = sizes[:, 0].sum(dim=1)
    sums, parts = torch.empty(hot.shape, dtype=torch.float64, device=kernel.device), hot.flatten(1).to(kernel.dtype)
    without = sums.new_zeros(len(kernel) if groups is None else groups.count)
    if groups is not None:
        fewer = mates[:, None] - (groups.hot.sum(dim=0) if sharing is None else sharing.among(groups.hot.double()))
        fewer = fewer.clamp(min=1).log()  # [n, groups]
    for rows in row_strips(len(kernel)):
        inside = kernel[rows]
        if sharing is not None:
            inside = inside * (sharing.classes[rows, None] == sharing.classes)
        # one product of matrices gives the sums over every quarter of every split
        sums[rows] = (inside @ parts).reshape(-1, *hot.shape[1:]).double()
        totals, own = sums[rows, 0].sum(dim=1)[:, None], inside.diagonal(rows.start)[:, None].double()
        if groups is not None:
            left = torch.maximum(
                totals - (inside @ groups.hot.to(inside.dtype)).double(), own
            )  # less than own by rounding
            without += ((fewer[rows] - left.log()) * (1 - groups.hot[rows])).sum(dim=0)
        else:
            # ln (1 − K_ik / sum_i) for every pair: what the sum of i loses without k; in float32, as it is a small correction
            taken = inside.float() / totals.float()
            taken.diagonal(rows.start).zero_()
            without += taken.neg_().log1p_().sum(dim=0).double()
    curve = _curve(sizes, sums, quarter)
    if groups is not None:
        without /= len(kernel) - groups.sizes
        return Resampled(groups.jackknife(curve[2], without), curve, groups.effective)
    values = mates.log() - sums[:, 0].sum(dim=1).log() - _all_without_one(mates) + without
    return _resampled(values, curve)


def symbol_entropy(
    symbols: Int64[Tensor, " n"], quarter: Int64[Tensor, "n splits"], groups: Groups | None = None
) -> Resampled:
    """The entropy of discrete symbols.

    >>> symbols = torch.tensor([0, 0, 1, 1])                  # of four images: a quarter has one, and one symbol
    >>> curve = symbol_entropy(symbols, quarters(4, symbols.device)).curve
    >>> curve[0], round(curve[2] / math.log(2), 9)
    (0.0, 1.0)
    """
    _, symbols, occurrences = torch.unique(symbols, return_inverse=True, return_counts=True)
    hot = functional.one_hot(quarter, 4).double()
    table = torch.zeros((len(occurrences), *hot.shape[1:]), dtype=torch.float64, device=symbols.device)
    curve = _curve(hot.sum(dim=0).expand(hot.shape), table.index_add_(0, symbols, hot)[symbols], quarter)
    if groups is not None:
        of_group = torch.zeros((len(occurrences), groups.count), dtype=torch.float64, device=symbols.device)
        left = occurrences[:, None] - of_group.index_add_(0, symbols, groups.hot)  # [symbols, groups]
        images = (len(symbols) - groups.sizes).double()
        without = images.log() - torch.special.xlogy(left, left).sum(dim=0) / images
        return Resampled(groups.jackknife(curve[2], without), curve, groups.effective)
    mates, n = occurrences[symbols].double(), torch.full_like(symbols, len(symbols), dtype=torch.float64)
    return _resampled(n.log() - mates.log() - _all_without_one(n) + _all_without_one(mates), curve)


def _all_without_one(sizes: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The change of the logarithm of a class size m without one image, summed over the others: (m − 1) ln (1 − 1/m)."""
    return (sizes - 1) * torch.log1p(-1 / sizes.clamp(min=1 + 1e-9))


def _resampled(values: Float[Tensor, " n"], curve: tuple[float, float, float]) -> Resampled:
    """The values shifted so that their mean is the estimate; the jackknife corrects a bias, which the curve shows."""
    return Resampled(values - values.mean() + curve[2], curve)


def _curve(
    sizes: Float[Tensor, "n splits 4"], sums: Float[Tensor, "n splits 4"], quarter: Int64[Tensor, "n splits"]
) -> tuple[float, float, float]:
    """Means over the images of ln size − ln sum, in each image's quarter, its half, and the whole."""
    own = [part.gather(2, quarter[..., None])[..., 0] for part in (sizes, sums)]  # [n, splits] each
    # quarters 0 and 1 are one half, 2 and 3 the other: the lowest bit changed is the other quarter of an image's half
    half = [
        mine + part.gather(2, (quarter ^ 1)[..., None])[..., 0] for mine, part in zip(own, (sizes, sums), strict=True)
    ]
    whole = [part[:, 0].sum(dim=1) for part in (sizes, sums)]
    quarter_mean, half_mean, mean = ((size.log() - total.log()).mean().item() for size, total in (own, half, whole))
    return quarter_mean, half_mean, mean


def extrapolated(curve: Sequence[float]) -> float:
    """The limit a of estimates of n/4, n/2 and n images, fitted as a + b/n by least squares; the first may be NaN, not known.

    >>> round(extrapolated([1.0, 2.0, 2.5]), 9), extrapolated([math.nan, 2.0, 2.5])
    (3.0, 3.0)
    """
    x = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    y = torch.tensor(curve, dtype=torch.float64)
    if y[0].isnan():
        x, y = x[1:], y[1:]
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return (y.mean() - slope * x.mean()).item()


def with_interval(reading: Reading, resampled: Resampled, whole: float = 0.0, entropy: float = math.inf) -> Reading:
    """The reading with its limit for many images, and a 95 % interval of the limit if there are enough images for one.

    The difference from the limit (the bias) widens the interval. If it is more than a third of the interval's half width and
    more than 0.05 nats, the reading is out of its domain: its number describes these images alone, and has no interval. The
    same holds if chance contributes more than a third of the half width and more than 0.02 nats. whole, entropy: for I(Y;M),
    I(X;M) of the layer and the entropy of the labels, in nats.
    """
    values, limit = resampled.values.cpu().numpy(), extrapolated(resampled.curve)
    effective = resampled.effective
    spread = student(values, effective)
    reading = replace(reading, extrapolated=limit, curve=resampled.curve, groups=effective)
    n, half, bias = len(values), spread.high - spread.value, limit - reading.nats
    reason = reason_of_chance(reading.null_mean, reading.nats, whole, entropy, half)
    if not negligible(bias, half):
        reason = reason_of_few(n, "ever more of them it goes", bias, "images" if math.isnan(effective) else GROUPS)
    if not math.isnan(effective) and (few := too_few_groups(n, effective)):
        reason = out_of_domain_reason(few)
    if reason:
        return replace(reading, reason=reason, out_of_domain=True)
    low, high = interval_about(limit, values, bias, effective)
    return replace(reading, low=low, high=high, per_image=tuple(values.tolist()))


def negligible(bias: float, half: float, always: float = SMALLEST_BIAS) -> bool:
    """Whether a bias in nats is small compared with the half width of the interval; an unknown bias (NaN) is."""
    return not abs(bias) > max(LARGEST_BIAS * half, always)


def interval_about(
    middle: float, values: NDArray[np.float64], bias: float, effective: float = math.nan
) -> tuple[float, float]:
    """A 95 % interval about `middle`, in nats, from values whose mean varies as it does; a bias widens it.

    One further image may have a value as extreme as the most extreme of the n. On either side the interval is Student's with
    that value added: if values are mostly equal and seldom large, as for layers that are zero for most images, their spread
    understates the uncertainty of the mean. An event that befalls m = 3/n of all images may occur in none of the n, and can add
    m (1 − ln m) to an information; below three images in a hundred this is not considered. effective: of values of groups, how
    many groups of one size they are worth.

    Source: Hanley & Lippman-Hand, JAMA 249:1743 (1983), on 3/n.
    """
    interval, rare = cautious(values, effective), UNSEEN / len(values)
    unseen = min(1.0, rare) * (1 - math.log(min(1.0, rare))) if rare > RAREST else 0.0
    low, high = interval.value - interval.low, interval.high - interval.value
    return middle - math.hypot(low, bias), middle + math.hypot(high, bias, unseen)


def reason_of_chance(null: float, nats: float, whole: float, entropy: float, half: float) -> str:
    """The reason if too much of a value in nats is due to chance, else empty. null: the value for permuted labels.

    Chance acts on the information that the layer has about images within the classes, and has no effect without any. It
    does not explain an estimate near the entropy of the labels, unless the estimate of permuted labels is near it too.
    """
    if nats >= SATURATED_FROM * entropy and null <= entropy / 2:
        return ""
    chance = null * (1 - nats / whole) if whole > max(0.0, nats) else 0.0
    if negligible(chance, half, SMALLEST_CHANCE):
        return ""
    return out_of_domain_reason(f"labels permuted among the images seem to be told {null / math.log(2):.2g} bits")


def reason_of_few(n: int, what: str, change: float, images: str = "images") -> str:
    """The reason if n images are too few: how an estimate changes with other numbers of images, in nats."""
    bits, direction = abs(change) / math.log(2), "lower" if change < 0 else "higher"
    return out_of_domain_reason(f"{n} {images} are too few to tell; with {what} {bits:.2g} bits {direction}")


@dataclass(frozen=True)
class Null:
    """The null distribution: mean and 95th percentile in nats, and the share of it that reaches the measured value."""

    nats: float
    high: float
    p: float

    @classmethod
    def of(cls, value: float, chance: Float[Tensor, " times"], rounding: float = ROUNDING) -> Null:
        """The measured value counts as one of the null, so that p is never 0 (Phipson & Smyth 2010)."""
        if not (math.isfinite(value) and bool(chance.isfinite().all())):
            return NO_NULL
        reached = int((chance >= value - rounding).sum())
        return cls(chance.mean().item(), chance.quantile(0.95).item(), (1 + reached) / (1 + len(chance)))

    def of_groups(self, groups: Groups | None) -> Null:
        """The null of labels that changed places in groups: without p where groups have too few orders for one."""
        return self if groups is None or groups.has_p else replace(self, p=math.nan)

    def beside(self, reading: Reading) -> Reading:
        """The reading with the null distribution added."""
        return replace(reading, null_mean=self.nats, null_high=self.high, p=self.p)


NO_NULL = Null(math.nan, math.nan, math.nan)


def check_permutations(permutations: int) -> None:
    """Raises: InvalidArgument if there are none, as a null needs at least one."""
    if permutations < 1:
        raise InvalidArgument(f"permutations must be 1 or more, got {permutations}")


def sign_flipped(values: Sequence[float], times: int = 999, seed: int = 0) -> Null:
    """The mean of differences, one an image, with their signs at random: what it would be if neither side were better.

    >>> sign_flipped([0.2, 0.1, 0.3, 0.2, 0.1]).p > 0.02, sign_flipped([0.2] * 12).p < 0.005  # all of 2⁵ signs; all of 2¹²
    (True, True)
    """
    differences = torch.tensor(values, dtype=torch.float64)
    signs = torch.randint(2, (times, len(differences)), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    size = differences.abs().mean().item()
    return Null.of(differences.mean().item(), (signs * differences).mean(dim=1), ROUNDING * size)
