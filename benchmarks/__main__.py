"""Time everything and write docs/performance.md with its figures; `make bench`.

    python -m benchmarks --data stage1_train.zip --val stage1_test.zip

Each section keeps its results in build/bench as soon as it is done, and is not timed again while they are there: remove
that folder, or name sections with --only, to time anew. The whole takes about two hours on two cores. On the page, sections of
which nothing is kept stay as they are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import growth, measuring, training
from benchmarks.page import write
from benchmarks.timing import machine

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "build" / "bench"


def say(text: str) -> None:
    """A line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def main() -> None:
    """Time what is asked for and not yet known, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the archive of training images (default: synthetic images)")
    parser.add_argument("--val", help="the archive of validation images (default: a share of the training images)")
    parser.add_argument("--repeats", type=int, default=5, help="of each timing, the median of which is shown")
    parser.add_argument(
        "--storings", type=int, default=5, help="repeats of the store-everything protocol, minutes each"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--only", nargs="*", help="sections to time anew")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder for performance.md and its figures")
    given = parser.parse_args()
    sections: dict[str, Callable[[], Any]] = {
        "start": lambda: training.start_up(given.repeats, say),
        "limit": lambda: measuring.against_the_limit(given.data, given.repeats, say),
        "probes": lambda: measuring.probes(given.data, given.repeats, say),
        "float64": lambda: measuring.against_float64(given.data, say),
        "storing": lambda: measuring.against_storing(given.data, given.storings, say),
        "growth": lambda: growth.times(given.data, given.repeats, say),
        "peaks": lambda: growth.peaks(given.data, say),
        "memory": lambda: measuring.memory(given.data, say),
        "quick": lambda: training.a_quick_run(given.data, given.val, say),
        "training": lambda: training.against_a_plain_loop(given.data, given.val, given.seeds, given.epochs, say),
    }
    if unknown := set(given.only or ()) - set(sections):
        parser.error(f"no section {', '.join(sorted(unknown))}: expected any of {', '.join(sections)}")
    KEPT.mkdir(parents=True, exist_ok=True)
    for name, section in sections.items():
        kept = KEPT / f"{name}.json"
        if name in (given.only or ()) or (given.only is None and not kept.is_file()):
            say(f"— {name}")
            repeats = {
                "storing": given.storings,
                "training": given.seeds,
                "memory": 1,
                "peaks": 1,
                "float64": 1,
                "quick": 1,
            }
            facts = {
                "repeats": repeats.get(name, given.repeats),
                "machine": machine(),
                "date": datetime.date.today().isoformat(),
                "data": Path(given.data or "synthetic").name,
            }
            kept.write_text(json.dumps({"facts": facts, "results": section()}, indent=1), encoding="utf-8")
    done = {
        name: json.loads((KEPT / f"{name}.json").read_text()) for name in sections if (KEPT / f"{name}.json").is_file()
    }
    say(f"written: {write(done, given.docs)}")


if __name__ == "__main__":
    main()
