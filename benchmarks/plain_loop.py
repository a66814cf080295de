"""A training loop as one writes it first: float32, a DataLoader, the optimizer's step, curves after every epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from unetscope.data import SegmentationData
from unetscope.table.records import EpochRecord
from unetscope.training.scores import dice_per_image
from unetscope.training.trainer import image_order


def plain_training(
    model: nn.Module,
    train: SegmentationData,
    validation: SegmentationData,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> Iterator[EpochRecord]:
    """Adam, batches of 16 in the order of the `Trainer`, binary cross-entropy; yields the record of each epoch."""
    dataset = _dataset(train)
    held_out = DataLoader(_dataset(validation), batch_size=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        loader = DataLoader(dataset, batch_size=16, sampler=image_order(len(train), seed, epoch).tolist())
        losses, dices = [], []
        model.train()
        for images, masks in loader:
            optimizer.zero_grad()
            probabilities = model(images)
            loss = functional.binary_cross_entropy(probabilities, masks)
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(images)
            dices += dice_per_image(probabilities.detach(), masks).tolist()
        model.eval()
        held_losses, held_dices = [], []
        with torch.no_grad():
            for images, masks in held_out:
                probabilities = model(images)
                held_losses += [functional.binary_cross_entropy(probabilities, masks).item()] * len(images)
                held_dices += dice_per_image(probabilities, masks).tolist()
        figures = (float(np.mean(values)) for values in (losses, dices, held_losses, held_dices))
        yield EpochRecord(epoch, *figures, time.perf_counter() - started)


def _dataset(data: SegmentationData) -> TensorDataset:
    return TensorDataset(
        torch.from_numpy(data.images * np.float32(data.scale)), torch.from_numpy(data.masks)[:, None].float()
    )
