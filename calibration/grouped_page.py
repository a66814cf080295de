"""Measure how often intervals of films hold and write the table of docs/coverage.md: `python -m calibration.grouped_page`.

Each case is kept in build/calibration as soon as it is measured, and not measured again while its code is the same. The whole
takes about half an hour on one core.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import torch

import unetscope
from calibration.grouped import FILMS, NOISE, Rate, normal, of_estimator, of_mean, of_probe, skewed
from unetscope.estimators.binning import Binning
from unetscope.estimators.interface import Estimator
from unetscope.estimators.kde import KDE
from unetscope.estimators.mixture import Mixture
from unetscope.estimators.renyi import Renyi

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- intervals of films, by python -m calibration.grouped_page -->\n", "<!-- end -->\n"
ON_PAGE = ("20 films of 5", "21 films, one of them a third", "40 films of 5", "40 films of 1 to 20", "10 films of 5")
TITLES = {
    "binning": "binning",
    "kde_upper": "KDE, upper bound",
    "kde_lower": "KDE, lower bound",
    "mixture": "Gaussian mixture",
    "renyi": "Rényi index",
}
Case = Callable[[str, range], Sequence[Rate]]


def _of_estimator(estimator: Estimator, films: str, seeds: range, *, in_groups: bool) -> list[Rate]:
    return [rate for _, rate in of_estimator(estimator, films, seeds, in_groups=in_groups)]


def cases(*, in_groups: bool = True) -> Mapping[str, Case]:
    """What is measured on films, by name; a mean needs ten times as many repetitions, and takes less time for them."""
    estimators = {"binning": Binning(1.0), "kde": KDE(NOISE), "mixture": Mixture(NOISE), "renyi": Renyi()}
    return {
        **{name: partial(_of_estimator, estimator, in_groups=in_groups) for name, estimator in estimators.items()},
        "probe": lambda films, seeds: [of_probe(films, seeds, in_groups=in_groups)],
        "mean": lambda films, seeds: [
            of_mean(films, range(10 * seeds.start, 10 * seeds.stop), draw) for draw in (normal, skewed)
        ],
    }


def measured(name: str, case: Case, films: str, seeds: range, kept: Path) -> list[Rate]:
    """The rates of a case, from its file if it is there."""
    key = hashlib.blake2b(f"{name}{films}{seeds}{_code()}".encode(), digest_size=8).hexdigest()
    path = kept / f"films_{name}_{key}.json"
    if not path.exists():
        kept.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps([asdict(rate) for rate in case(films, seeds)]), encoding="utf-8")
        part.replace(path)
    return [Rate(**rate) for rate in json.loads(path.read_text(encoding="utf-8"))]


@cache
def _code() -> str:
    """All that the rates depend on."""
    package = Path(unetscope.__file__).parent
    folders = [package / name for name in ("estimators", "measure", "table")]
    files = [
        Path(__file__).with_name("grouped.py"),
        *sorted(path for folder in folders for path in folder.rglob("*.py")),
    ]
    return "".join(file.read_text(encoding="utf-8") for file in files)


def title(rate: Rate) -> str:
    """What a rate is of.

    >>> title(Rate("film", "kde_upper I(Y;M)", "20 films of 5", 0.95, 200, 0.05, 200, 200))
    'I(Y;M) by KDE, upper bound'
    """
    estimator, _, quantity = rate.estimator.partition(" ")
    if estimator in TITLES:
        return f"{quantity} by {TITLES[estimator]}"
    return "I_V(M→Y) by linear probes" if rate.estimator == "linear probe" else rate.estimator


def table(rates: Sequence[Rate]) -> str:
    """The rates in Markdown, by what they are of."""
    head = ("estimate", "images", "intervals that hold", "nulls that reject")
    order = {what: place for place, what in enumerate(dict.fromkeys(map(title, rates)))}
    rows = [_cells(rate) for rate in sorted(rates, key=lambda rate: order[title(rate)])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * 4, *rows)) + "\n"


def _cells(rate: Rate) -> tuple[str, ...]:
    held = f"{100 * rate.covered:.0f} % of {rate.intervals}" if rate.intervals else "no interval"
    return title(rate), rate.films, held, f"{100 * rate.rejected:.1f} %" if rate.nulls else ""


def with_table(page: str, rates: Sequence[Rate]) -> str:
    """The page with its table anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(rates) + END + after


def _all(films: Sequence[str], only: Sequence[str], seeds: range, kept: Path, *, in_groups: bool) -> Iterator[Rate]:
    for name_of_films, name in itertools.product(films, only):
        case = cases(in_groups=in_groups)[name]
        for rate in measured(name if in_groups else f"{name} alone", case, name_of_films, seeds, kept):
            print("| " + " | ".join(_cells(rate)) + " |", flush=True)
            yield rate


def main() -> None:
    """Measure, print every rate as it comes, and write the table, or only print some films."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="*", help=f"print these alone, of {', '.join(FILMS)}; write nothing")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0, help="other draws than the table's; write nothing")
    parser.add_argument("--only", nargs="+", choices=tuple(cases()), help="measure these alone; write nothing")
    parser.add_argument("--as-independent", action="store_true", help="as if frames were independent; write nothing")
    parser.add_argument("--kept", type=Path, default=ROOT / "build" / "calibration", help="folder of outcomes")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "coverage.md")
    given = parser.parse_args()
    torch.set_num_threads(1)  # small tensors are no quicker by more
    seeds = range(given.first_seed, given.first_seed + given.repetitions)
    films, only = given.films or ON_PAGE, given.only or tuple(cases())
    rates = list(_all(films, only, seeds, given.kept, in_groups=not given.as_independent))
    if not (given.films or given.only or given.first_seed or given.as_independent):
        given.page.write_text(with_table(given.page.read_text(encoding="utf-8"), rates), encoding="utf-8")


if __name__ == "__main__":
    main()
