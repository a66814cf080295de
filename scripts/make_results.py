"""Write docs/results.md and its figures from a finished quick run on the real nuclei images.

    unetscope run --data stage1_train.zip --val stage1_test.zip --preset quick --out runs/quick
    unetscope measure runs/quick --sweep --mixture 1 --convolutional --epochs 0,1,10,100
    python scripts/make_results.py runs/quick --data stage1_train.zip

Every number comes from the run folder, except the entropies of the labels, which are computed here.
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
    unsaturated = {epoch: sum(not row.saturated for row in rows(flow, epoch, "kde_upper")) for epoch in EPOCHS}
    return f"""# A run on real nuclei images

`scripts/make_results.py` writes this page from one run; every value is measured. To repeat the run:

```console
unetscope run --data stage1_train.zip --val stage1_test.zip --preset quick --out runs/quick
unetscope measure runs/quick --sweep --mixture 1 --convolutional --epochs 0,1,10,100
python scripts/make_results.py runs/quick --data stage1_train.zip
```

{train["images"]} training and {validation["images"]} validation images of the 2018 Data Science Bowl in the paper's split, at \
{train["image size"][0]}×{train["image size"][1]}; the paper's U-Net at width 8 ({facts["parameters"]:,} parameters); Adam, learning \
rate 0.001, batch 16, bfloat16, {epochs[-1].epoch} epochs, seed 0; measured on all training images. Fingerprints of the data: {train["fingerprint"][:16]}… and {validation["fingerprint"][:16]}…. Device: {facts["device"]}, torch \
{facts["versions"]["torch"]}.

Validation Dice: **{epochs[-1].validation_dice:.3f}** at epoch {epochs[-1].epoch}, best {best.validation_dice:.3f} at epoch {best.epoch}.
At epoch 10, I(X;M) by KDE with noise variance 1 falls from {highest:.2f} bits, close to its ceiling, to \
{lowest.bits:.2f} bits at layer {lowest.layer} at the bottom: a difference of **{highest - lowest.bits:.1f} bits**.

## The paper's figures

![The network](figures/architecture.png)

![Masks of the largest K-means classes](figures/masks_by_cluster_kmeans.png)

![Information planes](figures/information_plane_kde_upper_1_kmeans.png)

![U-Plot of I(X;M)](figures/u_plot_input_kde_upper_1.png)

![U-Plot of I(Y;M)](figures/u_plot_output_kde_upper_1_kmeans.png)

![Dice](figures/dice.png)

![Predicted masks](figures/predictions.png)

## Limits that the paper's figures do not show

**The plateau is the ceiling.** Number of the {len(flow.layers)} recorded tensors whose I(X;M) by KDE, noise variance 1, is *not* saturated: \
{", ".join(f"{count} at epoch {epoch}" for epoch, count in unsaturated.items())}. At epoch {EPOCHS[-1]} most layers are at \
log₂ {facts["probe images"]} = {math.log2(facts["probe images"]):.2f} bits and at H(Y). Where the paper reads \
"reaches its maximum", the estimate no longer distinguishes layers. Such points are drawn hollow.

**There are too few images.** At epoch {EPOCHS[-1]} the estimates from a quarter, a half and all of the images differ by about one bit \
in every layer: the estimate counts images. {sum(row.out_of_domain for row in rows(flow, EPOCHS[-1], "kde_upper"))} of \
{len(flow.layers)} tensors are out of its domain at this epoch, {sum(row.out_of_domain for row in rows(flow, 10, "kde_upper"))} \
at epoch 10; the rest have an interval.

![I(X;M) of fewer images, and extrapolated to more](figures/limits_kde_upper_1.png)

**The ranking of layers depends on the noise variance.** {us.analysis.layer_rank_stability(flow, estimator="kde_upper", epoch=10).text} At epoch {EPOCHS[-1]}: \
{us.analysis.layer_rank_stability(flow, estimator="kde_upper", epoch=EPOCHS[-1]).text}

![I(X;M) over seven decades of noise variance](figures/sweep_kde_upper.png)

**The estimate rises where information cannot increase.** {us.analysis.dpi_violations(flow, estimator="kde_upper", resolution=1.0, epoch=10).text}

**Binning with bin size 0.2 saturates even earlier**, because in so many dimensions nearly every image has its own symbol:

![U-Plot of I(X;M) by binning](figures/u_plot_input_binning_0.2.png)

**H(Y) of the K-means labels depends on the seed.** H(Y) is the ceiling of every I(Y;M), and it changes with the seed of the clustering:

{label_entropies}

## Estimates that distinguish layers after training

Usable information is the information about the mask, in bits per pixel, that a linear probe reads from a layer on held-out images. It is not limited by log₂ N:

![U-Plot of usable information](figures/u_plot_usable_linear.png)

Paired over the {validation["images"]} validation images, its 95 % intervals distinguish **{apart(flow, "I_V(M→Y)", "usable_linear")} of 22** \
neighbouring pairs of layers at epoch {EPOCHS[-1]}. The mixture (the information of the layers with Gaussian noise of variance 1, \
not a bound of it) distinguishes {apart(flow, "I(X;M)", "mixture")} of 22: \
{sum(bool(row.reason) for row in mixture)} of {len(mixture)} tensors are out of its domain, because there are too few images. KDE with \
noise variance 1 distinguishes {apart(flow, "I(X;M)", "kde_upper", 1.0)} of 22 at epoch {EPOCHS[-1]}. At epoch 10 it distinguishes \
{apart(flow, "I(X;M)", "kde_upper", 1.0, 10)}, and usable information {apart(flow, "I_V(M→Y)", "usable_linear", epoch=10)}.

![The step from each layer to the next, by probes and by KDE](figures/steps_probes_and_kde.png)

At each merge, the information that the skip adds to the upsampled path, and that the upsampled path adds to the skip:

![Information at each merge](figures/merges_usable_linear.png)

A linear probe does not count information that it cannot read, such as an exclusive or. Convolutional probes use neighbouring \
pixels and combinations of channels. They read more from every layer except the last ones, and distinguish \
{apart(flow, "I_V(M→Y)", "usable_convolutional")} of 22 neighbouring pairs. By convolutional probes, the upsampled path adds \
{added(flow, "usable_convolutional")} bits per pixel at epoch {EPOCHS[-1]}; by linear probes it adds {added(flow, "usable_linear")}:

![Information at each merge, by convolutional probes](figures/merges_usable_convolutional.png)

A gain below zero is not negative information: with both streams the probe generalises worse to held-out images. The network \
does not necessarily use the information that a probe reads.

## I(X;M) in bits by KDE, lower – upper bound, noise variance 1

{table(flow)}

An asterisk marks a saturated upper bound. Where the two bounds differ widely, the order of neighbouring layers is unknown.
"""


def rows(flow: us.Flow, epoch: int, estimator: str) -> tuple[us.table.Estimate, ...]:
    """I(X;M) of every layer at one epoch, with noise of variance 1."""
    return flow.select(quantity="I(X;M)", epoch=epoch, estimator=estimator, resolution=1.0).estimates


def added(flow: us.Flow, estimator: str) -> str:
    """The information that the upsampled path adds to each skip at the last epoch shown, with its interval."""
    gains = flow.select(quantity="I_V(U→Y|S)", estimator=estimator, epoch=EPOCHS[-1]).estimates
    by_layer = {row.layer: row for row in gains}
    return ", ".join(
        f"{row.bits:.3f} ({row.low:.3f} to {row.high:.3f}) to {skip.name}"
        for skip in reversed(flow.skips)
        for row in [by_layer[skip.merge]]
    )


def apart(
    flow: us.Flow, quantity: Quantity, estimator: str, resolution: float | None = None, epoch: int = EPOCHS[-1]
) -> int:
    """The number of neighbouring pairs of layers that an estimate distinguishes."""
    of = {"quantity": quantity, "estimator": estimator, "resolution": resolution, "epoch": epoch}
    return sum(pair.apart for pair in us.analysis.neighbours(flow, **of))


def steps(flow: us.Flow, folder: Path) -> None:
    """Draw the steps between neighbouring layers by usable information, and below by KDE at the paper's noise variance."""
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
