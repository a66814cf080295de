"""The main job: load data, train, measure at the marked epochs, keep everything in a run folder.

Everything that can be refused is refused before the run folder is made.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from unetscope import __version__
from unetscope.base import InvalidArgument, NoProgress, Progress, first_line
from unetscope.data import SegmentationData
from unetscope.estimators import BlockLabels, KMeansLabels, entropy_nats
from unetscope.measure import Compute, Probes, Scope
from unetscope.networks import check_image_size, removed_skips
from unetscope.runs.building import (
    BuiltNetwork,
    built_network,
    local_config,
    network_facts,
    refuse_other_network,
    same_weights_for_every_seed,
    untrained_predictions,
)
from unetscope.runs.code_consent import allow_code
from unetscope.runs.folder import RunFolder, data_facts, refuse_other_data
from unetscope.runs.images import load_images
from unetscope.runs.kept_silenced import keep_silenced, kept_silenced
from unetscope.runs.memory_needs import MemoryNeeds, little_memory, memory_needs
from unetscope.runs.moves import keep_move
from unetscope.runs.pace import Pace, fastest_threads
from unetscope.runs.pictures import cluster_pictures, example_pictures, examples_of, prediction_pictures
from unetscope.runs.prospects import prospects, refuse_untrainable
from unetscope.runs.resuming import resumed_or_new, with_depth
from unetscope.runs.silencing import Silencing
from unetscope.runs.trackers import Follower, check_tracker
from unetscope.table import (
    CLUSTERS,
    REFERENCE,
    EpochRecord,
    Variant,
    built,
    by_thirds,
    marked_epochs,
    parts_named,
    settings,
)
from unetscope.training import (
    PRESETS,
    Checkpoints,
    DataConfig,
    MeasuringConfig,
    RunConfig,
    Trainer,
    check_environment,
    laid_out,
    overridden_config,
    resolved_device,
)

LOOKING_SECONDS = 0.5  # that another process may take to see that there is a run already
NOTHING: dict[str, Any] = {setting.name: setting.nothing for setting in settings()}


@dataclass(frozen=True, eq=False)
class Experiment:
    """A configuration with its data, its network and what will be measured: ready to train, nothing written yet."""

    config: RunConfig
    train: SegmentationData
    validation: SegmentationData
    network: BuiltNetwork
    scope: Scope
    warnings: tuple[str, ...] = ()

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.network.model

    def memory_needs(self) -> MemoryNeeds:
        """What training and measuring take beyond what is prepared."""
        return memory_needs(self.config, self.network, self.scope, self.train.channels)

    @property
    def marked(self) -> tuple[int, ...]:
        """The epochs that are measured and whose checkpoints are kept."""
        return marked_epochs(self.config.measuring.marked, self.config.training.epochs)

    def facts(self) -> dict[str, Any]:
        """What decides the numbers beside the configuration, and what a reader asks first."""
        return {
            "versions": {
                "unetscope": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": np.__version__,
            },
            "device": _device_name(self.config),
            "data": {"train": data_facts(self.train), "validation": data_facts(self.validation)},
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            "probe images": len(self.scope.probe_set),
            **network_facts(self.config.network, self.network),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "H(Y) bits": {name: entropy_nats(classes) / math.log(2) for name, classes in self.scope.classes.items()},
        }


def prepare(config: RunConfig, progress: Progress | None = None) -> Experiment:
    """Load and check the data, build the network, make the labels. Writes nothing but the cache of decoded images.

    Raises: UnetscopeError for anything that the user can mend.
    """
    progress = progress or NoProgress()
    torch.set_num_threads(config.threads or torch.get_num_threads())
    if config.network.code is None:
        _refuse_volumes_of_unet(config.data)
        check_image_size(config.data.sides, config.network.depth)
        removed_skips(config.network.depth, config.network.without)
    marked = marked_epochs(config.measuring.marked, config.training.epochs)
    train, validation = load_images(config.data, progress)
    network = built_network(config, train.channels, train.classes, train.ignore)
    config = _with_threads(config, network, (train.channels, *config.data.sides), progress)
    predictions = untrained_predictions(config, network, train.channels)
    config = with_depth(config, max(1, min(config.network.depth, network.depth)))
    progress.stage("labels", 0)
    merge_epochs = by_thirds(marked) if config.measuring.merge_epochs == "thirds" else None
    scope = _scope(network, train, validation, config, merge_epochs)
    # Warnings come last: what is refused is refused in one line.
    warned = (
        *prospects(config, train, validation),
        *network.gaps,
        *same_weights_for_every_seed(config.network),
        *predictions,
        *_of_fewer_clusters(config.measuring, scope),
    )
    for warning in warned:
        progress.warn(warning)
    return Experiment(config, train, validation, network, scope, warned)


def _with_threads(config: RunConfig, network: BuiltNetwork, shape: tuple[int, ...], progress: Progress) -> RunConfig:
    """The configuration with a number of threads, from here on in use: the fastest here and now, if none is named."""
    if config.threads is not None:
        return config
    progress.stage("timing threads", 0)
    threads, seconds = fastest_threads(network, config.training, shape)
    if threads < (most := max(seconds, default=threads)):
        progress.warn(
            f"{threads} of {most} threads: a training step takes {seconds[threads]:.2g} s with {threads} and "
            f"{seconds[most]:.2g} s with {most}, as beside a busy process (--threads chooses)"
        )
    torch.set_num_threads(threads)
    return config.model_copy(update={"threads": threads})


def _refuse_volumes_of_unet(data: DataConfig) -> None:
    """Raises: InvalidArgument if this package's U-Net, which takes flat images, is to be trained on volumes."""
    if len(data.sides) == 2:
        return
    depth, height, width = data.sides
    raise InvalidArgument(
        f"the U-Net of this package takes flat images, and --image-size {depth}x{height}x{width} is of volumes: name a network "
        f"that takes them with --network, or say --image-size {height}x{width}, which makes an image of each slice"
    )


def run(
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    code: str | None = None,
    progress: Progress | None = None,
    track: str | None = None,
) -> RunFolder:
    """Train and measure into a run folder; with `resume`, continue a run of the same configuration.

    code: the network's, of a run that was begun elsewhere, as consent to run it. track: a tracker, `"tensorboard"`,
    `"mlflow"` or `"wandb"`, that shows the scalars during the run.

    Raises: UnetscopeError for anything that the user can mend; a folder that is refused is not changed.
    """
    progress = progress or NoProgress()
    check_tracker(track)
    check_environment()
    config, folder = resumed_or_new(config, out, resume=resume, code=code, progress=progress)
    experiment = prepare(config, progress)
    if folder is not None:
        refuse_other_data(folder, experiment.train, experiment.validation)
        refuse_other_network(folder, experiment.network)
    else:
        refuse_untrainable(config.data, experiment.train, experiment.validation)
    if warning := little_memory(experiment.memory_needs(), torch.device(config.training.device)):
        progress.warn(warning)
    if folder is None:
        values = {"configuration": experiment.config.model_dump(mode="json"), "facts": experiment.facts()}
        folder = RunFolder.create(out, values)
    with folder.locked(patience=LOOKING_SECONDS):
        keep_move(folder, experiment.config)
        follower = Follower(folder, track, progress.warn)
        try:
            _train_and_measure(experiment, folder, progress, follower)
        finally:
            follower.close()
    return folder


def measure_again(
    path: str | Path,
    named: Mapping[str, Any],
    *,
    epochs: Sequence[int] = (),
    code: str | None = None,
    progress: Progress | None = None,
) -> RunFolder:
    """Measure the kept checkpoints of a run with the named estimators only; earlier estimates stay.

    named: values of `MeasuringConfig`, such as `{"mixtures": [0.1]}`. epochs: some of those that are kept, by default all that
    were measured, or all if none was. code: the network's, of a run that was begun elsewhere, as consent to run it.

    Raises: UnetscopeError for a folder that is no run, for other data, epochs without a checkpoint, or if nothing is named.
    """
    progress = progress or NoProgress()
    folder = RunFolder.open(path)
    kept = Checkpoints(folder.checkpoints)
    if missing := sorted(set(epochs) - set(kept.epochs())):
        raise InvalidArgument(
            f"{folder.path} keeps no checkpoint of epoch {missing[0]}: it has {', '.join(map(str, kept.epochs())) or 'none'}"
        )
    if not named.keys() & NOTHING.keys():
        flags = ", ".join(f"{setting.name} ({setting.flag})" for setting in settings())
        raise InvalidArgument(f"nothing to measure: name any of {flags}")
    allow_code(folder, code)
    config = overridden_config(
        local_config(folder).model_dump(mode="json"),
        {f"measuring.{name}": value for name, value in {**NOTHING, "merge_epochs": "all", **named}.items()},
    )
    experiment = prepare(config, progress)
    refuse_other_data(folder, experiment.train, experiment.validation)
    refuse_other_network(folder, experiment.network)
    laid_out(experiment.model, config.training)
    chosen = sorted(set(epochs)) or [epoch for epoch in kept.epochs() if folder.measured(epoch)] or list(kept.epochs())
    if not chosen:
        raise InvalidArgument(f"{folder.path} keeps no checkpoint: there is nothing to measure")
    silencing, silenced = silencing_of(experiment, progress), {row.epoch for row in kept_silenced(folder)}
    progress.stage("measuring", len(chosen))
    with folder.locked():
        for done, epoch in enumerate(chosen):
            kept.load_weights(epoch, experiment.model)
            if silencing is not None and epoch not in silenced | {0}:
                keep_silenced(folder, silencing.losses(epoch, silencing.designs))
            folder.write_measurement(epoch, experiment.scope.measure(epoch))
            progress.advance(done + 1, f"epoch {epoch}")
    return folder


def _scope(
    network: BuiltNetwork,
    train: SegmentationData,
    validation: SegmentationData,
    run_config: RunConfig,
    merge_epochs: Sequence[int] | None,
) -> Scope:
    config = run_config.measuring
    values = config.model_dump()
    probe_set = train.probe_set(config.probe_images)
    probes = Probes(built(values, "probes"), built(values, "merge_probes"), merge_epochs)
    return Scope(
        network.model,
        probe_set,
        layers=network.layers,
        skips=network.skips,
        estimators=built(values, "estimators"),
        labels=[
            _clusters(run_config, probe_set),
            BlockLabels(config.blocks, config.block_threshold),
        ],
        held_out=validation if probes.layers or probes.merges else None,
        probes=probes,
        epochs=config.marked,
        compute=Compute(memory_budget=config.memory_budget),
    )


def _clusters(config: RunConfig, probe_set: SegmentationData) -> KMeansLabels:
    """K-means of the masks; if nobody has chosen a number of clusters, of as many as they have room for."""
    measuring, of_preset = config.measuring, PRESETS.get(config.preset, {}).get("measuring", {})
    asked = KMeansLabels(measuring.clusters, measuring.cluster_initialisations)
    is_usual = asked.k in (CLUSTERS, of_preset.get("clusters"))
    return asked.fitting(probe_set.masks, probe_set.ignore) if is_usual else asked


def _of_fewer_clusters(config: MeasuringConfig, scope: Scope) -> list[str]:
    """That there are fewer clusters than are usual."""
    if KMeansLabels(config.clusters, config.cluster_initialisations).name in scope.classes:
        return []
    clusters = int(next(iter(scope.classes.values())).max()) + 1  # K-means comes first
    return [
        f"{len(scope.probe_set)} images have too few distinct masks for {config.clusters} clusters: the K-means labels have "
        f"{clusters} (--clusters chooses)"
    ]


def _train_and_measure(experiment: Experiment, folder: RunFolder, progress: Progress, follower: Follower) -> None:
    examples = examples_of(experiment.validation)
    folder.describe(
        experiment.scope.layers,
        experiment.scope.skips,
        [*cluster_pictures(experiment.scope), *example_pictures(examples)],
    )
    epochs = experiment.config.training.epochs
    trainer = Trainer(
        experiment.model,
        experiment.train,
        experiment.validation,
        experiment.config.training,
        folder.checkpoints,
        marked=experiment.marked,
        seed=experiment.config.seed,
        reading=experiment.network.reading,
    )
    progress.stage("training", epochs, max(trainer.checkpoints.epochs(), default=0))
    pace, silencing = Pace(progress.warn), silencing_of(experiment, progress)

    def on_epoch(record: EpochRecord) -> None:
        folder.write_epoch(record)
        progress.advance(record.epoch, f"validation Dice {record.validation_dice:.3f}{pace.note(record.seconds)}")
        follower.update()

    def on_marked(epoch: int, model: nn.Module) -> None:
        if folder.measured(epoch):
            return
        estimates = experiment.scope.measure(
            epoch, on_batch=lambda done, total: progress.advance(epoch, f"measuring epoch {epoch}, {done / total:.0%}")
        )
        predicted = prediction_pictures(model, examples, epoch, experiment.network.reading)
        if silencing is not None and epoch > 0:
            keep_silenced(folder, silencing.losses(epoch, silencing.designs))
        folder.write_measurement(epoch, estimates, predicted)
        follower.update(force=True)

    trainer.run(on_epoch=on_epoch, on_marked=on_marked)


def silencing_of(experiment: Experiment, progress: Progress) -> Silencing | None:
    """What silences the parts of an experiment's network; None, with a warning, if that cannot be done."""
    network, config = experiment.network, experiment.config.network
    if not network.skips:
        return None
    try:
        return Silencing(network, Variant(REFERENCE, config.depth, parts_named(config.without)), experiment.validation)
    except Exception as reason:  # the network's own code may refuse zeros, with an error of any kind
        progress.warn(f"what is lost without its parts is not measured: {first_line(reason)}")
        return None


def _device_name(config: RunConfig) -> str:
    if resolved_device(config.training) == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
