"""What this process may use of its machine: processors and memory, of which a container or a scheduler may leave it fewer."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

CONTROL_GROUPS = Path("/sys/fs/cgroup")
GROUPS_OF_THIS_PROCESS = Path("/proc/self/cgroup")


def cores() -> int:
    """The processors that this process may use, at least 1."""
    shown = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([shown, *_quotas()]))


def free_memory() -> int:
    """The memory of the machine that this process may still take, in bytes."""
    import psutil  # which nothing else of a start-up needs

    return min([psutil.virtual_memory().available, *_left_to_groups()])


def _quotas() -> Iterator[int]:
    """The processors' worth of time that each control group has, rounded up."""
    for group in _groups("cpu"):
        with suppress(OSError, ValueError):  # no such file, or it reads "max"
            quota, period = (group / "cpu.max").read_text().split()
            yield math.ceil(int(quota) / int(period))
        with suppress(OSError, ValueError):
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:  # -1 for no limit
                yield math.ceil(int(quota) / int(period))


def _left_to_groups() -> Iterator[int]:
    """The bytes left to each control group that has a limit. Files that it has read and need not keep count as free."""
    for group in _groups("memory"):
        for limit, used, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with suppress(OSError, ValueError):
                held = int((group / used).read_text()) - _statistic(group / "memory.stat", cached)
                yield max(0, int((group / limit).read_text()) - held)


def _statistic(path: Path, name: str) -> int:
    """A line of a file of statistics; 0 without it."""
    with suppress(OSError, ValueError):
        return int(dict(line.split(" ", 1) for line in path.read_text().splitlines()).get(name, 0))
    return 0


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, and of all that these are in.

    In a container its own group is mounted at the root, and the path of it may be known outside alone. Under a scheduler, such
    as Slurm, the limits are those of the job's group, below the root.
    """
    paths = {PurePosixPath("/")}
    with suppress(OSError):
        for line in GROUPS_OF_THIS_PROCESS.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers or controller in controllers.split(","):  # the second version has one tree for all
                paths |= {PurePosixPath(name), *PurePosixPath(name).parents}
    for path in sorted(paths):
        yield from (root / path.relative_to("/") for root in (CONTROL_GROUPS, CONTROL_GROUPS / controller))
