"""The verb that judges: `verdict`, and its output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unetscope.cli.flags import Json, Network, Quiet, Run, as_code
from unetscope.cli.progress import shown_progress
from unetscope.cli.terminal import (
    BLOCKS,
    Glyphs,
    glyphs_for,
    one_line,
    print_json,
    print_pairs,
    print_sentence,
    print_table,
    sparkline,
)
from unetscope.table import DECISION_MARKS, SKIP, Part, Quantity, Rule, Status, check_margin, removed_parts

if TYPE_CHECKING:
    from rich.text import Text

    from unetscope.analysis import Judgement
    from unetscope.runs import AnalysedRun
    from unetscope.table import Evidence, Flow, Savings, Series, TrainedOn, Variant, Verdict


def verdict(
    run: Run,
    epoch: Annotated[int | None, typer.Option(help="Training budget, a measured epoch [default: the last].")] = None,
    margin: Annotated[
        float | None, typer.Option(help="Share of what the network tells that counts as nothing.")
    ] = None,
    effort: Annotated[
        float, typer.Option(help="Train smaller networks on, for such a share of the run's epochs in all, such as 0.3.")
    ] = 0.0,
    dice_margin: Annotated[float | None, typer.Option(help="Loss of Dice that counts as none [default: 0.02].")] = None,
    cost: Annotated[bool, typer.Option("--cost/--no-cost", help="Time the proposed design on this machine.")] = True,
    network: Network = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Say which skips and levels the task needs, from which epoch, how sure, and what a network without the others saves."""
    from unetscope.analysis import DICE_MARGIN, MARGIN
    from unetscope.runs import AnalysedRun, may_run_code

    share, loss = MARGIN if margin is None else margin, DICE_MARGIN if dice_margin is None else dice_margin
    check_margin(share, "--margin")
    check_margin(loss, "--dice-margin")
    if effort:
        from unetscope.runs import gather_evidence

        with shown_progress(quiet or json) as progress:
            gather_evidence(run, effort, margin=loss, code=as_code(network), progress=progress)
    judged = AnalysedRun.open(run, margin=share, dice_margin=loss)
    judgement = judged.judged()
    if epoch is not None:
        judgement.at(epoch)
    design, may_run, reasons = judgement.design(epoch), may_run_code(judged.folder), {}
    if cost and may_run and design is not None and judged.designs:
        from unetscope.runs import keep_costs

        reasons = keep_costs(judged.folder, [design], anew=True)  # times are those of this machine
        reasons |= keep_costs(judged.folder, judged.designs)
    saved = judged.costs.of(design) if cost and design is not None else None
    print_judgement(judged, epoch, saved, json=json)
    if json:
        return
    if (evidence := judged.evidence) is not None:
        print_evidence(judged, evidence, loss)
    for name, reason in reasons.items():
        print_sentence(f"What {name} saves is not known: {reason}.")
    if not may_run and saved is None:
        print_sentence("What a design saves is not computed: the run names code that you have not run on this machine.")


WIDE = 110  # columns of a terminal in which curves have room beside the numbers
MOST_EPOCHS = 24  # letters of a curve: of more epochs, the last


def print_judgement(run: AnalysedRun, epoch: int | None, saved: Savings | None, *, json: bool) -> None:
    """The U-Plot as lines of text, the verdict on every skip and level, and the design that is left.

    epoch: the training budget, by default the last that was measured. saved: what the design saves, if that was measured.
    """
    judgement = run.judged()
    design = judgement.design(epoch)
    epoch = judgement.epochs[-1] if epoch is None else epoch
    expected = None if design is None else judgement.expected(design, epoch)
    if json:
        print_json(_judgement_data(run, epoch, saved))
        return
    _print_verdicts(run.flow, judgement, epoch)
    if epoch in judgement.losses and run.class_map is not None and (classes := run.class_map.classes) > 2:
        print_sentence(
            f"A loss is of the mean Dice over the classes of an image: one of {classes} may lose {classes} times as much. "
            f"unetscope verify {run.path} tells the Dice of each."
        )
    if left := run.epochs_left:
        print_sentence(
            f"The training stopped {left} epochs before its end, and a longer one may need other parts: "
            f"unetscope run --out {run.path} --resume goes on."
        )
    if not run.has_learnt:
        print_sentence("The network has not learnt to segment: what it loses without a part tells nothing.")
    elif epoch not in run.learnt_epochs:
        print_sentence(
            f"After epoch {epoch} the Dice is below half of the best of the run: what the network loses there without a part "
            "tells nothing."
        )
    elif run.trained_here and epoch == judgement.epochs[-1] and epoch not in judgement.losses:
        print_sentence(
            f"What Dice is lost was not measured: unetscope verdict {run.path} --effort 0.1 does, with two networks."
        )
    if design is None:
        print_sentence("Nothing is proposed to be left out.")
    elif not run.trained_here:
        loop = "" if run.designs else " --network FILE.py:build --train FILE.py:train"
        print_sentence(
            f"Proposed to be left out: {', '.join(_left_out(judgement, design))}. Retrain it before you believe it: "
            f"unetscope verify {run.path} --variants proposed{loop}"
        )
    else:
        lost = "" if expected is None else f", expected to lose {expected.loss.text} Dice"
        print_sentence(
            f"Proposed: {design.text}{lost}. Retrain it before you believe it: "
            f"unetscope verify {run.path} --variants {design.name}"
        )
    if design is not None and saved is not None:
        image = "×".join(map(str, run.costs.shape))
        print_pairs(f"What it saves, of one image of {image}", saved.rows())
    if run.planned_depths:
        print_sentence(f"Planned before any training, beside these verdicts on a network of depth {judgement.depth}:")
    for planned in run.planned_depths:
        print_sentence(planned.sentence)


def _judgement_data(run: AnalysedRun, epoch: int, saved: Savings | None) -> dict[str, Any]:
    """What `print_judgement` prints, for machines; epoch: as of it."""
    judgement = run.judged()
    design, deciding = judgement.design(epoch), judgement.deciding(epoch)
    proposed = None
    if design is not None:
        expected = judgement.expected(design, epoch)
        proposed = {
            **design.as_dict(),
            "savings": None if saved is None else saved.as_dict(),
            "expected": None if expected is None else expected.as_dict(),
        }
    return {
        "verdicts": [
            {**asdict(verdict), "part": str(verdict.part), "decides": verdict in deciding}
            for verdict in judgement.at(epoch)
        ],
        "proposed": proposed,
        "planned depths": [planned.as_dict() for planned in run.planned_depths],
        "evidence": None if run.evidence is None else run.evidence.as_dict(),
    }


def print_evidence(run: AnalysedRun, evidence: Evidence, margin: float) -> None:
    """What smaller networks show, that were trained on from the run's weights. margin: the loss of Dice that counts as none."""
    print_table(
        f"Trained on for {evidence.epochs} epochs from epoch {evidence.epoch}, beside the whole network",
        ("network", "parameters", "multiply-adds", "Dice", "lost (90 % of all)", "at once", "shows"),
        [
            (
                tried.design.text,
                *_sizes(run.costs.of(tried.design)),
                f"{tried.dice:.3f}",
                tried.loss.text,
                f"{tried.silenced:z.3f}",
                _what_is_shown(tried, margin),
            )
            for tried in evidence.trained_on
        ],
    )
    print_sentence(
        f"The whole network, trained on as long: {evidence.dice:.3f}. Of {evidence.designs} smaller networks, each without one "
        f"part more, {len(evidence.tried)} were trained on, and {len(evidence.alone)} that lack one part alone."
    )
    if evidence.epoch not in run.learnt_epochs:
        lacking = "not learnt to segment" if not run.has_learnt else "a Dice below half of the best of the run"
        print_sentence(f"The network has {lacking}, so a smaller one that does as well shows nothing.")
        return
    if (smallest := evidence.smallest(margin)) is None:
        print_sentence(f"None is shown to lose less than {margin:g} Dice.")
        return
    parts = ", ".join(map(str, evidence.redundant(margin)))
    print_sentence(
        f"Not needed by a network that is there: {parts}. {smallest.design.text} loses less than {margin:g} Dice on images "
        f"like those held out: unetscope slim {run.path} --design {smallest.design.name} --fine-tune {evidence.epochs}"
    )
    print_sentence(
        "It is one training of each network: unetscope verify retrains both by several seeds, and tells how much they differ."
    )


def _what_is_shown(tried: TrainedOn, margin: float) -> str:
    if tried.shows(margin):
        return "it does without"
    if tried.is_on_few_images or math.isnan(tried.loss.high):
        return "nothing: too few images"
    return "less than the run's network" if tried.loss.high < margin else "nothing: it may need longer"


def _sizes(saved: Savings | None) -> tuple[str, str]:
    """The parameters and multiply-adds that are left of the whole network, for people."""
    if saved is None:
        return "", ""
    parameters, multiply_adds = (1 + saved.change(name) for name in ("parameters", "multiply_adds"))
    return f"{parameters:.1%}", f"{multiply_adds:.0%}"


def _print_verdicts(flow: Flow, judgement: Judgement, epoch: int) -> None:
    from rich.console import Console

    console = Console()
    glyphs = glyphs_for(console.encoding)
    for line in u_plot_lines(flow, epoch, width=console.width, glyphs=glyphs):
        print_sentence(line)
    deciding, verdicts = judgement.deciding(epoch), judgement.at(epoch)
    heads, rows = _verdict_rows(judgement, deciding, {(each.rule, each.part): each for each in verdicts})
    if console.width >= WIDE:
        heads = (*heads, "bits over epochs")
        curves = [_bits_over_epochs(judgement, verdict.part, glyphs) for verdict in deciding]
        rows = [(*row, curve) for row, curve in zip(rows, curves, strict=True)]
    print_table(f"What a training of {epoch} epochs needs", heads, rows, right=("since",))
    for verdict in (*deciding, *(each for each in verdicts if each.rule == "plateau")):
        print_sentence(f"{verdict}.")
    for alike in _of_one_loss(deciding):
        print_sentence(
            f"{' and '.join(map(str, alike))} have the same expected loss: hardly any Dice was lost at once without them, "
            "and it is what networks lose of which that is so."
        )


def _verdict_rows(
    judgement: Judgement, deciding: Sequence[Verdict], by_rule: Mapping[tuple[Rule, Part], Verdict]
) -> tuple[tuple[str, ...], list[tuple[str | Text, ...]]]:
    """The heads and the rows of the table, without a column in which nothing would stand."""
    of_bits = [by_rule["conditional", verdict.part] for verdict in deciding]
    plateaus = [by_rule.get(("plateau", verdict.part)) for verdict in deciding]
    columns: dict[str, list[str | Text]] = {
        "part": [str(verdict.part) for verdict in deciding],
        "verdict": [_decided(verdict) for verdict in deciding],
        "since": [str(verdict.since) for verdict in deciding],
        "Dice lost (90 %)": ["" if each.lost is None else each.lost.text for each in deciding],
        "bits": ["" if math.isnan(each.bits) else f"{each.bits:z.3f}" for each in of_bits],
        "paper's rule": ["" if each is None else _decided(each) for each in plateaus],
    }
    filled = {head: cells for head, cells in columns.items() if any(map(str, cells))}
    return tuple(filled), list(zip(*filled.values(), strict=True))


def _of_one_loss(verdicts: Sequence[Verdict]) -> list[list[Part]]:
    """The redundant parts that are expected to lose the same, as it is printed, by that loss."""
    by_loss: dict[str, list[Part]] = {}
    for verdict in verdicts:
        if verdict.lost is not None and verdict.decision == "redundant":
            by_loss.setdefault(verdict.lost.text, []).append(verdict.part)
    return [parts for parts in by_loss.values() if len(parts) > 1]


def _decided(verdict: Verdict) -> Text:
    from rich.text import Text

    return Text(verdict.decision, style=DECISION_MARKS[verdict.decision].style)


def _left_out(judgement: Judgement, design: Variant) -> list[str]:
    """The parts that a design leaves out, for people: skips by name, and the deepest levels together."""
    removed = removed_parts(design, judgement.depth, judgement.without)
    skips = [str(part) for part in removed if part.is_skip]
    return skips + [f"all below {Part(SKIP, design.depth)}"] * (design.depth < judgement.depth)


def u_plot_lines(flow: Flow, epoch: int, *, width: int, glyphs: Glyphs = BLOCKS) -> list[str]:
    """The U-Plot of one epoch as text: a letter a layer, by the first estimator of each quantity.

    >>> from unetscope.table.flow import Flow
    >>> from unetscope.table.records import Estimate, Layer
    >>> rows = [Estimate(0, label, "I(X;M)", "kde_upper", 1.0, "", bits, bits, bits, 3.0, bits == 3, n=8, d=4)
    ...         for label, bits in (("1", 3.0), ("2", 1.0), ("3", 2.0))]
    >>> flow = Flow(tuple(Layer(label, "conv") for label in "123"), (), tuple(rows))
    >>> for line in u_plot_lines(flow, 0, width=80): print(line)
    U-Plot, epoch 0: layers 1 to 3 in network order; ▒ saturated, · no number
    I(X;M) ▒▃▆ 1.000 (layer 2) to 3.000 of 3.000 bits, KDE upper bound, noise variance 1
    """
    lines = []
    at_epoch = flow.select(epoch=epoch)
    for quantity in (quantity for quantity in Quantity if quantity.of_layer):
        if series := next((series for series in at_epoch.series if series.key.quantity is quantity), None):
            lines += _lines_of(series, epoch, width, glyphs)
    if lines:
        labels = [one_line(layer.label) for layer in flow.layers]
        ends = f"layers {labels[0]} to {labels[-1]} in network order"
        lines.insert(0, f"U-Plot, epoch {epoch}: {ends}; {glyphs.full} saturated, {glyphs.missing} no number")
    return lines


def _lines_of(series: Series, epoch: int, width: int, glyphs: Glyphs) -> list[str]:
    """The curve of one series, cut to the width, and its range, on the curve's line where that fits."""
    finite = [row for row in series.estimates.values() if math.isfinite(row.bits)]
    text = sparkline(
        [series.bits(layer, epoch) for layer in series.layers],
        max((row.ceiling for row in finite if math.isfinite(row.ceiling)), default=1.0),
        [series.status(layer, epoch) is Status.SATURATED for layer in series.layers],
        glyphs=glyphs,
    )
    quantity = series.key.quantity
    name = quantity if glyphs is BLOCKS else quantity.replace("→", "->")
    piece_width = max(10, width - len(name) - 2)
    pieces = [text[start : start + piece_width] for start in range(0, len(text), piece_width)]
    lines = [f"{name if place == 0 else ' ' * len(name)} {piece}" for place, piece in enumerate(pieces)]
    if finite:
        least = min(finite, key=lambda row: row.bits)
        scheme = f", {one_line(series.key.scheme)}" if series.key.scheme else ""
        span = f"{least.bits:z.3f} (layer {one_line(least.layer)}) to {max(row.bits for row in finite):z.3f} of "
        span += f"{least.ceiling:.3f} {quantity.unit}, {series.key.text}{scheme}"
        if len(lines[-1]) + len(span) < width + 20:
            lines[-1] += f" {span}"
        else:
            lines.append(f"{' ' * len(name)} {span}")
    return lines


def _bits_over_epochs(judgement: Judgement, part: Part, glyphs: Glyphs) -> str:
    """What a part adds at every judged epoch, as a share of the most that any part adds."""
    bits = {(row.part, row.epoch): row.bits for row in judgement.verdicts if row.rule == "conditional"}
    top = max((value for value in bits.values() if math.isfinite(value)), default=0.0)
    values = [bits.get((part, epoch), math.nan) for epoch in judgement.epochs]
    return sparkline(values[-MOST_EPOCHS:], top, glyphs=glyphs)
