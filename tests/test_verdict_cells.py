"""What predicts the loss of designs is kept with what retraining says of them, and nothing is done twice."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from calibration import verdict_cells, verdict_fit
from calibration.verdict_cells import Cell, Recipe, drawn, named_task

DESIGNS = {"without-skip1", "without-skip2", "depth1", "no-skips"}


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    values = {
        "data.image_size": 16, "network.width": 2, "network.depth": 2, "training.batch_size": 8, "measuring.clusters": 2,
        "training.precision": "float32",
    }  # fmt: skip
    monkeypatch.setattr(verdict_cells, "SMALL", Recipe((6, 8), values, seeds=2, most_seeds=3))
    monkeypatch.setattr(verdict_cells, "EFFORT", 1.0)
    monkeypatch.setattr(verdict_cells, "SMALL_ERROR", 1e-6)  # any variance asks for more seeds
    monkeypatch.setattr(verdict_fit, "UNLEARNT_DICE", 0.0)
    monkeypatch.setattr(verdict_cells, "TRAIN", 16)
    monkeypatch.setattr(verdict_cells, "HELD_OUT", 8)
    return Cell(tmp_path / "cells", drawn("coarse", tmp_path / "tasks"), "unet")


@pytest.mark.long
def test_a_cell_is_filled_once(cell: Cell) -> None:
    said: list[str] = []
    cell.fill(said.append)
    kept = cell.kept()
    assert {name for name in kept if name != "losses"} >= {
        f"{budget}-{design}" for budget in (6, 8) for design in DESIGNS
    }
    for name, values in kept.items():
        if name not in ("losses", "probed") and not name.startswith("effort"):
            assert len(values["curve"]) == len(values["curve of the whole"]) == 4
            assert values["taylor"] >= 0
            assert values["verdict"] in {"needed", "redundant", "undecided"}
    by_design = kept["losses"]["budgets"]["8"]
    assert set(by_design) >= DESIGNS
    assert all(len(curve) == 9 for curves in kept["losses"]["curves"].values() for curve in curves.values())
    assert kept["losses"]["curves"].keys() == {"model1", *by_design}
    assert all(len(curves) == 3 for curves in kept["losses"]["curves"].values())
    silenced = kept["8-without-skip1"]
    assert silenced["curve"][0] == pytest.approx(silenced["whole"] - silenced["silenced"], abs=0.02)  # the same network
    for budget in (6, 8):
        assert kept["probed"][str(budget)].keys() == {"without-skip1", "without-skip2", "depth1"}
        assert all(not lost < 0 for lost in kept["probed"][str(budget)].values())  # NaN of what has learnt nothing
        effort = kept[f"effort-{budget}"]
        assert (effort["evidence"]["epoch"], effort["evidence"]["epochs"]) == (budget, 3)
        assert {each["design"]["name"] for each in effort["silenced"]} >= {"without-skip1", "without-skip2", "depth1"}
    again: list[str] = []
    cell.fill(again.append)
    assert [text.rpartition(": ")[2] for text in again] == ["run", "verify"]


def test_a_task_of_files_needs_them() -> None:
    words = argparse.Namespace(folder=Path("kept"), nuclei=None, membranes=None)
    with pytest.raises(SystemExit, match="--nuclei: name the archives of nuclei"):
        named_task("nuclei", words)
