"""Write docs/performance.md and its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.training_sections import a_quick_run, against_a_plain_loop, start_up, table

GIB = 2**30
LABELS = {
    "count": "images N",
    "image_size": "activations per image d, by image size",
    "width": "activations per image d, by width",
    "depth": "depth",
    "resolutions": "noise variances and bin sizes, each",
    "d": "image side (d grows as its square)",
    "budget": "budget (GiB)",
    "N": "images N, at a budget of matrices",
}


def write(done: Mapping[str, Any], docs: Path) -> Path:
    """Write the page; a section that was not timed stays as it is on the page, if it is there."""
    (docs / "figures").mkdir(parents=True, exist_ok=True)
    path = docs / "performance.md"
    sections = sections_of(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, section in SECTIONS.items():
        if name in done:
            facts = done[name]["facts"]
            lines = [
                *section(done[name]["results"], docs),
                "",
                f"*Repeats: {facts['repeats']}. {facts['machine']}; {facts['data']}; {facts['date']}.*",
            ]
            sections[lines[0]] = "\n".join(lines)
    head = [
        "# Performance",
        "`make bench` writes this page. Compare the ratios, which are taken within one run on one machine; the seconds only give the scale. A time is the median of the repeats.",
    ]
    path.write_text("\n\n".join([*head, *sections.values()]) + "\n", encoding="utf-8")
    return path


def sections_of(page: str) -> dict[str, str]:
    """The sections of a page, by their headings.

    >>> sections_of("# Page\\n\\n## One\\n\\n1\\n\\n## Two\\n\\n2\\n")
    {'## One': '## One\\n\\n1', '## Two': '## Two\\n\\n2'}
    """
    sections = [f"## {section}".rstrip() for section in page.split("\n## ")[1:]]
    return {section.partition("\n")[0]: section for section in sections}


def _limit(results: Mapping[str, Any], _docs: Path) -> list[str]:
    return [
        "## Against the limit",
        "",
        "Width 16, 128×128, 605 images, all layers, KDE upper and lower bound at two noise variances, binning at two bin sizes, "
        "both label schemes, untrained network. The limit is the time of the forward passes that the budget requires, in the "
        "same batches and to the same depth, plus half a Gram product of all activations at the rate of `torch.mm` in float32. "
        "(The products run faster than that rate, as oneDNN convolutions.)",
        "",
        *table(
            (
                "budget",
                "forward passes",
                "forward passes, s",
                "half a Gram product, s",
                "measurement, s",
                "measurement / limit",
                "first measurement of the process",
            ),
            [
                (
                    budget,
                    str(row["passes"]),
                    f"{row['forward']:.1f}",
                    f"{row['half_gram']:.1f} (at {row['gflops']:.0f} GFLOP/s)",
                    f"{row['measure']:.1f}",
                    f"**{row['ratio']:.2f}**",
                    f"{row['first_ratio']:.2f}" if place == 0 else "",
                )
                for place, (budget, row) in enumerate(results.items())
            ],
        ),
        "",
        "The last column is the first measurement of a process relative to the limit. It is slower because the process touches its memory "
        "for the first time.",
    ]


def _probes(results: Mapping[str, Any], _docs: Path) -> list[str]:
    columns = {
        "linear": "linear probes",
        "silenced": "Dice lost at once",
        "merges": "linear probes and what streams add at merges",
        "convolutional": "convolutional probes of all",
    }
    return [
        "## Usable information",
        "",
        "Linear probes of every recorded tensor, and the Dice that is lost at once without each skip and level, which is what a verdict "
        "takes at every measured epoch; linear probes and the convolutional ones of every merge, which tell what its streams add to each "
        "other (a run's last epoch, and those at thirds of it); and convolutional probes of every tensor. Beside one forward pass over all "
        "images. The time includes forward passes, statistics, fits, intervals and nulls. Probes are fitted on nine tenths of the "
        "images, and calibrated and evaluated "
        "on the rest. On the larger images the slower ones take minutes, and are not timed; on the smaller ones they are timed once.",
        "",
        *table(
            [
                "width, image",
                "tensors",
                "forward pass, s",
                *(word for text in columns.values() for word in (f"{text}, s", "passes")),
            ],
            [
                [name, f"{taken['tensors']}", f"{taken['forward']:.2f}"]
                + [
                    word
                    for kind in columns
                    for word in (
                        (f"{taken[kind]:.1f}", f"**{taken[kind] / taken['forward']:.1f}**")
                        if kind in taken
                        else ("", "")
                    )
                ]
                for name, taken in results.items()
            ],
        ),
    ]


def _float64(results: Mapping[str, Any], _docs: Path) -> list[str]:
    return [
        "## Against float64",
        "",
        "The largest difference between a measurement, merges included, and the same measurement with every distance in "
        "float64. (The tests compare the float64 distances with a reference implementation.)",
        "",
        *table(
            ("training", "largest difference of an estimate, bits", "layers measured again in float64"),
            [
                (name, f"**{row['largest_difference_bits']:.1e}**", "yes" if row["streamed_again"] else "no")
                for name, row in results.items()
            ],
        ),
    ]


def _storing(results: Mapping[str, Any], _docs: Path) -> list[str]:
    theirs, ours = results["their_seconds"], results["our_seconds"]
    return [
        "## Against storing all activations",
        "",
        "The published protocol, reimplemented from its description (`benchmarks/store_everything.py`): pickle all activations, "
        "load them, compute a full Gram product for the whole set and for each class with each estimator, and sort the bins as "
        "rows. Both run in a process of their own on the same network and images and compute the same estimates; unetscope has "
        "a budget of 2 GiB. Disk is the space per measured epoch: the pickles, or the rows of the table of estimates.",
        "",
        *table(
            ("", "all activations stored", "unetscope", "ratio"),
            [
                (
                    "seconds, first measurement of a process",
                    f"{theirs:.0f}",
                    f"{results['our_first_seconds']:.1f}",
                    f"**{theirs / results['our_first_seconds']:.1f}**",
                ),
                ("seconds, second measurement", "", f"{ours:.1f}", f"{theirs / ours:.1f}"),
                (
                    "peak memory, GiB",
                    f"{results['their_peak_bytes'] / GIB:.1f}",
                    f"{results['our_peak_bytes'] / GIB:.1f}",
                    f"{results['their_peak_bytes'] / results['our_peak_bytes']:.1f}",
                ),
                (
                    "disk per measured epoch, MB",
                    f"{results['their_disk_bytes'] / 1e6:.0f}",
                    f"{results['our_disk_bytes'] / 1e6:.2f}",
                    f"**{round(results['their_disk_bytes'] / results['our_disk_bytes'], -3):,.0f}**",
                ),
            ],
        ),
        "",
        f"The estimates differ by up to {results['largest_difference_bits']:.1e} bits: the published protocol does not centre the "
        "activations, and sums in float32.",
    ]


def _memory(results: Mapping[str, Any], _docs: Path) -> list[str]:
    return [
        "## Memory",
        "",
        "Peak of the resident memory added by one measurement in a new process; 605 images, width 16. The memory of the network "
        "for one batch comes on top of the budget. It is measured as the peak of running the network alone with the same batch "
        "size.",
        "",
        *table(
            (
                "images and budget",
                "forward passes",
                "peak, GiB",
                "network alone, GiB",
                "(peak − network) / budget",
            ),
            [
                (
                    name,
                    str(row["passes"]),
                    f"{row['peak_bytes'] / GIB:.2f}",
                    f"{row['network_bytes'] / GIB:.2f}",
                    f"**{row['ratio']:.2f}**",
                )
                for name, row in results.items()
            ],
        ),
    ]


def _growth(results: Mapping[str, Any], docs: Path) -> list[str]:
    figure, axes = plt.subplots(1, len(results), figsize=(3.3 * len(results), 3.1), layout="constrained")
    for axis, (name, series) in zip(axes, results.items(), strict=True):
        by_values = name in ("image_size", "width")
        sizes = [point["values"] if by_values else point["size"] for point in series["points"]]
        _log_log(axis, sizes, [point["seconds"] for point in series["points"]], LABELS[name], series["exponent"])
    axes[0].set_ylabel("seconds per measurement")
    figure.savefig(docs / "figures" / "performance_time.png", dpi=130)
    plt.close(figure)
    return [
        "## How time grows",
        "",
        "Each row varies one quantity, starting from 128 images of 128×128, width 8, depth 4, one noise variance and one bin "
        "size, in one pass. The products grow as N² and everything else as N, so one exponent does not fit all N: the last "
        "column is the exponent between the last two sizes.",
        "",
        "![Seconds of a measurement against N, d, depth and the number of estimators](figures/performance_time.png)",
        "",
        *table(
            ("varied", "sizes", "seconds", "fitted exponent", "exponent of the last two"),
            [
                (
                    LABELS[name]
                    if name not in ("image_size", "width")
                    else f"{LABELS[name]} {[p['size'] for p in series['points']]}",
                    ", ".join(
                        f"{p['values'] if name in ('image_size', 'width') else p['size']:,}" for p in series["points"]
                    ),
                    ", ".join(f"{point['seconds']:.2f}" for point in series["points"]),
                    f"**{series['exponent']:.2f}**",
                    f"{_last_exponent(name, series['points']):.2f}",
                )
                for name, series in results.items()
            ],
        ),
    ]


def _last_exponent(name: str, points: Sequence[Mapping[str, float]]) -> float:
    size = "values" if name in ("image_size", "width") else "size"
    before, last = points[-2:]
    return math.log(last["seconds"] / before["seconds"]) / math.log(last[size] / before[size])


def _peaks(results: Mapping[str, Any], docs: Path) -> list[str]:
    figure, axes = plt.subplots(1, len(results), figsize=(3.6 * len(results), 3.3), layout="constrained")
    for axis, (name, series) in zip(axes, results.items(), strict=True):
        sizes, peaks = zip(*((point["size"], point["peak_bytes"] / GIB) for point in series["points"]), strict=True)
        _log_log(axis, sizes, peaks, LABELS[name], series["exponent"])
        axis.plot(sizes, [point["budget_bytes"] / GIB for point in series["points"]], "--", color="0.5", label="budget")
        axis.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("peak memory (GiB)")
    figure.savefig(docs / "figures" / "performance_memory.png", dpi=130)
    plt.close(figure)
    return [
        "## How memory grows",
        "",
        "Peak of the resident memory added by one measurement in a new process, with KDE at one noise variance, including the "
        "network's batch on top of the budget. First two rows: 256 real images (256×256 where the budget varies), width 8. Last "
        "row: synthetic images of 32×32, width 2, depth 2, with a budget that just holds the N × N matrices and one chunk of "
        "features.",
        "",
        "![Peak memory against d, the budget and N](figures/performance_memory.png)",
        "",
        *table(
            ("varied", "sizes", "budget, GiB", "peak, GiB", "fitted exponent"),
            [
                (
                    LABELS[name],
                    ", ".join(f"{point['size']:,}" for point in series["points"]),
                    ", ".join(f"{point['budget_bytes'] / GIB:.2f}" for point in series["points"]),
                    ", ".join(f"{point['peak_bytes'] / GIB:.2f}" for point in series["points"]),
                    f"**{series['exponent']:.2f}**",
                )
                for name, series in results.items()
            ],
        ),
    ]


def _log_log(axis: Any, sizes: Sequence[float], values: Sequence[float], label: str, slope: float) -> None:
    axis.loglog(sizes, values, "o-")
    axis.set_ylim(min(values) / 2, max(values) * 2)  # a small change should look small
    axis.set_xlabel(label, fontsize=9)
    axis.set_title(f"exponent {slope:.2f}", fontsize=10)
    axis.set_xticks(sizes, [_short(size) for size in sizes], fontsize=8)
    axis.xaxis.minorticks_off()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _short(size: float) -> str:
    return f"{size / 1e6:.2g} M" if size >= 1e5 else f"{size:,g}"


SECTIONS = {
    "limit": _limit,
    "probes": _probes,
    "float64": _float64,
    "storing": _storing,
    "memory": _memory,
    "growth": _growth,
    "peaks": _peaks,
    "quick": a_quick_run,
    "training": against_a_plain_loop,
    "start": start_up,
}
