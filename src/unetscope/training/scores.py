"""The loss and the Dice of binary masks and of class maps, without the pixels that are ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from unetscope.data import SegmentationData

TINY = torch.finfo(torch.float32).tiny


def dice_per_image(
    probabilities: Float[Tensor, "batch classes height width"], masks: Float[Tensor, "batch classes height width"]
) -> Float[Tensor, " batch"]:
    """Dice coefficient of each image's hard mask, (2 |P ∩ T| + 1) / (|P| + |T| + 1), P being probabilities above 1/2.

    The 1 (the published code's `smooth`) makes an empty mask predicted empty count as 1.

    >>> dice_per_image(torch.tensor([[[[0.9, 0.2]]]]), torch.tensor([[[[1.0, 1.0]]]]))
    tensor([0.7500])
    """
    return _dice((probabilities > 0.5).flatten(1).float(), masks.flatten(1))


def _dice(predicted: Float[Tensor, "b m"], truth: Float[Tensor, "b m"]) -> Float[Tensor, " b"]:
    return (2 * (predicted * truth).sum(1) + 1) / (predicted.sum(1) + truth.sum(1) + 1)


def binary_cross_entropy(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy in nats a pixel, of probabilities kept 1e-7 away from 0 and 1, as the published code does.

    A probability that is not a number gives a loss that is not a number, where torch's own function stops the device.

    >>> round(binary_cross_entropy(torch.tensor([0.5, 0.0]), torch.tensor([1.0, 0.0])).item(), 4)     # ln 2 / 2
    0.3466
    """
    return _binary_losses(probabilities, masks).mean()


def _binary_losses(probabilities: Tensor, masks: Tensor) -> Tensor:
    kept = probabilities.clamp(1e-7, 1 - 1e-7)
    return -(masks * kept.log() + (1 - masks) * torch.log1p(-kept))


def dice_by_class(
    probabilities: Float[Tensor, "b classes h w"], masks: Integer[Tensor, "b 1 h w"], ignore: int | None = None
) -> Float[Tensor, "b classes"]:
    """Dice coefficient of each class in each image, 2 |P ∩ T| / (|P| + |T|), P being where the class is the likeliest.

    NaN where the mask has none of a class. Predicted there, it counts against the classes that it is taken for. Pixels to
    ignore are neither in P nor in T.

    Source: the same rule as MONAI's `DiceMetric(ignore_empty=True)`.

    >>> likeliest = torch.tensor([[[[0.9, 0.8]], [[0.1, 0.2]], [[0.0, 0.0]]]])      # class 0, twice
    >>> dice_by_class(likeliest, torch.tensor([[[[0, 1]]]]))
    tensor([[0.6667, 0.0000,    nan]])
    """
    b, classes = probabilities.shape[:2]
    predicted, truth = probabilities.argmax(dim=1).reshape(b, -1), masks.reshape(b, -1).long()
    pair = (torch.arange(b, device=truth.device)[:, None] * classes + truth) * classes + predicted
    counted = pair if ignore is None else pair[truth != ignore]
    table = torch.bincount(counted.reshape(-1), minlength=b * classes**2).reshape(b, classes, classes).float()
    true = table.sum(dim=2)
    dice = 2 * table.diagonal(dim1=1, dim2=2) / (true + table.sum(dim=1))
    return torch.where(true > 0, dice, torch.nan)


@dataclass(frozen=True)
class Scores:
    """How well a network does on some images.

    images: Dice of each; of class maps the mean over the classes that its mask has. by_class: Dice of each class in each image,
    without a column for binary masks. Both are NaN where a mask has nothing to compare with.
    """

    images: Float[Tensor, " n"]
    by_class: Float[Tensor, "n classes"]

    @property
    def mean(self) -> float:
        """The mean over the images that have one."""
        return float(self.images.nanmean())

    @property
    def class_means(self) -> tuple[float, ...]:
        """Of each class the mean over the images that have it, NaN for a class that none has; empty for binary masks."""
        return tuple(self.by_class.nanmean(dim=0).tolist())

    @classmethod
    def joined(cls, parts: list[Scores]) -> Scores:
        """Those of all images of several."""
        return cls(torch.cat([part.images for part in parts]), torch.cat([part.by_class for part in parts]))


@dataclass(frozen=True)
class Task:
    """What is learnt: the foreground of binary masks by one output channel, or one of several classes by one channel each."""

    classes: int = 2
    ignore: int | None = None

    @classmethod
    def of(cls, data: SegmentationData) -> Task:
        """The task of some data."""
        return cls(data.classes, data.ignore)

    @property
    def outputs(self) -> int:
        """The channels of the network's output: 1 for binary masks, else one a class."""
        return 1 if self.classes == 2 else self.classes

    def loss(self, probabilities: Float[Tensor, "b c h w"], masks: Integer[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
        """Mean cross-entropy in nats a labelled pixel; 0 where no pixel has a label.

        >>> masks = torch.tensor([[[[0, 2, 9]]]], dtype=torch.uint8)
        >>> round(Task(classes=3, ignore=9).loss(torch.full((1, 3, 1, 3), 1 / 3), masks).item(), 4)      # ln 3
        1.0986
        """
        if self.classes == 2:
            losses = _binary_losses(probabilities, masks.float())
        else:
            true = masks.long() if self.ignore is None else masks.long().masked_fill(masks == self.ignore, 0)
            losses = -probabilities.gather(1, true).clamp(min=TINY).log()
        if self.ignore is None:
            return losses.mean()
        labelled = masks != self.ignore
        return losses.where(labelled, 0.0).sum() / labelled.sum().clamp(min=1)

    def supervised_loss(
        self, probabilities: Sequence[Float[Tensor, "b c h w"]], masks: Integer[Tensor, "b 1 h w"]
    ) -> Float[Tensor, ""]:
        """The mean of the losses of predictions at several resolutions, each with the masks at its own, by nearest pixels.

        A prediction counts by its sides: one of half the sides counts half as much as one of the whole, and those of one size
        alike.

        Source: nnU-Net's trainer and MONAI's `DeepSupervisionLoss` weigh predictions of halved resolutions by 1, 1/2, 1/4, …

        >>> masks, certain = torch.ones(1, 1, 4, 4, dtype=torch.uint8), torch.ones(1, 1, 4, 4)
        >>> round(Task().supervised_loss([certain, torch.full((1, 1, 2, 2), 0.5)], masks).item(), 4)       # a third of ln 2
        0.231
        """
        sides = masks.shape[2:]
        scales = [(each.shape[2:].numel() / sides.numel()) ** (1 / len(sides)) for each in probabilities]
        losses = [
            self.loss(each, functional.interpolate(masks.float(), each.shape[2:], mode="nearest-exact").to(masks.dtype))
            for each in probabilities
        ]
        weighted = [scale * loss for scale, loss in zip(scales, losses, strict=True)]
        return torch.stack(weighted).sum() / sum(scales)

    def weight(self, masks: Integer[Tensor, "b 1 h w"]) -> Tensor | int:
        """How much a batch counts in a mean over batches: its images, or their labelled share."""
        if self.ignore is None:
            return len(masks)
        return (masks != self.ignore).flatten(1).float().mean(dim=1).sum()

    def scores(self, probabilities: Float[Tensor, "b c h w"], masks: Integer[Tensor, "b 1 h w"]) -> Scores:
        """The Dice of hard predictions: probabilities above one half, or the likeliest class."""
        if self.classes > 2:
            by_class = dice_by_class(probabilities, masks, self.ignore)
            return Scores(by_class.nanmean(dim=1), by_class)
        none = probabilities.new_empty((len(masks), 0))
        if self.ignore is None:
            return Scores(dice_per_image(probabilities, masks.float()), none)
        labelled = (masks != self.ignore).flatten(1)
        predicted, truth = ((probabilities > 0.5).flatten(1) & labelled, (masks == 1).flatten(1))
        dice = _dice(predicted.float(), truth.float())
        return Scores(dice.where(labelled.any(dim=1), torch.nan), none)
