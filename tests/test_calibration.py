"""The study of the estimators: its laws against slow twins, and that it runs, keeps and tells."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from calibration import cases, distance_cases, laws, pixel_cases, study
from calibration.case import Case, Found
from calibration.page import page
from calibration.sweeps import Sweep
from scipy.integrate import quad
from scipy.stats import norm

NAN = math.nan
GRID = np.linspace(-30, 30, 20_001)


@pytest.mark.parametrize(("variance", "noise_variance", "bound", "c"), [(1.0, 1.0, "upper", 2), (4.0, 0.5, "lower", 8)])
def test_bounds_of_a_channel_are_those_of_quadrature(variance, noise_variance, bound, c) -> None:
    spread = math.sqrt(variance)

    def inner(x: float) -> float:
        at = -((x - GRID) ** 2) / (c * noise_variance)
        return float((norm.pdf(GRID, scale=spread) * np.exp(at)).sum() * (GRID[1] - GRID[0]))

    outer = quad(lambda x: -norm.pdf(x, scale=spread) * math.log(inner(x)), -8 * spread, 8 * spread, limit=200)[0]
    assert laws.channel_bound((variance,), noise_variance, bound) == pytest.approx(outer, abs=1e-6)


def test_a_channel_s_information_lies_between_its_bounds() -> None:
    for variances, noise_variance in (((1.0,), 1.0), ((4.0, 1.0, 0.1), 0.5), ((1.0,) * 200, 100.0)):
        upper, lower = (laws.channel_bound(variances, noise_variance, bound) for bound in ("upper", "lower"))
        assert lower < laws.channel_information(variances, noise_variance) < upper


def test_clusters_are_as_far_apart_as_if_all_coordinates_were_drawn() -> None:
    symbols = torch.tensor([0, 0, 1, 2, 2, 2])
    squared = laws.clusters(symbols, 5000, seed=3)
    same = (symbols[:, None] == symbols).double()
    assert (squared * same).max() < 50 * 2 * 0.001**2 * 4  # of fifty coordinates with noise of 0.001
    apart = squared[same == 0]
    assert ((apart / (2 * 5000) - 1).abs() < 0.1).all()  # of 5000 normal coordinates each
    torch.testing.assert_close(squared, squared.T)


def test_laws_of_merges_say_what_was_planted() -> None:
    assert laws.at_merge(laws.redundant())["I(Y;S|U)"] == pytest.approx(0, abs=1e-12)
    unique = laws.at_merge(laws.unique())
    assert (unique["I(Y;S|U)"], unique["I(Y;U|S)"]) == pytest.approx((math.log(4), 0), abs=1e-12)
    exclusive = laws.at_merge(laws.exclusive_or())
    assert list(exclusive.values()) == pytest.approx([math.log(2), math.log(2), -math.log(2)])
    for law in pixel_cases.MERGES.values():
        assert law.sum() == pytest.approx(1)


def test_told_labels_have_the_information_of_a_noisy_channel() -> None:
    assert laws.mutual_information(laws.told(16, 4, 1.0)) == pytest.approx(math.log(4))
    assert laws.mutual_information(laws.told(16, 4, 0.0)) == pytest.approx(0, abs=1e-12)
    errors = 0.2 * 3 / 4  # a label at random is right in one of four
    noisy = math.log(4) + (1 - errors) * math.log(1 - errors) + errors * math.log(errors / 3)
    assert laws.mutual_information(laws.told(16, 4, 0.8)) == pytest.approx(noisy)


@pytest.mark.long
def test_the_silent_unit_s_information_is_that_of_draws() -> None:
    values = distance_cases._silent(0, 4000)
    kernel = torch.exp(-values / (2 * 0.1))
    drawn = -kernel.mean(dim=1).log().mean().item()
    assert distance_cases._silent_bound("upper") == pytest.approx(drawn, abs=0.03)
    assert (
        distance_cases._silent_bound("lower")
        < distance_cases._silent_information()
        < distance_cases._silent_bound("upper")
    )


@pytest.mark.long
def test_every_case_finds_what_it_says_it_looks_for() -> None:
    """One repetition of those that take little: an estimate for each truth, and a reason or an interval."""
    for case in cases.cases():
        if "convolutional" in case.name or "300" in case.name or "10,000" in case.name:
            continue
        found = {(one.estimator, one.quantity): one for one in case.measure(0)}
        for of in case.truths:
            assert of in found, case.name
            assert math.isfinite(found[of].low) != bool(found[of].reason), (case.name, of)


def _scripted(seed: int) -> Iterator[Found]:
    """Nine of ten intervals hold the truth of 1 bit; every fifth repetition is refused; p is 0.01 in one of ten."""
    off = 2.0 if seed % 10 == 1 else 0.0
    low, high, reason = (NAN, NAN, "out of domain: so it is") if seed % 5 == 4 else (0.9 + off, 1.1 + off, "")
    yield Found("mixture", "I(X;M)", 1.0 + off, 1.0 + off, low, high, 0.01 if seed % 10 == 0 else 0.5, reason)
    yield Found("binning", "I(X;M)", 0.0, 0.0, 0.0, 0.0, 0.5, "")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Case:
    case = Case("Nothing to be told", "scripted", _scripted, {("mixture", "I(X;M)"): 1.0}, null=True)
    monkeypatch.setattr(study, "cases", lambda: (case,))
    return case


def test_outcomes_count_what_was_found_and_are_kept(scripted: Case, tmp_path: Path) -> None:
    assert study._run(tmp_path, (0, 100)) == "Nothing to be told: scripted"
    (path,) = tmp_path.iterdir()
    (outcome,) = study._outcomes(tmp_path, 0, 100)
    assert outcome.in_domain == pytest.approx(0.8)
    assert outcome.coverage == pytest.approx(70 / 80)
    assert outcome.bias == pytest.approx(2 * 10 / 80)
    assert outcome.plain_bias == pytest.approx(0.2)
    assert outcome.rejected == pytest.approx(0.1)
    assert outcome.reason == "out of domain: so it is"
    told: list[str] = []
    assert len(study.study(100, tmp_path, 1, told.append)) == 1
    assert told == []  # what is kept is not measured again
    assert [path] == list(tmp_path.iterdir())


def test_the_page_names_what_misses_its_bar(scripted: Case) -> None:
    columns = {name: np.ones(60) for name in ("bits", "limits", "low", "high", "p")}
    good = study.Outcome(scripted, ("mixture", "I(X;M)"), **columns, reasons=("",) * 60)
    bad = replace(
        good,
        low=np.where(np.arange(60) < 12, 2.0, 0.5),
        high=np.full(60, 3.0),
        p=np.where(np.arange(60) < 9, 0.01, 1.0),
    )
    sweep = Sweep("a", "b", "c", (1.0,), (1.0,), {"mixture": np.ones((2, 1))}, {"mixture": np.ones((2, 1))})
    text = page([good, bad], [sweep], 60)
    assert "Of 2 estimates that mostly have an interval" in text
    assert "- mixture, I(X;M); Nothing to be told: scripted: 80%" in text
    assert "- Nothing to be told: 1 of 2" in text
    assert "| scripted | 15.0% |" in text
