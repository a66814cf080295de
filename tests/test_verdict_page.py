"""The page of predictions says what its rows say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibration import verdict_page
from calibration.verdict_page import page, read_rows

DESIGNS = ("without-skip1", "without-skip2", "depth1", "no-skips")


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Four tasks, in which the loss is half of the gap after training on."""
    random = np.random.default_rng(0)
    for task in ("mixed", "ring", "lines", "texture"):
        folder = tmp_path / "cells" / f"{task}-unet"
        folder.mkdir(parents=True)
        gaps = dict(zip(DESIGNS, random.permutation([0.0, 0.01, 0.2, 0.5]), strict=True))
        outcomes = {
            design: {
                "loss": gap / 2,
                "low": gap / 2 - 0.01,
                "high": gap / 2 + 0.01,
                "decision": "needed" if gap > 0.04 else "redundant",
            }
            for design, gap in gaps.items()
        }
        curves = {name: {"0": [0.5] * 19} for name in ("model1", *DESIGNS)}
        losses = {"budgets": {"6": outcomes, "18": outcomes}, "curves": curves}
        (folder / "losses.json").write_text(json.dumps(losses))
        for budget in (6, 18):
            for design, gap in gaps.items():
                values = {
                    "bits": random.uniform(), "silenced": gap, "taylor": random.uniform(), "curve": [0.8 - gap] * 4,
                    "curve of the whole": [0.8] * 4, "verdict": "redundant",
                    "gap": {"value": 0.1, "low": 0.05, "high": 0.15},
                }  # fmt: skip
                (folder / f"{budget}-{design}.json").write_text(json.dumps(values))
    return tmp_path / "cells"


def test_the_page_holds_predictors_against_each_other(
    cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(verdict_page, "PREDICTORS", ("taylor", "trained on for 15 %"))
    monkeypatch.setattr(
        sys, "argv", ["verdict_page", str(cells), "--docs", str(tmp_path), "--lines", str(tmp_path / "lines.json")]
    )
    verdict_page.main()
    lines = (tmp_path / "verdicts.md").read_text(encoding="utf-8").splitlines()
    assert any("4 tasks (lines, mixed, ring, texture), 1 networks, 4 of their pairs" in line for line in lines)
    assert any("32 designs, 16 of which lose more than 0.02 Dice" in line for line in lines)
    (of_curve,) = (line for line in lines if line.startswith("| trained on for 15 % | 1.00 |"))
    assert "| 100% | 0.0% | 0% | 0.75 |" in of_curve
    chosen = [line for line in lines if line.startswith("| trained on for 15 %")][1]
    assert chosen.endswith("| 8 of 8 |")
    assert "| 0.00" in chosen
    lines = json.loads((tmp_path / "lines.json").read_text(encoding="utf-8"))["lines"]
    kinds = [("trained on", False), ("trained on", True), ("silenced", None)]
    assert [(each["predictor"], each["keeps_skips"]) for each in lines] == kinds


def test_cells_are_kept_for_the_next_time(cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    losses = json.loads((cells / "ring-unet" / "losses.json").read_text())
    losses["budgets"]["6"]["depth1"] |= {"low": float("nan"), "high": float("nan")}  # too few of its trainings started
    (cells / "ring-unet" / "losses.json").write_text(json.dumps(losses))
    monkeypatch.setattr(verdict_page, "PREDICTORS", ("silenced",))
    where = ["--docs", str(tmp_path), "--lines", str(tmp_path / "lines.json")]
    monkeypatch.setattr(sys, "argv", ["verdict_page", str(cells), *where])
    verdict_page.main()
    first, rows = (tmp_path / "verdicts.md").read_text(encoding="utf-8"), read_rows(cells)
    monkeypatch.setattr(sys, "argv", ["verdict_page", *where])
    verdict_page.main()
    assert (tmp_path / "verdicts.md").read_text(encoding="utf-8") == first
    kept = verdict_page.kept_rows(tmp_path / "data" / "verdicts.json")
    assert {row.task for row in kept} == {row.task for row in rows}
    changed = [replace(row, loss=0.5) for row in rows if row.task == "ring"]
    joined = verdict_page.joined(kept, changed)
    assert len(joined) == len(kept)
    assert {row.loss for row in joined if row.task == "ring"} == {0.5}


def test_a_cell_that_is_not_whole_is_not_read(cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = len(read_rows(cells))
    (cells / "ring-unet" / "losses.json").unlink()
    assert len(read_rows(cells)) == whole - 8
    assert page(read_rows(cells))[0] == "# What predicts the loss of Dice"
    (cells / "mixed-unet" / "losses.json").unlink()
    monkeypatch.setattr(sys, "argv", ["verdict_page", str(cells), "--docs", str(tmp_path)])
    with pytest.raises(SystemExit, match="there are cells of fewer than three tasks: nothing can be left out"):
        verdict_page.main()
