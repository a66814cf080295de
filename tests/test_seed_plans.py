"""How the seeds of a verification are chosen and kept, in run folders whose trainings are made up."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from runs import TINY
from unetscope.analysis.looks import LOOKS, SeedPlan
from unetscope.base.errors import InvalidArgument, RunFolderError
from unetscope.cli.expected import print_widths
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import Trial, trials
from unetscope.runs.seed_plans import keep_auto, keep_comparison, seed_plans
from unetscope.runs.verification import expected_widths, next_trials, planned_trials, train_variants
from unetscope.table.parts import Variant, named_variants
from unetscope.table.records import EpochRecord
from unetscope.training.config import preset_config

EPOCHS = 20
MODEL2 = named_variants(["model2"], depth=2)
SHARES = {"train": {"foreground share": 0.3}, "validation": {"foreground share": 0.3}}


def about(variant: Variant | None = None, seed: int = 0) -> dict[str, object]:
    """Configuration and facts of a run, or of the training of a variant."""
    changed = {**TINY, "network.depth": 2, "training.epochs": EPOCHS, "seed": seed}
    if variant is not None:
        changed |= {f"network.{name}": value for name, value in variant.network.items()}
    config = preset_config("demo", changed).model_dump(mode="json")
    return {"configuration": config, "facts": {"data": SHARES}}


def train(trial: Trial, score: float | None = None) -> None:
    """A finished training, its Dice drawn from the seed."""
    random = np.random.default_rng([trial.seed, len(trial.variant.without)])
    dice = random.normal(0.8 if score is None else score, 0.01) + random.normal(0, 0.01, (EPOCHS + 1, 6))
    folder = RunFolder.create(trial.path, about(trial.variant, trial.seed))
    for epoch, row in enumerate(dice):
        loss = 0.2 if epoch else 0.6
        folder.write_epoch(EpochRecord(epoch, 0.1, 0.5, loss, float(row.mean()), 1.0, 0.9, tuple(row)))
    folder.end({"constant channels": {"1": 0.0}})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", about())


@pytest.fixture
def retrained(run: RunFolder) -> RunFolder:
    for trial in planned(run):
        train(trial)
    return run


def planned(run: RunFolder, seeds: Sequence[int] = (0, 1)) -> tuple[Trial, ...]:
    return trials(run, MODEL2, seeds)


class Making:
    """An engine that makes trainings up; in folders that were made for them. lost: of Dice, by variants without skips."""

    def __init__(self, lost: float) -> None:
        self.lost, self.made = lost, list[str]()

    def run(self, folders, look):  # type: ignore[no-untyped-def]
        for path in folders:
            folder = RunFolder.open(path)
            network = folder.configuration["network"]
            variant = Variant(path.parent.name, network["depth"], MODEL2[len(network["without"])].without)
            shutil.rmtree(path)
            train(Trial(variant, int(path.name[5:]), path), 0.8 - self.lost * len(network["without"]))
            self.made.append(f"{path.parent.name}/{path.name}")
        look()
        return {}


@pytest.mark.long
def test_how_seeds_were_chosen_is_kept_beside_the_trainings(retrained: RunFolder) -> None:
    run, jobs = retrained, planned(retrained)
    assert seed_plans(run, jobs)["model2"] == SeedPlan(1, None, EPOCHS)  # as of a folder of an older version
    before = AnalysedRun(run).verification_of(jobs).outcome("model2", EPOCHS)
    for seeds in ((0, 1), (0, 1), (0,)):
        keep_comparison(run, planned(run, seeds=seeds))
    assert seed_plans(run, jobs)["model2"].looks == 2
    after = AnalysedRun(run).verification_of(jobs).outcome("model2", EPOCHS)
    assert (before.level, after.level) == (0.95, 0.975)
    assert after.difference.high - after.difference.low > before.difference.high - before.difference.low
    keep_auto(run, jobs)
    assert seed_plans(run, jobs)["model2"].first == 0
    outcome = AnalysedRun(run).verification_of(jobs).outcome("model2", EPOCHS)
    assert outcome.text == "it is compared from 3 seeds on"
    (run.path / "verification" / "seeds.json").write_text('{"model2": [1]}')
    with pytest.raises(RunFolderError, match=r"seeds.json: model2: .*, got \[1\]"):
        AnalysedRun(run).verification_of(jobs)


@pytest.mark.long
def test_the_terminal_and_the_page_show_the_same_number(retrained: RunFolder) -> None:
    run = retrained
    of_page = AnalysedRun(run).verification
    assert of_page is not None
    for seeds in ((0, 1), (0,)):  # a seed that is there counts, whether it is planned again or not
        of_terminal = AnalysedRun(run).verification_of(planned(run, seeds=seeds))
        assert of_terminal.outcome("model2", EPOCHS) == of_page.outcome("model2", EPOCHS)


@pytest.mark.long
def test_the_width_is_expected_from_earlier_trainings_or_assumed(run: RunFolder) -> None:
    (assumed,) = expected_widths(AnalysedRun(run), planned(run))
    assert (assumed.assumed, assumed.residual, assumed.seeds, assumed.variants) == (True, 0.013, 2, 2)
    assert math.isnan(assumed.images)
    for trial in planned(run):
        train(trial)
    (measured,) = expected_widths(AnalysedRun(run), planned(run))
    spread = AnalysedRun(run).verification_of(planned(run)).spread()
    assert (measured.assumed, measured.residual) == (False, spread.residual)
    assert measured.half_width > measured.images > 0
    looks = expected_widths(
        AnalysedRun(run), planned_trials(run, named_variants(["model2"], depth=2), "auto"), auto=True
    )
    assert [width.seeds for width in looks] == list(LOOKS)
    assert [width.half_width for width in looks] == sorted((width.half_width for width in looks), reverse=True)


@pytest.mark.long
def test_seeds_are_added_and_a_stopped_command_goes_on(retrained: RunFolder) -> None:
    run = AnalysedRun(retrained)
    variants = named_variants(["model2"], depth=2)
    most = planned_trials(retrained, variants, "auto", 9)
    assert len(most) == 9
    missing = [("model1", 2), ("model2", 2)]
    assert [(trial.variant.name, trial.seed) for trial in next_trials(run, most)] == missing
    for trial in planned(retrained, (2,)):
        train(trial)
    keep_auto(retrained, most)
    again = AnalysedRun(RunFolder.open(retrained.path))
    assert again.verification_of(most).looks_taken("model2") == (3,)
    decided = again.verification_of(most).outcome("model2", EPOCHS).decision != "undecided"
    assert [trial.seed for trial in next_trials(again, most)] == ([] if decided else [3, 3])
    with pytest.raises(
        InvalidArgument, match="trainings must be 6 or more, for 3 seeds of the reference and of a variant"
    ):
        planned_trials(retrained, variants, "auto", 5)
    with pytest.raises(InvalidArgument, match="it goes with seeds auto"):
        planned_trials(retrained, variants, 3, 9)


@pytest.mark.long
@pytest.mark.parametrize(
    ("lost", "trainings", "decision"), [(0.5, 6, "needed"), (-0.3, 6, "redundant"), (0.02, 11, "undecided")]
)
def test_trainings_stop_where_a_variant_is_decided(run: RunFolder, lost: float, trainings: int, decision: str) -> None:
    engine, judged = Making(lost), AnalysedRun(run)
    most = planned_trials(run, MODEL2, "auto", 11)
    assert train_variants(judged, most, auto=True, engine=engine) == {}
    outcome = judged.verification_of(most).outcome("model2", EPOCHS)
    spent = {"undecided": 8}.get(decision, trainings)  # for 6 seeds, 12 would be needed
    assert (outcome.decision, len(engine.made)) == (decision, spent)
    assert train_variants(judged, most, auto=True, engine=engine) == {}  # nothing is left to do
    assert len(engine.made) == spent


@pytest.mark.long
def test_what_is_expected_of_the_intervals_is_said(retrained: RunFolder, capsys) -> None:  # type: ignore[no-untyped-def]
    print_widths(expected_widths(AnalysedRun(retrained), planned(retrained)), 0.02)
    text = capsys.readouterr().out
    assert "Expected intervals of a difference of Dice, by seeds: ±" in text
    assert "From earlier trainings (degrees of freedom: 1): a training's score varies by " in text
    shutil.rmtree(retrained.path / "verification")
    print_widths(expected_widths(AnalysedRun(retrained), planned(retrained)), 0.02)
    text = capsys.readouterr().out
    assert "Expected intervals of a difference of Dice, by seeds: ±0.165 with 2" in text
    assert "Seeds for an interval no wider than the margin of ±0.02: 6" in text
    assert "Assumed: a training's score varies by 0.013 with its seed; and the interval over images" in text
    print_widths(expected_widths(AnalysedRun(retrained), planned(retrained, (0,))), 0.02)
    assert "by seeds: none with 1" in capsys.readouterr().out
