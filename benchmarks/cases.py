"""What is timed: the network, the images, the estimators of the project's bars. Functions that a fresh process can be given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

import unetscope as us
from benchmarks.timing import seconds
from unetscope.activations.inference import pixels, to_input
from unetscope.activations.memory import Passes
from unetscope.estimators.interface import Estimator
from unetscope.measure.scope import Compute

GIB = 2**30
ESTIMATORS: tuple[Estimator, ...] = (us.KDE(1.0), us.KDE(0.1), us.Binning(0.2), us.Binning(0.05))


def images(source: str | None, image_size: int, count: int = 605) -> us.SegmentationData:
    """The first images of an archive or folder, or synthetic ones."""
    if source is None:
        return us.synthetic_nuclei(count, image_size=image_size)
    data = us.load(source, image_size=image_size, accept=["vanished-mask"])
    return data.subset(range(min(count, len(data))))


def network(width: int = 16, depth: int = 4) -> us.UNet:
    """The paper's U-Net as it is before training, where most layers have images that binning can hardly tell apart."""
    torch.manual_seed(0)
    return us.UNet(width, depth).to(memory_format=torch.channels_last)


def scope(
    data: us.SegmentationData,
    budget: float,
    *,
    width: int = 16,
    depth: int = 4,
    estimators: Sequence[Estimator] = ESTIMATORS,
) -> us.Scope:
    """All layers, both label schemes; budget in GiB."""
    clusters = us.KMeansLabels(k=min(64, len(data) // 2), n_init=1)
    return us.Scope(
        network(width, depth),
        data,
        estimators=estimators,
        labels=[clusters, us.estimators.BlockLabels()],
        compute=Compute(memory_budget=int(budget * GIB)),
    )


def run_through(model: nn.Module, data: us.SegmentationData, passes: Passes, batch_size: int = 16) -> None:
    """The forward passes alone, each as deep as it has to be."""

    class Deep(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Deep

    model.eval()
    with torch.no_grad():
        for layers in passes:
            hook = model.get_submodule(layers[-1].layer.module).register_forward_hook(stop)
            for batch in batches(data, batch_size):
                with suppress(Deep):
                    model(batch)
            hook.remove()


def batches(data: us.SegmentationData, batch_size: int = 16) -> Any:
    """The images as the network reads them."""
    stored: Tensor = pixels(data)
    return (to_input(batch, data.scale) for batch in stored.split(batch_size))


def values_an_image(layers: Sequence[us.table.Layer]) -> int:
    """Activations that are captured of one image."""
    return sum(layer.size for layer in layers if not layer.parts)


def measured(
    watch: Any,
    source: str | None,
    image_size: int,
    count: int,
    budget: float,
    options: dict[str, Any],
    again_too: bool = False,
) -> dict[str, Any]:
    """The first measurement of a process, watched; then the seconds of another one, whose memory has been touched."""
    unet_scope = scope(images(source, image_size, count), budget, **options)
    with watch:
        unet_scope.measure(0)
    again = seconds(lambda: unet_scope.measure(1)) if again_too else math.nan
    return {"passes": len(unet_scope.budget.passes(unet_scope.layers)), "again_seconds": again}


def passed_through(watch: Any, source: str | None, image_size: int, count: int, budget: float) -> None:
    """The network alone, on batches as large as the measurement's, watched."""
    unet_scope = scope(images(source, image_size, count), budget)
    with watch, torch.no_grad():
        for batch in batches(unet_scope.probe_set, unet_scope.budget.batch_size):
            unet_scope.model(batch)
