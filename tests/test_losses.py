"""The loss of Dice to expect: of planted numbers, of a run's network that is silenced, and as every verb shows it."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit
from typer.testing import CliRunner

import unetscope as us
from unetscope.analysis import expected_losses as lines_module
from unetscope.analysis import trainings
from unetscope.analysis.expected_losses import LossLine, expected_loss
from unetscope.analysis.loss_verdicts import ExpectedLosses, expected_losses
from unetscope.analysis.outcomes import guess_nats
from unetscope.base.errors import NetworkError, RunFolderError
from unetscope.cli.main import app
from unetscope.networks.ablation import ablated
from unetscope.report.report_data import report_data_of
from unetscope.runs import analysed
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import built_network
from unetscope.runs.experiment import measure_again
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.kept_silenced import kept_silenced
from unetscope.runs.silencing import Silencing
from unetscope.table.evidence import Evidence, TrainedOn
from unetscope.table.intervals import Interval
from unetscope.table.losses import ExpectedLoss, Silenced
from unetscope.table.parts import Part, Variant, has_all_of, parts_named, removed_parts
from unetscope.training.checkpoints import Checkpoints
from unetscope.training.config import preset_config
from unetscope.training.trainer import validation_scores

DEPTH, MARGIN = 3, 0.02
SKIPS = parts_named(["skip1", "skip2", "skip3"])
DESIGNS = [
    Variant(f"depth{depth}-without-{len(without)}", depth, without)
    for depth in (3, 2, 1)
    for count in range(depth + 1)
    for without in itertools.combinations(SKIPS[:depth], count)
    if depth < DEPTH or without
]
losses_of_dice = st.tuples(st.floats(-0.1, 0.3), st.floats(0, 0.2), st.floats(0, 0.2)).map(
    lambda each: Interval(each[0], each[0] - each[1], each[0] + each[2])
)


def design(name: str) -> Variant:
    """A design of a network of depth 3, by its name."""
    return us.table.named_variants([name], depth=DEPTH)[1]


def at_one_budget(losses: Mapping[str, tuple[float, float, float, bool]]) -> ExpectedLosses:
    rows = tuple(
        ExpectedLoss(
            design(name),
            10,
            Interval(*interval),
            {},
            TrainedOn(design(name), 0.8, Interval(0.003, 0.001, 0.005), 0.1) if shown else None,
        )
        for name, (*interval, shown) in losses.items()
    )
    return ExpectedLosses(rows, DEPTH, (), MARGIN)


def test_a_network_that_is_there_bounds_what_lies_between_it_and_the_whole_one() -> None:
    losses = at_one_budget(
        {
            "depth2-without-skip1": (0.004, -0.002, 0.01, True),
            "without-skip1": (0.1, 0.03, 0.3, False),  # by itself it would be needed
            "without-skip2": (0.1, 0.03, 0.3, False),
        }
    )
    assert losses.decision(design("without-skip1")) == "redundant"
    assert losses.decision(design("depth2")) == "redundant"  # nothing else is known of it
    assert losses.decision(design("without-skip2")) == "needed"
    assert losses.decision(design("depth2-without-skip1-skip2")) == "needed"  # as a part of it is
    assert losses.decision(design("depth1")) == "undecided"
    bounded = losses.of(design("without-skip1"))
    assert bounded is not None
    assert bounded.loss == Interval(0.004, -0.002, 0.01)
    verdict = losses.verdict(Part.named("skip1"), 10)
    assert verdict is not None
    assert str(verdict) == (
        "skip1 is redundant from epoch 0 on: a network that lacks it and more, depth 2 without skip1, is there, and lost 0.003 "
        "(0.001 to 0.005) Dice when it was trained on, under 0.02; a network without it, retrained, is expected to lose 0.004 "
        "(-0.002 to 0.010) Dice"
    )
    assert losses.smallest() == design("depth2-without-skip1")


def test_a_network_without_the_source_of_a_skip_shows_what_one_without_the_skip_can_do() -> None:
    losses = at_one_budget({"depth1": (0.004, -0.002, 0.01, True), "without-skip3": (0.1, 0.03, 0.3, False)})
    assert losses.decision(design("without-skip3")) == "redundant"
    assert losses.decision(design("without-skip2")) == "undecided"  # it carries what is the bottom's in the smaller one


def test_of_designs_as_small_the_one_that_is_there_is_proposed() -> None:
    sure, unsure = (0.0, -0.01, 0.015, True), (0.0, -0.02, 0.001, False)
    for names in (("without-skip1-skip2", "without-skip1-skip3"), ("without-skip1-skip3", "without-skip1-skip2")):
        losses = at_one_budget(dict(zip(names, (unsure, sure), strict=True)))
        assert losses.smallest() == design(names[1])


def test_where_networks_were_trained_on_only_they_are_proposed() -> None:
    """Probes may find no need of what a network that was trained on without it does not learn to do without."""
    by_probes = ExpectedLoss(design("depth1"), 10, Interval(0.0, -0.01, 0.01), {"silenced": 0.3, "probed": 0.0})
    trained_on = ExpectedLoss(design("without-skip3"), 10, Interval(0.0, -0.01, 0.01), {"trained on": 0.0})
    assert ExpectedLosses((by_probes,), DEPTH, (), MARGIN).smallest() == design("depth1")
    assert ExpectedLosses((by_probes, trained_on), DEPTH, (), MARGIN).smallest() == design("without-skip3")
    assert ExpectedLosses((by_probes, trained_on), DEPTH, (), MARGIN).decision(design("depth1")) == "redundant"


def test_where_none_that_was_trained_on_is_redundant_another_is_proposed() -> None:
    """But not one that lacks all that a network that was trained on lacks."""
    unsure = ExpectedLoss(design("depth1"), 10, Interval(0.01, -0.02, 0.05), {"trained on": 0.07})
    by_probes = [
        ExpectedLoss(design(name), 10, Interval(0.0, -0.01, 0.01), {"silenced": 0.0})
        for name in ("without-skip3", "depth2", "depth1-without-skip1")
    ]
    assert ExpectedLosses((unsure, *by_probes), DEPTH, (), MARGIN).smallest() == design("depth2")
    assert ExpectedLosses((unsure, by_probes[2]), DEPTH, (), MARGIN).smallest() is None
    assert ExpectedLosses((by_probes[2],), DEPTH, (), MARGIN).smallest() == design("depth1-without-skip1")


def test_few_images_widen_what_is_expected() -> None:
    """Half of the interval of what was lost counts as the line's slope says."""
    line = LossLine((("trained on",),), False, 0.0, 0.5, (0.003, 0.0), (0.004, 0.0))
    near, far = line.loss(0.1), line.loss(0.1, 0.2)
    assert near.value == far.value == 0.05
    assert far.high - far.value == pytest.approx(np.hypot(near.high - near.value, 0.1))
    assert far.value - far.low == pytest.approx(np.hypot(near.value - near.low, 0.1))


def test_the_last_level_has_no_network_without_it() -> None:
    losses = at_one_budget({"depth1": (0.0, -0.01, 0.01, True)})
    assert losses.verdict(Part.named("level1"), 10) is None
    of_level = losses.verdict(Part.named("level2"), 10)
    assert of_level is not None
    assert (of_level.decision, of_level.rule, of_level.lost) == ("redundant", "loss", Interval(0.0, -0.01, 0.01))


@given(
    chosen=st.lists(st.tuples(st.sampled_from(DESIGNS), losses_of_dice), max_size=8, unique_by=lambda each: each[0]),
    shown=st.sampled_from(DESIGNS),
    queried=st.sampled_from(DESIGNS),
)
def test_a_further_network_that_is_there_makes_no_part_needed(
    chosen: list[tuple[Variant, Interval]], shown: Variant, queried: Variant
) -> None:
    rows = tuple(ExpectedLoss(each, 10, loss) for each, loss in chosen if each != shown)
    there = TrainedOn(shown, 0.8, Interval(0.0, -0.01, 0.019), 0.1)
    proof = ExpectedLoss(shown, 10, Interval(0.0, -0.01, 0.03), {}, there)
    before, after = (ExpectedLosses(some, DEPTH, (), MARGIN) for some in (rows, (*rows, proof)))
    if has_all_of(queried, shown, DEPTH):
        assert after.decision(queried) == "redundant"
    else:
        assert after.decision(queried) in (before.decision(queried), "undecided")
    expected = after.of(queried)
    assert expected is None or expected.loss.low <= expected.loss.value <= expected.loss.high


def test_the_surest_predictor_that_is_known_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = LossLine((("silenced",),), None, 0.1, 0.0, (0.1, 0.0), (0.1, 0.0))
    skips, levels = (LossLine((("trained on",),), kind, 0.01, 0.0, (0.01, 0.0), (0.01, 0.0)) for kind in (False, True))
    levels = replace(levels, intercept=0.2)
    monkeypatch.setattr(lines_module, "fitted_lines", lambda: (skips, levels, wide))
    assert expected_loss({"silenced": 0.1}, keeps_skips=False) == wide.loss(0.1)
    assert expected_loss({"silenced": 0.1}, keeps_skips=True) == wide.loss(0.1)
    assert expected_loss({"silenced": 0.1, "trained on": 0.0}, keeps_skips=False) == skips.loss(0.0)
    assert expected_loss({"silenced": 0.1, "trained on": 0.0}, keeps_skips=True) == levels.loss(0.0)
    assert expected_loss({"silenced": 0.1, "trained on": float("nan")}, keeps_skips=False) == wide.loss(0.1)
    assert expected_loss({"bits": 0.1}, keeps_skips=False) is None


def test_a_line_of_several_predictors_is_of_the_least_of_them() -> None:
    line = LossLine((("probed", "silenced"),), None, 0.0, 1.0, (0.01, 0.0), (0.01, 0.0))
    alone = replace(line, predictors=(("silenced",),), intercept=0.5)
    assert expected_loss({"silenced": 0.3, "probed": 0.1}, False, (line, alone)) == line.loss(0.1)
    assert expected_loss({"silenced": 0.1, "probed": 0.3}, False, (line, alone)) == line.loss(0.1)
    assert expected_loss({"silenced": 0.1}, False, (line, alone)) == alone.loss(0.1)
    assert expected_loss({"silenced": 0.1, "probed": math.nan}, False, (line, alone)) == alone.loss(0.1)


def test_a_line_of_groups_is_of_the_mean_of_the_least_in_each() -> None:
    line = LossLine((("trained on",), ("probed", "silenced")), None, 0.0, 1.0, (0.01, 0.0), (0.01, 0.0))
    assert expected_loss({"trained on": 0.1, "probed": 0.5, "silenced": 0.3}, False, (line,)) == line.loss(0.2)
    assert expected_loss({"trained on": 0.1, "silenced": 0.3}, False, (line,)) is None
    sure, unsure = line.loss(0.2), line.loss(0.2, error=0.1)  # of one of the two groups
    reach, wider = sure.high - sure.value, unsure.high - unsure.value
    assert wider == pytest.approx(math.hypot(reach, 0.05))


def test_the_lines_of_this_package_rise_and_widen() -> None:
    lines = lines_module.fitted_lines()
    trained_on, at_once, silenced = ("trained on",), ("probed", "silenced"), ("silenced",)
    kinds: list[tuple[tuple[tuple[str, ...], ...], bool | None]] = [
        ((trained_on, at_once), False),
        ((trained_on, at_once), True),
        ((trained_on,), False),
        ((trained_on,), True),
        ((at_once,), None),
        ((silenced,), None),
    ]
    assert [(line.predictors, line.keeps_skips) for line in lines] == kinds
    for line in lines:
        losses = [line.loss(float(x)) for x in np.linspace(-0.2, 1, 50)]
        assert (np.diff([loss.value for loss in losses]) >= -1e-12).all()
        assert (np.diff([loss.high - loss.low for loss in losses]) >= -1e-12).all()
        assert all(loss.low < loss.value < loss.high for loss in losses)
        assert stdtrit(lines_module.FREEDOM, 0.95) == pytest.approx(lines_module.BEYOND)


def test_of_fewer_epochs_than_the_lines_know_only_the_silenced_loss_counts() -> None:
    def known(epochs: int) -> Mapping[str, float]:
        tried = TrainedOn(design("depth2"), 0.7, Interval(0.1, 0.05, 0.15), 0.4)
        evidence = Evidence(100, epochs, 0.8, (tried,), 1, DEPTH)
        (row,) = expected_losses([], evidence, depth=DEPTH, without=(), margin=MARGIN)[100].losses
        return row.known

    assert set(known(5)) == {"silenced", "trained on"}
    assert set(known(4)) == {"silenced"}


def test_the_text_names_the_network_whose_loss_it_tells() -> None:
    """Of two networks that are there, that which lacks the part alone, though the other one loses less."""
    own, more = (
        ExpectedLoss(design(name), 10, Interval(0.0, -0.01, high), {}, TrainedOn(design(name), 0.8, Interval(*loss), 0.1))
        for name, high, loss in (
            ("without-skip1", 0.015, (0.012, 0.008, 0.017)), ("depth2-without-skip1", 0.01, (0.003, 0.001, 0.005)),
        )
    )  # fmt: skip
    verdict = ExpectedLosses((own, more), DEPTH, (), MARGIN).verdict(Part.named("skip1"), 10)
    assert verdict is not None
    assert "a network that lacks it is there, and lost 0.012 (0.008 to 0.017) Dice" in verdict.text


def test_what_too_few_images_tell_is_not_taken_for_sure() -> None:
    def loss_of(low: float, high: float) -> tuple[set[str], float]:
        tried = TrainedOn(design("without-skip1"), 0.7, Interval(0.04, low, high), 0.4, 0.0, 6)
        evidence = Evidence(100, 5, 0.8, (tried,), 1, DEPTH)
        (row,) = expected_losses([], evidence, depth=DEPTH, without=(), margin=MARGIN)[100].losses
        assert row.proof is None
        return set(row.known), row.loss.high - row.loss.low

    near, near_width = loss_of(0.03, 0.05)
    far, far_width = loss_of(-0.3, 0.38)
    none, none_width = loss_of(float("nan"), float("nan"))
    assert (near, far, none) == ({"silenced", "trained on"}, {"silenced", "trained on"}, {"silenced"})
    assert near_width < far_width
    assert near_width < none_width


def test_networks_that_were_trained_on_take_the_place_of_silenced_ones() -> None:
    """Those of the search and those that lack one part alone; at other epochs the silenced loss is all that is known."""
    tried = TrainedOn(design("depth2"), 0.8, Interval(0.001, -0.002, 0.004), 0.3)
    alone = TrainedOn(design("without-skip1"), 0.6, Interval(0.2, 0.18, 0.22), 0.5)
    evidence = Evidence(100, 5, 0.8, (tried,), 4, DEPTH, (), (alone,))
    silenced = [
        Silenced(epoch, design(name), 0.3)
        for epoch in (50, 100)
        for name in ("depth2", "without-skip1", "without-skip2")
    ]
    losses = expected_losses(silenced, evidence, depth=DEPTH, without=(), margin=MARGIN)
    assert {each.design.name: (set(each.known), each.proof is not None) for each in losses[100].losses} == {
        "without-skip2": ({"silenced"}, False),
        "depth2": ({"silenced", "trained on"}, True),
        "without-skip1": ({"silenced", "trained on"}, False),
    }
    assert not any(each.proof or "trained on" in each.known for each in losses[50].losses)
    shown = losses[100].of(design("depth2"))
    assert shown is not None
    assert shown.proof == tried
    assert shown.loss == expected_loss(shown.known, True, error=0.003)


@pytest.fixture(scope="module")
def finished(once: Callable[..., Path]) -> Path:
    changed = {
        "data.synthetic_images": 40, "data.image_size": 32, "network.width": 4, "network.depth": 2, "training.epochs": 6,
        "training.learning_rate": 4e-3, "training.batch_size": 4, "measuring.marked": [2, 6], "measuring.clusters": 2,
        "measuring.noise_variances": [], "measuring.bin_sizes": [], "threads": 1,
    }  # fmt: skip
    return once("losses", lambda path: run_experiment(preset_config("demo", changed), path))


@pytest.mark.long
def test_a_run_keeps_what_is_lost_at_once_at_every_measured_epoch(finished: Path) -> None:
    rows = kept_silenced(RunFolder.open(finished))
    assert [(row.epoch, row.design.name) for row in rows] == [
        (epoch, name) for epoch in (2, 6) for name in ("depth1", "without-skip1", "without-skip2")
    ]
    _, held_out = us.synthetic_nuclei(40, image_size=32).split(0.1)
    for row in rows:
        model = us.UNet(4, depth=2)
        Checkpoints(RunFolder.open(finished).checkpoints).load_weights(row.epoch, model)
        whole = validation_scores(model, held_out).mean
        (part,) = removed_parts(row.design, 2)
        with ablated(model, us.inspect(model, torch.rand(1, 3, 32, 32)), [str(part)]):
            assert row.loss == pytest.approx(whole - validation_scores(model, held_out).mean, abs=1e-6)


def as_if_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a network of six epochs for one that has learnt."""
    monkeypatch.setattr(analysed, "UNLEARNT_DICE", 0.0)
    monkeypatch.setattr(analysed, "LEARNT_SHARE", 0.0)
    monkeypatch.setattr(trainings, "STARTED_SHARE", -math.inf)  # any loss is below that of the best guess


@pytest.mark.long
def test_a_run_of_an_earlier_version_is_measured_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_if_learnt(monkeypatch)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = (run / "silenced.json").read_text()
    (run / "silenced.json").unlink()
    judged = AnalysedRun.open(run).judged()
    assert judged.losses == {}
    assert judged.deciding() == tuple(verdict for verdict in judged if verdict.rule == "conditional")
    printed = CliRunner().invoke(app, ["verdict", str(run), "--no-cost"]).output
    assert "What Dice is lost was not measured: unetscope verdict" in " ".join(printed.split())
    measure_again(run, {"mixtures": [0.1]})
    assert (run / "silenced.json").read_text() == before


def test_a_network_that_has_learnt_nothing_needs_everything_as_far_as_its_losses_tell(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    dice = AnalysedRun.open(run).epochs[-1].validation_dice
    monkeypatch.setattr(analysed, "UNLEARNT_DICE", dice + 0.01)
    judged = AnalysedRun.open(run).judged()
    assert judged.losses == {}
    assert {verdict.rule for verdict in judged.deciding()} == {"conditional"}
    printed = " ".join(CliRunner().invoke(app, ["verdict", str(run), "--no-cost"]).output.split())
    assert "The network has not learnt to segment: what it loses without a part tells nothing." in printed
    assert "a network without it" not in printed


@pytest.mark.parametrize("dice", [0.75, 0.5, 0.12])  # all of it foreground, half of the masks empty, one class of many
def test_a_guess_that_looks_at_no_image_is_nothing_learnt(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dice: float
) -> None:
    """Its Dice may be large, and nothing is lost without any of its parts."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    folder = RunFolder.open(run)
    shares = [folder.facts["data"][part]["foreground share"] for part in ("train", "validation")]
    guess = replace(folder.epochs()[-1], validation_dice=dice, validation_loss=0.95 * guess_nats(*shares))
    monkeypatch.setattr(RunFolder, "epochs", lambda _: (replace(guess, epoch=2), guess))
    judged = AnalysedRun.open(run)
    assert not judged.has_learnt
    assert judged.learnt_epochs == frozenset()
    assert judged.judged().losses == {}
    learnt = (replace(guess, epoch=2), replace(guess, validation_loss=0.85 * guess_nats(*shares)))
    monkeypatch.setattr(RunFolder, "epochs", lambda _: learnt)
    assert AnalysedRun.open(run).learnt_epochs == {6}
    flat = (replace(learnt[1], epoch=2), replace(learnt[1], validation_range=1e-4))  # it has collapsed since
    monkeypatch.setattr(RunFolder, "epochs", lambda _: flat)
    assert AnalysedRun.open(run).learnt_epochs == {2}


def test_of_a_network_that_has_fallen_far_nothing_is_expected(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Dice is half of the best of the run, or less, but not that of a network which has learnt nothing."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    folder = RunFolder.open(run)
    last = folder.epochs()[-1]
    monkeypatch.setattr(analysed, "UNLEARNT_DICE", 0.0)
    monkeypatch.setattr(trainings, "STARTED_SHARE", -math.inf)
    monkeypatch.setattr(
        RunFolder, "epochs", lambda _: (replace(last, epoch=5, validation_dice=0.9), replace(last, validation_dice=0.4))
    )
    judged = AnalysedRun.open(run)
    assert judged.learnt_epochs == {5}
    assert judged.has_learnt
    assert 6 not in judged.judged().losses
    printed = " ".join(CliRunner().invoke(app, ["verdict", str(run), "--no-cost"]).output.split())
    assert "After epoch 6 the Dice is below half of the best of the run" in printed


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: rows.append(7), r"silenced\.json: silenced\.6: input should be a valid dictionary"),
        (
            lambda rows: rows[0].update(loss=9.0),
            r"silenced\.0\.loss: input should be less than or equal to 1, got 9\.0",
        ),
        (lambda rows: rows[0].update(epoch=-1), r"silenced\.0\.epoch: input should be greater than or equal to 0"),
        (
            lambda rows: rows[0]["design"].update(depth=10**9),
            r"silenced\.0\.design\.depth: input should be less than or",
        ),
        (lambda rows: rows[0]["design"].update(without="skip1"), r"design\.without: input should be a valid list"),
    ],
)
def test_losses_of_a_stranger_are_validated(
    finished: Path, tmp_path: Path, change: Callable[[list[dict[str, object]]], None], text: str
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    values = json.loads((run / "silenced.json").read_text())
    values.pop("sha256")
    change(values["silenced"])
    (run / "silenced.json").write_text(json.dumps(values))
    with pytest.raises(RunFolderError, match=text):
        AnalysedRun.open(run).judged()


def test_losses_that_were_changed_are_refused(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    text = (run / "silenced.json").read_text()
    first = json.loads(text)["silenced"][0]["loss"]
    (run / "silenced.json").write_text(text.replace(str(first), str(first + 0.125), 1))
    with pytest.raises(RunFolderError, match=r"silenced\.json cannot be read: "):
        AnalysedRun.open(run).judged()


def test_every_verb_shows_one_number(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_if_learnt(monkeypatch)
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    judged = AnalysedRun.open(run).judged()
    expected = judged.expected(us.table.named_variants(["without-skip1"], depth=2)[1])
    assert expected is not None
    (verdict,) = (each for each in judged.deciding() if str(each.part) == "skip1")
    assert (verdict.rule, verdict.lost) == ("loss", expected.loss)
    loss = f"{expected.loss.value:.3f} ({expected.loss.low:.3f} to {expected.loss.high:.3f})"
    printed = CliRunner().invoke(app, ["verdict", str(run), "--no-cost"], env={"COLUMNS": "140"}).output
    assert loss in printed
    assert f"skip1 is {'not decided' if verdict.decision == 'undecided' else verdict.decision}" in printed
    told = json.loads(CliRunner().invoke(app, ["verdict", str(run), "--no-cost", "--json"]).output)["verdicts"]
    (row,) = (each for each in told if each["part"] == "skip1" and each["decides"])
    assert (row["rule"], row["decision"]) == ("loss", verdict.decision)
    assert row["lost"]["high"] == pytest.approx(expected.loss.high)
    (level,) = (each for each in told if each["part"] == "level1" and each["decides"])
    assert level["rule"] == "conditional"
    page = report_data_of(AnalysedRun.open(run))["verdicts"]["rows"]
    (drawn,) = (each for each in page if each["part"] == "skip1" and each["rule"] == "loss" and each["epoch"] == 6)
    assert drawn["lost"][0] == pytest.approx(expected.loss.value, abs=1e-4)


def test_a_design_that_cannot_be_silenced_is_refused_before_it_is_scored() -> None:
    config = preset_config("demo", {"network.width": 2, "network.depth": 2, "data.image_size": 16})
    _, held_out = us.synthetic_nuclei(10, image_size=16).split(0.2)
    network = built_network(config, 3)
    with pytest.raises(NetworkError, match="skips"):
        Silencing(replace(network, skips=network.skips[:1]), Variant("model1", 2, ()), held_out)
    rows = Silencing(network, Variant("model1", 2, ()), held_out).losses(3, [design("without-skip1")])
    assert rows == (Silenced(3, design("without-skip1"), rows[0].loss),)
