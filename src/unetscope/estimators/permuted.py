"""Null distributions: estimates with labels permuted among the images, or among their groups."""

from __future__ import annotations

import math
from functools import cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from unetscope.estimators.groups import Groups
from unetscope.estimators.resampling import PERMUTATIONS, TERMS_AT_ONCE, Null

LARGE_CLASS = 64  # images, from which a product of matrices is quicker than gathering


def permuted_kernel(
    kernel: Float[Tensor, "n n"],
    labels: Int64[Tensor, " n"],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    groups: Groups | None = None,
) -> Null:
    """The null of I(Y;M) as of `kernel_information`, in nats: labels are permuted among the images.

    Only sums inside classes change, and a class of m images needs m² of the n² terms. Of large classes they are a product of
    matrices, of small ones they are gathered. groups: labels change places in whole groups.
    """
    if groups is not None:
        return _permuted_in_groups(kernel.float(), labels, permutations, seed, groups)
    weights, n = kernel.float(), len(labels)  # a null needs no more digits, and the kernel is gathered many times
    tiny = torch.finfo(weights.dtype).tiny
    orders = _orders(n, permutations, seed).to(labels.device)
    inside = torch.zeros(len(orders), dtype=torch.float64, device=labels.device)
    _, number, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    # images by the size of their class, then by class: classes of one size m are blocks of one shape
    in_order = (sizes[number] * len(sizes) + number).argsort()
    for m, count in torch.stack(torch.unique(sizes, return_counts=True), dim=1).tolist():
        classes, in_order = in_order[: m * count].reshape(count, m), in_order[m * count :]  # [classes, m]
        for places in torch.arange(len(orders), device=labels.device).split(max(1, TERMS_AT_ONCE // (count * m * m))):
            members = orders[places][:, classes]  # [orders, classes, m]
            if m < LARGE_CLASS:
                sums = weights[members[..., :, None], members[..., None, :]].sum(dim=3)
            else:
                hot = torch.zeros((*members.shape[:2], n), device=labels.device).scatter_(2, members, 1.0)
                sums = (hot.flatten(0, 1) @ weights.T).reshape(hot.shape).gather(2, members)
            inside[places] += (sums.clamp(min=tiny).log() - math.log(m)).double().sum(dim=(1, 2))
    whole = (weights.sum(dim=1).log() - math.log(n)).double().mean()
    value, chance = (inside / n - whole).tensor_split([1])  # the first order is the labels as they are
    return Null.of(value.item(), chance)


def _permuted_in_groups(
    weights: Float[Tensor, "n n"], labels: Int64[Tensor, " n"], permutations: int, seed: int, groups: Groups
) -> Null:
    """As `permuted_kernel`; groups of other sizes take stretched labels, so that classes need not keep their sizes."""
    tiny, numbers = torch.finfo(weights.dtype).tiny, torch.unique(labels, return_inverse=True)[1]
    values = []
    for order in _group_orders(groups, permutations, seed).to(labels.device):
        of_image = numbers[order]
        hot = functional.one_hot(of_image, int(numbers.max()) + 1).to(weights.dtype)  # [n, classes]
        sums = (weights @ hot).gather(1, of_image[:, None])[:, 0].clamp(min=tiny)
        values.append((sums.log() - hot.sum(dim=0)[of_image].log()).double().mean())
    whole = (weights.sum(dim=1).log() - math.log(len(labels))).double().mean()
    value, chance = (torch.stack(values) - whole).tensor_split([1])
    return Null.of(value.item(), chance).of_groups(groups)


def permuted_symbols(
    symbols: Int64[Tensor, " n"],
    labels: Int64[Tensor, " n"],
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    groups: Groups | None = None,
) -> Null:
    """The null of H(symbols) + H(labels) − H(both), in nats: labels are permuted among the images."""
    n = len(labels)
    _, symbols, occurrences = torch.unique(symbols, return_inverse=True, return_counts=True)
    _, labels, sizes = torch.unique(labels, return_inverse=True, return_counts=True)
    orders = _orders(n, permutations, seed) if groups is None else _group_orders(groups, permutations, seed)
    orders = orders.to(labels.device)
    both = symbols * len(sizes) + labels[orders]  # [orders, n]: a pair (symbol, label) as one number
    # pairs of different orders get different numbers, so that one call counts the pairs of all orders
    order = torch.arange(len(orders), device=labels.device)[:, None] * (len(occurrences) * len(sizes))
    pairs, counts = torch.unique(both + order, return_counts=True)
    of_order = pairs // (len(occurrences) * len(sizes))
    together = torch.zeros(len(orders), dtype=torch.float64, device=labels.device)
    together.index_add_(0, of_order, _n_ln_n(counts))
    apart = _n_ln_n(occurrences).sum() + _n_ln_n(sizes).sum()
    if groups is not None:  # labels that are stretched to another group's size do not keep their frequencies
        of_labels = functional.one_hot(labels, len(sizes))[orders].sum(dim=1)  # [orders, labels]
        apart = _n_ln_n(occurrences).sum() + torch.special.xlogy(of_labels.double(), of_labels.double()).sum(dim=1)
    value, chance = ((n * math.log(n) + together - apart) / n).tensor_split([1])
    return Null.of(value.item(), chance).of_groups(groups)


def _group_orders(groups: Groups, permutations: int, seed: int) -> Int64[Tensor, "orders n"]:
    """The order as it is, then orders in which whole groups changed places."""
    orders = groups.orders(permutations, torch.Generator().manual_seed(seed))
    return torch.cat((torch.arange(orders.shape[1])[None], orders))


@cache
def _orders(n: int, permutations: int, seed: int) -> Int64[Tensor, "orders n"]:
    """The order as it is, then permutations of it."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(permutations))])


def _n_ln_n(counts: Int64[Tensor, " k"]) -> Float[Tensor, " k"]:
    return counts.double() * counts.double().log()
