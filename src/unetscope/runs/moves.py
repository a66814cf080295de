"""A run that goes on on another machine: its images lie elsewhere, its device is another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unetscope.runs.folder import RunFolder
from unetscope.training import RunConfig, checkpoint_epochs, differences, overridden_config, validated_config

OF_MACHINE = ("data.path", "data.validation", "training.device", "training.cuda_graphs")


def other_than_moved(begun: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two configurations and makes another run of it, a line each.

    >>> here = {"seed": 0, "training": {"device": "cpu"}}
    >>> other_than_moved(here, {"seed": 1, "training": {"device": "cuda"}})
    ['seed: 0 → 1']
    """
    return [line for line in differences(begun, now) if not _is_of_machine(line)]


def moved_lines(folder: RunFolder, config: RunConfig) -> list[str]:
    """What a run has here that it had not where it went on last, a line each."""
    begun, now = validated_config(folder.configuration).model_dump(mode="json"), config.model_dump(mode="json")
    return [line for line in differences(begun, now) if _is_of_machine(line)]


def _is_of_machine(line: str) -> bool:
    """Whether a difference is one of machines; images that are made here and those of a file are two sets."""
    name, _, values = line.partition(": ")
    return name in OF_MACHINE and (not name.startswith("data.") or "None" not in values.split(" → "))


def keep_move(folder: RunFolder, config: RunConfig) -> None:
    """Keep the values of this machine in a run's configuration, and from which epoch on it has them."""
    if not (lines := moved_lines(folder, config)):
        return
    now = config.model_dump(mode="json")
    here = {name: now[name.partition(".")[0]][name.partition(".")[2]] for name in OF_MACHINE}
    moved = overridden_config(folder.configuration, here)
    resumed_from = max(checkpoint_epochs(folder.checkpoints), default=0)
    moves = [*folder.facts.get("moves", []), {"epoch": resumed_from, "changed": lines}]
    folder.note({"moves": moves}, configuration=moved.model_dump(mode="json"))
