"""Volumes, MONAI's UNet and MONAI's own training engine: synthetic bodies with one organ in them.

pip install "unetscope[monai]"
python examples/monai_spleen_like.py [FOLDER]
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch.utils.data import DataLoader, Dataset

import unetscope as us


class Bodies(Dataset):
    """A bright ellipsoid among dimmer ones, in noise: {"image": [1, d, h, w], "label": [1, d, h, w]}."""

    def __init__(self, n: int, side: int = 16) -> None:
        self.n, self.side = n, side

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng(number)
        axes = np.stack(np.meshgrid(*[np.linspace(-1, 1, self.side)] * 3, indexing="ij"))
        image, label = rng.normal(0, 0.2, axes.shape[1:]), np.zeros(axes.shape[1:])
        for brightness in (0.5, 0.5, 1.0):
            middle, radii = rng.uniform(-0.5, 0.5, (3, 1, 1, 1)), rng.uniform(0.25, 0.5, (3, 1, 1, 1))
            inside = (((axes - middle) / radii) ** 2).sum(axis=0) < 1
            image[inside], label[inside] = brightness + rng.normal(0, 0.1), brightness == 1.0
        return {"image": torch.from_numpy(image[None]).float(), "label": torch.from_numpy(label[None]).float()}


def main(folder: str, epochs: int = 3) -> us.Flow:
    """Train and measure; returns what was measured."""
    torch.manual_seed(0)
    bodies = Bodies(24)
    network = UNet(spatial_dims=3, in_channels=1, out_channels=1, channels=(4, 8, 16), strides=(2, 2))
    probe_set, held_out = us.from_dataset(bodies, image="image", mask="label").split(0.3)
    handler = us.UnetscopeHandler(probe_set, folder, held_out=held_out, labels=[us.KMeansLabels(4)])
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(bodies, batch_size=4, shuffle=True),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-2),
        loss_function=DiceCELoss(sigmoid=True),
        train_handlers=[handler],
    ).run()
    for verdict in us.judge(handler.flow):
        print(verdict)
    return handler.flow


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/monai_spleen_like")
