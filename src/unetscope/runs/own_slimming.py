"""The smaller network of a run that was measured in a loop of the user's own, trained on by that loop."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch
from torch import nn

from unetscope.base import Progress, RunFolderError
from unetscope.networks import costs
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import BuiltNetwork, designed, left_out
from unetscope.runs.carrying import chosen_design, load_last, retraining_of
from unetscope.runs.code_consent import allow_code
from unetscope.runs.exporting import Export
from unetscope.runs.folder import RunFolder, images_of
from unetscope.runs.own_loops import configuration_of
from unetscope.runs.own_training import built_by_code, train_by_code
from unetscope.runs.smaller_files import FOLDER, Slim, write_description, write_network
from unetscope.table import Savings
from unetscope.training import RunConfig, validated_config

BEGUN_FROM = "begun from"  # a fact: the digest of the weights


def slim_of_own_loop(
    run: AnalysedRun,
    design: str,
    *,
    fine_tune: int,
    retrained: bool,
    exports: tuple[Export, ...],
    code: str | None,
    progress: Progress,
) -> Slim:
    """Write a run's network without some of its parts, as `slimming.slim` does.

    The run keeps no weights: those of the whole network, and with `retrained` those of the design, are what the user's loop
    made of the first seed when `verify` called it. With `fine_tune` the loop is called once more, with the smaller network and
    so many epochs. The scores are the loop's own.

    Raises: InvalidArgument for a design that cannot be, or a run whose loop is not named; RunFolderError for a network that
    `verify` has not trained.
    """
    folder, config = run.folder, validated_config(configuration_of(run.folder))
    allow_code(folder, code)
    variant = chosen_design(run, design, or_whole=False)
    reference = retraining_of(run, run.designs[0])
    whole = built_by_code(folder, config)
    load_last(reference, whole.model)
    small_config = designed(config, variant)
    small = left_out(whole, small_config.network)
    out = folder.path / FOLDER / f"{variant.name}{'-retrained' if retrained else '-fine-tuned' if fine_tune else ''}"
    out.mkdir(parents=True, exist_ok=True)
    score, share = math.nan, 1.0
    if retrained:
        of_design = retraining_of(run, variant)
        load_last(of_design, small.model)
        score, share = _score(of_design), 0.0
    elif fine_tune:
        with folder.locked():
            score = _fine_tuned(folder, small_config, small, out / f"training-{fine_tune}", fine_tune, progress)
    for model in (whole.model, small.model):
        model.cpu().eval()
    shape, task = images_of(folder)
    path, written = write_network(
        small, small_config, out, design=variant, dice=score, shape=shape, task=task, exports=exports
    )
    result = Slim(
        path,
        variant,
        dice_whole=_score(reference),
        dice_carried=math.nan,
        dice=score,
        carried=share,
        fine_tuned=fine_tune,
        savings=Savings(*costs([whole.model, small.model], shape)),
        exports=written,
        by_loop=True,
    )
    write_description(result)
    return result


def _fine_tuned(
    run: RunFolder, config: RunConfig, small: BuiltNetwork, path: Path, epochs: int, progress: Progress
) -> float:
    """Train the smaller network on by the user's loop; its last score. One that is finished is read again."""
    config = config.model_copy(update={"training": config.training.model_copy(update={"epochs": epochs})})
    configuration, begun_from = config.model_dump(mode="json"), _digest(small.model)
    if not RunFolder.exists(path):
        RunFolder.create(path, {"configuration": configuration, "facts": {**run.facts, BEGUN_FROM: begun_from}})
    folder = RunFolder.open(path)
    if folder.configuration != configuration or folder.facts.get(BEGUN_FROM) != begun_from:
        raise RunFolderError(
            f"{path} was begun from other weights, or by another loop: remove that folder to train anew"
        )
    if folder.ending is None:
        progress.stage("fine-tuning by the loop", epochs)
        train_by_code(
            folder, config, small, lambda record: progress.advance(record.epoch, f"score {record.validation_dice:.3f}")
        )
        folder.end({"constant channels": {}})
    load_last(folder, small.model)
    return _score(folder)


def _digest(model: nn.Module) -> str:
    """Of the weights and buffers of a network."""
    digest = hashlib.sha256()
    for name, values in model.state_dict().items():
        digest.update(name.encode())
        digest.update(values.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _score(trained: RunFolder) -> float:
    """The last score of a training."""
    return trained.epochs()[-1].validation_dice
