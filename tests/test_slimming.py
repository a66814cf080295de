"""The smaller network: what it keeps, what it says of itself, and that a stranger's file does no harm."""

from __future__ import annotations

import importlib.util
import json
import math
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import unetscope as us
from runs import edited_config
from unetscope.base.errors import InvalidArgument, NetworkError, RunFolderError
from unetscope.networks.unet import UNet
from unetscope.runs.carrying import carry_over
from unetscope.runs.design_costs import savings
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.slimming import slim
from unetscope.runs.thin_skips import compare_thin, parse_thin
from unetscope.table.parts import Variant
from unetscope.training.config import preset_config
from unetscope.training.trainer import validation_dice


@pytest.fixture(scope="module")
def finished(once: Callable[..., Path]) -> Path:
    changed = {
        "data.synthetic_images": 40,
        "data.validation_share": 0.1,
        "data.image_size": 32,
        "network.width": 8,
        "network.depth": 2,
        "training.epochs": 30,
        "training.learning_rate": 2e-3,
        "training.batch_size": 4,
        "measuring.marked": [2, 30],
        "measuring.clusters": 2,
        "threads": 1,
    }
    return once("slimmed", lambda path: run_experiment(preset_config("demo", changed), path))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_without_the_half_that_reads_the_skip_nothing_changes() -> None:
    torch.manual_seed(0)
    whole, images = UNet(4, depth=3), torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for module, channels in ((whole.layer16[0], 4), (whole.layer10[0], 16)):
            module.weight[:, channels:] = 0  # what the skip brings is not read
    small = UNet(4, depth=3, without=["skip1", "skip3"])
    assert carry_over(whole, small) == 1.0
    assert torch.equal(small(images), whole(images))


def test_a_shallower_network_keeps_every_layer_that_is_at_its_level() -> None:
    torch.manual_seed(1)
    whole, small = UNet(2, depth=4), UNet(2, depth=2)
    assert carry_over(whole, small) == 1.0
    pairs = {"layer1": "layer1", "layer6": "layer6", "up7": "up17", "layer8": "layer18", "layer13": "layer23"}
    for in_small, in_whole in pairs.items():
        for name, weight in small.get_submodule(in_small).named_parameters():
            assert torch.equal(weight, whole.get_submodule(in_whole).get_parameter(name)), (in_small, name)


@pytest.mark.long
def test_the_written_network_gives_the_printed_dice_in_a_process_of_its_own(run: Path) -> None:
    result = slim(run, "without-skip1", fine_tune=2)
    assert result.path == run / "slim" / "without-skip1-fine-tuned" / "model.safetensors"
    assert json.loads((result.path.parent / "slim.json").read_text())["dice"] == result.dice
    code = (
        "import unetscope as us, sys, torch\n"
        "_, held_out = us.synthetic_nuclei(40, seed=0, image_size=32).split(0.1, seed=0)\n"
        f"model = us.load_model({str(result.path)!r})\n"
        "images = torch.from_numpy(held_out.images).float() / 255\n"
        "with torch.no_grad(): marked = model(images)[:, 0] > 0.5\n"
        "masks = torch.from_numpy(held_out.masks).bool()\n"
        "both = (marked & masks).sum((1, 2))\n"
        "print(((2 * both + 1) / (marked.sum((1, 2)) + masks.sum((1, 2)) + 1)).mean().item())"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert float(printed) == pytest.approx(result.dice, abs=1e-6)
    more = slim(run, "without-skip1", fine_tune=4)  # goes on from the second epoch
    assert more.dice_carried == result.dice_carried
    assert more.dice != result.dice
    with pytest.raises(InvalidArgument, match=r"training-30 was trained on for 4 epochs already: ask for 4 or more"):
        slim(run, "without-skip1", fine_tune=2)
    with RunFolder.open(run).locked(), pytest.raises(RunFolderError, match="another process is working on this run"):
        slim(run, "without-skip1", fine_tune=5)


@pytest.mark.long
def test_the_weights_of_a_retraining_are_handed_over(run: Path) -> None:
    with pytest.raises(
        RunFolderError,
        match=r"depth1 has not been retrained to its end: unetscope verify .* --variants depth1",
    ):
        slim(run, "depth1", retrained=True)
    us.verify(run, ["depth1"], seeds=1)
    result = slim(run, "depth1", retrained=True)
    last = RunFolder.open(run / "verification" / "depth1" / "seed-0").epochs()[-1]
    assert result.dice == pytest.approx(last.validation_dice, abs=0.02)  # that one in bfloat16 where there is any
    assert result.dice != result.dice_carried
    trained = RunFolder.open(run / "verification" / "depth1" / "seed-0")
    for record in trained.epochs():
        trained.write_epoch(replace(record, validation_loss=math.inf))  # as if it had never got below a guess
    with pytest.raises(RunFolderError, match="no retraining of depth1 has started to learn: add seeds"):
        slim(run, "depth1", retrained=True)


@pytest.mark.long
def test_a_run_of_a_gpu_is_read_where_there_is_none(run: Path) -> None:
    with edited_config(run) as about:
        about["configuration"]["training"]["device"] = "cuda"
    assert savings(RunFolder.open(run), Variant("depth1", 1, ())).slim.parameters > 0
    assert slim(run, "depth1").path.is_file()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_exported_programs_do_the_same(run: Path, kind: str) -> None:
    if kind == "onnx":
        runtime = pytest.importorskip("onnxruntime", reason="onnxruntime runs what was exported")
        pytest.importorskip("onnxscript", reason="torch exports ONNX through it")
    result = slim(run, "depth1", exports=(kind,))  # type: ignore[arg-type]
    images = torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        expected = us.load_model(result.path)(images)
    (path,) = result.exports
    if kind == "torch":
        probabilities = torch.export.load(path).module()(images)
    else:
        session = runtime.InferenceSession(str(path))
        (probabilities,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        probabilities = torch.from_numpy(np.asarray(probabilities))
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.long
def test_what_cannot_be_slimmed_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgument, match="model1 is the whole network: name what to leave out"):
        slim(run, "model1")
    with pytest.raises(InvalidArgument, match="retrained weights are taken as they are"):
        slim(run, "depth1", retrained=True, fine_tune=1)
    with pytest.raises(InvalidArgument, match="export 'tflite': expected onnx or torch"):
        slim(run, "depth1", exports=("tflite",))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(us.UnetscopeError, match=r'ONNX needs onnx and onnxscript: pip install "unetscope\[onnx\]"'):
        slim(run, "depth1", exports=("onnx",))
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunFolderError, match="keeps no checkpoint: train it first"):
        slim(run, "depth1")


def test_a_strangers_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(
        NetworkError, match=r"no network in .*model\.safetensors: expected a file written by unetscope slim"
    ):
        us.load_model(tmp_path)
    path.write_bytes(pickle.dumps({"weights": [1, 2]}))
    with pytest.raises(NetworkError, match=r"cannot be read as a network \("):
        us.load_model(path)
    us.networks.save_model(UNet(2, depth=1), path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(NetworkError, match=r"cannot be read as a network \("):
        us.load_model(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(NetworkError, match="has no network in its header"):
        us.load_model(path)

    def headed(**network: object) -> None:
        about = {"width": 2, "depth": 1, "without": [], "in_channels": 3, "out_channels": 1, **network}
        save_file({"a": torch.zeros(1)}, path, {"format": "unetscope 1", "network": json.dumps(about)})

    for network, text in (
        ({"width": 10**9}, "names a width of 1000000000: expected 1 to 4096"),
        ({"depth": 99}, "depth must be 1 to 6, got 99"),
        ({"without": ["skip7"]}, "no skip skip7"),
        ({"width": "2"}, "cannot be read as a network"),
        ({"in_channels": 10**9}, "names channels: 1000000000: expected 1 to 4096"),
        ({}, "cannot be read as a network"),  # the weights are not its own
    ):
        headed(**network)
        with pytest.raises(us.UnetscopeError, match=text):
            us.load_model(path)


def test_dice_leaves_the_network_as_it_was() -> None:
    model, data = UNet(2, depth=1).train(), us.synthetic_nuclei(3, image_size=16)
    dice = validation_dice(model, data)
    assert model.training
    assert dice.shape == (3,)
    assert bool(((dice > 0) & (dice <= 1)).all())


# Thin skips.


@pytest.mark.long
def test_a_run_is_written_with_thin_skips_and_loads_again(run: Path) -> None:
    made = slim(run, thin={"skip1": 2}, exports=("onnx",) if importlib.util.find_spec("onnxscript") else ())
    assert made.path.parent == run / "slim" / "model1-thin-skip1-2"
    assert made.text == "depth 2, skip1 of 2 directions"
    assert made.savings.slim.multiply_adds < made.savings.whole.multiply_adds
    again = us.networks.load_parts(made.path.parent)
    assert again.thinned == {"skip1": 2}
    _, held_out = us.synthetic_nuclei(40, image_size=32).split(0.2)
    assert again(torch.from_numpy(held_out.images[:1]) / 255).shape == (1, 1, 32, 32)
    both = slim(run, "without-skip1", thin={"skip2": 2}, fine_tune=1)  # whose only skip is the first that it has
    assert both.path.parent.name == "without-skip1-thin-skip2-2-fine-tuned"
    assert us.networks.load_parts(both.path.parent).get_submodule("thin_skip1.compress").in_channels == 16
    assert math.isfinite(both.dice)


@pytest.mark.long
def test_directions_of_a_skip_are_compared_on_one_picture(run: Path) -> None:
    whole, compared = compare_thin(run, {"skip1": (1, 8), "skip2": (16,)})
    kept = [e for e in RunFolder.open(run).flow().select(epoch=30).estimates if e.quantity == "I_V(S→Y|U)"]
    of_run = {e.layer: e for e in kept if e.estimator == "usable_convolutional"}
    merges = {skip.name: skip.merge for skip in RunFolder.open(run).flow().skips}
    assert [(thin.skip, thin.kept, thin.channels) for thin in compared] == [
        ("skip1", 1, 8),
        ("skip1", 8, 8),
        ("skip2", 16, 16),
    ]
    shares = [thin.share for thin in compared]
    assert shares[0] < 1
    assert shares[1:] == pytest.approx([1, 1])
    assert [thin.dice for thin in compared[1:]] == pytest.approx(
        [whole, whole], abs=1e-4
    )  # all directions are the skip
    # all directions tell what the skip tells, as far as another draw of the probe's units goes
    assert [thin.told for thin in compared[1:]] == pytest.approx(
        [of_run[merges[name]].bits for name in ("skip1", "skip2")], rel=0.25
    )
    assert compared[0].told < compared[1].told
    assert (run / "slim" / "thin-skips.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["skip1"], "--thin skip1: expected a skip and how many of its directions to keep, such as skip1=4"),
        (["skip1=0"], "--thin skip1=0: expected"),
        (["level1=2"], "--thin level1=2: expected"),
        (["skip1=2,"], "--thin skip1=2,: expected"),
        (["skip1=2", "skip1=3"], "skip1 is named twice"),
    ],
)
def test_words_that_make_no_skip_thinner_are_refused(words: list[str], text: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(text)):
        parse_thin(words)


@pytest.mark.long
def test_what_no_network_has_is_refused(run: Path) -> None:
    with pytest.raises(InvalidArgument, match="skip1 has 8 channels, so 1 to 8 can be kept, got 9"):
        slim(run, thin={"skip1": 9})
    with pytest.raises(NetworkError, match="depth 2 has no skip3: its skips are skip1, skip2"):
        slim(run, thin={"skip3": 1})
    with pytest.raises(NetworkError, match="depth 2 without skip1 has no skip1: its skips are skip2"):
        slim(run, "without-skip1", thin={"skip1": 1})
    with pytest.raises(InvalidArgument, match="leave out one of retrained and fine_tune or thin"):
        slim(run, thin={"skip1": 1}, retrained=True)
