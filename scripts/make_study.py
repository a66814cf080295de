"""Write docs/study.md and its figures from a run on the real nuclei and the retraining of its variants.

    unetscope run --data stage1_train.zip --val stage1_test.zip --preset quick --epochs 150 --threads 1 --out runs/study
    unetscope verify runs/study --variants paper --variants no-skips --variants depths --seeds 3
    python scripts/start_trainings.py runs/study --seeds 8 --epochs 12
    python scripts/make_study.py runs/study

Every number on the page comes from these folders; nothing is trained here.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from unetscope import plots
from unetscope.analysis.outcomes import Training, Verification, guess_nats
from unetscope.analysis.verdict import judge
from unetscope.report.render import render_run
from unetscope.runs.folder import RunFolder
from unetscope.runs.verification import trained_variants, verification
from unetscope.table.parts import Part
from unetscope.table.records import Decision
from unetscope.table.variants import REFERENCE, removed_parts

DOCS = Path(__file__).parents[1] / "docs"
COPIED = {
    "information_plane_kde_upper_1_kmeans": "Fig. 3, information planes",
    "u_plot_input_kde_upper_1": "Fig. 4, I(X;M)",
    "u_plot_output_kde_upper_1_kmeans": "Fig. 4, I(Y;M)",
    "verdicts": "verdicts",
    "verification_dice": "Fig. 5, Dice of the variants",
    "verification": "verdicts beside outcomes",
    "merges_usable_convolutional": "what each merge joins",
}
PREDICTED = ("model1", "model2", "model3")
SHOWN = (10, 20, 50, 150)
FIRST_BUDGET = 10  # before, most trainings have not started
MARGINS = (0.01, 0.02, 0.05, 0.1, 0.2)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    words = parser.parse_args()
    run = RunFolder.open(words.run)
    render_run(run)
    found = verification(run, trained_variants(run))
    figures = DOCS / "figures"
    for name in COPIED:
        shutil.copy(run.figures / f"{name}.png", figures / f"study_{name}.png")
    for name in PREDICTED:
        _masks(run, name, figures)
    (DOCS / "study.md").write_text(_page(run, found), encoding="utf-8")


def _masks(run: RunFolder, variant: str, figures: Path) -> None:
    """The paper's Fig. 6: what a variant marks on a few images, along training, of the first seed that started."""
    for trial in trained_variants(run):
        folder = RunFolder.open(trial.path)
        if trial.variant.name == variant and folder.epochs()[-1].validation_dice > 0.1:
            truths = {picture.title: picture.pixels // 255 for picture in folder.pictures("truth")}
            predicted: dict[str, dict[int, np.ndarray]] = {}
            for picture in folder.pictures("prediction"):
                predicted.setdefault(picture.title, {})[picture.epoch] = picture.pixels
            rows = [
                (image.title, image.pixels, truths[image.title], predicted[image.title])
                for image in folder.pictures("image")
            ]
            drawn = plots.predictions(rows, list(SHOWN))
            plots.save(drawn.flat[0].figure, figures, f"study_predictions_{variant}")
            (figures / f"study_predictions_{variant}.svg").unlink()
            return


def _page(run: RunFolder, found: Verification) -> str:
    last = found.budgets[-1]
    about = run.facts["data"]
    seeds = sorted({training.seed for training in found.trainings})
    lines = [
        "# The study: which skips and levels segmenting nuclei needs",
        "",
        "Written by `scripts/make_study.py` from a run folder, as the numbers came out.",
        "",
        f"{about['train']['images']} training and {about['validation']['images']} validation images of the 2018 Data Science Bowl at "
        f"{run.configuration['data']['image_size']}×{run.configuration['data']['image_size']} pixels; width "
        f"{run.configuration['network']['width']}, Adam {run.configuration['training']['learning_rate']:g}, {last} epochs, seeds "
        f"{', '.join(map(str, seeds))}; {run.facts['device']}, torch {run.facts['versions']['torch']}. The paper trained 10,000 epochs of SGD at "
        "128×128 and width 16, one training a model: what follows is about this smaller setting.",
        "",
        "## How the variants did",
        "",
        "![Dice of the variants](figures/study_verification_dice.png)",
        "",
        *_variants(found, last),
        "",
        *_stuck(found),
        "",
        "## What was foretold, and what came",
        "",
        "![Verdicts along training](figures/study_verdicts.png)",
        "",
        "![Verdicts beside outcomes](figures/study_verification.png)",
        "",
        *_agreement(run, found),
        "",
        "The margin, 5 % of what the network tells, was settled on planted tasks; the gains of two epochs of this run had been seen "
        "by then. At other margins:",
        "",
        *_margins(run, found),
        "",
        "## What of the paper's claims held here",
        "",
        *_claims(found, last),
        "",
        "## What starts a training",
        "",
        *_starts(run),
        "",
        "## The paper's figures, here",
        "",
    ]
    for name, title in COPIED.items():
        if not name.startswith("veri") and name != "verdicts":
            lines += [f"{title}:", "", f"![{title}](figures/study_{name}.png)", ""]
    for name in PREDICTED:
        lines += [f"Fig. 6, {name}:", "", f"![Masks predicted by {name}](figures/study_predictions_{name}.png)", ""]
    return "\n".join(lines)


def _variants(found: Verification, last: int) -> list[str]:
    lines = [
        f"Dice: mean over images, then over the seeds that started, at epoch {last} and at its best. The target, "
        f"{found.target:.3f}, is the reference's best less {found.margin:g}.",
        "",
        "| variant | network | started | Dice | best | difference from model1 (95 %) | epochs to the target, by seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in found.variants:
        trainings = found.of(variant.name)
        started = [one for one in trainings if one.started_at is not None]
        outcome = found.outcome(variant.name, last)
        best = np.mean([max(record.validation_dice for record in one.records) for one in started])
        difference = outcome.difference
        told = (
            "—"
            if variant.name == REFERENCE
            else f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
        )
        reached = ", ".join(
            "never" if one is None else str(one) for one in (t.reaches(found.target) for t in trainings)
        )
        lines.append(
            f"| {variant.name} | {variant.text} | {len(started)} of {len(trainings)} | {outcome.dice:.3f} | {best:.3f} | {told} | {reached} |"
        )
    return lines


def _stuck(found: Verification) -> list[str]:
    stuck = [one for one in found.trainings if one.started_at is None]
    if not stuck:
        return ["Every training started."]
    return [
        f"- {one.variant} with seed {one.seed} did not start: {one.why_not}; its loss ends at "
        f"{one.records[-1].validation_loss / one.guess:.2f} of what a constant guess has. It is counted, and no evidence about a skip."
        for one in stuck
    ]


def _literal(run: RunFolder, found: Verification, epoch: int) -> dict[str, Decision]:
    """What the paper's rule says of each variant if a number at its ceiling is taken for a plateau, as the paper does."""
    told = run.flow().select(quantity="I(Y;M)", epoch=epoch).narrowed(estimator=None, resolution=None, labels=None)
    full = {row.layer: row.saturated for row in told.estimates}
    skips = sorted(run.flow().skips, key=lambda skip: skip.name)
    of_skip: dict[Part, Decision] = {
        skip.part: "redundant" if full[below.merge] else "needed" for skip, below in pairwise(skips)
    }
    depth = max(layer.level for layer in run.flow().layers)
    said: dict[str, Decision] = {}
    for variant in found.variants:
        decisions = {of_skip.get(part, "undecided") for part in removed_parts(variant, depth)}
        said[variant.name] = (
            "needed" if "needed" in decisions else "redundant" if decisions <= {"redundant"} else "undecided"
        )
    return said


def _agreement(run: RunFolder, found: Verification) -> list[str]:
    lines = [
        "A hit is a verdict that retraining confirms, a miss (**bold**) one that it contradicts; open is what the rule or the "
        "retraining leaves undecided. The last column is the paper's rule read literally, with a number at its ceiling taken for a "
        "plateau.",
        "",
        "| epochs | variant | outcome | conditional rule | paper's rule | read literally |",
        "|---|---|---|---|---|---|",
    ]
    score = {name: {"hit": 0, "miss": 0, "open": 0} for name in ("conditional", "plateau", "literally")}
    budgets = [epoch for epoch in found.budgets if epoch >= FIRST_BUDGET]
    for epoch in budgets:
        literal = _literal(run, found, epoch)
        for row in found.rows(epoch):
            said = {rule: row.predicted.get(rule, "undecided") for rule in ("conditional", "plateau")}
            said["literally"] = literal[row.variant.name]
            cells = []
            for name, decision in said.items():
                decided = "undecided" not in {decision, row.outcome.decision}
                agreement = ("hit" if decision == row.outcome.decision else "miss") if decided else "open"
                score[name][agreement] += 1
                cells.append({"hit": f"{decision} ✓", "miss": f"**{decision} ✗**", "open": decision}[agreement])
            lines.append(f"| {epoch} | {row.variant.name} | {row.outcome.decision} | {' | '.join(cells)} |")
    lines += [
        "",
        f"At {', '.join(map(str, budgets))} epochs together (budgets of one training are not independent of each other):",
        "",
    ]
    for name, counts in score.items():
        title = {
            "conditional": "conditional rule",
            "plateau": "paper's rule",
            "literally": "paper's rule, read literally",
        }[name]
        decided = counts["hit"] + counts["miss"]
        rate = f"{counts['hit']} of {decided} right" if decided else "nothing decided"
        lines.append(f"- {title}: {rate}, {counts['miss']} wrong, {counts['open']} open")
    return lines


def _margins(run: RunFolder, found: Verification) -> list[str]:
    """What the conditional rule would have said at other margins, so that nobody has to believe the one chosen."""
    lines = ["| margin, of what the network tells | right | wrong | open |", "|---|---|---|---|"]
    for margin in MARGINS:
        judged = replace(found, judgement=judge(run.flow(), margin=margin))
        score = judged.score(epochs=[epoch for epoch in found.budgets if epoch >= FIRST_BUDGET])
        lines.append(f"| {margin:.0%} | {score['hit']} | {score['miss']} | {score['open']} |")
    return lines


def _claims(found: Verification, last: int) -> list[str]:
    claims = (
        ("model2", "the top skip is redundant: Model 2 catches up with Model 1"),
        ("model3", "the top two are redundant: Model 3 catches up later"),
        ("model4", "the third is needed: Model 4 never catches up"),
    )
    lines = []
    for name, claim in claims:
        outcome = found.outcome(name, last)
        expected = "needed" if name == "model4" else "redundant"
        verdict = (
            "not decided here"
            if outcome.decision == "undecided"
            else "held"
            if outcome.decision == expected
            else "did not hold"
        )
        lines.append(f"- {claim}: **{verdict}**. {outcome.text[0].upper()}{outcome.text[1:]}.")
    return lines


def _starts(run: RunFolder) -> list[str]:
    folder = run.path / "starts"
    if not folder.is_dir():
        return ["Not studied: `scripts/start_trainings.py` has not run."]
    shares = [run.facts["data"][part]["foreground share"] for part in ("train", "validation")]
    counted: dict[str, dict[str, list[Training]]] = {}
    for path in sorted(folder.glob("*/*/seed-*")):
        job = RunFolder.open(path)
        if job.ending is not None:
            one = Training(path.parent.name, 0, job.epochs(), guess_nats(*shares), job.ending["constant channels"])
            counted.setdefault(job.facts["recipe"], {}).setdefault(path.parent.name, []).append(one)
    variants = sorted({variant for found in counted.values() for variant in found})
    epochs = max(one.records[-1].epoch for found in counted.values() for ones in found.values() for one in ones)
    lines = [
        f"Trainings of {epochs} epochs with other seeds, told apart by whether the loss falls a tenth below a constant guess's: "
        "started of all, and the median epoch at which they did.",
        "",
        f"| recipe | {' | '.join(variants)} |",
        f"|---|{'---|' * len(variants)}",
    ]
    for recipe, found in counted.items():
        cells = []
        for variant in variants:
            ones = found.get(variant, [])
            started = [one.started_at for one in ones if one.started_at is not None]
            median = f", epoch {np.median(started):g}" if started else ""
            cells.append(f"{len(started)} of {len(ones)}{median}")
        lines.append(f"| {recipe} | {' | '.join(cells)} |")
    dead = sum(
        1 in one.constant.values()
        for found in counted.values()
        for ones in found.values()
        for one in ones
        if one.started_at is None
    )
    stuck = sum(one.started_at is None for found in counted.values() for ones in found.values() for one in ones)
    return [*lines, "", f"Of {stuck} that did not start, {dead} have a layer that is the same for every image."]


if __name__ == "__main__":
    main()
