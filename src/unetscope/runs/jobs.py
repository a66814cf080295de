"""One training of a variant in a process of its own: `python -m unetscope.runs.jobs FOLDER`.

A job is a run folder that is trained and not measured. Every finished epoch has its checkpoint, so a job that is killed loses
none of them, and continues when it is started again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from jaxtyping import Integer
from torch import Tensor

from unetscope.activations import eval_mode, pixels, to_input
from unetscope.base import NoProgress, UnetscopeError, end_with_parent
from unetscope.networks import UNet
from unetscope.runs.experiment import build_unet, load_images
from unetscope.runs.folder import RunFolder, refuse_other_data
from unetscope.runs.pictures import example_pictures, examples_of, prediction_pictures
from unetscope.table import marked_epochs
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
    config = validated_config(folder.configuration)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    images, held_out = load_images(config.data, NoProgress())
    refuse_other_data(folder, images, held_out)
    model = build_unet(config, images.channels, images.classes)
    examples = examples_of(held_out)
    shown = marked_epochs(config.measuring.marked, config.training.epochs)
    with folder.locked(patience=LOCK_PATIENCE_SECONDS):
        folder.describe(model.layers, model.skips, example_pictures(examples))
        trainer = Trainer(
            model,
            images,
            held_out,
            config.training,
            folder.checkpoints,
            marked=shown,
            seed=config.seed,
            seconds_between_checkpoints=0.0,
        )
        trainer.run(
            on_epoch=folder.write_epoch,
            on_marked=lambda epoch, _: folder.write_measurement(epoch, (), prediction_pictures(model, examples, epoch)),
        )
        for epoch in trainer.checkpoints.epochs()[:-1]:
            trainer.checkpoints.remove(epoch)
        folder.end({"constant channels": constant_channels(model, pixels(held_out), held_out.scale)})
    return folder


def constant_channels(model: UNet, images: Integer[Tensor, "n c h w"], scale: float) -> dict[str, float]:
    """By layer, the share of channels that are constant over all places and images, as those of dead units are.

    >>> from torch import nn
    >>> model = UNet(2, depth=1)
    >>> _ = nn.init.constant_(model.layer1[0].bias, -100.0)                       # no pixel reaches above that
    >>> shares = constant_channels(model, torch.randint(0, 255, (2, 3, 8, 8)), 1 / 255)
    >>> shares["1"], shares["2"]
    (1.0, 1.0)
    """
    device = next(model.parameters()).device
    lows: dict[str, Tensor] = {}
    highs: dict[str, Tensor] = {}

    def widen(label: str, values: Tensor) -> None:
        low, high = values.amin(dim=(0, 2, 3)), values.amax(dim=(0, 2, 3))
        lows[label] = torch.minimum(lows.get(label, low), low)
        highs[label] = torch.maximum(highs.get(label, high), high)

    hooks = [
        model.get_submodule(layer.module).register_forward_hook(
            lambda _module, _inputs, values, label=layer.label: widen(label, values)
        )
        for layer in model.layers
        if not layer.parts
    ]
    try:
        with eval_mode(model):
            for batch in images.split(BATCH):
                model(to_input(batch.to(device), scale))
    finally:
        for hook in hooks:
            hook.remove()
    return {label: (lows[label] == highs[label]).float().mean().item() for label in lows}


def main() -> None:
    """Train the folder of the command line; with `--with-parent`, only as long as the parent process lives."""
    words = sys.argv[1:]
    if "--with-parent" in words:
        words.remove("--with-parent")
        end_with_parent()
    try:
        train(words[0])
    except UnetscopeError as mistake:
        sys.stderr.write(f"unetscope: {mistake}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
