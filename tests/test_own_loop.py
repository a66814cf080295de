"""A run that was measured in a loop of the user's own: its variants retrained by that loop, and the smaller network."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import unetscope as us
from runs import CODE
from unetscope.base.errors import InvalidArgument, NetworkError, RunFolderError, TrainingError
from unetscope.cli.main import app
from unetscope.networks.inspection import build_network, inspect
from unetscope.networks.saved_parts import load_parts
from unetscope.report.render import drawings
from unetscope.runs import jobs
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.engines import InProcess, Local
from unetscope.runs.folder import RunFolder
from unetscope.runs.jobs import train
from unetscope.runs.own_loops import name_loop
from unetscope.runs.own_training import built_by_code
from unetscope.runs.retraining import retrain, trials
from unetscope.runs.slimming import slim
from unetscope.runs.verification import verify
from unetscope.table.parts import named_variants
from unetscope.training.checkpoints import Checkpoints
from unetscope.training.config import validated_config

LOOP = (
    CODE
    + """
import numpy

def build():
    return Net(width=2, rate=0.0)


def train(model, seed, folder, epochs):
    parameters = sum(parameter.numel() for parameter in model.parameters())
    first = int((folder / "epoch.txt").read_text()) if (folder / "epoch.txt").exists() else 0
    for epoch in range(first + 1, epochs + 1):
        with torch.no_grad():
            model.head.bias.fill_(epoch)
        (folder / "epoch.txt").write_text(str(epoch))
        yield epoch, parameters / 1000 + 0.001 * epoch + 0.0001 * seed * (parameters % 5)


def train_at_once(model, seed, folder, epochs):
    return {epoch: 0.8 for epoch in range(1, epochs + 1)}


def train_to_a_list(model, seed, folder, epochs):
    return [0.7] * epochs


def train_by_image(model, seed, folder, epochs):
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for epoch in range(1, epochs + 1):
        yield epoch, [0.5 + parameters / 10000 + 0.01 * image + 0.001 * (seed + image) % 3 for image in range(8)]


def train_two_images(model, seed, folder, epochs):
    return [(0.9, 0.8)] * epochs


def train_before_the_first(model, seed, folder, epochs):
    return {0: 0.5, 1: 0.6, 2: 0.7}


def train_short(model, seed, folder, epochs):
    return [0.7]


def train_nothing(model, seed, folder, epochs):
    return None


def train_badly(model, seed, folder, epochs):
    raise RuntimeError("no such optimizer")


def train_to_no_number(model, seed, folder, epochs):
    return {1: float("nan"), 2: 0.5}


def train_to_tensors(model, seed, folder, epochs):
    for epoch in range(1, epochs + 1):
        yield epoch, model.head.bias.sum() * 0 + 0.75


def train_to_one_tensor(model, seed, folder, epochs):
    return torch.tensor([0.5, 0.75])


def train_to_an_array(model, seed, folder, epochs):
    return numpy.array([0.5, 0.75], dtype="float32")


def train_to_arrays_of_images(model, seed, folder, epochs):
    return numpy.array([[0.5, 1.0]] * epochs)


def train_to_columns_of_images(model, seed, folder, epochs):
    return {numpy.int64(epoch): torch.tensor([[0.5], [1.0]]) for epoch in range(1, epochs + 1)}


def train_other_images(model, seed, folder, epochs):
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return [[0.5 + parameters / 10000 + 0.001 * seed * (parameters % 5)] * (2 + seed)] * epochs


def train_by_three(model, seed, folder):
    return [0.5]


def train_by_name(*, model, seed, folder, epochs):
    return [0.5]


def train_with_more(model, seed, folder, epochs, rate):
    return [0.5]


not_a_function = 3


def train_to_text(model, seed, folder, epochs):
    return "12"


def train_to_texts(model, seed, folder, epochs):
    return ["12"] * epochs


def train_to_metrics(model, seed, folder, epochs):
    return [{"dice": 0.5}] * epochs


def train_by_real_epochs(model, seed, folder, epochs):
    return {1.0: 0.5, 2.0: 0.5}


def train_more_images(model, seed, folder, epochs):
    return [[0.5, 0.6], [0.5, 0.6, 0.7]]


def train_without_a_key(model, seed, folder, epochs):
    return {}["weights"]


def train_and_exit(model, seed, folder, epochs):
    raise SystemExit(0)
"""
)


def measured(folder: Path) -> Path:
    """A run that was measured in a loop of its own, beside the file of that loop."""
    (folder / "loop.py").write_text(LOOP)
    network = build_network(f"{folder / 'loop.py'}:build")
    nuclei = us.synthetic_nuclei(6, image_size=16)
    recorder = us.Recorder(us.Scope(network, nuclei, estimators=[us.Binning()], labels=[]), folder / "run")
    for epoch in range(3):
        recorder.measure(epoch)
    return recorder.path


@pytest.fixture(scope="module")
def once_recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return measured(tmp_path_factory.mktemp("measured"))


@pytest.fixture
def recorded(once_recorded: Path, tmp_path: Path) -> Path:
    """A copy of a run that was measured in a loop of its own, beside a copy of that loop."""
    shutil.copy(once_recorded.parent / "loop.py", tmp_path)
    return Path(shutil.copytree(once_recorded, tmp_path / "run"))


@pytest.fixture(scope="module")
def once_retrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = measured(tmp_path_factory.mktemp("own-loop"))
    verified(run)
    return run


@pytest.fixture
def retrained(once_retrained: Path, tmp_path: Path) -> Path:
    """A copy of a run whose skips and lower level were left out and retrained; its loop is that of the original."""
    return Path(shutil.copytree(once_retrained, tmp_path / "run"))


def verified(run: Path, train_name: str = "train", variants: Sequence[str] = ("skips", "depth1")) -> Any:
    loop = run.parent / "loop.py"
    return verify(
        run, variants, seeds=2, build=f"{loop}:build", train=f"{loop}:{train_name}", engine=InProcess()
    )  # fmt: skip


@pytest.mark.long
def test_variants_are_retrained_by_the_users_own_loop(recorded: Path) -> None:
    verification = verified(recorded)
    assert [variant.name for variant in verification.variants] == ["model1", "without-skip1", "without-skip2", "depth1"]
    outcome = {row.variant.name: row.outcome for row in verification.rows()}
    sizes = {}
    for variant in verification.variants:
        folder = RunFolder.open(recorded / "verification" / variant.name / "seed-1")
        assert [record.epoch for record in folder.epochs()] == [1, 2]
        sizes[variant.name] = int(1000 * folder.epochs()[-1].validation_dice + 1e-6) - 2
    whole = build_network(f"{recorded.parent / 'loop.py'}:build")
    structure = inspect(whole, torch.zeros(1, 3, 16, 16))
    parts = {"without-skip1": "skip1", "without-skip2": "skip2", "depth1": "level2"}
    truth = {name: us.without(whole, structure, part) for name, part in parts.items()} | {"model1": whole}
    assert sizes == {name: sum(p.numel() for p in network.parameters()) for name, network in truth.items()}
    judged = AnalysedRun.open(recorded)
    assert {design.name: saved.slim.parameters for design, saved in judged.design_costs} == sizes
    assert "dice_against_cost" in {drawing.name for drawing in drawings(judged)}
    assert outcome["depth1"].decision == "needed", outcome["depth1"].text
    assert "over seeds alone) Dice, 2 pairs of seeds: over 0.02" in outcome["depth1"].text
    again = verified(recorded)  # nothing is trained twice
    assert [row.outcome.text for row in again.rows()] == [row.outcome.text for row in verification.rows()]


def test_a_job_of_the_users_loop_that_was_stopped_goes_on(recorded: Path) -> None:
    name_loop(recorded_folder := RunFolder.open(recorded), f"{recorded.parent / 'loop.py'}:build",
              f"{recorded.parent / 'loop.py'}:train")  # fmt: skip
    planned = trials(recorded_folder, named_variants(["model1"], depth=2), [0])
    retrain(recorded_folder, planned, engine=Nothing())
    (planned[0].path / "training").mkdir()
    (planned[0].path / "training" / "epoch.txt").write_text("1")
    train(planned[0].path)
    assert [record.epoch for record in RunFolder.open(planned[0].path).epochs()] == [2]


def test_a_job_that_was_killed_after_its_last_epoch_ends(recorded: Path) -> None:
    """The loop has nothing left to yield, and its scores are kept."""
    name_loop(folder := RunFolder.open(recorded), f"{recorded.parent / 'loop.py'}:build",
              f"{recorded.parent / 'loop.py'}:train")  # fmt: skip
    planned = trials(folder, named_variants(["model1"], depth=2), [0])
    retrain(folder, planned, engine=Nothing())
    train(planned[0].path)
    (planned[0].path / "ending.json").unlink()
    shutil.rmtree(planned[0].path / "checkpoints")
    train(planned[0].path)  # the loop's own epoch.txt says that both epochs are done
    assert RunFolder.open(planned[0].path).ending is not None
    assert Checkpoints(RunFolder.open(planned[0].path).checkpoints).epochs()[-1] == 2


@pytest.mark.long
def test_another_network_than_that_of_the_first_variants_is_refused(recorded: Path) -> None:
    loop = recorded.parent / "loop.py"
    verify(recorded, ["without-skip1"], seeds=1, build=f"{loop}:build", train=f"{loop}:train", engine=InProcess())
    loop.write_text(LOOP.replace("Net(width=2, rate=0.0)", "Net(width=3, rate=0.0)"))
    with pytest.raises(TrainingError, match=r"failed: .*loop\.py:build builds another network than when the loop of"):
        verify(recorded, ["without-skip1"], seeds=[5], engine=InProcess())


def test_a_seed_gives_the_same_weights_whatever_draws_them(recorded: Path) -> None:
    loop = recorded.parent / "loop.py"
    loop.write_text(
        f"{LOOP}\n\nimport random\n\n\ndef build_by_numpy():"
        + """
    network = build()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.from_numpy(numpy.random.randn(*weight.shape)) * random.random())
    return network
"""
    )
    run = RunFolder.open(recorded)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    name_loop(run, f"{loop}:build_by_numpy", f"{loop}:train", epochs=1)
    config = validated_config(run.facts["own loop"])
    weights = [
        next(built_by_code(run, config.model_copy(update={"seed": seed})).model.parameters()) for seed in (0, 0, 1)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())


@pytest.mark.long
def test_the_whole_network_keeps_levels_that_were_not_measured(tmp_path: Path) -> None:
    """Of a network of depth 2 the layers of its top merge alone are measured."""
    (tmp_path / "loop.py").write_text(LOOP)
    network = build_network(f"{tmp_path / 'loop.py'}:build")
    structure = inspect(network, torch.zeros(1, 3, 16, 16))
    (top,) = (skip for skip in structure.skips if skip.name == "skip1")
    layers = [layer for layer in structure.layers if layer.label in {top.source, top.upsampled, top.merge}]
    scope = us.Scope(
        network, us.synthetic_nuclei(6, image_size=16), layers=layers, skips=[top], estimators=[us.Binning()], labels=[]
    )
    recorder = us.Recorder(scope, tmp_path / "run")
    for epoch in range(3):
        recorder.measure(epoch)
    verification = verified(recorder.path)
    assert [variant.name for variant in verification.variants] == ["model1", "without-skip1", "without-skip2", "depth1"]
    whole = RunFolder.open(recorder.path / "verification" / "model1" / "seed-0")
    assert int(1000 * whole.epochs()[-1].validation_dice + 1e-6) - 2 == sum(p.numel() for p in network.parameters())


def test_a_plan_writes_nothing_to_the_run(recorded: Path) -> None:
    loop, before = recorded.parent / "loop.py", (recorded / "config.json").read_bytes()
    words = ["verify", str(recorded), "--network", f"{loop}:build", "--train", f"{loop}:train", "--dry-run", "--json"]
    planned = CliRunner().invoke(app, [*words, "--epochs", "1", "--variants", "skips", "--seeds", "2"])
    assert planned.exit_code == 0, planned.output
    assert len(json.loads(planned.stdout)["jobs"]) == 6
    assert (recorded / "config.json").read_bytes() == before
    wrong = CliRunner().invoke(app, ["verify", str(recorded), "--network", f"{loop}:build", "--train", "nonsense"])
    assert "--train nonsense: expected FILE.py:NAME" in wrong.output + str(wrong.exception)


def test_the_code_that_trains_is_consented_to_by_its_name(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = recorded.parent / "loop.py"
    name_loop(RunFolder.open(recorded), f"{loop}:build", f"{loop}:train")
    monkeypatch.setenv("UNETSCOPE_CACHE", str(recorded.parent / "cache-of-another"))
    for named in (None, f"{loop}:build"):
        with pytest.raises(
            RunFolderError, match=r"if you trust it, say --network .*loop\.py:build --train .*loop\.py:train"
        ):
            verify(recorded, ["skips"], seeds=1, code=named, engine=InProcess())


class Nothing:
    """An engine that trains nothing."""

    def run(self, folders: Sequence[Path], look: Callable[[], None]) -> dict[Path, str]:
        return {}


@pytest.mark.long
def test_the_users_loop_runs_in_processes_of_its_own(recorded: Path) -> None:
    loop = recorded.parent / "loop.py"
    verification = verify(
        recorded, ["without-skip1"], seeds=1, build=f"{loop}:build", train=f"{loop}:train", engine=Local(1)
    )
    assert len(verification.trainings) == 2
    assert all(training.sound for training in verification.trainings)


@pytest.mark.parametrize(
    ("train_name", "per_image"),
    [
        ("train_to_tensors", ()),
        ("train_to_one_tensor", ()),
        ("train_to_an_array", ()),
        ("train_to_arrays_of_images", (0.5, 1.0)),
        ("train_to_columns_of_images", (0.5, 1.0)),
    ],
)
def test_scores_may_be_tensors_and_arrays(recorded: Path, train_name: str, per_image: tuple[float, ...]) -> None:
    loop = recorded.parent / "loop.py"
    name_loop(RunFolder.open(recorded), f"{loop}:build", f"{loop}:{train_name}")
    retrain(
        RunFolder.open(recorded),
        trials(RunFolder.open(recorded), named_variants(["model1"], depth=2), [0]),
        engine=InProcess(),
    )
    (last,) = RunFolder.open(recorded / "verification" / "model1" / "seed-0").epochs()[-1:]
    assert last.validation_dice == 0.75
    assert last.dice_per_image == per_image


@pytest.mark.long
def test_scores_of_other_images_with_another_seed_are_compared_by_their_means(recorded: Path) -> None:
    verification = verified(recorded, "train_other_images", ["depth1"])
    (row,) = verification.rows()
    assert row.outcome.pairs == 2
    assert "over seeds alone" in row.outcome.text


@pytest.mark.long
@pytest.mark.parametrize("train_name", ["train_at_once", "train_to_a_list"])
def test_scores_come_in_several_forms(recorded: Path, train_name: str) -> None:
    verification = verified(recorded, train_name, ["depth1"])
    assert {training.score(2) for training in verification.trainings} == {0.8 if train_name == "train_at_once" else 0.7}


@pytest.mark.long
def test_scores_of_images_give_an_interval_over_images(recorded: Path) -> None:
    verification = verified(recorded, "train_by_image", ["depth1"])
    outcome = {row.variant.name: row.outcome for row in verification.rows()}["depth1"]
    assert len(verification.trainings[0].records[-1].dice_per_image) == 8
    assert "seeds alone" not in outcome.text
    assert outcome.difference.low < outcome.difference.value < outcome.difference.high


@pytest.mark.long
def test_scores_of_two_images_are_no_pair_of_epoch_and_score(recorded: Path) -> None:
    verification = verified(recorded, "train_two_images", ["depth1"])
    for training in verification.trainings:
        assert training.records[-1].dice_per_image == pytest.approx((0.9, 0.8), abs=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    ("train_name", "text"),
    [
        ("train_short", r"loop\.py:train_short gave scores up to epoch 1, expected 2"),
        ("train_nothing", r"loop\.py:train_nothing failed: it gave a NoneType, expected the score of each epoch"),
        ("train_to_text", r"failed: it gave a str, expected the score of each epoch, as a mapping or a list"),
        ("train_to_texts", r"failed: a score is a str, expected a number, or a list of those of the validation images"),
        ("train_to_metrics", r"failed: a score is a dict, expected a number"),
        ("train_by_real_epochs", r"failed: epoch 1\.0: expected a whole number, from 1 on"),
        (
            "train_more_images",
            r"failed: 3 scores of epoch 2 and 2 of the one before: expected those of the same images",
        ),
        ("train_badly", r"train_badly failed: no such optimizer \(RuntimeError in loop\.py, line \d+\)$"),
        ("train_without_a_key", r"failed: there is no 'weights' \(KeyError in loop\.py, line \d+\)$"),
        ("train_and_exit", r"train_and_exit ended the process \(loop\.py, line \d+\)$"),
        (
            "train_before_the_first",
            r"failed: scores \(0\.5,\) of epoch 0: expected numbers, for each of the epochs 1 to 2",
        ),
        ("train_to_no_number", r"failed: scores \(nan,\) of epoch 1: expected numbers, for each of the epochs 1 to 2"),
    ],
)
def test_a_loop_that_fails_is_named(recorded: Path, train_name: str, text: str) -> None:
    loop, run = recorded.parent / "loop.py", RunFolder.open(recorded)
    name_loop(run, f"{loop}:build", f"{loop}:{train_name}")
    (reason,) = retrain(run, trials(run, named_variants(["model1"], depth=2), [0]), engine=InProcess()).values()
    assert re.search(text, reason)


@pytest.mark.parametrize(
    ("train_name", "text"),
    [
        ("train_by_three", r"cannot be: too many positional arguments"),
        ("train_by_name", r"cannot be: too many positional arguments"),
        ("train_with_more", r"cannot be: missing a required argument: 'rate'"),
        ("not_a_function", r"cannot be: 3 is not a callable object"),
    ],
)
def test_what_cannot_be_called_as_a_loop_is_refused_before_anything_is_trained(
    recorded: Path, train_name: str, text: str
) -> None:
    with pytest.raises(
        InvalidArgument, match=rf"{train_name} is to be called as train\(model, seed, folder, epochs\), and {text}"
    ):
        verified(recorded, train_name, ["depth1"])
    assert not (recorded / "verification").exists()


class Failing:
    """An engine of which every job fails."""

    def run(self, folders: Sequence[Path], look: Callable[[], None]) -> dict[Path, str]:
        """Train nothing."""
        look()
        return dict.fromkeys(folders, "no such optimizer")


def test_why_every_training_failed_is_said(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = recorded.parent / "loop.py"
    with pytest.raises(
        TrainingError, match=r"no training got to an epoch: model1 with seed 3 failed: no such optimizer$"
    ):
        verify(recorded, ["model1"], seeds=[3], build=f"{loop}:build", train=f"{loop}:train_badly", engine=Failing())
    monkeypatch.setattr("sys.argv", ["jobs", str(recorded / "verification" / "model1" / "seed-3")])
    with pytest.raises(SystemExit):
        jobs.main()
    *log, last = capsys.readouterr().err.splitlines()
    assert any('raise RuntimeError("no such optimizer")' in line for line in log)
    assert last.startswith("unetscope: ")
    assert "train_badly failed: no such optimizer (RuntimeError in loop.py, line " in last


@pytest.mark.long
def test_what_a_loop_of_ones_own_needs_is_said(recorded: Path) -> None:
    with pytest.raises(NetworkError, match="has no 'no_such'"):
        verified(recorded, "no_such", ["depth1"])
    with pytest.raises(
        InvalidArgument,
        match=r"--network FILE\.py:build --train FILE\.py:train names what builds its network and what trains it",
    ):
        verify(recorded, ["skips"], engine=InProcess())
    with pytest.raises(InvalidArgument, match="build and train go together"):
        verify(recorded, ["skips"], build="loop.py:build", engine=InProcess())
    with pytest.raises(
        InvalidArgument, match="cannot be found by another process: define it by its name at the top of a file"
    ):
        verify(recorded, ["skips"], build=lambda: None, train="loop.py:train", engine=InProcess())
    verified(recorded, "train_at_once", ["depth1"])
    with pytest.raises(InvalidArgument, match=r"has variants trained by .*train_at_once for 2 epochs: name the same"):
        verified(recorded, "train_to_a_list", ["depth1"])


# The smaller network.


def weights_of(folder: RunFolder, network: torch.nn.Module) -> torch.nn.Module:
    """A network with the last weights that a training kept."""
    kept = Checkpoints(folder.checkpoints)
    kept.load_weights(kept.epochs()[-1], network)
    return network.eval()


def silenced(whole: torch.nn.Module, image: torch.Tensor, skip: str) -> torch.Tensor:
    """The output of a network with zeros in the place of a skip."""
    with torch.no_grad(), us.networks.ablated(whole, inspect(whole, image[:1]), skip):
        return whole(image)


@pytest.mark.long
def test_the_smaller_network_of_a_loop_has_the_weights_of_its_whole_one(retrained: Path) -> None:
    result = slim(retrained, "without-skip1")
    whole = build_network(RunFolder.open(retrained).facts["own loop"]["network"]["code"])
    weights_of(RunFolder.open(retrained / "verification" / "model1" / "seed-0"), whole)
    image = torch.rand(2, 3, 16, 16)
    small = load_parts(result.path.parent)
    with torch.no_grad():
        assert torch.allclose(small(image), silenced(whole, image, "skip1"), atol=1e-6)
    assert result.by_loop
    assert result.carried == 1
    assert json.loads((result.path.parent / "slim.json").read_text())["dice"] is None
    assert (
        result.dice_whole
        == RunFolder.open(retrained / "verification" / "model1" / "seed-0").epochs()[-1].validation_dice
    )
    assert result.savings.slim.parameters < result.savings.whole.parameters


@pytest.mark.long
def test_the_loop_trains_the_smaller_network_on_once(retrained: Path) -> None:
    result = slim(retrained, "depth1", fine_tune=3)
    parameters = sum(parameter.numel() for parameter in load_parts(result.path.parent).parameters())
    assert result.dice == pytest.approx(parameters / 1000 + 0.003)
    assert load_parts(result.path.parent).head.bias.item() == 3  # the loop writes the epoch there
    shutil.rmtree(result.path.parent / "training-3" / "training")  # the loop would begin anew
    again = slim(retrained, "depth1", fine_tune=3, exports=("torch",))
    assert (again.dice, len(again.exports)) == (result.dice, 1)
    assert not (result.path.parent / "training-3" / "training").exists()


@pytest.mark.long
def test_a_stopped_loop_trains_the_smaller_network_on_from_where_it_was(retrained: Path) -> None:
    beside = retrained / "slim" / "depth1-fine-tuned" / "training-3" / "training"
    slim(retrained, "depth1", fine_tune=3)
    (beside.parent / "ending.json").unlink()
    (beside / "epoch.txt").write_text("2")
    assert slim(retrained, "depth1", fine_tune=3).dice > 0
    epochs = [record.epoch for record in RunFolder.open(beside.parent).epochs()]
    assert epochs == [1, 2, 3]


@pytest.mark.long
def test_the_smaller_network_has_the_weights_of_its_retraining_by_the_loop(retrained: Path) -> None:
    result = slim(retrained, "without-skip2", retrained=True)
    trained = RunFolder.open(retrained / "verification" / "without-skip2" / "seed-0")
    assert result.dice == trained.epochs()[-1].validation_dice
    assert load_parts(result.path.parent).head.bias.item() == 2


@pytest.mark.long
def test_a_training_on_of_other_weights_is_not_taken(retrained: Path) -> None:
    path = slim(retrained, "depth1", fine_tune=1).path.parent / "training-1"
    kept = RunFolder.open(retrained / "verification" / "model1" / "seed-0").checkpoints
    shutil.rmtree(kept)
    network = build_network(RunFolder.open(retrained).facts["own loop"]["network"]["code"])
    Checkpoints(kept).save(2, network, torch.optim.SGD(network.parameters(), lr=1.0))
    with pytest.raises(RunFolderError, match=rf"{path.name} was begun from other weights, or by another loop: remove"):
        slim(retrained, "depth1", fine_tune=1)


@pytest.mark.long
def test_what_the_smaller_network_of_a_loop_needs_is_said(tmp_path: Path, retrained: Path) -> None:
    (beside := tmp_path / "beside").mkdir()
    recorded = measured(beside)
    with pytest.raises(
        InvalidArgument, match=r"--network FILE\.py:build --train FILE\.py:train names what builds its network"
    ):
        slim(recorded, "without-skip1")
    loop = recorded.parent / "loop.py"
    name_loop(RunFolder.open(recorded), f"{loop}:build", f"{loop}:train")
    with pytest.raises(RunFolderError, match=r"model1 has not been retrained.*unetscope verify .* --variants model1"):
        slim(recorded, "without-skip1")
    with pytest.raises(InvalidArgument, match="model1 is the whole network: name what to leave out"):
        slim(retrained, "model1")
    with pytest.raises(InvalidArgument, match=r"keeps no images to find directions of skips on: us\.networks\.thinned"):
        slim(retrained, "without-skip1", thin={"skip2": 1})
    shutil.rmtree(retrained / "verification" / "depth1")
    with pytest.raises(RunFolderError, match="depth1 has not been retrained"):
        slim(retrained, "depth1", retrained=True)
