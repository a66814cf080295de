"""Write the smaller network: weights carried over from the whole one, and fine-tuned or retrained if asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

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
from unetscope.runs.building import BuiltNetwork, built_network, code_and_arguments
from unetscope.runs.carrying import Carried, carried, load_last
from unetscope.runs.exporting import Export, check_exports, exported
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import trained_variants
from unetscope.runs.thin_skips import FOLDER, with_thin_skips
from unetscope.table import Savings, Variant
from unetscope.training import Checkpoints, RunConfig, Task, Trainer, laid_out, validation_scores


@dataclass(frozen=True)
class Slim:
    """A smaller network on the disk, and how good it is.

    path: the file of its weights, which `loaded_by` loads. dice_*: mean validation Dice, in float32, of the whole network, of
    the smaller one with the weights carried over, and of the written file. carried: the share of its weights that come from
    the whole one. fine_tuned: epochs. exports: further files. dice_per_class: of class maps, that of the written file for
    each class. thin: how many directions are kept of which skips.
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
    thin: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What is left of the network, for people."""
        return ", ".join([self.design.text, *(f"{skip} of {kept} directions" for skip, kept in self.thin.items())])

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
    thin: Mapping[str, int] | None = None,
    fine_tune: int = 0,
    retrained: bool = False,
    exports: tuple[Export, ...] = (),
    code: str | None = None,
    progress: Progress | None = None,
) -> Slim:
    """Write a run's network without some of its parts, to RUN/slim/DESIGN/model.safetensors (DESIGN-fine-tuned,
    DESIGN-retrained), and beside it for a network that code builds `network.json`, which says how.

    design: a variant's name, by default what the verdicts propose, or with `thin` the whole network. thin: how many
    directions to keep of skips that are left, such as `{"skip1": 4}`, see `networks.thinned`. fine_tune: epochs to train the
    carried weights on, as the run was trained; called again with more, it continues. retrained: take the weights of its
    retraining by `verify`, of the first seed that started, instead of the run's. exports: `onnx` and `torch` (a program of
    `torch.export`), for images of the run's size. code: the network's, of a run that was begun elsewhere, as consent to run
    it.

    Raises: InvalidArgument for a design that cannot be, or that is the whole network; RunFolderError if the run has no
    checkpoint, or its data have changed.
    """
    progress = progress or NoProgress()
    thin = thin or {}
    if retrained and (fine_tune or thin):
        raise InvalidArgument(
            "retrained weights are taken as they are: leave out one of retrained and fine_tune or thin"
        )
    check_exports(exports)
    of_run = carried(run, design, or_whole=bool(thin), code=code, progress=progress)
    folder, variant, train, held_out = of_run.run.folder, of_run.design, of_run.train, of_run.held_out
    whole, built, share = of_run.whole, of_run.small, of_run.share
    if thin:
        built = with_thin_skips(of_run, thin)
    small = built.model
    read = whole.reading
    dice_whole, dice_carried = (validation_scores(each.model, held_out, read).mean for each in (whole, built))
    kind = "-retrained" if retrained else "-fine-tuned" if fine_tune else ""  # no kind overwrites another
    name = "-".join([variant.name, *(f"thin-{skip}-{kept}" for skip, kept in sorted(thin.items()))])
    out = folder.path / FOLDER / f"{name}{kind}"
    out.mkdir(parents=True, exist_ok=True)
    if retrained:
        built = built_network(of_run.config, train.channels, train.classes, train.ignore)
        small, share = built.model, 0.0
        load_last(_retraining(of_run.run, variant), small)
    elif fine_tune:
        with folder.locked():
            _fine_tune(of_run, built, out / f"training-{of_run.epoch}", fine_tune, progress)
    saved = Savings(*costs([whole.model, small], (train.channels, *train.image_size)))
    scores = validation_scores(small, held_out, read)
    dice = scores.mean
    path, written = _write(of_run.config, built, out, variant, dice, train, exports)
    result = Slim(
        path, variant, dice_whole, dice_carried, dice, share, fine_tune, saved, written, scores.class_means, dict(thin)
    )
    with whole_file(out / "slim.json") as beside:
        beside.write_text(json.dumps(result.as_dict(), indent=2) + "\n", encoding="utf-8")
    return result


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
        path = save_parts(model, out, *code_and_arguments(config.network, train.channels, Task.of(train))) / FILE
    return path, tuple(exported(model, out, kind, (train.channels, *train.image_size)) for kind in exports)


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


def _fine_tune(of_run: Carried, built: BuiltNetwork, folder: Path, epochs: int, progress: Progress) -> None:
    if (done := max(Checkpoints(folder).epochs(), default=0)) > epochs:
        raise InvalidArgument(
            f"{folder} was trained on for {done} epochs already: ask for {done} or more, or remove that folder"
        )
    progress.stage("fine-tuning", epochs)
    training, data = of_run.config.training.model_copy(update={"epochs": epochs}), (of_run.train, of_run.held_out)
    trainer = Trainer(built.model, *data, training, folder, seed=of_run.config.seed, reading=built.reading)
    trainer.run(on_epoch=lambda record: progress.advance(record.epoch, f"validation Dice {record.validation_dice:.3f}"))
    laid_out(built.model, of_run.config.training)
