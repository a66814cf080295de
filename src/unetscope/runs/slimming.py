"""The smaller network: weights carried over from the whole one, trained on if wanted, written to be used."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unetscope import __version__
from unetscope.analysis.outcomes import DICE_MARGIN
from unetscope.base.errors import InvalidArgument, MissingDependency, RunFolderError
from unetscope.base.files import whole_file
from unetscope.base.progress import NoProgress, Progress
from unetscope.data.segmentation import SegmentationData
from unetscope.networks.cost import Savings, costs
from unetscope.networks.saved import FILE, save_model
from unetscope.networks.unet import UNet
from unetscope.runs.experiment import build_unet, load_images, refuse_other_data
from unetscope.runs.folder import RunFolder
from unetscope.runs.verification import chosen_variants, trained_variants, training_of
from unetscope.table.variants import Variant
from unetscope.training.checkpoints import Checkpoints
from unetscope.training.config import RunConfig, validated_config
from unetscope.training.trainer import Trainer, laid_out, validation_dice

FOLDER = "slim"
Export = Literal["onnx", "torch"]


@dataclass(frozen=True)
class Slim:
    """What came of a smaller network.

    path: the file that `us.load_model` reads. dice_*: mean validation Dice, in float32, of the whole network, of the smaller
    one with the weights carried over, and as it was written. carried: the share of its weights that come from the whole one.
    exports: further files.
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

    @property
    def loses(self) -> bool:
        """Whether it is worse than the whole network by more than the margin that counts as none."""
        return self.dice < self.dice_whole - DICE_MARGIN

    def as_dict(self) -> dict[str, Any]:
        """All of it, for machines."""
        found = asdict(self)
        return {
            **found,
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
    progress: Progress | None = None,
) -> Slim:
    """Write a run's network without some of its parts, to RUN/slim/DESIGN/model.safetensors (DESIGN-fine-tuned,
    DESIGN-retrained).

    design: a variant's name, by default what the verdicts propose. fine_tune: epochs to train the carried weights on, as the
    run was trained; called again with more, it goes on. retrained: take the weights
    of its retraining by `verify`, of the first seed that started, instead of the run's. exports: `onnx` and `torch` (a
    program of `torch.export`), for images of the run's size.

    Raises: InvalidArgument for a design that cannot be, or that is the whole network; RunFolderError if the run has no
    checkpoint, or its data have changed.
    """
    progress = progress or NoProgress()
    folder = RunFolder.open(run)
    chosen = chosen_variants(folder, [design])
    if len(chosen) == 1:
        raise InvalidArgument(f"{design} is the whole network: name what to leave out, such as without-skip1 or depth3")
    variant, config = chosen[1], _here(folder)
    if retrained and fine_tune:
        raise InvalidArgument("retrained weights are not trained on: leave out one of retrained and fine_tune")
    _check_exports(exports)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    train, held_out = load_images(config.data, progress)
    refuse_other_data(folder, train, held_out)
    whole = build_unet(config, train.channels)
    epoch = _load_last(folder, whole)
    small = build_unet(_smaller(config, variant), train.channels)
    share = carry_over(whole, small)
    dice_whole, dice_carried = _dice(whole, held_out), _dice(small, held_out)
    kind = "-retrained" if retrained else "-fine-tuned" if fine_tune else ""  # none overwrites another
    out = folder.path / FOLDER / f"{variant.name}{kind}"
    out.mkdir(parents=True, exist_ok=True)
    if retrained:
        _load_last(_retraining(folder, variant), small)
        share = 0.0
    elif fine_tune:
        with folder.locked():
            _train_on(small, train, held_out, config, out / f"training-{epoch}", fine_tune, progress)
    saved = Savings(*costs([whole, small], (train.channels, *train.image_size)))
    dice = _dice(small, held_out)
    about = {
        "unetscope": __version__,
        "of": variant.text,
        "validation Dice": dice,
        "image size": list(train.image_size),
    }
    path = save_model(small, out / FILE, about)
    written = tuple(_exported(small, out, kind, (train.channels, *train.image_size)) for kind in exports)
    found = Slim(path, variant, dice_whole, dice_carried, dice, share, fine_tune, saved, written)
    with whole_file(out / "slim.json") as beside:
        beside.write_text(json.dumps(found.as_dict(), indent=2) + "\n", encoding="utf-8")
    return found


def savings(run: RunFolder, design: Variant) -> Savings:
    """What a design costs beside the run's own network, for one image of the run's size."""
    config = _here(run)
    about = run.facts["data"]["train"]
    models = [build_unet(one, about["channels"]) for one in (config, _smaller(config, design))]
    whole, small = costs(models, (about["channels"], *about["image size"]))
    return Savings(whole, small)


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
            known = dict(source[place].named_parameters()) if place in source else {}
            for name, weight in module.named_parameters():
                total += weight.numel()
                if name in known and (fitting := _fitting(known[name], weight)) is not None:
                    weight.copy_(fitting)
                    carried += weight.numel()
    return carried / total


def _by_place(model: UNet) -> dict[tuple[int, str, int], nn.Module]:
    """Every layer with weights by its level, its side of the U, and its number there."""
    found: dict[tuple[int, str, int], nn.Module] = {}
    for layer in model.layers:
        if not layer.parts:
            side = "encoder" if layer.role == "bottom" else layer.role  # a bottom is the encoder's last level
            number = sum(level == layer.level and of == side for level, of, _ in found)
            found[layer.level, side, number] = model.get_submodule(layer.module)
    return found


def _fitting(weight: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor | None:
    """The weight, or its first half of input channels, if that has the shape wanted."""
    if weight.shape == wanted.shape:
        return weight
    first = weight[:, : wanted.shape[1]] if weight.ndim > 1 else weight
    return first if first.shape == wanted.shape else None


def _here(folder: RunFolder) -> RunConfig:
    """A run's configuration on the device that there is here: one trained with CUDA is read where there is none."""
    config = validated_config(folder.configuration)
    if config.training.device != "cuda":
        return config
    return config.model_copy(update={"training": config.training.model_copy(update={"device": "auto"})})


def _smaller(config: RunConfig, design: Variant) -> RunConfig:
    return config.model_copy(update={"network": config.network.model_copy(update=design.network)})


def _load_last(folder: RunFolder, model: nn.Module) -> int:
    """Give a network the weights of a run's last kept epoch, which is returned."""
    kept = Checkpoints(folder.checkpoints)
    if not kept.epochs():
        raise RunFolderError(f"{folder.path} keeps no checkpoint: train it first")
    epoch = kept.epochs()[-1]
    kept.load_weights(epoch, model)
    return epoch


def _retraining(folder: RunFolder, design: Variant) -> RunFolder:
    """The run folder of a design's retraining, of the first seed that started."""
    for trial in trained_variants(folder):
        same = trial.variant.is_same_network(design)
        if same and RunFolder.open(trial.path).ending is not None and training_of(trial).sound:
            return RunFolder.open(trial.path)
    raise RunFolderError(
        f"{design.name} has not been retrained, or no seed of it started: "
        f"unetscope verify {folder.path} --variants {design.name}"
    )


def _train_on(
    model: UNet,
    train: SegmentationData,
    held_out: SegmentationData,
    config: RunConfig,
    folder: Path,
    epochs: int,
    progress: Progress,
) -> None:
    if (there := max(Checkpoints(folder).epochs(), default=0)) > epochs:
        raise InvalidArgument(
            f"{folder} was trained on for {there} epochs already: ask for {there} or more, or remove that folder"
        )
    progress.stage("fine-tuning", epochs)
    trainer = Trainer(
        model, train, held_out, config.training.model_copy(update={"epochs": epochs}), folder, seed=config.seed
    )
    trainer.run(on_epoch=lambda record: progress.advance(record.epoch, f"validation Dice {record.validation_dice:.3f}"))
    laid_out(model, config.training)


def _dice(model: nn.Module, data: SegmentationData) -> float:
    return float(validation_dice(model, data).mean())


def _check_exports(exports: tuple[Export, ...]) -> None:
    for kind in exports:
        if kind not in {"onnx", "torch"}:
            raise InvalidArgument(f"export {kind!r}: expected onnx or torch")
        if kind == "onnx":
            try:
                import onnx  # noqa: F401
                import onnxscript  # noqa: F401
            except ImportError:
                raise MissingDependency('ONNX needs onnx and onnxscript: pip install "unetscope[onnx]"') from None


def _exported(model: UNet, folder: Path, kind: Export, shape: tuple[int, ...]) -> Path:
    """The network as ONNX or as an exported program, for any number of images of one size."""
    plain = model.cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(plain, (torch.rand(2, *shape),), dynamic_shapes=({0: batch},))
    path = folder / ("model.onnx" if kind == "onnx" else "model.pt2")
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        written = Path(beside, path.name)
        if kind == "torch":
            torch.export.save(program, written)
        else:
            with _without_chatter():
                torch.onnx.export(program, f=str(written), external_data=False, dynamo=True, verbose=False)
        written.replace(path)
    return path


@contextmanager
def _without_chatter() -> Iterator[None]:
    """The exporter tells of packages that it could use, and warns of itself; neither is the user's to mend."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
