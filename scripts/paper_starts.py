"""What starting does: Models 1 to 4 with several seeds and other weights at first, for docs/paper.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markdown_table import table
from paper_protocol import BEGUN, MODELS, PAPER_RATE, epoch_text, facts_of, title_of

from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.retraining import trained_variants

WEIGHTS = {"glorot": "Glorot, as published", "he": "He"}


def starts_of(path: Path) -> dict[str, Any]:
    """Of a run of a few epochs: what was trained, and when its models begin, seed by seed, in the paper's epochs."""
    run = AnalysedRun.open(path)
    config = run.configuration["training"]
    scale = config["learning_rate"] / PAPER_RATE
    rows = []
    for name in MODELS:
        trials = [trial for trial in trained_variants(run.folder) if trial.variant.name == name]
        trainings = [run.training(trial) for trial in sorted(trials, key=lambda trial: trial.seed)]
        trainings = [training for training in trainings if training.records and training.ended(config["epochs"])]
        if not trainings:
            continue
        trained = [
            training.records[1:] for training in trainings
        ]  # the first is of the network that is not trained yet
        begins = [
            next((record.epoch * scale for record in records if record.validation_dice > BEGUN), None)
            for records in trained
        ]
        why_not = {training.why_not for training in trainings if training.started_at is None}
        rows.append(
            (
                WEIGHTS[run.configuration["network"]["initialisation"]],
                name,
                f"{sum(begun is not None for begun in begins)} of {len(begins)}",
                ", ".join(map(epoch_text, begins)),
                ", ".join(f"{max(record.validation_dice for record in records):.3f}" for records in trained),
                "; ".join(sorted(why_not)) or "–",
            )
        )
    return {"title": title_of(facts_of(run)), "epochs": round(config["epochs"] * scale), "rows": rows}


def starts(sections: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the page. sections: of each run what `starts_of` says, by its name."""
    yield from ("## What starting does", "")
    epochs = sorted({section["epochs"] for section in sections.values()})
    yield (
        f"Models 1 to 4 for {' or '.join(f'{number:,}' for number in epochs)} of the paper's epochs, seed by seed "
        f"({'; '.join(dict.fromkeys(section['title'].lower() for section in sections.values()))}). *Begins*: the first epoch at "
        f"which the mean validation Dice is above {BEGUN:g}. *Why not*: of those whose loss stays at that of a constant prediction, "
        "layers that are the same for every image, if there are any."
    )
    head = ("weights at first", "model", "begin", "begins at epoch", "best Dice", "why not")
    rows: list[Sequence[str]] = [row for section in sections.values() for row in section["rows"]]
    yield from ("", *table(head, rows), "")
    for weights in dict.fromkeys(row[0] for row in rows):
        counts = np.array([row[2].split(" of ") for row in rows if row[0] == weights], dtype=int).sum(axis=0)
        yield f"- {weights}: {counts[0]} of {counts[1]} trainings begin by then."
    yield ""
