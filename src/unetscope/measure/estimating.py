"""One network at one epoch to estimates in bits: the only place where activations meet estimators.

Estimators speak nats; the division by ln 2 stands here, once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unetscope.activations import (
    FEATURES_AT_ONCE,
    LARGEST_BATCH,
    ActivationBuffer,
    Budget,
    device_of,
    full_float32,
    stream,
)
from unetscope.estimators import (
    ONE_CLASS,
    SATURATED_FROM,
    Classes,
    Estimator,
    Family,
    Groups,
    LayerStatistics,
    Needs,
    Reading,
    entropy_nats,
    singleton_share,
    symbol_label_information,
)
from unetscope.measure.distances import Distances
from unetscope.measure.layer_statistics import LARGEST_SHIFT, layer_statistics, most_parts, readings_of, settled
from unetscope.measure.merges import Merging, at_merge
from unetscope.measure.probe_data import Segmented
from unetscope.measure.probing import LINEAR, probe
from unetscope.table import Estimate, Layer, Quantity, Skip


def measure(
    model: nn.Module,
    images: Tensor,
    layers: Sequence[Layer],
    classes: Classes,
    estimators: Sequence[Estimator],
    *,
    epoch: int,
    budget: Budget,
    skips: Sequence[Skip] = (),
    activation_buffer: ActivationBuffer | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    groups: Tensor | None = None,
    share: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Estimates of I(X;M) and I(Y;M) in bits for every layer, in the order of the network; and at the merges of
    the skips what the two streams add to each other.

    All estimators of a layer share its statistics, which are taken as the activations stream past. Those of a merge are
    computed from those of its parts. Layers whose distances are too inexact in float32 are streamed again and measured in
    float64. groups: the number of each image's group, if images are not independent of each other; intervals and nulls are then
    over groups. Other arguments as in `capture.stream`.
    """
    in_groups = None if groups is None else Groups.of(groups)
    inputs = _squared(images) if Needs.of_all(estimators).inputs else None
    activation_buffer = activation_buffer or ActivationBuffer(device_of(model))

    def statistics_of(captured: Sequence[Layer], *, precise: bool) -> Iterator[tuple[Layer, LayerStatistics]]:
        blocks = stream(
            model,
            images,
            budget.passes(captured),
            batch_size=budget.batch_size,
            activation_buffer=activation_buffer,
            prepare=prepare,
            share=share,
            on_batch=on_batch,
        )
        return layer_statistics(
            blocks, estimators, len(images), precise=precise, share=share, inputs=inputs, groups=in_groups
        )

    readings = _layer_readings(statistics_of, layers, classes, estimators)
    estimates = _layer_estimates(readings, layers, images, classes, epoch)
    return estimates + [estimate for skip in skips for estimate in at_merge(skip, estimates)]


@runtime_checkable
class _StatisticsOf(Protocol):
    """Streams captured layers and yields the statistics of one after the other."""

    def __call__(self, captured: Sequence[Layer], *, precise: bool) -> Iterator[tuple[Layer, LayerStatistics]]: ...


def _layer_readings(
    statistics_of: _StatisticsOf, layers: Sequence[Layer], classes: Classes, estimators: Sequence[Estimator]
) -> dict[str, list[Reading]]:
    """The readings of every layer by its label; layers that float32 does not settle are streamed again in float64."""
    readings: dict[str, list[Reading]] = {}
    merging = Merging(layers, join=LayerStatistics.joined, keep=LayerStatistics.at_rest)
    tolerance = LARGEST_SHIFT / most_parts(layers)  # errors of the parts of a merge add up
    unmeasured = [layer for layer in layers if not layer.parts]
    for precise in (False, True):
        unsettled = []
        for layer, statistics in statistics_of(unmeasured, precise=precise):
            if not precise and not all(settled(statistics, estimator, tolerance) for estimator in estimators):
                unsettled.append(layer)
                continue
            for label, complete in merging.add(layer.label, statistics):
                with full_float32(), torch.autocast(complete.device.type, enabled=False):
                    readings[label] = list(readings_of(complete, estimators, classes))
        unmeasured = unsettled
    return readings


def _layer_estimates(
    readings: Mapping[str, Sequence[Reading]], layers: Sequence[Layer], images: Tensor, classes: Classes, epoch: int
) -> list[Estimate]:
    """The readings in bits with their ceilings, layer by layer."""
    ceilings = _ceilings(images, classes)
    singletons = {name: singleton_share(labels) for name, labels in classes.items()}
    return [
        to_estimate(
            reading,
            layer,
            epoch,
            len(images),
            ceilings[reading.labels] if math.isnan(reading.ceiling) else reading.ceiling,
            singletons.get(reading.labels, math.nan),
        )
        for layer in layers
        for reading in readings[layer.label]
    ]


def measure_usable(
    model: nn.Module,
    train: Segmented,
    held_out: Segmented,
    layers: Sequence[Layer],
    skips: Sequence[Skip] = (),
    *,
    family: Family = LINEAR,
    epoch: int,
    classes: int = 2,
    batch_size: int = LARGEST_BATCH,
    share: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Estimate]:
    """Usable information in bits a pixel of every layer, and at every skip's merge, in the order of the network.

    Arguments and Raises as of `probing.probe`.
    """
    readings = probe(
        model,
        train,
        held_out,
        layers,
        skips,
        family=family,
        classes=classes,
        batch_size=batch_size,
        share=share,
        on_batch=on_batch,
    )
    return [
        to_estimate(reading, layer, epoch, _judged(reading, held_out), reading.ceiling)
        for layer in layers
        for reading in readings[layer.label]
    ]


def _judged(reading: Reading, held_out: Segmented) -> int:
    """How many images a reading is of: those with a value, or all where values are of groups."""
    return len(reading.per_image) if reading.per_image and held_out.groups is None else len(held_out.images)


def _ceilings(images: Tensor, classes: Classes) -> dict[str, float]:
    """The largest estimate in nats by label scheme ("" for I(X;M)): that of a layer which distinguishes all different images.

    log n and H(Y) if no image stands twice; less if one does, since no layer can distinguish its copies.
    """
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(image.cpu().contiguous().numpy().data, digest_size=16).digest() for image in images)
    identity = torch.tensor([seen.setdefault(digest, len(seen)) for digest in digests])
    about_label = {name: symbol_label_information(identity, labels.cpu()) for name, labels in classes.items()}
    return {"": entropy_nats(identity), **about_label}


def _squared(images: Tensor) -> Float[Tensor, "n n"]:
    """Squared distances between the images as they are stored."""
    distances, flat = Distances(len(images)), images.flatten(1)
    for columns in flat.split(FEATURES_AT_ONCE, dim=1):
        distances.add(columns.float())
    return distances.squared()


def to_estimate(
    reading: Reading, layer: Layer, epoch: int, n: int, ceiling: float, singletons: float = math.nan
) -> Estimate:
    """A reading with its place, in bits; values that rounding put a hair above the ceiling are the ceiling.

    Near its ceiling an estimate that cannot exceed it does not vary either: it has no interval.
    """
    constant = ceiling <= 0
    saturated = reading.capped and not constant and reading.nats >= SATURATED_FROM * ceiling
    if constant:
        absent: dict[str, Any] = {"nats": math.nan, "lower": math.nan, "upper": math.nan, "out_of_domain": False}
        reading = replace(reading, reason=_reason(reading), **absent)
    bounded = _bounded(reading, ceiling, varies=not saturated and not constant)
    return Estimate(
        epoch=epoch,
        layer=layer.label,
        saturated=saturated,
        n=n,
        d=layer.size,
        singleton_share=singletons,
        **_in_bits(bounded),
    )


def _bounded(reading: Reading, ceiling: float, *, varies: bool) -> Reading:
    """The reading within 0, unless it may be negative, and its ceiling, with its interval if it varies."""
    least = -math.inf if reading.quantity in {Quantity.SHARED, Quantity.USABLE_SHARED} else 0.0
    lower, upper = max(least, reading.lower), min(ceiling, reading.upper)
    varies = varies and not math.isnan(reading.low)
    return replace(
        reading,
        nats=min(reading.nats, ceiling) if reading.capped else reading.nats,
        lower=math.nan if math.isnan(reading.lower) else min(lower, upper, reading.nats),
        upper=math.nan if math.isnan(reading.upper) else upper,
        ceiling=ceiling,
        low=reading.low if varies else math.nan,
        high=reading.high if varies else math.nan,
        per_image=reading.per_image if varies else (),
    )


def _in_bits(reading: Reading) -> dict[str, Any]:
    """The fields of a reading by their names in `Estimate`, those in nats in bits."""
    bit, columns = math.log(2), {item.name for item in fields(Estimate)}
    quarter, half, _ = reading.curve or (math.nan,) * 3
    values: dict[str, Any] = {"quarter_bits": quarter / bit, "half_bits": half / bit}
    for item in fields(reading):
        value, column = getattr(reading, item.name), item.metadata.get("bits", item.name)
        if "bits" in item.metadata:
            value = tuple(nats / bit for nats in value) if isinstance(value, tuple) else value / bit
        if column in columns:
            values[column] = value
    return values


def _reason(reading: Reading) -> str:
    return ONE_CLASS if reading.labels else "all images are equal"
