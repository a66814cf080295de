"""How much faster two one-thread jobs side by side are than one after the other, with one thread and with two.

    python scripts/time_jobs.py runs/study --epochs 10

Each way trains the same two jobs (Model 1, two seeds) of the run's configuration; what is printed is the time inside the epochs
and the whole, starting processes and reading images included. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from unetscope.runs.engines import Local
from unetscope.runs.folder import RunFolder
from unetscope.training.config import overridden_config

WAYS = {
    "side by side, one thread each": (2, 1),
    "one after the other, one thread": (1, 1),
    "one after the other, two threads": (1, 2),
}


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    words = parser.parse_args()
    run = RunFolder.open(words.run)
    best: dict[str, tuple[float, float]] = {}
    for _ in range(words.rounds):
        for way, (workers, threads) in WAYS.items():
            with tempfile.TemporaryDirectory() as place:
                found = _timed(run, Path(place), words.epochs, workers, threads)
            print(f"{way}: {found[0]:.1f} s in all, {found[1]:.1f} s of epochs", flush=True)
            best[way] = min(best.get(way, found), found)
    first, *others = best
    for way in others:
        print(f"{first}: {best[way][0] / best[first][0]:.2f} times the throughput of {way}, start and end included")


def _timed(run: RunFolder, place: Path, epochs: int, workers: int, threads: int) -> tuple[float, float]:
    """Seconds in all, and of the epochs: of the longest job side by side, of both one after the other."""
    folders = []
    for seed in (0, 1):
        changed = {"seed": seed, "threads": threads, "training.epochs": epochs, "measuring.marked": []}
        config = overridden_config(run.configuration, changed).model_dump(mode="json")
        folders.append(RunFolder.create(place / str(seed), {"configuration": config, "facts": run.facts}))
    started = time.perf_counter()
    failed = Local(workers, threads).run([folder.path for folder in folders], lambda: None)
    taken = time.perf_counter() - started
    assert not failed, failed
    trained = [sum(record.seconds for record in folder.epochs()) for folder in folders]
    return taken, max(trained) if workers > 1 else sum(trained)


if __name__ == "__main__":
    main()
