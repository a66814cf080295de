"""A network of volumes through the whole loop: run, resume, judge, verify, slim and report, as one of images."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

import unetscope as us
from runs import TINY, Stopping
from unetscope.base.errors import InvalidArgument, NetworkError
from unetscope.networks.saved_parts import load_parts
from unetscope.report.picture_data import prediction_data
from unetscope.report.render import drawings
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.design_costs import savings
from unetscope.runs.engines import InProcess
from unetscope.runs.experiment import prepare
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.forecast import forecast_run
from unetscope.runs.slimming import slim
from unetscope.runs.verification import verify
from unetscope.training.config import preset_config
from unetscope.training.outputs import OutputReading
from unetscope.training.scores import Task

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, sides=3, width=3, outputs=1):
        super().__init__()
        conv, up = (nn.Conv3d, nn.ConvTranspose3d) if sides == 3 else (nn.Conv2d, nn.ConvTranspose2d)
        self.down1, self.down2 = conv(1, width, 3, padding=1), conv(width, 2 * width, 3, padding=1)
        self.bottom = conv(2 * width, 2 * width, 3, padding=1)
        self.up2, self.up1 = up(2 * width, width, 2, 2), up(width, width, 2, 2)
        self.join2, self.join1 = conv(3 * width, width, 3, padding=1), conv(2 * width, width, 3, padding=1)
        self.pool = nn.MaxPool3d(2) if sides == 3 else nn.MaxPool2d(2)
        self.drop, self.head = nn.Dropout(0.1), conv(width, outputs, 1)

    def forward(self, volume):
        first = torch.relu(self.down1(volume))
        second = torch.relu(self.down2(self.pool(first)))
        up = torch.relu(self.bottom(self.drop(self.pool(second))))
        up = torch.relu(self.join2(torch.cat([self.up2(up), second], 1)))
        return self.head(torch.relu(self.join1(torch.cat([self.up1(up), first], 1))))
"""


def planted(task: str, n: int, shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Volumes and masks whose answer is known.

    voxel: noise, and the mask is its bright voxels, so skip1 is needed. coarse: cells of 4×8×8 voxels under noise, and the mask
    is the bright cells, so skip1 is redundant.
    """
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, *shape))
    if task == "voxel":
        values, mask = noise, noise > 0.3
    else:
        mask = rng.random((n, shape[0] // 4, shape[1] // 8, shape[2] // 8)) < 0.4
        mask = mask.repeat(4, axis=1).repeat(8, axis=2).repeat(8, axis=3)
        values = noise + 1.4 * mask - 0.7
    return np.clip(np.rint(values * 40 + 128), 0, 255).astype(np.uint8), mask.astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six stacks of 8×16×32 voxels, each of two patches, flat images of the same, and nets.py."""
    folder = tmp_path_factory.mktemp("volume-runs")
    (folder / "nets.py").write_text(CODE)
    for number, (image, mask) in enumerate(zip(*planted("coarse", 6, (8, 16, 32)), strict=True)):
        for role, values in (("images", image), ("masks", mask), ("flat/images", image[0]), ("flat/masks", mask[0])):
            path = folder / ("" if "/" in role else "stacks") / role / f"v{number}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, values, photometric="minisblack")
    return folder


def configured(folder: Path, **changed: Any) -> Any:
    """A short training of `Net` of nets.py on the stacks of a folder."""
    of_unet = ("network.width", "network.depth", "data.synthetic_images")
    values = {name: value for name, value in TINY.items() if name not in of_unet}
    ours = {
        "network.code": f"{folder / 'nets.py'}:Net",
        "data.path": str(folder / "stacks"),
        "data.image_size": (8, 16, 16),
        "data.validation_share": 0.4,
        "training.epochs": 2,
        "training.precision": "float32",
    }
    return preset_config("demo", {**values, **ours, **changed})


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    run_experiment(configured(folder), folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.long
def test_a_run_of_volumes_says_what_it_is_of(finished: Path) -> None:
    run = RunFolder.open(finished)
    train = run.facts["data"]["train"]
    assert (train["images"], train["image size"], sorted(set(train["groups"]))) == (8, [8, 16, 16], [0, 1, 2, 3])
    assert [skip.name for skip in run.flow().skips] == ["skip1", "skip2"]
    assert run.flow().layers[0].shape == (3, 8, 16, 16)
    images, truths, marked = (run.pictures(kind) for kind in ("image", "truth", "prediction"))
    assert all(picture.title.endswith(", slice 5 of 8") for picture in (*images, *truths, *marked))
    assert {picture.pixels.shape for picture in images} == {(16, 16, 3)}
    assert {picture.pixels.shape for picture in (*truths, *marked)} == {(16, 16)}
    name = images[0].title.split()[0]
    x = int(images[0].title.split(",")[0].rpartition("x")[2])
    stored = tifffile.imread(finished.parent / "stacks/masks" / f"{name}.tif")
    assert (truths[0].pixels == stored[4, :, x : x + 16] * 255).all()


@pytest.mark.long
def test_a_stopped_run_of_volumes_goes_on_to_the_same_numbers(folder: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_experiment(configured(folder), tmp_path / "run", progress=Stopping(1))
    run_experiment(configured(folder), tmp_path / "run", resume=True)
    assert_same_numbers(tmp_path / "run", finished)


def assert_same_numbers(path: Path, straight: Path) -> None:
    stopped, whole = RunFolder.open(path), RunFolder.open(straight)
    assert [(r.epoch, r.validation_loss, r.validation_dice) for r in stopped.epochs()] == [
        (r.epoch, r.validation_loss, r.validation_dice) for r in whole.epochs()
    ]
    assert stopped.flow().estimates == whole.flow().estimates


@pytest.mark.slow
def test_a_killed_run_of_volumes_goes_on_to_the_same_numbers(folder: Path, finished: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "unetscope", "run", "--preset", "demo", "--network", f"{folder / 'nets.py'}:Net"]
    words += ["--data", str(folder / "stacks"), "--image-size", "8x16x16", "--validation-share", "0.4", "--epochs", "2"]
    words += ["--clusters", "2", "--no-merge-probes", "--threads", "1", "--precision", "float32"]
    words += ["--out", str(tmp_path / "run"), "--quiet"]
    with subprocess.Popen(words) as process:
        while not (tmp_path / "run" / "checkpoints" / "epoch-00001").is_dir() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    subprocess.run([*words, "--resume"], check=True)
    assert_same_numbers(tmp_path / "run", finished)


@pytest.mark.long
def test_parts_of_a_network_of_volumes_are_left_out_and_reported(run: Path) -> None:
    verification = verify(run, ["without-skip1"], seeds=1, engine=InProcess())
    assert [variant.name for variant in verification.variants] == ["model1", "without-skip1"]
    result = slim(run, "depth1-without-skip1", fine_tune=1)
    cost = savings(RunFolder.open(run), result.design)
    assert cost.slim.parameters == result.savings.slim.parameters < cost.whole.parameters
    smaller, volumes = load_parts(result.path.parent), torch.rand(2, 1, 8, 16, 16)
    assert smaller(volumes).shape == (2, 1, 8, 16, 16)


@pytest.mark.long
def test_pictures_of_volumes_say_which_slice_they_show(finished: Path) -> None:
    run = AnalysedRun.open(finished)
    captions = {drawing.name: drawing.caption for drawing in drawings(run)}
    assert captions["predictions"].endswith("Of each volume the middle slice is shown, with the Dice of that slice.")
    assert captions["masks_by_cluster_blocks"].endswith("Of each volume the middle slice is shown.")
    shown = prediction_data(run)
    assert shown is not None
    assert shown["note"] == "Of each volume the middle slice is shown."
    assert all(title.endswith(", slice 5 of 8") for title in shown["titles"])


@pytest.mark.slow
def test_the_memory_of_a_run_of_volumes_is_forecast(folder: Path, tmp_path: Path) -> None:
    forecast = forecast_run(configured(folder), tmp_path / "run")
    assert (forecast.training_images, forecast.validation_images) == (8, 4)
    assert forecast.memory_bytes > 2**27
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_network_of_volumes_becomes_onnx(run: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is an extra of the tests")
    result = slim(run, "without-skip1", exports=("onnx",))
    volumes = torch.rand(3, 1, 8, 16, 16)
    session = onnxruntime.InferenceSession(str(result.exports[0]))
    (given,) = session.run(None, {session.get_inputs()[0].name: volumes.numpy()})
    smaller = load_parts(result.path.parent).eval()
    torch.testing.assert_close(torch.from_numpy(given), smaller(volumes).detach(), atol=1e-5, rtol=1e-5)


OTHER_SIDES: dict[str, tuple[dict[str, Any], str]] = {
    "a 3-D network on slices": (
        {"data.image_size": 16, "data.volumes": "slices"},
        r"takes volumes, and image size 16x16 is of flat images: give volumes and --image-size DEPTHxHEIGHTxWIDTH, such as 16x",
    ),
    "a 2-D network on volumes": (
        {"network.arguments": ("sides=2",)},
        r"takes flat images, and image size 8x16x16 is of volumes: say --image-size 16x16, which makes an image of each slice",
    ),
    "our U-Net on volumes": (
        {"network.code": None, "network.depth": 1},
        r"the U-Net of this package takes flat images, and --image-size 8x16x16 is of volumes: name a network",
    ),
    "synthetic images": ({"data.path": None}, "image_size must be 2 integers .* height and width, got"),
}


@pytest.mark.parametrize("kind", OTHER_SIDES)
def test_a_network_of_other_sides_than_the_images_is_told_what_to_do(folder: Path, kind: str) -> None:
    changed, text = OTHER_SIDES[kind]
    with pytest.raises(InvalidArgument, match=text):
        prepare(configured(folder, **changed))


def test_a_3d_network_on_flat_files_and_one_that_runs_on_nothing(folder: Path) -> None:
    with pytest.raises(InvalidArgument, match="takes volumes, and image size 16x16 is of flat images"):
        prepare(configured(folder, **{"data.path": str(folder / "flat"), "data.image_size": 16}))
    with pytest.raises(
        us.UnetscopeError, match=r"v0.tif: it is a single slice of 16x32 pixels, and the image size 8x16x16"
    ):
        prepare(configured(folder, **{"data.path": str(folder / "flat")}))
    with pytest.raises(NetworkError, match=r"Net does not run on an example \[1, 1, 2, 16, 16\]"):
        prepare(configured(folder, **{"data.image_size": (2, 16, 16), "data.accept": ("empty-mask",)}))


def test_slices_of_volumes_train_the_packages_own_network(folder: Path) -> None:
    changed = {
        "network.code": None,
        "network.depth": 1,
        "network.width": 2,
        "data.image_size": 16,
        "data.volumes": "slices",
    }
    experiment = prepare(configured(folder, **changed))
    assert (len(experiment.train), len(experiment.validation)) == (32, 16)
    assert not set(experiment.train.groups) & set(experiment.validation.groups)


@pytest.mark.long
def test_class_maps_of_volumes_are_learnt(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data/images").mkdir(parents=True)
    for path in (folder / "stacks/images").iterdir():
        shutil.copy(path, tmp_path / "data/images")
        mask = tifffile.imread(folder / "stacks/masks" / path.name)
        mask = np.where(np.arange(32) < 8, 2 * mask, mask)
        mask[0] = 9
        (tmp_path / "data/masks").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "data/masks" / path.name, mask.astype(np.uint8), photometric="minisblack")
    changed = {
        "data.path": str(tmp_path / "data"),
        "data.classes": 3,
        "data.ignore": 9,
        "network.arguments": ("outputs=3",),
    }
    run = run_experiment(configured(folder, **changed, **{"training.epochs": 1}), tmp_path / "run")
    assert len(run.epochs()[-1].dice_per_class) == 3
    assert run.facts["data"]["train"]["ignored share"] == pytest.approx(1 / 8)
    assert set(np.unique(run.pictures("truth")[0].pixels)) <= {0, 1, 2}


def judged(task: str, n: int, epochs: int, tmp_path: Path, width: int) -> us.analysis.Judgement:
    """The verdicts on a network that was trained on a planted task of volumes."""
    images, masks = planted(task, n, (8, 16, 16))
    data = us.SegmentationData(images[:, None], masks, tuple(map(str, range(n))), task)
    train, validation = data.split(0.3)
    code: dict[str, Any] = {}
    exec(CODE, code)
    torch.manual_seed(0)
    model: nn.Module = code["Net"](width=width)
    scope = us.Scope(model, train, held_out=validation, labels=[], estimators=[])
    config = us.TrainingConfig(epochs=epochs, batch_size=4, learning_rate=0.01, precision="float32")
    reading, marked = OutputReading(Task(), "logits"), (epochs // 2, epochs)
    trainer = us.Trainer(model, train, validation, config, tmp_path, marked=marked, reading=reading)
    trainer.run(on_marked=lambda epoch, _: scope.measure(epoch))
    return us.judge(scope.flow)


@pytest.mark.long
def test_a_skip_that_voxels_need_is_needed(tmp_path: Path) -> None:
    assert judged("voxel", 32, 4, tmp_path, width=3).decision("skip1") == "needed"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "n", "needed", "redundant"),
    [("voxel", 240, ["skip1"], ["level1", "level2", "skip2"]), ("coarse", 400, [], ["skip1"])],
)
def test_planted_tasks_of_volumes_are_judged_rightly(
    task: str, n: int, needed: list[str], redundant: list[str], tmp_path: Path
) -> None:
    judgement = judged(task, n, 16, tmp_path, width=6)
    assert {part: judgement.decision(part) for part in needed} == dict.fromkeys(needed, "needed")
    assert {part: judgement.decision(part) for part in redundant} == dict.fromkeys(redundant, "redundant")
