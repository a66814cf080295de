"""What is shown and judged by default: the estimators that a run was begun with, whatever is measured later."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from runs import made_run
from unetscope.report.report_data import report_data_of
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder
from unetscope.table.records import Estimate, Layer

SWEPT = [("binning", size) for size in (0.01, 0.2, 1.0)] + [
    (bound, noise) for noise in (0.001, 1.0, 100.0) for bound in ("kde_upper", "kde_lower")
]


def sweep(run: RunFolder) -> None:
    """Measure again by many estimators, those of the run among them, as `measure --sweep` does."""
    rows = [row for row in run.flow().estimates if row.estimator == "kde_upper"]
    for epoch in sorted({row.epoch for row in rows}):
        mine = [row for row in rows if row.epoch == epoch]
        again = [replace(row, estimator=name, resolution=size) for name, size in SWEPT for row in mine]
        run.write_measurement(epoch, again)


def moved_to_the_end(run: RunFolder) -> None:
    """As an older version left the rows of the run's first estimator after a sweep."""
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        tables.execute("DELETE FROM digests WHERE name = 'estimates'")
        tables.execute("UPDATE estimates SET rowid = rowid + 1000000 WHERE estimator LIKE 'kde%' AND resolution = 1.0")


@pytest.mark.parametrize("older", [False, True])
def test_a_sweep_changes_no_default(tmp_path: Path, older: bool) -> None:
    run = made_run(tmp_path / "run", (1, 2), labels=("kmeans(k=64)",), pictures_of=8)
    before = AnalysedRun.open(run.path)
    shown_before = report_data_of(before)  # which reads and judges it now
    sweep(run)
    if older:
        moved_to_the_end(run)
    after, shown_after = AnalysedRun.open(run.path), report_data_of(RunFolder.open(run.path))
    assert before.judgement is not None and after.judgement is not None
    assert list(map(str, after.judgement)) == list(map(str, before.judgement))
    assert any("KDE upper bound, noise variance 1" in str(verdict) for verdict in after.judgement)
    for quantity in ("I(X;M)", "I(Y;M)"):
        assert after.flow.series_of(quantity).key == before.flow.series_of(quantity).key
        first, again = (
            next(series for series in data["series"] if series["quantity"] == quantity)
            for data in (shown_before, shown_after)
        )
        assert again["text"] == first["text"] == "KDE upper bound, noise variance 1"
    assert len(after.flow.series) > len(before.flow.series)


@pytest.mark.parametrize(
    "own",
    [
        "KDE upper bound, noise variance 1",
        "KDE upper bound, noise variance 0.001",
        "KDE lower bound, noise variance 100",
        "binning, bin size 0.2",
        "binning, bin size 1",
    ],
)
def test_a_loop_of_ones_own_shows_by_its_first_estimator(tmp_path: Path, own: str) -> None:
    run = RunFolder.create(
        tmp_path / "run", {"configuration": {}, "facts": {"measured by": {"estimators": [own, "binning, bin size 9"]}}}
    )
    run.describe([Layer("1", "a"), Layer("2", "b")], ())
    for epoch in (0, 1):
        run.write_measurement(
            epoch,
            [
                Estimate(epoch, layer, "I(X;M)", name, size, "", 1.0, 1.0, 1.0, 3.0, False, n=8, d=4)
                for layer in ("2", "1")
                for name, size in SWEPT
            ],
        )
    flow = RunFolder.open(run.path).flow()
    assert flow.series_of("I(X;M)").key.text == own
    assert [row.epoch for row in flow.estimates] == sorted(row.epoch for row in flow.estimates)
    assert flow.series[0].layers == ("1", "2")


def test_a_measurement_again_keeps_its_place_and_takes_the_new_number(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {"configuration": {}, "facts": {}})
    run.describe([Layer("1", "a")], ())
    rows = [
        Estimate(0, "1", "I(X;M)", name, 1.0, "", 1.0, 1.0, 1.0, 3.0, False, n=8, d=4) for name in ("first", "second")
    ]
    run.write_measurement(0, rows)
    run.write_measurement(0, [replace(rows[0], bits=2.0)])
    assert [(row.estimator, row.bits) for row in run.flow().estimates] == [("first", 2.0), ("second", 1.0)]
