"""How time and memory of a measurement grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import unetscope as us
from benchmarks.cases import GIB, images, measured, scope, values_an_image
from benchmarks.timing import exponent, medians, peak_bytes
from unetscope.activations.memory import BYTES_A_VALUE, FEATURES_AT_ONCE

BASE = {"count": 128, "image_size": 128, "width": 8, "depth": 4, "resolutions": 1}
SERIES: dict[str, tuple[int, ...]] = {
    "count": (64, 128, 256, 512),
    "image_size": (64, 128, 256),
    "width": (4, 8, 16),
    "depth": (1, 2, 3, 4),
    "resolutions": (1, 2, 4, 8),
}
BUDGET = 4.0


def times(source: str | None, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Median seconds of a measurement, one quantity changed at a time, all in one pass."""
    results: dict[str, Any] = {}
    for name, sizes in SERIES.items():
        points = []
        for size in sizes:
            case = {**BASE, name: size}
            estimators = [us.KDE(2.0**-k) for k in range(case["resolutions"])]
            estimators += [us.Binning(0.2 * 2.0**-k) for k in range(case["resolutions"])]
            data = images(source, case["image_size"], case["count"])
            one = scope(data, BUDGET, width=case["width"], depth=case["depth"], estimators=estimators)
            taken = medians({"measure": lambda: one.measure(0)}, repeats)["measure"]  # noqa: B023
            points.append({"size": size, "seconds": taken, "values": values_an_image(one.layers)})
        against = [point["values"] if name in ("image_size", "width") else point["size"] for point in points]
        slope = exponent(against, [point["seconds"] for point in points])
        results[name] = {"points": points, "exponent": slope}
        say(f"time against {name}: exponent {slope:.2f}")
    return results


def peaks(source: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Peak memory against d at one budget, against the budget at one d, and against N at the least budget there is."""
    results: dict[str, Any] = {}
    series = {
        "d": [(size, 256, size, 0.25, {"width": 8}) for size in (64, 128, 256)],
        "budget": [(budget, 256, 256, budget, {"width": 8}) for budget in (0.25, 0.5, 1.0, 2.0)],
        "N": [(n, n, 32, _least(n), {"width": 2, "depth": 2}) for n in (750, 1500, 3000, 6000)],
    }
    for name, cases in series.items():
        points = []
        for size, count, image_size, budget, options in cases:
            use = source if name != "N" else None
            run = peak_bytes(measured, use, image_size, count, budget, {**options, "estimators": [us.KDE(1.0)]})
            points.append({"size": size, "peak_bytes": run["peak_bytes"], "budget_bytes": budget * GIB})
        slope = exponent([point["size"] for point in points], [point["peak_bytes"] for point in points])
        results[name] = {"points": points, "exponent": slope}
        say(f"memory against {name}: exponent {slope:.2f}")
    return results


def _least(n: int) -> float:
    """A budget in GiB that just holds the matrices and one chunk of features, for a network of two merges."""
    return (8 * n * n * 6 + (16 + BYTES_A_VALUE) * n * FEATURES_AT_ONCE) / GIB
