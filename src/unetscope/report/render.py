"""The figures and the page of runs, without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unetscope import plots
from unetscope.base import NoProgress, Progress, remove_abandoned
from unetscope.report.page import ReportFigure, title_of, write_report
from unetscope.report.picture_data import Example, examples, of_volumes
from unetscope.report.report_data import report_data_of
from unetscope.report.sentences import swept_estimators
from unetscope.runs import AnalysedRun, RunFolder, refuse_own_files
from unetscope.table import Flow, Quantity, estimator_text, estimator_title

SHARES_SHOWN = (0.1, 0.2, 0.5, 1.0)  # of the training, as the paper's Fig. 6 has it: 1,000 to 10,000 of 10,000 epochs


@dataclass(frozen=True)
class Drawing:
    """A figure to draw.

    name: of its files. draw: returns its axes. still: whether the page embeds the figure, because its script draws no
    such figure.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[], Any]
    still: bool = False

    def figure(self) -> Figure:
        """The drawn figure."""
        axes = self.draw()
        figure: Figure = (axes.flat[0] if isinstance(axes, np.ndarray) else axes).figure
        return figure


def drawings(run: AnalysedRun) -> Iterator[Drawing]:
    """The paper's six figures in its order, by the first estimator and label scheme, then by the others."""
    flow = run.flow
    yield Drawing(
        "architecture",
        "The network",
        "Layers as the paper numbers them, with channels × height × width of one image; skips as arrows into their merge.",
        partial(plots.architecture, flow.layers, flow.skips),
    )
    yield from _verdicts(run)
    yield from _costs(run)
    sweeps = swept_estimators(flow)
    series_of_input = [
        (key.estimator, key.resolution)
        for key in (series.key for series in flow.series)
        if key.quantity is Quantity.INPUT and sweeps.get(key.estimator, key.resolution) == key.resolution
    ]
    first, others = series_of_input[:1], series_of_input[1:]
    yield from _usable(flow)
    for labels in flow.labels[:1]:
        yield from _clusters(run, labels)
        yield from (_plane(flow, *series, labels) for series in first)
    for series in first:
        yield _u_plot_of_input(flow, *series)
        yield from (_u_plot_of_label(flow, *series, labels) for labels in flow.labels[:1])
    yield from _training(run)
    for labels in flow.labels[1:]:
        yield from _clusters(run, labels)
        for series in first:
            yield _plane(flow, *series, labels)
            yield _u_plot_of_label(flow, *series, labels)
    for series in others:
        yield _u_plot_of_input(flow, *series)
        yield from (_u_plot_of_label(flow, *series, labels) for labels in flow.labels)
    yield from (_sweep(flow, estimator) for estimator in sweeps)
    yield from (_limits(flow, *series) for series in first if _has_limits(flow, *series))


def _training(run: AnalysedRun) -> Iterator[Drawing]:
    """How the training went: Dice, that of each class, and predicted masks; nothing of what the run does not have."""
    if run.epochs:
        yield Drawing(
            "dice",
            "Dice during training",
            "Training: running mean over the epoch's steps, as weights moved. Validation: the whole set, after the epoch.",
            partial(plots.dice_curves, {run.path.name: run.epochs}),
        )
    if any(record.dice_per_class for record in run.epochs):
        yield Drawing(
            "dice_by_class",
            "Dice of each class during training",
            "Validation images after each epoch; a class counts in the images whose mask has it.",
            partial(plots.class_dice_curves, run.epochs),
        )
    if rows := examples(run):
        yield Drawing(
            "predictions",
            "Predicted masks along training",
            (
                "Validation images from a nearly empty to a full mask, with what the network marks at each epoch."
                if run.class_map is None
                else "Validation images from few classes to many, with the class that the network marks at each epoch."
            )
            + of_volumes(run, " Of each volume the middle slice is shown, with the Dice of that slice."),
            partial(plots.predictions, [row.pixels for row in rows], _shown_epochs(rows), class_map=run.class_map),
        )


def _verdicts(run: AnalysedRun) -> Iterator[Drawing]:
    """The verdicts of the rules and, if variants were retrained, their outcomes; nothing for a run without verdicts."""
    if run.judgement is None:
        return
    yield Drawing(
        "verdicts",
        "Which skips and levels are needed",
        "What each rule says of every skip and level for a training of so many epochs; level2 is all of the network "
        "below skip2. Saturated and uncertain numbers decide nothing.",
        partial(plots.verdict_map, run.judgement),
    )
    if run.verification is not None:
        yield Drawing(
            "verification_dice",
            "Variants, retrained",
            "Validation Dice of the network without some of its parts: mean and range over the seeds that started.",
            partial(plots.dice_bands, run.verification),
        )
        yield Drawing(
            "verification",
            "Were the verdicts right?",
            "The loss of Dice against the whole network, paired by seed, with 95 % intervals over seeds and images, wider if "
            "seeds were added after a look, beside the verdicts. The thin line below is the 90 % interval of the loss that was "
            "expected. A tick is a verdict that was right, a cross (red) one that was wrong.",
            partial(plots.outcomes, run.verification),
        )


def _costs(run: AnalysedRun) -> Iterator[Drawing]:
    """Dice against cost, of retrained variants or else of designs of which a loss is expected; nothing where none has costs."""
    costs = {design.name: saved for design, saved in run.design_costs}
    proposed = None if run.judgement is None else run.judgement.design()
    named = [design.name for design in run.designs if proposed is not None and design.is_same_network(proposed)]
    ring = (
        "A pale one is beaten: another network has no less Dice at no more cost. The ring is what the verdicts propose."
    )
    if run.verification is not None and any(
        row.variant.name in costs and row.outcome.pairs for row in run.verification.rows()
    ):
        yield Drawing(
            "dice_against_cost",
            "What Dice costs",
            f"The loss of Dice of every retrained variant, with its interval, against multiply-adds and parameters. {ring}",
            partial(plots.dice_against_cost, run.verification, costs, proposed=next(iter(named), "")),
            still=True,
        )
        return
    losses = None if run.judgement is None else run.judgement.losses.get(run.judgement.epochs[-1])
    if losses is not None and any(each.design.name in costs for each in losses.losses):
        yield Drawing(
            "dice_against_cost",
            "What Dice is expected to cost",
            "The loss of Dice to expect of smaller networks when they are retrained, with its 90 % interval, against "
            f"multiply-adds and parameters. {ring}",
            partial(plots.expected_against_cost, losses, costs, proposed=next(iter(named), "")),
            still=True,
        )


def _sweep(flow: Flow, estimator: str) -> Drawing:
    return Drawing(
        _slug("sweep", estimator),
        f"Does the ranking of layers hold? {estimator_title(estimator)}",
        "I(X;M) of every layer over the resolution, and how the ranking agrees with that at the resolution which tells most "
        "layers apart. Outside the shaded range a ranking says more of the resolution than of the network.",
        partial(plots.resolution_sweep, flow, quantity=Quantity.INPUT, estimator=estimator),
        still=True,
    )


def _has_limits(flow: Flow, estimator: str, resolution: float) -> bool:
    rows = flow.select(
        quantity=Quantity.INPUT, estimator=estimator, resolution=resolution, epoch=flow.epochs[-1]
    ).estimates
    return any(math.isfinite(row.extrapolated) for row in rows)


def _limits(flow: Flow, estimator: str, resolution: float) -> Drawing:
    return Drawing(
        _slug("limits", estimator, resolution),
        f"Are there enough images? {estimator_text(estimator, resolution)}",
        "I(X;M) of a quarter, of half and of all images at the last epoch, and where it goes with ever more of them. Where the "
        "curves lie apart, the estimate counts images.",
        partial(plots.image_limits, flow, quantity=Quantity.INPUT, estimator=estimator, resolution=resolution),
        still=True,
    )


def _usable(flow: Flow) -> Iterator[Drawing]:
    keys = [series.key for series in flow.series]
    for estimator in (key.estimator for key in keys if key.quantity is Quantity.USABLE):
        yield Drawing(
            _slug("u_plot", estimator),
            f"U-Plot of usable information: {estimator_text(estimator, 0)}",
            "How much of the mask, pixel by pixel, can be read off each layer of held-out images, with 95 % intervals. "
            "It does not end at the number of images, so layers can be ranked after training too.",
            partial(plots.u_plot, flow, quantity=Quantity.USABLE, estimator=estimator),
        )
        yield Drawing(
            _slug("steps", estimator),
            f"Which layers can be told apart: {estimator_text(estimator, 0)}",
            "The step of usable information from each layer to the next, paired over the held-out images, with 95 % intervals.",
            partial(plots.neighbour_steps, flow, quantity=Quantity.USABLE, estimator=estimator),
            still=True,
        )
    for estimator in (key.estimator for key in keys if key.quantity is Quantity.USABLE_SKIP_GIVEN_UPSAMPLED):
        yield Drawing(
            _slug("merges", estimator),
            f"What each merge joins: {estimator_text(estimator, 0)}",
            "What the skip adds to the upsampled path, what that adds to the skip, and what both hold, at each merge, with "
            "95 % intervals over held-out images.",
            partial(plots.merge_gains, flow, estimator=estimator),
        )


def _u_plot_of_input(flow: Flow, estimator: str, resolution: float) -> Drawing:
    return Drawing(
        _slug("u_plot_input", estimator, resolution),
        f"U-Plot of I(X;M): {estimator_text(estimator, resolution)}",
        "What each layer tells about which image it saw. Hollow points are at the ceiling and cannot be ranked.",
        partial(plots.u_plot, flow, quantity=Quantity.INPUT, estimator=estimator, resolution=resolution),
    )


def _u_plot_of_label(flow: Flow, estimator: str, resolution: float, labels: str) -> Drawing:
    return Drawing(
        _slug("u_plot_output", estimator, resolution, labels),
        f"U-Plot of I(Y;M): {estimator_text(estimator, resolution)}, {labels}",
        "What each layer tells about the class of the mask. Hollow points are at the ceiling and cannot be ranked.",
        partial(plots.u_plot, flow, quantity=Quantity.LABEL, estimator=estimator, resolution=resolution, labels=labels),
    )


def _plane(flow: Flow, estimator: str, resolution: float, labels: str) -> Drawing:
    return Drawing(
        _slug("information_plane", estimator, resolution, labels),
        f"Information planes: {estimator_text(estimator, resolution)}, {labels}",
        "One panel a layer; a point is a marked epoch, from dark (early) to light (late).",
        partial(plots.information_plane, flow, estimator=estimator, resolution=resolution, labels=labels),
    )


def _clusters(run: AnalysedRun, labels: str) -> Iterator[Drawing]:
    """Masks by cluster; nothing for a scheme without stored pictures."""
    grouped: dict[str, list[Any]] = {}
    for picture in run.pictures(labels):
        shown = picture.pixels // 255 if run.class_map is None else run.class_map.coloured(picture.pixels)
        grouped.setdefault(picture.title, []).append(shown)
    if grouped:
        yield Drawing(
            _slug("masks_by_cluster", labels),
            f"Masks by cluster: {labels}",
            "Probe masks of the largest clusters, whose numbers are Y in I(Y;M), four of each."
            + of_volumes(run, " Of each volume the middle slice is shown."),
            partial(plots.masks_by_cluster, list(grouped.items())),
        )


def _slug(*names: str | float) -> str:
    """The name of a figure's files, without the arguments of a label scheme.

    >>> _slug("u_plot_output", "kde_upper", 1.0, "kmeans(k=64)")
    'u_plot_output_kde_upper_1_kmeans'
    """
    return "_".join(name.partition("(")[0] if isinstance(name, str) else f"{name:g}" for name in names)


def _shown_epochs(rows: Sequence[Example]) -> list[int]:
    """The marked epochs nearest to some shares of the training, the last among them."""
    epochs = sorted(set.intersection(*(set(row.predicted) for row in rows)))
    return sorted({min(epochs, key=lambda epoch: abs(epoch - share * epochs[-1])) for share in SHARES_SHOWN})


def render_run(run: RunFolder | AnalysedRun, *, progress: Progress | None = None) -> Path:
    """Draw every figure of a run as PNG and SVG and write `report.html`; returns the page's path."""
    run = AnalysedRun.of(run)
    progress = progress or NoProgress()
    planned = list(drawings(run))
    progress.stage("figures", len(planned))
    run.folder.figures.mkdir(exist_ok=True)
    remove_abandoned(run.folder.figures)  # what a report that was killed left
    stills = []
    for done, drawing in enumerate(planned):
        progress.advance(done, drawing.title)
        png, svg = plots.save(drawing.figure(), run.folder.figures, drawing.name)
        if drawing.still:
            stills.append(ReportFigure(drawing.title, drawing.caption, png, svg))
    progress.advance(len(planned))
    return write_report(run.path / "report.html", [report_data_of(run)], title=title_of([run.path]), figures=stills)


def compare(runs: Sequence[RunFolder | AnalysedRun], path: str | Path) -> Path:
    """Write one page of several runs, side by side; returns its path.

    Raises: InvalidArgument for the place of a file of a run itself.
    """
    refuse_own_files(path)
    return write_report(path, [report_data_of(run) for run in runs], title=title_of([run.path for run in runs]))
