"""A design of a run with the weights of its whole network, to write, to fine-tune or to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unetscope.activations import device_of
from unetscope.base import InvalidArgument, Progress, RunFolderError
from unetscope.data import SegmentationData
from unetscope.networks import Structure, UNet, inspect
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import (
    BuiltNetwork,
    built_network,
    designed,
    local_config,
    refuse_other_network,
    smaller_network,
)
from unetscope.runs.code_consent import allow_code
from unetscope.runs.folder import RunFolder, refuse_other_data
from unetscope.runs.images import load_images
from unetscope.runs.retraining import trained_variants
from unetscope.runs.verification import chosen_variants
from unetscope.table import REFERENCE, Variant
from unetscope.training import Checkpoints, RunConfig, Trainer, laid_out


@dataclass(frozen=True, eq=False)
class Carried:
    """A run's network after its last kept epoch, and a smaller one with its weights.

    design, config: of the smaller network. share: of its weights that come from the whole one.
    """

    run: AnalysedRun
    design: Variant
    config: RunConfig
    epoch: int
    train: SegmentationData
    held_out: SegmentationData
    whole: BuiltNetwork
    small: BuiltNetwork
    share: float


def carried(judged: AnalysedRun, design: str, *, or_whole: bool, code: str | None, progress: Progress) -> Carried:
    """The weights of a run that this package trained in a design. or_whole: whether it may be the whole network, which then
    is proposed.

    Raises: as `slimming.slim`.
    """
    folder = judged.folder
    if not judged.trained_here:
        raise InvalidArgument(
            f"{folder.path} was measured in a loop of its own, and keeps no images to find directions of skips on: "
            "us.networks.thinned takes them"
        )
    allow_code(folder, code)
    variant, config = chosen_design(judged, design, or_whole), local_config(folder)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    train, held_out = load_images(config.data, progress)
    refuse_other_data(folder, train, held_out)
    whole, small_config = (
        built_network(config, train.channels, train.classes, train.ignore),
        designed(config, variant),
    )
    refuse_other_network(folder, whole)
    epoch = load_last(folder, whole.model)
    small, share = smaller(whole, small_config, train)
    return Carried(judged, variant, small_config, epoch, train, held_out, whole, small, share)


def chosen_design(run: AnalysedRun, name: str, or_whole: bool) -> Variant:
    """A design of a run by its name. or_whole: whether it may be the whole network, which then is proposed.

    Raises: InvalidArgument for a name that means nothing here, or the whole network where it may not be.
    """
    variants = chosen_variants(run, [REFERENCE if or_whole and name == "proposed" else name])
    if or_whole:
        return variants[-1]
    if len(variants) == 1:
        raise InvalidArgument(f"{name} is the whole network: name what to leave out, such as without-skip1 or depth3")
    return variants[1]  # the first one is the reference


def smaller(whole: BuiltNetwork, config: RunConfig, train: SegmentationData) -> tuple[BuiltNetwork, float]:
    """The network of a configuration with the weights of the whole one, and the share of its weights that it has from there."""
    small = smaller_network(whole, config, train.channels, train.classes)
    if whole.structure is not None:
        return small, 1.0
    assert isinstance(whole.model, UNet)
    assert isinstance(small.model, UNet)
    return small, carry_over(whole.model, small.model)


def carry_over(whole: UNet, small: UNet) -> float:
    """Give a smaller network the weights of the whole one where there is the same layer; the share of its weights so given.

    Layers are the same by what they do at their level. A convolution that no skip joins any more keeps the half that reads the
    upsampled path, which stands first in the concatenation.

    >>> whole, small = UNet(2, depth=2), UNet(2, depth=2, without=["skip1"])
    >>> carry_over(whole, small)
    1.0
    >>> bool((small.layer12[0].weight == whole.layer12[0].weight[:, :2]).all())
    True
    """
    source = _by_place(whole)
    carried = total = 0
    with torch.no_grad():
        for place, module in _by_place(small).items():
            weights = dict(source[place].named_parameters()) if place in source else {}
            for name, weight in module.named_parameters():
                total += weight.numel()
                if name in weights and (fitting := _fitting(weights[name], weight.shape)) is not None:
                    weight.copy_(fitting)
                    carried += weight.numel()
    return carried / total


def _by_place(model: UNet) -> dict[tuple[int, str, int], nn.Module]:
    """Every layer with weights by its level, its side of the U, and its number there."""
    layers: dict[tuple[int, str, int], nn.Module] = {}
    for layer in model.layers:
        if not layer.parts:
            side = "encoder" if layer.role == "bottom" else layer.role  # a bottom is the encoder's last level
            number = sum(place[:2] == (layer.level, side) for place in layers)
            layers[layer.level, side, number] = model.get_submodule(layer.module)
    return layers


def _fitting(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor | None:
    """The weight, or the half of it that reads the first input channels, if that has the shape; else None."""
    if weight.shape == shape:
        return weight
    first = weight[:, : shape[1]] if weight.ndim > 1 else weight
    return first if first.shape == shape else None


def inspected(network: nn.Module, image: Tensor) -> Structure:
    """The structure of a network, which is found on the CPU. The network stays on its device."""
    device = device_of(network)
    try:
        return inspect(network.cpu(), image)
    finally:
        network.to(device)


def retraining_of(run: AnalysedRun, design: Variant) -> RunFolder:
    """The run folder of a design's retraining, of the first seed that started.

    Raises: RunFolderError if there is none.
    """
    has_ended = False
    for trial in trained_variants(run.folder):
        if not trial.variant.is_same_network(design):
            continue
        trained = RunFolder.open(trial.path)
        if trained.ending is not None and run.training(trial).sound:
            return trained
        has_ended = has_ended or trained.ending is not None
    if has_ended:
        raise RunFolderError(
            f"no retraining of {design.name} has started to learn: add seeds by unetscope verify --seeds, or train a run of "
            "more epochs"
        )
    raise RunFolderError(
        f"{design.name} has not been retrained to its end: unetscope verify {run.path} --variants {design.name}"
    )


def train_on(
    of_run: Carried, built: BuiltNetwork, folder: Path, epochs: int, on_epoch: Callable[[int, float], None]
) -> None:
    """Train a design of a run on from its present weights, as the run was trained; one that was stopped, or that ended after
    fewer epochs, goes on. on_epoch: is called with the epoch and the validation Dice.

    Raises: InvalidArgument if the folder holds a longer training.
    """
    if (done := max(Checkpoints(folder).epochs(), default=0)) > epochs:
        raise InvalidArgument(
            f"{folder} was trained on for {done} epochs already: ask for {done} or more, or remove that folder"
        )
    training, data = of_run.config.training.model_copy(update={"epochs": epochs}), (of_run.train, of_run.held_out)
    trainer = Trainer(built.model, *data, training, folder, seed=of_run.config.seed, reading=built.reading)
    trainer.run(on_epoch=lambda record: on_epoch(record.epoch, record.validation_dice))
    laid_out(built.model, of_run.config.training)


def load_last(folder: RunFolder, model: nn.Module) -> int:
    """Give a network the weights of a run's last kept epoch, which is returned."""
    kept = Checkpoints(folder.checkpoints)
    if not kept.epochs():
        raise RunFolderError(f"{folder.path} keeps no checkpoint: train it first")
    epoch = kept.epochs()[-1]
    kept.load_weights(epoch, model)
    return epoch
