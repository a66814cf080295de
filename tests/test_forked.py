"""Verbs that are ended, that meet on one folder, that find no room or may not write: one line, and never other numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forked import sketched, try_full_disks, try_pairs, try_read_only, try_signals, whole_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with sketched():
        yield whole_run(tmp_path_factory.mktemp("forked") / "whole")


@pytest.mark.slow
def test_who_may_not_write_is_told_so(run: Path, tmp_path: Path) -> None:
    outcome = try_read_only(run, tmp_path)
    assert outcome.failures == []
    assert outcome.refused > 0 and outcome.read > 0


@pytest.mark.slow
def test_two_processes_at_one_instant_lose_nothing(run: Path, tmp_path: Path) -> None:
    assert [outcome.failures for outcome in try_pairs(run, tmp_path, 5).values()] == [[]] * 7


@pytest.mark.slow
def test_signals_lose_nothing(run: Path, tmp_path: Path) -> None:
    assert [outcome.failures for outcome in try_signals(run, tmp_path, 18).values()] == [[], [], []]


@pytest.mark.slow
def test_a_full_disk_loses_nothing(run: Path, tmp_path: Path) -> None:
    assert try_full_disks(run, tmp_path, 12).failures == []
