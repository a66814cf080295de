"""A Lightning training with one callback more.

pip install "unetscope[lightning]"
python examples/lightning_callback.py [FOLDER]
"""

from __future__ import annotations

import sys

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import unetscope as us


class Segmenter(LightningModule):
    """The network stands in `net`, as it does in most projects."""

    def __init__(self) -> None:
        super().__init__()
        self.net = us.UNet(width=4, depth=2)

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        """Cross-entropy of the foreground's probability."""
        images, masks = batch
        return functional.binary_cross_entropy(self.net(images), masks)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 5e-3)


def main(folder: str, epochs: int = 8) -> us.Flow:
    """Train and measure; returns what was measured."""
    seed_everything(0, verbose=False)
    train, held_out = us.synthetic_nuclei(40, image_size=32).split(0.3)
    images, masks = torch.from_numpy(train.images) / 255, torch.from_numpy(train.masks)[:, None].float()
    callback = us.UnetscopeCallback(train, folder, network="net", held_out=held_out, labels=[us.KMeansLabels(8)])
    trainer = Trainer(
        max_epochs=epochs, callbacks=[callback], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(Segmenter(), DataLoader(TensorDataset(images, masks), batch_size=8, shuffle=True))
    for verdict in us.judge(callback.flow):
        print(verdict)
    return callback.flow


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/lightning_callback")
