"""The shared style of figures: sizes, colours, escaping of text, saving."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, SymLogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from unetscope.base import InvalidArgument, whole_file
from unetscope.table import STATUS_MARKS, Layer, Series, Status

FONT = "DejaVu Sans"  # comes with matplotlib, so a figure is the same on every machine
SMALL, MEDIUM, LARGE = 6.5, 7.5, 8.5  # points

STYLE: dict[str, Any] = {
    "font.family": [FONT],
    "font.size": MEDIUM,
    "axes.titlesize": LARGE,
    "axes.labelsize": MEDIUM,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#444444",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "figure.titlesize": LARGE,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "text.usetex": False,
    "text.parse_math": True,  # `shown` escapes every dollar sign, and its backslash is only taken off when this is on
    "svg.fonttype": "path",
    "svg.hashsalt": "unetscope",
}

# Settings of the program that draws, which change no figure.
NO_STYLE = {
    "backend", "backend_fallback", "date.epoch", "docstring.hardcopy", "figure.max_open_warning", "figure.raise_window",
    "interactive", "savefig.directory", "timezone", "tk.window_focus", "toolbar",
}  # fmt: skip


@cache
def _settings() -> dict[str, Any]:
    """The settings of every figure: the style, and what it leaves open as matplotlib has it without any matplotlibrc."""
    defaults = dict.items(matplotlib.rcParamsDefault)  # read plainly: asking for the backend would choose one
    return {name: value for name, value in defaults if name not in NO_STYLE and not name.startswith("webagg.")} | STYLE


SHOWN_DPI = 200  # of a figure in a notebook, which is shown half as large, for fine screens


class ShownAxes(Axes):
    """Axes that a notebook displays as their whole figure."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        memory, figure = io.BytesIO(), self.get_figure(root=True)
        assert figure is not None
        with matplotlib.rc_context(cast(Any, _settings())):
            figure.savefig(memory, format="png", dpi=SHOWN_DPI, bbox_inches="tight")
        width, height = struct.unpack(">II", memory.getvalue()[16:24])
        return memory.getvalue(), {"width": width // 2, "height": height // 2}


class ShownFigure(Figure):
    """A figure whose axes a notebook displays; it is not registered with pyplot, so it is not displayed twice."""

    def add_subplot(self, *args: Any, **about: Any) -> Axes:
        """Axes that a notebook displays."""
        return super().add_subplot(*args, **{"axes_class": ShownAxes, **about})


class ShownPanels(np.ndarray):
    """An array of axes of one figure that a notebook displays."""

    def _repr_png_(self) -> Any:
        show = getattr(self.flat[0], "_repr_png_", None) if self.size else None
        return None if show is None else show()


P = ParamSpec("P")
T = TypeVar("T")


def in_style(draw: Callable[P, T]) -> Callable[P, T]:
    """Decorator of drawing functions: applies the style, restores the global rcParams, and lets a notebook display the axes."""

    @wraps(draw)
    def drawn(*args: P.args, **about: P.kwargs) -> T:
        with matplotlib.rc_context(cast(Any, _settings())):
            drawing = draw(*args, **about)
        return cast(T, drawing.view(ShownPanels)) if isinstance(drawing, np.ndarray) else drawing

    return drawn


PAPER_AROUND = 0.1  # inches of paper around what is drawn

# Okabe & Ito, "Color Universal Design" (2008): distinguishable with all common kinds of colour blindness.
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
CATEGORIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MERGE_BAND, FAINT, INK = "#EDEDED", "#9A9A9A", "#333333"

# Viridis without its palest yellow, in which a thin line on white paper is invisible.
EPOCH_COLOURS: Colormap = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.93, 256)), name="epochs")


@cache
def _font() -> FT2Font:
    return get_font(findfont(FONT))


def shown(text: str, longest: int = 60) -> str:
    """Text as matplotlib can draw it: dollar signs escaped, undrawable characters replaced, long text elided.

    The middle is left out, because the ends of a dotted module name distinguish layers.

    >>> shown("decoder.blocks.3.conv2", longest=14), shown("$x_1$")
    ('deco…s.3.conv2', '\\\\$x_1\\\\$')
    """
    drawable = "".join(c if c.isprintable() and _font().get_char_index(ord(c)) else "\ufffd" for c in text)
    if len(drawable) > longest:
        head = max(0, longest - 1) // 3
        drawable = drawable[:head] + "…" + drawable[len(drawable) - (longest - 1 - head) :]
    return drawable.replace("$", r"\$")


def series_line(series: Series) -> str:
    """Estimator, resolution, number of images and label scheme, for a title."""
    labels = [f"Y: {shown(series.key.scheme, 30)}"] if series.key.scheme else []
    return " · ".join([shown(series.key.text, 40), series.images_text, *labels])


def point_style(status: Status) -> dict[str, Any]:
    """The style of a point whose estimate has this status, without colour and size."""
    mark = STATUS_MARKS[status]
    face = {"markerfacecolor": "white"} if mark.hollow else {}
    return {"linestyle": "none", "marker": mark.marker, **face}


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "skip"), counted(4, "skip")
    ('1 skip', '4 skips')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def inches_of(text: str, size: float) -> float:
    """Approximate width in inches of a line of text of this size in points."""
    return 0.53 * size * len(text) / 72


def is_merge(layer: Layer) -> bool:
    """Whether several tensors join in this layer."""
    return layer.role == "merge" or len(layer.parts) > 1


def new_axes(axes: Axes | None, width: float, height: float) -> Axes:
    """The axes given, or those of a new figure of this size in inches."""
    return ShownFigure(figsize=(width, height), layout="constrained").subplots() if axes is None else axes


def new_figure(figure: Figure | SubFigure | None, width: float, height: float) -> Figure | SubFigure:
    """The figure given, or a new one of this size in inches."""
    return ShownFigure(figsize=(width, height), layout="constrained") if figure is None else figure


def tidy(axes: Axes) -> None:
    """Hide the top and right spines, and set the tick sizes now, because matplotlib looks them up only when it draws."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL, width=0.6, length=2.5, labelfontfamily=FONT)
    axes.tick_params(which="minor", width=0.4, length=1.5)


def epoch_norm(epochs: Sequence[int]) -> SymLogNorm:
    """Maps epochs to [0, 1] by their logarithm, linear below 1 so that epoch 0 has a colour too.

    >>> norm = epoch_norm([0, 1, 10, 100])
    >>> [round(float(norm(epoch)), 2) for epoch in (0, 1, 10, 100)]
    [0.0, 0.2, 0.6, 1.0]
    """
    first, last = (min(epochs), max(epochs)) if len(set(epochs)) > 1 else (0, max(*epochs, 1))
    return SymLogNorm(linthresh=1.0, linscale=0.45, base=10, vmin=first, vmax=last)


def epoch_ticks(first: int, last: int) -> list[int]:
    """Powers of ten between two epochs, zero, and both ends unless they would crowd a power.

    >>> epoch_ticks(0, 250), epoch_ticks(0, 120), epoch_ticks(0, 0)
    ([0, 1, 10, 100, 250], [0, 1, 10, 100], [0])
    """
    powers = [10**power for power in range(int(math.log10(max(last, 1))) + 1)]
    ticks = [tick for tick in (0, *powers) if first <= tick <= last]
    for end in (first, last):
        if all(abs(math.log10((end + 1) / (tick + 1))) > 0.25 for tick in ticks):
            ticks.append(end)
    return sorted(ticks)


def epochs_on_axis(axes: Axes, first: int, last: int) -> None:
    """Make the x-axis one of epochs: linear for a short training, logarithmic (linear below 1) from a hundred epochs on."""
    margin = 0.03 * max(last - first, 1)
    if last >= 100:
        axes.set_xscale("symlog", linthresh=1.0, linscale=0.45)
        axes.set_xlim(first * 0.85 - 0.15, max(last, 1) * 1.12)
        axes.xaxis.set_major_locator(FixedLocator(epoch_ticks(first, last)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(first - max(margin, 0.1), last + max(margin, 0.1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:g}"))
    axes.set_xlabel("training epoch")


def tracks(spans: Iterable[tuple[float, float]]) -> list[int]:
    """For each span, the lowest track on which it meets no shorter one: nested brackets lie inside each other.

    >>> tracks([(2, 20), (4, 17), (30, 40)])
    [1, 0, 0]
    """
    spans = [(min(span), max(span)) for span in spans]
    taken: dict[int, list[tuple[float, float]]] = {}
    track_of = [0] * len(spans)
    for index in sorted(range(len(spans)), key=lambda i: (spans[i][1] - spans[i][0], spans[i])):
        left, right = spans[index]
        meets = [t for t, spans_on in taken.items() if any(left <= b and a <= right for a, b in spans_on)]
        track_of[index] = max(meets, default=-1) + 1
        taken.setdefault(track_of[index], []).append((left, right))
    return track_of


@in_style
def save(figure: Figure, folder: str | Path, name: str) -> tuple[Path, Path]:
    """Write `name.png` (200 dots an inch) and `name.svg` (text as paths), each whole or not at all; returns both paths.

    The same figure gives the same bytes: no date, no random identifiers, and a layout that is settled when the figure is
    first saved (a constrained layout moves a little each time it is drawn).

    Raises: InvalidArgument if the folder is missing or the name is not a plain file name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save(Figure(figsize=(1, 1)), folder, "u_plot")]
    ['u_plot.png', 'u_plot.svg']
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InvalidArgument(f"cannot save a figure in {str(folder)!r}: no such folder")
    if name in {"", ".", ".."} or any(c in '/\\:*?"<>|' or not c.isprintable() for c in name):
        raise InvalidArgument(f"name must be a plain file name without a folder, got {name!r}")
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.draw_without_rendering()
    with matplotlib.rc_context({"figure.constrained_layout.use": False, "figure.autolayout": False}):
        figure.set_layout_engine(None)  # "none" leaves a placeholder, for which each file draws everything once more
    ink = figure.get_tightbbox().padded(PAPER_AROUND)  # which bbox_inches="tight" would find again for each file
    with whole_file(png) as beside:
        figure.savefig(beside, format="png", dpi=200, bbox_inches=ink, metadata={"Software": None})
    with whole_file(svg) as beside:
        figure.savefig(beside, format="svg", bbox_inches=ink, metadata={"Date": None, "Creator": None})
    return png, svg
