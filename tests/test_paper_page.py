"""The page of the paper's experiment says of each claim what the trainings show."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runs import edited_config, made_run
from unetscope.runs.folder import RunFolder
from unetscope.runs.tables import Picture
from unetscope.table.parts import named_variants
from unetscope.table.records import EpochRecord

SCRIPTS = Path(__file__).parents[1] / "scripts"
EPOCHS = 20  # at a learning rate of 0.5, so that each counts as five hundred of the paper's
Curve = Callable[[int], float]


def rising(at: int, to: float = 0.85) -> Curve:
    """A Dice that rises until an epoch, where it is at its best, and falls a little after it."""
    return lambda epoch: to * epoch / at if epoch <= at else to - 0.0001 * (epoch - at)


AS_IN_THE_PAPER = {"model1": rising(5), "model2": rising(6), "model3": rising(16), "model4": rising(20, 0.6)}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return runpy.run_path(str(SCRIPTS / "make_paper.py"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = made_run(tmp_path_factory.mktemp("paper") / "run", (0, 2, 10, EPOCHS)).path
    with edited_config(path) as config:
        config["configuration"]["training"]["learning_rate"] = 0.5
        for part, images in (("train", 605), ("validation", 65)):
            config["facts"]["data"][part]["images"] = images
        config["facts"]["versions"]["torch"] = "2"
    return path


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def in_colour(picture: Picture) -> Picture:
    """A grey picture with three channels, as those of images have."""
    return replace(picture, pixels=np.stack([picture.pixels] * 3, axis=2))


def train(run: Path, curves: dict[str, Curve], *, epochs: int = EPOCHS, loss: float = 0.2, seed: int = 0) -> None:
    """Trainings of Models 1 to 4 with these Dice. loss: at the end; 0.6 is that of a constant prediction."""
    whole = RunFolder.open(run)
    for variant in named_variants(["paper"], depth=4):
        if variant.name not in curves:
            continue
        folder = RunFolder.create(
            run / "verification" / variant.name / f"seed-{seed}",
            {
                "configuration": whole.configuration
                | {"network": {**whole.configuration["network"], **variant.network}, "seed": seed},
                "facts": whole.facts,
            },
        )
        if variant.name == "model1":
            of_data = [*map(in_colour, whole.pictures("image")), *whole.pictures("truth")]
            folder.describe(whole.flow().layers, whole.flow().skips, of_data)
            folder.write_measurement(0, (), whole.pictures("prediction"))
        for epoch in range(epochs + 1):
            dice = curves[variant.name](epoch)
            folder.write_epoch(EpochRecord(epoch, 0.3, dice, loss if epoch else 0.6, dice, 36.0, 0.9, (dice, dice)))
        folder.end({"constant channels": {"9": 1.0} if loss > 0.5 else {}})


def answers(script: dict[str, Any], run: Path) -> dict[str, str]:
    """The answer to each claim, by its first words."""
    return {claim.text: claim.answer for claim in script["claims"](script["Protocol"](run))}


OF_DICE = (
    "Model 1 is at its best between epochs 2,000 and 3,000",
    "Model 2 is at its best between epochs 2,000 and 3,000",
    "Model 2 reaches the Dice of Model 1",
    "Model 3 reaches the Dice of Model 1, later",
    "Model 4 does not reach the Dice of Model 1",
)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ("held", "held", "held", "held", "held")),
        ({"model1": rising(12)}, ("did not hold", "held", "held", "held", "held")),
        ({"model2": rising(20, 0.7)}, ("held", "did not hold", "did not hold", "held", "held")),
        ({"model3": rising(20, 0.8)}, ("held", "held", "held", "did not hold", "held")),
        ({"model4": rising(18)}, ("held", "held", "held", "held", "did not hold")),
    ],
)
def test_a_claim_holds_as_the_curves_say(
    changed: dict[str, Curve], expected: tuple[str, ...], script: dict[str, Any], run: Path
) -> None:
    train(run, AS_IN_THE_PAPER | changed)
    said = answers(script, run)
    assert tuple(said[text] for text in OF_DICE) == expected


def test_what_has_not_ended_is_not_decided(script: dict[str, Any], run: Path) -> None:
    train(run, AS_IN_THE_PAPER, epochs=8)
    said = answers(script, run)
    assert [said[text] for text in OF_DICE] == ["not decided"] * 5
    assert said["I(X;M) over the layers is a U at first"] == "held"


@pytest.mark.parametrize(
    ("reached", "answer"),
    [
        ({"20": 1}, "not decided"),  # 14 may yet come before 17
        ({"20": 1, "17": 2, "14": 3}, "held"),
        ({"20": 1, "14": 2}, "did not hold"),
    ],
)
def test_an_order_is_decided_when_one_layer_is_left(
    reached: dict[str, int], answer: str, script: dict[str, Any], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = script["Protocol"](run)
    protocol.epochs = 10**9  # so that the run is far from its end
    monkeypatch.setattr(protocol, "full_from", lambda layer: (reached.get(layer), 1.0, 2.0))
    assert script["claims"](protocol)[0].answer == answer


def test_a_model_that_is_not_there_is_not_decided(script: dict[str, Any], run: Path) -> None:
    train(run, {name: AS_IN_THE_PAPER[name] for name in ("model1", "model2")})
    said = answers(script, run)
    assert [said[text] for text in OF_DICE] == ["held", "held", "held", "not decided", "not decided"]
    train(run, {"model3": AS_IN_THE_PAPER["model3"]}, epochs=-1)  # which waits for its turn
    assert set(script["Protocol"](run).models) == {"model1", "model2"}
    assert answers(script, run) == said


def test_a_training_that_does_not_start_is_no_evidence(script: dict[str, Any], run: Path) -> None:
    train(run, {name: curve for name, curve in AS_IN_THE_PAPER.items() if name != "model3"})
    train(run, {"model3": lambda epoch: 0.1}, loss=0.6)
    protocol = script["Protocol"](run)
    (claim,) = (claim for claim in script["claims"](protocol) if claim.text.startswith("Model 3"))
    assert claim.answer == "not decided"
    assert "it has not started: layer 9 is the same for every image" in claim.measured


def test_the_run_itself_is_model_1(script: dict[str, Any], run: Path) -> None:
    train(run, {name: AS_IN_THE_PAPER[name] for name in ("model2", "model3")})
    protocol = script["Protocol"](run)
    assert protocol.models["model1"].records == RunFolder.open(run).epochs()
    assert protocol.folders["model1"].path == run


@pytest.mark.parametrize(("later", "begins", "mean"), [(1.0, "1,500, 1,500", "0.000"), (1.5, "1,500, 2,500", "0.220")])
def test_two_learning_rates_are_compared_at_their_product(
    script: dict[str, Any], run: Path, tmp_path: Path, later: float, begins: str, mean: str
) -> None:
    """One rate is half the other; `later` stretches the curve of the larger one."""
    curves = {0.25: lambda epoch: 0.06 * max(0, epoch - 4), 0.5: lambda epoch: 0.12 * max(0.0, epoch / later - 2)}
    protocols = []
    for rate, curve in curves.items():
        path = Path(shutil.copytree(run, tmp_path / str(rate)))
        with edited_config(path) as about:
            about["configuration"]["training"]["learning_rate"] = rate
        train(path, {"model1": curve}, epochs=12)
        protocols.append(script["Protocol"](path))
    row = script["compared_rates"](*protocols, "model1")
    assert row[:4] == ("model1", "0.25, 0.5", "3,000", begins)
    assert row[4] == mean
    assert script["compared_rates"](*protocols, "model4") is None


def test_what_starting_does_is_said_seed_by_seed(script: dict[str, Any], run: Path, tmp_path: Path) -> None:
    he = Path(shutil.copytree(run, tmp_path / "he"))
    with edited_config(he) as about:
        about["configuration"]["network"]["initialisation"] = "he"
    train(run, {"model1": rising(5)})
    train(run, {"model1": lambda epoch: 0.03}, loss=0.6, seed=1)
    train(run, {"model1": rising(5)}, seed=2, epochs=8)  # which has not ended
    train(he, {"model1": rising(2), "model3": rising(8)})
    starts = {path.name: script["starts_of"](path) for path in (run, he)}
    assert starts["run"]["rows"] == [
        (
            "Glorot, as published",
            "model1",
            "1 of 2",
            "500, never",
            "0.850, 0.030",
            "layer 9 is the same for every image",
        )
    ]
    page = list(script["starts"](starts))
    assert (
        "| Glorot, as published | model1 | 1 of 2 | 500, never | 0.850, 0.030 | layer 9 is the same for every image |"
        in page
    )
    assert "| He | model1 | 1 of 1 | 500 | 0.850 | – |" in page
    assert "| He | model3 | 1 of 1 | 500 | 0.850 | – |" in page  # 0.106 after one epoch
    assert page[2].startswith(
        "Models 1 to 4 for 10,000 of the paper's epochs, seed by seed (width 8, 64×64, 20 epochs at"
    )


@pytest.mark.usefixtures("sketched_figures")
def test_the_page_is_written_with_its_tables(
    script: dict[str, Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="Parquet is an extra")
    train(run, AS_IN_THE_PAPER)
    monkeypatch.setattr(sys, "argv", ["make_paper.py", str(run), "--docs", str(tmp_path / "docs")])
    script["main"]()
    page = (tmp_path / "docs" / "paper.md").read_text(encoding="utf-8")
    assert "## Width 8, 64×64, 20 epochs at a learning rate of 0.5" in page
    assert "605 training and 65 validation images" in page
    here = "within 0.02 at 8,000; best 0.850 against 0.850"
    assert f"| Model 3 reaches the Dice of Model 1, later | about 8,000 | {here} | **held** |" in page
    assert "| model3 | 1,000 | 0.850 | 8,000 |" in page  # 0.106 of it after two epochs
    named = {line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")}
    assert len(named) == 5  # of the models, one alone has kept what it predicted
    assert all((tmp_path / "docs" / name).is_file() for name in named)
    assert sorted(path.name for path in (tmp_path / "docs" / "data").iterdir()) == [
        "paper_run_flow.parquet", *(f"paper_run_model{k}.parquet" for k in range(1, 5)), "paper_sections.json",
    ]  # fmt: skip
    shutil.rmtree(run)  # what took days is not kept for a page
    monkeypatch.setattr(sys, "argv", ["make_paper.py", "--docs", str(tmp_path / "docs")])
    script["main"]()
    assert (tmp_path / "docs" / "paper.md").read_text(encoding="utf-8") == page
