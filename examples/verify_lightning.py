"""Skips of a network, retrained by a Lightning trainer over seeds, in processes of their own.

pip install "unetscope[lightning]"
python examples/verify_lightning.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import unetscope as us

TRAIN, HELD_OUT = us.synthetic_nuclei(40, image_size=32).split(0.3)


class Segmenter(LightningModule):
    """Any network that gives probabilities; the Dice of every epoch is kept in `scores`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.scores = net, dict[int, float]()

    def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
        """Cross-entropy of the foreground's probability."""
        images, masks = batch
        return functional.binary_cross_entropy(self.net(images), masks)

    def on_train_epoch_end(self) -> None:
        """Keep the Dice of the held-out images."""
        images, masks = tensors(HELD_OUT)
        self.net.eval()
        with torch.no_grad():
            marked = (self.net(images) > 0.5).float()
        self.net.train()
        overlap = (marked * masks).sum((1, 2, 3))
        dice = (2 * overlap + 1) / (marked.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1)
        self.scores[self.current_epoch + 1] = dice.mean().item()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 5e-3)


def build() -> nn.Module:
    """The whole network; what is left out is taken out of it."""
    return us.UNet(width=4, depth=2)


def train(
    model: nn.Module, seed: int, folder: Path, epochs: int, callbacks: tuple[Callback, ...] = ()
) -> dict[int, float]:
    """Your trainer: it gives the score of each epoch."""
    seed_everything(seed, verbose=False)
    trainer = Trainer(
        max_epochs=epochs, default_root_dir=folder, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    segmenter = Segmenter(model)
    trainer.fit(segmenter, DataLoader(TensorDataset(*tensors(TRAIN)), batch_size=8, shuffle=True))
    return segmenter.scores


def tensors(data: us.SegmentationData) -> tuple[Tensor, Tensor]:
    """Images and masks, [n, channels, height, width]."""
    return torch.from_numpy(data.images) / 255, torch.from_numpy(data.masks)[:, None].float()


def main(folder: str, epochs: int = 6) -> us.analysis.Verification:
    """Train once and measure; then retrain without skips and levels."""
    run = Path(folder, "run")
    callback = us.UnetscopeCallback(TRAIN, run, network="net", held_out=HELD_OUT, estimators=[], labels=[])
    train(build(), 0, Path(folder, "own"), epochs, (callback,))
    print(us.judge(callback.flow))
    verification = us.verify(run, ["skips", "depth1"], seeds=2, build=build, train=train)
    for row in verification.rows():
        print(f"{row.variant.name}: {row.outcome.text}")
    return verification


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/verify_lightning")
