"""Write docs/paper.md, its figures and docs/data/ from runs of the paper's own protocol.

    unetscope run --preset paper --data stage1_train.zip --val stage1_test.zip --width 8 --image-size 64 --no-usable \
        --no-merge-probes --threads 1 --out runs/whole
    unetscope verify runs/whole --variants paper --seeds 1
    python scripts/make_paper.py runs/whole runs/fast --rates runs/slow runs/fast --starts runs/glorot runs/he

Several runs are sections of one page, such as one of 10,000 epochs at a learning rate of 0.001 and one of 1,000 at 0.01. Two that
differ in the learning rate alone are compared. Runs of a few epochs, verified with several seeds, show which models begin. Every number comes from these folders; nothing is trained here. A training that
has not ended is shown as far as it is. Such runs take days, and are not kept: sections of runs that are not named stay as they
are (docs/data/paper_sections.json).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from markdown_table import table
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from paper_claims import claims
from paper_protocol import BEGUN, MERGES, MODELS, Protocol, begun_at, epoch_text
from paper_starts import starts, starts_of

from unetscope import plots
from unetscope.base.files import whole_file
from unetscope.runs.folder import RunFolder
from unetscope.table.flow import save_epochs

DOCS = Path(__file__).parents[1] / "docs"
KEPT = "paper_sections.json"
SHOWN = (1000, 2000, 5000, 10000)  # epochs of the paper's Fig. 6
FIGURES = {
    "plane": "Fig. 3, information planes",
    "input": "Fig. 4 left, U-Plot of I(X;M)",
    "output": "Fig. 4 right, U-Plot of I(Y;M)",
    "dice": "Fig. 5, Dice of the models",
    **{f"masks_{name}": f"Fig. 6, masks predicted by {name}" for name in ("model1", "model2", "model3")},
}


def main() -> None:
    """Read the runs, draw the figures, write the page and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument(
        "--rates", type=Path, nargs=2, action="append", default=[], metavar=("SLOW", "FAST"),
        help="two runs that differ in the learning rate",
    )  # fmt: skip
    parser.add_argument(
        "--starts", type=Path, nargs="+", default=[], metavar="RUN", help="runs verified with several seeds"
    )
    parser.add_argument("--docs", type=Path, default=DOCS)
    words = parser.parse_args()
    figures, data = words.docs / "figures", words.docs / "data"
    figures.mkdir(parents=True, exist_ok=True)
    data.mkdir(exist_ok=True)
    kept = data / KEPT
    sections: dict[str, Any] = {"runs": {}, "starts": {}, "rates": {}}
    if kept.exists():
        sections |= json.loads(kept.read_text(encoding="utf-8"))
    for protocol in map(Protocol, words.runs):
        _export(protocol, data)
        sections["runs"][protocol.name] = list(_section(protocol, _draw(protocol, figures)))
    sections["starts"] |= {path.name: starts_of(path) for path in words.starts}
    for slow, fast in ((Protocol(slow), Protocol(fast)) for slow, fast in words.rates):
        for each in (slow, fast):
            _export(each, data)
        _draw_rates(slow, fast, figures)
        rows = [row for name in MODELS if (row := compared_rates(slow, fast, name))]
        sections["rates"][_file_of(slow, fast)] = rows
    with whole_file(kept) as beside:
        beside.write_text(json.dumps(sections, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (words.docs / "paper.md").write_text("\n".join(_page(sections)) + "\n", encoding="utf-8")


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


def _page(sections: dict[str, Any]) -> Iterator[str]:
    """The lines of the page. sections: lines of each run, what runs of a few epochs show, and rows of each pair of learning rates,
    by the names of their files.
    """
    yield from (
        "# The paper's experiment",
        "",
        "`scripts/make_paper.py` writes this page from run folders; their tables are in `docs/data/`.",
        "",
        "Lee & Bajić (ISBI 2021) train four U-Nets for 10,000 epochs of plain SGD at a learning rate of 0.001, 128×128 pixels and width "
        "16, on 605 images, once each. Below is the same protocol. Where the learning rate is another, epochs are stated as the paper's: "
        + (
            "small steps of SGD go the same way for the same product of rate and steps, as far as the last section shows."
            if sections["rates"]
            else "that small steps of SGD go the same way for the same product of rate and steps is assumed here, not shown."
        ),
        "",
    )
    for lines in sections["runs"].values():
        yield from lines
    if sections["starts"]:
        yield from starts(sections["starts"])
    if sections["rates"]:
        yield from _compressed(sections["rates"])


def _compressed(rates: dict[str, list[list[str]]]) -> Iterator[str]:
    """How far training at a larger learning rate goes the way of one at the paper's."""
    yield from ("## Compressed time", "")
    yield from (
        "The same networks, seeds and images at two learning rates. *Begins*: the first epoch at which the mean validation Dice is above "
        f"{BEGUN:g}. *Difference*: of the mean validation Dice at the same product of rate and epochs, from there to the last epoch that "
        "both have; *in training*, of the mean training Dice over these epochs, which jumps less from one to the next.",
        "",
    )
    head = (
        "model",
        "rates",
        "both to epoch",
        "begins",
        "mean difference",
        "largest",
        "mean difference in training",
        "largest",
    )
    yield from (*table(head, [row for rows in rates.values() for row in rows]), "")
    for file in rates:
        yield from (f"![Dice at two learning rates](figures/{file}.png)", "")


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
    in_training = [each.training_dice_by_epoch(name) for each in (slow, fast)]
    differences = [
        [abs(of_slow[epoch] - of_fast[epoch]) for epoch in shared] for of_slow, of_fast in (curves, in_training)
    ]
    return (
        name,
        f"{slow.rate:g}, {fast.rate:g}",
        f"{last:,.0f}",
        ", ".join(map(epoch_text, begins)),
        *(f"{of(apart):.3f}" if apart else "–" for apart in differences for of in (np.mean, max)),
    )


def _file_of(slow: Protocol, fast: Protocol) -> str:
    return f"paper_rates_{slow.name}_{fast.name}"


def _section(protocol: Protocol, figures: tuple[str, ...]) -> Iterator[str]:
    """The lines of a run. figures: the names of those that are drawn."""
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
    for name in figures:
        yield from (f"{FIGURES[name]}:", "", f"![{FIGURES[name]}](figures/paper_{protocol.name}_{name}.png)", "")


def _begins(protocol: Protocol) -> list[str]:
    rows = []
    for name in MODELS:
        if name in protocol.models:
            dice, epoch = protocol.best(name)
            rows.append((name, epoch_text(begun_at(protocol.dice_by_epoch(name))), f"{dice:.3f}", f"{epoch:,.0f}"))
    return table(("model", "begins at epoch", "best Dice", "at epoch"), rows)


def without_paths(lines: list[str]) -> list[str]:
    """Of what moved, all but where images lie, which is nobody's concern."""
    return [line for line in lines if not line.startswith("data.")]


def _merges(protocol: Protocol) -> list[str]:
    rows = []
    for layer in MERGES:
        reached, most, ceiling = protocol.full_from(layer)
        rows.append(
            (
                layer,
                epoch_text(reached),
                epoch_text(protocol.saturated_from(layer)),
                f"{most:.2f} of {ceiling:.2f} bits",
            )
        )
    return table(("merge", "reached at epoch", "ceiling from epoch", "most"), rows)


if __name__ == "__main__":
    main()
