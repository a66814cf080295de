"""Measuring against its limit, against the store-everything protocol, in memory, and against float64."""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import unetscope as us
import unetscope.measure.estimating
from benchmarks.cases import (
    GIB,
    batches,
    images,
    measured,
    network,
    passed_through,
    run_through,
    scope,
    values_an_image,
)
from benchmarks.store_everything import estimate, store
from benchmarks.timing import folder_bytes, medians, peak_bytes, seconds
from unetscope.measure.scope import Probes
from unetscope.runs.building import built_network
from unetscope.runs.folder import RunFolder
from unetscope.runs.silencing import Silencing
from unetscope.table import REFERENCE, Variant
from unetscope.training import preset_config

Results = dict[str, Any]
Say = Callable[[str], None]


def against_the_limit(source: str | None, repeats: int, say: Say) -> Results:
    """Seconds of a measurement over those of the forced forward passes and half a Gram product at the rate of sgemm."""
    results: Results = {}
    data = images(source, 128)
    left, right = torch.randn(2048, 2048), torch.randn(2048, 2048)
    for budget in (8.0, 2.0):
        unet_scope = scope(data, budget)
        passes = unet_scope.budget.passes(unet_scope.layers)
        first = seconds(lambda: unet_scope.measure(0))  # noqa: B023
        taken = medians(
            {
                "forward": lambda: run_through(unet_scope.model, data, passes),  # noqa: B023
                "sgemm": lambda: [torch.mm(left, right) for _ in range(10)],
                "measure": lambda: unet_scope.measure(0),  # noqa: B023
            },
            repeats,
        )
        rate = 10 * 2 * 2048**3 / taken["sgemm"]
        half = len(data) ** 2 * values_an_image(unet_scope.layers) / rate
        limit = taken["forward"] + half
        results[f"{budget:g} GiB"] = {
            "passes": len(passes),
            "forward": taken["forward"],
            "half_gram": half,
            "measure": taken["measure"],
            "ratio": taken["measure"] / limit,
            "first_ratio": first / limit,
            "gflops": rate / 1e9,
        }
        say(
            f"{budget:g} GiB: {taken['measure']:.1f} s, {taken['measure'] / limit:.2f} of the limit, {len(passes)} passes"
        )
    return results


LARGEST_CONVOLVED = 64  # pixels a side: convolutional probes of larger images take minutes


def probes(
    source: str | None, repeats: int, say: Say, sizes: Sequence[tuple[int, int]] = ((16, 128), (8, 64))
) -> Results:
    """Seconds of usable information of every layer, of what is lost at once without each part, of what streams add at every
    merge too, and of one forward pass over the same images.
    """
    results: Results = {}
    for width, image_size in sizes:
        train, held_out = images(source, image_size).split(0.1)
        unet_scope = us.Scope(
            network(width), train, estimators=[], labels=[], held_out=held_out, probes=Probes(merges=())
        )
        merging = us.Scope(unet_scope.model, train, estimators=[], labels=[], held_out=held_out)
        both = us.Scope(
            unet_scope.model, train, estimators=[], labels=[], held_out=held_out, probes=[us.estimators.Convolutional()]
        )

        def forward(data: Sequence[us.SegmentationData] = (train, held_out), model: Any = unet_scope.model) -> None:
            with torch.no_grad():
                for part in data:
                    for batch in batches(part):
                        model(batch)

        silencing = silenced(width, held_out)
        timed = {
            "forward": forward,
            "linear": lambda: unet_scope.measure(0),  # noqa: B023
            "silenced": lambda: silencing.losses(0, silencing.designs),  # noqa: B023
        }
        taken = medians(timed, repeats)
        for name in ("linear", "silenced"):
            say(f"width {width}, {image_size}: {name} {taken[name] / taken['forward']:.2f} forward passes")
        if image_size <= LARGEST_CONVOLVED:
            taken |= medians({"merges": lambda: merging.measure(0)}, 1)  # noqa: B023
            say(f"width {width}, {image_size}: with merges {taken['merges'] / taken['forward']:.1f}")
            taken |= medians({"convolutional": lambda: both.measure(0)}, 1)  # noqa: B023
            say(f"width {width}, {image_size}: convolutional probes {taken['convolutional'] / taken['forward']:.1f}")
        results[f"{width}, {image_size}×{image_size}"] = taken | {"tensors": len(unet_scope.layers)}
    return results


def silenced(width: int, held_out: us.SegmentationData) -> Silencing:
    """What silences the parts of a network of so many channels, as a run does."""
    config = preset_config("quick", {"network.width": width, "data.image_size": held_out.image_size[0]})
    built = built_network(config, held_out.channels, held_out.classes, held_out.ignore)
    return Silencing(built, Variant(REFERENCE, config.network.depth, ()), held_out)


def against_float64(source: str | None, say: Say) -> Results:
    """The largest difference, in bits, of any estimate to the same with every distance in float64; before and after training."""
    data = images(source, 128)
    unet_scope = scope(data, 8.0)
    results: Results = {}
    for epochs in (0, 2):
        if epochs:
            with tempfile.TemporaryDirectory() as folder:
                us.Trainer(
                    unet_scope.model, data, data.subset(range(8)), us.TrainingConfig(epochs=epochs), folder
                ).run()
        again = len(unet_scope.budget.passes(unet_scope.layers))
        batches_seen: list[int] = []
        ours = unet_scope.measure(epochs, on_batch=lambda _done, total: batches_seen.append(total))  # noqa: B023
        # shared among so many parts, the tolerance is nothing, and float32 settles no layer
        with mock.patch.object(unetscope.measure.estimating, "most_parts", return_value=1e300):
            exact = unet_scope.measure(epochs)
        worst = max(abs(a.bits - b.bits) for a, b in zip(ours, exact, strict=True))
        assert all(math.isfinite(estimate.bits) for estimate in (*ours, *exact))
        streamed_again = len(batches_seen) > again * math.ceil(len(data) / unet_scope.budget.batch_size)
        results[f"{epochs} epochs"] = {"largest_difference_bits": worst, "streamed_again": streamed_again}
        say(
            f"after {epochs} epochs: largest difference to float64 {worst:.1e} bits, a layer streamed again: {streamed_again}"
        )
    return results


def against_storing(source: str | None, repeats: int, say: Say) -> Results:
    """Seconds, peak memory and disk of the store-everything protocol over ours, each in a process of its own."""
    theirs, ours = [], []
    for repeat in range(repeats):
        theirs.append(peak_bytes(stored, source, repeat == 0))
        ours.append(peak_bytes(measured, source, 128, 605, 2.0, {}, True))
        say(
            f"store everything, {repeat + 1} of {repeats}: {theirs[-1]['seconds']:.0f} s, ours {ours[-1]['again_seconds']:.1f} s"
        )

    def middle(runs: list[dict[str, float]], name: str) -> float:
        return statistics.median(run[name] for run in runs)

    return {
        "their_seconds": middle(theirs, "seconds"),
        "our_first_seconds": middle(ours, "seconds"),
        "our_seconds": middle(ours, "again_seconds"),
        "their_peak_bytes": middle(theirs, "peak_bytes"),
        "our_peak_bytes": middle(ours, "peak_bytes"),
        "their_disk_bytes": middle(theirs, "disk_bytes"),
        "our_disk_bytes": disk_an_epoch(source),
        "largest_difference_bits": theirs[0]["largest_difference_bits"],
    }


def stored(watch: Any, source: str | None, compare: bool) -> Results:
    """The whole protocol once, watched; then, unwatched and if asked, how far its estimates are from ours."""
    data = images(source, 128)
    unet_scope = scope(data, 2.0)
    layers = [layer for layer in unet_scope.layers if layer.role != "merge"]
    classes = {name: labels.numpy() for name, labels in unet_scope.classes.items()}
    with tempfile.TemporaryDirectory() as folder:
        with watch:
            store(unet_scope.model, batches(data), layers, Path(folder))
            rows = list(estimate(layers, Path(folder), unet_scope.estimators, classes))
        disk = folder_bytes(Path(folder))
    if not compare:
        return {"disk_bytes": disk}
    ours = {(e.layer, e.estimator, e.resolution, e.labels): e.bits for e in unet_scope.measure(0)}
    worst = max(abs(bits - ours[layer, name, resolution, labels]) for layer, name, resolution, labels, bits in rows)
    return {"disk_bytes": disk, "largest_difference_bits": worst}


def disk_an_epoch(source: str | None, epochs: int = 8) -> float:
    """Bytes that a measured epoch adds to a run folder's table, without pictures and checkpoint."""
    unet_scope = scope(images(source, 32, 100), 1.0)
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", {"configuration": {}, "facts": {}})
        run.describe(unet_scope.layers, unet_scope.skips, [])
        run.write_measurement(0, unet_scope.measure(0), [])
        before = folder_bytes(run.path)
        for epoch in range(1, epochs + 1):
            run.write_measurement(epoch, unet_scope.measure(epoch), [])
        return (folder_bytes(run.path) - before) / epochs


def memory(source: str | None, say: Say) -> Results:
    """Peak memory of a measurement over its budget, at several budgets and image sizes."""
    results: Results = {}
    for image_size, budget in ((128, 0.5), (128, 2.0), (128, 8.0), (256, 2.0)):
        run = peak_bytes(measured, source, image_size, 605, budget, {})
        alone = peak_bytes(passed_through, source, image_size, 64, budget)
        name = f"{image_size}×{image_size}, {budget:g} GiB"
        results[name] = {
            "budget_bytes": budget * GIB,
            "peak_bytes": run["peak_bytes"],
            "network_bytes": alone["peak_bytes"],
            "ratio": (run["peak_bytes"] - alone["peak_bytes"]) / (budget * GIB),
            "passes": run["passes"],
            "seconds": run["seconds"],
        }
        say(f"{name}: peak {run['peak_bytes'] / GIB:.2f} GiB, the network {alone['peak_bytes'] / GIB:.2f} GiB")
    return results
