"""Plan forward passes, batches and matrices within a memory budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from unetscope.base import InvalidArgument
from unetscope.table import Layer

FEATURES_AT_ONCE = 4096  # the features of all images that an accumulator processes in one chunk
BYTES_A_VALUE = 4  # activations are stored in float32
LARGEST_BATCH = 16
CONTROL_GROUP = Path("/sys/fs/cgroup")
FORWARD_SHARE = 8  # a batch inside the network may take up to 1/8 of the budget, on top of it


@dataclass(frozen=True)
class Slice:
    """Values `start` to `stop` of each image's flattened activation in one layer."""

    layer: Layer
    start: int
    stop: int

    @property
    def completes_layer(self) -> bool:
        """Whether this slice ends at the layer's last value."""
        return self.stop == self.layer.size


Passes = tuple[tuple[Slice, ...], ...]


def default_budget(device: torch.device) -> int:
    """A quarter of a device's free memory, in bytes; on a CPU, within the limit of the container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return min([psutil.virtual_memory().available, *_container_bytes()]) // 4


def _container_bytes() -> Iterator[int]:
    """The bytes left to this process's control group, for each limit that it has."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # no such file, or it reads "max"
            yield max(0, int((CONTROL_GROUP / limit).read_text()) - int((CONTROL_GROUP / used).read_text()))


@dataclass(frozen=True)
class Budget:
    """How a memory budget for measuring n images is divided.

    total_bytes: for activations, matrices and the workspace of one chunk of features together. matrices: the largest number
    of n × n matrices held at a time. forward_bytes: what one image needs inside the network; a batch of images comes on top
    of the budget, at most an eighth of it (but at least one image). `passes` plans the forward passes.

    Raises: InvalidArgument if too little is left for activations.

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
        """The part of the budget for activations."""
        return self.total_bytes - self._beside_activations

    def passes(self, layers: Sequence[Layer]) -> Passes:
        """The forward passes that these layers need, from `plan_passes`."""
        return plan_passes(layers, self.n, self.activation_bytes)

    @property
    def _beside_activations(self) -> int:
        """The bytes of the matrices, and of two float64 copies of one chunk of features of all images."""
        return 8 * self.n**2 * self.matrices + 2 * 8 * self.n * FEATURES_AT_ONCE


def plan_passes(layers: Sequence[Layer], n: int, budget_bytes: int) -> Passes:
    """Divide the activations of n images, layer after layer, into as few forward passes as the budget allows.

    layers: with shapes. A pass is filled to the budget. A layer that does not fit is cut by features at a multiple of
    FEATURES_AT_ONCE and continues in the next pass: accumulators that process FEATURES_AT_ONCE features at a time then see
    the same chunks, and give bit-equal results, under every budget. A layer that is a concatenation of others (`parts`) is
    not captured.

    Raises: InvalidArgument if the budget does not hold FEATURES_AT_ONCE values of each image.

    >>> layers = Layer("1", "a", shape=(6000,)), Layer("2", "b", shape=(4000,))
    >>> plan = plan_passes(layers, n=10, budget_bytes=10 * 4 * 9000)
    >>> [[(part.layer.label, part.start, part.stop) for part in slices] for slices in plan]
    [[('1', 0, 6000)], [('2', 0, 4000)]]
    >>> plan = plan_passes(layers, n=10, budget_bytes=10 * 4 * 5000)
    >>> [[(part.layer.label, part.start, part.stop) for part in slices] for slices in plan]
    [[('1', 0, 4096)], [('1', 4096, 6000)], [('2', 0, 4000)]]
    """
    values_a_pass = budget_bytes // (BYTES_A_VALUE * n)
    if values_a_pass < FEATURES_AT_ONCE:
        least = BYTES_A_VALUE * n * FEATURES_AT_ONCE
        raise InvalidArgument(f"budget_bytes must be at least {least} bytes for {n} images, got {budget_bytes}")
    passes: list[list[Slice]] = [[]]
    left = values_a_pass
    for layer in layers:
        start = 0
        while not layer.parts and start < layer.size:
            rest = layer.size - start
            width = rest if rest <= left else left // FEATURES_AT_ONCE * FEATURES_AT_ONCE
            if width == 0:
                passes.append([])
                left = values_a_pass
                continue
            passes[-1].append(Slice(layer, start, start + width))
            left -= width
            start += width
    return tuple(tuple(slices) for slices in passes if slices)
