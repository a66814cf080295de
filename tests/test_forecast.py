"""The forecast of a run beside the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from runs import TINY
from unetscope.report.render import drawings
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.experiment import prepare, run
from unetscope.runs.forecast import figure_count, row_counts
from unetscope.training.config import preset_config


@pytest.mark.long
def test_figures_and_rows_are_as_many_as_predicted(tmp_path: Path) -> None:
    config = preset_config("demo", TINY | {"training.epochs": 2, "measuring.merge_probes": True})
    scope = prepare(config).scope
    finished = AnalysedRun(run(config, tmp_path / "run"))
    rows = len(finished.flow.estimates) / len(finished.flow.epochs)
    figures = len(list(drawings(finished)))
    assert sum(row_counts(scope)) == pytest.approx(rows, rel=0.05)
    assert figure_count(scope) == pytest.approx(figures, rel=0.25)
