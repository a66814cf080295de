"""A run folder to the data of its page: plain values that are written as JSON, without torch.

Numbers are rounded to five significant digits; what is not known is null. Nothing here is markup: every text is shown as text.
"""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unetscope.analysis.data_processing import dpi_violations
from unetscope.analysis.outcomes import DICE_MARGIN, Row, Verification
from unetscope.analysis.rank_stability import layer_rank_stability
from unetscope.analysis.verdict import Judgement
from unetscope.runs.folder import RunFolder
from unetscope.runs.tables import Picture
from unetscope.runs.verification import judgement_of, trained_variants, verification
from unetscope.table.estimator_registry import entry_of, estimator_text
from unetscope.table.flow import Flow
from unetscope.table.marks import STATUS_MARKS
from unetscope.table.parts import LEVEL, SKIP, Part
from unetscope.table.quantities import Quantity, Status
from unetscope.table.records import EpochRecord, Estimate, Verdict
from unetscope.table.schedule import log_spaced
from unetscope.table.variants import REFERENCE, removed_parts
from unetscope.training.config import repeat_command

DIGITS = 5
MOST_RESOLUTIONS = 3  # of an estimator, of each of which there are figures; of more, a sweep
SHOWN_OF_SWEEP = (1.0, 0.2)  # the paper's, if they are among them
UNLEARNT_DICE = 0.1
MOST_NAMED = 6  # skips and levels in a clause: of more, how many
MOST_CURVE_POINTS = 1500  # of a Dice curve: more than a screen has pixels for
MOST_PICTURE_BYTES = 1_200_000  # of predicted masks: epochs are left out until they fit
DIAGNOSTICS = (
    "lower",
    "upper",
    "unique_share",
    "null_mean",
    "null_high",
    "p",
    "train_bits",
    "quarter_bits",
    "half_bits",
    "extrapolated",
    "singleton_share",
)


def report_data_of(run: RunFolder, *, dice_margin: float = DICE_MARGIN) -> dict[str, Any]:
    """All that the page shows of one run.

    Series are what may stand on one axis: a quantity by an estimator at a resolution, for a label scheme. Each holds its values
    as [epochs × layers], in a row.

    Raises: RunFolderError for tables that cannot be read.
    """
    flow = run.flow()
    judgement = judgement_of(run)
    records = run.epochs()
    found = retrained(run, dice_margin)
    return {
        "name": run.path.resolve().name,
        "summary": summary(run, flow, records),
        "state": _state(run, records),
        "notes": notes(flow),
        "layers": [
            {"label": one.label, "module": one.module, "role": one.role, "level": one.level, "shape": one.shape}
            for one in flow.layers
        ],
        "skips": [
            {"name": one.name, "source": one.source, "upsampled": one.upsampled, "merge": one.merge}
            for one in flow.skips
        ],
        "epochs": flow.epochs,
        "series": list(_series(flow)),
        "training": _training(records),
        "verdicts": None if judgement is None else _judged(judgement),
        "verification": None if found is None else _verified(found),
        "clusters": _clusters(run, flow.labels),
        "predictions": _predictions(run),
        "facts": facts(run),
        "command": repeat_command(run.configuration) if run.own_network else None,
    }


def swept(flow: Flow) -> dict[str, float]:
    """The estimators with so many resolutions that a figure of each would be too many, and the one that is shown alone."""
    found: dict[str, list[float]] = {}
    for series in flow.series:
        if series.key.quantity is Quantity.INPUT:
            found.setdefault(series.key.estimator, []).append(series.key.resolution)
    return {
        estimator: next((size for size in sizes if size in SHOWN_OF_SWEEP), sizes[0])
        for estimator, sizes in found.items()
        if len(sizes) > MOST_RESOLUTIONS
    }


def retrained(run: RunFolder, margin: float) -> Verification | None:
    """What retraining says, if the reference and a variant have begun."""
    begun = [trial for trial in trained_variants(run) if RunFolder.open(trial.path).last_epoch() > 0]
    names = {trial.variant.name for trial in begun}
    return verification(run, begun, margin=margin) if REFERENCE in names and len(names) > 1 else None


def summary(run: RunFolder, flow: Flow, records: Sequence[EpochRecord]) -> str:
    """The run in two sentences, from its own numbers."""
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
    inputs = flow.select(quantity=Quantity.INPUT, epoch=flow.epochs[-1])
    if not inputs.series:
        return sentence
    series = inputs.series[0]
    told = [row for row in series.estimates.values() if row.status is not Status.ABSENT]
    saturated = sum(row.status is Status.SATURATED for row in told)
    if not told:
        return sentence
    lowest = min(told, key=lambda row: row.bits)
    return (
        f"{sentence} By {series.key.text}, I(X;M) is lowest at layer {lowest.layer}: "
        f"{lowest.bits:.1f} of at most {lowest.ceiling:.1f} bits. {saturated} of {len(told)} recorded tensors are at the "
        "ceiling, where they cannot be ranked."
    )


def notes(flow: Flow) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    rows = [row for row in flow.estimates if row.quantity == Quantity.LABEL]
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
        found.append(f"{labels}: H(Y) = {chosen[0].ceiling:.2f} bits{few}{counted}.")
    inputs, sweeps = flow.select(quantity=Quantity.INPUT), swept(flow)
    resolutions = Counter(series.key.estimator for series in inputs.series)
    for key in (series.key for series in inputs.series):
        if key.estimator not in sweeps and resolutions[key.estimator] == 1:
            found += _note_of_series(inputs, key.estimator, key.resolution)
    return found + [layer_rank_stability(flow, estimator=estimator).text for estimator in sweeps]


def _note_of_series(inputs: Flow, estimator: str, resolution: float) -> list[str]:
    """How many layers at the last epoch are beyond what so few images tell, and where data processing is violated."""
    rows = inputs.select(estimator=estimator, resolution=resolution, epoch=inputs.epochs[-1]).estimates
    beyond = [row for row in rows if row.out_of_domain]
    found = []
    if beyond:
        numbered = any(math.isfinite(row.bits) for row in beyond)
        meant = f"their numbers describe these {rows[0].n} images, not ever more of them" if numbered else "no number"
        found.append(
            f"{estimator_text(estimator, resolution)}: {len(beyond)} of {len(rows)} tensors are out of its domain at epoch "
            f"{inputs.epochs[-1]}: {meant}."
        )
    entry = entry_of(estimator)
    if entry is not None and entry.shannon:
        check = dpi_violations(inputs, estimator=estimator, resolution=resolution)
        found += [check.text] if check.violations else []
    return found


def facts(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    """The run's configuration and facts as sections of names and values, as people read them."""
    known, configuration = run.facts, run.configuration
    sections: dict[str, Mapping[str, Any]] = {
        "Run": {k: v for k, v in configuration.items() if not isinstance(v, dict)}
    }
    sections |= {name.capitalize(): values for name, values in configuration.items() if isinstance(values, dict)}
    for part, about in known.get("data", {}).items():
        sections[f"{part.capitalize()} images"] = about
    sections["Software"] = {"device": known.get("device", ""), **known.get("versions", {})}
    sections["Labels"] = {name: f"H(Y) = {bits:.3f} bits" for name, bits in known.get("H(Y) bits", {}).items()}
    return {
        title: {str(name): _said(value) for name, value in values.items()}
        for title, values in sections.items()
        if values
    }


def _said(value: Any) -> str:
    """A fact as people read it: lists with commas, absent values as a dash, floats without noise.

    >>> _said([1.0, 0.20000000001]), _said(None), _said(True), _said(())
    ('1, 0.2', '—', 'yes', '—')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value != value:  # NaN alone differs from itself
        return "—"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_said(item) for item in value) or "—"
    return str(value)


def _state(run: RunFolder, records: Sequence[EpochRecord]) -> dict[str, Any]:
    """How far the training is: `planned` is null where somebody else trains."""
    last = records[-1].epoch if records else None
    planned = run.configuration.get("training", {}).get("epochs") if run.own_network else None
    return {"epoch": last, "planned": planned, "own": run.own_network}


def _number(value: float) -> float | int | None:
    """Five significant digits; null for what is not finite, which JSON has no word for.

    >>> _number(2 / 3), _number(4.0), _number(math.nan)
    (0.66667, 4, None)
    """
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _series(flow: Flow) -> Iterable[dict[str, Any]]:
    """Every quantity, estimator, resolution and label scheme, in the order in which they were measured."""
    place = {layer.label: index for index, layer in enumerate(flow.layers)}
    for series in flow.series:
        key = series.key
        cells = [series.estimates.get((layer, epoch)) for epoch in series.epochs for layer in series.layers]
        yield {
            "quantity": key.quantity,
            "estimator": key.estimator,
            "title": key.text.split(",")[0],
            "resolution": _number(key.resolution),
            "text": key.text,
            "labels": key.labels,
            "unit": key.quantity.unit,
            "images": series.images[-1],
            "layers": [place[layer] for layer in series.layers],
            "epochs": list(series.epochs),
            "state": "".join(map(_mark, cells)),
            "reasons": _reasons(cells),
            **_columns(cells),
        }


def _mark(row: Estimate | None) -> str:
    """One letter a cell: `s` saturated, `o` out of its domain, `-` no number, `.` a number that may be compared."""
    return STATUS_MARKS[Status.ABSENT if row is None else row.status].letter


def _reasons(cells: Sequence[Estimate | None]) -> dict[str, list[int]]:
    """By reason, the cells that it is given for."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(cells):
        if row is not None and row.reason:
            found.setdefault(row.reason, []).append(index)
    return found


def _columns(cells: Sequence[Estimate | None]) -> dict[str, list[float | int | None]]:
    """The values of the cells by name; a name without any number is left out."""
    found = {}
    for name in ("bits", "low", "high", "ceiling", *DIAGNOSTICS):
        values = [None if row is None else _number(getattr(row, name)) for row in cells]
        if name == "bits" or any(value is not None for value in values):
            found[name] = values
    return found


def _training(records: Sequence[EpochRecord]) -> dict[str, list[Any]]:
    """Dice and loss of the epochs, of a very long training of some of them."""
    every = max(1, math.ceil(len(records) / MOST_CURVE_POINTS))
    kept = [record for record in records if record.epoch % every == 0 or record is records[-1]]
    return {
        "epoch": [record.epoch for record in kept],
        **{
            name: [_number(getattr(record, name)) for record in kept]
            for name in ("train_dice_running", "validation_dice", "train_loss_running", "validation_loss", "seconds")
        },
    }


def _judged(judgement: Judgement) -> dict[str, Any]:
    return {
        "margin": judgement.margin,
        "epochs": judgement.epochs,
        "parts": list(dict.fromkeys(str(verdict.part) for verdict in judgement.verdicts)),
        "rows": [_row_of(verdict) for verdict in judgement.verdicts],
        "sentences": [sentence(judgement, epoch) for epoch in judgement.epochs],
        "proposed": [
            None if (design := judgement.design(epoch)) is None else design.text for epoch in judgement.epochs
        ],
    }


def _row_of(verdict: Verdict) -> dict[str, Any]:
    numbers = {name: _number(getattr(verdict, name)) for name in ("bits", "low", "high", "ceiling")}
    names = ("epoch", "rule", "decision", "since", "text")
    return {"part": str(verdict.part), **{name: getattr(verdict, name) for name in names}, **numbers}


def sentence(judgement: Judgement, epoch: int) -> str:
    """What a training of so many epochs needs, in a sentence for the top of the page.

    >>> verdicts = tuple(Verdict(Part.named(part), 10, "conditional", what) for part, what in
    ...                  (("skip1", "needed"), ("level1", "undecided"), ("level2", "redundant"), ("skip3", "redundant")))
    >>> sentence(Judgement(verdicts, 3, (), 0.05, {10: {}}), 10)
    'A training of 10 epochs needs skip1, could do without level2 (all below skip2), and leaves level1 undecided.'
    """
    said: dict[str, list[str]] = {"needed": [], "redundant": [], "undecided": []}
    judged = {verdict.part: verdict for verdict in judgement.at(epoch) if verdict.rule == "conditional"}
    spared = min(
        (part for part, one in judged.items() if part.kind is LEVEL and one.decision == "redundant"), default=None
    )
    for part, verdict in judged.items():
        if (
            verdict.decision != "redundant" or spared is None or part.level <= spared.level
        ):  # what lies below goes with it
            below = f" (all below {Part(SKIP, part.level)})" * (part == spared)
            said[verdict.decision].append(f"{part}{below}")
    if len(said["undecided"]) == len(judged):
        return f"Of {len(judged)} skips and levels, nothing is decided for a training of {epoch} epochs."
    clauses = [
        f"{verb} {listed(said[decision]) if len(said[decision]) <= MOST_NAMED else f'{len(said[decision])} skips and levels'}"
        for decision, verb in (("needed", "needs"), ("redundant", "could do without"), ("undecided", "leaves"))
        if said[decision]
    ]
    if said["undecided"]:
        clauses[-1] += " undecided"
    return f"A training of {epoch} epochs {listed(clauses, oxford=True)}."


def listed(words: Sequence[str], *, oxford: bool = False) -> str:
    """Words with commas and an and.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    comma = "," * (oxford and len(words) > 2)
    return f"{', '.join(words[:-1])}{comma} and {words[-1]}" if len(words) > 1 else "".join(words)


def _verified(found: Verification) -> dict[str, Any]:
    return {
        "margin": found.margin,
        "target": _number(found.target),
        "budgets": [
            {"epoch": epoch, "rows": [_outcome_of(found, row) for row in found.rows(epoch)]} for epoch in found.budgets
        ],
        "scores": {rule: found.score(rule) for rule in ("conditional", "plateau")},
        "curves": [
            {
                "variant": training.variant,
                "seed": training.seed,
                "sound": training.sound,
                "epoch": [record.epoch for record in training.records],
                "dice": [_number(record.validation_dice) for record in training.records],
            }
            for training in found.trainings
        ],
    }


def _outcome_of(found: Verification, row: Row) -> dict[str, Any]:
    outcome, reference = row.outcome, found.variants[0]
    return {
        "variant": row.variant.name,
        "network": row.variant.text,
        "parts": tuple(map(str, removed_parts(row.variant, reference.depth, reference.without))),
        "dice": _number(outcome.dice),
        "difference": _number(outcome.difference.value),
        "low": _number(outcome.difference.low),
        "high": _number(outcome.difference.high),
        "decision": outcome.decision,
        "text": outcome.text,
        "predicted": row.predicted,
        "agreement": {rule: row.agreement(rule) for rule in ("conditional", "plateau")},
        "reaches": [training.reaches(found.target) for training in found.of(row.variant.name)],
    }


def _clusters(run: RunFolder, schemes: Iterable[str]) -> list[dict[str, Any]]:
    """By label scheme and class, probe masks of it; nothing for a scheme of which no pictures were kept."""
    found = []
    for labels in schemes:
        classes: dict[str, list[str]] = {}
        for picture in run.pictures(labels):
            classes.setdefault(picture.title, []).append(address(picture.pixels))
        if classes:
            found.append(
                {"labels": labels, "classes": [{"title": title, "masks": masks} for title, masks in classes.items()]}
            )
    return found


@dataclass(frozen=True)
class Example:
    """A validation image, its mask and what the network marked at some epochs."""

    image: Picture
    truth: Picture
    predicted: dict[int, Picture]

    @property
    def pixels(self) -> tuple[str, Any, Any, dict[int, Any]]:
        """Its title, the image, the mask as 0 and 1, and what was marked by epoch, as arrays."""
        marked = {epoch: picture.pixels for epoch, picture in self.predicted.items()}
        return self.image.title, self.image.pixels, self.truth.pixels // 255, marked


def examples(run: RunFolder) -> list[Example]:
    """The validation images that a run keeps, from a nearly empty to a full mask."""
    truths = {picture.title: picture for picture in run.pictures("truth")}
    predicted: dict[str, dict[int, Picture]] = {}
    for picture in run.pictures("prediction"):
        predicted.setdefault(picture.title, {})[picture.epoch] = picture
    return [
        Example(image, truths[image.title], predicted[image.title])
        for image in run.pictures("image")
        if image.title in truths and image.title in predicted
    ]


def _predictions(run: RunFolder) -> dict[str, Any] | None:
    """Of so many epochs as fit: a long training's are thinned out evenly in their logarithm."""
    rows = examples(run)
    if not rows:
        return None
    epochs = sorted(set.intersection(*(set(row.predicted) for row in rows)))
    addresses = {epoch: [address(row.predicted[epoch].pixels) for row in rows] for epoch in epochs}
    kept = epochs
    while len(kept) > 2 and sum(len(text) for epoch in kept for text in addresses[epoch]) > MOST_PICTURE_BYTES:
        kept = log_spaced(epochs, len(kept) * 3 // 4)
    return {
        "titles": [row.image.title for row in rows],
        "images": [address(row.image.pixels) for row in rows],
        "truths": [address(row.truth.pixels) for row in rows],
        "epochs": kept,
        "predicted": [addresses[epoch] for epoch in kept],
    }


def address(pixels: Any) -> str:
    """A picture as a data address that needs no network."""
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(memory.getvalue()).decode()}"
