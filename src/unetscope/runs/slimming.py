"""Write the smaller network: weights carried over from the whole one, and fine-tuned or retrained if asked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unetscope import __version__
from unetscope.analysis import DICE_MARGIN
from unetscope.base import (
    InvalidArgument,
    NoProgress,
    Progress,
    RunFolderError,
    whole_file,
)
from unetscope.data import SegmentationData
from unetscope.networks import DESCRIPTION, FILE, Rewired, UNet, costs, save_model, save_parts
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
from unetscope.runs.experiment import load_images
from unetscope.runs.exporting import Export, check_exports, exported
from unetscope.runs.folder import RunFolder, refuse_other_data
from unetscope.runs.retraining import trained_variants
from unetscope.runs.verification import chosen_variants
from unetscope.table import Savings, Variant
from unetscope.training import Checkpoints, RunConfig, Trainer, laid_out, validation_scores

FOLDER = "slim"


@dataclass(frozen=True)
class Slim:
    """A smaller network on the disk, and how good it is.

    path: the file of its weights, which `loaded_by` loads. dice_*: mean validation Dice, in float32, of the whole network, of
    the smaller one with the weights carried over, and of the written file. carried: the share of its weights that come from
    the whole one. fine_tuned: epochs. exports: further files. dice_per_class: of class maps, that of the written file for
    each class.
    """

    path: Path
    design: Variant
    dice_whole: float
    dice_carried: float
    dice: float
    carried: float
    fine_tuned: int
    savings: Savings
    exports: tuple[Path, ...]
    dice_per_class: tuple[float, ...] = ()

    @property
    def loaded_by(self) -> str:
        """The Python that loads it."""
        if (self.path.parent / DESCRIPTION).is_file():
            return f"us.networks.load_parts({str(self.path.parent)!r})"
        return f"us.load_model({str(self.path)!r})"

    @property
    def loses(self) -> bool:
        """Whether it is worse than the whole network by more than the margin that counts as none."""
        return self.dice < self.dice_whole - DICE_MARGIN

    def as_dict(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            **asdict(self),
            "path": str(self.path),
            "design": self.design.as_dict(),
            "exports": [str(path) for path in self.exports],
        }


def slim(
    run: str | Path,
    design: str = "proposed",
    *,
    fine_tune: int = 0,
    retrained: bool = False,
    exports: tuple[Export, ...] = (),
    code: str | None = None,
    progress: Progress | None = None,
) -> Slim:
    """Write a run's network without some of its parts, to RUN/slim/DESIGN/model.safetensors (DESIGN-fine-tuned,
    DESIGN-retrained), and beside it for a network that code builds `network.json`, which says how.

    design: a variant's name, by default what the verdicts propose. fine_tune: epochs to train the carried weights on, as the
    run was trained; called again with more, it continues. retrained: take the weights of its retraining by `verify`, of the
    first seed that started, instead of the run's. exports: `onnx` and `torch` (a program of `torch.export`), for images of
    the run's size. code: the network's, of a run that was begun elsewhere, as consent to run it.

    Raises: InvalidArgument for a design that cannot be, or that is the whole network; RunFolderError if the run has no
    checkpoint, or its data have changed.
    """
    progress = progress or NoProgress()
    judged = AnalysedRun.open(run)
    folder = judged.folder
    if not judged.own_network:
        raise InvalidArgument(
            f"{folder.path} was measured in a loop of its own: us.without takes skips and levels out of the network; the "
            "weights of variants that verify retrained are in verification/VARIANT/seed-K/checkpoints"
        )
    allow_code(folder, code)
    variant, config = _chosen_design(judged, design), local_config(folder)
    if retrained and fine_tune:
        raise InvalidArgument("retrained weights are not trained on: leave out one of retrained and fine_tune")
    check_exports(exports)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    train, held_out = load_images(config.data, progress)
    refuse_other_data(folder, train, held_out)
    whole, small_config = built_network(config, train.channels, train.classes, train.ignore), designed(config, variant)
    refuse_other_network(folder, whole)
    epoch, read = _load_last(folder, whole.model), whole.reading
    built = smaller_network(whole, small_config, train.channels, train.classes)
    small, share = built.model, _carried_over(whole, built)
    dice_whole, dice_carried = (validation_scores(each.model, held_out, read).mean for each in (whole, built))
    kind = "-retrained" if retrained else "-fine-tuned" if fine_tune else ""  # no kind overwrites another
    out = folder.path / FOLDER / f"{variant.name}{kind}"
    out.mkdir(parents=True, exist_ok=True)
    if retrained:
        built = built_network(small_config, train.channels, train.classes, train.ignore)
        small, share = built.model, 0.0
        _load_last(_retraining(judged, variant), small)
    elif fine_tune:
        with folder.locked():
            _fine_tune(built, train, held_out, config, out / f"training-{epoch}", fine_tune, progress)
    saved = Savings(*costs([whole.model, small], (train.channels, *train.image_size)))
    scores = validation_scores(small, held_out, read)
    dice = scores.mean
    path, written = _write(config, built, out, variant, dice, train, exports)
    result = Slim(path, variant, dice_whole, dice_carried, dice, share, fine_tune, saved, written, scores.class_means)
    with whole_file(out / "slim.json") as beside:
        beside.write_text(json.dumps(result.as_dict(), indent=2) + "\n", encoding="utf-8")
    return result


def _chosen_design(run: AnalysedRun, name: str) -> Variant:
    variants = chosen_variants(run, [name])
    if len(variants) == 1:
        raise InvalidArgument(f"{name} is the whole network: name what to leave out, such as without-skip1 or depth3")
    return variants[1]  # the first one is the reference


def _write(
    config: RunConfig,
    built: BuiltNetwork,
    out: Path,
    design: Variant,
    dice: float,
    train: SegmentationData,
    exports: tuple[Export, ...],
) -> tuple[Path, tuple[Path, ...]]:
    """The network's own files, and its exports."""
    model = built.model
    if isinstance(model, UNet):
        about = {
            "unetscope": __version__,
            "of": design.text,
            "validation Dice": dice,
            "image size": list(train.image_size),
        }
        path = save_model(model, out / FILE, about)
    else:
        assert isinstance(model, Rewired)
        path = save_parts(model, out, config.network.code or "", config.network.arguments) / FILE
    return path, tuple(exported(model, out, kind, (train.channels, *train.image_size)) for kind in exports)


def _carried_over(whole: BuiltNetwork, small: BuiltNetwork) -> float:
    """Give the smaller network the weights of the whole one; the share of its weights that it has from there."""
    if whole.structure is not None:
        return 1.0
    assert isinstance(whole.model, UNet)
    assert isinstance(small.model, UNet)
    return carry_over(whole.model, small.model)


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


def _load_last(folder: RunFolder, model: nn.Module) -> int:
    """Give a network the weights of a run's last kept epoch, which is returned."""
    kept = Checkpoints(folder.checkpoints)
    if not kept.epochs():
        raise RunFolderError(f"{folder.path} keeps no checkpoint: train it first")
    epoch = kept.epochs()[-1]
    kept.load_weights(epoch, model)
    return epoch


def _retraining(run: AnalysedRun, design: Variant) -> RunFolder:
    """The run folder of a design's retraining, of the first seed that started."""
    for trial in trained_variants(run.folder):
        if trial.variant.is_same_network(design) and run.training(trial).sound:
            trained = RunFolder.open(trial.path)
            if trained.ending is not None:
                return trained
    raise RunFolderError(
        f"{design.name} has not been retrained, or no seed of it started: "
        f"unetscope verify {run.path} --variants {design.name}"
    )


def _fine_tune(
    built: BuiltNetwork,
    train: SegmentationData,
    held_out: SegmentationData,
    config: RunConfig,
    folder: Path,
    epochs: int,
    progress: Progress,
) -> None:
    if (done := max(Checkpoints(folder).epochs(), default=0)) > epochs:
        raise InvalidArgument(
            f"{folder} was trained on for {done} epochs already: ask for {done} or more, or remove that folder"
        )
    progress.stage("fine-tuning", epochs)
    training = config.training.model_copy(update={"epochs": epochs})
    trainer = Trainer(built.model, train, held_out, training, folder, seed=config.seed, reading=built.reading)
    trainer.run(on_epoch=lambda record: progress.advance(record.epoch, f"validation Dice {record.validation_dice:.3f}"))
    laid_out(built.model, config.training)
