"""Try what the package promises to survive and write docs/reliability.md: python scripts/make_reliability.py [MUTATIONS] [KILLS]

MUTATIONS: of each kind of file, 1000 by default. KILLS: of a training at random moments, 20 by default. `make faults` runs it.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from mutations import KINDS, MOST_SECONDS, Outcome  # noqa: E402 (of the tests)
from runs import made_run  # noqa: E402
from test_damage import FILES, cut_off, damages_that_pass, flip_one_bit  # noqa: E402

RUN = "--epochs 12 --synthetic-images 12 --image-size 16 --width 2 --depth 1 --threads 1 --clusters 2 --no-merge-probes -q"
HEAD = """# Reliability

What was tried on this version, and what failed. `make faults` repeats it and writes this page; every attempt is seeded, except the
moments of kills. A failure is anything but the promise: a traceback, another number, more than {seconds:.0f} s of processor time for one
file, or other tables after going on.

| promise | attempts | failures |
|---|---|---|
"""


def main() -> None:
    """Try everything, and write the page."""
    words = [int(word) for word in sys.argv[1:3]]
    mutations, kills = (*words, *(1000, 20)[len(words) :])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["UNETSCOPE_CACHE"] = str(Path(folder, "cache"))
        rows = [*mutated_files(Path(folder), mutations), *damaged_runs(Path(folder), max(1, mutations // 10))]
        if kills:
            rows.append(killed_trainings(Path(folder), kills))
    write_page(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def write_page(rows: Iterable[tuple[str, int, int]], peak: float) -> None:
    """The page of what was tried. peak: GiB."""
    lines = [f"| {promise} | {attempts:,} | {failures} |" for promise, attempts, failures in rows]
    ending = (
        f"\n\nPeak memory of the process that read all of these files: {peak:.2f} GiB (at most 2 GiB are promised).\n"
    )
    page = REPOSITORY / "docs" / "reliability.md"
    page.write_text(HEAD.format(seconds=MOST_SECONDS) + "\n".join(lines) + ending, encoding="utf-8")
    print(page.read_text(encoding="utf-8"))


def mutated_files(folder: Path, n: int) -> Iterable[tuple[str, int, int]]:
    """Files of every kind with seeded mutations."""
    for number, (kind, attempt) in enumerate(KINDS.items()):
        (folder / str(number)).mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome: Outcome = attempt(folder / str(number), n)
        sys.stderr.write("".join(f"{kind}: {failure}\n" for failure in outcome.failures))
        promise = f"a mutated {kind} is read, or refused in one line ({outcome.refused:,} were refused)"
        yield promise, outcome.attempts, len(outcome.failures)


def damaged_runs(folder: Path, n: int) -> Iterable[tuple[str, int, int]]:
    """Files of a run with one bit turned over, or cut off: never other numbers."""
    run = made_run(folder / "whole", (0, 1), labels=("kmeans(k=64)",), pictures_of=8)
    run.end({"constant channels": {"1": 0.5}})
    run.failed("the loss is nan at epoch 7")
    for name in FILES:
        for harm, what in ((flip_one_bit, "one other bit"), (cut_off, "its end cut off")):
            passed = damages_that_pass(run.path, folder / "beside", name, harm, n)
            yield f"`{name}` with {what} is refused, or read as it was", n, passed


def killed_trainings(folder: Path, n: int) -> tuple[str, int, int]:
    """Trainings that die of SIGKILL at a random moment and go on: the same tables as without."""
    command = [sys.executable, "-m", "unetscope", "run", *RUN.split(), "--out"]
    begun = time.monotonic()
    subprocess.run([*command, str(folder / "expected")], check=True, stdout=subprocess.DEVNULL)
    seconds, expected, failures, died = time.monotonic() - begun, numbers(folder / "expected"), 0, 0
    while died < n:
        out = folder / f"killed-{died}"
        training = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL)
        time.sleep(random.uniform(0.1, 1.0) * seconds)
        training.kill()
        if training.wait() != -signal.SIGKILL:  # it had ended
            continue
        died += 1
        again = [*command, str(out), "--resume"]
        ended = subprocess.run(again, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if ended.returncode or numbers(out) != expected:
            failures += 1
            sys.stderr.write(f"killed training: {ended.stderr}\n")
    return "a training that is killed at any moment goes on to the same numbers", n, failures


def numbers(run: Path) -> list[tuple[object, ...]]:
    """What a training measured, without its times."""
    columns = "epoch, layer, quantity, estimator, resolution, labels, bits, lower, upper"
    with closing(sqlite3.connect(run / "flow.sqlite")) as tables:
        estimates = tables.execute(f"SELECT {columns} FROM estimates ORDER BY {columns}").fetchall()
        epochs = "SELECT epoch, train_loss_running, validation_loss, validation_dice FROM epochs ORDER BY epoch"
        return [*estimates, *tables.execute(epochs).fetchall()]


if __name__ == "__main__":
    main()
