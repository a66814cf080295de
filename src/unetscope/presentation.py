"""A run folder to its figures and its page, without torch. Imports records, flow, descents, rankings, store, variants,
verification, plots, report and watching.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unetscope import plots
from unetscope.descents import dpi_violations
from unetscope.flow import Flow
from unetscope.rankings import ranking
from unetscope.records import estimator_text
from unetscope.report import ReportFigure, write_report
from unetscope.store import RunFolder
from unetscope.variants import REFERENCE
from unetscope.verification import DICE_MARGIN, judgement_of, trained, verification
from unetscope.watching import Silent, Watcher

MOST_RESOLUTIONS = 3  # of an estimator, of each of which the page has figures; of more, a sweep
SHOWN_OF_SWEEP = (1.0, 0.2)  # the paper's, if they are among them
SHARES_SHOWN = (0.1, 0.2, 0.5, 1.0)  # of the training, as the paper's Fig. 6 has it: 1,000 to 10,000 of 10,000 epochs
UNLEARNT_DICE = 0.1


@dataclass(frozen=True)
class Drawing:
    """A figure to be drawn: the name of its files, what the page says of it, and what draws its axes."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Any]


def present(run: RunFolder, *, watcher: Watcher | None = None, dice_margin: float = DICE_MARGIN) -> Path:
    """Draw every figure of a run as PNG and SVG and write `report.html`; returns the page's path.

    dice_margin: the loss of Dice that counts as none where retrained variants are compared.
    """
    watcher = watcher or Silent()
    flow = run.flow()
    drawings = list(_drawings(run, flow, dice_margin))
    watcher.stage("figures", len(drawings))
    run.figures.mkdir(exist_ok=True)
    figures = []
    for done, drawing in enumerate(drawings):
        watcher.advance(done, drawing.title)
        png, svg = plots.save(_figure_of(drawing.draw()), run.figures, drawing.name)
        figures.append(ReportFigure(drawing.title, drawing.caption, png, svg))
    watcher.advance(len(drawings))
    return write_report(
        run.path / "report.html",
        title=f"Information flow: {run.path.resolve().name}",
        summary=_summary(run, flow),
        facts=_facts(run),
        figures=figures,
        notes=_notes(run, flow),
    )


def _drawings(run: RunFolder, flow: Flow, dice_margin: float) -> Iterator[Drawing]:
    """The paper's six figures in its order, by the first estimator and label scheme; then the same by the others."""
    yield Drawing(
        "architecture",
        "The network",
        "Layers as the paper numbers them, with channels × height × width of one image; skips as arrows into their merge.",
        partial(plots.architecture, flow.layers, flow.skips),
    )
    yield from _verdicts(run, flow, dice_margin)
    swept = _swept(flow)
    series_of_input = [
        (estimator, resolution)
        for estimator, resolution in flow.select(quantity="I(X;M)").series
        if estimator not in swept or resolution == swept[estimator]
    ]
    first, others = series_of_input[:1], series_of_input[1:]
    yield from _usable(flow)
    for labels in flow.labels[:1]:
        yield from _clusters(run, labels)
        yield from (_plane(flow, *series, labels) for series in first)
    for series in first:
        yield _u_plot_of_input(flow, *series)
        yield from (_u_plot_of_label(flow, *series, labels) for labels in flow.labels[:1])
    if records := run.epochs():
        yield Drawing(
            "dice",
            "Dice during training",
            "Training: running mean over the epoch's steps, as weights moved. Validation: the whole set, after the epoch.",
            partial(plots.dice_curves, {run.path.name: records}),
        )
    if rows := _prediction_rows(run):
        yield Drawing(
            "predictions",
            "Predicted masks along training",
            "Validation images from a nearly empty to a full mask, with what the network marks at each epoch.",
            partial(plots.predictions, rows, _shown_epochs(rows)),
        )
    for labels in flow.labels[1:]:
        yield from _clusters(run, labels)
        for series in first:
            yield _plane(flow, *series, labels)
            yield _u_plot_of_label(flow, *series, labels)
    for series in others:
        yield _u_plot_of_input(flow, *series)
        yield from (_u_plot_of_label(flow, *series, labels) for labels in flow.labels)
    yield from (_sweep(flow, estimator) for estimator in swept)
    yield from (_limits(flow, *series) for series in first if _has_limits(flow, *series))


def _verdicts(run: RunFolder, flow: Flow, dice_margin: float) -> Iterator[Drawing]:
    """What the rules say, and what retraining says of them, if there is any of it."""
    if (judgement := judgement_of(run)) is None:
        return
    yield Drawing(
        "verdicts",
        "Which skips and levels are needed",
        "What each rule says of every skip and level for a training of so many epochs; level2 is all of the network "
        "below skip2. Saturated and uncertain numbers decide nothing.",
        partial(plots.verdict_map, judgement),
    )
    begun = [trial for trial in trained(run) if RunFolder.open(trial.path).last_epoch() > 0]
    names = {trial.variant.name for trial in begun}
    if REFERENCE in names and len(names) > 1:
        found = verification(run, begun, margin=dice_margin)
        yield Drawing(
            "verification_dice",
            "Variants, retrained",
            "Validation Dice of the network without some of its parts: mean and range over the seeds that started.",
            partial(plots.dice_bands, found),
        )
        yield Drawing(
            "verification",
            "Were the verdicts right?",
            "The loss of Dice against the whole network, paired by seed, with 95 % intervals over seeds and images, beside "
            "what the rules said. A tick is a verdict that was right, a cross (red) one that was wrong.",
            partial(plots.outcomes, found),
        )


def _swept(flow: Flow) -> dict[str, float]:
    """The estimators with so many resolutions that a figure of each would be too many, and the one that is shown alone."""
    found: dict[str, list[float]] = {}
    for estimator, resolution in flow.select(quantity="I(X;M)").series:
        found.setdefault(estimator, []).append(resolution)
    return {
        estimator: next((size for size in sizes if size in SHOWN_OF_SWEEP), sizes[0])
        for estimator, sizes in found.items()
        if len(sizes) > MOST_RESOLUTIONS
    }


def _sweep(flow: Flow, estimator: str) -> Drawing:
    return Drawing(
        f"sweep_{estimator}",
        f"Does the ranking of layers hold? {estimator_text(estimator, 0).split(',')[0]}",
        "I(X;M) of every layer over the resolution, and how the ranking agrees with that at the resolution which tells most "
        "layers apart. Outside the shaded range a ranking says more of the resolution than of the network.",
        partial(plots.resolution_sweep, flow, quantity="I(X;M)", estimator=estimator),
    )


def _has_limits(flow: Flow, estimator: str, resolution: float) -> bool:
    rows = flow.select(quantity="I(X;M)", estimator=estimator, resolution=resolution, epoch=flow.epochs[-1]).estimates
    return any(math.isfinite(row.extrapolated) for row in rows)


def _limits(flow: Flow, estimator: str, resolution: float) -> Drawing:
    return Drawing(
        f"limits_{estimator}_{resolution:g}",
        f"Are there enough images? {estimator_text(estimator, resolution)}",
        "I(X;M) of a quarter, of half and of all images at the last epoch, and where it goes with ever more of them. Where the "
        "curves lie apart, the estimate counts images.",
        partial(plots.image_limits, flow, quantity="I(X;M)", estimator=estimator, resolution=resolution),
    )


def _usable(flow: Flow) -> Iterator[Drawing]:
    for estimator, _ in flow.select(quantity="I_V(M→Y)").series:
        yield Drawing(
            f"u_plot_{estimator}",
            f"U-Plot of usable information: {estimator_text(estimator, 0)}",
            "How much of the mask, pixel by pixel, can be read off each layer of held-out images, with 95 % intervals. "
            "It does not end at the number of images, so layers can be ranked after training too.",
            partial(plots.u_plot, flow, quantity="I_V(M→Y)", estimator=estimator),
        )
        yield Drawing(
            f"steps_{estimator}",
            f"Which layers can be told apart: {estimator_text(estimator, 0)}",
            "The step of usable information from each layer to the next, paired over the held-out images, with 95 % intervals.",
            partial(plots.neighbour_steps, flow, quantity="I_V(M→Y)", estimator=estimator),
        )
    for estimator, _ in flow.select(quantity="I_V(S→Y|U)").series:
        yield Drawing(
            f"merges_{estimator}",
            f"What each merge joins: {estimator_text(estimator, 0)}",
            "What the skip adds to the upsampled path, what that adds to the skip, and what both hold, at each merge, with "
            "95 % intervals over held-out images.",
            partial(plots.merge_gains, flow, estimator=estimator),
        )


def _u_plot_of_input(flow: Flow, estimator: str, resolution: float) -> Drawing:
    return Drawing(
        f"u_plot_input_{estimator}_{resolution:g}",
        f"U-Plot of I(X;M): {estimator_text(estimator, resolution)}",
        "What each layer tells about which image it saw. Hollow points are at the ceiling and cannot be ranked.",
        partial(plots.u_plot, flow, quantity="I(X;M)", estimator=estimator, resolution=resolution),
    )


def _u_plot_of_label(flow: Flow, estimator: str, resolution: float, labels: str) -> Drawing:
    return Drawing(
        f"u_plot_output_{estimator}_{resolution:g}_{_file_name(labels)}",
        f"U-Plot of I(Y;M): {estimator_text(estimator, resolution)}, {labels}",
        "What each layer tells about the class of the mask. Hollow points are at the ceiling and cannot be ranked.",
        partial(plots.u_plot, flow, quantity="I(Y;M)", estimator=estimator, resolution=resolution, labels=labels),
    )


def _plane(flow: Flow, estimator: str, resolution: float, labels: str) -> Drawing:
    return Drawing(
        f"information_plane_{estimator}_{resolution:g}_{_file_name(labels)}",
        f"Information planes: {estimator_text(estimator, resolution)}, {labels}",
        "One panel a layer; a point is a marked epoch, from dark (early) to light (late).",
        partial(plots.information_plane, flow, estimator=estimator, resolution=resolution, labels=labels),
    )


def _clusters(run: RunFolder, labels: str) -> Iterator[Drawing]:
    """Nothing for a scheme of which no pictures were kept."""
    grouped: dict[str, list[Any]] = {}
    for picture in run.pictures(labels):
        grouped.setdefault(picture.title, []).append(picture.pixels // 255)
    if grouped:
        yield Drawing(
            f"masks_by_cluster_{_file_name(labels)}",
            f"Masks by class: {labels}",
            "Probe masks of the largest classes that stand for Y in I(Y;M), four of each.",
            partial(plots.masks_by_cluster, list(grouped.items())),
        )


def _figure_of(axes: Any) -> Figure:
    first = axes if not isinstance(axes, np.ndarray) else axes.flat[0]
    figure: Figure = first.figure
    return figure


def _file_name(labels: str) -> str:
    return labels.split("(", maxsplit=1)[0]


def _prediction_rows(run: RunFolder) -> list[tuple[str, Any, Any, dict[int, Any]]]:
    truths = {picture.title: picture.pixels // 255 for picture in run.pictures("truth")}
    predicted: dict[str, dict[int, Any]] = {}
    for picture in run.pictures("prediction"):
        predicted.setdefault(picture.title, {})[picture.epoch] = picture.pixels
    return [
        (image.title, image.pixels, truths[image.title], predicted[image.title])
        for image in run.pictures("image")
        if image.title in truths and image.title in predicted
    ]


def _shown_epochs(rows: list[tuple[str, Any, Any, dict[int, Any]]]) -> list[int]:
    """The marked epochs nearest to some shares of the training, the last among them."""
    epochs = sorted(set.intersection(*(set(row[3]) for row in rows)))
    return sorted({min(epochs, key=lambda epoch: abs(epoch - share * epochs[-1])) for share in SHARES_SHOWN})


def _summary(run: RunFolder, flow: Flow) -> str:
    """The run in two sentences, from its own numbers."""
    records = run.epochs()
    if not flow.epochs:
        return "This run has not been measured yet."
    if not records:
        return f"Measured at epochs {', '.join(map(str, flow.epochs))}."
    last = records[-1]
    planned = run.configuration.get("training", {}).get("epochs", last.epoch)
    unfinished = f" of {planned} (the run is not finished)" if last.epoch < planned else ""
    sentence = (
        f"After {last.epoch} epochs{unfinished} the network reaches a validation Dice of {last.validation_dice:.3f}."
    )
    if last.validation_dice < UNLEARNT_DICE:
        sentence += " It has not learnt to segment: what is measured is not the information of a trained network."
    estimator, resolution = flow.select(quantity="I(X;M)").series[0]
    rows = flow.select(quantity="I(X;M)", estimator=estimator, resolution=resolution, epoch=flow.epochs[-1]).estimates
    told = [row for row in rows if not math.isnan(row.bits)]
    saturated = sum(row.saturated for row in told)
    if not told:
        return sentence
    lowest = min(told, key=lambda row: row.bits)
    return (
        f"{sentence} By {estimator_text(estimator, resolution)}, I(X;M) is lowest at layer {lowest.layer}: "
        f"{lowest.bits:.1f} of at most {lowest.ceiling:.1f} bits. {saturated} of {len(told)} recorded tensors are at the "
        "ceiling, where they cannot be ranked."
    )


def _notes(run: RunFolder, flow: Flow) -> tuple[str, ...]:
    """What a reader must know before believing the figures."""
    judgement = judgement_of(run)
    notes = [f"{verdict}." for verdict in judgement or () if verdict.rule == "conditional"]
    if judgement is not None and (design := judgement.design()) is not None:
        notes.append(f"Proposed: {design.text}, to be retrained before it is believed.")
    rows = [row for row in flow.estimates if row.quantity == "I(Y;M)"]
    for labels in flow.labels:
        chosen = [row for row in rows if row.labels == labels]
        reasons = Counter(row.reason.partition(":")[0] for row in chosen if row.reason)
        counted = "".join(
            f"; {reason} ({count} of {len(chosen)} estimates)" for reason, count in sorted(reasons.items())
        )
        alone = chosen[0].singleton_share
        few = f"; {alone:.0%} of the images are alone in their class, so telling them is telling the image" * (
            alone > 0.05
        )
        notes.append(f"{labels}: H(Y) = {chosen[0].ceiling:.2f} bits{few}{counted}.")
    inputs = flow.select(quantity="I(X;M)")
    for estimator, resolution in inputs.series:
        if estimator not in _swept(flow) and len(inputs.select(estimator=estimator).series) == 1:
            notes += _note_of_series(inputs, estimator, resolution)
    notes += [ranking(flow, estimator=estimator).text for estimator in _swept(flow)]
    return tuple(notes)


def _note_of_series(inputs: Flow, estimator: str, resolution: float) -> list[str]:
    """How many layers at the last epoch are beyond what so few images tell, and where data processing is violated."""
    rows = inputs.select(estimator=estimator, resolution=resolution, epoch=inputs.epochs[-1]).estimates
    beyond = [row for row in rows if row.reason.startswith("out of domain")]
    notes = []
    if beyond:
        numbered = any(math.isfinite(row.bits) for row in beyond)
        meant = f"their numbers describe these {rows[0].n} images, not ever more of them" if numbered else "no number"
        notes.append(
            f"{estimator_text(estimator, resolution)}: {len(beyond)} of {len(rows)} tensors are out of its domain at epoch "
            f"{inputs.epochs[-1]}: {meant}."
        )
    if estimator.startswith(("kde", "mixture", "binning")):
        check = dpi_violations(inputs, estimator=estimator, resolution=resolution)
        notes += [check.text] if check.violations else []
    return notes


def _facts(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    """The run's configuration and facts as sections of names and values."""
    facts, configuration = run.facts, run.configuration
    sections: dict[str, Mapping[str, Any]] = {
        "Run": {k: v for k, v in configuration.items() if not isinstance(v, dict)}
    }
    sections |= {name.capitalize(): values for name, values in configuration.items() if isinstance(values, dict)}
    for part, about in facts.get("data", {}).items():
        sections[f"{part.capitalize()} images"] = about
    sections["Software"] = {"device": facts.get("device", ""), **facts.get("versions", {})}
    sections["Labels"] = {name: f"H(Y) = {bits:.3f} bits" for name, bits in facts.get("H(Y) bits", {}).items()}
    return sections
