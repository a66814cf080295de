"""The data of the page: every number of the table, rounded and no further; and the command that repeats the run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from runs import LABELS, made_run, retrained
from unetscope import plots
from unetscope.cli import app
from unetscope.cli.flags import with_sweep
from unetscope.report import picture_data, report_data
from unetscope.report.page import as_json
from unetscope.report.render import Drawing, render_run
from unetscope.report.sentences import proposal
from unetscope.runs import AnalysedRun, analysed
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import trained_variants
from unetscope.table.quantities import Status
from unetscope.table.records import Estimate
from unetscope.training.command_words import FILES_ONLY, repeat_command, run_flags
from unetscope.training.config import RunConfig, preset_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return retrained(made_run(tmp_path_factory.mktemp("report_data") / "run", (0, 1, 3, 10)))


@pytest.mark.long
def test_every_estimate_is_in_its_place(run: RunFolder) -> None:
    flow = run.flow()
    data = json.loads(as_json([report_data.report_data_of(run)]))[0]
    seen = 0
    for series in data["series"]:
        names = ("quantity", "estimator", "resolution", "labels")
        rows = flow.select(**{name: series[name] for name in names}).estimates
        assert len(series["bits"]) == len(series["epochs"]) * len(series["layers"]) == len(series["state"])
        for row in rows:
            place = [data["layers"][layer]["label"] for layer in series["layers"]].index(row.layer)
            cell = series["epochs"].index(row.epoch) * len(series["layers"]) + place
            for name in ("bits", "low", "high", "ceiling", "null_mean", "p"):
                value, kept = getattr(row, name), (series.get(name) or [None] * 10**6)[cell]
                assert (kept is None) == math.isnan(value)
                assert kept is None or kept == pytest.approx(value, rel=1e-4)
            expected = {Status.SATURATED: "s", Status.OK: ".", Status.OUT_OF_DOMAIN: "o", Status.ABSENT: "-"}[
                row.status
            ]
            assert series["state"][cell] == expected
            assert [text for text, cells in series["reasons"].items() if cell in cells] == [row.reason] * bool(
                row.reason
            )
            seen += 1
    assert seen == len(flow)


def test_a_proposal_that_was_retrained_says_what_it_lost(run: RunFolder) -> None:
    judged = AnalysedRun(run)
    verification = judged.verification
    assert verification is not None
    row = verification.rows(10)[0]
    words = proposal(judged.judged(), row.variant, 10, verification)
    assert words.endswith(f"; retrained, {row.outcome.text}, so it is {row.outcome.decision}")
    assert "retrained, it lost " in words
    for epoch, nothing_retrained in ((10, None), (7, verification)):
        words = proposal(judged.judged(), row.variant, epoch, nothing_retrained)
        assert words.endswith(", to be retrained before it is believed")


def test_every_number_of_an_estimate_has_its_column() -> None:
    numbers = {field.name for field in fields(Estimate) if field.type == "float"}
    assert numbers - {"resolution"} == set(report_data.COLUMNS)


def test_the_rest_of_the_run_is_in_the_data(run: RunFolder) -> None:
    data = report_data.report_data_of(run)
    assert data["name"] == "run"
    assert data["state"] == {"epoch": 10, "planned": 10, "own": True}
    assert [skip["name"] for skip in data["skips"]] == ["skip1", "skip2", "skip3", "skip4"]
    assert data["training"]["epoch"] == list(range(11))
    assert data["training"]["train_dice_running"][0] is None
    assert [scheme["labels"] for scheme in data["clusters"]] == list(LABELS)
    assert data["predictions"]["epochs"] == [0, 1, 3, 10]
    assert data["verdicts"]["epochs"] == (1, 3, 10)
    assert len(data["verdicts"]["sentences"]) == 3
    (depth2,) = [row for row in data["verification"]["budgets"][-1]["rows"] if row["variant"] == "depth2"]
    assert depth2["parts"] == ("level3", "level4")
    assert depth2["difference"] == pytest.approx(0)
    assert "facts" in data and data["facts"]["Run"]["threads"] == "2"


@pytest.mark.long
def test_long_trainings_are_thinned_and_pictures_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_data, "MOST_CURVE_POINTS", 10)
    monkeypatch.setattr(picture_data, "MOST_PICTURE_BYTES", 20_000)
    data = report_data.report_data_of(made_run(tmp_path / "run", range(0, 60, 3), pictures_of=48))
    assert 5 < len(data["training"]["epoch"]) <= 11
    assert data["training"]["epoch"][-1] == 57
    epochs = data["predictions"]["epochs"]
    assert epochs[0] == 0
    assert epochs[-1] == 57
    assert 2 <= len(epochs) < 20
    assert sum(len(text) for row in data["predictions"]["predicted"] for text in row) <= 20_000


def test_a_bare_run_folder_has_data(tmp_path: Path) -> None:
    data = report_data.report_data_of(RunFolder.create(tmp_path / "bare", {"configuration": {}, "facts": {}}))
    assert data["summary"] == "This run has not been measured yet."
    assert data["verdicts"] is None
    assert data["command"] is None
    as_json([data])


def test_every_value_of_a_configuration_has_its_flag() -> None:
    names = {"preset", "seed", "threads"}
    for section in ("data", "network", "training", "measuring"):
        names |= {f"{section}.{field}" for field in RunConfig.model_fields[section].annotation.model_fields}
    flags = run_flags(RunConfig)
    assert names - {"preset", "network.trained_by"} == {flag.name for flag in flags}
    assert all(flag.help.endswith(".") for flag in flags)
    words = [word for flag in flags for word in (*flag.words, flag.negation)]
    assert len(set(words)) == len(words)


TOY = """
import sys
from pydantic import Field
from typer.testing import CliRunner
from unetscope.training import config

class Training(config.TrainingConfig):
    label_noise: float = Field(0.0, ge=0, description="Share of flipped labels.")

class Run(config.RunConfig):
    training: Training = Training()

config.RunConfig = Run
from unetscope.cli.main import app
import unetscope.runs.experiment as experiment
from unetscope.training import command_words

def instead(asked, *_, **__):
    print(asked.training.label_noise, *command_words.repeat_command(asked.model_dump(mode="json")))
    raise SystemExit(0)

experiment.run = instead
for words in (["--help"], ["--preset=quick", "--label-noise=0.25", "--quiet"]):
    print(CliRunner().invoke(app, ["run", *words]).output)
"""


@pytest.mark.long
def test_a_new_value_of_the_configuration_is_a_flag_without_a_second_list() -> None:
    printed = subprocess.run([sys.executable, "-c", TOY], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in printed.splitlines() if "label-noise" in line]
    assert lines[0][0] == "--label-noise"
    assert " ".join(lines[0]).endswith("Share of flipped labels.")
    assert " ".join(lines[1]) == "0.25 unetscope run --preset quick --label-noise 0.25"


def test_a_sweep_adds_its_resolutions_to_those_that_are_named() -> None:
    added = with_sweep({"measuring.noise_variances": [0.02, 1.0]}, run_flags(RunConfig))
    assert len(added["measuring.noise_variances"]) == 16
    assert added["measuring.noise_variances"][:4] == [0.001, 0.00316, 0.01, 0.02]
    assert [added["measuring.bin_sizes"][place] for place in (0, -1)] == [0.01, 100.0]
    assert added.keys() == {"measuring.noise_variances", "measuring.bin_sizes"}


@pytest.mark.long
def test_a_verified_run_is_read_and_judged_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = retrained(made_run(tmp_path / "run", (0, 1, 3)))
    reads: Counter[str] = Counter()

    def counted(owner: object, name: str, key: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def counting(*words: Any, **named: Any) -> Any:
            reads[key(*words)] += 1
            return original(*words, **named)

        monkeypatch.setattr(owner, name, counting)

    for table in ("flow", "epochs"):
        counted(RunFolder, table, lambda folder, table=table: f"{table} of {folder.path}")
    counted(RunFolder, "pictures", lambda folder, kind: f"{kind} pictures of {folder.path}")
    counted(analysed, "judge", lambda flow: "judge")

    def saved(_: None, folder: Path, name: str) -> tuple[Path, Path]:
        (folder / f"{name}.svg").write_text("<svg/>")
        return folder / f"{name}.svg", folder / f"{name}.svg"

    monkeypatch.setattr(Drawing, "figure", lambda _: None)
    monkeypatch.setattr(plots, "save", saved)
    page = render_run(run)
    assert (run.figures / "verification_dice.svg").is_file()
    assert reads.pop("judge") == 1
    assert reads[f"flow of {run.path}"] == reads[f"epochs of {run.path}"] == 1
    assert sum(f"{run.path}/verification" in place for place in reads) == len(trained_variants(run)) == 10
    assert set(reads.values()) == {1}
    assert page == run.path / "report.html"


def configurations() -> st.SearchStrategy[dict[str, object]]:
    sizes = st.lists(st.floats(1e-3, 100), min_size=1, max_size=3, unique=True)
    return st.fixed_dictionaries(
        {},
        optional={
            "data.path": st.sampled_from(["/images a/b.zip", "/$HOME/`x`.zip"]),
            "data.accept": st.lists(st.sampled_from(["duplicate", "empty mask"]), min_size=1, max_size=2, unique=True),
            "data.image_size": st.integers(16, 256),
            "network.without": st.lists(st.sampled_from(["skip1", "skip2"]), min_size=1, max_size=2, unique=True),
            "training.learning_rate": st.floats(1e-6, 1),
            "training.channels_last": st.booleans(),
            "training.precision": st.sampled_from(["auto", "float32", "bfloat16"]),
            "measuring.marked": st.sampled_from(["log", "paper", [1, 10]]),
            "measuring.noise_variances": sizes,
            "measuring.usable": st.booleans(),
            "measuring.merge_probes": st.booleans(),
            "measuring.convolutional": st.booleans(),
            "measuring.memory_budget": st.integers(1, 2**40),
            "seed": st.integers(0, 2**40),
            "threads": st.integers(1, 64),
        },
    )


@pytest.mark.long
@settings(deadline=None)
@given(preset=st.sampled_from(["demo", "quick", "paper", "paper-code"]), changes=configurations())
def test_the_command_gives_the_configuration_back(preset: str, changes: dict[str, object]) -> None:
    config = preset_config(preset, changes)
    words = repeat_command(config.model_dump(mode="json"))
    configs: list[RunConfig] = []

    def instead(config: RunConfig, *_: object, **__: object) -> None:
        configs.append(config)
        raise SystemExit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unetscope.runs.run", instead)
        result = CliRunner().invoke(app, [*words[1:], "--quiet"])
    assert configs, result.output
    said = {name: value for name, value in changes.items() if "data.path" in changes or name not in FILES_ONLY}
    assert configs[0] == preset_config(preset, said)
