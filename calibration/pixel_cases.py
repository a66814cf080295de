"""Cases of probes of pixels, and of skips whose part is planted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from calibration import laws
from calibration.case import BIT, NULLS, Case, Found, N, Of
from unetscope.activations.capture import with_shapes
from unetscope.estimators.families import Convolutional, Family, Linear
from unetscope.estimators.interface import LayerStatistics
from unetscope.estimators.kde import KDE
from unetscope.estimators.labels import entropy_nats
from unetscope.estimators.mixture import Mixture
from unetscope.measure.estimating import to_estimate
from unetscope.measure.merges import at_merge
from unetscope.measure.probe_data import Segmented
from unetscope.measure.probing import probe
from unetscope.measure.selfcheck import Channels
from unetscope.table.records import Layer, Quantity, Skip

LINEAR, CONVOLUTIONAL = Linear(), Convolutional()


def _probed(
    drawn: Callable[[int], tuple[Tensor, Tensor]],
    parts: int | tuple[int, int],
    family: Family,
    train: float = 0.5,
    classes: int = 2,
) -> Callable[[int], Iterator[Found]]:
    """What probes of a layer say, or of a merge of two streams of so many channels."""

    def measure(seed: int) -> Iterator[Found]:
        images, masks = drawn(seed)
        named = {"1": slice(None)}
        layers: tuple[Layer, ...] = (Layer("1", "1"),)
        skips: tuple[Skip, ...] = ()
        if isinstance(parts, tuple):
            named = {"U": slice(0, parts[0]), "S": slice(parts[0], sum(parts))}
            layers = (Layer("U", "U"), Layer("S", "S"), Layer("SU", "", role="merge", parts=("U", "S")))
            skips = (Skip("skip1", "S", "U", "SU"),)
        network, first = Channels(named), round(train * len(images))
        sets = [Segmented(images[part], masks[part]) for part in (slice(0, first), slice(first, None))]
        readings = probe(
            network, *sets, with_shapes(network, layers, images[:1]), skips, family=family, classes=classes, seed=seed
        )
        yield from map(Found.of, readings[layers[-1].label])

    return measure


def unrelated_pixels() -> Iterator[Case]:
    """Masks that no channel tells of."""
    yield Case(
        NULLS, "60 images, masks of 16×16 of their own", _probed(_unrelated, 1, LINEAR),
        {("usable_linear", "I_V(M→Y)"): 0.0}, share=3.0, null=True,
    )  # fmt: skip


def _unrelated(seed: int) -> tuple[Tensor, Tensor]:
    """Channels of smooth noise, and masks of other smooth noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(60, 2, 4, 4, generator=generator).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    masks = torch.randn(60, 4, 4, generator=generator).repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    return images + 0.1 * torch.randn(images.shape, generator=generator), (masks > 0).to(torch.uint8)


LINEAR_PROBES = "Usable information, by linear probes"


def pixels() -> Iterator[Case]:
    """Masks whose pixels follow a logistic law of a channel: the linear family holds the truth."""
    for name, slope, offset, train, channels_, share in (
        ("even", 2.0, 0.0, 60, 2, 1.0),
        ("rare (4 % of the pixels)", 2.0, -4.0, 60, 2, 1.0),
        ("with 30 channels of noise, 200 training images", 2.0, 0.0, 200, 31, 0.5),
        ("with 62 channels of noise, 8 training images", 2.0, 0.0, 8, 63, 0.5),
    ):
        yield Case(
            LINEAR_PROBES,
            f"logistic law, {name}",
            probed_logistic(slope, offset, train, 60, channels_),
            {("usable_linear", "I_V(M→Y)"): laws.logistic_information(slope, offset) / BIT},
            share=share,
        )


def probed_logistic(
    slope: float, offset: float, train: int, held_out: int, channels: int
) -> Callable[[int], Iterator[Found]]:
    """What linear probes say of images of 16×16 pixels, of which the first channel alone tells the mask."""

    def drawn(seed: int) -> tuple[Tensor, Tensor]:
        values = laws.normal(seed, train + held_out, channels, 16, 16).float()
        return values, laws.logistic(slope, offset)(values[:, 0], seed + 1)

    return _probed(drawn, 1, LINEAR, train / (train + held_out))


def rectified_pixels() -> Iterator[Case]:
    """The same of channels after a ReLU, where least squares is not the best of the family."""
    binary, classes = ((3.0, -3.0),), ((3.0, -3.0), (-2.0, 3.0))
    for name, slopes, offsets, train, channels_ in (
        ("even", binary, (1.0,), 60, 2),
        ("rare (9 % of the pixels)", binary, (4.0,), 60, 2),
        ("with 30 channels of noise, 200 training images", binary, (1.0,), 200, 32),
        ("three classes", classes, (0.0, -1.0), 60, 2),
    ):
        yield Case(
            LINEAR_PROBES,
            f"logistic law of ReLU channels, {name}",
            probed_rectified(slopes, offsets, train, 60, channels_),
            {("usable_linear", "I_V(M→Y)"): laws.rectified_information(slopes, offsets) / BIT},
        )


def probed_rectified(
    slopes: Sequence[Sequence[float]], offsets: Sequence[float], train: int, held_out: int, channels: int
) -> Callable[[int], Iterator[Found]]:
    """What linear probes say of images of 16×16 pixels, of which the first channels tell the mask, all after a ReLU."""

    def drawn(seed: int) -> tuple[Tensor, Tensor]:
        values = laws.normal(seed, train + held_out, channels, 16, 16).float().relu()
        return values, laws.rectified(slopes, offsets)(values, seed + 1)

    return _probed(drawn, 1, LINEAR, train / (train + held_out), classes=len(offsets) + 1)


# Of merges

MERGES = {
    "redundant": laws.redundant(),
    "unique": laws.unique(),
    "exclusive or": laws.exclusive_or(),
    "both of them noisy": laws.both_noisy(),
}


def merges() -> Iterator[Case]:
    """Skips whose part is planted, in 10⁵ dimensions and in pixels."""
    for name, law in MERGES.items():
        truths: dict[Of, float | None] = {
            (estimator, quantity): nats / BIT
            for estimator in ("kde_upper", "mixture")
            for quantity, nats in laws.at_merge(law).items()
        }
        yield Case(
            "Planted skips, two streams of 100,000 dimensions each", f"skip {name}", _of_streams(law, 100_000), truths,
            share=0.5,
        )  # fmt: skip
    for name in ("redundant", "unique", "exclusive or"):
        for family, share in ((LINEAR, 0.25), (CONVOLUTIONAL, 0.1)):
            yield Case(
                "Planted skips in pixels, two streams of 20 channels of 32×32 (20,480 dimensions)",
                f"skip {name}, {family.name} probes",
                _probed(_of_pixels(name), (20, 20), family),
                {(f"usable_{family.name}", quantity): bits for quantity, bits in USABLE[name, family.name].items()},
                share=share,
            )


def _of_streams(law: np.ndarray, d: int) -> Callable[[int], Iterator[Found]]:
    def measure(seed: int) -> Iterator[Found]:
        y, u, s = laws.draw(law, N, seed)
        squared = {"U": laws.clusters(u, d, 2 * seed), "S": laws.clusters(s, d, 2 * seed + 1)}
        squared["SU"] = squared["U"] + squared["S"]
        rows = [
            to_estimate(
                reading, Layer(layer, layer, shape=(d, 1, 1)), 0, N, entropy_nats(y) if reading.labels else math.log(N)
            )
            for layer, distances in squared.items()
            for estimator in (KDE(permutations=9), Mixture(permutations=9))
            for reading in estimator.readings(LayerStatistics.of_distances(distances), {"y": y})
        ]
        for row in at_merge(Skip("skip1", "S", "U", "SU"), rows):
            limit = row.bits if math.isnan(row.extrapolated) else row.extrapolated
            yield Found(row.estimator, row.quantity, row.bits, limit, row.low, row.high, row.p, row.reason)

    return measure


USABLE: Mapping[tuple[str, str], Mapping[Quantity, float | None]] = {
    ("redundant", "linear"): {"I_V(S→Y|U)": 0.0, "I_V(U→Y|S)": 0.0, "I_V(S;U→Y)": 1.0},
    ("unique", "linear"): {"I_V(S→Y|U)": 1.0, "I_V(U→Y|S)": 0.0, "I_V(S;U→Y)": 0.0},
    ("exclusive or", "linear"): {
        "I_V(S→Y|U)": 0.0,
        "I_V(U→Y|S)": 0.0,
        "I_V(S;U→Y)": 0.0,
    },  # linearly, that is all there is
    ("redundant", "convolutional"): {"I_V(S→Y|U)": 0.0, "I_V(U→Y|S)": 0.0, "I_V(S;U→Y)": 1.0},
    ("unique", "convolutional"): {"I_V(S→Y|U)": 1.0, "I_V(U→Y|S)": 0.0, "I_V(S;U→Y)": 0.0},
    ("exclusive or", "convolutional"): {"I_V(S→Y|U)": None, "I_V(U→Y|S)": None, "I_V(S;U→Y)": None},
}


def _of_pixels(kind: str) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Streams of twenty channels of noise, one of which also holds a bit at each pixel."""

    def draw(seed: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        u, s = torch.rand(2, 120, 32, 32, generator=generator) < 0.5
        masks = {"redundant": u, "unique": s, "exclusive or": u ^ s}[kind]
        images = 0.1 * torch.randn(120, 40, 32, 32, generator=generator)
        images[:, 0] += u
        images[:, 20] += u if kind == "redundant" else s
        return images, masks.to(torch.uint8)

    return draw
