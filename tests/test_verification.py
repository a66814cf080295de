"""Retraining that survives kills, and what it says of the verdicts."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from runs import TINY, edited_config
from unetscope import plots
from unetscope.analysis.outcomes import Verification, guess_nats
from unetscope.analysis.trainings import Training
from unetscope.base.errors import InvalidArgument, RunFolderError, UnetscopeError
from unetscope.cli.main import app
from unetscope.report.render import render_run
from unetscope.runs import retraining
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.engines import InProcess, Local, engine_named
from unetscope.runs.engines.interface import LOG
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder, locked_file
from unetscope.runs.retraining import Trial, expected_seconds, retrain, trained_twice, trained_variants, trials
from unetscope.runs.verification import chosen_seeds, verify
from unetscope.table.parts import Variant, named_variants, parts_named
from unetscope.table.records import EpochRecord
from unetscope.training.checkpoints import Checkpoints
from unetscope.training.config import preset_config

pytestmark = pytest.mark.usefixtures("sketched_figures")
GUESS = 0.5
EPOCHS = 60


@pytest.fixture(scope="module")
def finished(once: Callable[..., Path]) -> Path:
    """A small run, measured at enough epochs to be judged: copy it."""
    changed = {
        "data.synthetic_images": 16,
        "network.depth": 2,
        "training.epochs": EPOCHS,
        "measuring.marked": [1, 10, 60],
        "measuring.merge_probes": True,
    }
    return once("judged", lambda path: run_experiment(preset_config("demo", TINY | changed), path))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> RunFolder:
    return RunFolder.open(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def verified(finished: Path, once: Callable[..., Path]) -> Path:
    """The same with two variants retrained with two seeds each, and how far that was at each look: copy it."""

    def make(path: Path) -> None:
        run, looks = RunFolder.open(shutil.copytree(finished, path)), list[int]()
        assert retrain(run, planned(run), engine=Local(2), progress=Watching(looks)) == {}
        (path / "looks.json").write_text(json.dumps(looks))

    return once("verified", make)


@pytest.fixture
def retrained(verified: Path, tmp_path: Path) -> RunFolder:
    return RunFolder.open(shutil.copytree(verified, tmp_path / "retrained"))


def planned(run: RunFolder, names: tuple[str, ...] = ("model2",), seeds: tuple[int, ...] = (0, 1)) -> tuple[Trial, ...]:
    return trials(run, named_variants(names, depth=2), seeds)


def records(trial: Trial, *, with_time: bool = False) -> list[tuple[object, ...]]:
    """The epochs of a trial as they were kept."""
    with sqlite3.connect(trial.path / "flow.sqlite") as tables:
        rows = tables.execute("SELECT * FROM epochs ORDER BY epoch").fetchall()
    tables.close()
    return rows if with_time else [(*row[:5], *row[6:]) for row in rows]


@pytest.mark.long
def test_every_variant_is_trained_with_every_seed_and_paired_by_it(retrained: RunFolder) -> None:
    run, jobs = retrained, planned(retrained)
    looks = json.loads((run.path / "looks.json").read_text())
    assert [trial.path.relative_to(run.path).as_posix() for trial in jobs] == [
        "verification/model1/seed-0",
        "verification/model2/seed-0",
        "verification/model1/seed-1",
        "verification/model2/seed-1",
    ]
    assert looks[-1] == 4 * EPOCHS
    for trial in jobs:
        folder = RunFolder.open(trial.path)
        assert folder.last_epoch() == EPOCHS
        assert set(folder.ending["constant channels"]) >= {"1", "7up", "13"}
        assert len(list(folder.checkpoints.iterdir())) == 1
    assert len(trained_variants(run)) == 4
    first, again = records(jobs[0]), records(jobs[2])
    assert first != again  # another seed
    whole = [tuple(row) for row in sqlite3.connect(run.path / "flow.sqlite").execute("SELECT * FROM epochs")]
    assert [row[4] for row in whole] == [
        row[4] for row in records(jobs[0], with_time=True)
    ]  # the run's own seed and threads


class Watching:
    """A progress that keeps how far the job was."""

    def __init__(self, looks: list[int]) -> None:
        self.looks = looks

    def stage(self, name: str, total: int, done: int = 0) -> None:
        self.total = total

    def advance(self, done: int, note: str = "") -> None:
        self.looks.append(done)

    def warn(self, text: str) -> None:
        raise AssertionError(text)


class KillingOne(Local):
    """An engine one of whose workers is killed when its job has trained some epochs."""

    killed = ""

    def run(self, folders, look):  # type: ignore[no-untyped-def]
        def looking() -> None:
            look()
            for folder, process in list(self._running.items()):
                if not self.killed and 3 <= RunFolder.open(folder).last_epoch() < EPOCHS - 5:
                    self.kept = RunFolder.open(folder).last_epoch()
                    process.send_signal(signal.SIGKILL)
                    self.killed = str(folder)

        return super().run(folders, looking)


@pytest.mark.long
def test_a_killed_worker_is_started_again_and_loses_no_finished_epoch(run: RunFolder, retrained: RunFolder) -> None:
    engine, jobs = KillingOne(2), planned(run, seeds=(0,))
    looks: list[int] = []
    assert retrain(run, jobs, engine=engine, progress=Watching(looks)) == {}
    assert engine.killed
    assert looks == sorted(looks)  # no epoch was ever taken back
    for trial, expected in zip(jobs, planned(retrained, seeds=(0,)), strict=True):
        assert records(trial) == records(expected)


@pytest.mark.slow
def test_a_killed_parent_ends_its_workers_and_the_same_command_goes_on(run: RunFolder) -> None:
    words = [
        sys.executable,
        "-m",
        "unetscope",
        "verify",
        str(run.path),
        "--variants=model2",
        "--seeds=1",
        "--workers=2",
        "-q",
    ]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    jobs = planned(run)
    try:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            far = [RunFolder.open(trial.path).last_epoch() for trial in jobs[:2] if RunFolder.exists(trial.path)]
            if len(far) == 2 and min(far) >= 3:
                break
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert len(gone) >= 2
    assert not alive
    # the newest checkpoint is of the last finished epoch, or of the one before if the kill came between record and checkpoint
    before = {trial: records(trial, with_time=True) for trial in jobs[:2]}
    for trial in jobs[:2]:
        kept = sorted(
            int(path.name.removeprefix("epoch-")) for path in RunFolder.open(trial.path).checkpoints.glob("epoch-*")
        )
        assert kept[-1] in {before[trial][-1][0], before[trial][-1][0] - 1}
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for trial in jobs[:2]:
        again = records(trial, with_time=True)
        assert again[: len(before[trial]) - 1] == before[trial][:-1]  # with their seconds: they were not trained anew
        assert len(again) == EPOCHS + 1


@pytest.mark.long
def test_a_job_that_says_what_is_wrong_is_not_started_again(retrained: RunFolder) -> None:
    run, jobs = retrained, planned(retrained, seeds=(0,))
    shutil.rmtree(jobs[1].path)
    with edited_config(run.path) as config:
        config["facts"]["data"]["train"]["fingerprint"] = "other"
    changed = RunFolder.open(run.path)
    failed = retrain(changed, jobs, engine=Local(1))
    assert [trial.name for trial in failed] == ["model2 with seed 0"]
    assert "the train images of" in failed[jobs[1]]
    assert "are not those that" in failed[jobs[1]]
    assert (jobs[1].path / LOG).read_text().count("\n") == 1


@pytest.mark.long
def test_a_job_that_keeps_being_killed_is_given_up(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = planned(run, seeds=(0,))
    killer = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr("unetscope.runs.engines.local.job_command", lambda folder: [sys.executable, "-c", killer])
    failed = retrain(run, jobs, engine=Local(2))
    assert set(failed) == set(jobs)
    assert failed[jobs[0]] == f"it was killed 4 times: see {jobs[0].path / LOG}"
    assert RunFolder.open(jobs[0].path).failure == failed[jobs[0]]  # for the page


@pytest.mark.long
def test_a_trial_of_another_configuration_is_refused(retrained: RunFolder) -> None:
    run, jobs = retrained, planned(retrained, seeds=(0,))
    with pytest.raises(
        RunFolderError, match=r"was begun with another configuration \(threads: 1 → 2\): remove that folder"
    ):
        retrain(run, jobs, engine=Local(1, threads=2), threads=2)


@pytest.mark.long
def test_two_processes_do_not_make_the_same_trial(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each found half of the other's: one ended in a traceback, and might have emptied tables that were in use."""
    jobs = planned(run, seeds=(0,))
    monkeypatch.setattr(retraining, "PATIENCE", 0.0)
    lock = run.path / "verification" / ".lock"
    lock.parent.mkdir()
    lock.touch()
    with locked_file(lock, 0.0, ""), pytest.raises(RunFolderError, match="another process is beginning trainings of"):
        retrain(run, jobs, engine=Local(1))
    assert not any(RunFolder.exists(trial.path) for trial in jobs)


@pytest.mark.long
def test_what_cannot_be_retrained_is_refused(run: RunFolder) -> None:
    with pytest.raises(InvalidArgument, match="seed 1 stands twice: the same training would count as two"):
        trials(run, named_variants(["model2"], depth=2), [1, 0, 1])
    with pytest.raises(InvalidArgument, match="seeds must be one or more, and none negative, got 0"):
        chosen_seeds(run, 0)
    with pytest.raises(InvalidArgument, match="engine 'cloud': expected local, ray, slurm"):
        engine_named("cloud")
    with pytest.raises(InvalidArgument, match="workers must be 1 or more, got 0"):
        engine_named("local", workers=0)
    with pytest.raises(RunFolderError, match=r"has no retrained variant: unetscope verify"):
        AnalysedRun(run).verification_of(())
    assert chosen_seeds(run, 3) == (0, 1, 2)
    side_by_side = expected_seconds(run, planned(run, seeds=(1,)), workers=2)
    assert side_by_side > 0
    three_jobs = planned(run, ("model2", "depth1"), seeds=(1,))
    assert expected_seconds(run, three_jobs, workers=2) == pytest.approx(2 * side_by_side)


@pytest.mark.long
def test_the_reference_is_not_trained_twice_without_a_word(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = planned(run, seeds=(0, 1))
    assert trained_twice(run, jobs) == ""
    monkeypatch.setattr(RunFolder, "last_epoch", lambda _: 12)
    sentence = trained_twice(run, jobs)
    assert sentence == (
        f"{run.path} has trained 12 of {EPOCHS} epochs, so model1 with seed 0 is trained again from the beginning: finish the "
        f"run first (unetscope run --out {run.path} --resume), and it is taken for that one"
    )
    assert trained_twice(run, planned(run, seeds=(1, 2))) == ""  # of another seed, it is trained anyhow
    said = CliRunner().invoke(app, ["verify", str(run.path), "--variants", "model2", "--seeds", "2", "--dry-run"])
    assert sentence in " ".join(said.output.split())  # in lines, where the width is known
    monkeypatch.setattr(RunFolder, "last_epoch", lambda _: 0)  # only begun: nothing of it is lost
    assert trained_twice(run, jobs) == ""


@pytest.mark.long
def test_an_epoch_during_which_the_machine_slept_does_not_make_the_estimate(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = planned(run, seeds=(1,))
    before, kept = expected_seconds(run, jobs, workers=1), run.epochs()
    slept = [replace(record, seconds=30_000.0) if record.epoch == 7 else record for record in kept]
    monkeypatch.setattr(run, "epochs", lambda: slept)
    assert expected_seconds(run, jobs, workers=1) == pytest.approx(before, rel=0.2)


@pytest.mark.long
def test_the_run_itself_is_the_reference_of_its_own_seed(run: RunFolder) -> None:
    """It is not trained twice, with however many threads it was."""
    (own, *_) = planned(run, seeds=(0,))
    assert expected_seconds(run, [own], workers=1) == 0
    with edited_config(run.path) as config:
        config["configuration"]["threads"] = 2
    run = RunFolder.open(run.path)
    assert retrain(run, [own], engine=InProcess()) == {}
    taken = RunFolder.open(own.path)
    assert taken.epochs() == run.epochs()
    assert taken.configuration == run.configuration
    assert taken.flow().estimates == ()
    assert taken.ending["constant channels"]
    predicted = {(picture.title, picture.epoch) for picture in run.pictures("prediction")}
    assert {(picture.title, picture.epoch) for picture in taken.pictures("prediction")} >= predicted
    assert Checkpoints(taken.checkpoints).epochs() == (EPOCHS,)
    assert retrain(run, [own], engine=InProcess()) == {}  # again, with it there


@pytest.mark.long
def test_a_reference_that_was_begun_with_other_threads_is_still_refused(run: RunFolder) -> None:
    (own, *_) = planned(run, seeds=(0,))
    begun = {**run.configuration, "threads": 3}
    RunFolder.create(own.path, {"configuration": begun, "facts": run.facts})
    with pytest.raises(
        RunFolderError, match=r"was begun with another configuration \(threads: 3 → 1\): remove that folder"
    ):
        retrain(run, [own], engine=InProcess())


@pytest.mark.long
def test_a_run_that_was_stopped_or_lost_its_weights_is_no_reference(run: RunFolder) -> None:
    (own, *_) = planned(run, seeds=(0,))
    last = Checkpoints(run.checkpoints).path(EPOCHS)
    last.rename(last.with_name(".away"))
    assert expected_seconds(run, [own], workers=1) > 0
    last.with_name(".away").rename(last)
    with edited_config(run.path) as config:
        config["configuration"]["training"]["epochs"] = EPOCHS + 1
    assert expected_seconds(RunFolder.open(run.path), [own], workers=1) > 0


@pytest.mark.long
def test_a_network_keeps_its_folder_whatever_it_is_called(run: RunFolder) -> None:
    (first,) = [trial for trial in planned(run, seeds=(0,)) if trial.variant.name == "model2"]
    about = {"configuration": run.configuration | {"network": run.configuration["network"] | {"without": ["skip1"]}}}
    RunFolder.create(first.path, about | {"facts": run.facts})
    (first.path.parent / "seed-0.old").mkdir()
    for name in ("without-skip1", "depth2-without-skip1", "depth02-without-skip1"):
        assert planned(run, (name,), (0,))[1].path == first.path
    assert planned(run, ("no-skips",), (0,))[1].path.parent.name == "no-skips"
    assert [trial.path for trial in trained_variants(run)] == [first.path]


# What trainings say, from trainings that are written here.


def training(variant: str, seed: int, dice: list[list[float]], *, loss: float = 0.2, reach: float = 0.9) -> Training:
    """dice: of every image, by epoch."""
    made = [
        EpochRecord(epoch, 0.1, 0.5, GUESS if epoch == 0 else loss, float(np.mean(row)), 1.0, reach, tuple(row))
        for epoch, row in enumerate(dice)
    ]
    return Training(variant, seed, tuple(made), GUESS, {"1": 0.0, "2": 1.0})


def held(*trainings: Training, margin: float = 0.02) -> Verification:
    variants = (Variant("model1", 2, ()), Variant("model2", 2, parts_named(["skip1"])))
    return Verification(variants, trainings, None, (1,), margin)


def test_a_figure_without_a_difference_says_why() -> None:
    verification = held(*(training(name, 0, [[0.1] * 8] * 2, loss=GUESS) for name in ("model1", "model2")))
    (row,) = verification.rows()
    axes = plots.outcomes(verification)
    written = [text.get_text().replace("\n", " ") for text in axes.texts]
    assert math.isnan(row.outcome.difference.value)
    assert "no pair of seeds can be compared" in row.outcome.text
    assert row.outcome.text in written


def test_a_difference_is_paired_by_seed_and_image() -> None:
    rng = np.random.default_rng(0)
    reference = rng.uniform(0.5, 0.9, (3, 40))
    lost = 0.10 + rng.normal(0, 0.01, (3, 1)) + rng.normal(0, 0.02, (3, 40))
    made = [training("model1", seed, [[0.0], list(row)]) for seed, row in enumerate(reference)]
    made += [training("model2", seed, [[0.0], list(row)]) for seed, row in enumerate(reference - lost)]
    outcome = held(*made).outcome("model2", 1)
    values = -lost
    by_seed = values.mean(axis=1)
    seeds = 4.302652729911275 * by_seed.std(ddof=1) / math.sqrt(3)  # Student's 97.5 % point of 2 degrees of freedom
    by_image = values.mean(axis=0)
    furthest = np.append(by_image, by_image.max())  # one image more may be as far out
    images = furthest.mean() - by_image.mean() + 2.021075390306273 * furthest.std(ddof=1) / math.sqrt(41)  # of 40
    assert outcome.difference.value == pytest.approx(values.mean())
    assert outcome.difference.high - outcome.difference.value == pytest.approx(math.hypot(seeds, images))
    assert (outcome.pairs, outcome.started, outcome.seeds) == (3, 3, 3)
    assert outcome.decision == "needed"


@pytest.mark.parametrize(
    ("loss", "decision"), [(-0.001, "redundant"), (0.0, "redundant"), (0.02, "undecided"), (0.05, "needed")]
)
def test_an_outcome_is_held_against_the_margin(loss: float, decision: str) -> None:
    made = []
    for seed in range(3):
        wiggle = 0.001 * seed
        made.append(training("model1", seed, [[0.0] * 4, [0.8, 0.81, 0.82, 0.83]]))
        made.append(training("model2", seed, [[0.0] * 4, [dice - loss + wiggle for dice in (0.8, 0.81, 0.82, 0.83)]]))
    assert held(*made).outcome("model2", 1).decision == decision


def test_a_training_that_did_not_start_is_counted_and_not_compared() -> None:
    good = [training(name, seed, [[0.0, 0.0], [0.8, 0.9]]) for name in ("model1", "model2") for seed in range(3)]
    stuck = training("model2", 3, [[0.0, 0.0], [0.0, 0.0]], loss=GUESS)
    collapsed = training("model2", 4, [[0.0, 0.0], [0.0, 0.0]], reach=0.0)
    others = [training("model1", seed, [[0.0, 0.0], [0.8, 0.9]]) for seed in (3, 4)]
    outcome = held(*good, *others, stuck, collapsed).outcome("model2", 1)
    assert (outcome.difference.value, outcome.pairs, outcome.started, outcome.seeds) == (0.0, 3, 3, 5)
    assert "2 of 5 trainings did not start, collapsed or failed, and are not counted" in outcome.text
    assert [each.state(1) for each in (good[0], stuck, collapsed)] == ["started", "not started", "collapsed"]
    assert good[0].state(2) == "not there yet"
    assert (good[0].started_at, stuck.started_at) == (1, None)
    assert stuck.why_not == "layer 2 is the same for every image"
    assert replace(stuck, constant={"1": 0.5}).why_not == "no layer is dead, so more epochs may start it"
    assert replace(stuck, constant={}).why_not == "it has not ended, and no layer was looked at"
    assert [each.sound for each in (good[0], stuck, collapsed)] == [True, False, False]


def test_a_training_that_failed_is_counted_and_not_compared() -> None:
    good = [training(name, seed, [[0.0, 0.0], [0.8, 0.9]]) for name in ("model1", "model2") for seed in range(3)]
    failed = replace(training("model2", 3, [[0.0, 0.0]]), failure="the loss is not a number")
    outcome = held(*good, training("model1", 3, [[0.0, 0.0], [0.8, 0.9]]), failed).outcome("model2", 1)
    assert (outcome.pairs, outcome.started, outcome.seeds) == (3, 3, 4)
    assert "1 of 4 trainings did not start, collapsed or failed" in outcome.text
    assert (failed.state(0), failed.state(1), failed.why_not) == ("not started", "failed", "the loss is not a number")


def test_a_training_that_starts_late_has_learnt_less_until_then() -> None:
    """Left out, the slow seeds of a variant would leave the fast ones to speak for it."""
    made = [training("model1", seed, [[0.0] * 2, [0.8, 0.81], [0.9, 0.91]]) for seed in range(3)]
    for seed in range(3):
        wiggle = 1e-3 * seed
        late = training("model2", seed, [[0.0] * 2, [wiggle, 0.0], [0.9 + wiggle, 0.91]])
        late = replace(
            late, records=(late.records[0], replace(late.records[1], validation_loss=GUESS), late.records[2])
        )
        made.append(late)
        assert (late.started_at, late.state(1)) == (2, "started")
    result = held(*made)
    assert result.outcome("model2", 1).decision == "needed"
    assert result.outcome("model2", 2).decision == "redundant"


def test_a_variant_that_seldom_starts_is_not_called_redundant() -> None:
    fine = [[0.0] * 3, [0.8, 0.81, 0.82]]
    made = [training("model1", seed, fine) for seed in range(10)]
    made += [training("model2", seed, [fine[0], [dice + 1e-3 * seed for dice in fine[1]]]) for seed in range(2)]
    made += [training("model2", seed, [[0.0] * 3] * 2, loss=GUESS) for seed in range(2, 10)]
    outcome = held(*made).outcome("model2", 1)
    assert (outcome.decision, outcome.stalls) == ("undecided", True)
    assert outcome.text == (
        "2 of 10 trainings start, 10 of 10 of the reference's (p = 0.00036): without it a training starts less often"
    )
    assert not held(*made[:11], made[11]).outcome("model2", 1).stalls


def test_a_loss_in_few_images_is_not_hidden_by_the_others() -> None:
    """5 % of images lose 0.6: of 40 images none or one may be among those seen."""
    rng, wrong = np.random.default_rng(3), 0
    for _ in range(300):
        lost = 0.6 * (rng.random(40) < 0.05) + rng.normal(0, 0.005, (3, 40)) + rng.normal(0, 0.002, (3, 1))
        made = [training("model1", seed, [[0.0], [0.9] * 40]) for seed in range(3)]
        made += [training("model2", seed, [[0.0], list(0.9 - row)]) for seed, row in enumerate(lost)]
        wrong += held(*made).outcome("model2", 1).decision == "redundant"
    assert wrong / 300 < 0.16  # no image of 40 is among them in 13 %: nothing can tell then


def test_what_is_the_same_everywhere_has_no_interval() -> None:
    made = [
        training(name, seed, [[0.0] * 3, [dice] * 3])
        for name, dice in (("model1", 0.9), ("model2", 0.88))
        for seed in (0, 1)
    ]
    outcome = held(*made).outcome("model2", 1)
    assert (outcome.decision, outcome.text) == ("undecided", "it lost 0.020 Dice, and there is no interval")
    single = [training(name, seed, [[0.0], [0.9 - 0.1 * seed]]) for name in ("model1", "model2") for seed in (0, 1)]
    assert "there is no interval" in held(*single).outcome("model2", 1).text
    with pytest.raises(InvalidArgument, match="model2 and model1 with seed 0 were validated on 2 and 3 images"):
        held(*made[:2], training("model2", 0, [[0.0], [0.9, 0.9]])).outcome("model2", 1)


def test_one_pair_says_nothing_of_another_seed() -> None:
    made = [training(name, 0, [[0.0], [0.9 if name == "model1" else 0.1]]) for name in ("model1", "model2")]
    outcome = held(*made).outcome("model2", 1)
    assert outcome.decision == "undecided"
    assert outcome.text == "1 pair of seeds is too few to compare"
    unlike = [training("model1", 0, [[0.0], [0.9]]), training("model2", 1, [[0.0], [0.9]])]
    assert held(*unlike).outcome("model2", 1).text == "no pair of seeds can be compared"


def test_the_target_is_the_references_best_less_the_margin() -> None:
    reference = [training("model1", seed, [[0.1], [0.7 + 0.1 * seed], [0.6]]) for seed in (0, 1)]
    result = held(*reference, training("model2", 0, [[0.1], [0.72], [0.74]]))
    assert result.target == pytest.approx(0.75 - 0.02)
    assert result.of("model2")[0].reaches(result.target) == 2
    assert reference[0].reaches(0.9) is None
    collapsed = training("model1", 2, [[0.1], [0.7], [0.0]])
    collapsed = replace(
        collapsed, records=(*collapsed.records[:2], replace(collapsed.records[2], validation_range=0.0))
    )
    assert held(*reference, collapsed).target == result.target
    short = training("model1", 3, [[0.1], [0.2]])
    assert held(*reference, short).target == result.target
    assert math.isnan(held(collapsed).target)
    with pytest.raises(InvalidArgument, match="variant 'model9' was not trained: there are model1, model2"):
        result.of("model9")


def test_the_guess_is_the_cross_entropy_of_the_training_share() -> None:
    masks, share = np.array([1, 0, 0, 0, 1]), 0.3
    assert guess_nats(share, masks.mean()) == pytest.approx(
        -np.mean(np.where(masks, math.log(share), math.log(1 - share)))
    )
    assert math.isfinite(guess_nats(0.0, 0.1))


@pytest.mark.long
def test_verdicts_and_outcomes_stand_side_by_side(retrained: RunFolder) -> None:
    run = retrained
    result = verify(run.path, ["paper", "depth1"], seeds=2, engine=Local(2))
    assert [row.variant.name for row in result.rows()] == ["model2", "depth1"]
    assert result.budgets == (1, 10, 60)
    assert sum(result.score().values()) == 2
    assert sum(result.score(epochs=result.budgets).values()) == 6
    assert {row.agreement("plateau") for row in result.rows()} <= {"hit", "miss", "open"}
    with pytest.raises(InvalidArgument, match="dice_margin must be between 0 and 1, got 2"):
        AnalysedRun(run, dice_margin=2)
    assert isinstance(result, Verification)
    with pytest.raises(UnetscopeError, match="is not a run folder"):
        verify(run.path / "nothing")


@pytest.mark.long
def test_a_page_waits_for_the_reference_and_another_variant(run: RunFolder, verified: Path) -> None:
    jobs = planned(run, seeds=(0,))
    retrain(run, jobs, engine=Nothing())
    render_run(run)  # folders without an epoch
    assert not (run.figures / "verification.png").exists()
    for trial in jobs:
        shutil.rmtree(trial.path)
        shutil.copytree(verified / trial.path.relative_to(run.path), trial.path)
    shutil.move(jobs[0].path, run.path / "elsewhere")
    render_run(run)  # without the reference
    assert not (run.figures / "verification.png").exists()
    shutil.move(run.path / "elsewhere", jobs[0].path)
    render_run(run)
    assert (run.figures / "verification.png").exists()


class Nothing:
    """An engine that trains nothing."""

    def run(self, folders, look):  # type: ignore[no-untyped-def]
        return {}
