"""Variants of a run that was measured in a loop of its own, retrained by that loop.

The user names two functions: `build()` makes the network, and `train(model, seed, folder, epochs)` trains it and gives its
score after each epoch. Both are named in the run folder, so that every job can import them in a process of its own.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unetscope.base import InvalidArgument, consent, whole_number
from unetscope.runs.code_consent import CONSENT, consented_text
from unetscope.runs.description import OWN_LOOP
from unetscope.runs.folder import RunFolder
from unetscope.training import ALL_LEVELS, MOST_EPOCHS_TRAINED, RunConfig, validated_config

Train = Callable[..., Any]  # of a network, a seed, a folder and the number of epochs


def configuration_of(run: RunFolder) -> dict[str, Any]:
    """The configuration that variants of a run are trained with.

    Raises: InvalidArgument for a run of a loop of its own whose functions have not been named.
    """
    if run.trained_here:
        return run.configuration
    if OWN_LOOP not in run.facts:
        raise InvalidArgument(
            f"{run.path} was measured in a loop of its own: unetscope verify {run.path} --network FILE.py:build --train "
            "FILE.py:train names what builds its network and what trains it, for every verb"
        )
    return validated_config(run.facts[OWN_LOOP]).model_dump(mode="json")


def can_be_retrained(run: RunFolder) -> bool:
    """Whether it is known how variants of a run are trained."""
    return run.trained_here or OWN_LOOP in run.facts


def name_loop(
    run: RunFolder,
    build: str | Callable[[], Any],
    train: str | Train,
    *,
    epochs: int | None = None,
    plan_only: bool = False,
) -> None:
    """Keep with a run how its variants are retrained, which network that is, and the user's consent to run that code.

    build, train: their names, as `FILE.py:NAME` or `package.module:NAME`, or functions at the top of a file. epochs: of each
    training, by default as many as were measured. plan_only: keep it for this process alone, and write nothing.

    Raises: InvalidArgument for a run that this package trained, for functions that no other process could import, or if
    trainings of other code or length have begun; NetworkError for a network that cannot be built.
    """
    if run.trained_here:
        raise InvalidArgument(f"{run.path} was trained by unetscope run: its variants are trained as it was")
    epochs = max(run.flow().epochs, default=0) if epochs is None else epochs
    epochs = whole_number(epochs, "epochs", least=1, most=MOST_EPOCHS_TRAINED)
    from unetscope.runs.own_training import built_by_code, loop_facts, loop_function  # with torch

    network: dict[str, Any] = {"code": code_name(build), "trained_by": code_name(train), "depth": ALL_LEVELS}
    loop_function(network["trained_by"])  # raises before anything is built
    built = built_by_code(run, RunConfig.model_validate({"network": network}))
    network["depth"] = max(1, built.depth)
    config = RunConfig.model_validate({"network": network, "training": {"epochs": epochs}}).model_dump(mode="json")
    if (before := run.facts.get(OWN_LOOP, config)) != config and any((run.path / "verification").glob("*/seed-*")):
        raise InvalidArgument(
            f"{run.path} has variants trained by {before['network']['trained_by']} for {before['training']['epochs']} epochs: "
            "name the same, or remove its folder verification"
        )
    facts = {OWN_LOOP: config, CONSENT: consent(consented_text(network)), **loop_facts(built)}
    (run.suppose if plan_only else run.note)(facts)


def code_name(code: str | Callable[..., Any]) -> str:
    """The name by which another process finds a function or a class.

    >>> code_name("nets.py:build"), code_name(code_name)
    ('nets.py:build', 'unetscope.runs.own_loops:code_name')

    Raises: InvalidArgument for one that is not at the top of a file.
    """
    if isinstance(code, str):
        return code
    name = getattr(code, "__qualname__", "")
    module = sys.modules.get(getattr(code, "__module__", ""))
    file = getattr(module, "__file__", None)
    if module is None or file is None or not name.isidentifier() or getattr(module, name, None) is not code:
        raise InvalidArgument(
            f"{code!r} cannot be found by another process: define it by its name at the top of a file, and give that"
        )
    return f"{module.__name__}:{name}" if module.__package__ else f"{Path(inspect.getfile(code)).resolve()}:{name}"
