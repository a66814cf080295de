"""Run folders and jobs in rare cases: what was refused, failed or waited leaves nothing wrong behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runs import CODE, TINY
from unetscope.analysis.outcomes import Verification
from unetscope.analysis.trainings import Training
from unetscope.base.errors import InvalidArgument, RunFolderError
from unetscope.data.synthetic import synthetic_nuclei
from unetscope.estimators.interface import Reading
from unetscope.measure.estimating import to_estimate
from unetscope.measure.scope import Scope
from unetscope.networks.unet import UNet
from unetscope.runs import jobs
from unetscope.runs.building import built_network
from unetscope.runs.engines import InProcess
from unetscope.runs.evidence import gather_evidence
from unetscope.runs.experiment import measure_again, prepare
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.forecast import _probe_seconds
from unetscope.runs.recorder import Recorder
from unetscope.runs.trackers import tracked_run
from unetscope.runs.trackers.tracked_run import Follower, TrackedRun
from unetscope.runs.verification import verify
from unetscope.table.parts import Variant
from unetscope.table.records import EpochRecord, Layer, Quantity
from unetscope.training.config import preset_config


@pytest.fixture(scope="module")
def finished(once: Callable[..., Path]) -> Path:
    config = preset_config("demo", {**TINY, "training.epochs": 3, "measuring.marked": [1, 3]})
    return once("run-rules", lambda path: run_experiment(config, path))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.long
def test_a_training_that_ends_has_not_failed(run: Path) -> None:
    folder = RunFolder.open(run)
    folder.failed("it is in use")
    folder.end({"constant channels": {}})
    assert folder.failure == ""


@pytest.mark.long
def test_a_job_that_waited_for_another_does_not_train_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verify(run, ["without-skip1"], seeds=1, engine=InProcess())
    trial = RunFolder.open(run / "verification" / "without-skip1" / "seed-0")
    ending = trial.path / "ending.json"
    before = ending.rename(trial.path / "of-the-other-job")
    locked = RunFolder.locked

    @contextmanager
    def waited(folder: RunFolder, *, patience: float = 0.0) -> Iterator[None]:
        with locked(folder, patience=patience):
            before.rename(ending)  # the other job has ended meanwhile
            yield

    monkeypatch.setattr(RunFolder, "locked", waited)
    monkeypatch.setattr(jobs, "Trainer", lambda *_, **__: pytest.fail("it trains"))
    assert jobs.train(trial.path).ending is not None


def test_a_lock_leaves_what_a_living_process_writes(run: Path) -> None:
    folder = RunFolder.open(run)
    ended = os.fork()
    if not ended:
        os._exit(0)
    os.waitpid(ended, 0)
    written, left = (folder.figures / f".dice.png.{process}.part.png" for process in (os.getppid(), ended))
    for path in (written, left):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    with folder.locked():
        assert written.exists()
        assert not left.exists()


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"network": "resnet34"}, "about: 'network' is a word of the run folder's own"),
        ({"network": {"name": "mine", "depth": 4}}, "about: 'network' is a word of the run folder's own"),
        ({"training": "adam"}, "about: 'training' is a word of the run folder's own"),
        ({"lr": np.float32(0.1)}, "about: Object of type float32 is not JSON serializable"),
        ({"lr": {1, 2}}, "about: Object of type set is not JSON serializable"),
        ({"notes": "\ud800"}, "about: it holds half of a surrogate pair"),
    ],
)
def test_what_is_said_of_a_loop_is_refused_before_a_folder_is_made(
    about: dict[str, Any], text: str, tmp_path: Path
) -> None:
    scope = Scope(UNet(width=2, depth=1), synthetic_nuclei(6, image_size=16), labels=[])
    with pytest.raises(InvalidArgument, match=text):
        Recorder(scope, tmp_path / "run", about=about)
    assert not (tmp_path / "run").exists()
    told = {"training": {"lr": 0.1}, "seed": 3}
    assert RunFolder.open(Recorder(scope, tmp_path / "run", about=told).path).configuration["training"] == {"lr": 0.1}


@pytest.mark.parametrize(
    "facts",
    [
        {"data": {"train": {"classes": "3"}}},
        {"data": {"train": {"ignored": "none"}}},
        {"own loop": None},
        {"own loop": {"network": "x"}},
        {"own loop": {"network": {"code": "a:b", "trained_by": "c:d", "arguments": [1]}}},
    ],
)
def test_facts_that_verbs_use_are_validated(facts: dict[str, Any], tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {"configuration": {}, "facts": facts})
    with pytest.raises(RunFolderError, match=r"config.json: facts\."):
        _ = RunFolder.open(tmp_path / "run").facts


def test_checkpoints_of_which_none_was_measured_are_all_measured(run: Path) -> None:
    folder = RunFolder.open(run)
    with folder._writing() as tables:
        tables.execute("DELETE FROM estimates")
        tables.execute("DELETE FROM digests WHERE name LIKE 'estimates%'")
    measured = measure_again(run, {"bin_sizes": [0.3]}, epochs=[3, 3])
    assert measured.flow().epochs == (3,)
    shutil.rmtree(folder.checkpoints)
    folder.checkpoints.mkdir()
    with pytest.raises(InvalidArgument, match="keeps no checkpoint: there is nothing to measure"):
        measure_again(run, {"bin_sizes": [0.4]})


@pytest.mark.long
def test_a_refused_resume_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(CODE)
    of_unet = ("network.width", "network.depth")
    values = {name: value for name, value in TINY.items() if name not in of_unet}
    code = f"{tmp_path / 'nets.py'}:Net"
    config = preset_config("demo", {**values, "network.code": code, "training.epochs": 1})
    run = run_experiment(config, tmp_path / "run").path
    before = (run / "config.json").read_bytes()
    with pytest.raises(RunFolderError, match="seed"):
        run_experiment(config.model_copy(update={"seed": 7}), run, resume=True, code=code)
    assert (run / "config.json").read_bytes() == before


def test_the_target_is_of_the_epochs_that_all_seeds_have() -> None:
    def training(variant: str, seed: int, dice: dict[int, float]) -> Training:
        records = tuple(EpochRecord(epoch, 0.1, value, 0.1, value, 1.0) for epoch, value in dice.items())
        return Training(variant, seed, records, float("nan"), {})

    curves = [{10: 0.6, 20: 0.8}, {5: 0.9, 10: 0.7, 20: 0.9}]
    trainings = tuple(training("model1", seed, dice) for seed, dice in enumerate(curves))
    whole = Variant("model1", 2, ())
    assert Verification((whole,), trainings, None, (20,), 0.02).target == pytest.approx(0.83)


@pytest.mark.parametrize(("quantity", "lower"), [(Quantity.USABLE_SHARED, -0.2), (Quantity.USABLE, 0.0)])
def test_the_bracket_of_what_may_be_negative_is_not_cut_at_0(quantity: Quantity, lower: float) -> None:
    reading = Reading(quantity, "usable_linear", 0.0, 0.1, -0.2, 0.4, low=-0.1, high=0.3)
    row = to_estimate(reading, Layer("8", "8", shape=(1, 1, 1)), 0, 100, np.log(2))
    assert row.lower * np.log(2) == pytest.approx(lower)


@pytest.mark.long
def test_an_effort_on_a_network_without_parts_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    config = preset_config("demo", {**TINY, "network.without": ["skip1"], "training.epochs": 6})
    run = run_experiment(config, tmp_path / "run").path
    with pytest.raises(InvalidArgument, match="the network has no skip and no second level to leave out"):
        gather_evidence(run, 1.0)


def test_a_network_that_numpy_draws_has_the_weights_of_its_seed(tmp_path: Path) -> None:
    drawn = "    def __init__(self, width=2, rate=0.1):\n        import numpy\n"
    code = CODE.replace("    def __init__(self, width=2, rate=0.1):\n", drawn)
    head = "self.head = nn.MaxPool2d(2), nn.Dropout(rate), nn.Conv2d(width, 1, 1)"
    assert head in code.replace("self.pool, self.drop, ", "")
    code = code.replace("\n    def forward", "        self.head.weight.data += numpy.random.rand()\n\n    def forward")
    (tmp_path / "nets.py").write_text(code)
    config = preset_config("demo", {"network.code": f"{tmp_path / 'nets.py'}:Net", "data.image_size": 16, "seed": 5})
    one, same = (built_network(config, 3).model.state_dict() for _ in range(2))
    other = built_network(config.model_copy(update={"seed": 6}), 3).model.state_dict()
    assert torch.equal(one["head.weight"], same["head.weight"])
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.long
def test_the_forecast_of_probes_does_not_depend_on_groups() -> None:
    config = preset_config("demo", {**TINY, "data.synthetic_images": 200})
    experiment = prepare(config)
    scope = experiment.scope
    in_groups = tuple(f"patient{number // 40}" for number in range(len(experiment.train)))
    patients = replace(experiment.train, groups=in_groups)
    scope.probe_set = patients
    assert _probe_seconds(experiment, scope.probes) > 0.0


def test_a_tracker_that_fails_is_closed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not here")
    warnings: list[str] = []
    follower = Follower(RunFolder.open(run), "tensorboard", warnings.append, seconds=0.0)
    (tracked,) = tracked_run._open_runs.values()

    def fails(_: TrackedRun) -> None:
        raise RunFolderError("the table is damaged")

    monkeypatch.setattr(TrackedRun, "update", fails)
    follower.update()
    assert warnings == ["the tracker is given no more: the table is damaged"]
    assert tracked._writer is None
    assert not tracked_run._open_runs
    monkeypatch.setattr(TrackedRun, "_log", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        TrackedRun(RunFolder.open(run), "tensorboard")
    assert not tracked_run._open_runs


@pytest.mark.long
def test_a_training_counts_for_the_seed_that_it_had(run: Path) -> None:
    verify(run, ["without-skip1"], seeds=1, engine=InProcess())
    for variant in ("model1", "without-skip1"):
        home = run / "verification" / variant
        shutil.copytree(home / "seed-0", home / "seed-1")
    with pytest.raises(
        RunFolderError, match="model1/seed-1 was trained with seed 0: remove it, or give it back its name"
    ):
        verify(run, ["without-skip1"], seeds=2, engine=InProcess())
