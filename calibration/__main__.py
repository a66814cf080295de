"""Calibrate every estimator and write docs/estimators.md with its figures; `make study`.

    python -m calibration --repetitions 200

A case's outcomes are kept in build/calibration as soon as they are there, and are not measured again while its code is the
same. The whole takes about half an hour on two cores; `--quick` takes a minute, and is no evidence.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from calibration import figures
from calibration.page import page
from calibration.study import study
from calibration.sweeps import sweeps

ROOT = Path(__file__).parents[1]


def say(text: str) -> None:
    """A line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> None:
    """Repeat every case, draw the figures, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200, help="of a case of share 1; others have more or fewer")
    parser.add_argument("--quick", action="store_true", help="four repetitions, to see that everything runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, of one thread each")
    parser.add_argument("--only", default="", help="print the cases whose name or group has this in it; write nothing")
    parser.add_argument("--kept", type=Path, default=ROOT / "build" / "calibration", help="folder of outcomes")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder for estimators.md and its figures")
    given = parser.parse_args()
    repetitions = 4 if given.quick else given.repetitions
    outcomes = study(repetitions, given.kept, given.jobs or 1, say, given.only)
    if given.only:
        for outcome in outcomes:
            facts = {name: getattr(outcome, name) for name in ("truth", "plain_bias", "bias", "spread")}
            shares = {name: getattr(outcome, name) for name in ("in_domain", "coverage", "rejected")}
            rounded = {name: round(value, 4) for name, value in (facts | shares).items()}
            say(f"{outcome.case.name} | {' '.join(outcome.of)} | {json.dumps(rounded)} {outcome.reason}")
        return
    folder = given.docs / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    say("where estimators break")
    swept = sweeps(max(2, repetitions // 20))
    figures.coverage(outcomes, folder)
    figures.breaks(swept, folder)
    figures.skips(outcomes, folder)
    (given.docs / "estimators.md").write_text(page(outcomes, swept, repetitions), encoding="utf-8")
    say(f"wrote {given.docs / 'estimators.md'}")


if __name__ == "__main__":
    main()
