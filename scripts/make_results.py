"""Write docs/results.md and its figures from a finished quick run on the real nuclei.

    unetscope run --data stage1_train.zip --val stage1_test.zip --preset quick --out runs/quick
    unetscope measure runs/quick --sweep --mixture 1 --convolutional --epochs 0,1,10,100
    python scripts/make_results.py runs/quick --data stage1_train.zip

Every number in the page comes from the run folder, or (the entropies of the labels) is computed here.
"""

from __future__ import annotations

import argparse
import math
import shutil
from pathlib import Path

import torch
from matplotlib.figure import Figure

import unetscope as us
from unetscope.estimators.labels import entropy_nats
from unetscope.table.quantities import Quantity

DOCS = Path(__file__).parents[1] / "docs"
FIGURES = (
    "architecture",
    "masks_by_cluster_kmeans",
    "information_plane_kde_upper_1_kmeans",
    "u_plot_input_kde_upper_1",
    "u_plot_output_kde_upper_1_kmeans",
    "u_plot_input_binning_0.2",
    "u_plot_usable_linear",
    "merges_usable_linear",
    "merges_usable_convolutional",
    "limits_kde_upper_1",
    "sweep_kde_upper",
    "dice",
    "predictions",
)
EPOCHS = (0, 1, 10, 100)
SEEDS = range(5)


def main() -> None:
    """Read the run, copy the figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder of the quick preset on the real images")
    parser.add_argument("--data", type=Path, required=True, help="stage1_train.zip, for the entropies of the labels")
    options = parser.parse_args()
    run = us.RunFolder.open(options.run)
    (DOCS / "figures").mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        shutil.copyfile(run.figures / f"{name}.png", DOCS / "figures" / f"{name}.png")
    steps(run.flow(), DOCS / "figures")
    (DOCS / "results.md").write_text(page(run, entropies(options.data)), encoding="utf-8")


def page(run: us.RunFolder, label_entropies: str) -> str:
    """The whole page as Markdown."""
    flow, epochs, facts = run.flow(), run.epochs(), run.facts
    best = max(epochs, key=lambda record: record.validation_dice)
    lowest = min(rows(flow, 10, "kde_upper"), key=lambda row: row.bits)
    highest = max(row.bits for row in rows(flow, 10, "kde_upper"))
    train, validation = facts["data"]["train"], facts["data"]["validation"]
    mixture = rows(flow, EPOCHS[-1], "mixture")
    told = {epoch: sum(not row.saturated for row in rows(flow, epoch, "kde_upper")) for epoch in EPOCHS}
    return f"""# The quick run on real nuclei

This page is written by `scripts/make_results.py` from one run; every figure in it is measured. To repeat it:

```console
unetscope run --data stage1_train.zip --val stage1_test.zip --preset quick --out runs/quick
unetscope measure runs/quick --sweep --mixture 1 --convolutional --epochs 0,1,10,100
python scripts/make_results.py runs/quick --data stage1_train.zip
```

{train["images"]} training and {validation["images"]} validation images of the 2018 Data Science Bowl in the paper's split, at \
{train["image size"][0]}×{train["image size"][1]}; the paper's U-Net at width 8 ({facts["parameters"]:,} parameters); Adam, learning \
rate 0.001, batch 16, bfloat16, {epochs[-1].epoch} epochs, seed 0; measured on all training images. Data fingerprints: {train["fingerprint"][:16]}… and {validation["fingerprint"][:16]}…. Device: {facts["device"]}, torch \
{facts["versions"]["torch"]}.

Validation Dice: **{epochs[-1].validation_dice:.3f}** at epoch {epochs[-1].epoch}, best {best.validation_dice:.3f} at epoch {best.epoch}.
At epoch 10, I(X;M) by KDE with noise variance 1 falls from {highest:.2f} bits, near its ceiling, to \
{lowest.bits:.2f} bits at layer {lowest.layer}: a dip of **{highest - lowest.bits:.1f} bits** at the bottom.

## What the figures show

![The network](figures/architecture.png)

![Masks of the largest K-means classes](figures/masks_by_cluster_kmeans.png)

![Information planes](figures/information_plane_kde_upper_1_kmeans.png)

![U-Plot of I(X;M)](figures/u_plot_input_kde_upper_1.png)

![U-Plot of I(Y;M)](figures/u_plot_output_kde_upper_1_kmeans.png)

![Dice](figures/dice.png)

![Predicted masks](figures/predictions.png)

## What the paper's figures do not show

**The plateau is the ceiling.** Of {len(flow.layers)} recorded tensors, so many are *not* saturated in I(X;M) by KDE, noise variance 1: \
{", ".join(f"{count} at epoch {epoch}" for epoch, count in told.items())}. At epoch {EPOCHS[-1]} most of the network stands at \
log₂ {facts["probe images"]} = {math.log2(facts["probe images"]):.2f} bits and at H(Y), whatever the layer. What the paper reads as \
"reaches its maximum" is where the estimate can say no more. The tool draws such points hollow.

**There are too few images to say more.** Of a quarter, of half and of all images the estimate at epoch {EPOCHS[-1]} is about a bit \
apart, everywhere: it counts images. {sum(row.reason.startswith("out of domain") for row in rows(flow, EPOCHS[-1], "kde_upper"))} of \
{len(flow.layers)} tensors are out of its domain there, {sum(row.reason.startswith("out of domain") for row in rows(flow, 10, "kde_upper"))} \
at epoch 10; the rest have an interval.

![I(X;M) of fewer and of ever more images](figures/limits_kde_upper_1.png)

**Another noise variance ranks layers otherwise.** {us.layer_rank_stability(flow, estimator="kde_upper", epoch=10).text} At epoch {EPOCHS[-1]}: \
{us.layer_rank_stability(flow, estimator="kde_upper", epoch=EPOCHS[-1]).text}

![I(X;M) over seven decades of noise variance](figures/sweep_kde_upper.png)

**It rises where information cannot.** {us.analysis.dpi_violations(flow, estimator="kde_upper", resolution=1.0, epoch=10).text}

**Binning with bin size 0.2 is there even earlier**, because in so many dimensions nearly every image has a symbol of its own:

![U-Plot of I(X;M) by binning](figures/u_plot_input_binning_0.2.png)

**H(Y) of the K-means labels is soft.** It is the ceiling of every I(Y;M), yet it moves with the seed of the clustering:

{label_entropies}

## What still tells layers apart

Usable information, the bits a pixel of the mask that a linear probe reads off a layer of held-out images, does not end at log₂ N:

![U-Plot of usable information](figures/u_plot_usable_linear.png)

Paired over the {validation["images"]} validation images, its 95 % intervals tell **{apart(flow, "I_V(M→Y)", "usable_linear")} of 22** \
neighbouring pairs of layers apart at epoch {EPOCHS[-1]}. The information of the layers with Gaussian noise of variance 1 (the \
mixture itself, not a bound of it, with its interval) tells {apart(flow, "I(X;M)", "mixture")} of 22 apart: \
{sum(bool(row.reason) for row in mixture)} of {len(mixture)} tensors are out of its domain, because so few images cannot tell. KDE with \
noise variance 1 tells {apart(flow, "I(X;M)", "kde_upper", 1.0)} of 22 apart at epoch {EPOCHS[-1]}, and \
{apart(flow, "I(X;M)", "kde_upper", 1.0, 10)} at epoch 10, where usable information tells {apart(flow, "I_V(M→Y)", "usable_linear", epoch=10)}.

![The step from each layer to the next, by probes and by KDE](figures/steps_probes_and_kde.png)

At each merge, what the skip adds to the upsampled path and what that adds to the skip:

![What each merge joins](figures/merges_usable_linear.png)

What a linear probe cannot read, such as an exclusive or, it does not count. Convolutional probes, which see the neighbours of a \
place and combinations of channels, read more off every layer but the last ones; they tell \
{apart(flow, "I_V(M→Y)", "usable_convolutional")} of 22 neighbouring pairs apart. To them the path from below adds \
{added(flow, "usable_convolutional")} bits a pixel at epoch {EPOCHS[-1]}, where linear probes said {added(flow, "usable_linear")}:

![What each merge joins, to convolutional probes](figures/merges_usable_convolutional.png)

A gain below zero is no negative information: reading both, the probe does worse on images that it was not fitted on. What a probe \
reads off a layer need not be what the network uses.

## I(X;M) in bits by KDE, lower – upper bound, noise variance 1

{table(flow)}

An asterisk marks an upper bound that is saturated. Where the two bounds lie far apart, the order of neighbouring layers is open.
"""


def rows(flow: us.Flow, epoch: int, estimator: str) -> tuple[us.table.Estimate, ...]:
    """I(X;M) of every layer at one epoch, with noise of variance 1."""
    return flow.select(quantity="I(X;M)", epoch=epoch, estimator=estimator, resolution=1.0).estimates


def added(flow: us.Flow, estimator: str) -> str:
    """What the upsampled path adds to each skip at the last epoch shown, with its interval."""
    found = flow.select(quantity="I_V(U→Y|S)", estimator=estimator, epoch=EPOCHS[-1]).estimates
    by_layer = {row.layer: row for row in found}
    return ", ".join(
        f"{row.bits:.3f} ({row.low:.3f} to {row.high:.3f}) beside {skip.name}"
        for skip in reversed(flow.skips)
        for row in [by_layer[skip.merge]]
    )


def apart(
    flow: us.Flow, quantity: Quantity, estimator: str, resolution: float | None = None, epoch: int = EPOCHS[-1]
) -> int:
    """How many neighbouring pairs of layers an estimate tells apart."""
    of = {"quantity": quantity, "estimator": estimator, "resolution": resolution, "epoch": epoch}
    return sum(pair.apart for pair in us.plots.neighbours(flow, **of))


def steps(flow: us.Flow, folder: Path) -> None:
    """Draw which neighbouring layers usable information tells apart, and below it KDE at the paper's noise variance."""
    figure = Figure(figsize=(7.0, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1)
    us.plots.neighbour_steps(flow, estimator="usable_linear", epoch=EPOCHS[-1], axes=above)
    us.plots.neighbour_steps(
        flow, quantity="I(X;M)", estimator="kde_upper", resolution=1.0, epoch=EPOCHS[-1], axes=below
    )
    _, svg = us.plots.save(figure, folder, "steps_probes_and_kde")
    svg.unlink()


def table(flow: us.Flow) -> str:
    """Layers down, epochs across."""
    columns = {epoch: {row.layer: row for row in rows(flow, epoch, "kde_upper")} for epoch in EPOCHS}
    head = "| layer | " + " | ".join(f"epoch {epoch}" for epoch in EPOCHS) + " |\n|---|" + "---:|" * len(EPOCHS)
    lines = [
        f"| {layer.label} | " + " | ".join(cell(columns[epoch][layer.label]) for epoch in EPOCHS) + " |"
        for layer in flow.layers
    ]
    return "\n".join([head, *lines])


def cell(row: us.table.Estimate) -> str:
    """Lower and upper bound, with an asterisk if the upper is saturated."""
    return f"{row.lower:.2f} – {row.bits:.2f}{'*' if row.saturated else ''}"


def entropies(archive: Path) -> str:
    """H(Y) of the training masks by seed of K-means, at two resolutions, and of the coarsened masks."""
    lines = ["| masks | labels | H(Y), bits |", "|---|---|---|"]
    for size in (64, 128):
        masks = us.load(archive, image_size=size).masks
        by_seed = ", ".join(f"{bits(us.KMeansLabels(seed=seed).labels(masks)):.2f}" for seed in SEEDS)
        lines.append(
            f"| {size}×{size} | K-means, K = 64, ten initialisations, seeds {SEEDS[0]} to {SEEDS[-1]} | {by_seed} |"
        )
        lines.append(
            f"| {size}×{size} | 4×4 blocks, threshold 1/16 of a block | {bits(us.estimators.BlockLabels().labels(masks)):.2f} |"
        )
    return "\n".join(lines)


def bits(labels: object) -> float:
    """Entropy of labels in bits."""
    return entropy_nats(torch.as_tensor(labels)) / math.log(2)


if __name__ == "__main__":
    main()
