"""Seeded mutations of every kind of file: no traceback, no hang over ten seconds, no more than 2 GiB."""

from __future__ import annotations

import resource
import warnings
from pathlib import Path

import pytest

from mutations import KINDS, MOST_BYTES


def assert_harmless(kind: str, folder: Path, n: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = KINDS[kind](folder, n)
    assert outcome.failures == []
    assert outcome.attempts == n
    assert outcome.refused > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MOST_BYTES


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_few_mutations_do_no_harm(kind: str, tmp_path: Path) -> None:
    assert_harmless(kind, tmp_path, 15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_mutations_do_no_harm(kind: str, tmp_path: Path) -> None:
    assert_harmless(kind, tmp_path, 1000)
