"""An index of dependence from the eigenvalues of a kernel matrix (matrix-based Rényi entropy).

A kernel K of a layer's activations, with 1 on its diagonal, over the number of images is a positive matrix A of trace 1.
The Rényi entropy of its eigenvalues obeys many of entropy's axioms and needs no density. Its values are log₂ of Rényi's kind
and depend on the kernel: an index, in which layers can be ranked, and never bits of Shannon information.

In many dimensions all distances are nearly equal, and so are the entries of a radial kernel. Of a fixed bandwidth it is all
ones or all zeros; of Silverman's, γ √d n^(−1/(4 + d)), the index of independent layers is that of identical ones to the third
digit. The median distance keeps the kernel between both ends in every layer, and permuted labels show which part of the index
is due to chance: usually nearly all of it.

Source: Sanchez Giraldo, Rao & Príncipe, IEEE Trans. Information Theory 61:535 (2015); Yu, Sanchez Giraldo, Jenssen & Príncipe,
IEEE Trans. Pattern Analysis and Machine Intelligence 42:2960 (2020), arXiv 1808.07912; Wickstrøm, Løkse, Kampffmeyer, Yu,
Príncipe & Jenssen, arXiv 1909.11396 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unetscope.base import InvalidArgument, whole_fields
from unetscope.estimators.groups import Groups
from unetscope.estimators.interface import Bound, Estimator, LayerStatistics, Needs, Reading, with_reasons
from unetscope.estimators.resampling import PERMUTATIONS, Null, Resampled, check_permutations, quarters, with_interval
from unetscope.table import Quantity

TERMS_AT_ONCE = 4_000_000  # of the blocks whose eigenvalues are taken together


@dataclass(frozen=True, slots=True)
class Renyi(Estimator):
    """I(X;M) and I(Y;M) as indices, from the eigenvalues of exp(−D / (2 · bandwidth)) with D the squared distances.

    bandwidth: in units of the layer's median squared distance, which stays what it is when fewer images are looked at; with one
    half, a median pair is alike by 1/e. alpha: the order of Rényi's entropy; near 1 it comes close to von Neumann's.

    I(X;M) = S(A) + S(1/n) − S(A∘1) = S(A), every input being like itself alone; its ceiling is ln n. I(Y;M) = S(A) + S(B) −
    S(A∘B · n), B being 1/n where two labels are equal, else 0. As a kernel with 1 on its diagonal can only spread the
    eigenvalues of another (Bapat & Sunder 1985), S(A∘B · n) ≥ S(A), and I(Y;M) never exceeds S(B). It may be a little less than
    0, as Rényi's entropy of two things may exceed the sum of theirs.

    Each image's value is the influence it has on the index, to the first order: with weights w of the images,
    A_w = diag(√w) K diag(√w) and ∂ tr A_w^α / ∂w_k = α (A_w^α)_kk / w_k. The index grows with the number of images wherever no
    two of them are alike; it is then out of its domain, and describes these images alone.

    Source: as of the module; Bapat & Sunder, Linear Algebra and its Applications 72:107 (1985).
    Raises: InvalidArgument if a value is out of its domain.

    >>> clusters = torch.arange(4).repeat(50)                # four tight clusters, far apart: ln 4 = 1.386
    >>> squared = 1e6 * (clusters[:, None] != clusters).double()
    >>> of_input, of_label = Renyi().readings(LayerStatistics.of_distances(squared), {"halves": clusters // 2})
    >>> round(of_input.nats, 3), round(of_label.nats, 3), of_label.p
    (1.386, 0.693, 0.025)
    """

    bandwidth: float = 0.5
    alpha: float = 1.01
    permutations: int = PERMUTATIONS
    seed: int = 0

    @property
    def needs(self) -> Needs:
        """Distances in units of the median one."""
        return Needs(relative=True)

    @property
    def kernels(self) -> tuple[tuple[float, Bound], ...]:
        """The noise variance and bound of the KDE whose kernel it shares."""
        return ((self.bandwidth, "upper"),)

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """The name and resolution of its estimates."""
        return (("renyi", self.bandwidth),)

    def __post_init__(self) -> None:
        whole_fields(self, "permutations", "seed")
        if not 0 < self.bandwidth < math.inf:
            raise InvalidArgument(f"bandwidth must be > 0, got {self.bandwidth}")
        _check_alpha(self.alpha)
        check_permutations(self.permutations)

    def readings(self, statistics: LayerStatistics, classes: Mapping[str, Int64[Tensor, " k"]]) -> Iterator[Reading]:
        """I(X;M), then I(Y;M) for each label scheme. Raises: InvalidArgument if labels are not one an image."""
        squared = statistics.pairwise(relative=True).squared
        return with_reasons(partial(self._readings, classes=classes, groups=statistics.groups), squared, classes)

    def _readings(
        self,
        squared_distances: Float[Tensor, "n n"],
        classes: Mapping[str, Int64[Tensor, " n"]],
        groups: Groups | None,
    ) -> Iterator[Reading]:
        kernel = torch.exp(squared_distances.double() / (-2 * self.bandwidth))
        n = len(kernel)
        quarter = quarters(n, kernel.device, self.seed, groups)
        parts = torch.cat((quarter.T, quarter.T // 2))
        alone = parts.new_zeros(n)
        whole = self._resampled(
            _diagonal_of_power(kernel, alone, self.alpha), _shares(kernel, parts, self.alpha), parts, groups
        )
        yield with_interval(Reading(Quantity.INPUT, *self.series[0], whole.nats, capped=True), whole)
        for name, labels in classes.items():
            classed = torch.unique(labels, return_inverse=True)[1]
            split = 4 * classed + parts
            # K∘B is K set to 0 between classes: its powers, and those of B, are taken class by class
            of_labels = self._resampled(
                _sizes(classed[None])[0].pow(self.alpha - 1), _sizes(split).pow(self.alpha - 1), parts, groups
            )
            both = self._resampled(
                _diagonal_of_power(kernel, classed, self.alpha), _shares(kernel, split, self.alpha), parts, groups
            )
            shared = whole - (both - of_labels)
            null = self._null(kernel, classed, shared.nats, whole.nats, of_labels.nats, groups)
            reading = Reading(
                Quantity.LABEL, *self.series[0], shared.nats, labels=name, capped=True, ceiling=of_labels.nats
            )
            yield with_interval(null.beside(reading), shared, whole.nats, of_labels.nats)

    def _resampled(
        self,
        diagonal: Float[Tensor, " n"],
        shares: Float[Tensor, "parts n"],
        parts: Int64[Tensor, "parts n"],
        groups: Groups | None,
    ) -> Resampled:
        """From the diagonal of K^α, and of the K of parts of the images: a quarter each by the first splits, then a half."""
        whole = self._entropy(diagonal[None], torch.zeros_like(parts[:1])).item()
        influence = self.alpha * (diagonal / diagonal.mean() - 1) / (1 - self.alpha)
        quarter, half = self._entropy(shares, parts).chunk(2)
        curve = quarter.mean().item(), half.mean().item(), whole
        if groups is not None:
            return Resampled(groups.first_order(whole, influence), curve, groups.effective)
        return Resampled(whole + influence, curve)

    def _entropy(self, shares: Float[Tensor, "times n"], parts: Int64[Tensor, "times n"]) -> Float[Tensor, " times"]:
        """S_α of the images of a part, averaged over the images; the shares of a part add up to tr K^α of its K."""
        traces = shares.new_zeros((len(parts), 4)).scatter_add_(1, parts, shares)
        sizes = torch.zeros_like(traces).scatter_add_(1, parts, torch.ones_like(shares))
        entropies = (traces.log() - self.alpha * sizes.log()) / (1 - self.alpha)
        return torch.where(sizes > 0, sizes * entropies, 0.0).sum(dim=1) / parts.shape[1]

    def _null(
        self,
        kernel: Float[Tensor, "n n"],
        classed: Int64[Tensor, " n"],
        nats: float,
        of_images: float,
        entropy: float,
        groups: Groups | None,
    ) -> Null:
        """The null: with labels permuted, the entropies of images and labels do not change; the joint entropy does."""
        generator = torch.Generator().manual_seed(self.seed)
        if groups is None:
            orders = torch.stack([torch.randperm(len(classed), generator=generator) for _ in range(self.permutations)])
        else:
            orders = groups.orders(self.permutations, generator)
        shuffled = classed[orders.to(classed.device)]
        of_all, shares = torch.zeros_like(shuffled), _shares(kernel, shuffled, self.alpha)
        if groups is not None:  # labels that are stretched to another group's size do not keep their entropy
            of_labels = self._entropy(_sizes(shuffled).pow(self.alpha - 1), of_all)
            return Null.of(nats, of_images + of_labels - self._entropy(shares, of_all)).of_groups(groups)
        return Null.of(nats, of_images + entropy - self._entropy(shares, of_all))


def _diagonal_of_power(kernel: Float[Tensor, "n n"], classed: Int64[Tensor, " n"], alpha: float) -> Float[Tensor, " n"]:
    """The diagonal of K^α, after K is set to 0 between classes."""
    diagonal = torch.empty(len(kernel), dtype=kernel.dtype, device=kernel.device)
    for blocks in _blocks(classed[None]):
        eigenvalues, vectors = torch.linalg.eigh(kernel[blocks[:, :, None], blocks[:, None, :]])
        diagonal[blocks] = (vectors.square() @ eigenvalues.clamp(min=0).pow(alpha)[..., None])[..., 0]
    return diagonal


def _shares(kernel: Float[Tensor, "n n"], classed: Int64[Tensor, "times n"], alpha: float) -> Float[Tensor, "times n"]:
    """tr K_c^α over the size of the class c that the image is in, K_c being the block of that class: no vectors are needed."""
    n = len(kernel)
    shares = torch.empty(classed.numel(), dtype=kernel.dtype, device=kernel.device)
    for blocks in _blocks(classed):
        images = blocks % n
        eigenvalues = torch.linalg.eigvalsh(kernel[images[:, :, None], images[:, None, :]]).clamp_(min=0)
        shares[blocks] = eigenvalues.pow(alpha).mean(dim=1, keepdim=True).expand(blocks.shape)
    return shares.reshape(classed.shape)


def _blocks(classed: Int64[Tensor, "times n"]) -> Iterator[Int64[Tensor, "blocks m"]]:
    """The places, in all rows one after the other, of the members of each class of each row: classes of one size together."""
    number, sizes = _numbered(classed)
    order = (sizes[number] * len(sizes) + number).argsort()
    for m, count in torch.stack(torch.unique(sizes, return_counts=True), dim=1).tolist():
        blocks, order = order[: m * count].reshape(count, m), order[m * count :]
        yield from blocks.split(max(1, TERMS_AT_ONCE // m**2))


def _sizes(classed: Int64[Tensor, "times n"]) -> Float[Tensor, "times n"]:
    """Of each image, how many of its row are in its class."""
    number, sizes = _numbered(classed)
    return sizes[number].double().reshape(classed.shape)


def _numbered(classed: Int64[Tensor, "times n"]) -> tuple[Int64[Tensor, " all"], Int64[Tensor, " k"]]:
    """The classes of all rows numbered throughout, and the size of each."""
    rows = torch.arange(len(classed), device=classed.device)[:, None] * (int(classed.max()) + 1)
    _, number, sizes = torch.unique((classed + rows).flatten(), return_inverse=True, return_counts=True)
    return number, sizes


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < math.inf or alpha == 1:
        raise InvalidArgument(
            f"alpha must be > 0 and other than 1, got {alpha}: for the limit at 1 take one close to it, such as 1.01"
        )
