"""The page of predictions says what its rows say."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibration import verdict_page
from calibration.verdict_effort import USED, command_verdicts
from calibration.verdict_fit import Row, left_out_lines, predicted
from calibration.verdict_images import CellImages, keep_images, kept_images, of_few_images, with_steps
from calibration.verdict_page import page, read_cells

from unetscope.analysis import LossLine
from unetscope.table import Evidence, Interval, Silenced, TrainedOn, Variant, parts_named

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
        curves = {
            name: {str(seed): [0.8 - gaps.get(name, 0.0) / 2 + 0.003 * random.normal()] * 19 for seed in range(3)}
            for name in ("model1", *DESIGNS)
        }
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


@pytest.mark.long
def test_the_page_holds_predictors_against_each_other(
    cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(verdict_page, "PREDICTORS", ("taylor", "trained on for 15 %"))
    monkeypatch.setattr(
        sys, "argv", ["verdict_page", str(cells), "--docs", str(tmp_path), "--lines", str(tmp_path / "lines.json")]
    )
    verdict_page.main()
    lines = (tmp_path / "verdicts.md").read_text(encoding="utf-8").splitlines()
    of_networks = "4 tasks (lines, mixed, ring, texture), 1 networks (this package's U-Net), 4 of their pairs"
    assert any(of_networks in line for line in lines)
    assert any("32 designs, 16 of which lose more than 0.02 Dice" in line for line in lines)
    (of_curve,) = (line for line in lines if line.startswith("| trained on for 15 % | 1.00 |"))
    assert "| 100% | 0.0% | 0% | 0.75 |" in of_curve
    chosen = [line for line in lines if line.startswith("| trained on for 15 %")][1]
    assert chosen.endswith("| 8 of 8 |")
    assert "| 0.00" in chosen
    lines = json.loads((tmp_path / "lines.json").read_text(encoding="utf-8"))["lines"]
    kinds = [([["trained on"]], False), ([["trained on"]], True), ([["silenced"]], None)]
    assert [(each["predictors"], each["keeps_skips"]) for each in lines] == kinds


@pytest.mark.long
def test_cells_are_kept_for_the_next_time(cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    losses = json.loads((cells / "ring-unet" / "losses.json").read_text())
    losses["budgets"]["6"]["depth1"] |= {"low": float("nan"), "high": float("nan")}  # too few of its trainings started
    (cells / "ring-unet" / "losses.json").write_text(json.dumps(losses))
    monkeypatch.setattr(verdict_page, "PREDICTORS", ("silenced",))
    where = ["--docs", str(tmp_path), "--lines", str(tmp_path / "lines.json")]
    monkeypatch.setattr(sys, "argv", ["verdict_page", str(cells), *where])
    verdict_page.main()
    first, rows = (tmp_path / "verdicts.md").read_text(encoding="utf-8"), read_cells(cells)[0]
    monkeypatch.setattr(sys, "argv", ["verdict_page", *where])
    verdict_page.main()
    assert (tmp_path / "verdicts.md").read_text(encoding="utf-8") == first
    kept = verdict_page.kept_rows(tmp_path / "data" / "verdicts.json")
    assert {row.task for row in kept} == {row.task for row in rows}
    changed = [replace(row, loss=0.5) for row in rows if row.task == "ring"]
    joined = verdict_page.joined(kept, changed)
    assert len(joined) == len(kept)
    assert {row.loss for row in joined if row.task == "ring"} == {0.5}


@pytest.mark.long
def test_a_cell_that_is_not_whole_is_not_read(cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = len(read_cells(cells)[0])
    (cells / "ring-unet" / "losses.json").unlink()
    assert len(read_cells(cells)[0]) == whole - 8
    assert page(*read_cells(cells))[0] == "# What predicts the loss of Dice"
    (cells / "mixed-unet" / "losses.json").unlink()
    monkeypatch.setattr(sys, "argv", ["verdict_page", str(cells), "--docs", str(tmp_path)])
    with pytest.raises(SystemExit, match="there are cells of fewer than three tasks: nothing can be left out"):
        verdict_page.main()


@pytest.mark.long
def test_the_command_is_judged_by_what_it_found(cells: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A network that is there decides on what it lacks; of the rest, what is lost at once."""
    there = TrainedOn(Variant("depth1-without-skip1", 1, parts_named(["skip1"])), 0.8, Interval(0.0, -0.01, 0.01), 0.3)
    evidence = Evidence(18, 3, 0.8, (there,), 2, depth=2)
    silenced = [
        Silenced(18, Variant(name, depth, parts_named(without)), 0.9)
        for name, depth, without in (
            ("without-skip1", 2, ["skip1"]),
            ("without-skip2", 2, ["skip2"]),
            ("depth1", 1, []),
        )
    ]
    values = {"evidence": evidence.as_dict(), "silenced": [row.as_dict() for row in silenced]}
    (cells / "ring-unet" / "effort-18.json").write_text(json.dumps(values))
    rows, efforts = read_cells(cells)
    assert [(each.task, each.budget, each.trainings) for each in efforts] == [("ring", 18, 2 * 3 / 18)]
    decisions = {each.row.design: each.decision for each in command_verdicts(rows, efforts, left_out_lines(rows, USED))}
    assert decisions == {
        "without-skip1": "redundant", "depth1": "redundant", "without-skip2": "needed", "no-skips": "needed",
    }  # fmt: skip
    monkeypatch.setattr(verdict_page, "PREDICTORS", ("silenced",))
    where = ["--docs", str(tmp_path), "--lines", str(tmp_path / "lines.json")]
    for words in ([str(cells)], []):  # the second time from what was kept
        monkeypatch.setattr(sys, "argv", ["verdict_page", *words, *where])
        verdict_page.main()
        lines = (tmp_path / "verdicts.md").read_text(encoding="utf-8").splitlines()
        assert any(line.startswith("| effort of 0.3, 18 epochs (0.33 trainings) | 3 |") for line in lines)
        assert any(line.startswith("| effort of 0.3 |") and line.endswith("| 1 of 1 |") for line in lines)
        assert lines[4:6] == ["| | goal | reached | of other tasks |", "|---|---|---|---|"]
        shares = [line.split(" | ")[2] for line in lines[6:8]]
        assert shares == ["66.7% of 3", "33.3% of 3"]  # depth1 is needed, and a network that is there hid it
        assert "Of 1 proposed designs 1 were not retrained" in lines[13]


def test_intervals_of_few_images_hold_with_what_images_add(tmp_path: Path) -> None:
    """Losses that vary over images as the Dice does from epoch to epoch, and an interval for the mean of many."""
    random = np.random.default_rng(0)
    drawn = random.normal(0, 1, (9, 100))
    drawn *= 0.04 / drawn.std(axis=1, keepdims=True)
    losses = {f"depth{depth}": [*row.round(4).tolist(), np.nan] for depth, row in enumerate(drawn[:8], 1)}
    dice = {60: [0.8] * 100 + [np.nan], 59: [*(0.8 + drawn[8]).round(4).tolist(), np.nan]}
    cell = CellImages("ring", "unet", 60, dice, losses)
    keep_images([cell], tmp_path / "images.json")
    (again,) = kept_images(tmp_path / "images.json")
    np.testing.assert_equal((again.cell, again.dice, again.losses), (cell.cell, cell.dice, cell.losses))
    rows = [Row("ring", "unet", 60, design, 0.0, {}) for design in losses]
    expected = [(row, Interval(0.0, -0.01, 0.01)) for row in rows]
    table = {line.split("|")[2].strip(): line for line in of_few_images(expected, [again], ("nuclei",))}
    assert list(table) == ["48", "24", "12", "6"]
    shares = {count: [int(cell.strip(" %")) for cell in line.split("|")[3:7]] for count, line in table.items()}
    for holds, wider, under, wider_under in shares.values():
        assert 85 <= wider <= 99
        assert under == 100 >= wider_under
        assert holds < wider
    assert shares["6"][0] < 60
    assert shares["6"][3] < 50 < shares["24"][3]
    assert list(of_few_images(expected, [], ())) == []


@pytest.mark.long
def test_the_page_tells_of_few_images_where_their_dice_is_kept(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_page, "PREDICTORS", ("silenced",))
    rows, efforts = read_cells(cells)
    dice = {18: [0.8, 0.7] * 30, 17: [0.7, 0.8] * 30}
    images = [CellImages(*row.cell, dice, {row.design: [row.loss] * 60}) for row in rows]
    assert not any("Few validation images" in line for line in page(rows, efforts))
    monkeypatch.setattr(verdict_page, "AT_ONCE", "silenced")
    text = "\n".join(page(rows, efforts, images))
    assert "| tasks | images | holds | wider holds |" in text
    assert "| drawn | 12 |" in text


def test_a_dice_that_jumps_makes_a_row_less_sure() -> None:
    """Of the mean over the images, along the epochs that a training's score is of."""
    row = Row("ring", "unet", 20, "depth1", 0.05, {"silenced": 0.1}, error=0.001)
    dice = {18: [0.5, 0.7], 19: [0.6, 0.8], 20: [0.5, 0.7]}
    (jumping,) = with_steps([row], [CellImages("ring", "unet", 20, dice, {})])
    assert jumping.step == pytest.approx(0.1)
    assert with_steps([row], []) == [row]
    line = LossLine((("silenced",),), None, 0.0, 0.5, (0.01, 0.0), (0.01, 0.0))
    (calm,), (wide,) = (predicted([each], "silenced", {"ring": [line]}) for each in (row, jumping))
    assert wide[1].value == calm[1].value == 0.05
    half = calm[1].high - calm[1].value
    assert wide[1].high - wide[1].value == pytest.approx(math.hypot(half, half / 0.01 * 0.4 * 0.1))
