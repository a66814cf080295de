"""What starting does: Models 1 to 4 with several seeds and other weights at first, for docs/paper.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown_table import table
from paper_protocol import BEGUN, MODELS, Protocol, begun_at, epoch_text

from unetscope.runs.retraining import trained_variants

WEIGHTS = {"glorot": "Glorot, as published", "he": "He"}


def starts_of(path: Path) -> dict[str, Any]:
    """Of a run of a few epochs: how long it is, and when its models begin, seed by seed, in the paper's epochs."""
    protocol = Protocol(path)
    rows = []
    for name in MODELS:
        trials = [trial for trial in trained_variants(protocol.run.folder) if trial.variant.name == name]
        trainings = [
            training
            for trial in sorted(trials, key=lambda trial: trial.seed)
            if (training := protocol.run.training(trial)).records
            and training.ended(protocol.config["training"]["epochs"])
        ]
        if not trainings:
            continue
        begins = [
            begun_at({record.epoch * protocol.scale: record.validation_dice for record in training.records})
            for training in trainings
        ]
        why_not = {
            training.why_not
            for training, begun in zip(trainings, begins, strict=True)
            if begun is None and training.started_at is None
        }
        best = [max(record.validation_dice for record in training.records[1:]) for training in trainings]
        rows.append(
            (
                WEIGHTS[protocol.config["network"]["initialisation"]],
                name,
                f"{sum(begun is not None for begun in begins)} of {len(begins)}",
                ", ".join(map(epoch_text, begins)),
                ", ".join(f"{dice:.3f}" for dice in best),
                "; ".join(sorted(why_not)) or "–",
            )
        )
    return {"title": protocol.title, "epochs": protocol.epochs, "rows": rows}


def starts(sections: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the page. sections: of each run what `starts_of` says, by its name."""
    yield from ("## What starting does", "")
    epochs = sorted({section["epochs"] for section in sections.values()})
    yield (
        f"Models 1 to 4 for {' or '.join(f'{number:,}' for number in epochs)} of the paper's epochs, seed by seed "
        f"({'; '.join(dict.fromkeys(section['title'].lower() for section in sections.values()))}). *Begins*: the first epoch at "
        f"which the mean validation Dice is above {BEGUN:g}. *Why not*: of those that do not begin, layers that are the same for "
        "every image, if there are any."
    )
    head = ("weights at first", "model", "begin", "begins at epoch", "best Dice", "why not")
    rows: list[Sequence[str]] = [row for section in sections.values() for row in section["rows"]]
    yield from ("", *table(head, rows), "")
