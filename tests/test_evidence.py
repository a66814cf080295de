"""Redundancy shown by smaller networks that are trained on from a run's weights."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import unetscope as us
from unetscope.analysis import interval_over_images
from unetscope.base.errors import InvalidArgument, RunFolderError
from unetscope.cli.main import app
from unetscope.networks.ablation import ablated
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.evidence import gather_evidence
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.slimming import slim
from unetscope.table.evidence import EVIDENCE_LEVEL, Evidence, TrainedOn, bisected
from unetscope.table.intervals import Interval
from unetscope.table.parts import Variant, parts_named, removed_parts
from unetscope.training.checkpoints import Checkpoints
from unetscope.training.config import preset_config
from unetscope.training.trainer import validation_scores

EFFORT, EPOCHS = 0.6, 3  # of 20 epochs, for a network and three smaller ones


@pytest.fixture(scope="module")
def finished(once: Callable[..., Path]) -> Path:
    changed = {
        "data.synthetic_images": 56,
        "data.validation_share": 0.4,
        "data.image_size": 32,
        "network.width": 4,
        "network.depth": 2,
        "training.epochs": 20,
        "training.learning_rate": 4e-3,
        "training.batch_size": 4,
        "measuring.marked": [2, 20],
        "measuring.clusters": 2,
        "measuring.merge_probes": False,
        "threads": 1,
    }
    return once("evidence", lambda path: run_experiment(preset_config("demo", changed), path))


@pytest.fixture(scope="module")
def gathered(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evidence]:
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("gathered") / "run"))
    return run, gather_evidence(run, EFFORT)


@given(size=st.integers(1, 40), shown=st.integers(0, 40))
def test_bisection_finds_the_smallest_design_that_is_shown(size: int, shown: int) -> None:
    """The first `shown` of the designs lose little; few of them are tried."""
    tried: list[bool | None] = [None] * size
    while (place := bisected(tried)) is not None:
        assert tried[place] is None
        tried[place] = place < shown
    assert max((place for place, is_shown in enumerate(tried) if is_shown), default=-1) == min(shown, size) - 1
    assert sum(is_shown is not None for is_shown in tried) <= math.ceil(math.log2(size + 1))


@pytest.mark.long
def test_designs_lack_ever_more_and_are_compared_as_networks_that_are_there(gathered: tuple[Path, Evidence]) -> None:
    path, evidence = gathered
    assert (evidence.epoch, evidence.epochs, evidence.depth) == (20, EPOCHS, 2)
    lacking = [set(removed_parts(tried.design, 2)) for tried in evidence.tried]
    assert all(larger < smaller for larger, smaller in itertools.pairwise(lacking))
    _, held_out = us.synthetic_nuclei(56, image_size=32).split(0.4)
    for tried in evidence.tried:
        written = slim(path, tried.design.name, fine_tune=EPOCHS)  # nothing is trained anew
        assert written.dice == pytest.approx(tried.dice, abs=1e-6)
        assert tried.loss.value == pytest.approx(evidence.dice - tried.dice, abs=1e-6)
        assert tried.loss.low <= tried.loss.value <= tried.loss.high
        assert tried.images == len(held_out)
    model = us.UNet(4, depth=2)
    Checkpoints(RunFolder.open(path).checkpoints).load_weights(20, model)
    whole = validation_scores(model, held_out).images
    structure = us.inspect(model, torch.rand(1, 3, 32, 32))
    for tried in evidence.tried:
        parts = [str(part) for part in removed_parts(tried.design, 2)]
        with ablated(model, structure, parts):
            silenced = validation_scores(model, held_out).images
        assert tried.silenced == pytest.approx(float((whole - silenced).mean()), abs=1e-6)
        assert tried.from_run == pytest.approx(float(whole.mean()) - tried.dice, abs=1e-6)


@pytest.mark.long
def test_evidence_is_kept_and_gathered_again_without_training(
    gathered: tuple[Path, Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, evidence = gathered
    kept = AnalysedRun.open(path).evidence
    assert kept is not None
    assert str(kept) == str(evidence)

    def refuse(*_: object) -> None:
        raise AssertionError("a step was trained")

    monkeypatch.setattr(torch.optim.Adam, "step", refuse)
    assert gather_evidence(path, EFFORT).dice == evidence.dice


@pytest.mark.parametrize("trainings", [1, 3, 7, 15])
def test_a_search_is_seldom_deceived_by_its_looks(trainings: int) -> None:
    """Designs that all lose the margin in truth, each compared on the same 50 images."""
    rounds, deceived = math.ceil(math.log2(trainings + 1)), 0
    for seed in range(300):
        losses = 0.02 + 0.05 * np.random.default_rng(seed).normal(size=(trainings, 50))
        shown: list[bool | None] = [None] * trainings
        while (place := bisected(shown)) is not None:
            interval = interval_over_images(losses[place][None], (), 1 - (1 - EVIDENCE_LEVEL) / rounds)
            assert interval is not None
            shown[place] = interval.high < 0.02
        deceived += any(shown)
    assert deceived / 300 <= 0.08  # 5 % on this side, and what 300 draws vary by


def test_what_a_small_loss_shows() -> None:
    designs = [
        ("without-skip1", 3, ["skip1"], 0.001),
        ("depth2-without-skip1", 2, ["skip1"], 0.004),
        ("depth1", 1, [], 0.3),
    ]
    tried = tuple(
        TrainedOn(
            Variant(name, depth, parts_named(without)), 0.8 - loss, Interval(loss, loss - 0.01, loss + 0.01), loss
        )
        for name, depth, without, loss in designs
    )
    evidence = Evidence(10, 1, 0.8, tried, designs=5, depth=3)
    smallest = evidence.smallest(0.02)
    assert smallest is not None
    assert smallest.design.name == "depth2-without-skip1"
    assert list(map(str, evidence.redundant(0.02))) == ["skip1", "level3"]
    assert evidence.smallest(0.01) is None
    assert evidence.redundant(0.01) == ()
    worse = replace(tried[0], from_run=0.03)  # than the run's network was: training on has harmed the whole one
    assert not worse.shows(0.02)
    assert replace(worse, from_run=0.019).shows(0.02)
    assert replace(tried[0], images=20).shows(0.02)
    assert not replace(tried[0], images=19).shows(0.02)
    unknown = TrainedOn(tried[0].design, 0.8, Interval(0.0, math.nan, math.nan), 0.0)  # too few groups of images
    assert not unknown.shows(0.02)


@pytest.mark.long
@pytest.mark.parametrize(
    ("effort", "text"),
    [
        (0.2, r"effort 0.2 of 20 epochs is less than 3 for the whole network and for a smaller one: say 0\.3 or more"),
        (0.0, r"effort must be a share of the run's epochs, more than 0 and at most 1, got 0"),
        (1.5, r"at most 1, got 1.5"),
        (float("nan"), r"at most 1, got nan"),
    ],
)
def test_an_effort_that_cannot_be_is_refused(finished: Path, effort: float, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        gather_evidence(finished, effort)


@pytest.mark.long
@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (("tried",), "none", r"evidence\.json: tried: input should be a valid list"),
        (("depth",), 10**9, r"evidence\.json: depth: input should be less than or equal to 1000"),
        (("dice",), 7.0, r"evidence\.json: dice: input should be less than or equal to 1"),
        (("epochs",), -1, r"evidence\.json: epochs: input should be greater than or equal to 0"),
        (("tried", 0, "loss"), [0.1], r"evidence\.json: tried\.0\.loss: input should be a valid dictionary"),
    ],
)
def test_evidence_of_a_stranger_is_validated(
    gathered: tuple[Path, Evidence], tmp_path: Path, place: tuple[str | int, ...], value: object, text: str
) -> None:
    run = Path(shutil.copytree(gathered[0], tmp_path / "run"))
    values = json.loads((run / "evidence.json").read_text())
    values.pop("sha256")
    inner = values
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    (run / "evidence.json").write_text(json.dumps(values))
    with pytest.raises(RunFolderError, match=text):
        _ = AnalysedRun.open(run).evidence


@pytest.mark.long
def test_the_verb_tells_what_is_shown(gathered: tuple[Path, Evidence]) -> None:
    path, evidence = gathered
    printed = CliRunner().invoke(app, ["verdict", str(path), "--no-cost"])
    assert printed.exit_code == 0, printed.output
    assert "Trained on for 3 epochs from epoch 20, beside the whole network" in printed.output
    told = json.loads(CliRunner().invoke(app, ["verdict", str(path), "--no-cost", "--json"]).output)["evidence"]
    assert told["dice"] == evidence.dice
    assert [each["design"]["name"] for each in told["tried"]] == [each.design.name for each in evidence.tried]
    assert np.isfinite([each["silenced"] for each in told["tried"]]).all()
