"""Training steps that a GPU repeats by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from jaxtyping import Int64
from torch import Tensor

STEPS_BEFORE_CAPTURE = 3  # as PyTorch's notes on CUDA graphs advise: libraries choose and set up what they use in these


class ReplayedSteps:
    """A training step, captured once for each number of images as a CUDA graph, and then replayed.

    A step of a small network is a few hundred kernels of some microseconds, which Python starts more slowly than the GPU runs
    them. The first steps of each size are taken as they are, and every call is one step, so the training is the same.

    step: from the rows of a batch, as int64 on the GPU, to new weights. It must do the same on every call: the same kernels, on
    tensors that stay where they are, without a choice that depends on their values. Source: PyTorch's notes, "CUDA Graphs".
    """

    def __init__(self, step: Callable[[Int64[Tensor, " batch"]], None]) -> None:
        self._step = step
        self._taken: Counter[int] = Counter()
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, rows: Int64[Tensor, " batch"]) -> None:
        """Take one step."""
        size = len(rows)
        if size not in self._captured and self._taken[size] < STEPS_BEFORE_CAPTURE:
            self._taken[size] += 1
            self._apart(rows)
            return
        if size not in self._captured:
            self._captured[size] = self._capture(rows)
        graph, its_rows = self._captured[size]
        its_rows.copy_(rows)
        graph.replay()

    def _apart(self, rows: Tensor) -> None:
        """A step on a stream of its own, as the capture is."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step(rows)
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self, rows: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph, its_rows = torch.cuda.CUDAGraph(), rows.clone()
        pool = next(
            (earlier.pool() for earlier, _ in self._captured.values()), None
        )  # no two graphs are replayed at once
        with torch.cuda.graph(graph, pool=pool):
            self._step(its_rows)
        return graph, its_rows
