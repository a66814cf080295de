"""Write docs/figures/packages.svg, the drawing of docs/architecture.md: the packages in import order, and the path of the data.

    python scripts/make_architecture.py

The order of the packages is that of import-linter in pyproject.toml. The colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRAWING = ROOT / "docs" / "figures" / "packages.svg"

# What each package does, in two short lines.
NOTES = {
    "base": ("errors, files,", "random state"),
    "table": ("records, series,", "intervals"),
    "data": ("images", "and masks"),
    "activations": ("run a network,", "see its tensors"),
    "estimators": ("statistics", "to nats"),
    "analysis": ("table", "to verdicts"),
    "networks": ("find and remove", "skips, levels"),
    "training": ("epochs, config,", "checkpoints"),
    "plots": ("table", "to figures"),
    "measure": ("activations", "to bits"),
    "runs": ("folders, jobs,", "trackers"),
    "report": ("HTML page,", "live view"),
    "cli": ("the command", ""),
}
STEPS = (
    ("inputs", "images, network"),
    ("activations", "one layer", "at a time"),
    ("statistics", "distances,", "symbols, moments"),
    ("estimates", "in bits"),
    ("run folder", "tables,", "checkpoints"),
    ("analysed run", "read and judged", "once"),
    ("sinks", "terminal, page,", "JSON, trackers"),
)
WIDTH, MARGIN, GAP = 1040, 24, 16
PACKAGES_TOP, ROW, BOX = 70, 76, 62
STEPS_TOP = PACKAGES_TOP + 3 * ROW + 58
LOOP_TOP = STEPS_TOP + BOX + 26
HEIGHT = LOOP_TOP + 40
STYLE = """
  svg { --back: #ffffff; --text: #1f2430; --faint: #5b6472; --line: #8a93a3; --package: #e3edfb; --step: #e6f4ea; }
  @media (prefers-color-scheme: dark) {
    svg { --back: #1b1f27; --text: #e8ebf0; --faint: #aab3c2; --line: #7d8798; --package: #25405f; --step: #24452f; }
  }
  text { font-family: system-ui, "DejaVu Sans", sans-serif; font-size: 12px; fill: var(--faint); }
  .name { font-size: 14px; font-weight: 600; fill: var(--text); }
  .head { font-size: 14px; fill: var(--text); }
  .back { fill: var(--back); }
  .package { fill: var(--package); }
  .step { fill: var(--step); }
  .line { stroke: var(--line); stroke-width: 1.5; fill: none; marker-end: url(#arrow); }
  .arrow { fill: var(--line); }
"""


def columns() -> list[list[str]]:
    """The packages by import level, from the one that imports nothing to the one that may import all."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        layers = tomllib.load(file)["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[name.strip() for name in layer.split("|")] for layer in reversed(layers)]


def box(kind: str, x: float, y: float, width: float, name: str, *notes: str) -> str:
    """A rounded box with a name and small lines below it."""
    middle = x + width / 2
    lines = [f'<rect class="{kind}" x="{x:g}" y="{y}" width="{width:g}" height="{BOX}" rx="8"/>']
    lines.append(f'<text class="name" x="{middle:g}" y="{y + 20}" text-anchor="middle">{escape(name)}</text>')
    for row, note in enumerate(filter(None, notes)):
        lines.append(f'<text x="{middle:g}" y="{y + 37 + 15 * row}" text-anchor="middle">{escape(note)}</text>')
    return "\n".join(lines)


def line(path: str) -> str:
    """A line with an arrow at its end."""
    return f'<path class="line" d="{path}"/>'


def drawing() -> str:
    """The whole drawing."""
    levels = columns()
    wide = (WIDTH - 2 * MARGIN - GAP * (len(levels) - 1)) / len(levels)
    step = (WIDTH - 2 * MARGIN - 20 * (len(STEPS) - 1)) / len(STEPS)
    parts = [f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="12"/>']
    parts.append(
        f'<text class="head" x="{MARGIN}" y="34">Packages: each imports only packages in the columns to its left</text>'
    )
    parts.append(line(f"M {WIDTH - MARGIN} 50 H {MARGIN}"))
    for column, names in enumerate(levels):
        for row, name in enumerate(names):
            y = PACKAGES_TOP + int((3 - len(names)) * ROW / 2) + row * ROW
            parts.append(box("package", MARGIN + column * (wide + GAP), y, wide, name, *NOTES[name]))
    parts.append(
        f'<text class="head" x="{MARGIN}" y="{STEPS_TOP - 16}">Data: one direction, from the images to the results</text>'
    )
    for place, (name, *notes) in enumerate(STEPS):
        x = MARGIN + place * (step + 20)
        parts.append(box("step", x, STEPS_TOP, step, name, *notes))
        if place:
            parts.append(line(f"M {x - 18:g} {STEPS_TOP + BOX / 2:g} H {x - 2:g}"))
    # Retraining: from the analysed run to new run folders.
    source, target = (MARGIN + place * (step + 20) + step / 2 for place in (5, 4))
    turn = LOOP_TOP
    label = "smaller network, retrained over seeds"
    parts.append(f'<text x="{(source + target) / 2:g}" y="{turn + 20}" text-anchor="middle">{label}</text>')
    parts.append(line(f"M {source:g} {STEPS_TOP + BOX + 2} V {turn} H {target:g} V {STEPS_TOP + BOX + 6}"))
    marker = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="arrow" d="M 0 0 L 8 4 L 0 8 z"/></marker></defs>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">'
    title = "<title>The packages of unetscope in import order, and the path of the data</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", marker, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
