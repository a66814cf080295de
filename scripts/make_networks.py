"""Write docs/networks.md: the merges found in published networks, and the cost of measuring relative to training.

    python scripts/make_networks.py [--workers 2] [--keep-times]

Each network is built with random weights and inspected, and each of its skips is silenced, and removed where possible. Then it is
trained for one epoch on random images and measured on as many; with `--keep-times`, the page keeps the times that it has.
`tests/test_networks.py` compares the page with the networks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import sys
import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "networks.md"
sys.path.insert(0, str(ROOT / "tests"))

import published  # noqa: E402
import torchvision_stub  # noqa: E402
import unetscope as us  # noqa: E402
from unetscope.base.errors import NetworkError  # noqa: E402
from unetscope.networks.structure import JOIN_NAMES  # noqa: E402

IMAGES = {2: 8, 3: 2}  # by the number of sides
BATCH = 4


def main() -> None:
    """Look into every network and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep-times", action="store_true")
    options = parser.parse_args()
    _begin()
    row, kept = partial(row_of, timed=not options.keep_times), times_on_the_page() if options.keep_times else {}
    with multiprocessing.get_context("fork").Pool(options.workers) as pool:  # which imports torch once
        rows = pool.map(row, range(len(published.NETWORKS)), chunksize=1)
    write([row | kept.get(network.name, {}) for network, row in zip(published.NETWORKS, rows, strict=True)])


def times_on_the_page() -> dict[str, dict[str, float]]:
    """The two columns of times that the page has, by network."""
    lines = [
        line.strip("| \n").split(" | ")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    heading, *rows = lines
    seconds, added = heading.index("inspection, s"), heading.index("added")
    return {row[0]: {"seconds": float(row[seconds]), "added": float(row[added])} for row in rows if row[added] != "—"}


def write(rows: list[dict[str, Any]]) -> None:
    """Write the page from one row a network."""
    counted = [(network, row) for network, row in zip(published.NETWORKS, rows, strict=True) if "merges" in row]
    merges, in_sources = sum(row["merges"] for _, row in counted), sum(network.merges for network in published.NETWORKS)
    whole = sum(row["merges"] == network.merges for network, row in counted)
    times = sorted(row["added"] for _, row in counted if "added" in row)
    lines = [
        "# Networks inspected",
        "",
        "`scripts/make_networks.py` writes this page, and the tests compare its counts with the networks. The networks are unmodified and",
        f"have random weights. `us.inspect` finds {merges} of {in_sources} merges of {len(rows)} networks, and all merges of {whole} of them.",
        "",
        "- *Merges*, *skips*: found, of those in the source of the network. They are counted by reading its forward pass: every place where",
        "  the decoder's stream is joined by a tensor that the encoder kept is a merge, and every kept tensor that arrives there is a skip.",
        "- *Layers*: layers measured by default: all convolutions up to forty, otherwise the ends of stages.",
        "- *Removed*: skips that `us.without_skips` removes, of those found.",
        "- *Difference*: between the network with a skip removed and the network with that skip silenced, on an image that was not used for",
        "  the removal: the largest over all skips, relative to the largest output.",
        "- *Notes*: why merges or skips are missing, what `us.inspect` warns of, and why skips are not removed, each with how often.",
        "- *Inspection*: time of `us.inspect`.",
        "- *Added*: time to measure one image (KDE and binning, all layers) divided by the time to train on one image (forward, backward,",
        f"  Adam, batches of {BATCH}): between {times[0]:.1f} and {times[-1]:.1f}, median {times[len(times) // 2]:.1f}, where it was timed. A value of 1 means that measuring takes as long",
        "  as an epoch of as many images.",
        "",
        "| network | one image | merges | skips | in the source | joined by | layers | removed | difference | inspection, s | added | notes |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network, row in zip(published.NETWORKS, rows, strict=True):
        cells = [network.name, "×".join(map(str, network.shape)), *cells_of(network, row)]
        lines.append("| " + " | ".join(cells) + " |")
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
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def cells_of(network: published.Published, row: dict[str, Any]) -> list[str]:
    """The cells of a row behind the shape."""
    if "merges" not in row:
        return ["—", "—", network.why, "—", "—", "—", "—", "—", "—", row["refusal"].replace("|", "/")]
    removed = f"{row['removed']} of {row['skips']}" if row["skips"] else "—"
    differs = (row["merges"], row["skips"]) != (network.merges, network.source_skips)
    reason = network.reason or "the count differs from that of the source" * differs
    return [
        f"{row['merges']} of {network.merges}",
        f"{row['skips']} of {network.source_skips}",
        network.why,
        f"{row['kinds']}",
        f"{row['layers']}",
        removed,
        f"{row['difference']:.0e}" if row["removed"] else "—",
        f"{row['seconds']:.2f}",
        f"{row['added']:.1f}" if "added" in row else "—",
        "; ".join(filter(None, (reason, f"{row['notes']}"))) or "—",
    ]


def _begin() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torchvision_stub.declare()


def row_of(place: int, timed: bool) -> dict[str, Any]:
    """The columns of one network. timed: whether it is trained and measured too."""
    network = published.NETWORKS[place]
    if network.missing:
        raise SystemExit(f"{network.name} needs {network.missing}: pip install --no-deps -r no-deps.txt")
    torch.manual_seed(0)
    model = network.build()
    image, new = torch.rand(2, 1, *network.shape, generator=torch.Generator().manual_seed(0))
    try:
        us.inspect(model, image)  # imports are not timed
    except NetworkError as refusal:
        print(network.name, refusal, flush=True)
        return {"refusal": f"refused: {refusal}"}
    started = time.process_time()
    structure = us.inspect(model, image)
    seconds = time.process_time() - started
    differences, refusals = removals(model.eval(), structure, new)
    reasons = [*(f"warns of: {gap.kind}" for gap in structure.gaps), *refusals]
    row: dict[str, Any] = {
        "merges": len(structure.merges),
        "kinds": ", ".join(dict.fromkeys(JOIN_NAMES[merge.kind] for merge in structure.merges)) or "—",
        "skips": len(structure.skips),
        "layers": f"{len(structure.layers)}" + (" (stages)" if structure.detail == "stages" else ""),
        "removed": len(differences),
        "difference": max(differences, default=0.0),
        "seconds": seconds,
        "notes": "; ".join(f"{reason} ({count})" for reason, count in Counter(reasons).items()),
    }
    if timed and len(network.shape) > 2:  # images have two or three sides
        row["added"] = cost_of(model, images_for(network), structure)
    print(network.name, row, flush=True)
    return row


def cost_of(model: nn.Module, data: us.SegmentationData, structure: us.networks.Structure) -> float:
    """The time to measure the images, divided by the time to train on them."""
    epoch_of(model, data)  # warm-up
    trained = epoch_of(model, data)
    scope = us.Scope(model, data, layers=structure.layers, skips=structure.skips, labels=[us.KMeansLabels(2)])
    scope.measure(0)
    started = time.process_time()
    scope.measure(1)
    measured = time.process_time() - started
    us.plots.u_plot(scope.flow)
    return measured / trained


def removals(model: nn.Module, structure: us.networks.Structure, new: Tensor) -> tuple[list[float], list[str]]:
    """How far each skip removed is from the same skip silenced on a new image, and why others cannot be removed."""
    differences, refusals = [], []
    for skip in structure.skips:
        with torch.no_grad(), us.networks.ablated(model, structure, skip.name):
            silenced = whole(model(new))
        assert bool(silenced.isfinite().all())
        try:
            smaller = us.without_skips(model, structure, skip.name)
            with torch.no_grad():
                removed = whole(smaller(new))
        except NetworkError as refusal:
            refusals.append(reason_of(str(refusal)))
            continue
        differences.append(((removed - silenced).abs().max() / silenced.abs().max()).item())
    return differences, refusals


def reason_of(refusal: str) -> str:
    """A refusal without the places in the network, so that the same reason is counted once."""
    return re.sub(r" \([^)]*\)| at \S+", "", refusal.split(", so ", maxsplit=1)[0].split(": ", maxsplit=1)[0]).strip()


def whole(output: object) -> Tensor:
    """Everything that a network gives out, in one row."""
    return torch.cat([tensor.flatten() for tensor in tree_iter(output) if isinstance(tensor, Tensor)])


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
    started = time.process_time()
    for batch in torch.from_numpy(data.images).split(BATCH):
        optimizer.zero_grad()
        sum(out.square().mean() for out in tree_iter(model(batch)) if isinstance(out, torch.Tensor)).backward()
        optimizer.step()
    return time.process_time() - started


if __name__ == "__main__":
    main()
