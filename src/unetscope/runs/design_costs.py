"""Measure what the designs of a run's network cost beside the whole network, for one image of the run's size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unetscope.activations import eval_mode
from unetscope.base import InvalidArgument, UnetscopeError, first_line, free_memory
from unetscope.networks import costs, kept_bytes
from unetscope.runs.building import (
    BuiltNetwork,
    built_network,
    designed,
    local_config,
    network_of_code,
    refuse_other_network,
    smaller_network,
)
from unetscope.runs.code_consent import allow_code
from unetscope.runs.folder import RunFolder, images_of
from unetscope.runs.kept_costs import kept_costs, write_costs
from unetscope.table import Savings, Variant
from unetscope.training import RunConfig


@dataclass(frozen=True)
class _Whole:
    """The whole network of a run, with what its designs are built from. shape: of one image, (channels, *sides)."""

    network: BuiltNetwork
    config: RunConfig
    shape: tuple[int, ...]
    classes: int


def savings(run: RunFolder, design: Variant) -> Savings:
    """What a design costs beside the run's own network, for one image of the run's size.

    Raises: UnetscopeError for code that may not run or builds another network, or for a design that cannot be.
    """
    return _savings(_whole(run), design)


def keep_costs(run: RunFolder, designs: Sequence[Variant], *, anew: bool = False) -> dict[str, str]:
    """Measure what designs cost, and keep it in RUN/costs.json for all that shows the run; the reason of each that cannot be.

    anew: measure what is kept already too, as times are those of a machine.
    """
    kept = kept_costs(run)
    missing = [design for design in designs if anew or kept.of(design) is None]
    if not missing:
        return {}
    try:
        whole = _whole(run)
    except UnetscopeError as reason:
        return {design.name: first_line(reason) for design in missing}
    reasons = {}
    for design in missing:
        try:
            kept = kept.with_costs(whole.shape, design, _savings(whole, design))
        except UnetscopeError as reason:
            reasons[design.name] = first_line(reason)
    if len(reasons) < len(missing):
        write_costs(run, kept)
    return reasons


def _savings(whole: _Whole, design: Variant) -> Savings:
    config = designed(whole.config, design)
    smaller = smaller_network(whole.network, config, whole.shape[0], whole.classes)
    return Savings(*costs([whole.network.model, smaller.model], whole.shape))


def _refuse_larger_than_memory(network: BuiltNetwork, depth: int, shape: tuple[int, ...]) -> None:
    """Raises: InvalidArgument for images of which a U-Net keeps more than this machine has, as their smallest tiles tell."""
    channels, *sides = shape
    tile = [min(side, 2 * 2**depth) for side in sides]
    with eval_mode(network.model):
        of_tile = kept_bytes(network.model, torch.rand(1, channels, *tile))
    needed = of_tile * math.prod(sides) // math.prod(tile)
    if needed > (free := free_memory()):
        raise InvalidArgument(
            f"an image of {'x'.join(map(str, sides))} takes {needed / 2**30:.0f} GiB, and {free / 2**30:.0f} are free: report "
            "it on a larger machine"
        )


def _whole(run: RunFolder) -> _Whole:
    shape, task = images_of(run)
    allow_code(run)
    config = local_config(run)
    if config.network.trained_by is not None:
        return _Whole(network_of_code(config.network, shape, task), config, shape, task.classes)
    network = built_network(config, shape[0], task.classes)
    refuse_other_network(run, network)
    _refuse_larger_than_memory(network, config.network.depth, shape)
    return _Whole(network, config, shape, task.classes)
