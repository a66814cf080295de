"""Which configuration a run has when it begins, and when it goes on."""

from __future__ import annotations

from pathlib import Path

import torch

from unetscope.activations import default_budget
from unetscope.base import Progress, RunFolderError
from unetscope.runs.code_consent import allow_code
from unetscope.runs.folder import RunFolder
from unetscope.training import (
    ALL_LEVELS,
    UNET_ONLY,
    RunConfig,
    differences,
    resolved_cuda_graphs,
    resolved_device,
    resolved_precision,
    validated_config,
)


def resumed_or_new(
    config: RunConfig, out: str | Path, *, resume: bool, code: str | None = None, progress: Progress
) -> tuple[RunConfig, RunFolder | None]:
    """The resolved configuration, and the run folder to continue, None for a new run.

    Raises: RunFolderError if the folder is occupied and not to be resumed, or began with another configuration.
    """
    if resume and RunFolder.exists(out):
        folder = RunFolder.open(out)
        allow_code(folder, code)
        config = _same_configuration(folder, config)
        budget = config.measuring.memory_budget
        free = 4 * default_budget(torch.device(resolved_device(config.training)))
        if budget is not None and budget > free:
            progress.warn(
                f"this run may use {budget / 2**30:.1f} GiB, and {free / 2**30:.1f} are free: lower --memory-budget"
            )
        return config, folder
    if resume:
        progress.warn(f"there is nothing to resume in {out}: a new run begins")
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


def _same_configuration(folder: RunFolder, asked: RunConfig) -> RunConfig:
    """The stored configuration of a resumed run. The memory budget may differ; values that are not given are the stored ones.

    Raises: RunFolderError if anything else differs.
    """
    stored = validated_config(folder.configuration)
    threads = stored.threads if asked.threads is None else asked.threads
    device = stored.training.device if asked.training.device == "auto" else asked.training.device
    precision = stored.training.precision if asked.training.precision == "auto" else asked.training.precision
    graphs = stored.training.cuda_graphs if asked.training.cuda_graphs is None else asked.training.cuda_graphs
    training = asked.training.model_copy(update={"device": device, "precision": precision, "cuda_graphs": graphs})
    budget = {"memory_budget": asked.measuring.memory_budget or stored.measuring.memory_budget}
    stored = stored.model_copy(update={"measuring": stored.measuring.model_copy(update=budget)})
    measuring = asked.measuring.model_copy(update=budget)
    asked = asked.model_copy(update={"threads": threads, "training": training, "measuring": measuring})
    if stored.network.code is not None:
        of_unet = {name.rpartition(".")[2] for name in UNET_ONLY}
        unused = {name: getattr(stored.network, name) for name in of_unet}
        asked = asked.model_copy(update={"network": asked.network.model_copy(update=unused)})
    resolved_device(stored.training)
    if changed := differences(stored.model_dump(mode="json"), asked.model_dump(mode="json")):
        raise RunFolderError(
            f"{folder.path} was begun with another configuration ({'; '.join(changed)}): "
            "resume it without these flags, or choose another --out"
        )
    return stored
