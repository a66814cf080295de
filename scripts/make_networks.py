"""Write docs/networks.md: what is found in published networks, and what measuring them costs beside training them.

    python scripts/make_networks.py

Each network is built with random weights, looked into, trained for an epoch on random images and measured on as many; its first
skip is silenced, and removed where it can be. `tests/test_networks.py` holds the page against the networks.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_iter

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import published  # noqa: E402
import torchvision_stub  # noqa: E402
import unetscope as us  # noqa: E402
from unetscope.base.errors import NetworkError  # noqa: E402
from unetscope.networks.structure import OUTCOMES  # noqa: E402

IMAGES = {2: 16, 3: 4}  # by the number of sides
BATCH = 4


def main() -> None:
    """See above."""
    warnings.simplefilter("ignore")
    torchvision_stub.declare()
    rows = [row_of(network) for network in published.NETWORKS]
    found, there = sum(row["merges"] for row in rows), sum(network.merges for network in published.NETWORKS)
    times = sorted(row["added"] for row in rows)
    lines = [
        "# Networks that were looked into",
        "",
        "Written by `scripts/make_networks.py`; the tests hold its counts against the networks. Networks are unmodified and have",
        f"random weights. {found} of {there} merges that their sources have are found in {len(rows)} networks. *Merges*: found, and how",
        "the source counts them. *Layers*: what is measured by default, all kernels up to forty, else the ends of stages.",
        "*Looked into*: seconds for `us.inspect`. *Added*: what measuring an image takes (KDE and binning, all layers) over what",
        f"training on one takes (forward, backward, Adam, batches of {BATCH}), on this machine: {torch.get_num_threads()} CPU threads,",
        f"torch {torch.__version__}; between {times[0]:.1f} and {times[-1]:.1f}, median {times[len(times) // 2]:.1f}. An epoch with as many",
        "training images as the probe set has takes so much longer; with ten times as many, a tenth of it. Of a U-Plot of each,",
        "and of the output with the first skip silenced, it was checked that they are there.",
        "",
        "| network | one image | merges | how the source counts them | joined by | skips | layers | skip1 removed | looked into, s | added |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network, row in zip(published.NETWORKS, rows, strict=True):
        sides = "×".join(map(str, network.shape))
        lines.append(
            f"| {network.name} | {sides} | {row['merges']} of {network.merges} | {network.why} | {row['kinds']} | {row['skips']} | "
            f"{row['layers']} | {row['removed']} | {row['seconds']:.2f} | {row['added']:.1f} |"
        )
    lines += [
        "",
        "Where a skip cannot be removed, its channels go through what mixes them before a convolution reads them, or into the output",
        "without one; it can be silenced all the same.",
        "",
        "A merge is a place where a stream that came up from a lower resolution meets one that did not rise with it. That leaves out",
        "residual blocks, squeeze-and-excitation, and branches that pool the whole image (ASPP, PSP), and counts the fusions of a",
        "pyramid (FPN, UPerNet). Attention gates are part of the skip that they weigh. Streams are followed as [batch, channels, *sides]:",
        "a decoder that joins tokens, or channels that stand last (Swin-UNet), has merges that are not found. Modules that were scripted",
        "are refused.",
    ]
    (ROOT / "docs" / "networks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def row_of(network: published.Published) -> dict[str, object]:
    """What is found in one network, and what it costs."""
    torch.manual_seed(0)
    model, data = network.build(), images_for(network)
    one = torch.from_numpy(data.images[:1])
    us.inspect(model, one)  # what is imported on the way is not counted
    started = time.perf_counter()
    structure = us.inspect(model, one)
    seconds = time.perf_counter() - started
    removed = "—"
    if structure.skips:
        with torch.no_grad(), us.networks.ablated(model.eval(), structure, "skip1"):
            assert all(bool(o.isfinite().all()) for o in tree_iter(model(one)) if isinstance(o, torch.Tensor))
        try:
            us.without_skips(model, structure, "skip1")
            removed = "yes"
        except NetworkError:
            removed = "no"
    epoch_of(model, data)  # warm
    trained = epoch_of(model, data)
    scope = us.Scope(model, data, layers=structure.layers, skips=structure.skips, labels=[us.KMeansLabels(2)])
    scope.measure(0)
    started = time.perf_counter()
    scope.measure(1)
    measured = time.perf_counter() - started
    us.plots.u_plot(scope.flow)
    found = {
        "merges": len(structure.merges),
        "kinds": ", ".join(dict.fromkeys(OUTCOMES[merge.kind] for merge in structure.merges)) or "—",
        "skips": len(structure.skips),
        "layers": f"{len(structure.layers)}" + (" (stages)" if structure.detail == "stages" else ""),
        "removed": removed,
        "seconds": seconds,
        "added": measured / trained,
    }
    print(network.name, found, flush=True)
    return found


def images_for(network: published.Published) -> us.SegmentationData:
    """Random images and masks of a shape."""
    channels, *sides = network.shape
    n, rng = IMAGES[len(sides)], np.random.default_rng(0)
    images = rng.random((n, channels, *sides), dtype=np.float32)
    masks = (rng.random((n, *sides)) > np.linspace(0.2, 0.8, n).reshape(-1, *[1] * len(sides))).astype(np.uint8)
    return us.SegmentationData(images, masks, tuple(map(str, range(n))), "random")


def epoch_of(model: nn.Module, data: us.SegmentationData) -> float:
    """Seconds that an epoch of training takes."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    started = time.perf_counter()
    for batch in torch.from_numpy(data.images).split(BATCH):
        optimizer.zero_grad()
        sum(one.square().mean() for one in tree_iter(model(batch)) if isinstance(one, torch.Tensor)).backward()
        optimizer.step()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
