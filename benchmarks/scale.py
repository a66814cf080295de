"""Measure at scale and write docs/scale.md: ten thousand images, large images, wide networks, volumes.

    python -m benchmarks.scale

Each case runs in a process of its own and is kept in docs/data/scale.json as soon as it is done; what is there is not done
again, so remove a case from that file to measure it anew. The whole takes about an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scripts.markdown_table import table
from torch import nn

import unetscope as us
from benchmarks.cases import GIB
from benchmarks.timing import Watch, exponent, machine, peak_bytes
from unetscope.activations import BYTES_A_VALUE
from unetscope.measure import Compute

DOCS = Path(__file__).parents[1] / "docs"
DRAWN = 500  # images that are drawn; further ones are these, rolled


@dataclass(frozen=True)
class Case:
    """What is measured once. sides: pixels of an image, or voxels of a volume. budget: GiB."""

    images: int
    sides: tuple[int, ...]
    width: int = 8
    budget: float = 4.0

    @property
    def name(self) -> str:
        """A key of it."""
        return f"{self.images}x{'x'.join(map(str, self.sides))}-width{self.width}-{self.budget:g}GiB"


COUNTS: Final = tuple(Case(n, (64, 64)) for n in (1000, 2000, 4000, 10_000))
SIDES: Final = tuple(Case(64, (side, side)) for side in (64, 128, 256, 512))
WIDTHS: Final = tuple(Case(256, (128, 128), width) for width in (4, 8, 16))
VOLUMES: Final = tuple(Case(16, (side,) * 3) for side in (32, 64, 96))
SERIES: Final = {
    "images": (COUNTS, "images N", lambda case: case.images),
    "pixels": (SIDES, "pixels of an image", lambda case: int(np.prod(case.sides))),
    "channels": (WIDTHS, "channels at full resolution", lambda case: case.width),
    "voxels": (VOLUMES, "voxels of a volume", lambda case: int(np.prod(case.sides))),
}


def images_of(case: Case) -> us.SegmentationData:
    """Synthetic images, rolled so that no two are alike; or volumes of smooth noise, with a mask where it is large."""
    random = np.random.default_rng(0)
    if len(case.sides) == 2:
        drawn = us.synthetic_nuclei(min(case.images, DRAWN), image_size=case.sides[0])
        chosen = random.integers(0, len(drawn), case.images)
        shifts = [tuple(map(int, shift)) for shift in random.integers(0, case.sides[0], (case.images, 2))]
        pairs = list(zip(chosen, shifts, strict=True))
        images = np.stack([np.roll(drawn.images[which], shift, (1, 2)) for which, shift in pairs])
        masks = np.stack([np.roll(drawn.masks[which], shift, (0, 1)) for which, shift in pairs])
    else:
        coarse = torch.from_numpy(random.standard_normal((case.images, 1, 8, 8, 8), dtype=np.float32))
        smooth = nn.functional.interpolate(coarse, case.sides, mode="trilinear").numpy()
        images = (np.clip(smooth / 6 + 0.5, 0, 1) * 255).astype(np.uint8)
        masks = (smooth[:, 0] > 0.8).astype(np.uint8)
    return us.SegmentationData(images, masks, tuple(map(str, range(case.images))), "drawn")


def network_of(case: Case) -> nn.Module:
    """This package's U-Net; of volumes MONAI's BasicUNet."""
    torch.manual_seed(0)
    if len(case.sides) == 2:
        return us.UNet(case.width, 4).to(memory_format=torch.channels_last)
    from monai.networks.nets import BasicUNet

    widths = [case.width * 2 ** min(level, 4) for level in range(5)]
    return BasicUNet(spatial_dims=3, in_channels=1, out_channels=1, features=[*widths, case.width])


def measured(watch: Watch, case: Case) -> dict[str, float]:
    """One measurement, with what was forecast of its memory."""
    torch.set_num_threads(1)
    data, network = images_of(case), network_of(case)
    scope = us.Scope(
        network,
        data,
        estimators=[us.KDE(1.0)],
        labels=[us.KMeansLabels(k=min(64, case.images // 2), n_init=1)],
        compute=Compute(memory_budget=int(case.budget * GIB)),
    )
    budget = scope.budget
    values = sum(layer.size for layer in scope.layers if not layer.parts)
    held = budget.total_bytes - max(0, budget.activation_bytes - BYTES_A_VALUE * budget.n * values)
    with watch:
        estimates = scope.measure(1)
    return {
        "forecast_bytes": held + budget.batch_size * budget.forward_bytes,
        "estimates": len(estimates),
        "values": values,
        "passes": len(budget.passes(scope.layers)),
    }


def page(kept: dict[str, Any]) -> Iterator[str]:
    """The lines of the page."""
    yield from (
        "# At scale",
        "",
        "`python -m benchmarks.scale` writes this page. One measurement of a whole network, KDE upper and lower bound at one noise variance "
        "and K-means labels, with a budget of 4 GiB and one thread, in a process of its own. *Peak*: the resident memory that it added. *Forecast*: what `--dry-run` "
        "says before: the budget as far as it is used, and the network's batch. *Passes*: forward passes over all images that the budget takes.",
        "",
    )
    for cases, title, size in SERIES.values():
        done = [case for case in cases if case.name in kept]
        if not done:
            continue
        rows = [_row(case, kept[case.name]) for case in done]
        head = (
            "images",
            "size",
            "width",
            "values an image",
            "forecast",
            "peak",
            "peak / forecast",
            "passes",
            "minutes",
        )
        yield from (f"## {title[0].upper()}{title[1:]}", "", *table(head, rows), "")
        if len(done) > 1:
            sizes = [float(size(case)) for case in done]
            slope = exponent(sizes, [kept[case.name]["seconds"] for case in done])
            yield from (f"Time grows as the {slope:.2f}th power of {title}.", "")
    yield f"*{kept['machine']}{kept.get('remark', '')}.*"


def _row(case: Case, result: dict[str, float]) -> tuple[str, ...]:
    forecast, peak = result["forecast_bytes"] / GIB, result["peak_bytes"] / GIB
    return (
        f"{case.images:,}", "×".join(map(str, case.sides)), str(case.width), f"{result['values']:,}",
        f"{forecast:.2f} GiB", f"{peak:.2f} GiB", f"{peak / forecast:.2f}", f"{result['passes']:.0f}", f"{result['seconds'] / 60:.1f}",
    )  # fmt: skip


def main() -> None:
    """Measure what is not there yet, and write the page after each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SERIES), default=list(SERIES))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument(
        "--remark", default="", help="what else is to be said of the machine, such as ', beside other jobs'"
    )
    words = parser.parse_args()
    path = words.docs / "data" / "scale.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if words.remark:
        kept["remark"] = words.remark
    for series in words.only:
        for case in SERIES[series][0]:
            if case.name not in kept:
                print(time.strftime("%H:%M:%S"), case.name, flush=True)
                kept[case.name] = peak_bytes(measured, case)
                kept["machine"] = machine()
                path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            (words.docs / "scale.md").write_text("\n".join(page(kept)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
