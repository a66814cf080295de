"""Verdicts from tables whose answer is plain, and from planted tasks whose answer is known by construction."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from calibration.planted import PLANTED_TASKS, planted_task
from hypothesis import given
from hypothesis import strategies as st

import unetscope as us
from unetscope.analysis.gains import probed_loss
from unetscope.analysis.loss_verdicts import ExpectedLosses
from unetscope.analysis.outcomes import Verification
from unetscope.analysis.verdict import Judgement, judge
from unetscope.base.errors import InvalidArgument
from unetscope.networks.unet import UNet
from unetscope.table.evidence import Evidence
from unetscope.table.flow import Flow
from unetscope.table.intervals import Interval
from unetscope.table.losses import decided_loss
from unetscope.table.parts import Part, Variant, named_variants, parts_named
from unetscope.table.quantities import DECISION_MARKS, STATUS_MARKS, Decision, Status
from unetscope.table.records import Estimate

CEILING = 0.6  # bits a pixel; the margin is 0.03 of it
Added = dict[str, tuple[float, float]]  # by stream and skip: low and high


def gain(epoch: int, merge: str, quantity: str, low: float, high: float) -> Estimate:
    bits = (low + high) / 2
    row = Estimate(
        epoch, merge, quantity, "usable_convolutional", 0.0, "pixels", bits, low, high, CEILING, False, 60, 9
    )  # type: ignore[arg-type]
    return replace(row, low=low, high=high)


def flow_of(depth: int = 3, without: tuple[str, ...] = (), **at: Added) -> Flow:
    """A flow with what streams add, by epoch (`e10={"skip1": (low, high), "depth1": …}`); 0.3 where nothing is said."""
    model, rows = UNet(2, depth, without=without), []
    for name, added in at.items():
        epoch = int(name.removeprefix("e"))
        for skip in model.skips:
            k = skip.part.level
            rows.append(gain(epoch, skip.merge, "I_V(S→Y|U,↓S)", *added.get(f"skip{k}", (0.29, 0.31))))
            rows.append(gain(epoch, skip.merge, "I_V(U→Y|S)", *added.get(f"depth{k}", (0.29, 0.31))))
    return Flow(model.layers, model.skips, tuple(rows))


def decisions(judgement: Judgement, epoch: int | None = None) -> dict[str, Decision]:
    verdicts = list(judgement) if epoch is None else judgement.at(epoch)
    return {str(verdict.part): verdict.decision for verdict in verdicts if verdict.rule == "conditional"}


def test_what_adds_little_is_redundant_and_what_adds_much_is_needed() -> None:
    added: Added = {"skip1": (0.0, 0.02), "skip2": (0.02, 0.04), "skip3": (0.031, 0.2)}
    judgement = judge(flow_of(e1=added, e10=added))
    assert decisions(judgement) == {
        "skip1": "redundant",
        "skip2": "undecided",
        "skip3": "undecided",  # a skip above it may bring the same
        "level1": "needed",
        "level2": "needed",
        "level3": "needed",
    }
    assert str(next(iter(judgement))) == (
        "skip1 is redundant from epoch 1 on: it adds 0.010 (0.000 to 0.020) of 0.600 bits a pixel to the deeper path, under 5%"
    )


def test_a_deeper_path_that_adds_nothing_makes_all_that_it_holds_redundant() -> None:
    judgement = judge(flow_of(e1={"depth2": (-0.01, 0.0)}, e10={"depth2": (-0.01, 0.0)}))
    found = decisions(judgement)
    assert found["skip2"] == "undecided"  # it meets that path, and is no part of it
    assert (found["skip3"], found["level2"], found["level3"]) == ("redundant",) * 3
    assert found["level1"] == "needed"
    assert judgement.design() == Variant("depth1", 1, ())


def test_a_part_is_needed_without_the_skip_that_made_it_redundant() -> None:
    added: Added = {"skip1": (0.0, 0.01), "depth1": (0.0, 0.01)}
    judgement = judge(flow_of(e1=added, e10=added))
    assert decisions(judgement)["skip2"] == "redundant"
    assert judgement.of_variant(Variant("", 3, parts_named(("skip2",)))) == "redundant"
    assert judgement.of_variant(Variant("", 3, parts_named(("skip1",)))) == "redundant"
    assert judgement.of_variant(Variant("", 3, parts_named(("skip1", "skip2")))) == "needed"
    assert judgement.design() == Variant("depth1", 1, ())  # without skip1 too, the levels would be needed


def test_a_skip_may_bring_what_a_deeper_one_does() -> None:
    judgement = judge(flow_of(e1={}, e10={}))
    assert judgement.of_variant(Variant("", 3, parts_named(("skip2",)))) == "undecided"
    assert judgement.of_variant(Variant("", 3, parts_named(("skip1", "skip2")))) == "needed"
    (verdict,) = (
        verdict for verdict in judgement if verdict.part == Part.named("skip2") and verdict.rule == "conditional"
    )
    assert verdict.text.endswith("over 5%, but skip1 may bring the same")


def test_the_design_leaves_out_only_what_is_redundant_together() -> None:
    added: Added = {"skip1": (0.0, 0.008), "skip2": (0.0, 0.008), "depth3": (0.0, 0.008)}
    judgement = judge(flow_of(e1=added, e10=added))
    design = judgement.design()
    assert design == Variant("depth2-without-skip1-skip2", 2, parts_named(("skip1", "skip2")))
    assert judgement.of_variant(design) == "redundant"
    more: Added = {
        f"skip{k}": (0.0, 0.02) for k in (1, 2, 3)
    }  # each is next to nothing, together they may be twice that
    judgement = judge(flow_of(e1=more, e10=more))
    assert judgement.design() == Variant("without-skip1", 3, parts_named(("skip1",)))
    assert judgement.of_variant(Variant("", 3, parts_named(("skip1", "skip2")))) == "undecided"
    levels: Added = {"depth2": (0.0, 0.02), "depth3": (0.0, 0.02)}  # the deeper path at skip2 holds that at skip3
    assert judge(flow_of(e1=levels, e10=levels)).design() == Variant("depth1", 1, ())
    assert judge(flow_of(e1={}, e10={})).design() is None


def test_a_network_that_lacks_a_skip_is_judged_by_the_others() -> None:
    added: Added = {"skip3": (0.0, 0.01)}
    judgement = judge(flow_of(without=("skip2",), e1=added, e10=added))
    assert (judgement.depth, judgement.without) == (3, parts_named(["skip2"]))
    assert "skip2" not in decisions(judgement)
    assert judgement.design() == Variant("without-skip3", 3, parts_named(("skip2", "skip3")))


def test_the_epoch_from_which_a_verdict_holds() -> None:
    little: Added = {"skip1": (0.0, 0.01)}
    judgement = judge(flow_of(e1=little, e2={}, e5=little, e10=little))
    assert [next(iter(judgement.at(epoch))).since for epoch in (1, 2, 5, 10)] == [1, 2, 5, 5]
    assert judgement.decision("skip1", epoch=2) == "needed"
    assert judgement.epochs == (1, 2, 5, 10)


def test_an_epoch_whose_merges_were_not_probed_interrupts_nothing() -> None:
    little: Added = {"skip1": (0.0, 0.01)}
    flow = flow_of(e1=little, e2={}, e5=little, e10=little)
    rows = [row for row in flow.estimates if row.epoch != 5]
    output = next(layer.label for layer in flow.layers if layer.role == "output")
    rows.append(replace(gain(5, output, "I_V(M→Y)", 0.5, 0.6), estimator="usable_linear"))
    judgement = judge(replace(flow, estimates=tuple(rows)))
    assert [next(iter(judgement.at(epoch))).since for epoch in (1, 2, 5, 10)] == [1, 2, 5, 10]
    assert judgement.decision("skip1", epoch=5) == "undecided"
    assert "unetscope measure RUN --merge-probes" in next(iter(judgement.at(5))).text
    assert judgement.probed_epochs == (1, 2, 10)
    rows = [row for row in rows if row.epoch != 2]
    assert next(iter(judge(replace(flow, estimates=tuple(rows))))).since == 1


def test_what_probes_lose_without_a_part_is_the_least_of_its_bounds() -> None:
    flow = flow_of(e1={}, e10={})
    added = {"skip1": 0.3, "skip2": 0.2, "skip3": 0.1, "depth1": 0.25, "depth2": 0.05, "depth3": -0.01}
    merges = {skip.merge: skip.part.level for skip in flow.skips}
    kind = {"I_V(S→Y|U,↓S)": "skip", "I_V(U→Y|S)": "depth"}
    rows = tuple(
        replace(row, dice=added[f"{kind[row.quantity]}{merges[row.layer]}"])
        for row in flow.estimates
        if row.quantity in kind
    )
    gains = judge(replace(flow, estimates=rows)).gains[10]
    lost = {
        name: probed_loss((Part.named(name),), gains)
        for name in ("skip1", "skip2", "skip3", "level1", "level2", "level3")
    }
    # a skip also belongs to the deeper path of those that join after it, and what is below 0 is of the fit
    assert lost == {"skip1": 0.3, "skip2": 0.2, "skip3": 0.05, "level1": 0.25, "level2": 0.05, "level3": 0.0}
    assert probed_loss(parts_named(("level2", "level3")), gains) == lost["level2"]
    for several in (("skip1", "skip2"), ("skip1", "level3"), ()):
        assert math.isnan(probed_loss(parts_named(several), gains))
    assert math.isnan(probed_loss((Part.named("skip4"),), gains))  # there is none
    for too_little in ({"dice": math.nan}, {"n": 49}, {"groups": 12.0}):
        few = judge(replace(flow, estimates=tuple(replace(row, **too_little) for row in rows))).gains[10]
        assert math.isnan(probed_loss((Part.named("skip1"),), few))


def test_numbers_that_are_not_known_decide_nothing() -> None:
    flow = flow_of(e1={}, e10={"skip1": (math.nan, math.nan), "skip2": (math.nan, math.nan), "depth1": (0.0, 0.01)})
    reason = "out of domain: 3 held-out images with labels are too few for an interval"
    rows = [replace(row, reason=reason) if math.isnan(row.low) else row for row in flow.estimates]
    judgement = judge(Flow(flow.layers, flow.skips, tuple(rows)))
    found = {str(verdict.part): verdict for verdict in judgement}
    assert found["skip1"].decision == "undecided"
    assert found["skip1"].text == f"what skip1 adds to the deeper path is not known: {reason}"
    assert found["skip2"].decision == "redundant"  # it adds no more than the deeper path that it belongs to
    linear = tuple(replace(row, estimator="usable_linear") for row in flow.estimates)
    only_linear = judge(Flow(flow.layers, flow.skips, linear))
    assert set(decisions(only_linear).values()) == {"undecided"}
    assert "`unetscope measure RUN --merge-probes` does" in str(only_linear)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_what_is_not_known_of_a_level_is_named_by_its_own_skip(level: int) -> None:
    unknown = {f"{part}{k}": (math.nan, math.nan) for part in ("skip", "depth") for k in (1, 2, 3)}
    judgement = judge(flow_of(e1={}, e10=unknown))
    texts = {str(verdict.part): verdict.text for verdict in judgement}
    assert texts[f"level{level}"].startswith(f"what the deeper path adds to skip{level} is not known")
    assert texts[f"skip{level}"].startswith(f"what skip{level} adds to the deeper path is not known")


def test_a_verdict_names_the_quantity_of_its_number() -> None:
    for verdict in judge(flow_of(e1={}, e10={"depth1": (0.0, 0.01)})):
        if not math.isnan(verdict.bits) and verdict.rule == "conditional":
            assert (
                verdict.measured.removeprefix(str(verdict.part)).removeprefix("the deeper path").startswith(" adds to ")
            )
            assert verdict.text.endswith(verdict.text.split(" bits a pixel ")[1])
            assert f"to {verdict.measured.split(' adds to ')[1]}," in verdict.text


def test_a_verdict_names_the_estimator_that_was_asked_for() -> None:
    flow = flow_of(e1={}, e10={})
    rows = tuple(replace(row, estimator="usable_linear") for row in flow.estimates)
    linear = judge(Flow(flow.layers, flow.skips, rows), estimator="usable_linear")
    assert {verdict.estimator for verdict in linear.verdicts} == {"usable_linear"}
    unknown = judge(flow, estimator="usable_linear")
    assert {(verdict.estimator, verdict.decision) for verdict in unknown.verdicts} == {("usable_linear", "undecided")}


def test_where_there_is_no_interval_the_wider_bracket_decides() -> None:
    flow = flow_of(e1={}, e10={"skip1": (0.1, 0.2), "skip2": (0.02, 0.04)})
    rows = [
        replace(row, low=math.nan, high=math.nan, reason="out of domain: few", out_of_domain=True)
        for row in flow.estimates
    ]
    found = decisions(judge(Flow(flow.layers, flow.skips, tuple(rows))))
    assert (found["skip1"], found["skip2"]) == ("needed", "undecided")


def test_nothing_follows_from_a_network_that_has_learnt_nothing() -> None:
    flow = flow_of(e1={}, e10={})
    output = Estimate(
        1, flow.layers[-1].label, "I_V(M→Y)", "usable_linear", 0.0, "pixels", 0.05, 0, 0, CEILING, False, 60, 9
    )
    rows = (*flow.estimates, output, replace(output, epoch=10, bits=0.4))
    judgement = judge(Flow(flow.layers, flow.skips, rows))
    assert set(decisions(judgement, 1).values()) == {"undecided"}
    dead = replace(output, epoch=10, bits=math.nan, reason="the layer is the same at every place of every image")
    constant = judge(Flow(flow.layers, flow.skips, (*flow.estimates, dead)))
    assert set(decisions(constant).values()) == {"undecided"}
    assert "what the network tells is not known: the layer is the same at every place" in str(constant)
    assert "the network tells 0.050 of 0.600 bits a pixel so far, next to nothing" in judgement.at(1)[0].text
    assert decisions(judgement, 10)["level3"] == decisions(judgement, 10)["skip1"] == "needed"


def test_the_margin_is_a_share_of_what_the_network_tells() -> None:
    """A mask that nothing tells much of has details that are worth little beside its entropy, and much beside what is told."""
    added: Added = {"skip1": (0.018, 0.022)}  # of 0.6 bits a pixel, 3.3 %
    flow = flow_of(depth=1, e1=added, e10=added)
    last = flow.layers[-1].label
    output = Estimate(1, last, "I_V(M→Y)", "usable_linear", 0.0, "pixels", 0.2, 0.1, 0.3, CEILING, False, 60, 9)
    rows = (output, replace(output, epoch=10))
    assert decisions(judge(flow))["skip1"] == "redundant"
    judgement = judge(Flow(flow.layers, flow.skips, (*flow.estimates, *rows)))
    assert decisions(judgement)["skip1"] == "needed"
    assert "it adds 0.020 (0.018 to 0.022) of 0.200 bits a pixel to the deeper path, over 5%" in str(judgement)


def test_a_verdict_has_the_numbers_of_what_it_rests_on() -> None:
    added: Added = {"depth1": (0.04, 0.5), "depth2": (0.29, 0.31)}
    (verdict,) = (verdict for verdict in judge(flow_of(e1=added, e10=added)) if verdict.part == Part.named("level2"))
    assert verdict.text.startswith(
        "the deeper path that it belongs to adds 0.270 (0.040 to 0.500) of 0.600 bits a pixel to skip1"
    )
    assert (verdict.bits, verdict.low, verdict.high) == pytest.approx((0.27, 0.04, 0.5))


@pytest.mark.parametrize("change", [{"high": math.nan}, {"ceiling": 0.0}, {"saturated": True}])
def test_half_an_interval_nothing_to_tell_and_saturation_decide_nothing(change: dict[str, object]) -> None:
    flow = flow_of(e1={}, e10={})
    rows = tuple(replace(row, **change) for row in flow.estimates)  # type: ignore[arg-type]
    assert set(decisions(judge(Flow(flow.layers, flow.skips, rows))).values()) == {"undecided"}


@given(st.floats(-0.1, 0.5), st.floats(0, 0.3), st.floats(0, 0.3))
def test_a_wider_interval_never_turns_a_verdict_into_its_opposite(middle: float, half: float, more: float) -> None:
    found = []
    for width in (half, half + more):
        added: Added = {"skip1": (middle - width, middle + width)}
        found.append(decisions(judge(flow_of(depth=1, e1=added, e2=added)))["skip1"])
    assert found[1] in {found[0], "undecided"}


def plateau(row: Estimate, of_input: Estimate) -> us.table.Verdict:
    """What the paper's rule says of skip1, from what the merge of skip2 tells at epoch 10."""
    flow = flow_of(depth=2, e1={}, e10={})
    rows = [replace(one, epoch=epoch, layer=flow.skips[1].merge) for epoch in (1, 10) for one in (row, of_input)]
    judgement = judge(Flow(flow.layers, flow.skips, (*flow.estimates, *rows)))
    (verdict,) = (verdict for verdict in judgement if verdict.rule == "plateau")
    assert str(verdict.part) == "skip1"
    return verdict


def test_the_papers_rule() -> None:
    row = Estimate(0, "", "I(Y;M)", "kde_upper", 1.0, "kmeans", 2.0, 1.9, 2.0, 3.0, False, 60, 9, low=1.8, high=2.2)
    of_input = replace(row, quantity="I(X;M)", labels="", ceiling=6.0)
    assert plateau(row, of_input).decision == "needed"
    assert plateau(replace(row, high=3.0), of_input).decision == "undecided"
    assert (
        plateau(
            replace(row, low=math.nan, high=math.nan, reason="out of domain: …", out_of_domain=True), of_input
        ).decision
        == "undecided"
    )
    full = replace(row, bits=3.0, saturated=True, low=math.nan, high=math.nan)
    assert plateau(full, of_input).decision == "redundant"
    blind = plateau(full, replace(of_input, bits=6.0, saturated=True))
    assert blind.decision == "undecided"
    assert blind.text.endswith("as would any layer that tells all images apart")
    by_chance = plateau(
        replace(full, reason="out of domain: permuted labels are told too", out_of_domain=True), of_input
    )
    assert by_chance.decision == "undecided"
    assert by_chance.text.endswith("out of domain: permuted labels are told too")
    assert plateau(full, replace(of_input, bits=math.nan, reason="distances are not finite")).decision == "undecided"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda flow: judge(flow, margin=0.0), "^margin must be between 0 and 1, got 0.0"),
        (lambda flow: judge(flow, dice_margin=math.nan), "^dice_margin must be between 0 and 1, got nan"),
        (lambda flow: judge(flow, dice_margin=math.inf), "^dice_margin must be between 0 and 1, got inf"),
        (lambda flow: judge(flow, dice_margin=-1), "^dice_margin must be between 0 and 1, got -1"),
        (lambda _: ExpectedLosses((), 3, (), math.nan), "^margin must be between 0 and 1, got nan"),
        (lambda _: Verification((), (), None, (1,), -0.02), "^margin must be between 0 and 1, got -0.02"),
        (lambda _: Evidence(10, 3, 0.9, (), 2, 3).smallest(math.nan), "^margin must be between 0 and 1, got nan"),
        (lambda _: decided_loss(Interval(0.1, 0, 0.2), math.inf), "^margin must be between 0 and 1, got inf"),
        (lambda flow: judge(Flow(flow.layers, (), flow.estimates)), "nothing to judge: the network has no skips"),
        (
            lambda flow: judge(flow.select(epoch=10)),
            r"judging needs 2 measured epochs of training or more, got 1 \(10\): mark more \(--marked, or in Python",
        ),
        (lambda flow: judge(flow).at(3), "epoch 3 was not judged: measured are 1, 10"),
        (lambda flow: judge(flow).decision("skip9"), "there is no verdict on skip9: expected any of skip1, "),
        (
            lambda flow: judge(flow).decision("skip9", rule="conditional"),
            "the conditional rule says nothing of skip9: expected any of skip1, ",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(change, text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidArgument, match=text):
        change(flow_of(e1={}, e10={}))


@pytest.mark.parametrize(
    "name", ["model5", "depth0", "depth5", "without-skip5", "without", "", "-", "skip1", "depth3-without-skip4"]
)
def test_a_variant_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(
        InvalidArgument, match=f"no variant '{name}' of a network of depth 4: expected paper, skips, depths"
    ):
        named_variants([name], depth=4)
    with pytest.raises(InvalidArgument, match="no design is proposed"):
        named_variants(["proposed"], depth=4)


def test_a_part_is_its_name_and_parts_are_sorted_by_kind_then_level() -> None:
    names = ["skip1", "skip2", "skip10", "level1", "level3", "level12"]
    assert [str(part) for part in parts_named(reversed(names))] == names
    for name in ("skip", "skip0", "skip01", "level-1", "skip1 ", "model1", "Skip1", "skip" + "9" * 5000, "skip1abcde"):
        with pytest.raises(
            InvalidArgument, match=f"part '{name[:60]}': expected a skip or a level, such as skip1 or level2"
        ):
            Part.named(name)


def test_a_verdict_is_asked_for_by_part_or_by_name() -> None:
    judgement = judge(flow_of(e1={}, e10={}))
    assert judgement.decision("level2") == judgement.decision(Part.named("level2")) == "needed"


def test_every_decision_and_status_has_one_mark() -> None:
    assert set(DECISION_MARKS) == set(get_args(Decision))
    assert set(STATUS_MARKS) == set(Status)
    for marks in (DECISION_MARKS, STATUS_MARKS):
        assert len({mark.letter for mark in marks.values()}) == len(marks)


def test_variants_are_what_the_paper_calls_them() -> None:
    found = {variant.name: variant for variant in named_variants(["paper", "skips", "depths", "no-skips"], depth=4)}
    assert [found[f"model{k}"].network["without"] for k in (1, 2, 3, 4)] == [
        (),
        ("skip1",),
        ("skip1", "skip2"),
        ("skip1", "skip2", "skip3"),
    ]
    assert "without-skip1" not in found  # that is model2
    assert (found["depth2"].depth, found["depth2"].without) == (2, ())


def judged(task: str, seed: int, folder: Path, *, n: int, epochs: int) -> tuple[us.data.PlantedTask, Judgement]:
    """A network trained on a planted task, and its verdicts."""
    torch.set_num_threads(1)
    planted = planted_task(task, n, seed=seed)
    train, validation = planted.data.split(0.25, seed=seed)
    torch.manual_seed(seed)
    model = UNet(width=8, depth=3, in_channels=1)
    scope = us.Scope(model, train, estimators=[], labels=[], held_out=validation)
    config = us.TrainingConfig(epochs=epochs, learning_rate=2e-3)
    marked = (epochs // 2, epochs)
    us.Trainer(model, train, validation, config, folder, marked=marked, seed=seed).run(
        on_marked=lambda epoch, _: scope.measure(epoch)
    )
    return planted, judge(scope.flow)


def missed(planted: us.data.PlantedTask, judgement: Judgement) -> dict[str, Decision]:
    wanted: dict[str, Decision] = dict.fromkeys(planted.needed, "needed") | dict.fromkeys(
        planted.redundant, "redundant"
    )
    found = {part: judgement.decision(part) for part in wanted}
    return {part: decision for part, decision in found.items() if decision != wanted[part]}


@pytest.mark.long
@pytest.mark.parametrize(
    "task", ["global", *(pytest.param(one, marks=pytest.mark.slow) for one in ("pixel", "coarse", "local"))]
)
def test_planted_tasks_are_judged_rightly(task: str, tmp_path: Path) -> None:
    assert missed(*judged(task, 0, tmp_path, n=240, epochs=24)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("task", PLANTED_TASKS)
def test_planted_tasks_are_judged_rightly_over_five_seeds(task: str, seed: int, tmp_path: Path) -> None:
    assert missed(*judged(task, seed, tmp_path, n=600, epochs=16)) == {}


def test_a_planted_task_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        InvalidArgument, match="planted task 'fine': expected one of coarse, pixel, global, local, mixed"
    ):
        planted_task("fine")
    with pytest.raises(InvalidArgument, match="a planted task of 1 images: give at least 2"):
        planted_task("pixel", 1)


def test_judging_many_epochs_reads_the_table_no_more_often_than_judging_two(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    select = Flow.select
    monkeypatch.setattr(Flow, "select", lambda flow, **values: calls.append(values) or select(flow, **values))

    def calls_of(epochs: int) -> int:
        flow = flow_of(**{f"e{epoch}": {} for epoch in range(1, epochs + 1)})
        calls.clear()
        judge(flow)
        return len(calls)

    assert calls_of(2) == calls_of(40)
