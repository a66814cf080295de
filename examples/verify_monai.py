"""Skips of MONAI's BasicUNet, retrained by a MONAI loop: measured, judged, verified over seeds in processes of their own.

pip install "unetscope[monai]"
python examples/verify_monai.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import BasicUNet
from torch import nn

import unetscope as us

TRAIN, HELD_OUT = us.synthetic_nuclei(40, image_size=32).split(0.3)


def build() -> nn.Module:
    """The whole network; what is left out is taken out of it."""
    return BasicUNet(spatial_dims=2, in_channels=3, out_channels=1, features=(4, 8, 8, 8, 8, 4))


def train(model: nn.Module, seed: int, folder: Path, epochs: int) -> Iterator[tuple[int, float]]:
    """Your loop, with your loss and your metric; it goes on from its own checkpoint in the folder that it is given."""
    optimizer, loss, dice = torch.optim.Adam(model.parameters(), 1e-2), DiceCELoss(sigmoid=True), DiceMetric()
    (images, masks), (held_out, truth) = map(tensors, (TRAIN, HELD_OUT))
    done, checkpoint = 0, folder / "checkpoint.pt"
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        done = kept["epoch"]
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
    for epoch in range(done + 1, epochs + 1):
        model.train()
        for rows in torch.randperm(len(images), generator=torch.Generator().manual_seed(1000 * seed + epoch)).split(4):
            optimizer.zero_grad()
            loss(model(images[rows]), masks[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            dice(model(held_out) > 0, truth)
        torch.save({"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
        yield epoch, dice.aggregate().item()
        dice.reset()


def tensors(data: us.SegmentationData) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and masks, [n, channels, height, width]."""
    return torch.from_numpy(data.images) / 255, torch.from_numpy(data.masks)[:, None].float()


def main(folder: str, epochs: int = 6) -> us.analysis.Verification:
    """Train once and measure; then retrain without skips."""
    torch.manual_seed(0)
    model, own = build(), Path(folder, "own")
    own.mkdir(parents=True, exist_ok=True)  # started again after a kill, it goes on
    scope = us.Scope(model, TRAIN, held_out=HELD_OUT, estimators=[], labels=[])
    recorder = us.Recorder(scope, Path(folder, "run"))
    for epoch, score in train(model, 0, own, epochs):
        recorder.measure(epoch)
        recorder.record(epoch, dice=score)
    print(us.judge(recorder.flow))
    verification = us.verify(recorder.path, ["without-skip1", "no-skips"], seeds=2, build=build, train=train)
    for row in verification.rows():
        print(f"{row.variant.name}: {row.outcome.text}")
    return verification


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/verify_monai")
