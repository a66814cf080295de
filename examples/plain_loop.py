"""A loop of one's own and a network of one's own: three lines measure it.

    python examples/plain_loop.py [FOLDER]

Then: unetscope verdict FOLDER, unetscope report FOLDER.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional

import unetscope as us


class MyNet(nn.Module):
    """Two levels, one skip, logits."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.below = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(inplace=True))
        self.leave = nn.Sequential(nn.Conv2d(3 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, 3, height, width] to logits [batch, 1, height, width]."""
        carried = self.enter(x)
        up = functional.interpolate(self.below(carried), scale_factor=2.0)
        return self.leave(torch.cat([up, carried], dim=1))


def main(folder: str, epochs: int = 6) -> us.Flow:
    """Train and measure; returns what was measured."""
    torch.manual_seed(0)
    train, held_out = us.synthetic_nuclei(60, image_size=32).split(0.3)
    images, masks = torch.from_numpy(train.images) / 255, torch.from_numpy(train.masks)[:, None].float()
    model = MyNet()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    scope = us.Scope(model, train, held_out=held_out, labels=[us.KMeansLabels(8)], epochs=[0, 1, 3, 6])
    recorder = us.Recorder(scope, folder)
    for epoch in range(epochs + 1):
        if epoch:
            for rows in torch.randperm(len(images)).split(8):
                optimizer.zero_grad()
                functional.binary_cross_entropy_with_logits(model(images[rows]), masks[rows]).backward()
                optimizer.step()
        recorder.measure(epoch, last=epoch == epochs)
    for verdict in us.judge(recorder.flow):
        print(verdict)

    structure = us.inspect(model, images[:1])
    with torch.no_grad(), us.networks.ablated(model, structure, "skip1"):  # the network without its skip, untrained
        ablated = torch.sigmoid(model(images)).mean().item()
    smaller = us.without_skips(model, structure, "skip1")  # a network to train without it
    print(f"foreground marked with skip1 ablated: {ablated:.3f}")
    print(f"parameters without skip1: {parameters(smaller)} of {parameters(model)}")
    return recorder.flow


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/plain_loop")
