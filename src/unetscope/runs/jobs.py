"""One training of a variant in a process of its own: `python -m unetscope.runs.jobs FOLDER`.

A job is a run folder that is trained and not measured. Every finished epoch has its checkpoint, so a job that is killed loses
none of them, and continues when it is started again.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Integer
from torch import Tensor, nn

from unetscope.activations import pixels, to_input, visit, with_shapes
from unetscope.base import (
    NoProgress,
    TrainingError,
    UnetscopeError,
    end_with_parent,
    ignore_settings_of_current_folder,
)
from unetscope.runs.building import built_network, refuse_other_network
from unetscope.runs.code_consent import allow_code
from unetscope.runs.folder import RunFolder, refuse_other_data
from unetscope.runs.images import load_images
from unetscope.runs.own_training import built_by_code, train_by_code
from unetscope.runs.pictures import example_pictures, examples_of, prediction_pictures
from unetscope.table import Layer, marked_epochs
from unetscope.training import Trainer, validated_config

LOCK_PATIENCE_SECONDS = 20.0  # a killed process may take so long to let go of the folder
BATCH = 32


def train(path: str | Path) -> RunFolder:
    """Train the network of a run folder to its last epoch, from its newest checkpoint on; a finished one is not changed.

    Raises: UnetscopeError for what the user can mend, such as a loss that is not a number or images that have changed.
    """
    folder = RunFolder.open(path)
    if folder.ending is not None:
        return folder
    allow_code(folder)
    config = validated_config(folder.configuration)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    if config.network.trained_by is not None:
        with folder.locked(patience=LOCK_PATIENCE_SECONDS):
            if folder.ending is not None:  # by another job, for which this one has waited
                return folder
            built = built_by_code(folder, config)
            train_by_code(folder, config, built)
            folder.describe(built.layers, built.skips)
            folder.end({"constant channels": {}})
        return folder
    images, held_out = load_images(config.data, NoProgress())
    refuse_other_data(folder, images, held_out)
    network = built_network(config, images.channels, images.classes, images.ignore)
    refuse_other_network(folder, network)
    model, reading = network.model, network.reading
    examples = examples_of(held_out)
    shown = marked_epochs(config.measuring.marked, config.training.epochs)
    with folder.locked(patience=LOCK_PATIENCE_SECONDS):
        if folder.ending is not None:
            return folder
        folder.describe(network.layers, network.skips, example_pictures(examples))
        trainer = Trainer(
            model,
            images,
            held_out,
            config.training,
            folder.checkpoints,
            marked=shown,
            seed=config.seed,
            seconds_between_checkpoints=0.0,
            reading=reading,
        )
        trainer.run(
            on_epoch=folder.write_epoch,
            on_marked=lambda epoch, _: folder.write_measurement(
                epoch, (), prediction_pictures(model, examples, epoch, reading)
            ),
        )
        for epoch in trainer.checkpoints.epochs()[:-1]:
            trainer.checkpoints.remove(epoch)
        constant = constant_channels(model, network.layers, pixels(held_out), held_out.scale)
        folder.end({"constant channels": constant})
    return folder


def constant_channels(
    model: nn.Module, layers: Sequence[Layer], images: Integer[Tensor, "n c *sides"], scale: float
) -> dict[str, float]:
    """By layer, the share of channels that are constant over all places and images, as those of dead units are.

    >>> from unetscope.networks.unet import UNet
    >>> model = UNet(2, depth=1)
    >>> _ = nn.init.constant_(model.layer1[0].bias, -100.0)                       # no pixel reaches above that
    >>> shares = constant_channels(model, model.layers, torch.randint(0, 255, (2, 3, 8, 8)), 1 / 255)
    >>> shares["1"], shares["2"]
    (1.0, 1.0)
    """
    lows: dict[str, Tensor] = {}
    highs: dict[str, Tensor] = {}

    def widen(_rows: Tensor, layer: Layer, values: Tensor) -> None:
        places = (0, *range(2, values.ndim))
        low, high = values.amin(dim=places), values.amax(dim=places)
        lows[layer.label] = torch.minimum(lows.get(layer.label, low), low)
        highs[layer.label] = torch.maximum(highs.get(layer.label, high), high)

    seen = with_shapes(model, layers, to_input(images[:1], scale))
    captured = [layer for layer in seen if not layer.parts]
    batches = torch.arange(len(images)).split(BATCH)
    visit(model, images, captured, widen, batches=batches, prepare=lambda batch: to_input(batch, scale))
    return {label: (lows[label] == highs[label]).float().mean().item() for label in lows}


def main() -> None:
    """Train the folder of the command line; with `--with-parent`, only as long as the parent process lives."""
    ignore_settings_of_current_folder()
    words = sys.argv[1:]
    if "--with-parent" in words:
        words.remove("--with-parent")
        end_with_parent()
    try:
        train(words[0])
    except UnetscopeError as mistake:
        if isinstance(mistake, TrainingError) and mistake.__cause__ is not None:  # of the user's own code
            traceback.print_exception(mistake.__cause__)
        sys.stderr.write(f"unetscope: {mistake}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
