"""What fits into the memory allowed: forward passes, batches, matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from unetscope.base.errors import InvalidArgument
from unetscope.table.records import Layer

FEATURES_AT_ONCE = 4096  # of all images, that whoever works on activations takes in at a time
BYTES_A_VALUE = 4  # activations are kept in float32
LARGEST_BATCH = 16
CONTROL_GROUP = Path("/sys/fs/cgroup")
FORWARD_SHARE = 8  # a batch inside the network may take one part in so many on top of the budget


@dataclass(frozen=True)
class Slice:
    """Values `start` to `stop` of each image's flattened activation in one layer."""

    layer: Layer
    start: int
    stop: int

    @property
    def completes_layer(self) -> bool:
        """Whether no values of the layer come after this slice."""
        return self.stop == self.layer.size


Passes = tuple[tuple[Slice, ...], ...]


def default_budget(device: torch.device) -> int:
    """A quarter of the memory that is free on a device, in bytes; on a CPU, of what the container may still take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return min([psutil.virtual_memory().available, *_container_bytes()]) // 4


def _container_bytes() -> Iterator[int]:
    """What the control group of this process, if it has limits, has left."""
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            yield max(0, int((CONTROL_GROUP / most).read_text()) - int((CONTROL_GROUP / used).read_text()))


@dataclass(frozen=True)
class Budget:
    """How the bytes allowed for measuring n images are shared out.

    total_bytes: what activations, matrices and the workspace of one chunk of features may take together. matrices: how many
    n × n matrices are held at most. forward_bytes: what one image takes inside the network; a batch of them comes on top,
    an eighth of the budget at most (one image at least). `passes` says how often the network must run.

    Raises: InvalidArgument if nothing useful is left for activations.

    >>> budget = Budget(2 * 2**30, n=605, matrices=10, forward_bytes=12 * 2**20)
    >>> budget.batch_size, round(budget.activation_bytes / 2**30, 2)
    (16, 1.94)
    """

    total_bytes: int
    n: int
    matrices: int
    forward_bytes: int
    largest_batch: int = LARGEST_BATCH

    def __post_init__(self) -> None:
        least = self._beside_activations + BYTES_A_VALUE * self.n * FEATURES_AT_ONCE
        if self.total_bytes < least:
            raise InvalidArgument(
                f"memory_budget must be at least {-(-least // 2**20)} MiB ({least} bytes) for {self.n} images, "
                f"got {self.total_bytes} bytes"
            )

    @property
    def batch_size(self) -> int:
        """Images that run through the network at a time."""
        fitting = self.total_bytes // (FORWARD_SHARE * max(1, self.forward_bytes))
        return max(1, min(self.largest_batch, self.n, fitting))

    @property
    def activation_bytes(self) -> int:
        """What may be held of activations at a time."""
        return self.total_bytes - self._beside_activations

    def passes(self, layers: Sequence[Layer]) -> Passes:
        """The forward passes that these layers take, as `plan_passes` lays them out."""
        return plan_passes(layers, self.n, self.activation_bytes)

    @property
    def _beside_activations(self) -> int:
        """Matrices, and one chunk of features of all images twice in float64."""
        return 8 * self.n**2 * self.matrices + 2 * 8 * self.n * FEATURES_AT_ONCE


def plan_passes(layers: Sequence[Layer], n: int, budget_bytes: int) -> Passes:
    """Cut the activations of n images, layer after layer, into as few forward passes as the budget allows.

    layers: with their shapes known. A pass is filled to the budget; the layer that overflows it is cut by features, at a
    multiple of FEATURES_AT_ONCE, and goes on in the next one: so whoever works through that many features at a time
    meets the same chunks, and comes to the same bits, under every budget. Layers that are a concatenation of others
    (`parts`) are not captured at all.

    Raises: InvalidArgument if the budget does not hold FEATURES_AT_ONCE values of each image.

    >>> layers = Layer("1", "a", shape=(6000,)), Layer("2", "b", shape=(4000,))
    >>> plan = plan_passes(layers, n=10, budget_bytes=10 * 4 * 9000)
    >>> [[(part.layer.label, part.start, part.stop) for part in one] for one in plan]
    [[('1', 0, 6000)], [('2', 0, 4000)]]
    >>> plan = plan_passes(layers, n=10, budget_bytes=10 * 4 * 5000)
    >>> [[(part.layer.label, part.start, part.stop) for part in one] for one in plan]
    [[('1', 0, 4096)], [('1', 4096, 6000)], [('2', 0, 4000)]]
    """
    room = budget_bytes // (BYTES_A_VALUE * n)
    if room < FEATURES_AT_ONCE:
        least = BYTES_A_VALUE * n * FEATURES_AT_ONCE
        raise InvalidArgument(f"budget_bytes must be at least {least} bytes for {n} images, got {budget_bytes}")
    passes: list[list[Slice]] = [[]]
    left = room
    for layer in layers:
        start = 0
        while not layer.parts and start < layer.size:
            rest = layer.size - start
            width = rest if rest <= left else left // FEATURES_AT_ONCE * FEATURES_AT_ONCE
            if width == 0:
                passes.append([])
                left = room
                continue
            passes[-1].append(Slice(layer, start, start + width))
            left -= width
            start += width
    return tuple(tuple(one_pass) for one_pass in passes if one_pass)
