"""The command as a user meets it: what it prints, what it refuses, and that nothing is lost."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from unetscope.base import RunFolderError
from unetscope.cli.main import app, main
from unetscope.measure.selfcheck import run_selfcheck
from unetscope.runs.folder import RunFolder
from unetscope.table.quantities import Quantity

pytestmark = pytest.mark.usefixtures("sketched_figures")
TINY = [
    "--image-size=16",
    "--width=2",
    "--depth=2",
    "--synthetic-images=24",
    "--validation-share=0.1",
    "--clusters=4",
    "--threads=1",
    "--precision=float32",
]
QUICK = [*TINY, "--no-usable", "--no-merge-probes"]  # probes take most of a small measurement
COLUMNS = {
    *("epoch", "layer", "quantity", "estimator", "resolution", "labels"),
    *("bits", "lower", "upper", "ceiling", "saturated", "n", "d"),
}


def command(
    *words: str | Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `unetscope WORDS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["unetscope", *map(str, words)])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def unetscope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    return lambda *words: command(*words, monkeypatch=monkeypatch, capsys=capsys)


def started(*words: str | Path) -> subprocess.Popen[str]:
    """`unetscope WORDS` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "unetscope", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (ignored in a background)
    )


def table(run: Path) -> list[tuple[object, ...]]:
    """Everything that a run keeps of its numbers, but for the wall time."""
    with sqlite3.connect(run / "flow.sqlite") as tables:
        estimates = tables.execute(
            "SELECT * FROM estimates ORDER BY epoch, layer, quantity, estimator, resolution, labels"
        )
        epochs = "SELECT epoch, train_loss_running, train_dice_running, validation_loss, validation_dice FROM epochs"
        pictures = tables.execute("SELECT * FROM pictures ORDER BY kind, title, epoch, place").fetchall()
        return [*estimates.fetchall(), *tables.execute(f"{epochs} ORDER BY epoch").fetchall(), *pictures]


def write_pair(folder: Path, name: str, size: int = 20) -> None:
    rng = np.random.default_rng(len(name) + ord(name[0]))
    for part, pixels in (
        ("images", rng.integers(0, 255, (size, size, 3))),
        ("masks", rng.integers(0, 2, (size, size)) * 255),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / part / f"{name}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in "abcdefgh":
        write_pair(tmp_path / "data", name)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def finished(once: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run on synthetic images, finished."""

    def make(out: Path) -> None:
        process = started("run", "--out", out, "--epochs=3", "--quiet", *TINY)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert "validation Dice" in output

    return Path(shutil.copytree(once("command", make), tmp_path_factory.mktemp("runs") / "small"))


# ---- the main job


@pytest.mark.long
def test_a_run_leaves_a_whole_folder(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        ".lock",
        "config.json",
        "costs.json",
        "flow.sqlite",
        "checkpoints",
        "figures",
        "report.html",
        "silenced.json",
    }
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {f"epoch-0000{e}" for e in (0, 1, 2, 3)}
    about = json.loads((finished / "config.json").read_text())
    assert about["configuration"]["network"]["width"] == 2
    assert about["configuration"]["threads"] == 1
    assert set(about["facts"]["versions"]) == {"unetscope", "python", "torch", "numpy"}
    assert len(about["facts"]["data"]["train"]["fingerprint"]) == 64
    figures = {path.name for path in (finished / "figures").iterdir()}
    for name in ("architecture", "masks_by_cluster_kmeans", "u_plot_input_kde_upper_1", "dice", "predictions"):
        assert {f"{name}.png", f"{name}.svg"} <= figures
    assert (finished / "report.html").stat().st_size < 6e6


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_export_writes_both_tables(unetscope, finished: Path, tmp_path: Path, suffix: str) -> None:
    code, output, _ = unetscope("export", finished, "--to", tmp_path / f"flow.{suffix}")
    assert code == 0
    assert output.split() == [str(tmp_path / f"{name}.{suffix}") for name in ("flow", "flow-epochs", "flow-costs")]
    if suffix == "csv":
        rows = list(csv.DictReader((tmp_path / "flow.csv").read_text().splitlines()))
        epochs = list(csv.DictReader((tmp_path / "flow-epochs.csv").read_text().splitlines()))
        costs = list(csv.DictReader((tmp_path / "flow-costs.csv").read_text().splitlines()))
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(tmp_path / "flow.parquet").to_pylist()
        epochs = pyarrow.parquet.read_table(tmp_path / "flow-epochs.parquet").to_pylist()
        costs = pyarrow.parquet.read_table(tmp_path / "flow-costs.parquet").to_pylist()
    whole, *smaller = costs
    assert whole["design"] == "model1" and float(whole["parameters_change"]) == 0
    for row in smaller:
        share = float(row["multiply_adds"]) / float(whole["multiply_adds"])
        assert float(row["multiply_adds_change"]) == pytest.approx(share - 1)
    assert set(rows[0]) >= COLUMNS
    assert {row["quantity"] for row in rows} == set(Quantity)
    assert {row["estimator"] for row in rows} == {
        "kde_upper",
        "kde_lower",
        "binning",
        "usable_linear",
        "usable_convolutional",
    }
    assert {row["layer"] for row in rows} == {*map(str, range(1, 14)), "7up", "10up"}
    at_merges = 2 * 3 * (3 * 2 + 1)  # skips, quantities, and by three estimators of two label schemes or by probes
    for_verdicts = 2 * 4  # at epochs 1 and 3
    assert len(rows) == 4 * (15 * (3 * 3 + 1) + at_merges) + 2 * for_verdicts
    assert {int(row["epoch"]) for row in rows if row["estimator"] == "usable_convolutional"} == {1, 3}
    assert [int(row["epoch"]) for row in epochs] == [0, 1, 2, 3]
    assert all(0 <= float(row["validation_dice"]) <= 1 for row in epochs)


@pytest.mark.long
def test_report_and_json(unetscope, finished: Path) -> None:
    (finished / "report.html").unlink()
    code, output, _ = unetscope("report", finished, "--json")
    assert code == 0
    assert json.loads(output) == {"report": str(finished / "report.html")}
    assert (finished / "report.html").is_file()


@pytest.mark.long
def test_checkpoints_are_measured_again_with_what_is_named(unetscope, finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = table(run)
    code, output, _ = unetscope(
        "measure",
        run,
        "--noise-variance=0.05",
        "--mixture=5",
        "--relative-noise-variance=0.1",
        "--epochs=1,3",
        "--quiet",
        "--json",
    )
    assert code == 0
    assert json.loads(output)["epoch"] == 3
    after = table(run)
    assert [row for row in after if row in before] == before
    new = [row for row in after if row not in before]
    assert {(row[0], row[3], row[4]) for row in new} == {
        (epoch, name, size)
        for epoch in (1, 3)
        for name, size in (
            ("kde_upper", 0.05),
            ("kde_lower", 0.05),
            ("mixture", 5.0),
            ("kde_upper_relative", 0.1),
            ("kde_lower_relative", 0.1),
            ("mixture_relative", 0.1),
        )
    }
    assert (run / "figures" / "u_plot_input_mixture_5.png").is_file()
    _, output, _ = unetscope("measure", run, "--noise-variance=1", "--bin-size=0.2", "--usable", "--quiet")
    assert output.startswith("Measured again")
    assert ("It has not learnt to segment" in output) == (RunFolder.open(run).epochs()[-1].validation_dice < 0.1)
    assert table(run) == after  # the same numbers again, in their place


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            [],
            "nothing to measure: name any of noise_variances (--noise-variance), mixtures (--mixture), relative_noise_",
        ),
        (["--epochs=7"], "keeps no checkpoint of epoch 7: it has 0, 1, 2, 3"),
        (["--usable", "--epochs=7"], "keeps no checkpoint of epoch 7: it has 0, 1, 2, 3"),
        (["--usable", "--epochs=all"], "--epochs all: expected epochs such as 10,100"),
        (["--mixture=0"], "mixtures: must be > 0, got 0.0"),
    ],
)
def test_what_cannot_be_measured_again_is_one_line(unetscope, finished: Path, words: list[str], text: str) -> None:
    code, _, errors = unetscope("measure", finished, "--quiet", *words)
    assert code == 2
    assert text in errors
    assert errors.count("\n") == 1


@pytest.mark.long
def test_the_estimators_are_checked_on_this_machine(unetscope, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run_selfcheck()
    monkeypatch.setattr("unetscope.measure.selfcheck.run_selfcheck", lambda _progress: results)  # once for both outputs
    code, output, errors = unetscope("selfcheck", "--json")
    assert (code, errors) == (0, "")
    checks = json.loads(output)["checks"]
    assert {check["estimator"] for check in checks} == {
        "mixture",
        "kde_upper",
        "binning",
        "renyi",
        "ksg",
        "usable_linear",
    }
    assert all(check["passed"] for check in checks)
    (outside,) = (check for check in checks if check["outside"])
    assert outside["bits"] is None
    assert outside["reason"].startswith("out of domain")
    assert "Gaussian" in unetscope("selfcheck")[1]


@pytest.mark.long
def test_a_dry_run_says_what_it_will_take_and_writes_nothing(unetscope, tmp_path: Path) -> None:
    code, output, _ = unetscope("run", "--out", tmp_path / "run", "--dry-run", "--json", "--epochs=50", *QUICK)
    assert code == 0
    expected = json.loads(output)
    assert expected["training_images"] == 22
    assert expected["marked_epochs"] == 10
    assert expected["forward_passes_a_measurement"] == 1
    assert 0 < expected["seconds_an_epoch"] < 30
    assert expected["seconds"] >= 50 * expected["seconds_an_epoch"]
    assert expected["memory_bytes"] > 1e8
    assert expected["disk_bytes"] > 1e4
    assert not (tmp_path / "run").exists()
    code, output, _ = unetscope("run", "--out", tmp_path / "run", "--dry-run", "--quiet", *QUICK)
    assert "What this run will take" in output
    assert "MiB" in output
    values = output.partition("Its values, by the preset demo unless you named them: ")[2].split()
    assert values[values.index("--optimizer") + 1] == "adam"
    assert "--accept" not in values  # images are synthetic


@pytest.mark.long
def test_images_from_two_folders(unetscope, data: Path, tmp_path: Path) -> None:
    for name in "vwxyz":
        write_pair(tmp_path / "validation", name, size=24)
    words = [
        "--data",
        data,
        "--val",
        tmp_path / "validation",
        "--preset=quick",
        "--epochs=2",
        "--quiet",
        "--json",
        *QUICK,
    ]
    code, output, errors = unetscope("run", "--out", tmp_path / "run", *words)
    assert (code, errors) == (0, "")
    assert json.loads(output)["epoch"] == 2
    facts = json.loads((tmp_path / "run" / "config.json").read_text())["facts"]["data"]
    assert (facts["train"]["images"], facts["validation"]["images"]) == (8, 5)


# ---- killed and resumed


def killed_and_resumed(out: Path, words: Sequence[str], *, kills: int, longest: float, seed: int) -> int:
    """Start a run, kill it at random moments, resume it until it is finished; how many kills hit it."""
    chance, hits = random.Random(seed), 0
    for _ in range(kills):
        process = started("run", "--out", out, "--resume", "--quiet", *words)
        try:
            process.communicate(timeout=chance.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            hits += 1
            process.communicate()
    process = started("run", "--out", out, "--resume", "--quiet", *words)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    return hits


@pytest.mark.long
def test_a_killed_run_resumes_to_the_same_table(finished: Path, tmp_path: Path) -> None:
    words = ["--epochs=3", *TINY]
    assert killed_and_resumed(tmp_path / "run", words, kills=2, longest=8, seed=0) >= 1
    assert table(tmp_path / "run") == table(finished)
    for epoch in (0, 3):
        name = Path("checkpoints") / f"epoch-0000{epoch}" / "weights.safetensors"
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.slow
def test_a_demo_killed_ten_times_gives_the_same_table(tmp_path: Path) -> None:
    words = ["--preset=demo", "--threads=1"]
    process = started("run", "--out", tmp_path / "whole", "--quiet", *words)
    _, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    assert killed_and_resumed(tmp_path / "killed", words, kills=10, longest=12, seed=0) == 10
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


@pytest.mark.long
def test_a_resume_with_another_configuration_says_what_differs(unetscope, finished: Path) -> None:
    before = table(finished)
    code, _, errors = unetscope("run", "--out", finished, "--resume", "--quiet", "--seed=7", "--lr=0.01")
    assert code == 2
    assert "was begun with another configuration (seed: 0 → 7; training.learning_rate: 0.002 → 0.01)" in errors
    assert errors.count("\n") == 1
    assert table(finished) == before


@pytest.mark.long
def test_a_finished_run_is_not_overwritten(unetscope, finished: Path) -> None:
    before = table(finished)
    code, _, errors = unetscope("run", "--out", finished, "--quiet", "--epochs=3", *TINY)
    assert code == 2
    assert f"{finished} is not empty: choose another --out, or --resume if it is a run" in errors
    code, output, _ = unetscope("run", "--out", finished, "--resume", "--quiet", "--json")
    assert code == 0
    assert json.loads(output)["epoch"] == 3
    assert table(finished) == before


@pytest.mark.long
def test_what_a_kill_left_of_a_run_that_never_began_is_no_run(unetscope, tmp_path: Path) -> None:
    (tmp_path / "flow.sqlite").write_bytes(b"half")
    (tmp_path / ".config.123.part.json").write_text("{")
    code, _, errors = unetscope("run", "--out", tmp_path, "--resume", "--quiet", "--epochs=0", *TINY)
    first, few = errors.splitlines()
    assert (code, first) == (0, f"unetscope: there is nothing to resume in {tmp_path}: a new run begins")
    assert "validation: 2 images with labels are too few for an interval" in few
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]
    assert len(table(tmp_path)) > 100


@pytest.mark.long
def test_two_processes_do_not_work_on_one_run(unetscope, finished: Path) -> None:
    with RunFolder.open(finished).locked():
        code, _, errors = unetscope("run", "--out", finished, "--resume", "--quiet")
    assert code == 2
    assert f"{finished} is in use: another process is working on this run" in errors


def test_a_run_that_is_worked_on_stays_so_whatever_is_written_in_it(tmp_path: Path) -> None:
    """A lock is on a file, and `config.json` is replaced by another whenever something is noted."""
    folder = RunFolder.create(tmp_path / "run", {"configuration": {}, "facts": {}})
    with folder.locked():
        folder.note({"moved": True})
        with pytest.raises(RunFolderError, match="is in use: another process"), RunFolder(tmp_path / "run").locked():
            pass
    with folder.locked():
        pass


def test_of_two_processes_that_begin_a_run_in_one_instant_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both had looked, found nothing, and trained into one folder."""
    looked, looks = RunFolder.refuse_occupied, 0

    def after_the_first_look(path: Path) -> None:
        nonlocal looks
        looks += 1
        looked(path)
        if looks == 1:
            RunFolder.create(path, {"configuration": {"seed": 1}, "facts": {}})

    monkeypatch.setattr(RunFolder, "refuse_occupied", after_the_first_look)
    with pytest.raises(RunFolderError, match="run is not empty: choose another --out, or --resume if it is a run"):
        RunFolder.create(tmp_path / "run", {"configuration": {"seed": 2}, "facts": {}})
    assert RunFolder.open(tmp_path / "run").configuration == {"seed": 1}


@pytest.mark.long
def test_a_resume_without_its_images_is_refused(unetscope, data: Path, tmp_path: Path) -> None:
    words = ["run", "--out", tmp_path / "run", "--data", data, "--quiet", "--epochs=1", *QUICK]
    assert unetscope(*words)[0] == 0
    write_pair(data, "new")
    code, _, errors = unetscope(*words, "--resume")
    assert code == 2
    assert "the train images of data are not those that" in errors
    assert "bring them back, or choose another --out" in errors


@pytest.mark.long
def test_a_run_keeps_the_budget_and_the_precision_that_it_began_with(unetscope, tmp_path: Path) -> None:
    words = ["run", "--out", tmp_path / "run", "--quiet", "--epochs=1", *(w for w in QUICK if "precision" not in w)]
    assert unetscope(*words)[0] == 0
    begun = json.loads((tmp_path / "run" / "config.json").read_text())["configuration"]
    assert begun["measuring"]["memory_budget"] > 2**20
    assert begun["training"]["precision"] in ("float32", "bfloat16")
    for more in ([], ["--memory-budget=64MiB"]):  # less memory than before is no reason to begin anew
        assert unetscope(*words, "--resume", *more)[0] == 0
    other = {"float32": "bfloat16", "bfloat16": "float32"}[begun["training"]["precision"]]
    code, _, errors = unetscope(*words, "--resume", f"--precision={other}")
    assert code == 2
    assert f"training.precision: {begun['training']['precision']} → {other}" in errors


# ---- what a user can mend: one line, exit code 2, nothing lost


def corrupt(data: Path) -> None:
    path = data / "images" / "c.png"
    path.write_bytes(path.read_bytes()[:200])


def another_size(data: Path) -> None:
    Image.new("L", (9, 9), 255).save(data / "masks" / "c.png")


def emptied(data: Path) -> None:
    for path in data.rglob("*.png"):
        path.unlink()


def not_an_image(data: Path) -> None:
    (data / "images" / "c.png").write_text("I am a text file")


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (corrupt, "images/c.png: "),
        (another_size, "masks/c.png: "),
        (emptied, "there are no images"),
        (not_an_image, "images/c.png: "),
    ],
)
def test_harmed_data_stop_a_run_before_it_begins(unetscope, data: Path, tmp_path: Path, harm, text: str) -> None:
    harm(data)
    code, _, errors = unetscope("run", "--data", data, "--out", tmp_path / "run", "--quiet", *TINY)
    assert code == 2
    assert text in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()
    code, output, _ = unetscope("check-data", data)
    assert code == 2
    assert text in output


def test_an_archive_that_would_escape_is_refused(unetscope, tmp_path: Path) -> None:
    memory = io.BytesIO()
    Image.new("L", (8, 8), 9).save(memory, "PNG")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../images/a.png", memory.getvalue())
        archive.writestr("../masks/a.png", memory.getvalue())
    code, _, errors = unetscope("run", "--data", tmp_path / "evil.zip", "--out", tmp_path / "run", "--quiet", *TINY)
    assert code == 2
    assert "../images/a.png" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--noise-variance=0"], "--noise-variance: must be > 0, got 0.0"),
        (["--bin-size=-1"], "--bin-size: must be > 0, got -1.0"),
        (["--clusters=500"], "K = 500 clusters for 22 masks: choose K of at most 22"),
        (["--image-size=50"], "image size 50x50 cannot be halved 2 times: use 48x48 or 52x52"),
        (["--depth=9"], "network: depth must be 1 to 6, got 9"),
        (["--without=skip7"], "no skip skip7 in a U-Net of depth 2: expected any of skip1, skip2"),
        (["--optimizer=rmsprop"], "--optimizer: input should be 'sgd', 'adam' or 'adamw', got 'rmsprop'"),
        (["--preset=huge"], "preset 'huge': expected one of demo, quick, paper, paper-code"),
        (["--marked=often"], "--marked often: expected log, paper, or epochs such as 1,10,100"),
        (["--marked=1,99", "--epochs=9"], "marked epoch 99 is outside the training: expected 0 to 9"),
        (["--memory-budget=lots"], "--memory-budget lots: expected a size such as 2GiB or 500MB"),
        (["--memory-budget=0.5"], "--memory-budget 0.5: less than one byte, expected a size such as 2GiB or 500MB"),
        (["--memory-budget=1kB"], "memory_budget must be at least"),
        (["--val=there"], "--val needs --data: the images to train on"),
        (["--data=/no/such/place"], "/no/such/place"),
        (["--probe-images=99"], "probe set of 99 images: expected 2 to 22"),
        pytest.param(
            ["--device=cuda"],
            "device is cuda, and torch finds none here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
        pytest.param(
            ["--cuda-graphs"],
            "--cuda-graphs goes with --device cuda, and the device is cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
        (["--lr=0"], "--learning-rate: input should be greater than 0, got 0.0"),
    ],
)
def test_a_wrong_value_is_one_line(unetscope, tmp_path: Path, words: list[str], text: str) -> None:
    code, output, errors = unetscope("run", "--out", tmp_path / "run", "--quiet", "--json", *TINY, *words)
    assert code == 2
    assert text in errors
    assert errors.count("\n") == 1
    assert text in json.loads(output)["error"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", [["report"], ["export", "--to", "flow.csv"], ["measure", "--usable"]])
def test_a_folder_that_is_no_run_is_refused(unetscope, tmp_path: Path, verb: list[str]) -> None:
    code, _, errors = unetscope(verb[0], tmp_path, *verb[1:])
    assert code == 2
    assert f"{tmp_path} is not a run folder: it has no config.json" in errors


@pytest.mark.long
def test_an_export_to_another_kind_of_file_is_refused(unetscope, finished: Path, tmp_path: Path) -> None:
    code, _, errors = unetscope("export", finished, "--to", tmp_path / "flow.xlsx")
    assert code == 2
    assert "cannot save a table as 'flow.xlsx': expected a name that ends in .csv or .parquet" in errors
    code, _, errors = unetscope("export", finished, "--to", tmp_path / "nowhere" / "flow.csv")
    assert code == 2
    assert "no such folder" in errors


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["report", "RUN", "--to", "page.pdf"], "--to writes a page: name it page.html, got page.pdf"),
        (["report", "RUN", "--to", "RUN/flow.sqlite"], "flow.sqlite belongs to the run RUN itself: choose another"),
        (["report", "RUN", "--to", "RUN/figures/../config.json"], "config.json belongs to the run RUN itself"),
        (["report", "RUN", "--to", "LINK/COSTS.json"], "COSTS.json belongs to the run RUN itself"),
        (["report", "RUN", "RUN", "--to", "RUN/checkpoints/a.html"], "a.html belongs to the run RUN itself"),
        (["report", "RUN", "--to", "RUN/.lock"], ".lock belongs to the run RUN itself"),
        (["export", "RUN", "--to", "RUN/verification/a.csv"], "a.csv belongs to the run RUN itself"),
        (
            ["export", "RUN", "--to", "OUT/a.csv", "--epochs-to", "RUN/slim/a.csv"],
            "a.csv belongs to the run RUN itself",
        ),
        (["inspect", "foreign:Padded", "--draw", "RUN/figures/dice"], "dice belongs to the run RUN itself"),
        (["export", "RUN", "--to", "OUT/a.csv", "--epochs-to", "OUT/a.csv"], "OUT/a.csv and OUT/a.csv are one place:"),
        (["export", "RUN", "--to", "OUT/a.csv", "--epochs-to", "OUT/x/../A.csv"], "A.csv are one place: two tables"),
        (["export", "RUN", "--to", "OUT/a.csv", "--epochs-to", "OUT/a-costs.csv"], "a-costs.csv are one place"),
    ],
)
def test_what_is_written_is_kept_off_the_files_of_a_run_and_apart(
    unetscope, finished: Path, tmp_path: Path, words: list[str], text: str
) -> None:
    (tmp_path / "link").symlink_to(finished)
    names = {"RUN": finished, "LINK": tmp_path / "link", "OUT": tmp_path}

    def placed(word: str) -> str:
        for name, path in names.items():
            word = word.replace(name, str(path))
        return word

    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    code, _, errors = unetscope(*map(placed, words))
    assert code == 2
    assert placed(text) in errors
    assert errors.count("\n") == 1
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


@pytest.mark.long
def test_a_name_that_a_run_does_not_use_may_be_written_in_it(unetscope, finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in ("report.html", "mine.html"):
        assert unetscope("report", run, "-q", "--to", run / name)[0] == 0
    assert unetscope("export", run, "--to", run / "estimates.csv")[0] == 0


@pytest.mark.long
def test_a_file_that_nobody_named_is_replaced_only_if_it_was_written_so_before(
    unetscope, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for suffix in ("csv", "parquet"):
        words = ("export", finished, "--to", f"a.{suffix}")
        assert unetscope(*words)[0] == 0
        assert unetscope(*words)[0] == 0  # over its own tables
        for kind, remedy in (("epochs", "name another with --epochs-to"), ("costs", "choose another name with --to")):
            mine = tmp_path / f"a-{kind}.{suffix}"
            kept, before = mine.read_bytes(), (tmp_path / f"a.{suffix}").stat().st_mtime_ns
            mine.write_text("epoch,what I noted\n")
            code, _, errors = unetscope(*words)
            text = f"unetscope: a-{kind}.{suffix} is there, and no earlier export wrote it: move it away, or {remedy}\n"
            assert (code, errors) == (2, text)
            assert mine.read_text() == "epoch,what I noted\n"
            assert (tmp_path / f"a.{suffix}").stat().st_mtime_ns == before
            mine.write_bytes(kept)
    assert unetscope("report", finished, finished, "-q")[0] == 0
    assert unetscope("report", finished, finished, "-q")[0] == 0
    (tmp_path / "comparison.html").write_text("mine")
    code, _, errors = unetscope("report", finished, finished, "-q")
    text = "unetscope: comparison.html is there, and no earlier report wrote it: name another page with --to\n"
    assert (code, errors) == (2, text)
    assert (tmp_path / "comparison.html").read_text() == "mine"


@pytest.mark.long
def test_a_place_that_cannot_be_written_is_one_line(unetscope, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    code, _, errors = unetscope("export", finished, "--to", tmp_path / "folder.csv")
    assert code == 2
    assert "folder.csv: Is a directory" in errors
    assert errors.count("\n") == 1
    (tmp_path / "file").write_text("")
    code, _, errors = unetscope("run", "--out", tmp_path / "file", "--quiet", *TINY)
    assert code == 2
    assert "file is a file: choose another --out" in errors


@pytest.mark.long
def test_a_run_stopped_by_its_user_says_how_to_go_on(tmp_path: Path) -> None:
    process = started("run", "--out", tmp_path / "run", "--epochs=5000", "--marked=0", "--quiet", *TINY)
    for _ in range(600):
        if (tmp_path / "run" / "checkpoints").exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"stopped; go on with: unetscope run --out {tmp_path / 'run'} --resume" in errors
    assert "Traceback" not in errors


@pytest.mark.long
def test_what_is_suspect_is_told_before_training(unetscope, data: Path, tmp_path: Path) -> None:
    for path in (data / "images").iterdir():
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray(grey).save(path)
    code, _, errors = unetscope("run", "--data", data, "--out", tmp_path / "run", "--quiet", "--epochs=0", *QUICK)
    assert code == 0
    assert "images/a.png: its largest value is" in errors
    assert "and 7 more: run `unetscope check-data" in errors


def test_images_that_a_split_would_share_stop_a_run(unetscope, data: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        for path in list((data / part).iterdir()):
            (data / part / f"again-{path.name}").write_bytes(path.read_bytes())
    words = ["--data", data, "--out", tmp_path / "run", "--quiet", "--validation-share=0.4", *TINY]
    code, _, errors = unetscope("run", *words)
    assert code == 2
    assert "--accept shared-image" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_dry_run_of_what_a_run_would_refuse_is_refused(unetscope, finished: Path) -> None:
    code, _, errors = unetscope("run", "--out", finished, "--dry-run", "--quiet", *TINY)
    assert code == 2
    assert "is not empty" in errors
    code, output, _ = unetscope("run", "--out", finished, "--resume", "--dry-run", "--quiet", "--json")
    assert code == 0
    assert json.loads(output)["marked_epochs"] == 0


@pytest.mark.long
def test_a_dry_run_that_names_no_folder_minds_no_earlier_run(unetscope, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "notes.txt").write_text("an earlier run")
    code, output, errors = unetscope("run", "--dry-run", "--quiet", "--json", *QUICK)
    assert (code, errors) == (0, "")
    assert json.loads(output)["training_images"] == 22
    code, _, errors = unetscope("run", "--quiet", *QUICK)
    assert (code, errors.count("\n")) == (2, 1)
    assert "runs/demo is not empty: choose another --out" in errors


@pytest.mark.long
def test_a_preset_asks_for_no_more_clusters_than_there_are_masks(unetscope, tmp_path: Path) -> None:
    for name in "abcdefghijkl":
        write_pair(tmp_path / "few", name, size=24)
    words = [
        "--preset=demo",
        "--data",
        tmp_path / "few",
        "--epochs=0",
        "--quiet",
        "--image-size=16",
        "--width=2",
        "--depth=2",
    ]
    words += ["--no-usable", "--no-merge-probes", "--threads=1"]
    code, _, errors = unetscope("run", "--out", tmp_path / "usual", *words)
    assert code == 0, errors
    assert "too few distinct masks for 32 clusters: the K-means labels have 2 (--clusters chooses)" in errors
    code, _, errors = unetscope("run", "--out", tmp_path / "chosen", *words, "--clusters=31")
    assert (code, errors.count("\n")) == (2, 1)
    assert "K = 31 clusters for" in errors


@pytest.mark.long
def test_a_damaged_table_is_named(unetscope, finished: Path, tmp_path: Path) -> None:
    for name in ("config.json", "flow.sqlite"):
        (tmp_path / name).write_bytes((finished / name).read_bytes()[:3000])
    (tmp_path / "flow.sqlite").write_bytes(b"not a database" * 100)
    code, _, errors = unetscope("report", tmp_path)
    assert code == 2
    assert "flow.sqlite: file is not a database" in errors


@pytest.mark.long
def test_check_data_finds_nothing_wrong(unetscope, data: Path) -> None:
    code, output, _ = unetscope("check-data", data, "--json")
    assert code == 0
    contents = json.loads(output)
    assert contents["problems"] == []
    assert (contents["masks"]["kind"], contents["masks"]["is_assumed"]) == ("binary", False)


@pytest.mark.long
@pytest.mark.parametrize("settings", ["figure.dpi: 1e9\naxes.grid: True\n", "a\x1b[31mb: 1\n", b"\xff\xfe", None])
def test_settings_of_matplotlib_in_the_current_folder_are_not_read(
    finished: Path, tmp_path: Path, settings: str | bytes | None
) -> None:
    file = tmp_path / "matplotlibrc"
    if settings is None:
        os.mkfifo(file)  # reading it would wait for ever
    else:
        file.write_bytes(settings if isinstance(settings, bytes) else settings.encode())
    code = (
        "import sys; sys.argv = ['unetscope', 'inspect', 'foreign:Padded', '--draw', 'u']\n"
        "from unetscope.cli.main import main\n"
        "assert 'matplotlib' not in sys.modules\ntry: main()\nexcept SystemExit as end: assert not end.code\n"
        "import matplotlib\nassert matplotlib.rcParams['figure.dpi'] == 100 and not matplotlib.rcParams['axes.grid']"
    )
    folders = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=tmp_path,
        timeout=120,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": folders},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "u.png").is_file()


def test_help_needs_no_torch() -> None:
    code = "import sys; sys.argv = ['unetscope', 'run', '--help']\nfrom unetscope.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["verdict", "nowhere"], "nowhere is not a run folder: it has no config.json"),
        (["verify", "nowhere"], "nowhere is not a run folder: it has no config.json"),
        (["slim", "nowhere", "-q"], "nowhere is not a run folder: it has no config.json"),
        (["verdict", "RUN", "--epoch=9"], "epoch 9 was not judged: measured are 1, 2, 3"),
        (["verdict", "RUN", "--margin=5"], "unetscope: --margin must be between 0 and 1, got 5.0"),
        (["verdict", "RUN", "--dice-margin=nan"], "unetscope: --dice-margin must be between 0 and 1, got nan"),
        (["verdict", "RUN", "--dice-margin=inf"], "unetscope: --dice-margin must be between 0 and 1, got inf"),
        (["verdict", "RUN", "--dice-margin=-1"], "unetscope: --dice-margin must be between 0 and 1, got -1.0"),
        (
            ["verdict", "RUN", "--effort=nan"],
            "effort must be a share of the run's epochs, more than 0 and at most 1, got",
        ),
        (
            ["verify", "RUN", "--variants=model9"],
            "no variant 'model9' of a network of depth 2: expected paper, skips, depths",
        ),
        (["verify", "RUN", "--seeds=many"], "--seeds many: expected a number of seeds, seeds such as 0,1,5, or auto"),
        (["verify", "RUN", "--seeds=3", "--trainings=9"], "--trainings limits --seeds auto: a chosen number of seeds"),
        (
            ["verify", "RUN", "--seeds=auto", "--trainings=5"],
            "trainings must be 6 or more, for 3 seeds of the reference",
        ),
        (["verify", "RUN", "--seeds=0,0"], "seed 0 stands twice"),
        (["verify", "RUN", "--engine=cloud"], "engine 'cloud': expected local, ray, slurm"),
        (["verify", "RUN", "--workers=0"], "workers must be 1 or more, got 0"),
        (["verify", "RUN", "--margin=0"], "unetscope: --margin must be between 0 and 1, got 0.0"),
        (["slim", "RUN", "--design=model1", "-q"], "model1 is the whole network: name what to leave out"),
        (
            ["slim", "RUN", "--design=depth1", "--fine-tune=-1"],
            "--fine-tune must be a whole number from 0 to 1000000, got -1",
        ),
    ],
)
def test_what_cannot_be_judged_or_retrained_is_one_line(unetscope, finished: Path, words: list[str], text: str) -> None:
    code, _, errors = unetscope(*(finished if word == "RUN" else word for word in words))
    assert code == 2
    assert text in errors
    assert errors.count("\n") == 1
    assert not (finished / "verification").exists()


@pytest.mark.long
def test_a_run_with_too_few_marked_epochs_is_not_judged(unetscope, tmp_path: Path) -> None:
    unetscope("run", "--out", tmp_path / "run", "--epochs=1", "--marked=0,1", "--quiet", *QUICK)
    code, _, errors = unetscope("verdict", tmp_path / "run")
    assert code == 2
    assert (
        "judging needs 2 measured epochs of training or more, got 1 (1): mark more (--marked, or in Python marked and epochs)"
        in errors
    )


@pytest.mark.long
def test_a_training_that_stopped_before_its_end_is_judged_with_that_said(
    unetscope, finished: Path, tmp_path: Path
) -> None:
    folder = RunFolder.open(shutil.copytree(finished, tmp_path / "run"))
    assert "before its end" not in unetscope("verdict", folder.path, "--no-cost")[1]
    longer = {**folder.configuration["training"], "epochs": 8}
    folder.note(folder.facts, configuration={**folder.configuration, "training": longer})
    _, output, _ = unetscope("verdict", folder.path, "--no-cost")
    said = " ".join(output.split())
    assert (
        "The training stopped 5 epochs before its end, and a longer one may need other parts: unetscope run --out"
        in said
    )


@pytest.mark.long
def test_from_verdict_to_the_smaller_network(unetscope, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    code, output, _ = unetscope("verdict", run, "--json")
    assert code == 0
    found = json.loads(output)
    conditional = [verdict["part"] for verdict in found["verdicts"] if verdict["rule"] == "conditional"]
    assert conditional == ["skip1", "level1", "skip2", "level2"]
    assert found["planned depths"][0]["rule"] == "nnU-Net's planner"
    assert found["planned depths"][0]["depth"] == 2
    code, output, _ = unetscope("verdict", run)
    assert code == 0
    assert "Planned before any training, beside these verdicts on a network of depth 2:" in output
    assert "Receptive-field heuristic: " in output
    assert "What a training of 3 epochs needs" in output
    words = ("verify", run, "--variants=depth1", "--seeds=1")
    code, output, _ = unetscope(*words, "--dry-run", "--json")
    assert (code, json.loads(output)["jobs"]) == (0, ["model1 with seed 0", "depth1 with seed 0"])
    (run / "costs.json").unlink(missing_ok=True)  # as in a folder of an earlier version
    code, output, _ = unetscope(*words, "--quiet")
    assert code == 0
    assert "Verdicts: 0 right, 0 wrong, 1 open" in output
    assert "What designs cost, of one image of 3×16×16" in output
    assert (run / "figures" / "verification_dice.png").exists()
    assert (run / "costs.json").is_file()
    code, output, _ = unetscope(*words, "--quiet", "--json")
    (outcome,) = json.loads(output)["outcomes"]
    saved = outcome["costs"]
    assert saved["slim"]["parameters"] < saved["whole"]["parameters"]
    assert saved["whole"]["multiply_adds"] == json.loads(output)["costs of the whole"]["multiply_adds"]
    assert (run / "figures" / "verification_dice.png").exists()
    code, output, _ = unetscope("slim", run, "--design=depth1", "--quiet", "--json")
    assert code == 0
    assert json.loads(output)["design"]["depth"] == 1
    code, output, _ = unetscope("slim", run, "--design=depth1", "--quiet")
    assert "model = us.load_model(" in output


# ---- other networks


def test_a_network_is_inspected_on_the_command_line(unetscope, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import foreign\ndef build():\n    return foreign.Padded(width=2)\nready = foreign.SubPixel()\n"
        "def needs(a): ...\ndef number(): return 3\n"
    )
    (tmp_path / "foreign.py").write_text((Path(__file__).parent / "foreign.py").read_text())
    (tmp_path / "broken.py").write_text("1 / 0\n")
    place = tmp_path / "mine.py"
    code, output, _ = unetscope("inspect", f"{place}:build", "--shape=3,32,32", "--draw", tmp_path / "u")
    assert code == 0
    assert "skip3" in output
    assert "concatenation" in output
    assert {(tmp_path / name).is_file() for name in ("u.png", "u.svg")} == {True}
    code, output, _ = unetscope("inspect", f"{place}:ready", "--shape=1,16,16", "--json")
    assert [merge["kind"] for merge in json.loads(output)["merges"]] == ["add"]
    for words, text in (
        ([f"{place}:bild"], f"{place} has no 'bild': the nearest names are 'build'"),
        ([f"{place}:needs"], "cannot be built without arguments: needs() missing 1 required positional argument: 'a'"),
        ([f"{place}:number"], "gives a int, expected a network (torch.nn.Module)"),
        ([f"{tmp_path}/broken.py:x"], "cannot be imported: division by zero"),
        (["nowhere.py:x"], "nowhere.py does not exist"),
        (["nowhere.at.all:x"], "nowhere.at.all cannot be imported: No module named 'nowhere'"),
        (["build"], "network 'build': expected FILE.py:NAME or package.module:NAME"),
        ([f"{place}:build", "--shape=3,x"], "--shape 3,x: expected channels and two or three sides, such as 3,128,128"),
        ([f"{place}:build", "--shape=1,32,32"], "Padded does not run on an example [1, 1, 32, 32]: "),
        ([f"{place}:build", "--every=layers"], "--every layers: expected kernels or stages"),
        ([f"{place}:needs", "--network-args=width"], "argument 'width' of the network: expected NAME=VALUE"),
        ([f"{place}:needs", "--network-args=b=2"], "cannot be built with b=2: needs() got an unexpected keyword"),
    ):
        code, _, errors = unetscope("inspect", *words)
        assert (code, len(errors.splitlines())) == (2, 1), errors
        assert text in errors


@pytest.mark.long
def test_a_run_of_another_loop_is_judged_and_what_is_left_out_is_named(
    unetscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import foreign
    import unetscope as us
    from unetscope.analysis.verdict import Judgement

    train, held_out = us.synthetic_nuclei(20, image_size=32).split(0.4)
    scope = us.Scope(foreign.Padded(width=2), train, held_out=held_out, estimators=[], labels=[])
    recorder = us.Recorder(scope, tmp_path / "run")
    assert [recorder.measure(epoch) for epoch in (1, 2)] == [True, True]
    assert unetscope("verdict", tmp_path / "run")[0] == 0
    monkeypatch.setattr(Judgement, "of_variant", lambda *_words, **_more: "redundant")
    code, output, _ = unetscope("verdict", tmp_path / "run")
    assert code == 0
    assert "Proposed to be left out: skip1, all below skip1." in output
    assert "--variants proposed --network FILE.py:build --train FILE.py:train" in " ".join(output.split())
    assert unetscope("report", tmp_path / "run")[0] == 0
    code, _, errors = unetscope("slim", tmp_path / "run")
    assert code == 2
    assert "--train FILE.py:train names what builds its network and what trains it" in errors
    for words in (["--preset", "demo"], []):
        code, _, errors = unetscope("run", "--out", tmp_path / "run", "--resume", *words)
        assert code == 2
        assert (
            "run was measured in a loop of its own: start that loop again, with a Recorder of the same folder" in errors
        )


def test_help_lists_what_can_be_chosen() -> None:
    from unetscope.analysis import DICE_MARGIN
    from unetscope.cli.flags import Track
    from unetscope.report.server import LOCAL
    from unetscope.runs import TRACKERS
    from unetscope.runs.engines import _ENGINES
    from unetscope.table.schedule import SCHEDULES
    from unetscope.training.flags import ScheduleName, alternatives

    assert alternatives(TRACKERS) in get_args(Track)[1].help
    verify = {option.name: option for option in typer.main.get_command(app).commands["verify"].params}
    assert verify["engine"].help == f"{alternatives(_ENGINES)}."
    assert f"[default: {DICE_MARGIN:g}]" in verify["margin"].help
    assert typer.main.get_command(app).commands["view"].params[1].default == LOCAL
    assert get_args(ScheduleName) == SCHEDULES
    run = {option.name: option for option in typer.main.get_command(app).commands["run"].params}
    assert run["training__optimizer"].help == "sgd, adam or adamw."
    assert run["network__initialisation"].help == "Of weights: glorot or he."
    assert run["preset"].help.startswith("demo, quick, paper or paper-code ")
    assert all(name in run["measuring__marked"].help for name in SCHEDULES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
@pytest.mark.parametrize("to", [">/dev/full", "2>/dev/full", "2>&-", ">&- 2>&-"])
def test_a_mistake_ends_with_2_where_nothing_can_be_written(to: str) -> None:
    line = f"{sys.executable} -m unetscope verdict nowhere --json {to}"
    ended = subprocess.run(["sh", "-c", line], check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ("nowhere" in ended.stderr) == ("2>" not in to)


@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_what_is_printed_on_a_full_device_is_a_mistake(finished: Path) -> None:
    line = f"{sys.executable} -m unetscope verdict {finished} --no-cost --json >/dev/full"
    ended = subprocess.run(["sh", "-c", line], check=False, capture_output=True, text=True)
    text = "unetscope: what was being written: No space left on device: choose another place or make room in this one\n"
    assert (ended.returncode, ended.stderr) == (2, text)


@pytest.mark.long
@pytest.mark.parametrize(
    "words", ["--help", "verdict {run} --no-cost", "verdict {run} --no-cost --json", "verdict {run}"]
)
def test_output_that_nobody_reads_is_no_bug(finished: Path, words: str) -> None:
    process = started(*words.format(run=finished).split())
    process.stdout.close()  # before anything is printed: the process takes longer to begin
    process.stdout = None
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (141, "")


@pytest.mark.long
@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_standard_stream_is_no_mistake(finished: Path, tmp_path: Path, closed: str) -> None:
    page = tmp_path / "page.html"
    line = f"{sys.executable} -m unetscope report {finished} --to {page} {closed}"
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 0
    assert page.stat().st_size > 10_000
    script = "import os; from unetscope.cli.streams import open_missing_streams as fill; fill(); "
    script += (
        "assert [os.fstat(n).st_rdev for n in range(3)].count(os.stat(os.devnull).st_rdev) == 3; os.system('true')"
    )
    line = f'{sys.executable} -c "{script}" 0<&- 1>&- 2>&-'
    assert subprocess.run(["sh", "-c", line], check=False).returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("words", ["selfcheck --json", "verdict ../run --no-cost --json", "report {run} {run} --json"])
def test_a_current_folder_that_was_deleted_is_one_line(finished: Path, tmp_path: Path, words: str) -> None:
    (tmp_path / "gone").mkdir()
    line = f"cd {tmp_path}/gone && rmdir ../gone && {sys.executable} -P -m unetscope {words.format(run=finished)}"
    ended = subprocess.run(["sh", "-c", line], check=False, capture_output=True, text=True)
    text = "the current folder cannot be read (No such file or directory): go to another one"
    assert (ended.returncode, ended.stderr) == (2, f"unetscope: {text}\n")
    assert json.loads(ended.stdout) == {"error": text}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("verdict RUN --epoch x", "'--epoch'"),
        ("verdict RUN --epoch 1.5", "'--epoch'"),
        ("verdict RUN --margin much", "'--margin'"),
        ("run --threads=q", "'--threads'"),
        ("run --epochs", "'--epochs'"),
        ("view RUN --port x", "'--port'"),
        ("verdict RUN --epohc 3", "--epohc"),
        ("verdict", "Missing argument 'RUN'"),
        ("verdict RUN RUN", "unexpected extra argument"),
        ("verdct", "No such command 'verdct'"),
    ],
)
def test_words_that_cannot_be_read_are_one_line_that_names_them(unetscope, words: str, text: str) -> None:
    code, output, errors = unetscope(*words.split())
    assert (code, output) == (2, "")
    assert errors.startswith("unetscope: ") and errors.count("\n") == 1
    assert text in errors
    code, output, errors = unetscope(*words.split()[:1], "--json", *words.split()[1:])
    if words != "verdct" and not words.startswith("view"):  # which have no --json
        assert code == 2
        assert text in json.loads(output)["error"]
        assert errors == f"unetscope: {json.loads(output)['error']}\n"


@pytest.mark.parametrize("name", ["LOCAL_RANK", "RANK", "SLURM_PROCID", "SLURM_NTASKS"])
def test_a_variable_of_a_launcher_that_is_no_number_is_named(
    unetscope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "q")
    code, _, errors = unetscope("run", "--out", tmp_path / "run", "--epochs=1", "--quiet", *TINY)
    text = f"unetscope: {name}=q in the environment must be a whole number: unset it, as one process trains\n"
    assert (code, errors) == (2, text)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--accept=anything"], "--accept needs --data: the images to train on"),
        (["--masks=classes"], "--masks needs --data: the images to train on"),
        (["--classes=3"], "--classes needs --data: the images to train on"),
        (["--val=nowhere"], "--val needs --data: the images to train on"),
        (["--preset="], "preset '': expected one of demo, quick, paper, paper-code"),
    ],
)
def test_what_says_nothing_of_synthetic_images_is_refused(
    unetscope, tmp_path: Path, words: list[str], text: str
) -> None:
    code, _, errors = unetscope("run", "--out", tmp_path / "run", "--dry-run", *words)
    assert (code, errors) == (2, f"unetscope: {text}\n")


def test_no_words_are_answered_with_the_help(unetscope) -> None:
    for words in ([], ["data"]):
        code, _, errors = unetscope(*words)
        assert code == 2
        assert "Commands:" in errors
