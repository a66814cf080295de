"""Write docs/paper.md, its figures and docs/data/ from runs of the paper's own protocol.

    unetscope run --preset paper --data stage1_train.zip --val stage1_test.zip --width 8 --image-size 64 --no-usable \
        --no-merge-probes --threads 1 --out runs/whole
    unetscope verify runs/whole --variants paper --seeds 1
    python scripts/make_paper.py runs/whole runs/fast --rates runs/slow runs/fast

Several runs are sections of one page, such as one of 10,000 epochs at a learning rate of 0.001 and one of 1,000 at 0.01. Two that differ in
the learning rate alone are compared. Every
number comes from these folders; nothing is trained here. A training that has not ended is shown as far as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from markdown_table import table
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from unetscope import plots
from unetscope.analysis.trainings import Training
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder
from unetscope.runs.retraining import Trial, trained_variants
from unetscope.table.flow import Flow, save_epochs
from unetscope.table.parts import Variant
from unetscope.table.records import Estimate

DOCS = Path(__file__).parents[1] / "docs"
PAPER_RATE = 1e-3  # the learning rate of the paper, in whose epochs its claims are
MODELS = ("model1", "model2", "model3", "model4")
MERGES = ("20", "17", "14", "11")  # from the top of the decoder down
FULL = 0.95  # of the highest value, or of H(Y): what is called reached
BEGUN = 0.1  # Dice above which a network no longer predicts nothing
CLOSE = 0.02  # Dice within which a model reaches another's
SHOWN = (1000, 2000, 5000, 10000)  # epochs of the paper's Fig. 6
FIGURES = {
    "plane": "Fig. 3, information planes",
    "input": "Fig. 4 left, U-Plot of I(X;M)",
    "output": "Fig. 4 right, U-Plot of I(Y;M)",
    "dice": "Fig. 5, Dice of the models",
    **{f"masks_{name}": f"Fig. 6, masks predicted by {name}" for name in ("model1", "model2", "model3")},
}
Answer = Literal["held", "did not hold", "not decided"]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, with the number there and ours."""

    text: str
    there: str
    here: str
    answer: Answer

    def cells(self) -> tuple[str, ...]:
        """Its row."""
        return self.text, self.there, self.here, f"**{self.answer}**"


class Protocol:
    """A run of the paper's protocol, with the trainings of Models 1 to 4. Epochs are the paper's, unless they are said to be
    its own: an epoch at ten times the learning rate counts as ten.
    """

    def __init__(self, path: Path) -> None:
        self.run = AnalysedRun.open(path)
        self.config = self.run.configuration
        self.scale = self.config["training"]["learning_rate"] / PAPER_RATE
        self.epochs = round(self.config["training"]["epochs"] * self.scale)
        trials = trained_variants(self.run.folder)
        self.folders = {trial.variant.name: RunFolder.open(trial.path) for trial in trials if trial.seed == 0}
        self.models = {trial.variant.name: self.run.training(trial) for trial in trials if trial.seed == 0}
        if MODELS[0] not in self.models and self.run.folder.trained_here and self.config["seed"] == 0:
            itself = Trial(Variant(MODELS[0], self.config["network"]["depth"], ()), 0, self.run.folder.path)
            self.folders = {MODELS[0]: self.run.folder, **self.folders}
            self.models = {MODELS[0]: self.run.training(itself), **self.models}
        self.name = path.name

    @property
    def title(self) -> str:
        """What was trained, in a few words."""
        training, size = self.config["training"], self.config["data"]["image_size"]
        return (
            f"Width {self.config['network']['width']}, {size}×{size}, {training['epochs']:,} epochs at a learning rate of "
            f"{training['learning_rate']:g}"
        )

    @property
    def rate(self) -> float:
        """The learning rate."""
        return float(self.config["training"]["learning_rate"])

    def is_whole(self, *names: str) -> bool:
        """Whether trainings got to their last epoch."""
        return all(
            name in self.models and self.models[name].records[-1].epoch == self.config["training"]["epochs"]
            for name in names
        )

    def best(self, name: str) -> tuple[float, float]:
        """The highest mean validation Dice of a model, and the paper's epoch at which it is."""
        record = max(self.models[name].records, key=lambda record: record.validation_dice)
        return record.validation_dice, record.epoch * self.scale

    def dice_by_epoch(self, name: str) -> dict[float, float]:
        """The mean validation Dice of a model by the paper's epoch."""
        return {record.epoch * self.scale: record.validation_dice for record in self.models[name].records}

    def close_from(self, name: str, target: float) -> float | None:
        """The epoch from which a model has a Dice of so much."""
        reached = self.models[name].reaches(target)
        return None if reached is None else reached * self.scale

    def information(self, layer: str) -> list[Estimate]:
        """I(Y;M) of a layer by its first estimator, epoch after epoch."""
        return list(self._of_label.select(layer=layer).estimates)

    @property
    def _of_label(self) -> Flow:
        chosen = self.run.flow.select(quantity="I(Y;M)")
        return chosen.narrowed(estimator=None, resolution=None, labels=None)

    def full_from(self, layer: str) -> tuple[float | None, float, float]:
        """The epoch from which a layer tells 95 % of H(Y); the most that it tells; H(Y), in bits."""
        rows = self.information(layer)
        ceiling = rows[-1].ceiling
        reached = next((row.epoch * self.scale for row in rows if row.bits >= FULL * ceiling), None)
        return reached, max(row.bits for row in rows), ceiling

    def saturated_from(self, layer: str) -> float | None:
        """The epoch from which that number is a ceiling that any layer reaches which tells all images apart."""
        rows = self.run.flow.select(quantity="I(X;M)", layer=layer).narrowed(estimator=None, resolution=None)
        return next((row.epoch * self.scale for row in rows.estimates if row.saturated), None)


def main() -> None:
    """Read the runs, draw the figures, write the page and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument(
        "--rates", type=Path, nargs=2, action="append", default=[], metavar=("SLOW", "FAST"),
        help="two runs that differ in the learning rate",
    )  # fmt: skip
    parser.add_argument("--docs", type=Path, default=DOCS)
    words = parser.parse_args()
    protocols = [Protocol(path) for path in words.runs]
    (words.docs / "figures").mkdir(parents=True, exist_ok=True)
    (words.docs / "data").mkdir(exist_ok=True)
    figures = [_draw(protocol, words.docs / "figures") for protocol in protocols]
    for protocol in protocols:
        _export(protocol, words.docs / "data")
    rates = [(Protocol(slow), Protocol(fast)) for slow, fast in words.rates]
    for slow, fast in rates:
        _draw_rates(slow, fast, words.docs / "figures")
        _export(slow, words.docs / "data")
        _export(fast, words.docs / "data")
    (words.docs / "paper.md").write_text("\n".join(_page(protocols, figures, rates)) + "\n", encoding="utf-8")


def _draw(protocol: Protocol, figures: Path) -> tuple[str, ...]:
    """The paper's Figs. 3 to 6 of a run, as PNG; the names of those that there are."""
    flow = protocol.run.flow
    drawn = {
        "plane": plots.information_plane(flow),
        "input": plots.u_plot(flow, quantity="I(X;M)"),
        "output": plots.u_plot(flow, quantity="I(Y;M)"),
        "dice": _linear(plots.dice_curves({name: training.records for name, training in protocol.models.items()})),
    }
    for name in ("model1", "model2", "model3"):
        if name in protocol.folders and (rows := _predictions(protocol.folders[name])):
            shown = [epoch for epoch in (round(each / protocol.scale) for each in SHOWN) if epoch in rows[0][3]]
            if shown:
                drawn[f"masks_{name}"] = plots.predictions(rows, shown)
    for name, axes in drawn.items():
        figure = np.asarray(axes).flat[0].get_figure(root=True)
        plots.save(figure, figures, f"paper_{protocol.name}_{name}")
        (figures / f"paper_{protocol.name}_{name}.svg").unlink()
    return tuple(drawn)


def _linear(axes: Axes) -> Axes:
    """The axes with epochs on a linear scale: what the paper says of Dice it says of thousands of epochs."""
    axes.set_xscale("linear")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _draw_rates(slow: Protocol, fast: Protocol, figures: Path) -> None:
    """Model 1 at two learning rates, on the paper's epochs, as far as both go."""
    curves = {
        f"learning rate {each.rate:g}": [
            replace(record, epoch=round(record.epoch * each.scale)) for record in each.models[MODELS[0]].records
        ]
        for each in (slow, fast)
    }
    last = min(records[-1].epoch for records in curves.values())
    shared = {name: [record for record in records if record.epoch <= last] for name, records in curves.items()}
    figure = _linear(plots.dice_curves(shared)).get_figure(root=True)
    assert figure is not None
    plots.save(figure, figures, _file_of(slow, fast))
    (figures / f"{_file_of(slow, fast)}.svg").unlink()


def _predictions(folder: RunFolder) -> list[tuple[str, np.ndarray, np.ndarray, dict[int, np.ndarray]]]:
    """Of some images their pixels, their masks, and the masks that were predicted, by epoch."""
    truths = {picture.title: picture.pixels // 255 for picture in folder.pictures("truth")}
    predicted: dict[str, dict[int, np.ndarray]] = {}
    for picture in folder.pictures("prediction"):
        predicted.setdefault(picture.title, {})[picture.epoch] = picture.pixels
    return [
        (image.title, image.pixels, truths[image.title], predicted.get(image.title, {}))
        for image in folder.pictures("image")
    ]


def _export(protocol: Protocol, data: Path) -> None:
    """The tables of a run as Parquet: its estimates, and the epochs of every model."""
    protocol.run.flow.save(data / f"paper_{protocol.name}_flow.parquet")
    for name, training in protocol.models.items():
        save_epochs(training.records, data / f"paper_{protocol.name}_{name}.parquet")


def _page(
    protocols: list[Protocol], figures: list[tuple[str, ...]], rates: list[tuple[Protocol, Protocol]]
) -> Iterator[str]:
    yield from (
        "# The paper's experiment",
        "",
        "`scripts/make_paper.py` writes this page from run folders; their tables are in `docs/data/`.",
        "",
        "Lee & Bajić (ISBI 2021) train four U-Nets for 10,000 epochs of plain SGD at a learning rate of 0.001, 128×128 pixels and width "
        "16, on 605 images, once each. Below is the same protocol. Where the learning rate is another, epochs are stated as the paper's: "
        + (
            "small steps of SGD go the same way for the same product of rate and steps, as far as the last section shows."
            if rates
            else "that small steps of SGD go the same way for the same product of rate and steps is assumed here, not shown."
        ),
        "",
    )
    for protocol, names in zip(protocols, figures, strict=True):
        yield from _section(protocol)
        for name in names:
            title = FIGURES[name]
            yield from (f"{title}:", "", f"![{title}](figures/paper_{protocol.name}_{name}.png)", "")
    yield from _compressed(rates)


def _compressed(pairs: list[tuple[Protocol, Protocol]]) -> Iterator[str]:
    """How far training at a larger learning rate goes the way of one at the paper's."""
    if not pairs:
        return
    yield from ("## Compressed time", "")
    yield from (
        "The same networks, seeds and images at two learning rates. *Begins*: the first epoch at which the mean validation Dice is above "
        f"{BEGUN:g}. *Difference*: of the mean validation Dice at the same product of rate and epochs, from there to the last epoch that "
        "both have.",
        "",
    )
    head = ("model", "rates", "both to epoch", "begins", "mean difference", "largest")
    rows = [row for slow, fast in pairs for name in MODELS if (row := compared_rates(slow, fast, name))]
    yield from (*table(head, rows), "")
    for slow, fast in pairs:
        yield from (f"![Dice at two learning rates](figures/{_file_of(slow, fast)}.png)", "")


def compared_rates(slow: Protocol, fast: Protocol, name: str) -> tuple[str, ...] | None:
    """How a model does at two learning rates, None if it was not trained at both."""
    if name not in slow.models or name not in fast.models:
        return None
    curves = [each.dice_by_epoch(name) for each in (slow, fast)]
    begins = [begun_at(curve) for curve in curves]
    last = min(max(curve) for curve in curves)
    from_epoch = max(begins, key=lambda epoch: np.inf if epoch is None else epoch)
    shared = [] if from_epoch is None else [
        epoch for epoch in sorted(curves[0].keys() & curves[1].keys()) if from_epoch <= epoch <= last
    ]  # fmt: skip
    apart = [abs(curves[0][epoch] - curves[1][epoch]) for epoch in shared]
    return (
        name,
        f"{slow.rate:g}, {fast.rate:g}",
        f"{last:,.0f}",
        ", ".join(map(_epoch, begins)),
        f"{np.mean(apart):.3f}" if apart else "–",
        f"{max(apart):.3f}" if apart else "–",
    )


def begun_at(curve: dict[float, float]) -> float | None:
    """The first epoch of a training at which its Dice is that of a network which predicts something."""
    return next((epoch for epoch, dice in curve.items() if epoch > 0 and dice > BEGUN), None)


def _file_of(slow: Protocol, fast: Protocol) -> str:
    return f"paper_rates_{slow.name}_{fast.name}"


def _section(protocol: Protocol) -> Iterator[str]:
    facts = protocol.run.facts
    hours = sum(record.seconds for training in protocol.models.values() for record in training.records) / 3600
    yield from (f"## {protocol.title}", "")
    yield (
        f"{facts['data']['train']['images']} training and {facts['data']['validation']['images']} validation images; seed "
        f"{protocol.config['seed']}; {facts['device']}, torch {facts['versions']['torch']}; {hours:.1f} hours of training and "
        f"validation. H(Y) of {protocol.information('20')[-1].labels} is {protocol.information('20')[-1].ceiling:.2f} bits."
    )
    for name, folder in protocol.folders.items():
        for move in folder.facts.get("moves", ()):
            yield f"{name} went on elsewhere from epoch {move['epoch']} on ({'; '.join(without_paths(move['changed']))})."
    unfinished = [name for name in MODELS if not protocol.is_whole(name)]
    if unfinished:
        yield (
            "Not trained to the end: "
            + ", ".join(
                f"{name} (to {protocol.models[name].records[-1].epoch:,})"
                if name in protocol.models
                else f"{name} (not at all)"
                for name in unfinished
            )
            + "."
        )
    yield from ("", *table(("claim", "in the paper", "here", ""), (claim.cells() for claim in claims(protocol))), "")
    yield from ("### When the models begin", "")
    yield (
        f"*Begins*: the first epoch at which the mean validation Dice is above {BEGUN:g}; before it a network predicts nothing, or "
        "the same for every image."
    )
    yield from ("", *_begins(protocol), "")
    yield from ("### I(Y;M) of the merges, read twice", "")
    yield (
        "*Reached*: 95 % of H(Y), as the paper reads it. *Ceiling*: from then on I(X;M) is at log2 of the number of images, which any "
        "layer reaches that tells all images apart, so that I(Y;M) is H(Y) whatever the layer."
    )
    yield from ("", *_merges(protocol), "")


def _begins(protocol: Protocol) -> list[str]:
    rows = []
    for name in MODELS:
        if name in protocol.models:
            dice, epoch = protocol.best(name)
            rows.append((name, _epoch(begun_at(protocol.dice_by_epoch(name))), f"{dice:.3f}", f"{epoch:,.0f}"))
    return table(("model", "begins at epoch", "best Dice", "at epoch"), rows)


def without_paths(lines: list[str]) -> list[str]:
    """Of what moved, all but where images lie, which is nobody's concern."""
    return [line for line in lines if not line.startswith("data.")]


def _merges(protocol: Protocol) -> list[str]:
    rows = []
    for layer in MERGES:
        reached, most, ceiling = protocol.full_from(layer)
        rows.append(
            (layer, _epoch(reached), _epoch(protocol.saturated_from(layer)), f"{most:.2f} of {ceiling:.2f} bits")
        )
    return table(("merge", "reached at epoch", "ceiling from epoch", "most"), rows)


def _epoch(epoch: float | None) -> str:
    return "never" if epoch is None else f"{epoch:,.0f}"


def claims(protocol: Protocol) -> list[Claim]:
    """The paper's claims, each held against a run. What needs a training that has not ended is not decided."""
    return [*_of_information(protocol), *_of_dice(protocol)]


def _of_information(protocol: Protocol) -> Iterator[Claim]:
    """Those about the table of estimates, which hold or not whether the estimates are at their ceiling or not."""
    reached = {layer: protocol.full_from(layer) for layer in MERGES}
    epochs = {layer: found for layer, (found, _, _) in reached.items()}
    measured = protocol.run.flow.epochs[-1] * protocol.scale >= protocol.epochs
    order = [np.inf if epochs[layer] is None else epochs[layer] for layer in MERGES]
    is_ordered = all(upper <= lower for upper, lower in pairwise(order))
    yield Claim(
        "I(Y;M) of layers 20, 17, 14 and 11 reaches its maximum in that order",
        "20 and 17 at about 1,000, 14 between 1,000 and 10,000, 11 never",
        ", ".join(f"{layer} {_at(epochs[layer])}" for layer in MERGES),
        # with one layer left, whatever comes later comes after the others
        _answer(measured or not is_ordered or epochs[MERGES[-2]] is not None, is_ordered),
    )
    most, ceiling = reached["11"][1:]
    yield Claim(
        "I(Y;M) of layer 11 stays below the maximum",
        "1.5 of 3 bits",
        f"{most:.2f} of {ceiling:.2f} bits",
        _answer(measured, epochs["11"] is None),
    )
    of_input = {
        layer.label: protocol.run.flow.select(quantity="I(X;M)", layer=layer.label).estimates[0].bits
        for layer in protocol.run.flow.layers
    }
    down = [str(number) for number in range(1, 11)]
    lowest = min(down, key=lambda layer: of_input[layer])
    lowest_of_all = min(of_input, key=lambda layer: of_input[layer])
    up = [of_input[layer] for layer in reversed(MERGES)]
    yield Claim(
        "I(X;M) over the layers is a U at first",
        "falls to the bottom, rises at the merges",
        f"of layers 1 to 10 lowest at {lowest} (of all at {lowest_of_all}); at 11, 14, 17 and 20 {', '.join(f'{bits:.2f}' for bits in up)} bits",
        _answer(True, lowest in {"9", "10"} and all(lower < upper for lower, upper in pairwise(up))),
    )


def _at(epoch: float | None) -> str:
    return "never" if epoch is None else f"at {epoch:,.0f}"


def _of_dice(protocol: Protocol) -> Iterator[Claim]:
    there = {
        "model1": "Model 1 is at its best between epochs 2,000 and 3,000",
        "model2": "Model 2 is at its best between epochs 2,000 and 3,000",
    }
    for name, text in there.items():
        if name not in protocol.models:
            yield Claim(text, "2,000 to 3,000", "not trained", "not decided")
            continue
        dice, epoch = protocol.best(name)
        within = protocol.close_from(name, dice - CLOSE)
        yield Claim(
            text,
            "2,000 to 3,000",
            f"best {dice:.3f} at {epoch:,.0f}; within {CLOSE:g} of it from {_epoch(within)} on",
            _answer(protocol.is_whole(name) or epoch > 3000, 2000 <= epoch <= 3000),  # later ones only confirm that
        )
    for name, text, paper, expected in (
        ("model2", "Model 2 reaches the Dice of Model 1", "by 3,000", True),
        ("model3", "Model 3 reaches the Dice of Model 1, later", "about 8,000", True),
        ("model4", "Model 4 does not reach the Dice of Model 1", "never", False),
    ):
        yield _reaching(protocol, name, text, paper, expected=expected)


def _reaching(protocol: Protocol, name: str, text: str, paper: str, *, expected: bool) -> Claim:
    """Whether a model comes within 0.02 of the best mean Dice of Model 1; one that does not start says nothing."""
    if name not in protocol.models or "model1" not in protocol.models:
        return Claim(text, paper, "not trained", "not decided")
    best, _ = protocol.best("model1")
    reached, dice = protocol.close_from(name, best - CLOSE), protocol.best(name)[0]
    here = f"within {CLOSE:g} {_at(reached)}; best {dice:.3f} against {best:.3f}"
    training: Training = protocol.models[name]
    if training.started_at is None:
        return Claim(text, paper, f"{here}; it has not started: {training.why_not}", "not decided")
    is_known = protocol.is_whole("model1") and (protocol.is_whole(name) or reached is not None)
    return Claim(text, paper, here, _answer(is_known, (reached is not None) == expected))


def _answer(is_known: bool, holds: bool) -> Answer:
    return "not decided" if not is_known else "held" if holds else "did not hold"


if __name__ == "__main__":
    main()
