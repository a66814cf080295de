"""Coverage of intervals and size of nulls where images are frames of films; `python -m calibration.grouped_page` measures it.

Every film has a state and a label; its frames have both with a chance, and otherwise draw them anew. So frames of a film are
alike while the distribution of a single frame, and with it the truth, is known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unetscope.activations.capture import with_shapes
from unetscope.estimators.binning import Binning
from unetscope.estimators.groups import Groups
from unetscope.estimators.interface import Estimator, LayerStatistics, Pairwise, Reading
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.renyi import Renyi
from unetscope.measure.probe_data import Segmented
from unetscope.measure.probing import probe
from unetscope.table.intervals import cautious, effective_groups, group_values, too_few_groups
from unetscope.table.records import Layer

FILMS: Mapping[str, tuple[int, ...]] = {
    "40 films of 5": (5,) * 40,
    "20 films of 5": (5,) * 20,
    "40 films of 1 to 20": (1, 2, 3, 4, 5, 6, 8, 10, 15, 20) * 4,
    "21 films, one of them a third": (50, *(5,) * 20),
    "10 films of 5": (5,) * 10,
    "5 films of 5": (5,) * 5,
    "5 films, one of them a third": (10, *(5,) * 4),
}
STATES, LABELS, STAYS = 4, 2, 0.9  # a frame has its film's state and label with this chance
DISTANCE, NOISE = 3.0, 1.0  # squared, between any two states; variance
POINTS = torch.eye(STATES, dtype=torch.float64) * math.sqrt(DISTANCE / 2)
NODES = 24  # a dimension, of the integral over noise
SIDE = 4  # pixels of the images that probes read


@dataclass(frozen=True)
class Rate:
    """How often an interval that was given held its truth, and how often a p of 5 % or less was given, of so many."""

    case: str
    estimator: str
    films: str
    covered: float
    intervals: int
    rejected: float
    nulls: int
    repetitions: int


@dataclass(frozen=True)
class Films:
    """Frames of films. states, labels: of every frame. film: the number of its film."""

    states: Tensor
    labels: Tensor
    film: Tensor


def joint(dependent: bool) -> NDArray[np.float64]:
    """The chance of every state with every label: 0.85 for the label of the same parity, or independent."""
    table = np.full((STATES, LABELS), 1 / (STATES * LABELS))
    if dependent:
        same = np.arange(STATES)[:, None] % LABELS == np.arange(LABELS)
        table = np.where(same, 0.85, 0.15) / STATES
    return table


def drawn(sizes: Sequence[int], *, dependent: bool, seed: int) -> Films:
    """Films of these numbers of frames."""
    rng = np.random.default_rng(seed)
    film = np.repeat(np.arange(len(sizes)), sizes)
    chances = joint(dependent).reshape(-1)
    of_film, anew = (rng.choice(len(chances), size, p=chances) for size in (len(sizes), len(film)))
    pairs = np.where(rng.random(len(film)) < STAYS, of_film[film], anew)
    if not dependent:  # a frame draws its state and its label anew apart from each other
        states = np.where(rng.random(len(film)) < STAYS, of_film[film], anew) // LABELS
        return Films(torch.from_numpy(states), torch.from_numpy(pairs % LABELS), torch.from_numpy(film))
    return Films(torch.from_numpy(pairs // LABELS), torch.from_numpy(pairs % LABELS), torch.from_numpy(film))


def truth_of_binning() -> tuple[float, float]:
    """I(X;M) and I(Y;M) of the states, in nats."""
    table = joint(True)
    entropy = [-(p * np.log(p)).sum() for p in (table.sum(axis=1), table.sum(axis=0), table)]
    return float(entropy[0]), float(entropy[0] + entropy[1] - entropy[2])


def truth_of_kde(bound: str) -> tuple[float, float]:
    """I(X;M) and I(Y;M) of infinitely many frames by the bound, in nats: a sum over the states."""
    c = {"kde_upper": 2.0, "kde_lower": 8.0}[bound]
    kernel = np.exp(-DISTANCE * (1 - np.eye(STATES)) / (c * NOISE))
    return less_that_inside_labels(lambda p: float(-(p * np.log(kernel @ p)).sum()))


def truth_of_mixture() -> tuple[float, float]:
    """I(X;M) and I(Y;M) of the states with Gaussian noise, in nats: an integral over the noise."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    places = np.array(list(itertools.product(nodes, repeat=STATES - 1)))
    weight = np.prod(list(itertools.product(weights, repeat=STATES - 1)), axis=1)
    points = POINTS.numpy() - POINTS.numpy().mean(axis=0)
    points = points @ np.linalg.svd(points)[2][: STATES - 1].T  # in as many dimensions as noise matters in
    noise = math.sqrt(NOISE) * places
    from_state = np.square(noise + points[:, None, None] - points[:, None]).sum(axis=-1) - np.square(noise).sum(axis=-1)
    density = np.exp(from_state / (-2 * NOISE))  # [state, other state, place], over the noise's own

    def mixture(p: NDArray[np.float64]) -> float:
        return float(-p @ np.log(np.einsum("sop,o->sp", density, p)) @ weight / weight.sum())

    return less_that_inside_labels(mixture)


def truth_of_renyi(estimator: Renyi) -> tuple[float, float]:
    """I(X;M) and I(Y;M) of infinitely many frames by the eigenvalues, in nats; the median distance is `DISTANCE`."""
    kernel = np.exp(-(1 - np.eye(STATES)) / (2 * estimator.bandwidth))
    table = joint(True)

    def entropy(*parts: NDArray[np.float64]) -> float:
        eigenvalues = np.concatenate([np.linalg.eigvalsh(np.sqrt(np.outer(p, p)) * kernel) for p in parts])
        return float(np.log((eigenvalues**estimator.alpha).sum()) / (1 - estimator.alpha))

    of_labels = float(np.log((table.sum(axis=0) ** estimator.alpha).sum()) / (1 - estimator.alpha))
    whole = entropy(table.sum(axis=1))
    return whole, whole + of_labels - entropy(*table.T)


def less_that_inside_labels(information: Callable[[NDArray[np.float64]], float]) -> tuple[float, float]:
    """I(X;M) from the chances of the states, and I(Y;M): that less what is left inside the labels."""
    table = joint(True)
    inside = sum(of_label.sum() * information(of_label / of_label.sum()) for of_label in table.T)
    return information(table.sum(axis=1)), information(table.sum(axis=1)) - inside


def truth_of(estimator: Estimator) -> Mapping[str, tuple[float, float]]:
    """I(X;M) and I(Y;M) of infinitely many frames, by the names of the estimator's readings."""
    if isinstance(estimator, Binning):
        return {"binning": truth_of_binning()}
    if isinstance(estimator, Mixture):
        return {"mixture": truth_of_mixture()}
    if isinstance(estimator, Renyi):
        return {"renyi": truth_of_renyi(estimator)}
    return {bound: truth_of_kde(bound) for bound in ("kde_upper", "kde_lower")}


def estimates(estimator: Estimator, films: Films, *, in_groups: bool = True) -> Iterator[Reading]:
    """What an estimator reads of the frames, as frames of films or as if all were independent."""
    points = POINTS[films.states]
    squared = torch.cdist(points, points).square()
    statistics = replace(
        LayerStatistics.of_distances(squared),
        relative=Pairwise(squared, torch.zeros(len(squared))).relative(),
        symbols={1.0: films.states},
        groups=Groups.of(films.film) if in_groups else None,
    )
    return estimator.readings(statistics, {"label": films.labels})


def of_estimator(
    estimator: Estimator, films: str, seeds: range, *, in_groups: bool = True
) -> Iterator[tuple[str, Rate]]:
    """Coverage of an estimator's intervals, and how often its null rejects labels that tell nothing of the frames."""
    truths = truth_of(estimator)
    covered: dict[tuple[str, str], list[bool]] = {}
    rejected: dict[str, list[bool]] = {}
    for seed in seeds:
        for reading in estimates(estimator, drawn(FILMS[films], dependent=True, seed=seed), in_groups=in_groups):
            key = reading.estimator, "I(Y;M)" if reading.labels else "I(X;M)"
            truth = truths[reading.estimator][bool(reading.labels)]
            held = covered.setdefault(key, [])
            if math.isfinite(reading.low):
                held.append(reading.low <= truth <= reading.high)
        for reading in estimates(estimator, drawn(FILMS[films], dependent=False, seed=seed), in_groups=in_groups):
            if reading.labels and math.isfinite(reading.p):
                rejected.setdefault(reading.estimator, []).append(reading.p <= 0.05)
    for (name, quantity), held in covered.items():
        null = rejected.get(name, []) if quantity == "I(Y;M)" else []
        yield quantity, _rate("film", f"{name} {quantity}", films, held, null, len(seeds))


class _Pixels(nn.Module):
    """A network whose only layer is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.same(x)


def of_probe(films: str, seeds: range, *, in_groups: bool = True) -> Rate:
    """Coverage of the linear probe's usable information, and how often its null rejects masks of other films."""
    from scipy.integrate import quad

    variance = 1.0 + OFFSET**2

    def loss(
        x: float,
    ) -> float:  # of the best guess from x, which is N(1, variance) inside the mask and N(0, variance) outside
        logit, density = (x - 0.5) / variance, math.exp(-((x - 1) ** 2) / (2 * variance))
        return math.log1p(math.exp(-logit)) * density / math.sqrt(2 * math.pi * variance)

    truth = math.log(2) - quad(loss, -15, 15)[0]
    held, rejected = [], []
    for seed in seeds:
        reading = _probed(FILMS[films], seed, in_groups=in_groups, dependent=True)
        if math.isfinite(reading.low):
            held.append(reading.low <= truth <= reading.high)
        p = _probed(FILMS[films], seed, in_groups=in_groups, dependent=False).p
        if math.isfinite(p):
            rejected.append(p <= 0.05)
    return _rate("film", "linear probe", films, held, rejected, len(seeds))


OFFSET = 0.7  # standard deviation of a film's brightness, beside a pixel's of 1


def _probed(sizes: Sequence[int], seed: int, *, in_groups: bool, dependent: bool) -> Reading:
    """A linear probe of the pixels of some films, fitted on forty others."""

    def segmented(numbers: Sequence[int], generator: torch.Generator) -> Segmented:
        film = torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers))
        shape = (len(film), SIDE, SIDE)
        if dependent:
            masks = (torch.rand(shape, generator=generator) < 0.5).long()
            offset = OFFSET * torch.randn(len(numbers), generator=generator)[film, None, None]
            images = masks + offset + torch.randn(shape, generator=generator)
        else:  # each film has a mask and a pattern of its own, which have nothing to do with each other
            masks = (torch.rand(len(numbers), SIDE, SIDE, generator=generator) < 0.5).long()[film]
            images = torch.randn(len(numbers), SIDE, SIDE, generator=generator)[film]
        return Segmented(images[:, None].float(), masks, groups=film if in_groups else None)

    generator, model = torch.Generator().manual_seed(seed), _Pixels()
    train, held_out = segmented((5,) * 40, generator), segmented(sizes, generator)
    layers = with_shapes(model, (Layer("1", "same"),), train.images[:1])
    return probe(model, train, held_out, layers)["1"][0]


def of_mean(films: str, seeds: range, draw: Callable[[np.random.Generator, int], NDArray[np.float64]]) -> Rate:
    """Coverage of a mean over images, such as of Dice: films differ as `draw` says, frames half as much."""
    sizes, held = FILMS[films], []
    film = np.repeat(np.arange(len(sizes)), sizes)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        values = draw(rng, len(sizes))[film] + 0.5 * draw(rng, len(film))
        if not too_few_groups(len(sizes), effective_groups(sizes)):
            interval = cautious(group_values(values, np.ones(len(film)), film), effective_groups(sizes))
            held.append(interval.low <= 0 <= interval.high)
    return _rate("film", f"mean, {draw.__name__} films", films, held, [], len(seeds))


def normal(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Values of films that are as often high as low."""
    return rng.normal(size=n)


def skewed(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Values of films of which few are far out."""
    return rng.exponential(size=n) - 1


def _rate(case: str, name: str, films: str, held: Sequence[bool], rejected: Sequence[bool], repetitions: int) -> Rate:
    mean = [float(np.mean(values)) if len(values) else math.nan for values in (held, rejected)]
    return Rate(case, name, films, mean[0], len(held), mean[1], len(rejected), repetitions)
