"""Train a segmentation network with checkpoints and exact resume; calls back after every epoch.

The order of the images of an epoch depends on the seed and the epoch alone, so two networks with one seed see the same
batches, and a resumed training sees those that it would have seen.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from unetscope.activations import full_float32, has_bfloat16, pixels, to_input
from unetscope.base import InvalidArgument, TrainingError, finishing, quiet_loggers
from unetscope.data import SegmentationData
from unetscope.table import EpochRecord
from unetscope.training.checkpoints import Checkpoints
from unetscope.training.config import TrainingConfig
from unetscope.training.cuda_graphs import ReplayedSteps
from unetscope.training.environment import check_environment
from unetscope.training.outputs import OutputReading
from unetscope.training.scores import Scores, Task

PRECISIONS: Mapping[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
EVALUATION_BATCH = 32  # images, of volumes fewer
MOST_PIXELS_EVALUATED = 2**23  # at once, those of 32 images of 512x512
MEMORY_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the axes of images and of volumes
SECONDS_BETWEEN_CHECKPOINTS = 30.0

OnEpoch = Callable[[EpochRecord], None]
OnMarked = Callable[[int, nn.Module], None]


def validation_scores(model: nn.Module, data: SegmentationData, reading: OutputReading | None = None) -> Scores:
    """Dice of every image and class, in float32 and in evaluation mode; the network's mode is restored.

    reading: of the network's output, which by default is probabilities.
    """
    device, images, task = next(model.parameters()).device, pixels(data), Task.of(data)
    read = reading or OutputReading(task)
    masks, was_training, parts = torch.from_numpy(data.masks)[:, None], model.training, []
    model.eval()
    try:
        with torch.no_grad(), full_float32():
            for rows in torch.arange(len(images)).split(evaluation_batch(data.image_size)):
                probabilities = read(model(to_input(images[rows].to(device), data.scale)), data.image_size)
                parts.append(task.scores(probabilities.cpu(), masks[rows]))
    finally:
        model.train(was_training)
    return Scores.joined(parts)


def validation_dice(model: nn.Module, data: SegmentationData) -> Float[Tensor, " n"]:
    """Dice of every image, as `validation_scores`."""
    return validation_scores(model, data).images


def image_order(n: int, seed: int, epoch: int) -> Int64[Tensor, " n"]:
    """The order in which an epoch goes through n images: trainings with the same seed see the same batches.

    >>> image_order(4, seed=0, epoch=1).sort().values.tolist()
    [0, 1, 2, 3]
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(_order_seed(seed, epoch)))


def resolved_precision(config: TrainingConfig) -> Literal["float32", "bfloat16"]:
    """The precision that a configuration means here."""
    if config.precision != "auto":
        return config.precision
    return "bfloat16" if has_bfloat16(torch.device(resolved_device(config))) else "float32"


def resolved_device(config: TrainingConfig) -> Literal["cpu", "cuda"]:
    """The device that a configuration means here. Raises: InvalidArgument if cuda is asked for where there is none."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise InvalidArgument("device is cuda, and torch finds none here: use --device cpu, or install torch with CUDA")
    return "cuda" if available and config.device != "cpu" else "cpu"


def resolved_cuda_graphs(config: TrainingConfig, of_unet: bool) -> bool | None:
    """Whether training steps are replayed as CUDA graphs: by default, on a GPU, those of this package's U-Net, which are all
    alike; None where nobody has asked and there is no reason to. Raises: InvalidArgument if they are asked for elsewhere.
    """
    device = resolved_device(config)
    if config.cuda_graphs and device != "cuda":
        raise InvalidArgument(f"--cuda-graphs goes with --device cuda, and the device is {device}")
    return True if config.cuda_graphs is None and device == "cuda" and of_unet else config.cuda_graphs


def can_replay(config: TrainingConfig, task: Task) -> bool:
    """Whether training steps are replayed as CUDA graphs: asked for, on a GPU, and with binary masks, as the Dice of several
    classes is counted by a call that waits for the GPU.
    """
    return bool(config.cuda_graphs) and resolved_device(config) == "cuda" and task.classes == 2


class Trainer:
    """One network, one data set, one configuration: trained epoch by epoch, resumable at any of them.

    model: maps images in [0, 1] to probabilities, of the foreground or of each class; or to what `reading` makes probabilities
    of. checkpoint_folder: where checkpoints are kept. marked: the epochs whose checkpoint stays and at which `on_marked` is
    called; between them, the newest one is replaced every `seconds_between_checkpoints`. seed: of the order of the images.

    >>> import tempfile
    >>> from unetscope.data.synthetic import synthetic_nuclei
    >>> from unetscope.networks.unet import UNet
    >>> train, validation = synthetic_nuclei(6, image_size=16).split(0.3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer = Trainer(UNet(2, depth=1), train, validation, TrainingConfig(epochs=2), Path(folder), marked=(0, 2))
    ...     trainer.run(on_epoch=lambda record: print(record.epoch))
    0
    1
    2
    """

    def __init__(
        self,
        model: nn.Module,
        train: SegmentationData,
        validation: SegmentationData,
        config: TrainingConfig,
        checkpoint_folder: str | Path,
        *,
        marked: Collection[int] = (),
        seed: int = 0,
        seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS,
        reading: OutputReading | None = None,
    ) -> None:
        self._task = Task.of(train)
        if Task.of(validation) != self._task:
            raise InvalidArgument(
                f"training and validation masks must have the same classes, got {train!r} and {validation!r}"
            )
        self._read = reading or OutputReading(self._task)
        self.config, self.seed, self.marked = config, seed, frozenset(marked)
        self.checkpoints = Checkpoints(Path(checkpoint_folder))
        self.seconds_between_checkpoints = seconds_between_checkpoints
        check_environment()
        from lightning_fabric import Fabric  # half as dear to import as torch, and only training needs it

        replays = can_replay(config, self._task)
        self.model = laid_out(model, config)
        optimizer = OPTIMIZERS[config.optimizer](
            self.model.parameters(),
            lr=config.learning_rate,
            fused=True,
            **({"capturable": True} if replays and config.optimizer != "sgd" else {}),
        )
        with quiet_loggers("lightning_fabric"):  # it announces precisions, and a command may print JSON
            self._fabric = Fabric(
                accelerator=resolved_device(config), devices=1, precision=PRECISIONS[resolved_precision(config)]
            )
            self._network, self._optimizer = self._fabric.setup(self.model, optimizer)
        self._settled_step = ReplayedSteps(self._step) if replays else self._step
        self._train, self._validation = self._on_device(train), self._on_device(validation)
        self._sums = torch.zeros(3, device=self._fabric.device)  # over an epoch: loss, Dice, images without Dice

    def run(
        self,
        *,
        on_epoch: OnEpoch = lambda record: None,
        on_marked: OnMarked = lambda epoch, model: None,
    ) -> None:
        """Train from the newest checkpoint, or from the start, to the last epoch.

        After each epoch: `on_epoch(record)`, then the checkpoint, then `on_marked(epoch, model)`. A resumed run calls
        `on_marked` again for the epoch that it starts from.

        Raises: TrainingError if the loss is not a number (the last good checkpoint is kept) or a checkpoint is damaged.
        """
        self.checkpoints.remove_unfinished()
        done = self.checkpoints.epochs()
        if done:
            self.checkpoints.restore(done[-1], self.model, self._optimizer)
            self._prune()  # a kill may have come between a new checkpoint and the removal of the one before
        else:
            self._finish(self._record(0, math.nan, math.nan, time.perf_counter()), on_epoch)
        first = done[-1] if done else 0
        if first in self.marked:
            on_marked(first, self.model)
        saved_at = time.monotonic()
        for epoch in range(first + 1, self.config.epochs + 1):
            with finishing() as is_asked_to_end:  # SIGTERM ends a training at a checkpoint
                record = self._one_epoch(epoch)
                due = is_asked_to_end() or time.monotonic() - saved_at >= self.seconds_between_checkpoints
                if epoch in self.marked or epoch == self.config.epochs or due:
                    self._finish(record, on_epoch)
                    saved_at = time.monotonic()
                else:
                    on_epoch(record)
            if epoch in self.marked:
                on_marked(epoch, self.model)

    def _finish(self, record: EpochRecord, on_epoch: OnEpoch) -> None:
        """Hand over the record, then write the checkpoint that lets a resume start after this epoch."""
        on_epoch(record)
        self.checkpoints.save(record.epoch, self.model, self._optimizer)
        self._prune()

    def _prune(self) -> None:
        """Of the checkpoints, leave those of marked epochs and the newest."""
        for older in self.checkpoints.epochs()[:-1]:
            if older not in self.marked:
                self.checkpoints.remove(older)

    def _one_epoch(self, epoch: int) -> EpochRecord:
        started = time.perf_counter()
        images, masks, _ = self._train
        order = image_order(len(images), self.seed, epoch).to(images.device)
        batches = order.split(self.config.batch_size)
        self._network.train()
        self._sums.zero_()
        for number, rows in enumerate(batches):
            if self._warm_up((epoch - 1) * len(batches) + number + 1, self.config.warm_up_epochs * len(batches)):
                self._step(rows)
            else:
                self._settled_step(rows)
        loss_sum, dice_sum, without_dice = self._sums.tolist()
        train_loss = loss_sum / float(self._task.weight(masks))
        self._refuse_nan(epoch, train_loss)
        train_dice = dice_sum / (len(images) - without_dice) if without_dice < len(images) else math.nan
        return self._record(epoch, train_loss, train_dice, started)

    def _step(self, rows: Int64[Tensor, " batch"]) -> None:
        """Train on some images, and add what they tell to the sums of the epoch; without waiting for a GPU."""
        images, masks, scale = self._train
        truth = masks[rows]
        self._optimizer.zero_grad(set_to_none=True)
        output = self._network(to_input(images[rows], scale))
        probabilities = self._read(output, images.shape[2:])
        loss = self._task.loss(probabilities, truth)
        self._fabric.backward(self._supervised(output, truth) if self.config.deep_supervision else loss)
        self._optimizer.step()
        dice = self._task.scores(probabilities.detach(), truth).images
        self._sums[0] += loss.detach() * self._task.weight(truth)
        self._sums[1] += dice.nan_to_num(nan=0.0).sum()
        self._sums[2] += dice.isnan().sum()

    def _supervised(self, output: Any, truth: Tensor) -> Tensor:
        """The loss of all predictions of a network that gives several."""
        return self._task.supervised_loss(self._read.at_every_resolution(output, truth.shape[2:]), truth)

    def _warm_up(self, step: int, steps: int) -> bool:
        """Set the learning rate of a step, its share of the whole one while it warms up; whether it does."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * (step / steps if step < steps else 1.0)
        return step < steps

    def _record(self, epoch: int, train_loss: float, train_dice: float, started: float) -> EpochRecord:
        loss, scores, reach = self._evaluate()
        self._refuse_nan(epoch, loss)
        seconds = time.perf_counter() - started
        dice = scores.images.tolist()
        counted = [value for value in dice if not math.isnan(value)]
        mean = sum(counted) / len(counted) if counted else math.nan
        return EpochRecord(epoch, train_loss, train_dice, loss, mean, seconds, reach, tuple(dice), scores.class_means)

    def _evaluate(self) -> tuple[float, Scores, float]:
        """Over the validation set, with the weights as they are: loss (nats a pixel), Dice, range of the output.

        The range is of one channel, the one in which it is largest: of several classes, probabilities that are the same
        everywhere differ between channels.
        """
        images, masks, scale = self._validation
        losses, parts, lows, highs = list[Tensor](), list[Scores](), list[Tensor](), list[Tensor]()
        weights: list[float] = []
        self._network.eval()
        with torch.no_grad():
            for rows in torch.arange(len(images)).split(evaluation_batch(images.shape[2:])):
                truth = masks[rows]
                probabilities = self._probabilities(images[rows], scale)
                losses.append(self._task.loss(probabilities, truth))
                weights.append(float(self._task.weight(truth)))
                parts.append(self._task.scores(probabilities, truth))
                within_channel = (0, *range(2, probabilities.ndim))
                lows.append(probabilities.amin(dim=within_channel))
                highs.append(probabilities.amax(dim=within_channel))
        reach = torch.stack(highs).amax(dim=0) - torch.stack(lows).amin(dim=0)
        loss_sum = sum(loss * weight for loss, weight in zip(torch.stack(losses).tolist(), weights, strict=True))
        return loss_sum / float(self._task.weight(masks)), Scores.joined(parts), float(reach.max())

    def _probabilities(self, images: Tensor, scale: float) -> Tensor:
        return self._read(self._network(to_input(images, scale)), images.shape[2:])

    def _refuse_nan(self, epoch: int, loss: float) -> None:
        if math.isfinite(loss):
            return
        kept = self.checkpoints.epochs()
        where = (
            f"the last good checkpoint is {self.checkpoints.path(kept[-1])}" if kept else "there is no checkpoint yet"
        )
        raise TrainingError(
            f"the loss is {loss} at epoch {epoch}: {where}; "
            f"lower the learning rate ({self.config.learning_rate}) and begin anew"
        )

    def _on_device(self, data: SegmentationData) -> tuple[Tensor, Tensor, float]:
        """All images (channels last in memory if the network is so) and masks as integers on the device, and the scale."""
        images = pixels(data).to(self._fabric.device)
        images = images.contiguous(memory_format=memory_layout(self.config, images.ndim))
        return images, torch.from_numpy(data.masks).to(self._fabric.device)[:, None], data.scale


def evaluation_batch(sides: Sequence[int]) -> int:
    """How many images of some sides are evaluated at once: fewer of large volumes, whose activations would not fit.

    >>> evaluation_batch((128, 128)), evaluation_batch((64, 256, 256))
    (32, 2)
    """
    return max(1, min(EVALUATION_BATCH, MOST_PIXELS_EVALUATED // math.prod(sides)))


def memory_layout(config: TrainingConfig, axes: int) -> torch.memory_format:
    """The order in which a tensor of so many axes lies in memory."""
    return MEMORY_LAYOUTS.get(axes, torch.contiguous_format) if config.channels_last else torch.contiguous_format


def laid_out(model: nn.Module, config: TrainingConfig) -> nn.Module:
    """The network with its weights in that order, as training has them: another order rounds otherwise."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.ndim in MEMORY_LAYOUTS:
            tensor.data = tensor.data.contiguous(memory_format=memory_layout(config, tensor.ndim))
    return model


def _order_seed(seed: int, epoch: int) -> int:
    """One seed from two numbers, so that neighbouring seeds and epochs share no order."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:7], "big")
