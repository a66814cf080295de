"""Write docs/paper.md, its figures and docs/data/ from runs of the paper's own protocol.

    unetscope run --preset paper --data stage1_train.zip --masks instances --validation-share 0.097 --width 8 --image-size 64x64 \
        --no-merge-probes --threads 1 --out runs/whole
    unetscope verify runs/whole --variants paper --seeds 1
    python scripts/make_paper.py runs/whole runs/fast --rates runs/slow runs/fast --starts runs/glorot runs/he

Several runs are sections of one page, such as one of 10,000 epochs at a learning rate of 0.001 and one of 1,000 at 0.01. Two that
differ in the learning rate alone are compared. Runs of a few epochs, verified with several seeds, show which models begin. A
training that has not ended is shown as far as it is. Nothing is trained here. The tables of the runs that are named are kept in
docs/data/, and the page is written from what is kept there: without a name, it is only written again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from markdown_table import table
from paper_claims import Claim, claims
from paper_figures import FIGURES, draw_masks, draw_rates, draw_run
from paper_protocol import (
    BEGUN,
    FULL,
    MERGES,
    MODELS,
    TENTH,
    WINDOW,
    Model,
    Protocol,
    epoch_text,
    keep_run,
    last_of_all,
    number_text,
)  # fmt: skip
from paper_starts import starts, starts_of

from unetscope.base.files import whole_file

DOCS: Final = Path(__file__).parents[1] / "docs"
KEPT: Final = "paper_runs.json"
SHARES: Final = (0.90, FULL, 0.99)  # of H(Y)


def main() -> None:
    """Keep the tables of the runs, draw the figures, write the page."""
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
    kept: dict[str, Any] = {"runs": {}, "sections": [], "rates": [], "starts": {}}
    if (data / KEPT).exists():
        kept |= json.loads((data / KEPT).read_text(encoding="utf-8"))
    for path in dict.fromkeys((*words.runs, *chain.from_iterable(words.rates))):
        kept["runs"][path.name] = keep_run(path, data)
    for path in words.runs:
        kept["runs"][path.name]["masks"] = draw_masks(path, figures)
    kept["sections"] = list(dict.fromkeys((*kept["sections"], *(path.name for path in words.runs))))
    pairs = [*kept["rates"], *([slow.name, fast.name] for slow, fast in words.rates)]
    kept["rates"] = [list(pair) for pair in dict.fromkeys(map(tuple, pairs))]
    kept["starts"] |= {path.name: starts_of(path) for path in words.starts}
    with whole_file(data / KEPT) as beside:
        beside.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    protocols = {name: Protocol(name, facts, data) for name, facts in kept["runs"].items()}
    sections = [protocols[name] for name in kept["sections"]]
    rates = [(protocols[slow], protocols[fast]) for slow, fast in kept["rates"]]
    for protocol in sections:
        draw_run(protocol, figures)
    for slow, fast in rates:
        draw_rates(slow, fast, figures)
    (words.docs / "paper.md").write_text("\n".join(_page(sections, rates, kept["starts"])) + "\n", encoding="utf-8")


def _page(
    sections: Sequence[Protocol], rates: Sequence[tuple[Protocol, Protocol]], starting: Mapping[str, Any]
) -> Iterator[str]:
    """The lines of the page. starting: of each run of a few epochs what `starts_of` says."""
    yield from (
        "# The paper's experiment",
        "",
        "Lee & Bajić (ISBI 2021) train four U-Nets for 10,000 epochs of plain SGD at a learning rate of 0.001, with 128×128 pixels and "
        "width 16, on 605 images, once each: Model 1 has all skips, Model 2 lacks the top one, Model 3 the two on top, Model 4 three. "
        "The runs below follow this protocol as far as is said of each. All epochs on this page are the paper's: where the learning "
        "rate is another, an epoch counts by it, as ten at 0.01"
        + (
            ", which is tried in [compressed time](#compressed-time)."
            if rates
            else "; that this is so is assumed here, not shown."
        ),
        "",
    )
    yield from _in_short(sections)
    for protocol in sections:
        yield from _section(protocol)
    if starting:
        yield from starts(starting)
    if rates:
        yield from _compressed(rates)
    yield from (
        "## How this page is made",
        "",
        "`scripts/make_paper.py` writes it from tables in `docs/data/` (`paper_*.parquet`, `paper_runs.json`), which it keeps of run "
        "folders. Run without arguments, it writes the page and its figures again.",
    )


def _in_short(sections: Sequence[Protocol]) -> Iterator[str]:
    """Each claim with its answers, run beside run; how the models do; what differs from the paper."""
    yield from ("## In short", "")
    answered = [claims(protocol) for protocol in sections]
    rows = [
        (said[0].text, *(f"**{claim.answer}**" if claim.answer != "not decided" else claim.answer for claim in said))
        for said in zip(*answered, strict=True)
    ]
    yield from (*table(("what the paper says", *(protocol.label for protocol in sections)), rows), "")
    yield (
        "One seed each, so how far these answers vary with it is not known. As the Dice jumps by tenths from one epoch to the next, "
        f"what is compared is its median over {WINDOW} epochs."
    )
    yield from ("", *_dice_of_models(sections))
    yield from ("What was trained, and how long that took:", "")
    yield from (
        *table(("run", "images: training, validation", "precision", "H(Y)", "machine", "hours"), map(_facts, sections)),
        "",
    )


def _facts(protocol: Protocol) -> tuple[str, ...]:
    facts = protocol.facts
    seconds = sum(model.seconds for model in protocol.models.values())
    return (
        protocol.label,
        f"{facts['images']['train']}, {facts['images']['validation']}",
        facts["precision"],
        f"{protocol.information(MERGES[0])[-1].ceiling:.2f} bits",
        f"{facts['device']}, torch {facts['torch']}",
        f"{seconds / 3600:.1f}",
    )


def _dice_of_models(sections: Sequence[Protocol]) -> Iterator[str]:
    """When the models begin, and how good they are at their best, in the end, and as long after they began."""
    yield (
        f"*Begins*: the first epoch at which the mean validation Dice is above {BEGUN:g}; before it no pixel, or next to none, has a "
        f"probability above one half. *In the end*: over the last {TENTH:,} epochs that all models of the run have. *As old*: as many "
        "epochs after it began as the model that began last was trained for."
    )
    rows: list[Sequence[str]] = []
    for protocol in sections:
        models = {name: protocol.models[name] for name in MODELS if name in protocol.models}
        until = last_of_all(list(models.values()))
        age = min((model.last - model.begins for model in models.values() if model.begins is not None), default=0)
        cells = [_of_model(name, model, until, age) for name, model in models.items()]
        rows.extend((f"{protocol.label}, to {until:,}" * (not index), *row) for index, row in enumerate(cells))
    yield from ("", *table(("run", "model", "begins", "best", "in the end", "as old", "trained to"), rows), "")


def _of_model(name: str, model: Model, until: int, age: int) -> tuple[str, ...]:
    best, at = model.best
    aged = "–" if model.begins is None else f"{number_text(model.at(model.begins + age))} at {model.begins + age:,}"
    trained = f"{model.last:,}" + ("" if model.is_whole else ", not its end")
    return name, epoch_text(model.begins), f"{best:.3f} at {at:,}", number_text(model.level(until)), aged, trained


def _section(protocol: Protocol) -> Iterator[str]:
    """The lines of a run."""
    yield from (f"## {protocol.title}", "")
    yield from chain.from_iterable((f"{line}.", "") for line in protocol.facts["moves"])
    yield from (*table(("claim", "in the paper", "here", ""), map(Claim.cells, claims(protocol))), "")
    yield from ("### I(Y;M) of the merges, read twice", "")
    yield (
        "*Reached*: 90, 95 and 99 % of H(Y); the paper reads a maximum from the plot. *Ceiling*: from then on I(X;M) is at log2 of the "
        "number of images, which any layer reaches that tells all images apart, so that I(Y;M) is H(Y) whatever the layer. *Permuted*: "
        "the bits that labels seem to be told which were permuted among the images, at the epoch at which 95 % are reached, or at the last; "
        "what the layer tells of the masks is no more than the difference. *Model 1 then*: its Dice."
    )
    yield from ("", *_merges(protocol), "")
    for name, title in FIGURES.items():
        if name.startswith("masks_") and name.removeprefix("masks_") not in protocol.facts["masks"]:
            continue
        own = f" (columns: its own epochs, of {protocol.scale:g} of the paper's each)"
        shown = title + own * (name.startswith("masks_") and protocol.scale != 1)
        yield from (f"{shown}:", "", f"![{title}](figures/paper_{protocol.name}_{name}.png)", "")


def _merges(protocol: Protocol) -> list[str]:
    rows = []
    for layer in chain.from_iterable((f"{layer}", f"{layer}up") for layer in MERGES):
        estimates = protocol.information(layer)
        full = protocol.full_from(layer)
        row = next((row for row in estimates if row.epoch == full), estimates[-1])
        rows.append(
            (
                layer if layer in MERGES else f"{layer}, before the merge",
                " · ".join(epoch_text(protocol.full_from(layer, share)) for share in SHARES),
                epoch_text(protocol.saturated_from(layer)),
                f"{max(row.bits for row in estimates):.2f} of {row.ceiling:.2f} bits",
                f"{row.bits:.2f}, permuted {number_text(row.null_mean, 2)}, at {row.epoch:,}",
                number_text(protocol.models["model1"].at(row.epoch)) if "model1" in protocol.models else "–",
            )
        )
    return table(("tensor", "reached at epoch", "ceiling from epoch", "most", "bits", "Model 1 then"), rows)


def _compressed(rates: Sequence[tuple[Protocol, Protocol]]) -> Iterator[str]:
    """How far training at a larger learning rate goes the way of one at the paper's."""
    yield from ("## Compressed time", "")
    yield from (
        "The same networks, seeds and images at two learning rates. *Smaller less larger*: of the Dice at the same product of rate and "
        f"epochs, both as medians over {WINDOW} epochs, from where both have begun to the last epoch that both have. *Late*: by how much "
        "longer the larger rate takes to the same training Dice, the median over these epochs. What is not in this table, other models, "
        "widths and later epochs, is assumed to be as late.",
        "",
    )
    rows = [row for slow, fast in rates for name in MODELS if (row := compared_rates(slow, fast, name)) is not None]
    head = (
        "run",
        "model",
        "rates",
        "to epoch",
        "begins",
        "validation, smaller less larger",
        "most",
        "training",
        "late",
    )
    yield from (*table(head, rows), "")
    for slow, fast in rates:
        yield from (f"![Dice at two learning rates](figures/paper_rates_{slow.name}_{fast.name}.png)", "")


def compared_rates(slow: Protocol, fast: Protocol, name: str) -> tuple[str, ...] | None:
    """How a model does at two learning rates, None if it was not trained at both."""
    if name not in slow.models or name not in fast.models:
        return None
    models = slow.models[name], fast.models[name]
    begins = [model.begins for model in models]
    until = last_of_all(models)
    shared = [] if None in begins else [
        int(epoch) for epoch in np.intersect1d(*(model.epochs for model in models)) if max(begins) <= epoch <= until
    ]  # fmt: skip
    apart = [models[0].at(epoch) - models[1].at(epoch) for epoch in shared]
    in_training = [model.medians(model.training) for model in models]
    by_epoch = [
        dict(zip(model.epochs.tolist(), dice, strict=True)) for model, dice in zip(models, in_training, strict=True)
    ]
    differences = [by_epoch[0][epoch] - by_epoch[1][epoch] for epoch in shared]
    late = [
        epoch / first - 1
        for epoch in shared
        if (first := next((at for at, dice in by_epoch[0].items() if dice >= by_epoch[1][epoch]), None))
    ]
    return (
        slow.label.rpartition(", ")[0],
        name,
        f"{slow.rate:g}, {fast.rate:g}",
        f"{until:,}",
        ", ".join(map(epoch_text, begins)),
        f"{np.mean(apart):+.3f}" if apart else "–",
        f"{max(apart, key=abs):+.3f}" if apart else "–",
        f"{np.mean(differences):+.3f}" if apart else "–",
        f"{np.median(late):+.0%}" if late else "–",
    )


if __name__ == "__main__":
    main()
