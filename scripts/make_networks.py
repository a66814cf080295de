"""Write docs/networks.md: the merges found in published networks, and the cost of measuring relative to training.

    python scripts/make_networks.py

Each network is built with random weights, inspected, trained for one epoch on random images and measured on as many. Its first
skip is ablated, and removed where possible. `tests/test_networks.py` compares the page with the networks.
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
from unetscope.networks.structure import JOIN_NAMES  # noqa: E402

IMAGES = {2: 16, 3: 4}  # by the number of sides
BATCH = 4


def main() -> None:
    """Measure every network and write the page."""
    warnings.simplefilter("ignore")
    torchvision_stub.declare()
    rows = [row_of(network) for network in published.NETWORKS]
    merges, in_sources = sum(row["merges"] for row in rows), sum(network.merges for network in published.NETWORKS)
    times = sorted(row["added"] for row in rows)
    lines = [
        "# Networks inspected",
        "",
        "`scripts/make_networks.py` writes this page, and the tests compare its counts with the networks. The networks are unmodified and",
        f"have random weights. `us.inspect` finds {merges} of {in_sources} merges of {len(rows)} networks.",
        "",
        "- *Merges*: merges found, of those in the source of the network.",
        "- *Layers*: layers measured by default: all convolutions up to forty, otherwise the ends of stages.",
        "- *Inspection*: time of `us.inspect`.",
        "- *Added*: time to measure one image (KDE and binning, all layers) divided by the time to train on one image (forward, backward,",
        f"  Adam, batches of {BATCH}), on {torch.get_num_threads()} CPU threads with torch {torch.__version__}: between {times[0]:.1f} and {times[-1]:.1f}, median {times[len(times) // 2]:.1f}. A",
        "  value of 1 means that measuring takes as long as an epoch of as many images, and a tenth of an epoch of ten times as many.",
        "",
        "The script also draws a U-Plot of each network and runs it with the first skip ablated.",
        "",
        "| network | one image | merges | merges in the source | joined by | skips | layers | skip1 removable | inspection, s | added |",
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
        "A skip cannot be removed if its channels are mixed before a convolution reads them, or reach the output without a convolution. It",
        "can still be ablated.",
        "",
        "A merge is where a stream that was upsampled meets a stream that was not upsampled with it. Residual blocks,",
        "squeeze-and-excitation and branches that pool the whole image (ASPP, PSP) are therefore not merges; the fusions of a pyramid (FPN,",
        "UPerNet) are. An attention gate is part of the skip that it weights. Streams are followed as [batch, channels, *sides]: merges of",
        "tokens are found if their streams have that form before, which those of Swin-UNet do not. A script is one call.",
    ]
    (ROOT / "docs" / "networks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def row_of(network: published.Published) -> dict[str, object]:
    """The columns of one network."""
    torch.manual_seed(0)
    model, data = network.build(), images_for(network)
    image = torch.from_numpy(data.images[:1])
    us.inspect(model, image)  # imports are not timed
    started = time.perf_counter()
    structure = us.inspect(model, image)
    seconds = time.perf_counter() - started
    removed = "—"
    if structure.skips:
        with torch.no_grad(), us.networks.ablated(model.eval(), structure, "skip1"):
            assert all(bool(o.isfinite().all()) for o in tree_iter(model(image)) if isinstance(o, torch.Tensor))
        try:
            us.without_skips(model, structure, "skip1")
            removed = "yes"
        except NetworkError:
            removed = "no"
    epoch_of(model, data)  # warm-up
    trained = epoch_of(model, data)
    scope = us.Scope(model, data, layers=structure.layers, skips=structure.skips, labels=[us.KMeansLabels(2)])
    scope.measure(0)
    started = time.perf_counter()
    scope.measure(1)
    measured = time.perf_counter() - started
    us.plots.u_plot(scope.flow)
    row = {
        "merges": len(structure.merges),
        "kinds": ", ".join(dict.fromkeys(JOIN_NAMES[merge.kind] for merge in structure.merges)) or "—",
        "skips": len(structure.skips),
        "layers": f"{len(structure.layers)}" + (" (stages)" if structure.detail == "stages" else ""),
        "removed": removed,
        "seconds": seconds,
        "added": measured / trained,
    }
    print(network.name, row, flush=True)
    return row


def images_for(network: published.Published) -> us.SegmentationData:
    """Random images and masks of the network's input shape."""
    channels, *sides = network.shape
    n, rng = IMAGES[len(sides)], np.random.default_rng(0)
    images = rng.random((n, channels, *sides), dtype=np.float32)
    masks = (rng.random((n, *sides)) > np.linspace(0.2, 0.8, n).reshape(-1, *[1] * len(sides))).astype(np.uint8)
    return us.SegmentationData(images, masks, tuple(map(str, range(n))), "random")


def epoch_of(model: nn.Module, data: us.SegmentationData) -> float:
    """Seconds of one training epoch."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    started = time.perf_counter()
    for batch in torch.from_numpy(data.images).split(BATCH):
        optimizer.zero_grad()
        sum(out.square().mean() for out in tree_iter(model(batch)) if isinstance(out, torch.Tensor)).backward()
        optimizer.step()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
