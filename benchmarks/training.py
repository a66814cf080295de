"""Training against a plain float32 loop, the share of the curves, and start-up."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import unetscope as us
from benchmarks.cases import images
from benchmarks.plain_loop import plain_training
from benchmarks.timing import seconds

LAST = 5  # epochs whose Dice is averaged: from one epoch to the next it moves by a hundredth


def against_a_plain_loop(
    source: str | None, held_out: str | None, seeds: int, epochs: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds of an epoch and the curve of validation Dice, seed by seed, of the same network from the same weights."""
    data = images(source, 128)
    train, validation = (data, images(held_out, 128)) if held_out else data.split(0.1)
    rows = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        start = us.UNet(16).state_dict()
        plain, ours = us.UNet(16), us.UNet(16)
        plain.load_state_dict(start)
        ours.load_state_dict(start)
        theirs = list(plain_training(plain, train, validation, epochs=epochs, learning_rate=1e-3, seed=seed))
        records: list[us.table.EpochRecord] = []
        with tempfile.TemporaryDirectory() as folder:
            trainer = us.Trainer(ours, train, validation, us.TrainingConfig(epochs=epochs), folder, seed=seed)
            trainer.run(on_epoch=records.append)
            curves = statistics.median(seconds(trainer._evaluate) for _ in range(5))
        records = records[1:]  # the first is the untrained network
        rows.append(
            {
                "plain_seconds": statistics.median(record.seconds for record in theirs),
                "our_seconds": statistics.median(record.seconds for record in records),
                "plain_dice": [record.validation_dice for record in theirs],
                "our_dice": [record.validation_dice for record in records],
                "curves_share": curves / statistics.median(record.seconds for record in records),
            }
        )
        say(
            f"seed {seed}: {rows[-1]['plain_seconds']:.1f} s an epoch plain, {rows[-1]['our_seconds']:.1f} s ours, "
            f"Dice {statistics.mean(rows[-1]['plain_dice'][-LAST:]):.3f} and {statistics.mean(rows[-1]['our_dice'][-LAST:]):.3f}"
        )
    return {
        "seeds": rows,
        "epochs": epochs,
        "last": min(LAST, epochs),
        "train": len(train),
        "validation": len(validation),
    }


def a_quick_run(source: str | None, held_out: str | None, say: Callable[[str], None], *more: str) -> dict[str, float]:
    """Seconds of `unetscope run` as it stands, everything included, and of the epochs alone. more: words of the command."""
    data = ["--data", source, *(["--val", held_out] if held_out else [])] if source else ["--synthetic-images", "120"]
    with tempfile.TemporaryDirectory() as folder:
        run = str(Path(folder, "run"))
        command = [sys.executable, "-m", "unetscope", "run", "--preset", "quick", *data, *more, "--quiet", "--out", run]
        whole = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
        judged = us.runs.AnalysedRun.open(run)
        result = {
            "seconds": whole,
            "training": sum(record.seconds for record in judged.epochs),
            "epochs": judged.epochs[-1].epoch,
            "measured": len(judged.flow.epochs),
            "dice": judged.epochs[-1].validation_dice,
        }
    say(f"a quick run: {whole:.0f} s, of which {result['training']:.0f} s training")
    return result


IMPORTS = """
import time
started = time.perf_counter()
import torch
with_torch = time.perf_counter()
import unetscope
with_package = time.perf_counter()
from unetscope import UNet, Scope, Trainer
print(with_torch - started, with_package - with_torch, time.perf_counter() - with_torch)
"""


def start_up(repeats: int, say: Callable[[str], None]) -> dict[str, float]:
    """Seconds of the command's help; of importing torch, and of what one needs to train and measure after it."""
    command = [str(Path(sys.executable).with_name("unetscope")), "--help"]
    taken: dict[str, list[float]] = {name: [] for name in ("help", "torch", "package", "names")}
    for repeat in range(repeats + 1):
        helping = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
        printed = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True).stdout
        if repeat:
            for name, value in zip(taken, (helping, *map(float, printed.split())), strict=True):
                taken[name].append(value)
    result = {name: statistics.median(values) for name, values in taken.items()}
    say(", ".join(f"{name} {value:.2f} s" for name, value in result.items()))
    return result
