"""Families of probes: the features of a layer that they read linearly.

The family determines which information counts as usable. Probes are fitted by least squares and finished by Newton's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from unetscope.base import InvalidArgument, whole_fields
from unetscope.estimators.moments import features_of

SMALLEST_SPREAD = 1e-12


@runtime_checkable
class Reader(Protocol):
    """Computes the features of one probe from an activation."""

    def width(self, channels: int, /) -> int:
        """How many features a place has."""
        ...

    def features(
        self, activation: Float[Tensor, "b channels *sides"], places: Int64[Tensor, " m"] | None = None
    ) -> Float[Tensor, "m features"]:
        """The features of every place, or of some of all the images' places, float32."""
        ...


@runtime_checkable
class LayerReader(Reader, Protocol):
    """The reader of a whole layer, on which that of a concatenation can be built."""

    def responses(self, activation: Tensor, places: Tensor | None, /) -> list[Tensor]:
        """The features beyond the channels."""
        ...

    def alone(self, which: Sequence[int], /) -> Reader | None:
        """For a concatenation the reader of some of its parts; None if those are read as layers of their own."""
        ...


@runtime_checkable
class Family(Protocol):
    """A family of probes."""

    @property
    def name(self) -> str:
        """Its name in messages."""
        ...

    @property
    def key(self) -> str:
        """The key of its estimates in the registry."""
        ...

    def reader(self, parts: Sequence[tuple[LayerReader, int]] = (), /) -> LayerReader:
        """The reader of one layer. parts: the readers of the parts of a concatenation, each with its number of channels."""
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """The channels at a place: a 1×1 convolution from the layer to the r×r mask pixels above each place."""

    name, key = "linear", "usable_linear"

    def reader(self, _parts: Sequence[tuple[LayerReader, int]] = ()) -> Linear:
        """The family itself: a concatenation has the features of its parts."""
        return self

    def alone(self, _which: Sequence[int]) -> None:
        """No reader of its own: a part of a concatenation has the features of the part as a layer."""
        return

    def width(self, channels: int) -> int:
        """How many features a place has."""
        return channels

    def features(
        self, activation: Float[Tensor, "b channels *sides"], places: Int64[Tensor, " m"] | None = None
    ) -> Float[Tensor, "m features"]:
        """The features of every place, or of some of all the images' places, float32."""
        return _at(activation, places).float()

    def responses(self, _activation: Tensor, _places: Tensor | None) -> list[Tensor]:
        """No features beyond the channels."""
        return []


@dataclass(frozen=True, slots=True)
class Convolutional:
    """The channels, and units that see beyond one place and beyond sums: a 3×3 convolution with random weights, then a ReLU.

    units: half of them read one place only, so that they capture combinations of channels (an exclusive or), the other half
    its neighbours too. In each half, one half scales every channel by its standard deviation over the first batch, so that
    weak channels count; the other half does not, so that many weak channels do not hide a strong one. Weights are drawn
    once and only the linear map from the units is fitted, as for `Linear`, which this family contains. The
    features of a merge are those of its parts and units of all channels.

    Source: random features, Rahimi & Recht, NeurIPS 2008; Huang et al., Neurocomputing 70:489 (2006).

    >>> reader = Convolutional(units=6).reader()
    >>> reader.width(channels=2), reader.features(torch.randn(1, 2, 4, 4)).shape
    (8, torch.Size([16, 8]))
    """

    units: int = 128
    seed: int = 0
    name, key = "convolutional", "usable_convolutional"

    def __post_init__(self) -> None:
        whole_fields(self, "units", "seed")
        if self.units < 4:
            raise InvalidArgument(f"units must be 4 or more, got {self.units}: each kind of unit needs one")

    def reader(self, parts: Sequence[tuple[LayerReader, int]] = ()) -> ConvolutionalReader:
        """The reader of one layer, which for a concatenation has the features of its parts and units of all channels."""
        return ConvolutionalReader(self.units, self.seed, tuple(parts))


@dataclass(eq=False)
class ConvolutionalReader:
    """Reads the channels and random units of them; the first activation sets the scale of the weights."""

    units: int
    seed: int
    parts: tuple[tuple[LayerReader, int], ...] = ()
    _mean: Tensor | None = None
    _weights: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def width(self, channels: int) -> int:
        """How many features a place has."""
        return channels + self.units + sum(reader.width(0) for reader, _ in self.parts)

    def features(
        self, activation: Float[Tensor, "b channels *sides"], places: Int64[Tensor, " m"] | None = None
    ) -> Float[Tensor, "m features"]:
        """The features of every place, or of some of all the images' places, float32."""
        activation = _places_together(activation)
        return torch.cat([_at(activation, places), *self.responses(activation, places)], dim=1)

    def alone(self, which: Sequence[int]) -> PartAlone | None:
        """The reader of some parts of a concatenation, which has as many units as this one."""
        return PartAlone(self, tuple(which)) if self.parts else None

    def features_of_parts(
        self,
        activation: Float[Tensor, "b channels *sides"],
        which: Sequence[int],
        places: Int64[Tensor, " m"] | None = None,
    ) -> Float[Tensor, "m features"]:
        """The features of some parts of a concatenation: the others are replaced by their mean over the first batch.

        Units that read only the others are then constant, and are left out.
        """
        activation = _places_together(activation)
        if self._mean is None:
            self._draw(activation)
        assert self._mean is not None
        ends = list(accumulate(channels for _, channels in self.parts))
        spans = {part: slice(ends[part] - self.parts[part][1], ends[part]) for part in which}
        shown = torch.cat([torch.arange(span.start, span.stop) for span in spans.values()]).to(activation.device)
        seen = [
            unit for part, span in spans.items() for unit in self.parts[part][0].responses(activation[:, span], places)
        ]
        centred = _places_together(activation[:, shown] - self._mean[:, shown])
        own = [_respond(centred, weight[:, shown], bias, places) for weight, bias in self._weights]
        return torch.cat([_at(activation[:, shown], places), *seen, *own], dim=1)

    def responses(self, activation: Tensor, places: Tensor | None) -> list[Tensor]:
        """The outputs of the units, those of the parts first."""
        seen = []
        if self.parts:
            split = activation.split([channels for _, channels in self.parts], dim=1)
            seen = [
                unit
                for (reader, _), part in zip(self.parts, split, strict=True)
                for unit in reader.responses(part, places)
            ]
        if self._mean is None:
            self._draw(activation)
        assert self._mean is not None
        centred = _places_together(activation - self._mean)  # so that values beyond the edge are the mean
        return [*seen, *(_respond(centred, weight, bias, places) for weight, bias in self._weights)]

    def _draw(self, activation: Tensor) -> None:
        """Draw units whose input has variance 1 on these images, about a random point."""
        generator = torch.Generator().manual_seed(self.seed)
        features, sides = features_of(activation), (1,) * (activation.ndim - 2)
        mean, spread = features.mean(dim=0), features.std(dim=0, correction=0)
        self._mean = mean.reshape(1, -1, *sides)
        own = torch.where((spread > SMALLEST_SPREAD * spread.max()) & (spread > 0), 1 / spread, 0.0)
        parts = spread.split([channels for _, channels in self.parts] or [len(spread)])
        as_it_is = torch.cat([torch.full_like(part, 1 / (part.norm().item() or 1.0)) for part in parts])
        scales = own / (own > 0).sum().clamp(min=1).sqrt(), as_it_is / len(parts) ** 0.5
        for units, side in zip(_shares(self.units), (1, 3), strict=True):
            weight = torch.randn((units, len(mean), *(side * length for length in sides)), generator=generator)
            bias = torch.randn(units, generator=generator)
            scale = torch.cat([scales[which].expand(share, -1) for which, share in enumerate(_shares(units))])
            weight = weight.to(activation.device) * scale.reshape(units, -1, *sides) / side ** (len(sides) / 2)
            self._weights.append((weight, bias.to(activation.device)))


def _places_together(activation: Tensor) -> Tensor:
    """float32, with the channels of a place side by side in memory."""
    return activation.float().movedim(1, -1).contiguous().movedim(-1, 1)


def _at(activation: Tensor, places: Tensor | None) -> Tensor:
    """The channels at every place, or at some."""
    every = features_of(activation)
    return every if places is None else every[places]


def _respond(centred: Tensor, weight: Tensor, bias: Tensor, places: Tensor | None) -> Tensor:
    """The outputs of units [units, channels, *sides] at every place, or at some; only the surroundings of those are read."""
    side, sides = weight.shape[-1], centred.shape[2:]
    if side == 1:
        seen, flat = _at(centred, places), weight.flatten(1)
    elif places is None:
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(sides) - 1]
        return features_of(convolve(centred, weight, bias, padding="same")).relu_()
    else:
        padded = functional.pad(centred, (side // 2, side // 2) * len(sides)).movedim(1, -1)
        image, *at = torch.unravel_index(places, (len(centred), *sides))
        steps = torch.cartesian_prod(*[torch.arange(side, device=places.device)] * len(sides)).reshape(-1, len(sides))
        index = (image[:, None], *(place[:, None] + step for place, step in zip(at, steps.T, strict=True)))
        seen, flat = padded[index].flatten(1), weight.movedim(1, -1).flatten(1)
    return torch.addmm(bias, seen, flat.T).relu_()


def _shares(units: int) -> tuple[int, int]:
    """Of some units, the larger half and the rest."""
    return units - units // 2, units // 2


@dataclass(frozen=True, slots=True)
class PartAlone:
    """The reader of some parts of a concatenation.

    What a part adds to the others is compared with as many units that read the others: otherwise more units would seem to be
    more information. Conditional usable information is of one family, any input of which may be left out.

    Source: Xu et al., ICLR 2020, definition 1.
    """

    whole: ConvolutionalReader
    which: tuple[int, ...]

    def width(self, _channels: int) -> int:
        """How many features a place has."""
        shown = [self.whole.parts[part] for part in self.which]
        return sum(reader.width(channels) for reader, channels in shown) + self.whole.units

    def features(
        self, activation: Float[Tensor, "b channels *sides"], places: Int64[Tensor, " m"] | None = None
    ) -> Float[Tensor, "m features"]:
        """The features of every place, or of some of all the images' places, float32."""
        return self.whole.features_of_parts(activation, self.which, places)
