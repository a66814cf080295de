"""Jobs as tasks of Ray: the same tables as processes, through kills and interrupts."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from runs import TINY, edited_config
from unetscope.base.errors import MissingDependency
from unetscope.runs import retraining
from unetscope.runs.engines import Engine, Local, Look
from unetscope.runs.engines.interface import STARTS
from unetscope.runs.experiment import run
from unetscope.runs.folder import RunFolder
from unetscope.runs.jobs import train
from unetscope.table.parts import named_variants
from unetscope.training.config import preset_config

EPOCHS = 100  # seconds, so that a kill finds the training under way


def plan(folder: RunFolder) -> tuple[retraining.Trial, ...]:
    return retraining.trials(folder, named_variants(["no-skips"], depth=1), [0, 1])


def table(path: Path) -> list[tuple[Any, ...]]:
    """Every epoch of a run, all but its seconds; NaN as None, which is equal to itself."""
    rows = [astuple(replace(record, seconds=0.0)) for record in RunFolder.open(path).epochs()]
    return [tuple(None if isinstance(value, float) and math.isnan(value) else value for value in row) for row in rows]


class Planned:
    """An engine that trains nothing, so that the folders of its jobs are there, and only that."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def run(self, folders: Sequence[Path], look: Look) -> dict[Path, str]:
        self.folders = list(folders)
        return {}


@pytest.fixture(scope="module")
def network(once: Callable[..., Path]) -> Path:
    """A tiny run, the same for all tests: copy it."""
    config = preset_config("demo", TINY | {"training.epochs": EPOCHS})
    return once("network", lambda path: run(config, path))


@pytest.fixture(scope="module")
def expected(network: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    """The table of each job, trained one after the other in processes of this machine."""
    folder = RunFolder.open(shutil.copytree(network, tmp_path_factory.mktemp("expected") / "run"))
    assert retraining.retrain(folder, plan(folder), engine=Local(1)) == {}
    return {trial.name: table(trial.path) for trial in plan(folder)}


@pytest.fixture
def folder(network: Path, tmp_path: Path) -> RunFolder:
    return RunFolder.open(shutil.copytree(network, tmp_path / "run"))


def made(folder: RunFolder, jobs: Sequence[retraining.Trial]) -> list[Path]:
    planned = Planned()
    retraining.retrain(folder, jobs, engine=planned)
    return planned.folders


def engine(workers: int | None) -> Engine:
    from unetscope.runs.engines.ray import Ray

    return Ray(workers)


def busy_workers() -> list[psutil.Process]:
    """The processes of this one's cluster that train."""
    busy = []
    for process in psutil.Process().children(recursive=True):
        try:
            busy += [process] * any("ray::_train" in word for word in process.cmdline())
        except psutil.Error:  # it has just ended
            continue
    return busy


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from unetscope.runs.engines import engine_named

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency) as missing:
        engine_named("ray", workers=2)
    assert str(missing.value) == 'the Ray engine needs ray: pip install "unetscope[ray]"'


class TestWithRay:
    @pytest.fixture(autouse=True)
    def _no_cluster_but_ours(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        ray = pytest.importorskip("ray", reason="Ray is an extra")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        yield
        ray.shutdown()

    @pytest.mark.slow
    def test_its_tables_are_those_of_local_processes(
        self, folder: RunFolder, expected: dict[str, list[tuple[Any, ...]]]
    ) -> None:
        import ray

        at_once = [0]
        jobs = plan(folder)
        paths = made(folder, jobs)
        failed = engine(workers=2).run(paths, lambda: at_once.append(len(busy_workers())))
        assert failed == {}
        assert max(at_once) == 2
        assert not ray.is_initialized(), "what it starts it ends"
        assert {trial.name: table(trial.path) for trial in jobs} == expected
        assert all(RunFolder.open(path).ending for path in paths)

    @pytest.mark.slow
    def test_one_of_two_workers_is_killed_and_loses_no_epoch(
        self, folder: RunFolder, expected: dict[str, list[tuple[Any, ...]]]
    ) -> None:
        jobs = plan(folder)[:2]
        paths = made(folder, jobs)
        seen: list[tuple[int, ...]] = []
        killed: list[int] = []

        def look() -> None:
            seen.append(tuple(RunFolder.open(path).last_epoch() for path in paths))
            workers = busy_workers()
            if len(workers) == 2 and min(seen[-1]) >= 3 and max(seen[-1]) < EPOCHS - 5 and not killed:
                workers[0].kill()
                killed.append(workers[0].pid)

        assert engine(workers=2).run(paths, look) == {}
        assert killed, "the trainings were over before one could be killed"
        for epochs in zip(*seen, strict=True):
            assert list(epochs) == sorted(epochs)
            assert epochs[-1] == EPOCHS
        assert {job.name: table(job.path) for job in jobs} == {job.name: expected[job.name] for job in jobs}

    @pytest.mark.slow
    def test_one_that_is_killed_each_time_is_given_up(self, folder: RunFolder) -> None:
        (path,) = made(folder, plan(folder)[:1])
        killed: set[int] = set()

        def look() -> None:
            for worker in busy_workers():
                if worker.pid not in killed:
                    worker.kill()
                    killed.add(worker.pid)

        assert engine(workers=1).run([path], look) == {path: f"it was killed {STARTS} times"}
        assert len(killed) == STARTS

    @pytest.mark.long
    def test_a_failure_has_its_reason_and_stops_no_other(self, folder: RunFolder) -> None:
        nowhere, damaged, whole = made(folder, plan(folder)[:3])
        here = train(shutil.copytree(whole, folder.path / "here"))
        with edited_config(nowhere) as about:
            about["configuration"]["data"]["path"] = "nowhere/at/all"
        (damaged / "ending.json").write_text("{")
        failed = engine(workers=None).run([nowhere, damaged, whole], lambda: None)
        assert set(failed) == {nowhere, damaged}
        assert failed[nowhere].startswith("nowhere/at/all does not exist: ")
        assert "ending.json cannot be read: Expecting property name" in failed[damaged]
        assert RunFolder.open(whole).ending
        assert table(whole) == table(here.path)

    @pytest.mark.slow
    def test_an_interrupt_ends_its_tasks_and_not_the_cluster_and_a_second_call_goes_on(
        self, folder: RunFolder, expected: dict[str, list[tuple[Any, ...]]]
    ) -> None:
        import ray

        job = plan(folder)[0]
        (path,) = made(folder, [job])
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)

        def interrupt() -> None:
            if RunFolder.open(path).last_epoch() >= 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine(workers=1).run([path], interrupt)
        assert ray.is_initialized()
        before = RunFolder.open(path).last_epoch()
        assert before < EPOCHS
        assert engine(workers=1).run([path], lambda: None) == {}
        assert ray.is_initialized()
        assert table(path) == expected[job.name]
