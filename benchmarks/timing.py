"""Timings as ratios within one run, and peaks of memory and disk. Nothing here knows what is timed."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch


def seconds(work: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def medians(works: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one call that does not count, called in turn so that a slow moment meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            value = seconds(work)
            if repeat:
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}


def peak_bytes(work: Callable[..., object], *arguments: Any) -> dict[str, float]:
    """Run `work(watch, *arguments)` in a process of its own; of what runs under `with watch:`, seconds and added peak memory.

    Memory is what is resident, less what is shared with files, watched every few milliseconds, above what there was when
    the watch began.
    """
    parent, child = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_watched, args=(child, work, arguments))
    process.start()
    child.close()
    try:
        result: dict[str, float] = parent.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__}{arguments} did not finish") from None
    process.join()
    return result


class Watch:
    """Seconds and added peak memory between entering and leaving."""

    def __enter__(self) -> Watch:
        gc.collect()
        self._process, self._stop = psutil.Process(), threading.Event()
        self.before = self.peak = self._held()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self._held())

    def _held(self) -> int:
        memory = self._process.memory_info()
        return int(memory.rss - memory.shared)


def _watched(pipe: Any, work: Callable[..., object], arguments: Sequence[Any]) -> None:
    watch = Watch()
    extra = work(watch, *arguments) or {}
    pipe.send({"seconds": watch.seconds, "peak_bytes": watch.peak - watch.before, **extra})


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log value over log size by least squares: 1 is linear, 2 quadratic."""
    return statistics.linear_regression([math.log(size) for size in sizes], [math.log(value) for value in values]).slope


def folder_bytes(folder: Path) -> int:
    """All files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def machine() -> str:
    """What all this ran on, in a sentence."""
    name = "processor unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        name = next(
            (line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")),
            name,
        )
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
