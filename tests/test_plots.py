"""What the axes of every figure hold: the numbers of the records, in order, marked and named as the page says."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from unetscope import plots
from unetscope.analysis import neighbours
from unetscope.base.errors import InvalidArgument
from unetscope.table.flow import Flow
from unetscope.table.records import EpochRecord, Estimate, Layer, Role, Skip
from unetscope.table.schedule import marked_epochs

EPOCHS = (0, 1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100)
IMAGES, LABELS = 605, "kmeans(k=64)"
CEILINGS = {"I(X;M)": math.log2(IMAGES), "I(Y;M)": 2.83}
FOREIGN = (
    "$x_1$",
    "<script>alert(1)</script>",
    "[/x].png",
    "</style>",
    "a_{b}",
    r"\frac{1}{$",
    "_hidden",
    "日本 \u202ex",
)


def network(depth: int = 4, without: Sequence[str] = ()) -> tuple[tuple[Layer, ...], tuple[Skip, ...]]:
    """The recorded tensors of a U-Net of width 16 on images of 128 × 128, numbered as the paper numbers them."""
    layers: list[Layer] = []
    skips: list[Skip] = []

    def add(label: str, level: int, role: Role, channels: int, parts: tuple[str, ...] = ()) -> None:
        side = 128 // 2**level
        sources = parts or tuple(layer.label for layer in layers[-1:])
        layers.append(Layer(label, f"layer{label}", level, role, parts, (channels, side, side), sources))

    for level in range(depth + 1):
        for number in (2 * level + 1, 2 * level + 2):
            add(f"{number}", level, "bottom" if level == depth else "encoder", 16 * 2**level)
    number = 2 * depth + 2
    for level in reversed(range(depth)):
        number, channels = number + 1, 16 * 2**level
        up, source = f"{number}up", f"{2 * level + 2}"
        add(up, level, "upsampled", channels)
        if f"skip{level + 1}" in without:
            add(f"{number}", level, "merge", channels, (up,))
        else:
            add(f"{number}", level, "merge", 2 * channels, (up, source))
            skips.append(Skip(f"skip{level + 1}", source, up, f"{number}"))
        for _ in range(2):
            number += 1
            add(f"{number}", level, "decoder", channels)
    add(f"{number + 1}", 0, "output", 1)
    return tuple(layers), tuple(reversed(skips))


def measured(
    layers: Sequence[Layer],
    skips: Sequence[Skip] = (),
    epochs: Sequence[int] = EPOCHS,
    series: Sequence[tuple[str, float]] = (("kde_upper", 1.0), ("binning", 0.2)),
) -> Flow:
    """A flow like a U: full at both ends, 4 bits at the bottom once trained; no two of its numbers below are equal."""
    rows = []
    for estimator, resolution in series:
        for epoch in epochs:
            for place, layer in enumerate(layers):
                for quantity in ("I(X;M)", "I(Y;M)"):
                    ceiling, labels = CEILINGS[quantity], LABELS if quantity == "I(Y;M)" else ""
                    trained = math.log(1 + epoch) / math.log(1 + max(*epochs, 1))
                    down = math.sin(math.pi * (place + 0.5) / len(layers)) ** 2
                    share = 1 - (0.57 - 0.15 * (quantity == "I(Y;M)")) * down * (1.4 - 0.4 * trained)
                    bits = min(ceiling, ceiling * share * (1.012 if estimator == "binning" else 1.0))
                    rows.append(
                        Estimate(
                            epoch, layer.label, quantity, estimator, resolution, labels, bits, bits - 0.1, ceiling,
                            ceiling, bits >= 0.99 * ceiling, n=IMAGES, d=layer.size, unique_share=share,
                        )
                    )  # fmt: skip
    return Flow(tuple(layers), tuple(skips), tuple(rows))


@pytest.fixture(scope="module")
def flow() -> Flow:
    return measured(*network())


def history(last: int, *, start: int = 0, height: float = 0.9) -> list[EpochRecord]:
    """Dice of a training that goes up and wobbles; the train figures of epoch 0 are absent."""
    records = []
    for epoch in range(start, last + 1):
        dice = height * (1 - math.exp(-epoch / 9)) + 0.01 * math.sin(epoch)
        absent = math.nan if epoch == 0 else 1.0
        records.append(EpochRecord(epoch, absent * (1 - dice), absent * dice * 0.97, 1 - dice, abs(dice), 2.0))
    return records


def figure_of(drawn: Axes | np.ndarray) -> Figure:
    first = drawn.flat[0] if isinstance(drawn, np.ndarray) else drawn
    figure = first.get_figure(root=True)
    assert figure is not None
    return figure


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Axes | np.ndarray], list[tuple[str, Text]]]:
    """Renders a figure; gives each line of text that reached the renderer, letter for letter, with its artist."""
    written: list[tuple[str, Any, Text]] = []
    drawing: list[Text] = []
    draw, draw_text = Text.draw, RendererAgg.draw_text

    def noted(self, renderer):
        drawing.append(self)
        draw(self, renderer)
        drawing.pop()

    def spy(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        written.append((s, ismath, drawing[-1]))
        draw_text(self, gc, x, y, s, prop, angle, ismath, mtext)

    monkeypatch.setattr(Text, "draw", noted)
    monkeypatch.setattr(RendererAgg, "draw_text", spy)

    def render(drawn: Axes | np.ndarray) -> list[tuple[str, Text]]:
        written.clear()
        FigureCanvasAgg(figure_of(drawn)).draw()
        assert not [s for s, ismath, _ in written if ismath], "text was read as mathematics"
        return [(s, text) for s, _, text in written]

    return render


def assert_legible(drawn: Axes | np.ndarray, written: list[tuple[str, Text]]) -> None:
    """No text runs out of the figure, none meets another."""
    figure = figure_of(drawn)
    boxes: dict[Text, Bbox] = {text: text.get_window_extent() for _, text in written}
    assert len(boxes) > 1
    for text, box in boxes.items():
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert inside, f"{text.get_text()!r} runs out of the figure: {box} in {figure.bbox}"
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(width, height) < 0.5, f"{one.get_text()!r} at {a} meets {other.get_text()!r} at {b}"


def bits_of(flow: Flow, quantity: str, epoch: int, estimator: str = "kde_upper") -> list[float]:
    return [e.bits for e in flow.select(quantity=quantity, epoch=epoch, estimator=estimator).estimates]


def epoch_lines(axes: Axes) -> dict[int, Line2D]:
    """The lines that the legend names by their epoch."""
    return {int(str(line.get_label())): line for line in axes.get_lines() if str(line.get_label()).isdecimal()}


def markers(axes: Axes) -> tuple[set[tuple[float, float]], set[tuple[float, float]]]:
    """Where the filled and the hollow points of a U-Plot stand."""
    filled: set[tuple[float, float]] = set()
    hollow: set[tuple[float, float]] = set()
    for line in axes.get_lines():
        if line.get_marker() == "o":
            white = to_hex(line.get_markerfacecolor()) == "#ffffff"
            points = zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
            (hollow if white else filled).update((float(x), float(y)) for x, y in points if math.isfinite(y))
    return filled, hollow


# --- U-Plot


@pytest.mark.parametrize("quantity", ["I(X;M)", "I(Y;M)"])
@pytest.mark.parametrize(("estimator", "resolution"), [("kde_upper", 1.0), ("binning", 0.2)])
def test_each_line_of_a_u_plot_holds_the_bits_of_its_epoch(flow, quantity, estimator, resolution) -> None:
    axes = plots.u_plot(flow, quantity=quantity, estimator=estimator, resolution=resolution)
    lines = epoch_lines(axes)
    assert list(lines) == [0, 1, 2, 3, 5, 10, 20, 30, 50, 100]
    for epoch, line in lines.items():
        assert list(line.get_ydata()) == bits_of(flow, quantity, epoch, estimator)
        assert list(line.get_xdata()) == list(range(27))
    assert len({to_hex(line.get_color()) for line in lines.values()}) == len(lines)
    assert [tick.get_text().replace("\n", "") for tick in axes.get_xticklabels()] == [e.label for e in flow.layers]
    assert axes.get_ylabel() == f"{quantity}, bits"
    first, second = axes.get_title().split("\n")
    assert first == f"U-Plot of {quantity}"
    what = "KDE upper bound, noise variance 1" if estimator == "kde_upper" else "binning, bin size 0.2"
    assert second == f"{what} · n = 605 images{' · Y: kmeans(k=64)' * (quantity == 'I(Y;M)')}"


@pytest.mark.parametrize("estimator", ["kde_upper", "binning"])
def test_points_are_hollow_exactly_where_saturated(flow, estimator) -> None:
    axes = plots.u_plot(flow, estimator=estimator)
    place = {layer.label: index for index, layer in enumerate(flow.layers)}
    rows = [e for e in flow.select(quantity="I(X;M)", estimator=estimator).estimates if e.epoch in epoch_lines(axes)]
    filled, hollow = markers(axes)
    assert hollow == {(place[e.layer], e.bits) for e in rows if e.saturated}
    assert filled == {(place[e.layer], e.bits) for e in rows if not e.saturated}
    assert hollow
    assert filled


def test_markers_have_the_colour_of_their_line(flow) -> None:
    axes = plots.u_plot(flow)
    colours = [to_hex(line.get_color()) for line in epoch_lines(axes).values()]
    kinds = ["_ok", "_out of domain", "_saturated"]
    points = [line for line in axes.get_lines() if line.get_label() in kinds]
    assert [line.get_marker() for line in points[:3]] == ["o", "x", "o"]
    assert [(to_hex(line.get_markeredgecolor()), line.get_label()) for line in points] == [
        (colour, kind) for colour in colours for kind in kinds
    ]


@pytest.mark.parametrize(
    ("quantity", "text"),
    [("I(X;M)", "ceiling log₂ N = 9.24 bits"), ("I(Y;M)", "ceiling H(Y) = 2.83 bits")],
)
def test_the_dashed_line_stands_at_the_ceiling_and_says_so(flow, quantity, text) -> None:
    axes = plots.u_plot(flow, quantity=quantity)
    (line,) = [line for line in axes.get_lines() if line.is_dashed()]
    assert list(line.get_ydata()) == pytest.approx([CEILINGS[quantity]] * 2, abs=1e-6)
    assert list(line.get_xdata()) == [0, 1]  # from edge to edge
    (label,) = [t for t in axes.texts if t.get_text().startswith("ceiling")]
    assert label.get_text() == text
    assert label.xy[1] == pytest.approx(CEILINGS[quantity], abs=1e-6)
    assert axes.get_ylim()[1] > CEILINGS[quantity]


def test_a_changed_probe_set_has_two_ceilings(flow) -> None:
    rows = [replace(e, n=300, ceiling=math.log2(300)) if e.epoch == 100 else e for e in flow.estimates]
    axes = plots.u_plot(Flow(flow.layers, flow.skips, tuple(rows)))
    assert [t.get_text() for t in axes.texts if "ceiling" in t.get_text()] == [
        "ceiling log₂ N = 8.23 bits",
        "ceiling log₂ N = 9.24 bits",
    ]
    assert "n = 300–605 images" in axes.get_title()


def test_an_estimate_that_is_nan_or_missing_leaves_a_gap(flow) -> None:
    rows = [
        replace(e, bits=math.nan, reason="one class only") if e.layer == "9" else e
        for e in flow.estimates
        if (e.layer, e.epoch) != ("12", 100)
    ]
    axes = plots.u_plot(Flow(flow.layers, flow.skips, tuple(rows)))
    place = [layer.label for layer in flow.layers]
    for epoch, line in epoch_lines(axes).items():
        absent = {place[i] for i in np.flatnonzero(np.isnan(line.get_ydata()))}
        assert absent == ({"9", "12"} if epoch == 100 else {"9"})
    filled, hollow = markers(axes)
    assert place.index("9") not in {x for x, _ in filled | hollow}


def test_a_flow_of_nothing_but_nan_is_drawn_empty(flow, texts) -> None:
    rows = tuple(replace(e, bits=math.nan, ceiling=math.nan, saturated=False) for e in flow.estimates)
    axes = plots.u_plot(Flow(flow.layers, flow.skips, rows))
    assert markers(axes) == (set(), set())
    assert not any("ceiling" in text for text, _ in texts(axes))


@pytest.mark.parametrize("without", [(), ("skip1", "skip3"), ("skip1", "skip2", "skip3", "skip4")])
def test_brackets_join_exactly_the_skips_that_are_there(without) -> None:
    layers, skips = network(without=without)
    axes = plots.u_plot(measured(layers, skips, epochs=(0, 10)))
    place = {layer.label: index for index, layer in enumerate(layers)}
    brackets = [line for line in axes.get_lines() if len(line.get_xdata()) == 4]
    expected = {skip.name: (place[skip.source], place[skip.merge]) for skip in skips}
    assert [(line.get_xdata()[0], line.get_xdata()[-1]) for line in brackets] == list(expected.values())
    names = {t.get_text(): t.get_position()[0] for t in axes.texts if t.get_text().startswith("skip")}
    assert names == {name: (left + right) / 2 for name, (left, right) in expected.items()}
    heads = [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "^"]
    assert heads == [right for _, right in expected.values()]
    depths = [min(line.get_ydata()) for line in brackets]
    assert len(set(depths)) == len(depths), "two brackets share a line"


def test_a_band_lies_behind_each_merge_and_the_layer_it_upsamples(flow) -> None:
    axes = plots.u_plot(flow)
    bands = [(band.get_x(), band.get_x() + band.get_width()) for band in axes.patches]
    place = {layer.label: index for index, layer in enumerate(flow.layers)}
    assert bands == [(place[f"{m}up"] - 0.5, place[m] + 0.5) for m in ("11", "14", "17", "20")]
    assert [t.get_text() for t in axes.get_legend().get_texts()][-2:] == ["saturated", "merge"]
    sides = [t.get_text() for t in axes.texts if t.get_text() in {"encoder", "bottom", "decoder"}]
    assert sides == ["encoder", "bottom", "decoder"]


def test_many_epochs_are_thinned_and_both_ends_kept() -> None:
    epochs = marked_epochs("paper", 10_000)
    assert len(epochs) == 144
    flow = measured(network()[0][:3], epochs=epochs)
    axes = plots.u_plot(flow)
    lines = epoch_lines(axes)
    assert 8 <= len(lines) <= 10
    assert min(lines) == epochs[0]
    assert max(lines) == epochs[-1]
    assert axes.get_legend().get_title().get_text() == f"training epoch\n({len(lines)} of 144)"
    for epoch, line in lines.items():
        assert list(line.get_ydata()) == bits_of(flow, "I(X;M)", epoch)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("epochs", [(0,), (7,), (0, 1)])
def test_one_layer_or_one_epoch_is_enough(count, epochs, texts) -> None:
    flow = measured(network()[0][:count], epochs=epochs)
    assert_legible(axes := plots.u_plot(flow, quantity="I(Y;M)"), texts(axes))
    axes = plots.u_plot(flow)
    assert {epoch: list(line.get_ydata()) for epoch, line in epoch_lines(axes).items()} == {
        epoch: bits_of(flow, "I(X;M)", epoch) for epoch in epochs
    }
    assert_legible(axes, texts(axes))
    panels = plots.information_plane(flow)
    assert len(panels) == count
    written = texts(panels)
    assert_legible(panels, written)
    assert f"Information planes of {count} layer{'s' * (count > 1)}" in [text for text, _ in written]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            {"quantity": "I(Z;M)"},
            "quantity must be one of I(X;M), I(Y;M), I(Y;S|U), I(Y;U|S), I(Y;S;U), I_V(M→Y), I_V(S→Y|U), I_V(U→Y|S), "
            "I_V(S;U→Y), I_V(S→Y|U,↓S), got 'I(Z;M)'",
        ),
        (
            {"estimator": "kde_lower"},
            "estimator 'kde_lower' not measured for I(X;M): measured are kde_upper, binning",
        ),
        (
            {"resolution": 0.5},
            "resolution 0.5 not measured for I(X;M) with 'kde_upper': measured are 1.0",
        ),
        (
            {"estimator": "binning", "resolution": 1.0},
            "resolution 1.0 not measured for I(X;M) with 'binning': measured are 0.2",
        ),
        (
            {"quantity": "I(Y;M)", "labels": "blocks"},
            "labels 'blocks' not measured for I(Y;M): measured are kmeans(k=64)",
        ),
    ],
)
def test_what_was_not_measured_is_refused_with_what_was(flow, wanted, text) -> None:
    with pytest.raises(InvalidArgument) as refused:
        plots.u_plot(flow, **wanted)
    assert str(refused.value) == text


@pytest.mark.parametrize("draw", [plots.image_limits, plots.neighbour_steps])
def test_an_epoch_that_was_not_measured_is_refused_with_those_that_were(flow, draw) -> None:
    measured = ", ".join(map(str, flow.series_of("I(X;M)").epochs))
    with pytest.raises(InvalidArgument) as refused:
        draw(flow, quantity="I(X;M)", epoch=77)
    assert str(refused.value) == f"epoch 77 not measured for I(X;M): measured are {measured}"


def test_a_flow_without_labels_has_no_output_plane(flow) -> None:
    only_input = flow.select(quantity="I(X;M)")
    for draw in (lambda: plots.u_plot(only_input, quantity="I(Y;M)"), lambda: plots.information_plane(only_input)):
        with pytest.raises(InvalidArgument) as refused:
            draw()
        assert str(refused.value) == "no estimate of I(Y;M) to plot: measured are I(X;M)"
    with pytest.raises(InvalidArgument, match=r"no estimate of I\(X;M\) to plot: measured are none"):
        plots.u_plot(Flow(flow.layers))


@pytest.mark.long
def test_none_stands_for_the_first_measured(flow) -> None:
    finer = [replace(e, resolution=0.1, bits=1.0) for e in flow.estimates if e.estimator == "kde_upper"]
    other = [replace(e, labels="blocks", bits=0.5) for e in flow.estimates if e.quantity == "I(Y;M)"]
    more = Flow(flow.layers, flow.skips, (*flow.estimates, *finer, *other))
    assert list(epoch_lines(plots.u_plot(more))[100].get_ydata()) == bits_of(flow, "I(X;M)", 100)
    assert list(epoch_lines(plots.u_plot(more, quantity="I(Y;M)"))[5].get_ydata()) == bits_of(flow, "I(Y;M)", 5)
    asked = plots.u_plot(more, quantity="I(Y;M)", labels="blocks")
    assert set(epoch_lines(asked)[5].get_ydata()) == {0.5}


# --- information plane


@pytest.fixture(scope="module")
def panels(flow) -> np.ndarray:
    return plots.information_plane(flow)


def test_an_information_plane_has_a_panel_a_layer_with_a_point_an_epoch(flow, panels) -> None:
    merges = {layer.label for layer in flow.layers if layer.role == "merge"}
    assert [panel.get_title() for panel in panels] == [
        f"{layer.label}{' (merge)' * (layer.label in merges)}" for layer in flow.layers
    ]
    for panel, layer in zip(panels, flow.layers, strict=True):
        rows = flow.select(layer=layer.label, estimator="kde_upper")
        x, y = (rows.select(quantity=quantity).estimates for quantity in CEILINGS)
        (points,) = panel.collections
        assert points.get_offsets().tolist() == [[a.bits, b.bits] for a, b in zip(x, y, strict=True)]
        (joined,) = [line for line in panel.get_lines() if len(line.get_xdata()) == len(EPOCHS)]
        assert joined.get_xydata().tolist() == points.get_offsets().tolist()
        white = [bool((face == 1).all()) for face in points.get_facecolors()]
        assert white == [a.saturated or b.saturated for a, b in zip(x, y, strict=True)]
        dashed = [line for line in panel.get_lines() if line.is_dashed()]
        assert dashed[0].get_xdata()[0] == pytest.approx(CEILINGS["I(X;M)"], abs=1e-6)
        assert dashed[1].get_ydata()[0] == pytest.approx(CEILINGS["I(Y;M)"], abs=1e-6)
    assert all(panel.get_xlim() == panels[0].get_xlim() for panel in panels)
    assert len(figure_of(panels).axes) == 27 + 1, "an empty panel, or no bar of epochs"


def test_a_point_is_hollow_where_either_is_saturated() -> None:
    flow = measured(*network(1))

    def saturated(e: Estimate) -> bool:
        return (e.layer, e.epoch, e.quantity) in {("5", 0, "I(X;M)"), ("5", 3, "I(Y;M)")}

    rows = tuple(replace(e, saturated=saturated(e)) for e in flow.estimates)
    panels = plots.information_plane(Flow(flow.layers, flow.skips, rows))
    for panel, layer in zip(panels, flow.layers, strict=True):
        white = np.flatnonzero((panel.collections[0].get_facecolors() == 1).all(axis=1)).tolist()
        assert white == ([0, 3] if layer.label == "5" else [])


def test_points_of_a_plane_are_coloured_by_their_epoch_as_its_bar_says(panels) -> None:
    edges = panels[10].collections[0].get_edgecolors()
    assert len({tuple(edge) for edge in edges}) == len(EPOCHS)
    brightness = edges[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(brightness) > 0).all(), "later is not lighter"
    bar = figure_of(panels).axes[-1]
    assert bar.get_ylabel() == "training epoch"
    assert bar.get_yticks().tolist() == [0, 1, 10, 100]


def test_a_plane_leaves_out_what_one_of_the_two_does_not_know() -> None:
    flow = measured(*network(1))
    kept = [e for e in flow.estimates if (e.layer, e.quantity, e.epoch) != ("5", "I(Y;M)", 100)]
    rows = [replace(e, bits=math.nan) if (e.layer, e.epoch) == ("5", 50) else e for e in kept]
    panels = plots.information_plane(Flow(flow.layers, flow.skips, tuple(rows)))
    points = panels[[layer.label for layer in flow.layers].index("5")].collections[0].get_offsets()
    seen = np.isfinite(np.ma.filled(points, np.nan)).all(axis=1)
    assert seen.tolist() == [epoch not in {50, 100} for epoch in EPOCHS]


def test_a_plane_of_what_was_not_measured_is_refused(flow) -> None:
    for wanted, text in (
        ({"estimator": "kde"}, "estimator 'kde' not measured for I(X;M): measured are kde_upper, binning"),
        ({"resolution": 2}, "resolution 2 not measured for I(X;M) with 'kde_upper': measured are 1.0"),
        ({"labels": "x"}, "labels 'x' not measured for I(Y;M): measured are kmeans(k=64)"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            plots.information_plane(flow, **wanted)
        assert str(refused.value) == text
    rows = tuple(replace(e, resolution=2.0) if e.quantity == "I(Y;M)" else e for e in flow.estimates)
    with pytest.raises(InvalidArgument, match=r"1\.0 not measured for I\(Y;M\) with 'kde_upper': measured are 2\.0"):
        plots.information_plane(Flow(flow.layers, (), rows))
    with pytest.raises(InvalidArgument, match="no layer to plot: the flow names none"):
        plots.information_plane(Flow((), (), flow.estimates))


# --- Dice


def test_dice_curves_hold_the_records_train_solid_and_validation_dashed() -> None:
    runs = {"Model 1": history(100), "Model 2": history(30, start=1, height=0.7)}
    axes = plots.dice_curves(runs)
    curves = [line for line in axes.get_lines() if line.get_linestyle() != "None"]
    for (name, records), (train, validation) in zip(runs.items(), (curves[:2], curves[2:]), strict=True):
        for line, field in ((train, "train_dice_running"), (validation, "validation_dice")):
            assert list(line.get_xdata()) == [r.epoch for r in records]
            np.testing.assert_array_equal(line.get_ydata(), [getattr(r, field) for r in records])
        assert (train.get_linestyle(), validation.get_linestyle()) == ("-", "--")
        assert train.get_color() == validation.get_color(), name
    assert curves[0].get_color() != curves[2].get_color()
    best = [max(records, key=lambda r: r.validation_dice) for records in runs.values()]
    rings = [line for line in axes.get_lines() if line.get_linestyle() == "None"]
    assert [(r.get_xdata()[0], r.get_ydata()[0]) for r in rings] == [(b.epoch, b.validation_dice) for b in best]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        f"Model 1: best {best[0].validation_dice:.3f} at epoch {best[0].epoch}",
        f"Model 2: best {best[1].validation_dice:.3f} at epoch {best[1].epoch}",
        "train (running mean over the epoch)",
        "validation (end of the epoch)",
    ]
    assert axes.get_xscale() == "symlog"
    assert axes.get_ylim() == (0, 1.02)


def test_records_in_any_order_make_the_same_curve() -> None:
    records = history(10)
    one, other = (plots.dice_curves({"run": r}).get_lines()[1].get_xydata() for r in (records, records[::-1]))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("epoch", [0, 1, 40, 250])
def test_one_epoch_is_a_point_at_a_whole_number(epoch, texts) -> None:
    axes = plots.dice_curves({"run": history(epoch, start=epoch)})
    assert axes.get_lines()[1].get_marker() == "o"
    written = texts(axes)
    assert_legible(axes, written)
    across = [tick.get_text() for tick in axes.get_xticklabels()]
    assert f"{epoch}" in across
    assert all(tick.lstrip("-").isdecimal() for tick in across), across


def test_a_run_without_validation_is_drawn_without_a_best_epoch() -> None:
    records = [replace(r, validation_dice=math.nan) for r in history(5)]
    axes = plots.dice_curves({"run": records})
    assert axes.get_legend().get_texts()[0].get_text() == "run"


def test_no_curve_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="curves must hold at least one network's epochs, got none"):
        plots.dice_curves({})
    with pytest.raises(InvalidArgument, match=r"curves\['Model 1'\] must hold at least one epoch, got none"):
        plots.dice_curves({"Model 1": []})


# --- predictions and clusters


def picture(side: int = 8) -> np.ndarray:
    return np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)


def test_pixels_are_coloured_as_found_extra_and_missed() -> None:
    truth = np.array([[1, 1, 0], [1, 0, 0]], np.uint8)
    probability = np.array([[255, 127, 128], [128, 127, 0]], np.uint8)
    image = picture(3)[:2]
    axes = plots.predictions([("a.png", image, truth, {5: probability})], [5])
    sky, yellow, vermillion, black = map(to_rgb, ("#56B4E9", "#F0E442", "#D55E00", "#000000"))
    shown = axes[0, 2].images[0].get_array()
    np.testing.assert_allclose(shown, [[sky, vermillion, yellow], [sky, black, black]])
    np.testing.assert_array_equal(axes[0, 0].images[0].get_array(), image)
    np.testing.assert_array_equal(axes[0, 1].images[0].get_array(), truth)
    assert axes[0, 2].get_xlabel() == f"Dice {(2 * 2 + 1) / (3 + 3 + 1):.2f}"
    (legend,) = figure_of(axes).legends
    meanings = {
        t.get_text(): to_rgb(p.get_facecolor()) for t, p in zip(legend.texts, legend.get_patches(), strict=True)
    }
    assert meanings == {"found": sky, "predicted, not there": yellow, "missed": vermillion}


def test_predictions_stand_in_the_order_of_the_epochs_asked_for(texts) -> None:
    masks = {epoch: np.full((8, 8), 255 * (epoch > 2), np.uint8) for epoch in (1, 10, 100)}
    rows = [
        ("first.png", picture(), np.ones((8, 8), np.uint8), masks),
        ("second.png", picture(), np.zeros((8, 8), np.uint8), {1: masks[1]}),
    ]
    axes = plots.predictions(rows, [10, 1])
    assert axes.shape == (2, 4)
    assert [a.get_title() for a in axes[0]] == ["image", "true mask", "epoch 10", "epoch 1"]
    assert figure_of(axes).get_suptitle() == "Predicted masks during training (probability above one half)"
    assert [a.get_ylabel() for a in axes[:, 0]] == ["first.png", "second.png"]
    assert [a.get_xlabel() for a in axes.flat] == ["", "", "Dice 1.00", "Dice 0.02", "", "", "", "Dice 1.00"]
    written = texts(axes)
    assert [text for text, _ in written].count("not kept") == 1
    assert_legible(axes, written)


def test_the_titles_stand_in_line_over_a_prediction_that_was_not_kept(texts) -> None:
    row = ("a.png", picture(), np.ones((8, 8), np.uint8), {10: np.zeros((8, 8), np.uint8)})
    axes = plots.predictions([row], [5, 10])
    texts(axes)
    assert len({round(a.title.get_window_extent().y0, 1) for a in axes[0]}) == 1


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            ("a", picture(), np.full((8, 8), 255, np.uint8), {}),
            "the true mask of 'a' must hold 0 and 1 only, got values from 255 to 255",
        ),
        (
            ("a", picture(4), np.ones((8, 8), np.uint8), {}),
            "the image 'a' must be uint8 of shape (8, 8, 3), as its mask is, got uint8 of shape (4, 4, 3)",
        ),
        (
            ("a", picture(), np.ones((8, 8), np.uint8), {3: np.ones((8, 8))}),
            "the prediction for 'a' at epoch 3 must be uint8 of shape (8, 8), got float64 of shape (8, 8)",
        ),
    ],
)
def test_pictures_that_do_not_fit_are_refused(row, text) -> None:
    with pytest.raises(InvalidArgument) as refused:
        plots.predictions([row], [3])
    assert str(refused.value) == text


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17])
def test_masks_stand_in_the_order_of_their_clusters(count, texts) -> None:
    rng = np.random.default_rng(count)
    clusters = [
        (
            f"cluster {index} · {count - index} images",
            [rng.integers(0, 2, (8, 8)) for _ in range(1 + 2 * index % 6 * (count < 9))],
        )
        for index in range(count)
    ]
    axes = plots.masks_by_cluster(clusters)
    masks = [mask for _, group in clusters for mask in group]
    assert len(axes) == len(masks)
    for panel, mask in zip(axes, masks, strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), mask)
        assert panel.images[0].get_clim() == (0, 1), "a mask of ones alone would not be white"
    figure_of(axes).draw_without_rendering()
    places = [panel.get_window_extent().bounds[:2] for panel in axes]
    assert len({(round(x), round(y)) for x, y in places}) == len(masks), "one mask covers another"
    titles = [panel.get_title(loc="left") for panel in axes]
    first = np.cumsum([0, *(len(group) for _, group in clusters)])[:-1]
    assert [titles[index] for index in first] == [title for title, _ in clusters]
    assert sum(map(bool, titles)) == count
    if count > 1:
        assert_legible(axes, texts(axes))


def test_clusters_side_by_side_stand_apart() -> None:
    axes = plots.masks_by_cluster([(f"cluster {index}", [np.eye(8, dtype=int)] * 4) for index in range(4)])
    figure_of(axes).draw_without_rendering()
    left = [panel.get_window_extent().x0 for panel in axes[:8]]
    steps = np.diff(left)
    assert steps[3] > 1.1 * steps[2]
    assert steps[2] == pytest.approx(steps[0])


def test_masks_that_are_none_are_refused() -> None:
    for clusters, text in (
        ([], "clusters must hold at least one cluster, got none"),
        ([("c", [])], "cluster 'c' must have at least one mask to show, got none"),
        ([("c", [np.full((2, 2), 7)])], "a mask of cluster 'c' must hold 0 and 1 only, got values from 7 to 7"),
        ([("c", [np.ones(4)])], r"a mask of cluster 'c' must be 2-D and not empty, got shape (4,)"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            plots.masks_by_cluster(clusters)
        assert str(refused.value) == text


# --- architecture


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_the_network_is_drawn_with_every_layer_and_every_skip(depth, texts) -> None:
    layers, skips = network(depth)
    axes = plots.architecture(layers, skips)
    written = texts(axes)
    drawn = [s for s, _ in written]
    for layer in layers:
        assert drawn.count(layer.label) == 1
    assert sorted(s for s in drawn if s.startswith("skip")) == sorted(skip.name for skip in skips)
    shapes = [" × ".join(map(str, layer.shape)) for layer in layers]
    assert sorted(s for s in drawn if "×" in s) == sorted(shapes)
    boxes = axes.patches
    assert len(boxes) == len(layers)
    middles = [box.get_y() + box.get_height() / 2 for box in boxes]
    steps = {(a.level, round(y, 6)) for a, y in zip(layers, middles, strict=True)}
    assert len(steps) == depth + 1, "layers of one size do not stand on one line"
    assert sorted(steps, key=lambda s: -s[1]) == sorted(steps), "smaller does not stand lower"
    lefts = [box.get_x() for box in boxes]
    assert lefts == sorted(lefts)
    heads = [t for t in axes.texts if getattr(t, "arrow_patch", None) is not None]
    assert len(heads) == len(layers) - 1 + len(skips)
    assert_legible(axes, written)
    plural = "s" * (depth > 1)
    assert axes.get_title() == f"Architecture: {len(layers)} recorded tensors, {depth} skip{plural}"


def test_a_skip_taken_out_is_not_drawn(texts) -> None:
    layers, skips = network(without=("skip1", "skip3"))
    axes = plots.architecture(layers, skips)
    drawn = [s for s, _ in texts(axes)]
    assert [s for s in drawn if s.startswith("skip")] == ["skip2", "skip4"]
    centres = {layer.label: box.get_x() + box.get_width() / 2 for layer, box in zip(layers, axes.patches, strict=True)}
    levels = [line.get_xdata() for line in axes.get_lines() if line.get_linewidth() == 1.0]
    assert len(levels) == 2
    for skip, (start, _, end) in zip(skips, levels, strict=True):
        assert abs(start - centres[skip.source]) <= 2
        assert end == centres[skip.merge]


def test_a_skip_to_a_layer_that_is_not_there_is_refused() -> None:
    layers, skips = network(1)
    with pytest.raises(InvalidArgument, match="skip 'skip1' joins layer '5', which is not among the layers"):
        plots.architecture(layers[:4], skips)
    with pytest.raises(InvalidArgument, match="layers must hold at least one layer, got none"):
        plots.architecture([], [])


def test_layers_that_were_not_seen_say_so(texts) -> None:
    layers = [Layer(f"encoder.stage.{index}", f"m{index}", level=index) for index in range(3)]
    axes = plots.architecture(layers, [])
    written = texts(axes)
    assert [s for s, _ in written].count("not seen") == 3
    assert_legible(axes, written)


# --- legible, literal, the same bytes, and nothing else touched


def small() -> Flow:
    layers = [Layer("1", "conv1", 0, "encoder", (), (4, 8, 8)), Layer("2up", "up2", 0, "upsampled", (), (4, 8, 8))]
    layers.append(Layer("2", "merge2", 0, "merge", ("2up", "1"), (8, 8, 8)))
    return measured(layers, [Skip("skip1", "1", "2up", "2")], epochs=(0, 1, 10))


def long_names() -> Flow:
    names = [f"encoder.blocks.{index}.conv{index % 2}" for index in range(12)]
    layers = [Layer(name, name, min(index, 3)) for index, name in enumerate(names)]
    skips = [Skip("skip", names[1], names[4], names[9]), Skip("a_rather_long_name", names[2], names[4], names[7])]
    return measured(layers, skips, epochs=(0, 1, 10))


DRAWINGS: dict[str, Callable[[Flow], Axes | np.ndarray]] = {
    "architecture": lambda flow: plots.architecture(flow.layers, flow.skips),
    "u_plot of the input": plots.u_plot,
    "u_plot of the output": lambda flow: plots.u_plot(flow, quantity="I(Y;M)", estimator="binning"),
    "information_plane": plots.information_plane,
    "dice_curves": lambda flow: plots.dice_curves({layer.label: history(20) for layer in flow.layers[:8]}),
    "masks_by_cluster": lambda flow: plots.masks_by_cluster(
        [(layer.label, [np.eye(8, dtype=int)]) for layer in flow.layers[:8]]
    ),
    "predictions": lambda flow: plots.predictions(
        [
            (layer.label, picture(), np.eye(8, dtype=np.uint8), {3: np.full((8, 8), 200, np.uint8)})
            for layer in flow.layers[:8]
        ],
        [3],
    ),
}
every_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)


@pytest.mark.long
@every_drawing
def test_no_text_meets_another_or_runs_out_of_the_figure(draw, flow, texts) -> None:
    for of in (flow, long_names()):
        drawn = draw(of)
        assert_legible(drawn, texts(drawn))


def usable(flow: Flow) -> Flow:
    """The same with usable information by image: a step up at every layer but the third, which is as the second."""
    rows = []
    for epoch in flow.epochs:
        for place, layer in enumerate(flow.layers):
            bits = 0.02 * (place - (place == 2)) * math.log1p(epoch)
            values = tuple(bits + 0.001 * math.sin(7 * image + 3 * place * (place == 2)) for image in range(20))
            ends = {"low": bits - 0.01, "high": bits + 0.01, "per_image": values}
            row = Estimate(
                epoch, layer.label, "I_V(M→Y)", "usable_linear", 0.0, "pixels", bits, math.nan, math.nan, 0.55, False, 20, 4,
                **ends,
            )  # fmt: skip
            rows.append(row)
            quantities = ("I_V(S→Y|U)", "I_V(U→Y|S)", "I_V(S;U→Y)") if layer.role == "merge" else ()
            rows += [replace(row, quantity=quantity, bits=bits / 2) for quantity in quantities]
    return Flow(flow.layers, flow.skips, (*flow.estimates, *rows))


@pytest.mark.parametrize(
    "draw",
    [
        lambda flow: plots.u_plot(flow, quantity="I_V(M→Y)"),
        plots.merge_gains,
        plots.neighbour_steps,
    ],
    ids=["u_plot", "merge_gains", "neighbour_steps"],
)
def test_figures_of_usable_information_are_legible(draw, flow, texts) -> None:
    for of in (usable(flow), usable(small())):
        drawn = draw(of)
        written = texts(drawn)
        assert "bits a pixel" in "\n".join(s for s, _ in written)
        assert_legible(drawn, written)


def test_the_band_of_a_u_plot_is_the_interval(flow) -> None:
    axes = plots.u_plot(usable(flow), quantity="I_V(M→Y)")
    band = axes.collections[-1].get_paths()[0].vertices
    last = max(EPOCHS)
    (row,) = (e for e in usable(flow).estimates if e.layer == "23" and e.epoch == last and e.quantity == "I_V(M→Y)")
    at_end = band[band[:, 0] == len(flow.layers) - 1][:, 1]
    assert (at_end.min(), at_end.max()) == pytest.approx((row.low, row.high))


def test_neighbours_are_apart_where_their_paired_difference_leaves_out_zero(flow) -> None:
    of = usable(flow)
    pairs = neighbours(of)
    assert [pair.first for pair in pairs][:3] == ["1", "2", "3"]
    assert len(pairs) == 22  # upsampled layers stand within the step to their merge
    assert [pair.apart for pair in pairs[:3]] == [True, False, True]
    dead = tuple(replace(e, per_image=()) if e.layer == "5" else e for e in of.estimates)
    without = neighbours(Flow(of.layers, of.skips, dead), epoch=100)
    assert [pair.step is None for pair in without[2:6]] == [False, True, True, False]
    with pytest.raises(InvalidArgument, match=r"epoch 4 not measured for I_V\(M→Y\): measured are 0, 1, 2, 3, 5"):
        neighbours(of, epoch=4)


def test_a_panel_for_each_merge_the_deepest_first(flow) -> None:
    panels = plots.merge_gains(usable(flow))
    assert [panel.get_title() for panel in panels] == [
        "skip4 into layer 11",
        "skip3 into layer 14",
        "skip2 into layer 17",
        "skip1 into layer 20",
    ]
    with pytest.raises(InvalidArgument, match="no merge to plot: the flow names no skips"):
        plots.merge_gains(Flow(flow.layers, (), flow.estimates))
    with pytest.raises(InvalidArgument, match=r"no estimate of I_V\(S→Y\|U\) to plot"):
        plots.merge_gains(flow)


def foreign() -> Flow:
    layers = [Layer(name, name, index // 2) for index, name in enumerate(FOREIGN)]
    skips = [Skip(FOREIGN[0], FOREIGN[0], FOREIGN[2], FOREIGN[5]), Skip(FOREIGN[3], FOREIGN[1], FOREIGN[2], FOREIGN[4])]
    flow = measured(layers, skips, epochs=(0, 1, 10))
    rows = tuple(replace(e, labels=e.labels and "</style>$k_1$") for e in flow.estimates)
    return Flow(flow.layers, flow.skips, rows)


@pytest.mark.long
@every_drawing
def test_foreign_text_is_drawn_letter_for_letter(draw, texts, tmp_path) -> None:
    drawn = draw(foreign())
    written = texts(drawn)
    letters = "\n".join(s for s, _ in written)
    for name in ("$x_1$", "[/x].png", "</style>", "a_{b}", "_hidden", r"\frac{1}{$"):
        assert name in letters, f"{name} was not drawn as it is: {letters}"
    assert "\u202e" not in letters, "a mark that turns text around reached the renderer"
    assert_legible(drawn, written)
    _, svg = plots.save(figure_of(drawn), tmp_path, "foreign")
    text = svg.read_text(encoding="utf-8")
    for tag in ("<script", "</script", "</style>$", "<foreignObject", "onload"):
        assert tag not in text
    tags = {element.tag.split("}")[-1] for element in ElementTree.fromstring(text).iter()}
    assert not tags & {"script", "foreignObject", "a", "text"}


def test_long_foreign_text_is_cut_in_the_middle(texts) -> None:
    name = "$" * 40 + "middle" + "{" * 40
    layers = [Layer(name, "m1"), Layer("b", "m2")]
    written = texts(plots.u_plot(measured(layers, [Skip(name, name, name, "b")], epochs=(0,))))
    assert "$$$$$…{{{{{{{{{{{{" in [s for s, _ in written]
    assert not [s for s, _ in written if "middle" in s]


@pytest.mark.long
@every_drawing
def test_the_same_figure_gives_the_same_bytes(draw, tmp_path) -> None:
    (tmp_path / "again").mkdir()
    one = figure_of(draw(small()))
    png, svg = plots.save(one, tmp_path, "figure")
    first = png.read_bytes(), svg.read_bytes()
    assert plots.save(one, tmp_path, "figure") == (png, svg)
    assert (png.read_bytes(), svg.read_bytes()) == first, "saved twice"
    plots.save(figure_of(draw(small())), tmp_path / "again", "figure")
    assert tuple((tmp_path / "again" / file.name).read_bytes() for file in (png, svg)) == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["again", "figure.png", "figure.svg"]
    assert first[0].startswith(b"\x89PNG")
    assert ElementTree.fromstring(first[1]).tag.endswith("svg")
    assert b"<dc:date>" not in first[1]


@pytest.mark.long
def test_figures_need_neither_pyplot_nor_torch_and_no_fixed_hash(tmp_path) -> None:
    code = (
        "import sys, test_plots as t\n"
        "for name, draw in t.DRAWINGS.items():\n"
        "    drawn = draw(t.small())\n"
        "t.plots.save(t.figure_of(t.plots.u_plot(t.small())), sys.argv[1], 'u')\n"
        "sys.exit(', '.join({'torch', 'matplotlib.pyplot'} & set(sys.modules)) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    saved = [(tmp_path / f"u.{kind}").read_bytes() for kind in ("png", "svg")]
    ours = plots.save(figure_of(plots.u_plot(small())), tmp_path, "ours")
    assert saved == [file.read_bytes() for file in ours]


OTHER_SETTINGS = {
    "figure.dpi": 1e9, "savefig.dpi": 1e5, "path.sketch": (5, 20, 5), "axes.grid": True, "lines.linewidth": 9.0,
    "lines.color": "red", "savefig.bbox": "tight", "savefig.transparent": True, "text.usetex": True,
}  # fmt: skip


def test_figures_are_those_without_any_settings(tmp_path) -> None:
    plots.save(figure_of(plots.u_plot(small())), tmp_path, "as_they_are")
    shown = plots.u_plot(small())._repr_png_()
    with matplotlib.rc_context(OTHER_SETTINGS):
        plots.save(figure_of(plots.u_plot(small())), tmp_path, "with_others")
        assert plots.u_plot(small())._repr_png_() == shown
    for kind in ("png", "svg"):
        assert (tmp_path / f"with_others.{kind}").read_bytes() == (tmp_path / f"as_they_are.{kind}").read_bytes()


@every_drawing
def test_global_settings_are_as_before(draw) -> None:
    settings = {"font.size": 21.0, "axes.spines.top": True, "svg.hashsalt": None}
    with matplotlib.rc_context(settings):  # read as a plain dictionary: asking for the backend would choose one
        before = dict.copy(matplotlib.rcParams)
        draw(small())
        assert dict.copy(matplotlib.rcParams) == before
        with pytest.raises(InvalidArgument):
            plots.u_plot(small(), estimator="none")
        assert dict.copy(matplotlib.rcParams) == before


def test_saving_leaves_global_settings_as_before(tmp_path) -> None:
    before = dict.copy(matplotlib.rcParams)
    plots.save(Figure(figsize=(1, 1)), tmp_path, "figure")
    assert dict.copy(matplotlib.rcParams) == before


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_failure_leaves_the_old_file_and_no_half_one(kind, tmp_path, monkeypatch) -> None:
    png, svg = plots.save(Figure(figsize=(1, 1)), tmp_path, "figure")
    before = {png: png.read_bytes(), svg: svg.read_bytes()}
    savefig = Figure.savefig

    def fail(self, path, *, format, **options):
        if format == kind:
            Path(path).write_bytes(b"half")
            raise OSError("No space left on device")
        savefig(self, path, format=format, **options)

    monkeypatch.setattr(Figure, "savefig", fail)
    for name in ("figure", "new"):
        with pytest.raises(OSError, match="No space left"):
            plots.save(Figure(figsize=(1, 1)), tmp_path, name)
    assert {file: file.read_bytes() for file in before} == before
    assert {file.name for file in tmp_path.iterdir()} <= {"figure.png", "figure.svg", "new.png"}
    assert not (tmp_path / f"new.{kind}").exists()


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\nb", "a:b", 'a"b', "<a>"])
def test_a_name_that_is_not_a_plain_one_is_refused(name, tmp_path) -> None:
    with pytest.raises(InvalidArgument) as refused:
        plots.save(Figure(), tmp_path, name)
    assert str(refused.value) == f"name must be a plain file name without a folder, got {name!r}"
    with pytest.raises(InvalidArgument, match=r"cannot save a figure in .*: no such folder"):
        plots.save(Figure(), tmp_path / "none", "figure")
    assert not list(tmp_path.iterdir())


def test_figures_can_be_drawn_into_axes_of_ones_own() -> None:
    flow = small()
    figure = Figure(figsize=(14, 12), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    left, right, far = upper.subplots(1, 3)
    assert plots.u_plot(flow, axes=left) is left
    assert plots.architecture(flow.layers, flow.skips, axes=right) is right
    assert plots.dice_curves({"run": history(5)}, axes=far) is far
    for panel in plots.information_plane(flow, figure=lower):
        assert panel.figure is lower
    alone = Figure()
    for axes in plots.masks_by_cluster([("c", [np.eye(4, dtype=int)])], figure=alone):
        assert axes.figure is alone
