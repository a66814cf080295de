"""Memory for measuring: the plan of forward passes within a budget, and the buffer that holds activations."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unetscope.base import InvalidArgument, MeasurementError, free_memory
from unetscope.table import Layer

FEATURES_AT_ONCE = 4096  # the features of all images that an accumulator processes in one chunk
BYTES_A_VALUE = 4  # activations are stored in float32
LARGEST_BATCH = 16
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
    """A quarter of a device's free memory, in bytes; on a CPU, within the limits of the container or of the job."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 4
    return free_memory() // 4


@dataclass(frozen=True)
class Budget:
    """How a memory budget for measuring n images is divided.

    total_bytes: for activations, matrices and the workspace of one chunk of features together. pair_bytes: what is held at most
    for each pair of images, such as distances. forward_bytes: what one image needs inside the network; a batch of images comes
    on top of the budget, at most an eighth of it (but at least one image). `passes` plans the forward passes.

    Raises: InvalidArgument if too little is left for activations.

    >>> budget = Budget(2 * 2**30, n=605, pair_bytes=80, forward_bytes=12 * 2**20)
    >>> budget.batch_size, round(budget.activation_bytes / 2**30, 2)
    (16, 1.94)
    """

    total_bytes: int
    n: int
    pair_bytes: int
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
        return self.pair_bytes * self.n**2 + 2 * 8 * self.n * FEATURES_AT_ONCE


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


class ActivationBuffer:
    """One region of float32 values on one device, as large as the largest request so far.

    Writing to fresh memory for the first time costs more than the arithmetic that follows, because the system has to find
    and clear each page. Pages (huge ones where the system has them) are therefore kept from one measurement to the next;
    between measurements, `rest` offers them to the system in case other processes need memory.

    >>> activation_buffer = ActivationBuffer(torch.device("cpu"))
    >>> first, again = activation_buffer.take(6), activation_buffer.take(4)
    >>> again.shape, again.data_ptr() == first.data_ptr()
    (torch.Size([4]), True)
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._values: Float[Tensor, " size"] = torch.empty(0, dtype=torch.float32, device=device)
        self._pages: mmap.mmap | None = None

    def take(self, count: int) -> Float[Tensor, " count"]:
        """The first `count` values of the region, uninitialised. Every call returns the same memory.

        Raises: MeasurementError if there is not enough memory.
        """
        if count > len(self._values):
            self._values, self._pages = torch.empty(0, dtype=torch.float32, device=self.device), None
            try:
                self._grow(count)
            except (OSError, RuntimeError):  # torch.OutOfMemoryError is a RuntimeError
                size = count * torch.float32.itemsize / 2**30
                raise MeasurementError(
                    f"{size:.1f} GiB for activations cannot be had on {self.device}: lower memory_budget"
                ) from None
        return self._values[:count]

    def rest(self) -> None:
        """Release the values: nothing reads them any more. On Linux the system takes the pages back only when it needs them."""
        self._give_back("MADV_FREE")

    def release(self) -> None:
        """Give the memory back to the system at once: something as large comes next."""
        self._give_back("MADV_DONTNEED")

    def _give_back(self, advice: str) -> None:
        if self._pages is None:
            self._values = self._values[:0].clone()
        else:
            with suppress(OSError):  # an old kernel
                self._pages.madvise(getattr(mmap, advice))

    def _grow(self, count: int) -> None:
        if self.device.type != "cpu" or sys.platform != "linux":
            self._values = torch.empty(count, dtype=torch.float32, device=self.device)
            return
        self._pages = mmap.mmap(-1, count * torch.float32.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without large pages
            self._pages.madvise(mmap.MADV_HUGEPAGE)
        self._values = torch.frombuffer(self._pages, dtype=torch.float32)
