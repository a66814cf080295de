"""A run goes on on another machine: its images lie elsewhere, its device is another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from runs import TINY, edited_config
from unetscope.base import NoProgress
from unetscope.base.errors import InvalidArgument, RunFolderError
from unetscope.report.report_data import facts
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.engines import InProcess
from unetscope.runs.experiment import measure_again
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.verification import verify
from unetscope.training.config import overridden_config, preset_config

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


class Told(NoProgress):
    """Progress that keeps what it warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def images(folder: Path) -> Path:
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for name in "abcdefghij":
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 4 : 8 + ord(name) % 5] = 255
        Image.fromarray(random.integers(0, 99, (16, 16), np.uint8) + mask // 2).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on images of a folder."""
    place = tmp_path_factory.mktemp("begun")
    values: dict[str, Any] = {
        **TINY,
        "data.path": str(images(place / "data")),
        "training.epochs": 2,
        "training.precision": "float32",
        "measuring.usable": False,
    }
    run_experiment(preset_config("demo", values), place / "run")
    return place


@pytest.fixture
def place(begun: Path, tmp_path: Path) -> Path:
    """That run, with a third epoch to go, and its images, in a folder of its own."""
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    with edited_config(tmp_path / "run") as about:
        about["configuration"]["training"]["epochs"] = 3
        about["configuration"]["data"]["path"] = str(tmp_path / "data")
    return tmp_path


def resumed(run: Path, **changed: Any) -> tuple[RunFolder, list[str]]:
    told = Told()
    config = overridden_config(RunFolder.open(run).configuration, changed)
    return run_experiment(config, run, resume=True, progress=told), told.warnings


@pytest.mark.long
def test_a_run_goes_on_with_its_images_elsewhere(place: Path) -> None:
    (place / "data").rename(place / "elsewhere")
    folder, warnings = resumed(place / "run", **{"data.path": str(place / "elsewhere")})
    line = f"data.path: {place / 'data'} → {place / 'elsewhere'}"
    assert f"this run goes on elsewhere: {line}" in warnings
    assert folder.last_epoch() == 3
    assert folder.configuration["data"]["path"] == str(place / "elsewhere")
    assert folder.facts["moves"] == [{"epoch": 2, "changed": [line]}]  # of the newest checkpoint
    assert facts(AnalysedRun.open(folder.path))["Moves"] == {"from epoch 2": line}
    assert not any("elsewhere" in text for text in resumed(place / "run")[1])  # it is there now


def test_it_goes_on_elsewhere_from_its_newest_checkpoint(place: Path) -> None:
    """Which is not the last epoch that was written, if a machine is lost."""
    shutil.rmtree(place / "run" / "checkpoints" / "epoch-00002")
    (place / "data").rename(place / "elsewhere")
    folder, _ = resumed(place / "run", **{"data.path": str(place / "elsewhere")})
    assert [move["epoch"] for move in folder.facts["moves"]] == [1]
    assert folder.last_epoch() == 3


@no_cuda
def test_a_run_of_a_gpu_goes_on_without_one(place: Path) -> None:
    with edited_config(place / "run") as about:
        about["configuration"]["training"] |= {"device": "cuda", "cuda_graphs": True}
    before = (place / "run" / "config.json").read_bytes()
    with pytest.raises(InvalidArgument, match="torch finds none here: use --device cpu"):
        resumed(place / "run")
    assert (place / "run" / "config.json").read_bytes() == before
    folder, warnings = resumed(place / "run", **{"training.device": "cpu"})
    assert any("training.device: cuda → cpu; training.cuda_graphs: True → None" in text for text in warnings)
    assert folder.last_epoch() == 3
    assert folder.configuration["training"]["device"] == "cpu"
    assert folder.facts["moves"][0]["epoch"] == 2


@no_cuda
def test_a_run_of_a_gpu_is_measured_without_one(begun: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(begun / "run", tmp_path / "run"))
    with edited_config(run) as about:
        about["configuration"]["training"]["device"] = "cuda"
    folder = measure_again(run, {"bin_sizes": (0.3,)}, epochs=[2])
    assert 0.3 in {estimate.resolution for estimate in folder.flow().select(epoch=2).estimates}
    assert folder.configuration["training"]["device"] == "cuda"  # that it was trained with


@pytest.mark.long
def test_trainings_of_a_verification_move_with_the_run(place: Path) -> None:
    verify(place / "run", ["depth1"], seeds=[1], engine=InProcess())
    trial = next((place / "run" / "verification").glob("*/seed-1"))
    (place / "data").rename(place / "elsewhere")
    resumed(place / "run", **{"data.path": str(place / "elsewhere")})
    (trial / "ending.json").unlink()
    with edited_config(trial) as about:
        about["configuration"]["training"]["epochs"] = 3
    verify(place / "run", ["depth1"], seeds=[1], engine=InProcess())
    assert RunFolder.open(trial).ending is not None
    assert RunFolder.open(trial).configuration["data"]["path"] == str(place / "elsewhere")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"data.path": None}, "data.path: .* → None"),
        ({"training.learning_rate": 0.5}, "training.learning_rate: 0.002 → 0.5"),
        ({"seed": 3, "training.device": "cpu"}, r"\(seed: 0 → 3\)"),
    ],
)
def test_another_run_is_no_move(place: Path, changed: dict[str, Any], text: str) -> None:
    before = (place / "run" / "config.json").read_bytes()
    with pytest.raises(RunFolderError, match=text):
        resumed(place / "run", **changed)
    assert (place / "run" / "config.json").read_bytes() == before


def test_other_images_are_no_move(place: Path) -> None:
    other = images(place / "other")
    (other / "images" / "a.png").unlink()
    (other / "masks" / "a.png").unlink()
    before = json.loads((place / "run" / "config.json").read_text())
    with pytest.raises(RunFolderError, match=r"are not those that .* was begun with"):
        resumed(place / "run", **{"data.path": str(other)})
    assert json.loads((place / "run" / "config.json").read_text()) == before
