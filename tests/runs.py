"""Run folders with made-up numbers, as large and as hostile as a test wants them, and what stops a run in a test."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unetscope.base import NoProgress
from unetscope.networks.unet import UNet
from unetscope.runs.folder import RunFolder
from unetscope.runs.tables import Picture
from unetscope.table.records import EpochRecord, Estimate, Layer, Skip
from unetscope.table.schedule import marked_epochs
from unetscope.training.config import overridden_config, preset_config

INPUT = (("kde_upper", 1.0), ("kde_lower", 1.0), ("binning", 0.2))
LABELS = ("kmeans(k=64)", "blocks(4x4)")
CEILING = {"I(X;M)": math.log2(605), "I(Y;M)": 2.5}
TITLES = ("nearly empty", "half full", "full")
# A run that trains and measures in seconds: what a test changes in the preset `demo`.
TINY = {
    "data.synthetic_images": 12,
    "data.validation_share": 0.1,
    "data.image_size": 16,
    "network.width": 2,
    "network.depth": 1,
    "measuring.clusters": 2,
    "measuring.merge_probes": False,
    "threads": 1,
}
# A file with a network of the user's own, of depth 2.
CODE = """
import torch
from torch import nn


def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Net(nn.Module):
    def __init__(self, width=2, rate=0.1):
        super().__init__()
        self.down1, self.down2, self.bottom = block(3, width), block(width, width), block(width, width)
        self.up2, self.up1 = nn.ConvTranspose2d(width, width, 2, 2), nn.ConvTranspose2d(width, width, 2, 2)
        self.join2, self.join1 = block(2 * width, width), block(2 * width, width)
        self.pool, self.drop, self.head = nn.MaxPool2d(2), nn.Dropout(rate), nn.Conv2d(width, 1, 1)

    def forward(self, image):
        first = self.down1(image)
        second = self.down2(self.pool(first))
        up = self.join2(torch.cat([self.up2(self.drop(self.bottom(self.pool(second)))), second], 1))
        return self.head(self.join1(torch.cat([self.up1(up), first], 1)))
"""


@contextmanager
def edited_config(run: Path) -> Iterator[dict[str, Any]]:
    """The values of a run's config.json, written back as somebody who edits the file leaves them: without the digest."""
    values = json.loads((run / "config.json").read_text())
    yield values
    values.pop("sha256", None)
    (run / "config.json").write_text(json.dumps(values))


def made_run(
    path: Path,
    epochs: Sequence[int] = marked_epochs("log", 100),
    *,
    named: Callable[[str], str] = str,
    estimators: Sequence[tuple[str, float]] = INPUT,
    labels: Sequence[str] = LABELS,
    titles: Sequence[str] = TITLES,
    pictures_of: int = 64,
    seed: int = 0,
) -> RunFolder:
    """A run of the paper's network whose numbers rise with the epochs, with masks, predictions and Dice.

    named: from a layer's or a skip's label to the name that it is given.
    """
    random = np.random.default_rng(seed)
    network = UNet(width=2)
    layers = tuple(
        replace(
            layer,
            label=named(layer.label),
            module=named(layer.module),
            parts=tuple(map(named, layer.parts)),
            sources=tuple(map(named, layer.sources or ())),
            shape=(4, 8, 8),
        )
        for layer in network.layers
    )
    skips = tuple(
        Skip(skip.name, named(skip.source), named(skip.upsampled), named(skip.merge)) for skip in network.skips
    )
    config = preset_config("quick", {"training.epochs": max(epochs), "data.path": "images.zip", "threads": 2})
    share = {"foreground share": 0.2, "source": titles[0]}
    run = RunFolder.create(
        path,
        {
            "configuration": config.model_dump(mode="json"),
            "facts": {"versions": {"unetscope": "0"}, "device": "CPU", "data": {"train": share, "validation": share}},
        },
    )

    def picture(kind: str, title: str, epoch: int, place: int) -> Picture:
        pixels = np.zeros((pictures_of, pictures_of), np.uint8)
        pixels[: 4 + 3 * place, :] = 255
        pixels[:, : 1 + epoch % pictures_of] = random.integers(0, 255, (pictures_of, 1 + epoch % pictures_of))
        return Picture(kind, title, epoch, place, pixels)

    kinds = [(kind, place, title) for kind in ("image", "truth") for place, title in enumerate(titles)]
    still = [picture(kind, title, 0, place) for kind, place, title in kinds]
    still += [
        picture(scheme, f"class {k}", 0, place)
        for scheme in labels
        for k in range(6)
        for place in range(4 * k, 4 * k + 4)
    ]
    run.describe(layers, skips, still)
    for epoch in range(max(epochs) + 1):
        dice = min(0.9, 0.2 + 0.1 * math.log1p(epoch))
        run.write_epoch(EpochRecord(epoch, 0.5, dice + 0.02 if epoch else math.nan, 0.4, dice, 2.0, 1.0, (dice, dice)))
    for epoch in epochs:
        rows = list(_rows(layers, skips, epoch, max(epochs), estimators, labels, random))
        predicted = [picture("prediction", title, epoch, place) for place, title in enumerate(titles)]
        run.write_measurement(epoch, rows, predicted)
    return run


def _rows(layers: Sequence[Layer], skips: Sequence[Skip], epoch, last, estimators, labels, random):
    so_far = math.log1p(epoch) / math.log1p(last)
    for place, layer in enumerate(layers):
        dip = 1 - 0.8 * math.sin(math.pi * place / (len(layers) - 1)) * (1 - 0.6 * so_far)
        for estimator, resolution in estimators:
            for quantity, names in (("I(X;M)", ("",)), ("I(Y;M)", labels)):
                for scheme in names:
                    ceiling = CEILING[quantity]
                    bits = min(ceiling, ceiling * dip * (0.7 + 0.35 * so_far) + 0.01 * random.standard_normal())
                    full = bits > 0.98 * ceiling
                    low, high = (math.nan, math.nan) if full else (bits - 0.1, min(bits + 0.1, ceiling))
                    yield Estimate(
                        epoch, layer.label, quantity, estimator, resolution, scheme, bits, bits, bits, ceiling, full,
                        n=605, d=layer.size, low=low, high=high, quarter_bits=0.8 * bits, half_bits=0.9 * bits,
                        extrapolated=bits, null_mean=0.1, null_high=0.2, p=0.001, singleton_share=0.1,
                        out_of_domain=place == 3,
                        reason="out of domain: it rises with ever more images" if place == 3 else "",
                    )  # fmt: skip
        usable = 0.6 * abs(place / len(layers) - 0.4) * (0.2 + 0.8 * so_far) + 0.05
        yield Estimate(
            epoch, layer.label, "I_V(M→Y)", "usable_linear", 0, "pixels", usable, usable - 0.02, usable + 0.02, 0.6, False,
            n=65, d=layer.size, low=usable - 0.02, high=usable + 0.02, null_mean=-0.1, null_high=-0.05, p=0.001,
            per_image=tuple(usable + 0.01 * random.standard_normal(65)),
        )  # fmt: skip
    for place, skip in enumerate(skips):
        for quantity, bits in (("I_V(S→Y|U,↓S)", 0.2 / (1 + 4 * place)), ("I_V(U→Y|S)", 0.1 / (1 + 9 * place))):
            yield Estimate(
                epoch, skip.merge, quantity, "usable_convolutional", 0, "pixels", bits, bits, bits, 0.6, False,
                n=65, d=9, low=bits - 0.004, high=bits + 0.004,
            )  # fmt: skip


def retrained(run: RunFolder, *, seeds: int = 2) -> RunFolder:
    """The same run with trainings of some variants, the smaller of which lose Dice."""
    from unetscope.runs.retraining import trials
    from unetscope.table.parts import named_variants

    epochs = range(run.last_epoch() + 1)
    for trial in trials(run, named_variants(["paper", "depth2"], depth=4), range(seeds)):
        loss = 0.1 * len(trial.variant.without)
        others = {"seed": trial.seed} | {f"network.{name}": value for name, value in trial.variant.network.items()}
        config = overridden_config(run.configuration, others).model_dump(mode="json")
        folder = RunFolder.create(trial.path, {"configuration": config, "facts": run.facts})
        for epoch in epochs:
            dice = max(0.0, min(0.9, 0.2 + 0.1 * math.log1p(epoch)) - loss - 0.001 * trial.seed)
            images = tuple(dice + 0.001 * k for k in range(8))
            folder.write_epoch(EpochRecord(epoch, 0.3, dice, 0.2 if epoch else 0.6, dice, 1.0, 0.9, images))
        folder.end({"constant channels": {}})
    return run


class Stopping(NoProgress):
    """Stops a run while this epoch is measured."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def advance(self, done: int, note: str = "") -> None:
        """Stop, if it is time."""
        if done == self._epoch and "measuring" in note:
            raise KeyboardInterrupt
