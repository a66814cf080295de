"""Compare two one-thread jobs in parallel with two jobs in sequence, on one thread and on two.

    python scripts/time_jobs.py runs/study --epochs 10

Each way trains the same two jobs (Model 1, two seeds) with the run's configuration. The script prints the time of the epochs and
the total time, including starting processes and reading images. Run it on an idle machine.
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
    "in parallel, one thread each": (2, 1),
    "in sequence, one thread": (1, 1),
    "in sequence, two threads": (1, 2),
}


def main() -> None:
    """Time every way and print the ratios."""
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
                seconds = _timed(run, Path(place), words.epochs, workers, threads)
            print(f"{way}: {seconds[0]:.1f} s in all, {seconds[1]:.1f} s of epochs", flush=True)
            best[way] = min(best.get(way, seconds), seconds)
    first, *others = best
    for way in others:
        print(f"{first}: {best[way][0] / best[first][0]:.2f} times the throughput of {way}, start and end included")


def _timed(run: RunFolder, place: Path, epochs: int, workers: int, threads: int) -> tuple[float, float]:
    """Total seconds, and seconds of the epochs: of the longest job in parallel, of both jobs in sequence."""
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
