"""Processors and memory of this process, as its container or its scheduler limits them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest
import torch

from unetscope.activations import default_budget
from unetscope.base import cores, free_memory, machine

Limited = Callable[[Mapping[str, str], str], None]


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Limited:
    """Control groups of these files, of which this process is in those that are named."""

    def limit(files: Mapping[str, str], groups: str) -> None:
        for name, text in files.items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(text)
        (tmp_path / "cgroup").write_text(groups)
        monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path / "groups")
        monkeypatch.setattr(machine, "GROUPS_OF_THIS_PROCESS", tmp_path / "cgroup")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)

    return limit


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        ({}, "0::/\n", 8),
        ({"cpu.max": "max 100000\n"}, "0::/\n", 8),
        ({"cpu.max": "150000 100000\n"}, "0::/\n", 2),  # a part of a processor carries a job too
        ({"cpu.max": "50000 100000\n"}, "0::/\n", 1),
        ({"cpu.max": "not a number\n"}, "0::/\n", 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/\n", 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, "3:cpu,cpuacct:/\n", 3),
        ({"slurm/job_7/cpu.max": "400000 100000\n"}, "0::/slurm/job_7/step_0\n", 4),
        ({"slurm/job_8/cpu.max": "400000 100000\n"}, "0::/slurm/job_7/step_0\n", 8),  # of somebody else's job
        ({"cpu.max": "200000 100000\n"}, "3:cpu:/docker/1f6e\n", 2),  # a path that is known outside the container alone
    ],
)  # fmt: skip
def test_processors_are_those_of_the_container_or_the_job(
    files: dict[str, str], groups: str, expected: int, limited: Limited
) -> None:
    limited(files, groups)
    assert cores() == expected


@pytest.mark.parametrize(
    ("files", "groups", "expected"),
    [
        ({"memory.max": "8000000\n", "memory.current": "2000000\n"}, "0::/\n", 6_000_000),
        (
            {"memory/memory.limit_in_bytes": "8000000\n", "memory/memory.usage_in_bytes": "2000000\n"},
            "4:memory:/\n", 6_000_000,
        ),
        # A container that has read its images from disk is full of them, and yet has room.
        (
            {"memory.max": "8000000\n", "memory.current": "8000000\n", "memory.stat": "anon 1\ninactive_file 5000000\n"},
            "0::/\n", 5_000_000,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "8000000\n", "memory/memory.usage_in_bytes": "7000000\n",
                "memory/memory.stat": "total_inactive_file 4000000\n",
            },
            "4:memory:/\n", 5_000_000,
        ),
        # The job's limit lies below that of its machine, and the step's under it.
        (
            {
                "memory.max": "max\n", "memory.current": "9000000\n",
                "slurm/job_7/memory.max": "4000000\n", "slurm/job_7/memory.current": "1000000\n",
                "slurm/job_7/step_0/memory.max": "max\n", "slurm/job_7/step_0/memory.current": "1000000\n",
            },
            "0::/slurm/job_7/step_0\n", 3_000_000,
        ),
        ({"memory.max": "1000000\n", "memory.current": "2000000\n"}, "0::/\n", 0),
        ({"memory.max": "8000000\n", "memory.current": "2000000\n"}, "4:memory:/docker/1f6e\n", 6_000_000),
    ],
)  # fmt: skip
def test_memory_is_that_of_the_container_or_the_job(
    files: dict[str, str], groups: str, expected: int, limited: Limited
) -> None:
    limited(files, groups)
    assert free_memory() == expected
    assert default_budget(torch.device("cpu")) == expected // 4


def test_without_limits_the_machine_counts(limited: Limited) -> None:
    limited({"memory.max": "max\n", "memory.current": "2000000\n"}, "0::/\n")
    assert free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
