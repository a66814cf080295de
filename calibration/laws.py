"""Data whose information is known, and that information in nats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from unetscope.estimators.kde import EXPONENT, Bound

NOISY_COORDINATES = 50  # of a cluster: in the others its members are alike


def normal(seed: int, *shape: int) -> Tensor:
    """Independent standard normal values, float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def squared(activations: Tensor) -> Tensor:
    """Squared distances between the rows."""
    mode = "donot_use_mm_for_euclid_dist" if activations.shape[1] < 1000 else "use_mm_for_euclid_dist"
    return torch.cdist(activations, activations, compute_mode=mode).square()


def entropy(law: Sequence[float] | np.ndarray) -> float:
    """−Σ p ln p."""
    p = np.asarray(law, dtype=np.float64).ravel()
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


# Gaussian channels


def channel_information(variances: Sequence[float], noise_variance: float) -> float:
    """Of X normal with these variances along its axes and T = X + noise: ½ Σ ln(1 + λ/σ²)."""
    return sum(math.log1p(variance / noise_variance) for variance in variances) / 2


def channel_bound(variances: Sequence[float], noise_variance: float, bound: Bound) -> float:
    """What KDE's bound comes to of ever more such images: −E ln E exp(−‖x − x'‖² / cσ²), with s = cσ²/2λ along each axis.

    The inner mean is √(s/(1 + s)) exp(−x²/2λ(1 + s)), and the outer one of its logarithm ½ ln(1 + 1/s) + ½ (1 + s)⁻¹.
    """
    s = np.asarray([EXPONENT[bound] * noise_variance / 2 / variance for variance in variances])
    return float((np.log1p(1 / s) / 2 + 1 / (2 * (1 + s))).sum())


# Codes for nearest neighbours


def correlated(rho: float, d: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """d pairs of normal values, each correlated by rho: −(d/2) ln(1 − ρ²)."""
    x, noise = normal(seed, 2, n, d)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def with_uniform_noise(noise: float, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """X uniform on 0 to 1, and the same with uniform noise of ± `noise`."""
    x, added = torch.rand(2, n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x, x + noise * (2 * added - 1)


def uniform_noise_information(noise: float) -> float:
    """ε − ln 2ε for ε ≤ ½, else 1/4ε."""
    return noise - math.log(2 * noise) if noise <= 0.5 else 1 / (4 * noise)


def two_classes(apart: float, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Labels of two classes, and a normal value whose mean is ± apart."""
    labels = torch.randint(2, (n,), generator=torch.Generator().manual_seed(seed + 10_000))
    return normal(seed, n, 1) + apart * (2 * labels - 1)[:, None], labels


def two_classes_information(apart: float) -> float:
    """H(X) − H(X|Y), by quadrature."""

    def term(x: float) -> float:
        density = (norm.pdf(x - apart) + norm.pdf(x + apart)) / 2
        return -density * math.log(density) if density else 0.0

    return float(quad(term, -apart - 10, apart + 10, limit=200)[0]) - 0.5 * math.log(2 * math.pi * math.e)


# Cells and clusters


def cell_probabilities(bin_size: float) -> np.ndarray:
    """Of a standard normal value, that of each of its cells."""
    edges = bin_size * np.arange(-math.ceil(9 / bin_size), math.ceil(9 / bin_size) + 1)
    return np.diff(norm.cdf(edges))


def draw(law: np.ndarray, n: int, seed: int) -> tuple[Tensor, ...]:
    """n draws of a joint law: a tensor of symbols for each of its axes."""
    cells = np.random.default_rng(seed).choice(law.size, n, p=law.ravel())
    return tuple(torch.from_numpy(symbols) for symbols in np.unravel_index(cells, law.shape))


def clusters(symbols: Tensor, d: int, seed: int, noise: float = 0.001) -> Tensor:
    """Squared distances of activations in d dimensions, one tight cluster a symbol: its centre is normal.

    Members of a cluster differ in some of the coordinates, by normal noise; the others need no n × d numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(int(symbols.max()) + 1, d, generator=generator).double()
    noisy = centres[symbols, :NOISY_COORDINATES]
    noisy = noisy + noise * torch.randn(noisy.shape, dtype=torch.float64, generator=generator)
    return squared(noisy) + squared(centres[:, NOISY_COORDINATES:])[symbols][:, symbols]


def zipf(k: int) -> np.ndarray:
    """Cluster number c with a probability of 1/c, over their sum."""
    weights = 1 / np.arange(1, k + 1)
    return weights / weights.sum()


def told(k: int, labels: int, share: float) -> np.ndarray:
    """Law of a cluster of k and its label of some: the cluster's own with this probability, else any at random."""
    label_of_cluster = np.arange(k) % labels
    law = np.full((k, labels), (1 - share) / labels)
    law[np.arange(k), label_of_cluster] += share
    return law / k


def mutual_information(law: np.ndarray) -> float:
    """Of the two axes of a law."""
    return entropy(law.sum(axis=1)) + entropy(law.sum(axis=0)) - entropy(law)


# Merges: laws of a label y, the upsampled path u and the skip s


def _seen(errors: float, k: int) -> np.ndarray:
    """How often each of k symbols is seen as which."""
    return np.full((k, k), errors / (k - 1)) + (1 - errors - errors / (k - 1)) * np.eye(k)


def redundant() -> np.ndarray:
    """u sees y with errors, s is a coarser u: what it adds is 0."""
    law = np.zeros((4, 4, 2))
    for y, u in np.ndindex(4, 4):
        law[y, u, u % 2] = _seen(0.2, 4)[y, u] / 4
    return law


def unique() -> np.ndarray:
    """s is y, u is anything: the skip adds H(Y)."""
    law = np.zeros((4, 4, 4))
    for y, u in np.ndindex(4, 4):
        law[y, u, y] = 1 / 16
    return law


def exclusive_or() -> np.ndarray:
    """y is the exclusive or of the bits u and s: neither tells it alone."""
    law = np.zeros((2, 2, 2))
    for u, s in np.ndindex(2, 2):
        law[u ^ s, u, s] = 1 / 4
    return law


def both_noisy() -> np.ndarray:
    """u and s see one of three symbols, each with errors of its own."""
    return np.einsum("y,yu,ys->yus", np.full(3, 1 / 3), _seen(0.2, 3), _seen(0.2, 3))


def at_merge(law: np.ndarray) -> dict[str, float]:
    """I(Y;S|U), I(Y;U|S) and I(Y;S;U) of such a law."""
    both = mutual_information(law.reshape(len(law), -1))
    u, s = mutual_information(law.sum(axis=2)), mutual_information(law.sum(axis=1))
    return {"I(Y;S|U)": both - u, "I(Y;U|S)": both - s, "I(Y;S;U)": u + s - both}


# Pixels


def logistic(slope: float, offset: float) -> Callable[[Tensor, int], Tensor]:
    """Masks of which each pixel is 1 with probability sigmoid(slope · x + offset)."""

    def masks(x: Tensor, seed: int) -> Tensor:
        chance = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed))
        return (chance < torch.sigmoid(slope * x + offset)).to(torch.uint8)

    return masks


def logistic_information(slope: float, offset: float) -> float:
    """H(Y) − H(Y|x) of x standard normal, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    p, weights = 1 / (1 + np.exp(-slope * nodes - offset)), weights / weights.sum()
    inside = sum(weight * entropy((chance, 1 - chance)) for weight, chance in zip(weights, p, strict=True))
    mean = float(weights @ p)
    return entropy((mean, 1 - mean)) - float(inside)


def rectified(slopes: Sequence[Sequence[float]], offsets: Sequence[float]) -> Callable[[Tensor, int], Tensor]:
    """Masks of channels [n, channels, *sides]: the logit of each class but the last is slopes · channels + offset."""

    def masks(x: Tensor, seed: int) -> Tensor:
        logits = torch.einsum("kc,nc...->nk...", torch.tensor(slopes, dtype=x.dtype), x[:, : len(slopes[0])])
        logits = logits + torch.tensor(offsets, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 2))
        chances = torch.cat((logits, torch.zeros_like(logits[:, :1])), dim=1).softmax(dim=1).cumsum(dim=1)
        drawn = torch.rand(chances[:, :1].shape, generator=torch.Generator().manual_seed(seed))
        return (drawn > chances[:, :-1]).sum(dim=1).to(torch.uint8)

    return masks


def rectified_information(slopes: Sequence[Sequence[float]], offsets: Sequence[float]) -> float:
    """H(Y) − H(Y|x) of such masks, x being ReLUs of independent standard normal values, by Gauss-Legendre quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    nodes, weights = 4.5 * (nodes + 1), 4.5 * weights
    values = np.concatenate(([0.0], nodes))  # half of them are 0
    mass = np.concatenate(([0.5], weights * norm.pdf(nodes)))
    channels = len(slopes[0])
    grid = np.stack(np.meshgrid(*[values] * channels, indexing="ij"), axis=-1).reshape(-1, channels)
    p_x = np.prod(np.stack(np.meshgrid(*[mass] * channels, indexing="ij"), axis=-1).reshape(-1, channels), axis=1)
    logits = np.concatenate((grid @ np.asarray(slopes).T + np.asarray(offsets), np.zeros((len(grid), 1))), axis=1)
    p_y = np.exp(logits - logits.max(axis=1, keepdims=True))
    p_y /= p_y.sum(axis=1, keepdims=True)
    joint = p_x[:, None] * p_y
    return entropy(joint.sum(axis=0)) + entropy(p_x) - entropy(joint)
