"""Which configuration a run has when it begins, and when it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unetscope.activations import default_budget
from unetscope.base import Progress, RunFolderError
from unetscope.runs.code_consent import allow_code
from unetscope.runs.folder import RunFolder
from unetscope.runs.moves import moved_lines, other_than_moved
from unetscope.training import (
    ALL_LEVELS,
    UNET_ONLY,
    RunConfig,
    TrainingConfig,
    resolved_cuda_graphs,
    resolved_device,
    resolved_precision,
    validated_config,
)


def resumed_or_new(
    config: RunConfig, out: str | Path | None, *, resume: bool, code: str | None = None, progress: Progress
) -> tuple[RunConfig, RunFolder | None]:
    """The resolved configuration, and the run folder to continue, None for a new run, which `out` of None is.

    Raises: RunFolderError if the folder is occupied and not to be resumed, or began with another configuration.
    """
    if resume and out is not None and RunFolder.exists(out):
        folder = RunFolder.open(out)
        if code is None:  # a stranger's code is said first
            allow_code(folder)
        config = _continued(folder, config)
        allow_code(folder, code)  # the user's word is kept with a run that does go on
        if moved := moved_lines(folder, config):
            progress.warn(f"this run goes on elsewhere: {'; '.join(moved)}")
        budget = config.measuring.memory_budget
        free = 4 * default_budget(torch.device(resolved_device(config.training)))
        if budget is not None and budget > free:
            progress.warn(
                f"this run may use {budget / 2**30:.1f} GiB, and {free / 2**30:.1f} are free: lower --memory-budget"
            )
        return config, folder
    if resume:
        progress.warn(f"there is nothing to resume in {out}: a new run begins")
    if out is not None:
        RunFolder.refuse_occupied(out)
    device = resolved_device(config.training)
    training = config.training.model_copy(update={"device": device})
    of_unet = config.network.code is None
    training = training.model_copy(
        update={"precision": resolved_precision(training), "cuda_graphs": resolved_cuda_graphs(training, of_unet)}
    )
    budget = config.measuring.memory_budget or default_budget(torch.device(device))
    measuring = config.measuring.model_copy(update={"memory_budget": budget})
    if config.network.code is not None:  # its depth is found when it is built
        config = with_depth(config, ALL_LEVELS)
    return config.model_copy(update={"training": training, "measuring": measuring}), None


def with_depth(config: RunConfig, depth: int) -> RunConfig:
    """A configuration with another depth, of a network that code builds; the U-Net has the depth that is asked for."""
    if config.network.code is None:
        return config
    return config.model_copy(update={"network": config.network.model_copy(update={"depth": depth})})


def configuration_to_resume(folder: RunFolder) -> dict[str, Any]:
    """The configuration with which a run goes on. Raises: RunFolderError for a run in a loop of its own."""
    if not folder.trained_here:
        raise RunFolderError(
            f"{folder.path} was measured in a loop of its own: start that loop again, with a Recorder of the same folder"
        )
    return folder.configuration


def _continued(folder: RunFolder, asked: RunConfig) -> RunConfig:
    """The stored configuration of a resumed run, with the device and the paths of this machine. The memory budget may differ;
    values that are not given are the stored ones.

    Raises: RunFolderError if anything else differs.
    """
    stored = validated_config(configuration_to_resume(folder))
    threads = stored.threads if asked.threads is None else asked.threads
    training = _training_here(stored, asked)
    budget = {"memory_budget": asked.measuring.memory_budget or stored.measuring.memory_budget}
    measuring = asked.measuring.model_copy(update=budget)
    asked = asked.model_copy(update={"threads": threads, "training": training, "measuring": measuring})
    stored = stored.model_copy(update={"measuring": stored.measuring.model_copy(update=budget)})
    if stored.network.code is not None:
        of_unet = {name.rpartition(".")[2] for name in UNET_ONLY}
        unused = {name: getattr(stored.network, name) for name in of_unet}
        asked = asked.model_copy(update={"network": asked.network.model_copy(update=unused)})
    if changed := other_than_moved(stored.model_dump(mode="json"), asked.model_dump(mode="json")):
        raise RunFolderError(
            f"{folder.path} was begun with another configuration ({'; '.join(changed)}): "
            "resume it without these flags, or choose another --out"
        )
    return asked


def _training_here(stored: RunConfig, asked: RunConfig) -> TrainingConfig:
    """How a run goes on here. Raises: InvalidArgument for a device that is not there."""
    before, training = stored.training, asked.training
    precision = before.precision if training.precision == "auto" else training.precision
    if training.device in ("auto", before.device):
        device = before.device
        graphs = before.cuda_graphs if training.cuda_graphs is None else training.cuda_graphs
    else:
        device = training.device
        given = None if training.cuda_graphs == before.cuda_graphs else training.cuda_graphs
        there = training.model_copy(update={"cuda_graphs": given})
        graphs = resolved_cuda_graphs(there, stored.network.code is None)
    training = training.model_copy(update={"device": device, "precision": precision, "cuda_graphs": graphs})
    resolved_device(training)
    return training
