"""Memory for activations, allocated once and reused."""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress

import torch
from jaxtyping import Float
from torch import Tensor

from unetscope.base import MeasurementError


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
        if self._pages is None:
            self._values = self._values[:0].clone()
        else:
            with suppress(OSError):  # an old kernel
                self._pages.madvise(mmap.MADV_FREE)

    def _grow(self, count: int) -> None:
        if self.device.type != "cpu" or sys.platform != "linux":
            self._values = torch.empty(count, dtype=torch.float32, device=self.device)
            return
        self._pages = mmap.mmap(-1, count * torch.float32.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without large pages
            self._pages.madvise(mmap.MADV_HUGEPAGE)
        self._values = torch.frombuffer(self._pages, dtype=torch.float32)
