"""Class maps in groups, from a folder in nnU-Net's layout, through every verb of the command."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runs import Stopping
from shapes import IGNORED, shapes
from unetscope.cli.main import main
from unetscope.runs.engines import InProcess
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.training.config import preset_config

pytestmark = pytest.mark.usefixtures("sketched_figures")
PATIENTS, SLICES, SIDE = 16, 3, 16
LABELS = {"ground": 0, "disc": 1, "square": 2, "ignore": 3}
SETTINGS = {
    "data.accept": ["unlabelled", "empty-mask"],  # a mask of each stands among them
    "data.groups": r"(p\d+)_",
    "data.image_size": SIDE,
    "data.validation_share": 0.35,
    "network.width": 4,
    "network.depth": 1,
    "training.epochs": 4,
    "training.batch_size": 4,
    "training.learning_rate": 1e-2,
    "training.precision": "float32",
    "measuring.clusters": 4,
    "measuring.marked": (2, 4),
    "threads": 1,
}


def write_dataset(folder: Path) -> Path:
    """Slices of patients as nnU-Net stores flat images: a file a case, and what its numbers mean in dataset.json."""
    data = shapes(PATIENTS * SLICES, side=SIDE)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for row, (image, mask) in enumerate(zip(data.images, data.masks, strict=True)):
        case = f"p{row // SLICES:02}_{row % SLICES}"
        Image.fromarray(image[0]).save(folder / "imagesTr" / f"{case}_0000.png")
        Image.fromarray(np.where(mask == IGNORED, LABELS["ignore"], mask)).save(folder / "labelsTr" / f"{case}.png")
    description = {
        "channel_names": {"0": "grey"},
        "labels": LABELS,
        "numTraining": len(data.images),
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("nnunet") / "Dataset001_Shapes")


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped, and went on."""
    configuration = preset_config("quick", SETTINGS | {"data.path": str(dataset)})
    out = tmp_path_factory.mktemp("class") / "run"
    with pytest.raises(KeyboardInterrupt):
        run_experiment(configuration, out, progress=Stopping(2))
    return run_experiment(configuration, out, resume=True).path


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a verb prints; its trainings run in this process."""

    monkeypatch.setattr("unetscope.runs.engine_named", lambda *_args, **_kwargs: InProcess())

    def printed(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["unetscope", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit, match="0"):
            main()
        return capsys.readouterr().out

    return printed


@pytest.mark.long
def test_the_set_is_checked_and_no_patient_is_on_both_sides(
    output: Callable[..., str], dataset: Path, finished: Path
) -> None:
    printed = output("check-data", dataset, "--groups", SETTINGS["data.groups"])
    assert "masks: class maps of 3 classes, 0 to 2, 3 ignored (as dataset.json says)" in printed
    facts = RunFolder.open(finished).facts["data"]
    slices = [Counter(facts[part]["groups"]) for part in ("train", "validation")]
    assert sum(map(len, slices)) == PATIENTS
    assert set(slices[0].values()) == set(slices[1].values()) == {SLICES}  # so none is on both sides


@pytest.mark.long
def test_a_stopped_run_has_the_numbers_of_one_that_was_not(dataset: Path, finished: Path, tmp_path: Path) -> None:
    without_probes = {"measuring.usable": False, "measuring.merge_probes": False}
    configuration = preset_config("quick", SETTINGS | without_probes | {"data.path": str(dataset)})
    straight = RunFolder.open(run_experiment(configuration, tmp_path / "run").path)
    resumed = RunFolder.open(finished)
    assert [record.dice_per_class for record in resumed.epochs()] == [
        record.dice_per_class for record in straight.epochs()
    ]
    assert set(straight.flow().estimates) <= set(resumed.flow().estimates)


@pytest.mark.long
def test_every_part_is_judged_and_the_page_names_the_classes(output: Callable[..., str], run: Path) -> None:
    verdicts = json.loads(output("verdict", run, "--json", "--no-cost"))["verdicts"]
    assert {(row["part"], row["rule"]) for row in verdicts} >= {("skip1", "conditional"), ("level1", "conditional")}
    assert all("out of domain" not in row["text"] for row in verdicts if row["rule"] == "conditional")
    assert any(row["rule"] == "loss" for row in verdicts)
    printed = " ".join(output("verdict", run, "--no-cost").split())
    assert "A loss is of the mean Dice over the classes of an image: one of 3 may lose 3 times as much." in printed
    output("measure", run, "--renyi=0.5", "--epochs=4", "--quiet")
    assert "renyi" in {row.estimator for row in RunFolder.open(run).flow().estimates}
    assert output("report", run, "--quiet").strip() == str(run / "report.html")


@pytest.mark.long
def test_seeds_are_spent_until_it_is_decided_or_there_are_no_more(output: Callable[..., str], run: Path) -> None:
    words = ("verify", run, "--variants=without-skip1", "--seeds=auto", "--trainings=8", "--json")
    verification = json.loads(output(*words))
    (outcome,) = verification["outcomes"]
    assert 3 <= outcome["seeds"] <= 4  # two trainings a seed: the whole network, and the variant
    assert outcome["decision"] in ("needed", "redundant", "undecided")
    assert len(outcome["dice_per_class"]) == 3
    assert json.loads(output(*words))["outcomes"] == [outcome], "no training is repeated"


@pytest.mark.long
def test_the_smaller_network_has_the_classes_of_the_whole_one(output: Callable[..., str], run: Path) -> None:
    slimmed = json.loads(output("slim", run, "--design=without-skip1", "--json"))
    assert len(slimmed["dice_per_class"]) == 3
    assert slimmed["savings"]["slim"]["parameters"] < slimmed["savings"]["whole"]["parameters"]
