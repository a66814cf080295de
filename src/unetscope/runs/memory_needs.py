"""The memory that a run takes beyond what it has when it is prepared, and whether this machine has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unetscope.activations import BYTES_A_VALUE, default_budget, eval_mode
from unetscope.base import preserve_rng
from unetscope.measure import Scope
from unetscope.networks import kept_bytes
from unetscope.runs.building import BuiltNetwork
from unetscope.training import RunConfig, evaluation_batch, resolved_device, resolved_precision

COPIES_OF_A_WEIGHT = {"adam": 3, "adamw": 3, "sgd": 1}  # by optimizer: the gradient, and two moments


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a run takes at most at a time: while it trains, and while it measures, with the network's batch."""

    training: int
    measuring: int

    @property
    def most(self) -> int:
        """The larger of both: training and measuring take turns."""
        return max(self.training, self.measuring)


@preserve_rng()  # or dropout would draw otherwise than in a retraining, which needs no forecast
def memory_needs(config: RunConfig, network: BuiltNetwork, scope: Scope, channels: int) -> MemoryNeeds:
    """What the training and the measurements of a prepared run take, from one pass over one image."""
    device, model = torch.device(resolved_device(config.training)), network.model
    sides, budget = config.data.sides, scope.budget
    is_bfloat16 = resolved_precision(config.training) == "bfloat16"
    with eval_mode(model), torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bfloat16):
        an_image = kept_bytes(model, torch.rand(1, channels, *sides, device=device))
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad)
    step = min(config.training.batch_size, len(scope.probe_set)) * an_image
    evaluation = evaluation_batch(sides) * budget.forward_bytes
    activations = BYTES_A_VALUE * budget.n * sum(layer.size for layer in scope.layers if not layer.parts)
    of_layers, of_merges = scope.probe_bytes()
    held = budget.total_bytes - max(0, budget.activation_bytes - activations) + of_layers
    return MemoryNeeds(
        COPIES_OF_A_WEIGHT[config.training.optimizer] * weights + max(step, evaluation),
        max(held, of_merges) + budget.batch_size * budget.forward_bytes,
    )


def little_memory(needs: MemoryNeeds, device: torch.device) -> str:
    """A warning if a device has not the memory that a run will take, else nothing."""
    free = 4 * default_budget(device)
    if needs.most <= free:
        return ""
    what, mend = (
        ("training", "--batch-size, --image-size")
        if needs.training >= needs.measuring
        else ("measuring", "--memory-budget")
    )
    return (
        f"{what} takes up to {needs.most / 2**30:.1f} GiB, and {free / 2**30:.1f} are free: the run may be ended on its way; "
        f"lower {mend}"
    )
