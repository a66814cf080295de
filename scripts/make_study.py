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
from unetscope.analysis.outcomes import Verification, guess_nats
from unetscope.analysis.trainings import Training
from unetscope.analysis.verdict import judge
from unetscope.report.render import render_run
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import trained_variants
from unetscope.table.parts import REFERENCE, Part, removed_parts
from unetscope.table.quantities import Decision

DOCS = Path(__file__).parents[1] / "docs"
COPIED = {
    "information_plane_kde_upper_1_kmeans": "Fig. 3, information planes",
    "u_plot_input_kde_upper_1": "Fig. 4, I(X;M)",
    "u_plot_output_kde_upper_1_kmeans": "Fig. 4, I(Y;M)",
    "verdicts": "verdicts",
    "verification_dice": "Fig. 5, Dice of the variants",
    "verification": "verdicts and outcomes",
    "merges_usable_convolutional": "Information at each merge",
}
PREDICTED = ("model1", "model2", "model3")
SHOWN = (10, 20, 50, 150)
FIRST_BUDGET = 10  # before, most trainings have not started
MARGINS = (0.01, 0.02, 0.05, 0.1, 0.2)


def main() -> None:
    """Read the run, copy the figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    words = parser.parse_args()
    run = RunFolder.open(words.run)
    render_run(run)
    results = AnalysedRun(run).verification_of(trained_variants(run))
    figures = DOCS / "figures"
    for name in COPIED:
        shutil.copy(run.figures / f"{name}.png", figures / f"study_{name}.png")
    for name in PREDICTED:
        _masks(run, name, figures)
    (DOCS / "study.md").write_text(_page(run, results), encoding="utf-8")


def _masks(run: RunFolder, variant: str, figures: Path) -> None:
    """The paper's Fig. 6: predicted masks of a few images during training, of the first seed that started."""
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


def _page(run: RunFolder, results: Verification) -> str:
    last = results.budgets[-1]
    about = run.facts["data"]
    seeds = sorted({training.seed for training in results.trainings})
    lines = [
        "# Verdicts compared with retraining, on nuclei images",
        "",
        "`scripts/make_study.py` writes this page from a run folder.",
        "",
        f"{about['train']['images']} training and {about['validation']['images']} validation images of the 2018 Data Science Bowl at "
        f"{run.configuration['data']['image_size']}×{run.configuration['data']['image_size']} pixels; width "
        f"{run.configuration['network']['width']}, Adam {run.configuration['training']['learning_rate']:g}, {last} epochs, seeds "
        f"{', '.join(map(str, seeds))}; {run.facts['device']}, torch {run.facts['versions']['torch']}. The paper trains 10,000 epochs of SGD at "
        "128×128 and width 16, once per model. The results below apply to this smaller setting.",
        "",
        "## Dice of the variants",
        "",
        "![Dice of the variants](figures/study_verification_dice.png)",
        "",
        *_variants(results, last),
        "",
        *_stuck(results),
        "",
        "## Predictions and outcomes",
        "",
        "![Verdicts during training](figures/study_verdicts.png)",
        "",
        "![Verdicts and outcomes](figures/study_verification.png)",
        "",
        *_agreement(run, results),
        "",
        "The margin, 5 % of the information in the network's output, was chosen on planted tasks, after the gains of two epochs of this "
        "run had been seen. Results at other margins:",
        "",
        *_margins(run, results),
        "",
        "## The paper's claims in this setting",
        "",
        *_claims(results, last),
        "",
        "## Which trainings start",
        "",
        *_starts(run),
        "",
        "## The paper's figures in this setting",
        "",
    ]
    for name, title in COPIED.items():
        if not name.startswith("veri") and name != "verdicts":
            lines += [f"{title}:", "", f"![{title}](figures/study_{name}.png)", ""]
    for name in PREDICTED:
        lines += [f"Fig. 6, {name}:", "", f"![Masks predicted by {name}](figures/study_predictions_{name}.png)", ""]
    return "\n".join(lines)


def _variants(results: Verification, last: int) -> list[str]:
    lines = [
        f"Dice is the mean over images, over the seeds that started, and over the last tenth of {last} epochs; at its best it is that of one epoch. The target, "
        f"{results.target:.3f}, is the best Dice of the reference (model1) minus {results.margin:g}.",
        "",
        "| variant | network | started | Dice | best | difference from model1 (95 %) | epochs to the target, by seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in results.variants:
        trainings = results.of(variant.name)
        started = [training for training in trainings if training.started_at is not None]
        outcome = results.outcome(variant.name, last)
        best = np.mean([max(record.validation_dice for record in training.records) for training in started])
        difference = outcome.difference
        gap = (
            "—"
            if variant.name == REFERENCE
            else f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
        )
        reached = ", ".join(
            "never" if epoch is None else str(epoch) for epoch in (t.reaches(results.target) for t in trainings)
        )
        lines.append(
            f"| {variant.name} | {variant.text} | {len(started)} of {len(trainings)} | {outcome.dice:.3f} | {best:.3f} | {gap} | {reached} |"
        )
    return lines


def _stuck(results: Verification) -> list[str]:
    stuck = [training for training in results.trainings if training.started_at is None]
    if not stuck:
        return ["Every training started."]
    return [
        f"- {training.variant} with seed {training.seed} did not start: {training.why_not}; its final loss is "
        f"{training.records[-1].validation_loss / training.guess:.2f} of the loss of a constant prediction. It is counted, but is no evidence about a skip."
        for training in stuck
    ]


def _literal(run: RunFolder, results: Verification, epoch: int) -> dict[str, Decision]:
    """Each variant by the paper's rule, with an estimate at its ceiling counted as a plateau, as in the paper."""
    estimates = run.flow().select(quantity="I(Y;M)", epoch=epoch).narrowed(estimator=None, resolution=None, labels=None)
    full = {row.layer: row.saturated for row in estimates.estimates}
    skips = sorted(run.flow().skips, key=lambda skip: skip.name)
    of_skip: dict[Part, Decision] = {
        skip.part: "redundant" if full[below.merge] else "needed" for skip, below in pairwise(skips)
    }
    depth = max(layer.level for layer in run.flow().layers)
    literal: dict[str, Decision] = {}
    for variant in results.variants:
        decisions = {of_skip.get(part, "undecided") for part in removed_parts(variant, depth)}
        literal[variant.name] = (
            "needed" if "needed" in decisions else "redundant" if decisions <= {"redundant"} else "undecided"
        )
    return literal


def _agreement(run: RunFolder, results: Verification) -> list[str]:
    lines = [
        "✓: retraining confirms the verdict. **✗**: retraining contradicts it. No mark: the rule or the retraining is undecided (open "
        "in the counts below). The last column applies the paper's rule literally: an estimate at its ceiling counts as a plateau.",
        "",
        "| epochs | variant | outcome | conditional rule | paper's rule | applied literally |",
        "|---|---|---|---|---|---|",
    ]
    score = {name: {"hit": 0, "miss": 0, "open": 0} for name in ("conditional", "plateau", "literally")}
    budgets = [epoch for epoch in results.budgets if epoch >= FIRST_BUDGET]
    for epoch in budgets:
        literal = _literal(run, results, epoch)
        for row in results.rows(epoch):
            by_rule = {rule: row.predicted.get(rule, "undecided") for rule in ("conditional", "plateau")}
            by_rule["literally"] = literal[row.variant.name]
            cells = []
            for name, decision in by_rule.items():
                decided = "undecided" not in {decision, row.outcome.decision}
                agreement = ("hit" if decision == row.outcome.decision else "miss") if decided else "open"
                score[name][agreement] += 1
                cells.append({"hit": f"{decision} ✓", "miss": f"**{decision} ✗**", "open": decision}[agreement])
            lines.append(f"| {epoch} | {row.variant.name} | {row.outcome.decision} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Totals over {', '.join(map(str, budgets))} epochs (the epochs of one training are not independent):",
        "",
    ]
    for name, counts in score.items():
        title = {
            "conditional": "conditional rule",
            "plateau": "paper's rule",
            "literally": "paper's rule, applied literally",
        }[name]
        decided = counts["hit"] + counts["miss"]
        rate = f"{counts['hit']} of {decided} right" if decided else "nothing decided"
        lines.append(f"- {title}: {rate}, {counts['miss']} wrong, {counts['open']} open")
    return lines


def _margins(run: RunFolder, results: Verification) -> list[str]:
    """The results of the conditional rule at other margins than the default."""
    lines = ["| margin | right | wrong | open |", "|---|---|---|---|"]
    for margin in MARGINS:
        judged = replace(results, judgement=judge(run.flow(), margin=margin))
        score = judged.score("conditional", epochs=[epoch for epoch in results.budgets if epoch >= FIRST_BUDGET])
        lines.append(f"| {margin:.0%} | {score['hit']} | {score['miss']} | {score['open']} |")
    return lines


def _claims(results: Verification, last: int) -> list[str]:
    claims = (
        ("model2", "The top skip is redundant: Model 2 reaches the Dice of Model 1"),
        ("model3", "The top two skips are redundant: Model 3 reaches it later"),
        ("model4", "The third skip is needed: Model 4 never reaches it"),
    )
    lines = []
    for name, claim in claims:
        outcome = results.outcome(name, last)
        expected = "needed" if name == "model4" else "redundant"
        verdict = (
            "undecided"
            if outcome.decision == "undecided"
            else "confirmed"
            if outcome.decision == expected
            else "not confirmed"
        )
        lines.append(f"- {claim}: **{verdict}**. {outcome.text[0].upper()}{outcome.text[1:]}.")
    return lines


def _starts(run: RunFolder) -> list[str]:
    folder = run.path / "starts"
    if not folder.is_dir():
        return ["Not measured: `scripts/start_trainings.py` has not run."]
    shares = [run.facts["data"][part]["foreground share"] for part in ("train", "validation")]
    counted: dict[str, dict[str, list[Training]]] = {}
    for path in sorted(folder.glob("*/*/seed-*")):
        job = RunFolder.open(path)
        if job.ending is not None:
            training = Training(path.parent.name, 0, job.epochs(), guess_nats(*shares), job.ending["constant channels"])
            counted.setdefault(job.facts["recipe"], {}).setdefault(path.parent.name, []).append(training)
    variants = sorted({variant for by_variant in counted.values() for variant in by_variant})
    epochs = max(
        training.records[-1].epoch
        for by_variant in counted.values()
        for trainings in by_variant.values()
        for training in trainings
    )
    lines = [
        f"Trainings of {epochs} epochs with other seeds. A training starts when its loss falls to 90 % of the loss of a constant prediction. "
        "The table lists how many trainings start, and the median epoch at which they do.",
        "",
        f"| recipe | {' | '.join(variants)} |",
        f"|---|{'---|' * len(variants)}",
    ]
    for recipe, by_variant in counted.items():
        cells = []
        for variant in variants:
            trainings = by_variant.get(variant, [])
            started = [training.started_at for training in trainings if training.started_at is not None]
            median = f", epoch {np.median(started):g}" if started else ""
            cells.append(f"{len(started)} of {len(trainings)}{median}")
        lines.append(f"| {recipe} | {' | '.join(cells)} |")
    dead = sum(
        1 in training.constant.values()
        for by_variant in counted.values()
        for trainings in by_variant.values()
        for training in trainings
        if training.started_at is None
    )
    stuck = sum(
        training.started_at is None
        for by_variant in counted.values()
        for trainings in by_variant.values()
        for training in trainings
    )
    return [*lines, "", f"Of the {stuck} that do not start, {dead} have a layer that is the same for every image."]


if __name__ == "__main__":
    main()
