"""What `inspect`, `check-data` and `selfcheck` print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetscope.cli.terminal import one_line, print_json, print_table
from unetscope.table.estimator_registry import estimator_title

if TYPE_CHECKING:
    from unetscope.data import Problem
    from unetscope.estimators.closed_forms import Check
    from unetscope.networks.structure import Structure


def print_structure(structure: Structure, drawn: Path | None, *, json: bool) -> None:
    """The layers of a network in their order, and what is joined where."""
    if json:
        print_json(_structure_data(structure))
        return
    from unetscope.networks.structure import OUTCOMES

    kept = "every kernel" if structure.detail == "kernels" else f"the ends of stages, of {structure.kernels} kernels"
    print_table(
        f"{one_line(structure.name)}: layers ({kept})",
        ("layer", "role", "level", "one image", "where"),
        [
            (layer.label, layer.role, str(layer.level), "×".join(map(str, layer.shape)), one_line(layer.module))
            for layer in structure.layers
        ],
        right=("layer", "level"),
    )
    if structure.skips:
        print_table(
            "Skips, the last that joins first",
            ("skip", "carries", "meets", "at", "by"),
            [
                (skip.name, skip.source, skip.upsampled, skip.merge, OUTCOMES[structure.merge_of(skip.name).kind])
                for skip in structure.skips
            ],
        )
    else:
        print(f"{structure.why_no_merge}.")
    if drawn is not None:
        print(f"drawn: {one_line(str(drawn))}")


def _structure_data(structure: Structure) -> dict[str, Any]:
    return {
        "network": structure.name,
        "detail": structure.detail,
        "layers": [asdict(layer) for layer in structure.layers],
        "skips": [asdict(skip) for skip in structure.skips],
        "merges": [
            {"label": merge.label, "kind": merge.kind, "at": merge.address, "skips": list(merge.skips)}
            for merge in structure.merges
        ],
    }


def print_problems(problems: Sequence[Problem], path: Path, *, json: bool) -> None:
    """Every problem of a data set on a line of its own, or that there is none."""
    if json:
        print_json({"problems": [asdict(problem) for problem in problems]})
        return
    for problem in problems:
        print(f"{problem.severity}: {one_line(str(problem))}")
    errors = sum(problem.severity == "error" for problem in problems)
    print(f"{one_line(str(path))}: {errors} errors, {len(problems) - errors} warnings")


def print_checks(checks: Sequence[Check], *, json: bool) -> None:
    """Each estimate beside its truth."""
    if json:
        print_json({"checks": [{**asdict(check), "passed": check.passed} for check in checks]})
        return
    print_table(
        "Estimates of what is known, in bits",
        ("case", "by", "truth", "measured", "says it lies in", ""),
        map(_check_row, checks),
        right=("truth", "measured"),
    )


def _check_row(check: Check) -> tuple[str, ...]:
    measured = "out of domain" if math.isnan(check.bits) else f"{check.bits:.3f}"
    bracket = "as it must" if check.outside and check.passed else f"{check.low:.3f} to {check.high:.3f}"
    title = estimator_title(check.estimator)
    return check.case, title, f"{check.truth:.3f}", measured, bracket, "✓" if check.passed else "✗"
