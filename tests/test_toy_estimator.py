"""A new estimator is one file and one line: the command, the table, the figures, the page and `selfcheck` then have it.

`Toy` and `register_toy` below are that file and that line. The registry is read when the command is imported, so every test
runs in a process of its own, which registers the toy first.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from unetscope.estimators import Estimator, LayerStatistics, Needs, Reading
from unetscope.estimators.interface import Check, Classes, check_of, near
from unetscope.runs.folder import RunFolder
from unetscope.table.estimator_registry import EstimatorEntry, Setting, register
from unetscope.table.quantities import Quantity


@dataclass(frozen=True)
class Toy(Estimator):
    """The logarithm of one plus the mean squared distance over a scale, less that within the classes."""

    scale: float

    @property
    def needs(self) -> Needs:
        return Needs(distances=True)

    @property
    def series(self) -> tuple[tuple[str, float], ...]:
        return (("toy", self.scale),)

    def readings(self, statistics: LayerStatistics, classes: Classes) -> Iterator[Reading]:
        squared = statistics.pairwise(relative=False).squared
        whole = math.log1p(squared.mean().item() / self.scale)
        yield Reading(Quantity.INPUT, *self.series[0], whole)
        for name, labels in classes.items():
            inside = math.log1p(squared[labels[:, None] == labels].mean().item() / self.scale)
            yield Reading(Quantity.LABEL, *self.series[0], whole - inside, labels=name)


def toy_checks(_generator: torch.Generator) -> Iterator[Check]:
    """All distances are 3, so that it is ln 4."""
    (reading,) = Toy(1.0).readings(LayerStatistics.of_distances(torch.full((5, 5), 3.0)), {})
    check = check_of("equal distances", reading, truth=2.0)
    yield near(Check(check.case, check.estimator, check.truth, check.bits, check.bits, check.bits), 1e-6)


def register_toy() -> None:
    scale = Setting("toys", float, "--toy", "Scale of the toy; repeatable.")
    register(EstimatorEntry({"toy": "toy estimator"}, "scale", f"{__name__}:Toy", (scale,), shannon=False,
                            joins_at_merges=False, checks=(f"{__name__}:toy_checks",)))  # fmt: skip


def with_toy(code: str, *words: object) -> str:
    """What a process prints that has registered the toy before anything else."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    code = f"from test_toy_estimator import register_toy\nregister_toy()\n{code}"
    finished = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def unetscope(*words: object) -> str:
    return with_toy("from unetscope.cli.main import main\nmain()", *words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy") / "run"
    unetscope(
        "run", "--out", folder, "--toy", 1, "--toy", 10, "--synthetic-images", 12, "--image-size", 16, "--epochs", 1,
        "--width", 2, "--depth", 1, "--clusters", 2, "--no-usable", "--no-merge-probes", "--quiet",
    )  # fmt: skip
    return folder


@pytest.mark.long
def test_the_command_and_the_configuration_have_it(finished: Path) -> None:
    for verb in ("run", "measure"):
        assert "--toy" in unetscope(verb, "--help")
    assert json.loads((finished / "config.json").read_text())["configuration"]["measuring"]["toys"] == [1.0, 10.0]


@pytest.mark.long
def test_the_table_has_it_for_every_layer(finished: Path) -> None:
    flow = RunFolder.open(finished).flow()
    rows = flow.select(quantity=Quantity.INPUT, estimator="toy", resolution=1.0, epoch=1).estimates
    assert [row.layer for row in rows] == [layer.label for layer in flow.layers]
    assert all(row.bits > 0 for row in rows)


@pytest.mark.long
def test_the_figures_and_the_page_have_it(finished: Path) -> None:
    assert (finished / "figures" / "u_plot_input_toy_1.png").is_file()
    code = (
        "import json, sys\nfrom unetscope.report.report_data import report_data_of\n"
        "from unetscope.runs.folder import RunFolder\n"
        "print(json.dumps(report_data_of(RunFolder.open(sys.argv[1]))['series'], default=str))"
    )
    series = [row for row in json.loads(with_toy(code, finished)) if row["estimator"] == "toy"]
    assert {row["text"] for row in series} == {"toy estimator, scale 1", "toy estimator, scale 10"}


@pytest.mark.long
def test_selfcheck_has_its_own_case() -> None:
    checks = json.loads(unetscope("selfcheck", "--json"))["checks"]
    (check,) = (check for check in checks if check["estimator"] == "toy")
    assert check["passed"]
    assert check["bits"] == pytest.approx(2.0)


@pytest.mark.long
def test_the_page_of_another_installation_shows_it_by_its_key(finished: Path) -> None:
    """Where the toy is not registered, its rows are drawn and named all the same."""
    from unetscope.table.estimator_registry import estimator_text

    assert estimator_text("toy", 1.0) == "toy, resolution 1"
    assert RunFolder.open(finished).flow().select(estimator="toy").estimates
