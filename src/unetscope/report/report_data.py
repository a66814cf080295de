"""The data of a run's page: plain values that are written as JSON, without torch.

Numbers are rounded to five significant digits; unknown values are null. No text is markup: the page shows every text as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unetscope.analysis import Judgement, Row, Verification
from unetscope.report.picture_data import cluster_data, prediction_data
from unetscope.report.sentences import notes, proposal, sentence, summary
from unetscope.runs import AnalysedRun, RunFolder
from unetscope.table import (
    COST_TITLES,
    REFERENCE,
    RULE_TITLES,
    STATUS_MARKS,
    EpochRecord,
    Estimate,
    Flow,
    Interval,
    Quantity,
    Rule,
    Series,
    Status,
    Verdict,
    class_colour,
    connections,
    estimator_title,
    removed_parts,
)
from unetscope.training import repeat_command

DIGITS = 5
MOST_CURVE_POINTS = 1500  # of a Dice curve: more than the pixels of a screen
# The further columns of a series, by field of `Estimate`, with their titles in the table of numbers.
DIAGNOSTICS: Mapping[str, str] = {
    "unique_share": "share of unique symbols",
    "null_mean": "null, mean",
    "null_high": "null, 95th percentile",
    "p": "p",
    "train_bits": "on training images",
    "quarter_bits": "of a quarter of the images",
    "half_bits": "of half",
    "extrapolated": "of ever more",
    "singleton_share": "share alone in their cluster",
    "groups": "groups of images",
    "dice": "Dice of the probe",
}
COLUMNS = ("bits", "low", "high", "ceiling", "lower", "upper", *DIAGNOSTICS)  # of a series, by field
QUANTITIES: Mapping[Quantity, str] = {
    Quantity.INPUT: "I(X;M): which image",
    Quantity.LABEL: "I(Y;M): which cluster of masks",
    Quantity.USABLE: "usable: pixels of the mask",
}
GAINS: Mapping[Quantity, str] = {
    Quantity.USABLE_SKIP_GIVEN_POOLED: "What each skip adds to all that the deeper path knows",
    Quantity.USABLE_UPSAMPLED_GIVEN_SKIP: "What the deeper path adds to each skip",
}
# What the arrow of a skip shows: the first of these that was measured.
ARROWS = (Quantity.USABLE_SKIP_GIVEN_POOLED, Quantity.USABLE_SKIP_GIVEN_UPSAMPLED, Quantity.SKIP_GIVEN_UPSAMPLED)
JUDGES: Mapping[str, Rule | None] = {"verdict": None, "plateau": "plateau"}
STATUS_TEXTS: Mapping[Status, str] = {
    Status.OK: "",
    Status.SATURATED: "saturated",
    Status.OUT_OF_DOMAIN: "out of its domain",
    Status.ABSENT: "no number",
}
USABLE_CEILING = "all there is to tell"  # the page names H_V(Y|∅) in words
LINEAR = "usable_linear"  # probes that are shown only where no other family measured the same


def report_data_of(run: RunFolder | AnalysedRun) -> dict[str, Any]:
    """All data that the page shows of one run.

    A series is a quantity by an estimator at a resolution, for a label scheme: values that may be compared on one axis. Its
    columns are [epochs × layers], flattened.

    Raises: RunFolderError for tables that cannot be read.
    """
    run = AnalysedRun.of(run)
    flow = run.flow
    return {
        "name": run.name,
        "summary": summary(run),
        "state": _state(run),
        "notes": notes(flow),
        "layers": [
            {
                "label": layer.label,
                "module": layer.module,
                "role": layer.role,
                "level": layer.level,
                "shape": layer.shape,
            }
            for layer in flow.layers
        ],
        **_connection_data(flow),
        "epochs": flow.epochs,
        "series": list(_series(flow)),
        "quantities": QUANTITIES,
        "marks": {STATUS_MARKS[status].letter: text for status, text in STATUS_TEXTS.items()},
        "diagnostics": DIAGNOSTICS,
        "rules": dict(RULE_TITLES),
        **_gains(flow),
        "training": _training(run.epochs),
        "verdicts": None if run.judgement is None else _judgement_data(run.judgement, run.verification),
        "verification": None if run.verification is None else _verification_data(run.verification),
        "costs": _cost_data(run),
        "planned": [planned.sentence for planned in run.planned_depths],
        "clusters": cluster_data(run),
        "predictions": prediction_data(run),
        "facts": facts(run),
        "command": repeat_command(run.configuration) if run.trained_here else None,
    }


def facts(run: AnalysedRun) -> dict[str, Mapping[str, Any]]:
    """The configuration and the facts of a run as sections of names and readable values."""
    measured, configuration = run.facts, run.configuration
    sections: dict[str, Mapping[str, Any]] = {
        "Run": {k: v for k, v in configuration.items() if not isinstance(v, dict)}
    }
    sections |= {name.capitalize(): values for name, values in configuration.items() if isinstance(values, dict)}
    for part, facts_of_part in measured.get("data", {}).items():
        groups = {"groups": len(set(facts_of_part["groups"]))} if facts_of_part.get("groups") else {}
        structures = {f"structures: {name}": value for name, value in (facts_of_part.get("structures") or {}).items()}
        shown = {name: value for name, value in facts_of_part.items() if name != "structures"}
        sections[f"{part.capitalize()} images"] = {**shown, **structures, **groups}
    sections["Warnings"] = {f"{n}": text for n, text in enumerate(measured.get("warnings", ()), 1)}
    sections["Software"] = {"device": measured.get("device", ""), **measured.get("versions", {})}
    sections["Moves"] = {
        f"from epoch {move['epoch']}": "; ".join(move["changed"]) for move in measured.get("moves", ())
    }
    sections["Labels"] = {name: f"H(Y) = {bits:.3f} bits" for name, bits in measured.get("H(Y) bits", {}).items()}
    return {
        title: {str(name): _readable(value) for name, value in values.items()}
        for title, values in sections.items()
        if values
    }


def _readable(value: Any) -> str:
    """A fact as text: lists with commas, absent values as a dash, floats with six digits.

    >>> _readable([1.0, 0.20000000001]), _readable(None), _readable(True), _readable(())
    ('1, 0.2', '—', 'yes', '—')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value != value:  # NaN alone differs from itself
        return "—"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_readable(item) for item in value) or "—"
    return str(value)


def _connection_data(flow: Flow) -> dict[str, Any]:
    """The skips, each with its way from the encoder to its merge, and the other connections, as labels of layers."""
    joined = connections(flow.layers, flow.skips)
    skips = [
        {
            "name": skip.name,
            "source": skip.source,
            "upsampled": skip.upsampled,
            "merge": skip.merge,
            "origin": joined.origin(skip, flow.layers),
            "way": joined.of_skip[skip.name],
        }
        for skip in flow.skips
    ]
    return {
        "skips": skips,
        "connections": joined.others,
        "connections_recorded": joined.is_recorded,
        "joins": joined.joins,
    }


def _state(run: AnalysedRun) -> dict[str, Any]:
    """The progress of the training; `planned` is null if the training loop is not this package's own."""
    last = run.epochs[-1].epoch if run.epochs else None
    planned = run.configuration.get("training", {}).get("epochs") if run.trained_here else None
    return {"epoch": last, "planned": planned, "own": run.trained_here}


def _number(value: float) -> float | int | None:
    """The value with five significant digits; None if it is not finite, which JSON cannot represent.

    >>> _number(2 / 3), _number(4.0), _number(math.nan)
    (0.66667, 4, None)
    """
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded == int(rounded) else rounded


def _series(flow: Flow) -> Iterable[dict[str, Any]]:
    """Every series, in the order of measurement."""
    place = {layer.label: index for index, layer in enumerate(flow.layers)}
    for series in flow.series:
        key = series.key
        cells = [series.estimates.get((layer, epoch)) for epoch in series.epochs for layer in series.layers]
        yield {
            "quantity": key.quantity,
            "estimator": key.estimator,
            "title": estimator_title(key.estimator),
            "resolution": _number(key.resolution),
            "text": key.text,
            "labels": key.labels,
            "usable": key.quantity.is_usable,
            "of_layer": key.quantity.of_layer,
            "unit": key.quantity.unit,
            "ceiling_name": USABLE_CEILING if key.quantity.is_usable else key.quantity.ceiling_name,
            "caption": _caption(series),
            "images": series.images[-1],
            "layers": [place[layer] for layer in series.layers],
            "epochs": list(series.epochs),
            "state": "".join(map(_mark, cells)),
            "reasons": _reasons(cells),
            **_columns(cells),
        }


def _caption(series: Series) -> str:
    """What every number is shown with: the estimator and its resolution, the images, the label scheme."""
    key = series.key
    images = f"{series.images[-1]} {'held-out ' * key.quantity.is_usable}images"
    return " · ".join([key.text, images, *([f"Y: {key.scheme}"] if key.scheme else [])])


def _gains(flow: Flow) -> dict[str, Any]:
    """The series of what the streams of a merge add, as indices into the series; None where nothing was measured."""
    places = {quantity: _place_at_merges(flow, quantity) for quantity in Quantity if not quantity.of_layer}
    return {
        "gains": [
            {"quantity": quantity, "title": title, "series": places[quantity]} for quantity, title in GAINS.items()
        ],
        "gains_series": next((places[quantity] for quantity in ARROWS if places[quantity] is not None), None),
    }


def _place_at_merges(flow: Flow, quantity: Quantity) -> int | None:
    places = [place for place, series in enumerate(flow.series) if series.key.quantity is quantity]
    return min(places, key=lambda place: flow.series[place].key.estimator == LINEAR, default=None)


def _mark(row: Estimate | None) -> str:
    """The status of a cell as one letter: `s` saturated, `o` out of domain, `-` no number, `.` comparable."""
    return STATUS_MARKS[Status.ABSENT if row is None else row.status].letter


def _reasons(cells: Sequence[Estimate | None]) -> dict[str, list[int]]:
    """The indices of the cells by their reason."""
    by_reason: dict[str, list[int]] = {}
    for index, row in enumerate(cells):
        if row is not None and row.reason:
            by_reason.setdefault(row.reason, []).append(index)
    return by_reason


def _columns(cells: Sequence[Estimate | None]) -> dict[str, list[float | int | None]]:
    """The columns of the cells; a column without any number is left out."""
    columns = {}
    for name in COLUMNS:
        values = [None if row is None else _number(getattr(row, name)) for row in cells]
        if name == "bits" or any(value is not None for value in values):
            columns[name] = values
    return columns


def _training(records: Sequence[EpochRecord]) -> dict[str, list[Any]]:
    """Dice and loss by epoch; a very long training is thinned."""
    every = max(1, math.ceil(len(records) / MOST_CURVE_POINTS))
    kept = [record for record in records if record.epoch % every == 0 or record is records[-1]]
    return {
        "epoch": [record.epoch for record in kept],
        **{
            name: [_number(getattr(record, name)) for record in kept]
            for name in ("train_dice_running", "validation_dice", "train_loss_running", "validation_loss", "seconds")
        },
        "classes": [
            {
                "name": f"class {label}",
                "colour": class_colour(label),
                "dice": [_class_dice(record, label) for record in kept],
            }
            for label in range(max((len(record.dice_per_class) for record in kept), default=0))
        ],
    }


def _class_dice(record: EpochRecord, label: int) -> float | int | None:
    return _number(record.dice_per_class[label]) if label < len(record.dice_per_class) else None


def _judgement_data(judgement: Judgement, verification: Verification | None) -> dict[str, Any]:
    return {
        "margin": judgement.margin,
        "epochs": judgement.epochs,
        "probed": judgement.probed_epochs,
        "parts": list(dict.fromkeys(str(verdict.part) for verdict in judgement.verdicts)),
        "rows": [_row_of(verdict) for verdict in judgement.verdicts],
        "sentences": [sentence(judgement, epoch) for epoch in judgement.epochs],
        "proposed": [
            None if (design := judgement.design(epoch)) is None else proposal(judgement, design, epoch, verification)
            for epoch in judgement.epochs
        ],
    }


def _cost_data(run: AnalysedRun) -> dict[str, Any] | None:
    """The costs of designs as a table of texts, the whole network's first; None if none is known."""
    if not (with_costs := run.design_costs):
        return None
    proposed = None if run.judgement is None else run.judgement.design()
    rows = []
    for design, saved in with_costs:
        is_whole = design.name == REFERENCE
        texts = saved.whole.cells() if is_whole else saved.cells()
        is_proposed = proposed is not None and design.is_same_network(proposed)
        rows.append({"design": design.name, "network": design.text, "proposed": is_proposed, "costs": texts})
    return {
        "image": run.costs.shape,
        "titles": [about.title.partition(",")[0] for about in COST_TITLES.values()],
        "rows": rows,
    }


def _row_of(verdict: Verdict) -> dict[str, Any]:
    numbers = {name: _number(getattr(verdict, name)) for name in ("bits", "low", "high", "ceiling")}
    names = ("epoch", "rule", "decision", "since", "text", "measured")
    named = {name: getattr(verdict, name) for name in names}
    return {"part": str(verdict.part), **named, **numbers, "lost": _interval_of(verdict.lost)}


def _interval_of(interval: Interval | None) -> list[float | int | None] | None:
    """A value and the ends of its interval."""
    return None if interval is None else [_number(end) for end in (interval.value, interval.low, interval.high)]


def _verification_data(verification: Verification) -> dict[str, Any]:
    return {
        "margin": verification.margin,
        "target": _number(verification.target),
        "budgets": [
            {"epoch": epoch, "rows": [_outcome_of(verification, row) for row in verification.rows(epoch)]}
            for epoch in verification.budgets
        ],
        "scores": {name: verification.score(rule) for name, rule in JUDGES.items()},
        "curves": [
            {
                "variant": training.variant,
                "seed": training.seed,
                "sound": training.sound,
                "epoch": [record.epoch for record in training.records],
                "dice": [_number(record.validation_dice) for record in training.records],
            }
            for training in verification.trainings
        ],
    }


def _outcome_of(verification: Verification, row: Row) -> dict[str, Any]:
    outcome, reference = row.outcome, verification.variants[0]
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
        "predicted": {name: row.decision(rule) for name, rule in JUDGES.items()},
        "agreement": {name: row.agreement(rule) for name, rule in JUDGES.items()},
        "expected": _interval_of(None if row.expected is None else row.expected.loss),
        "dice_per_class": [_number(dice) for dice in outcome.dice_per_class],
        "reaches": [training.reaches(verification.target) for training in verification.of(row.variant.name)],
    }
