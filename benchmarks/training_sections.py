"""The sections of docs/performance.md on training, whole runs and start-up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib.pyplot as plt


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def against_a_plain_loop(results: Mapping[str, Any], docs: Path) -> list[str]:
    """Training, beside a plain loop."""
    rows = results["seeds"]
    figure, axes = plt.subplots(
        1, len(rows), figsize=(3.4 * len(rows), 3), sharey=True, squeeze=False, layout="constrained"
    )
    for seed, (axis, row) in enumerate(zip(axes[0], rows, strict=True)):
        epochs = range(1, results["epochs"] + 1)
        axis.plot(epochs, row["plain_dice"], color="0.45", label="plain float32 loop")
        axis.plot(epochs, row["our_dice"], label="unetscope")
        axis.set(title=f"seed {seed}", xlabel="epoch")
    axes[0, 0].set_ylabel("validation Dice (above 0.7)")
    axes[0, 0].set_ylim(0.7, 0.95)
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(docs / "figures" / "performance_training.png", dpi=130)
    plt.close(figure)
    ends = [[fmean(row[name][-results["last"] :]) for name in ("plain_dice", "our_dice")] for row in rows]
    return [
        "## Training",
        "",
        f"Width 16, 128×128, {results['train']} training and {results['validation']} validation images, Adam at 1e-3, batches of 16, {results['epochs']} epochs, "
        "compared with a plain float32 loop (`benchmarks/plain_loop.py`) from the same weights and with the same order of "
        "images. unetscope trains in bfloat16, with channels last in memory and a fused optimizer. Dice is the validation Dice, "
        f"averaged over the last {results['last']} epochs. For each seed both are trained once, one after the other.",
        "",
        "![Validation Dice by seed](figures/performance_training.png)",
        "",
        *table(
            (
                "seed",
                "plain, s per epoch",
                "unetscope, s per epoch",
                "ratio",
                "plain Dice",
                "unetscope Dice",
                "difference",
            ),
            [
                (
                    str(seed),
                    f"{row['plain_seconds']:.1f}",
                    f"{row['our_seconds']:.1f}",
                    f"**{row['plain_seconds'] / row['our_seconds']:.2f}**",
                    f"{plain:.4f}",
                    f"{ours:.4f}",
                    f"{ours - plain:+.4f}",
                )
                for seed, (row, (plain, ours)) in enumerate(zip(rows, ends, strict=True))
            ],
        ),
        "",
        f"Mean difference of Dice **{fmean(ours - plain for plain, ours in ends):+.4f}**, with a standard error over seeds of "
        f"{_standard_error([ours - plain for plain, ours in ends]):.4f}. The validation curves take "
        f"**{fmean(row['curves_share'] for row in rows):.1%}** of an epoch; the training curves use the values of the training step.",
    ]


def _standard_error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def start_up(results: Mapping[str, float], _docs: Path) -> list[str]:
    """Start-up."""
    return [
        "## Start-up",
        "",
        *table(
            ("", "seconds"),
            [
                ("`unetscope --help`", f"**{results['help']:.2f}**"),
                ("`import torch`", f"{results['torch']:.2f}"),
                ("`import unetscope`, after torch", f"{results['package']:.2f}"),
                ("`from unetscope import UNet, Scope, Trainer`, after torch", f"**{results['names']:.2f}**"),
            ],
        ),
    ]


def a_quick_run(results: Mapping[str, float], _docs: Path) -> list[str]:
    """A whole run."""
    return [
        "## A whole run",
        "",
        "`unetscope run --preset quick`, from the start of the process to the last figure. The merges are probed at the last "
        "epoch and at thirds of it.",
        "",
        *table(
            ("epochs", "measured at", "seconds", "of which training and validation", "validation Dice"),
            [
                (
                    f"{results['epochs']:.0f}",
                    f"{results['measured']:.0f} epochs",
                    f"**{results['seconds']:.0f}**",
                    f"{results['training']:.0f}",
                    f"{results['dice']:.3f}",
                )
            ],
        ),
    ]
