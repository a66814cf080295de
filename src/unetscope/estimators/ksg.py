"""Mutual information from the nearest neighbours of a low-dimensional code (Kraskov, Stögbauer & Grassberger).

Nearest neighbours are accurate in up to about ten dimensions, but not for raw activations: in 16+16 dimensions with 5000
samples they find 0.71 of 2.30 nats. So a layer is first reduced to its principal components, which follow from its pairwise
distances. The estimate is the information of that code.

Source: Kraskov, Stögbauer & Grassberger, Physical Review E 69:066138 (2004); Ross, PLoS ONE 9(2):e87357 (2014).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from unetscope.base import InvalidArgument, whole_fields
from unetscope.estimators.interface import (
    Estimator,
    LayerStatistics,
    Needs,
    Reading,
    out_of_domain_reason,
    with_reasons,
    without_value,
)
from unetscope.estimators.resampling import (
    PERMUTATIONS,
    UNSEEN,
    Null,
    Resampled,
    check_permutations,
    negligible,
    quarters,
    reason_of_few,
    with_interval,
)
from unetscope.table import Quantity, student

MOST_COMPONENTS = 10
SMALLEST_VARIANCE = 1e-5  # of the largest: below it, a component is the rounding of distances in float32
TIED = 1e-6  # of a component's standard deviation: nearer images have the same code, but for rounding
HEAVY_TAILS = 3.0  # excess kurtosis, that of Laplace's distribution
LARGEST_SHARE = 0.05  # of images that may be tied, or in classes too small

Chebyshev = Float[Tensor, "n n"]


def codes(squared_distances: Float[Tensor, "n n"], components: int = 4) -> Float[Tensor, "n k"]:
    """The images' scores on the first principal components of a layer, from the pairwise distances alone.

    Centring −D/2 along both sides gives the products of the centred activations, whose eigenvectors times the roots of their
    eigenvalues are the scores, up to signs. There are fewer columns than `components` if the layer has fewer dimensions, and
    none if it is the same for all images.

    Source: Torgerson, Psychometrika 17:401 (1952); Gower, Biometrika 53:325 (1966).
    Raises: InvalidArgument if components is not 1 to 10.

    >>> line = torch.tensor([-1.0, 0.0, 1.0])
    >>> codes((line[:, None] - line).square(), components=2).abs().round(decimals=6).tolist()
    [[1.0], [0.0], [1.0]]
    """
    _check_components(components)
    centred = squared_distances.double() - squared_distances.double().mean(dim=0)
    variances, vectors = torch.linalg.eigh((centred - centred.mean(dim=1, keepdim=True)) / -2)
    variances, vectors = variances.flip(0)[:components], vectors.flip(1)[:, :components]
    kept = variances > SMALLEST_VARIANCE * variances[0].clamp(min=0)
    return vectors[:, kept] * variances[kept].sqrt()


def light_tailed(code: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """The code with normal scores, the quantiles of ranks, in place of components that have heavy tails.

    Information does not change if a coordinate is replaced by an increasing function of it. Under heavy tails most images are
    far nearer to each other than a standard deviation, so that one coordinate hides the others: of two that are Student's with
    one degree of freedom and no correlation, 600 images find 0.11 of 0.22 nats as they are, and 0.21 as scores. Equal values
    have equal scores.

    Source: Kraskov et al. (2004), section II, on changes of coordinates.

    >>> tailed = torch.linspace(-6, 6, 101, dtype=torch.float64)[:, None].sinh()
    >>> round(light_tailed(tailed).max().item(), 2), torch.equal(light_tailed(tailed.asinh()), tailed.asinh())
    (2.58, True)
    """
    code = code.double()
    centred = code - code.mean(dim=0)
    variance = centred.square().mean(dim=0)
    kurtosis = centred.pow(4).mean(dim=0) / variance.square().clamp(min=torch.finfo(torch.float64).tiny) - 3
    columns = [
        _normal_scores(column) if is_heavy else column
        for column, is_heavy in zip(code.T, (kurtosis > HEAVY_TAILS).tolist(), strict=True)
    ]
    return torch.stack(columns, dim=1) if columns else code


def _normal_scores(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The normal quantile of each value's rank, the mean rank of equal ones."""
    _, number, counts = torch.unique(values, return_inverse=True, return_counts=True)
    below = counts.cumsum(dim=0) - counts / 2  # and half of the equal ones
    return torch.special.ndtri(below / len(values))[number]


def chebyshev(code: Float[Tensor, "n k"]) -> Chebyshev:
    """The largest difference of any coordinate between images, each in units of its standard deviation.

    Information does not change if a coordinate is measured in other units, but which images are nearest does: a small component
    that depends on the label would be hidden by a large one that does not.
    """
    code = code.double()
    if not code.shape[1]:
        return code.new_zeros(len(code), len(code))
    spread = code.std(dim=0, correction=0)
    scaled = code / torch.where(spread > 0, spread, 1.0)
    return torch.cdist(scaled, scaled, p=math.inf)


def label_distances(labels: Int64[Tensor, " n"]) -> Chebyshev:
    """0 between images of one class, and infinity between others."""
    return torch.where(labels[:, None] == labels, 0.0, math.inf).double()


def ksg_information(x: Chebyshev, y: Float[Tensor, "m m"], neighbours: int = 3) -> Float[Tensor, " n"]:
    """I(X;Y) in nats from the distances between images in x and in y: one value an image, the mean of which is the estimate.

    ψ(k) + ψ(n) − ψ(n_x + 1) − ψ(n_y + 1): with ε the distance to the k-th neighbour among both codes together, by the largest
    difference of any coordinate, n_x and n_y are the images nearer than ε in x and in y alone. As k − 1 images are nearer in
    both, n_x and n_y are at least k − 1, and the estimate cannot exceed ψ(n) − ψ(k): identical codes have that. Ties, which a
    continuous code has not, may not break this bound.

    With `label_distances` as y it is Ross' estimate for a discrete label: ψ(k) + ψ(n) − ψ(m) − ψ(n_c), with ε the distance to
    the k-th neighbour in the image's class of n_c images and m − 1 the images of any class that are nearer. A class of k images
    or fewer takes all it has as neighbours; an image that is alone in its class has none, is left out of n, and is given the
    mean of the others, which is NaN if there are none.

    Source: Kraskov et al. (2004), algorithm 1; Ross (2014).
    Raises: InvalidArgument if neighbours is not positive, or the codes are not of the same images.

    >>> x = torch.linspace(0, 1, 100, dtype=torch.float64)[:, None]
    >>> identical = ksg_information(chebyshev(x**2), chebyshev(x**2)).mean().item()
    >>> round(identical, 6) == round((torch.digamma(torch.tensor(100.0)) - torch.digamma(torch.tensor(3.0))).item(), 6)
    True
    >>> sign = label_distances((x[:, 0] > 0.5).long())
    >>> round(ksg_information(chebyshev(x), sign).mean().item(), 2)      # the code determines the class: ln 2 = 0.69
    0.68
    """
    _check_neighbours(neighbours)
    if len(x) != len(y):
        raise InvalidArgument(f"codes of {len(x)} and {len(y)} images: expected the same images")
    nearest = _Neighbours.of(x, y, neighbours)
    psi = _digamma(len(x)).to(x.device)
    values = psi[nearest.k] + psi[nearest.accompanied.sum()]
    for distances in (x, y):
        nearer = ((distances < nearest.radius) & nearest.accompanied).sum(dim=1)  # [n], itself among them
        values -= psi[torch.maximum(nearer, nearest.k)]
    return torch.where(nearest.accompanied, values, values[nearest.accompanied].mean())


NOT_FOR_GROUPS = (
    "images of one group are each other's nearest neighbours, whatever their layer: take KDE, binning or probes"
)


@dataclass(frozen=True, slots=True)
class KSG(Estimator):
    """I(Y;M) and, given the distances between inputs, I(X;M), from the nearest neighbours of the principal components.

    components: of the layer, and of the input. neighbours: k; more of them vary less with the images and fall further short.

    I(X;M) is between the code of the input and that of the layer: it is no bound of their information, and serves for
    comparison with other estimates. Its ceiling is ψ(n) − ψ(k), that of I(Y;M) Σ_c p_c (ψ(n) − ψ(n_c)), which is about H(Y).
    Components with heavy tails are replaced by their normal scores, which leaves information as it is (see `light_tailed`).
    There is no number where nearest neighbours are not meaningful: if the k-th neighbour of more than 5 % of the images has
    the same code, as in a constant or a discrete layer, or if more than 5 % of the images are in classes of at most k images.

    Intervals are made of the jackknife's values: what each image changes by being left out. Neighbours share their distances,
    so that an estimate's own terms vary too little, by a fifth; the jackknife's variance is on average not too small
    (Efron & Stein 1981), and is too large by up to a factor of three where there is no information: intervals contain about
    98 % of closed forms, and not 95. Events rarer than 3 in n images may not have been seen, and widen the interval by as
    many nats: otherwise an estimate of labels that every image determines would seem certain.

    The bias of the estimate is computed twice: as 1/n, as of every estimator, and as n^(−2/d) for codes of d
    dimensions together, the order of the bias of nearest neighbours where a density bends. If the latter is more than a third
    of the interval's half width and more than 0.05 nats, the reading is out of its domain too.

    Source: as of the module; Efron & Stein, Annals of Statistics 9:586 (1981); Gao, Oh & Viswanath, IEEE Trans.
    Information Theory 64:5629 (2018).
    Raises: InvalidArgument if a value is out of its domain.

    >>> plane = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> layer = LayerStatistics.of_distances(torch.cdist(plane, plane).square())
    >>> (reading,) = KSG(components=2).readings(layer, {"sign": (plane[:, 0] > 0).long()})
    >>> reading.low < 0.693 < reading.high, reading.p
    (True, 0.025)
    """

    components: int = 4
    neighbours: int = 3
    permutations: int = PERMUTATIONS
    seed: int = 0

    @property
    def needs(self) -> Needs:
        """Distances between the activations and between the inputs."""
        return Needs(distances=True, inputs=True)

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        """The name and resolution of its estimates."""
        return (("ksg", float(self.components)),)

    def __post_init__(self) -> None:
        whole_fields(self, "components", "neighbours", "permutations", "seed")
        _check_components(self.components)
        _check_neighbours(self.neighbours)
        check_permutations(self.permutations)

    def readings(self, statistics: LayerStatistics, classes: Mapping[str, Int64[Tensor, " k"]]) -> Iterator[Reading]:
        """I(X;M) if there are squared distances between the inputs, then I(Y;M) for each label scheme.

        Raises: InvalidArgument if labels or inputs are not one an image.
        """
        readings = partial(
            self._readings, classes=classes, inputs=statistics.inputs, in_groups=statistics.groups is not None
        )
        return with_reasons(readings, statistics.pairwise(relative=False).squared, classes)

    def _readings(
        self,
        squared_distances: Float[Tensor, "n n"],
        classes: Mapping[str, Int64[Tensor, " n"]],
        inputs: Float[Tensor, "m m"] | None,
        in_groups: bool,
    ) -> Iterator[Reading]:
        code, n = light_tailed(codes(squared_distances, self.components)), len(squared_distances)
        of_layer = chebyshev(code)
        unfit = out_of_domain_reason(NOT_FOR_GROUPS) if in_groups else self._unfit(code, of_layer, "layer")
        if inputs is not None:
            if inputs.shape != squared_distances.shape:
                raise InvalidArgument(
                    f"distances between {len(inputs)} inputs and {n} images: expected the same images"
                )
            input_code = light_tailed(codes(inputs, self.components))
            of_input = chebyshev(input_code)
            reason = unfit or self._unfit(input_code, of_input, "input")
            ceiling = (_digamma(n)[n] - _digamma(n)[min(self.neighbours, n)]).item()
            reading = Reading(Quantity.INPUT, *self.series[0], math.nan, capped=True, ceiling=ceiling)
            dimensions = code.shape[1] + input_code.shape[1]
            yield self._with_interval(reading, of_layer, of_input, dimensions, reason)
        for name, labels in classes.items():
            sizes = (labels[:, None] == labels).sum(dim=1)
            reason = unfit or self._too_small(sizes)
            ceiling = (_digamma(n)[n] - _digamma(n)[sizes.cpu()].mean()).item()
            reading = Reading(Quantity.LABEL, *self.series[0], math.nan, labels=name, capped=True, ceiling=ceiling)
            yield self._with_interval(reading, of_layer, label_distances(labels), code.shape[1], reason)

    def _unfit(self, code: Float[Tensor, "n k"], distances: Chebyshev, of_what: str) -> str:
        """Why nearest neighbours are not meaningful in a code; empty if they are."""
        if not code.shape[1]:
            return out_of_domain_reason(
                f"the {of_what} is the same for all images, so that none is nearer than another"
            )
        nearest = _apart(distances).kthvalue(min(self.neighbours, len(code)), dim=1).values
        share = (nearest <= TIED).double().mean().item()
        if share <= LARGEST_SHARE:
            return ""
        return out_of_domain_reason(
            f"{share:.0%} of the images have the code of {self.neighbours} or more others in the {of_what}, "
            "and nearest neighbours need a continuous one"
        )

    def _too_small(self, sizes: Int64[Tensor, " n"]) -> str:
        """Why classes of such sizes are too small; empty if they are not."""
        share = (sizes <= self.neighbours).double().mean().item()
        if share <= LARGEST_SHARE:
            return ""
        return out_of_domain_reason(
            f"{share:.0%} of the images are in classes of {self.neighbours} or fewer, where they lack neighbours"
        )

    def _with_interval(self, reading: Reading, x: Chebyshev, y: Chebyshev, dimensions: int, reason: str) -> Reading:
        """The reading with its number and interval, or without a number if there is a reason for that."""
        if reason:
            return without_value(reading, reason, out_of_domain=True)
        resampled, n = self._resampled(x, y), len(x)
        null = self._null(x, y, resampled.nats)
        reading = with_interval(null.beside(replace(reading, nats=resampled.nats)), resampled)
        rate = 2 ** (-2 / max(dimensions, 2))  # twice as many images leave this share of what is missing
        missing = (resampled.curve[1] - resampled.curve[0]) * rate**2 / (1 - rate)
        interval = student(resampled.values.cpu().numpy())
        half, bias = interval.high - interval.value, reading.extrapolated - reading.nats
        if reading.out_of_domain:
            return reading
        if negligible(missing, half):
            off = math.hypot(half, bias, UNSEEN / n)
            return replace(reading, low=reading.extrapolated - off, high=reading.extrapolated + off)
        reason = reason_of_few(n, f"ever more of them in {dimensions} dimensions it goes some", missing)
        return replace(reading, low=math.nan, high=math.nan, per_image=(), reason=reason, out_of_domain=True)

    def _resampled(self, x: Chebyshev, y: Chebyshev) -> Resampled:
        whole = ksg_information(x, y, self.neighbours).mean().item()
        means: list[list[float]] = [[], []]
        for split in quarters(len(x), x.device, self.seed).T:
            for parts, mean in zip((split, split // 2), means, strict=True):
                values = torch.empty_like(x[0])
                for part in parts.unique():
                    rows = torch.nonzero(parts == part)[:, 0]
                    values[rows] = ksg_information(x[rows][:, rows], y[rows][:, rows], self.neighbours)
                mean.append(values.nanmean().item())
        quarter, half = (sum(mean) / len(mean) for mean in means)
        values = _pseudo_values(x, y, self.neighbours)
        return Resampled(values - values.mean() + whole, (quarter, half, whole))

    def _null(self, x: Chebyshev, y: Chebyshev, nats: float) -> Null:
        """The estimate with the images of one code permuted."""
        generator = torch.Generator().manual_seed(self.seed)
        chance = []
        for _ in range(self.permutations):
            order = torch.randperm(len(x), generator=generator).to(x.device)
            chance.append(ksg_information(x, y[order][:, order], self.neighbours).mean())
        return Null.of(nats, torch.stack(chance))


class _Neighbours(NamedTuple):
    """Of each image: k or however many there are, the distance to the k-th and to the one after it, and which the k are.

    Where there is no other, the one after is the k-th itself. accompanied: the image has a neighbour.
    """

    k: Int64[Tensor, " n"]
    radius: Float[Tensor, "n 1"]
    further: Float[Tensor, "n 1"]
    them: Bool[Tensor, "n n"]
    accompanied: Bool[Tensor, " n"]

    @classmethod
    def of(cls, x: Chebyshev, y: Chebyshev, neighbours: int) -> _Neighbours:
        """By the largest difference in either code; images infinitely far are no neighbours."""
        joint = _apart(torch.maximum(x, y))
        reached = joint.isfinite().sum(dim=1)
        k = reached.clamp(1, neighbours)
        nearest, which = joint.topk(min(neighbours + 1, len(joint)), largest=False)
        radius = nearest.gather(1, k[:, None] - 1).clamp(min=TIED)
        further = nearest.gather(1, k[:, None].clamp(max=nearest.shape[1] - 1))
        ranks = torch.arange(which.shape[1], device=k.device)
        them = torch.zeros_like(joint, dtype=torch.bool).scatter_(1, which, ranks < k[:, None])
        return cls(k, radius, torch.where(further.isfinite(), further, radius), them, reached > 0)


def _pseudo_values(x: Chebyshev, y: Chebyshev, neighbours: int) -> Float[Tensor, " n"]:
    """(n − 1) times what the estimate loses by leaving out each image: their spread is the jackknife's.

    Without image j, the radius of those that it is a neighbour of grows to their next one, and it is no longer counted where it
    was nearer than that.
    """
    nearest, n = _Neighbours.of(x, y, neighbours), len(x)
    psi = _digamma(n).to(x.device)
    left = nearest.accompanied[:, None] & nearest.accompanied
    left.fill_diagonal_(False)
    terms = torch.zeros_like(x)
    for distances in (x, y):
        near, further = ((distances < radius) & nearest.accompanied for radius in (nearest.radius, nearest.further))
        counts = torch.where(nearest.them, further.sum(dim=1, keepdim=True), near.sum(dim=1, keepdim=True))
        counts -= torch.where(nearest.them, further, near).long()
        terms += psi[torch.maximum(counts, nearest.k[:, None])]
    without = (terms * left).sum(dim=0) / left.sum(dim=0)
    return torch.where(nearest.accompanied, (n - 1) * without, (n - 1) * without[nearest.accompanied].mean())


def _apart(distances: Chebyshev) -> Chebyshev:
    """The same with no image as its own neighbour."""
    return distances.clone().fill_diagonal_(math.inf)


def _digamma(n: int) -> Float[Tensor, " m"]:
    """ψ of 0 to n."""
    return torch.digamma(torch.arange(n + 1, dtype=torch.float64))


def _check_components(components: int) -> None:
    if not 1 <= components <= MOST_COMPONENTS:
        raise InvalidArgument(
            f"components must be 1 to {MOST_COMPONENTS}, got {components}: nearest neighbours fail in more dimensions"
        )


def _check_neighbours(neighbours: int) -> None:
    if neighbours < 1:
        raise InvalidArgument(f"neighbours must be 1 or more, got {neighbours}")
