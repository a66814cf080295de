"""Jobs sent with submitit: to processes of this machine, and to a Slurm that takes nothing."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import psutil
import pytest

from runs import TINY, edited_config
from unetscope.base.errors import InvalidArgument, MissingDependency
from unetscope.runs.engines import engine_named
from unetscope.runs.experiment import run
from unetscope.runs.folder import RunFolder
from unetscope.runs.jobs import train
from unetscope.training.config import preset_config

EPOCHS = 100  # seconds, so that a signal finds the training under way


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny training that is still to do: copy it."""
    folder = run(preset_config("demo", TINY | {"training.epochs": 0}), tmp_path_factory.mktemp("untrained") / "run")
    about = folder.configuration
    about["training"]["epochs"] = EPOCHS
    path = tmp_path_factory.mktemp("untrained") / "jobs" / "model1" / "seed-0"
    return RunFolder.create(path, {"configuration": about, "facts": folder.facts}).path


@pytest.fixture(scope="module")
def dice(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """What the training of `untrained` gives in this process."""
    folder = train(shutil.copytree(untrained, tmp_path_factory.mktemp("expected") / "run"))
    return [record.validation_dice for record in folder.epochs()]


def dice_of(path: Path) -> list[float]:
    return [record.validation_dice for record in RunFolder.open(path).epochs()]


def jobs_of(untrained: Path, parent: Path, count: int) -> list[Path]:
    return [shutil.copytree(untrained, parent / "verification" / "model1" / f"seed-{place}") for place in range(count)]


def training_processes() -> list[psutil.Process]:
    processes = []
    for process in psutil.Process().children(recursive=True):
        try:
            processes += [process] * ("submitit.core._submit" in process.cmdline())
        except psutil.Error:  # it has just ended
            continue
    return processes


def test_without_submitit_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingDependency) as missing:
        engine_named("slurm")
    assert str(missing.value) == 'the Slurm engine needs submitit: pip install "unetscope[slurm]"'


class TestWithSubmitit:
    @pytest.fixture(autouse=True)
    def _submitit(self) -> None:
        pytest.importorskip("submitit", reason="submitit is an extra")

    def test_without_slurm_it_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(InvalidArgument) as refusal:
            engine_named("slurm")
        assert str(refusal.value) == (
            "engine 'slurm': no Slurm is found here (no srun on the PATH): use the local engine"
        )

    @pytest.mark.long
    def test_two_jobs_train_and_a_failure_has_its_reason(
        self, untrained: Path, dice: list[float], tmp_path: Path
    ) -> None:
        from unetscope.runs.engines.slurm import Slurm

        first, second, nowhere, damaged = folders = jobs_of(untrained, tmp_path, 4)
        with edited_config(nowhere) as about:
            about["configuration"]["data"]["path"] = "nowhere/at/all"
        (damaged / "ending.json").write_text("{")
        looks: list[int] = []
        failed = Slurm(workers=2, cluster="local").run(folders, lambda: looks.append(1))
        assert set(failed) == {nowhere, damaged}
        assert failed[nowhere].startswith("nowhere/at/all does not exist: ")
        assert "ending.json cannot be read: Expecting property name" in failed[damaged]
        assert dice_of(first) == dice_of(second) == dice
        assert RunFolder.open(first).ending
        assert looks
        assert any((tmp_path / "verification" / "slurm").iterdir())

    @pytest.mark.long
    @pytest.mark.parametrize(
        "how",
        [signal.SIGKILL, pytest.param(signal.SIGUSR2, marks=pytest.mark.slow)],
        ids=["killed", "preempted"],
    )
    def test_a_job_that_is_stopped_goes_on(
        self, untrained: Path, dice: list[float], tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from submitit.core.core import Job

        from unetscope.runs.engines.slurm import Slurm

        monkeypatch.setattr(Job, "_results_timeout_s", 1)  # the result of a killed job is waited for
        (path,) = jobs_of(untrained, tmp_path, 1)
        seen: list[int] = []
        stopped: list[int] = []

        def look() -> None:
            seen.append(RunFolder.open(path).last_epoch())
            if 3 <= seen[-1] < EPOCHS - 5 and not stopped:
                (process,) = training_processes()
                process.send_signal(how)
                stopped.append(process.pid)

        assert Slurm(workers=1, cluster="local").run([path], look) == {}
        assert stopped, "the training was over before it could be stopped"
        logs = [log.read_text() for log in (tmp_path / "verification" / "slurm").rglob("*.out")]
        assert any("Requeued job" in log for log in logs) == (how is signal.SIGUSR2), (
            "only what is told so queues itself"
        )
        assert seen == sorted(seen)
        assert dice_of(path) == dice

    def test_what_slurm_is_asked_for_and_what_it_says_when_it_refuses(
        self, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from unetscope.runs.engines.slurm import Slurm

        programs = tmp_path / "bin"
        programs.mkdir()
        for name in ("srun", "sbatch"):
            program = programs / name
            program.write_text(
                f"#!/bin/sh\n/bin/cat $1 > {tmp_path}/asked\necho '{name}: error: no night' >&2\nexit 1\n"
            )
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(programs))
        with pytest.raises(InvalidArgument) as refusal:
            Slurm(workers=2, threads=3, partition="night", minutes=90, gpus=1).run(
                jobs_of(untrained, tmp_path, 4), lambda: None
            )
        assert str(refusal.value) == "Slurm refuses the jobs: sbatch: error: no night"
        asked = (tmp_path / "asked").read_text()
        for option in (
            "array=0-3%2",
            "cpus-per-task=3",
            "gpus-per-node=1",
            "job-name=unetscope",
            "partition=night",
            "time=90",
        ):
            assert f"#SBATCH --{option}\n" in asked
