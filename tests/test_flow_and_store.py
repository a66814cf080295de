from __future__ import annotations

import csv
import json
import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runs import made_run
from unetscope.base.errors import InvalidArgument, RunFolderError
from unetscope.base.files import whole_file
from unetscope.report.report_data import report_data_of
from unetscope.runs.folder import RunFolder
from unetscope.runs.tables import FORMAT, Picture
from unetscope.runs.trackers.interface import scalars
from unetscope.table.flow import Flow, SeriesKey, save_epochs
from unetscope.table.parts import Part
from unetscope.table.quantities import Quantity, Status
from unetscope.table.records import EpochRecord, Estimate, Layer, Skip

LAYERS = (
    Layer("1", "a", shape=(2, 4, 4)),
    Layer("2up", "b", 1, "upsampled"),
    Layer("2", "c", 1, "merge", ("2up", "1")),
)
SKIPS = (Skip("skip1", "1", "2up", "2"),)
ROW = Estimate(3, "1", "I(X;M)", "kde_upper", 0.1, "", 1 / 3, 0.2, math.nan, 2.0, False, n=4, d=32)
ROWS = (
    ROW,
    replace(ROW, layer="2", bits=math.nan, reason="every image has the same label", labels="=cmd()", quantity="I(Y;M)"),
    replace(ROW, epoch=10, saturated=True),
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"configuration": {"seed": 0}, "facts": {"n": 1}})


def test_a_table_comes_back_as_it_was_written(run: RunFolder) -> None:
    run.describe(LAYERS, SKIPS)
    run.write_measurement(3, ROWS[:2])
    run.write_measurement(10, ROWS[2:])
    flow = RunFolder.open(run.path).flow()
    assert flow.layers == LAYERS
    assert flow.skips == SKIPS
    assert repr(flow.estimates) == repr(ROWS)  # by text, since NaN differs from itself
    assert (run.measured(3), run.measured(4)) == (True, False)


def test_the_same_measurement_again_takes_the_place_of_the_older_one(run: RunFolder) -> None:
    run.describe(LAYERS, SKIPS)
    run.write_measurement(3, ROWS[:2])
    run.write_measurement(3, [replace(ROW, bits=1.0)])
    assert {row.layer: row.bits for row in run.flow().estimates} == {
        "1": 1.0,
        "2": pytest.approx(math.nan, nan_ok=True),
    }
    first = EpochRecord(1, 0.5, 0.6, 0.7, 0.8, 1.0)
    run.write_epoch(first)
    run.write_epoch(replace(first, validation_dice=0.9))
    assert [record.validation_dice for record in run.epochs()] == [0.9]


def test_a_measurement_is_written_whole_or_not_at_all(run: RunFolder) -> None:
    run.describe(LAYERS, SKIPS)
    run.write_measurement(3, ROWS[:2])
    with pytest.raises(RunFolderError, match=r"flow.sqlite: Python int too large to convert to SQLite INTEGER"):
        run.write_measurement(3, [replace(ROW, bits=9.0), replace(ROW, layer="2", n=2**63)])
    with pytest.raises(RunFolderError, match=r"flow.sqlite: a value of reason is '{}': expected str"):
        run.write_measurement(3, [replace(ROW, bits=9.0), replace(ROW, layer="2", reason={})])  # type: ignore[arg-type]
    with pytest.raises(RunFolderError, match="an estimate of epoch 10 among those of epoch 3"):
        run.write_measurement(3, [replace(ROW, bits=9.0), ROWS[2]])
    assert sorted(row.bits for row in run.flow().estimates if row.bits == row.bits) == [ROW.bits]


def test_pictures_come_back_pixel_by_pixel(run: RunFolder) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    grey = pixels[..., 0].copy()
    run.describe((), (), [Picture("image", "<b>", 0, 1, pixels), Picture("image", "a", 0, 0, grey)])
    pictures = run.pictures("image")
    assert [picture.title for picture in pictures] == ["a", "<b>"]
    np.testing.assert_array_equal(pictures[1].pixels, pixels)
    np.testing.assert_array_equal(pictures[0].pixels, grey)


def test_a_folder_of_the_first_format_is_brought_up_to_date(run: RunFolder) -> None:
    new = (
        *("low", "high", "null_mean", "null_high", "p", "train_bits", "extrapolated"),
        *("quarter_bits", "half_bits", "singleton_share", "per_image"),
    )
    estimate = Estimate(0, "1", "I(X;M)", "kde_upper", 1.0, "", 2.0, 1.5, 2.0, 3.0, False, n=8, d=4)
    run.describe((Layer("1", "conv1"),), ())
    run.write_measurement(0, [estimate])
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        for name in new:
            tables.execute(f"ALTER TABLE estimates DROP COLUMN {name}")
        tables.execute("ALTER TABLE estimates DROP COLUMN out_of_domain")
        tables.execute("ALTER TABLE estimates DROP COLUMN groups")
        tables.execute("ALTER TABLE estimates DROP COLUMN dice")
        for name in ("validation_range", "dice_per_image", "dice_per_class"):
            tables.execute(f"ALTER TABLE epochs DROP COLUMN {name}")
        tables.execute("ALTER TABLE layers DROP COLUMN sources")
        tables.execute("PRAGMA user_version = 1")
    (again,) = RunFolder.open(run.path).flow().estimates
    assert again.bits == 2.0
    assert again == replace(estimate, **{name: getattr(again, name) for name in new})
    assert all(math.isnan(getattr(again, name)) for name in new[:-1])
    assert again.per_image == ()
    RunFolder.open(run.path).write_measurement(1, [replace(estimate, epoch=1, low=1.0, per_image=(1.5, 2.5))])
    last = RunFolder.open(run.path).flow().estimates[1]
    assert (last.low, last.per_image) == (1.0, (1.5, 2.5))
    record = EpochRecord(1, 0.5, 0.6, 0.7, 0.8, 1.0, 0.25, (0.5, 1.0))
    RunFolder.open(run.path).write_epoch(record)
    assert RunFolder.open(run.path).epochs() == (record,)


def test_a_folder_without_the_dice_of_probes_keeps_its_digests(run: RunFolder) -> None:
    estimate = Estimate(0, "1", "I_V(M→Y)", "usable_linear", 0.0, "pixels", 0.2, 0.1, 0.3, 0.6, False, n=8, d=4)
    run.describe((Layer("1", "conv1"),), ())
    run.write_measurement(0, [estimate])
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        tables.execute("ALTER TABLE estimates DROP COLUMN dice")
        tables.execute("PRAGMA user_version = 9")
    (again,) = RunFolder.open(run.path).flow().estimates
    assert (again.bits, math.isnan(again.dice)) == (0.2, True)
    RunFolder.open(run.path).write_measurement(1, [replace(estimate, epoch=1, dice=0.8)])
    assert [row.dice for row in RunFolder.open(run.path).flow().estimates][1] == 0.8
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        tables.execute("UPDATE estimates SET dice = 0.9 WHERE epoch = 1")
    with pytest.raises(RunFolderError, match="the estimates of epoch 1 are not those that were written"):
        RunFolder.open(run.path).flow()


def test_what_an_older_folder_said_in_words_is_a_value_now(run: RunFolder) -> None:
    estimate = Estimate(0, "1", "I(X;M)", "kde_upper", 1.0, "", 2.0, 1.5, 2.0, 3.0, False, n=8, d=4)
    reasons = {0.5: "out of domain: 8 images are too few to tell", 1.0: "", 2.0: "every image has the same label"}
    run.describe((Layer("1", "conv1"),), ())
    run.write_measurement(0, [replace(estimate, resolution=size, reason=reason) for size, reason in reasons.items()])
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        for column in ("out_of_domain", "groups", "dice"):
            tables.execute(f"ALTER TABLE estimates DROP COLUMN {column}")
        tables.execute("ALTER TABLE epochs DROP COLUMN dice_per_class")
        tables.execute("ALTER TABLE layers DROP COLUMN sources")
        tables.execute("PRAGMA user_version = 4")
    again = RunFolder.open(run.path).flow().estimates
    assert [row.out_of_domain for row in again] == [True, False, False]
    assert [row.status for row in again] == [Status.OUT_OF_DOMAIN, Status.OK, Status.OK]


@pytest.mark.parametrize(
    ("bits", "saturated", "out_of_domain", "status"),
    [
        (1.0, False, False, "ok"),
        (1.0, False, True, "out of domain"),
        (3.0, True, False, "saturated"),
        (3.0, True, True, "saturated"),
        (math.nan, False, True, "absent"),
    ],
)
def test_the_gravest_reason_is_the_status(bits: float, saturated: bool, out_of_domain: bool, status: str) -> None:
    row = Estimate(0, "1", "I(X;M)", "kde_upper", 1, "", bits, 1, 3, 3, saturated, 8, 4, out_of_domain=out_of_domain)
    assert row.status == status
    assert Flow((), (), (row,)).rows()[0]["status"] == status


def test_an_unknown_quantity_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match=r"quantity must be one of I\(X;M\), .*, got 'I\(X;Z\)'"):
        Estimate(0, "1", "I(X;Z)", "kde_upper", 1.0, "", 2.0, 1.5, 2.0, 3.0, False, n=8, d=4)


def as_before_format_5(run: RunFolder) -> None:
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        for column in ("out_of_domain", "groups", "dice"):
            tables.execute(f"ALTER TABLE estimates DROP COLUMN {column}")
        tables.execute("ALTER TABLE epochs DROP COLUMN dice_per_class")
        tables.execute("ALTER TABLE layers DROP COLUMN sources")
        tables.execute("PRAGMA user_version = 4")


def format_of(run: RunFolder) -> int:
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables:
        return tables.execute("PRAGMA user_version").fetchone()[0]


OUT = Estimate(
    0, "1", "I(X;M)", "kde_upper", 1.0, "", 2.0, 1.5, 2.0, 3.0, False, n=8, d=4,
    reason="out of domain: 8 images are too few to tell", out_of_domain=True,
)  # fmt: skip


def test_reading_an_older_folder_changes_nothing_and_writing_brings_it_up_to_date(run: RunFolder) -> None:
    run.describe((Layer("1", "conv1"),), ())
    run.write_measurement(0, [OUT])
    as_before_format_5(run)
    before = (run.path / "flow.sqlite").read_bytes()
    assert RunFolder.open(run.path).flow().estimates[0].status is Status.OUT_OF_DOMAIN
    assert (run.path / "flow.sqlite").read_bytes() == before
    RunFolder.open(run.path).write_measurement(1, [replace(OUT, epoch=1), replace(OUT, epoch=1, layer="1", labels="x")])
    assert format_of(run) == FORMAT
    assert [row.status for row in RunFolder.open(run.path).flow().estimates] == [Status.OUT_OF_DOMAIN] * 3


def test_rows_that_an_older_version_adds_later_keep_their_status(run: RunFolder) -> None:
    run.describe((Layer("1", "conv1"),), ())
    run.write_measurement(0, [OUT])
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        names = [row[1] for row in tables.execute("PRAGMA table_info(estimates)") if row[1] != "out_of_domain"]
        columns = ", ".join(names)
        tables.execute(
            f"INSERT INTO estimates ({columns}) SELECT {columns.replace('epoch', '1 AS epoch', 1)} FROM estimates"
        )
    assert [row.status for row in RunFolder.open(run.path).flow().estimates] == [Status.OUT_OF_DOMAIN] * 2


def test_a_read_only_folder_of_an_older_format_is_read(run: RunFolder) -> None:
    run.describe((Layer("1", "conv1"),), ())
    run.write_measurement(0, [OUT])
    as_before_format_5(run)
    (run.path / "flow.sqlite").chmod(0o400)
    assert RunFolder.open(run.path).flow().estimates[0].out_of_domain


@pytest.mark.long
def test_several_processes_write_an_older_folder_at_once(run: RunFolder) -> None:
    run.describe((Layer("1", "conv1"),), ())
    as_before_format_5(run)
    code = (
        "import sys\nfrom unetscope.runs import RunFolder\nfrom unetscope.table import EpochRecord\n"
        "nan = float('nan')\n"
        "RunFolder.open(sys.argv[1]).write_epoch(EpochRecord(int(sys.argv[2]), nan, nan, 0.5, 0.5, 1.0))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(run.path), str(epoch)]) for epoch in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert format_of(run) == FORMAT
    assert [record.epoch for record in RunFolder.open(run.path).epochs()] == [0, 1, 2, 3]


def test_a_part_equals_its_name() -> None:
    part = Part.named("skip1")
    assert part == "skip1" and part == "skip1" and part != "skip2" and part != 1
    assert {part: 1}["skip1"] == 1


def test_comparable_goes_on_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="Estimate.comparable is Estimate.status == 'ok' now"):
        assert not OUT.comparable


def test_a_folder_of_another_format_is_refused(run: RunFolder) -> None:
    with sqlite3.connect(run.path / "flow.sqlite") as tables:
        tables.execute("PRAGMA user_version = 99")
    tables.close()
    with pytest.raises(
        RunFolderError,
        match=rf"has tables of format 99, .* reads 1 to {FORMAT}: a newer version of unetscope",
    ):
        RunFolder.open(run.path)


@pytest.mark.parametrize("content", ["{", "[]", '{"configuration": 3}', ""])
def test_a_damaged_configuration_is_named(run: RunFolder, content: str) -> None:
    (run.path / "config.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"config.json cannot be read"):
        _ = RunFolder.open(run.path).configuration


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot be written .*: choose another --out"):
        RunFolder.create(tmp_path / "file" / "run", {})
    with pytest.raises(RunFolderError, match="file is a file: choose another --out"):
        RunFolder.create(tmp_path / "file", {})


def test_csv_keeps_every_digit_and_leaves_nan_empty(tmp_path: Path) -> None:
    rows = list(csv.DictReader(Flow(LAYERS, SKIPS, ROWS).save(tmp_path / "t.csv").read_text().splitlines()))
    assert float(rows[0]["bits"]) == 1 / 3
    assert (rows[0]["upper"], rows[1]["bits"], rows[0]["saturated"], rows[2]["saturated"]) == ("", "", "False", "True")


def test_parquet_and_pandas_keep_types(tmp_path: Path) -> None:
    import pandas

    flow = Flow(LAYERS, SKIPS, ROWS)
    frame = pandas.read_parquet(flow.save(tmp_path / "t.parquet"))
    for table in (frame, flow.to_pandas()):
        assert table.saturated.dtype == bool
        assert table.bits.isna().tolist() == [False, True, False]
        assert table.layer.tolist() == ["1", "2", "1"]
    assert len(pandas.read_parquet(Flow(LAYERS).save(tmp_path / "empty.parquet")).columns) == len(frame.columns)
    save_epochs([EpochRecord(0, math.nan, math.nan, 0.7, 0.1, 1.0)], tmp_path / "e.parquet")
    assert math.isnan(pandas.read_parquet(tmp_path / "e.parquet").train_loss_running[0])


def test_every_estimate_is_in_the_one_series_of_its_key(tmp_path: Path) -> None:
    flow = made_run(tmp_path / "run", (0, 1, 10)).flow()
    keys = [series.key for series in flow.series]
    assert keys == list(dict.fromkeys(map(SeriesKey.of, flow.estimates)))
    rows = [row for series in flow.series for row in series.estimates.values()]
    assert sorted(row.key for row in rows) == sorted(row.key for row in flow.estimates)
    order = [layer.label for layer in flow.layers]
    for series in flow.series:
        assert {SeriesKey.of(row) for row in series.estimates.values()} == {series.key}
        assert [label for label in order if label in series.layers] == list(series.layers)
        key = series.key
        assert flow.series_of(key.quantity, key.estimator, key.resolution, key.labels) == series
    assert flow.series_of("I(Y;M)").key == SeriesKey(Quantity.LABEL, "kde_upper", 1.0, "kmeans(k=64)")


def test_page_and_trackers_have_the_series_of_the_table(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", (0, 1, 10))
    keys = [series.key for series in run.flow().series]
    shown = [
        (one["quantity"], one["estimator"], one["resolution"], one["labels"]) for one in report_data_of(run)["series"]
    ]
    assert shown == [(key.quantity, key.estimator, key.resolution, key.labels) for key in keys]
    names = {scalar.names[:-1] for scalar in scalars(run.flow(), run.epochs()) if scalar.names[0] in set(Quantity)}
    assert len(names) == len(keys)


def test_where_nothing_was_measured_a_series_is_silent() -> None:
    (series, _) = Flow(LAYERS, SKIPS, ROWS).series
    assert (series.layers, series.epochs, series.ceilings, series.images_text) == (
        ("1",),
        (3, 10),
        (2.0,),
        "n = 4 images",
    )
    assert (series.status("1", 3), series.status("1", 10)) == (Status.OK, Status.SATURATED)
    assert (series.status("2", 3), series.status("1", 4)) == (Status.ABSENT, Status.ABSENT)
    assert math.isnan(series.bits("2", 3))
    assert all(map(math.isnan, series.interval("2", 3)))
    assert series.ceiling_text(2.0) == "log₂ N = 2.00 bits"


def test_a_selection_by_an_unknown_field_names_the_known_ones() -> None:
    with pytest.raises(
        InvalidArgument, match="no field 'layr' in an estimate: expected one of bits, ceiling, d, dice, epoch"
    ):
        Flow(LAYERS).select(layr="1")


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as beside:
        beside.write_text(json.dumps("new"))
        _ = 1 / 0
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
