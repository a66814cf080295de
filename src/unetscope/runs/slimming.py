"""Write the smaller network: weights carried over from the whole one, and fine-tuned or retrained if asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unetscope.base import InvalidArgument, NoProgress, Progress, whole_number
from unetscope.networks import costs
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import BuiltNetwork, built_network
from unetscope.runs.carrying import Carried, carried, load_last, retraining_of, train_on
from unetscope.runs.exporting import Export, check_exports
from unetscope.runs.own_slimming import slim_of_own_loop
from unetscope.runs.smaller_files import FOLDER, Slim, write_description, write_network
from unetscope.runs.thin_skips import with_thin_skips
from unetscope.table import Savings
from unetscope.training import MOST_EPOCHS_TRAINED, Scores, Task, validation_scores


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

    Raises: InvalidArgument for a design that cannot be, or that is the whole network, or for epochs that are not 0 to
    1,000,000; RunFolderError if the run has no checkpoint, or its data have changed. Of a run that was measured in a loop of
    its own, see `slim_of_own_loop`.
    """
    fine_tune = whole_number(fine_tune, "fine_tune", least=0, most=MOST_EPOCHS_TRAINED)
    progress = progress or NoProgress()
    thin = thin or {}
    if retrained and (fine_tune or thin):
        raise InvalidArgument(
            "retrained weights are taken as they are: leave out one of retrained and fine_tune or thin"
        )
    check_exports(exports)
    judged = AnalysedRun.open(run)
    if not judged.trained_here and not thin:
        return slim_of_own_loop(
            judged, design, fine_tune=fine_tune, retrained=retrained, exports=exports, code=code, progress=progress
        )
    of_run = carried(judged, design, or_whole=bool(thin), code=code, progress=progress)
    variant, train, whole = of_run.design, of_run.train, of_run.whole
    built = with_thin_skips(of_run, thin) if thin else of_run.small
    dice_whole, dice_carried = (_scores(of_run, each).mean for each in (whole, built))
    kind = "-retrained" if retrained else "-fine-tuned" if fine_tune else ""  # no kind overwrites another
    name = "-".join([variant.name, *(f"thin-{skip}-{kept}" for skip, kept in sorted(thin.items()))])
    out = of_run.run.folder.path / FOLDER / f"{name}{kind}"
    out.mkdir(parents=True, exist_ok=True)
    if retrained:
        built = _retrained(of_run)
    elif fine_tune:
        _fine_tune(of_run, built, out / f"training-{of_run.epoch}", fine_tune, progress)
    shape = (train.channels, *train.image_size)
    scores = _scores(of_run, built)
    path, written = write_network(
        built, of_run.config, out, design=variant, dice=scores.mean, shape=shape, task=Task.of(train), exports=exports
    )
    result = Slim(
        path,
        variant,
        dice_whole=dice_whole,
        dice_carried=dice_carried,
        dice=scores.mean,
        carried=0.0 if retrained else of_run.share,
        fine_tuned=fine_tune,
        savings=Savings(*costs([whole.model, built.model], shape)),
        exports=written,
        dice_per_class=scores.class_means,
        thin=dict(thin),
    )
    write_description(result)
    return result


def _scores(of_run: Carried, network: BuiltNetwork) -> Scores:
    return validation_scores(network.model, of_run.held_out, of_run.whole.reading)


def _retrained(of_run: Carried) -> BuiltNetwork:
    """The design with the weights of its retraining."""
    train = of_run.train
    built = built_network(of_run.config, train.channels, train.classes, train.ignore)
    load_last(retraining_of(of_run.run, of_run.design), built.model)
    return built


def _fine_tune(of_run: Carried, built: BuiltNetwork, folder: Path, epochs: int, progress: Progress) -> None:
    """Train the carried weights on, or go on with it in its folder."""
    with of_run.run.folder.locked():
        progress.stage("fine-tuning", epochs)
        train_on(
            of_run, built, folder, epochs, lambda epoch, dice: progress.advance(epoch, f"validation Dice {dice:.3f}")
        )
