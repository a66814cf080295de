"""Try what the package promises to survive and write docs/reliability.md; `make faults` tries everything.

    python scripts/make_reliability.py --mutations 1000 --kills 20
    python scripts/make_reliability.py --only kills verbs

What is not tried again stays on the page, as docs/data/reliability.json keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from unetscope.base.files import whole_file

REPOSITORY = Path(__file__).parents[1]
KEPT = REPOSITORY / "docs" / "data" / "reliability.json"
sys.path.insert(0, str(REPOSITORY / "tests"))

from forked import numbers, sketched, try_full_disks, try_pairs, try_read_only, try_signals, whole_run  # noqa: E402
from mutations import KINDS, MOST_SECONDS, Outcome  # noqa: E402 (of the tests)
from test_damage import FILES, cut_off, damages_that_pass, filled_run, flip_one_bit  # noqa: E402

RUN = "--epochs 12 --synthetic-images 12 --image-size 16 --width 2 --depth 1 --threads 1 --clusters 2 --no-merge-probes -q"
HEAD = """# Reliability

What was tried on this version, and what failed. `make faults` repeats it and writes this page; every attempt is seeded, except the
moments of kills. A failure is anything but the promise: a traceback, another number, more than {seconds:.0f} s of processor time for one
file, or other tables after going on.

| promise | attempts | failures |
|---|---|---|
"""


Row = tuple[str, int, int]  # a promise, attempts, failures
Tries = Callable[[Path, int], Iterable[Row]]


def main() -> None:
    """Try what is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mutations", type=int, default=1000, help="of each kind of file; a tenth of it of each file of a run"
    )
    parser.add_argument(
        "--kills", type=int, default=20,
        help="of a training at random moments, and as many signals to verbs and full disks",
    )  # fmt: skip
    parser.add_argument("--pairs", type=int, default=50, help="of processes of each verb that writes")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    words = parser.parse_args()
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {"rows": {}, "peaks": {}}
    numbers_of = {
        "files": words.mutations,
        "damages": max(1, words.mutations // 10),
        "kills": words.kills,
        "verbs": words.kills,
        "pairs": words.pairs,
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["UNETSCOPE_CACHE"] = str(Path(folder, "cache"))
        for part in words.only:
            rows, earlier = [], kept["rows"].get(part, [])
            for row in PARTS[part](Path(folder), numbers_of[part]):
                rows.append(row)
                print(row, flush=True)
                kept["rows"][part] = [*rows, *earlier[len(rows) :]]
                keep(kept)  # so far: it takes an hour
            kept["rows"][part] = rows
            if part in READING:  # the others are processes of their own
                kept["peaks"][part] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            keep(kept)


def keep(kept: Mapping[str, Any]) -> None:
    """Keep what was tried, and write the page."""
    with whole_file(KEPT) as beside:
        beside.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    write_page(kept)


def write_page(kept: Mapping[str, Any]) -> None:
    """The page of what was tried."""
    rows = chain.from_iterable(kept["rows"].get(part, []) for part in PARTS)
    lines = [f"| {promise} | {attempts:,} | {failures} |" for promise, attempts, failures in rows]
    peaks = kept["peaks"].values()
    ending = (
        f"Peak memory of the process that read all of these files: {max(peaks):.2f} GiB (at most 2 GiB are promised).\n"
        if peaks
        else ""
    )
    page = HEAD.format(seconds=MOST_SECONDS) + "\n".join([*lines, "", ending])
    (REPOSITORY / "docs" / "reliability.md").write_text(page, encoding="utf-8")


def mutated_files(folder: Path, n: int) -> Iterable[Row]:
    """Files of every kind with seeded mutations."""
    for number, (kind, attempt) in enumerate(KINDS.items()):
        (folder / str(number)).mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome: Outcome = attempt(folder / str(number), n)
        sys.stderr.write("".join(f"{kind}: {failure}\n" for failure in outcome.failures))
        promise = f"a mutated {kind} is read, or refused in one line ({outcome.refused:,} were refused)"
        yield promise, outcome.attempts, len(outcome.failures)


def damaged_runs(folder: Path, n: int) -> Iterable[Row]:
    """Files of a run with one bit turned over, or cut off: never other numbers."""
    run = filled_run(folder / "whole")
    for name in FILES:
        for harm, what in ((flip_one_bit, "one other bit"), (cut_off, "its end cut off")):
            passed = damages_that_pass(run, folder / "beside", name, harm, n)
            yield f"`{name}` with {what} is refused, or read as it was", n, passed


def killed_trainings(folder: Path, n: int) -> Iterable[Row]:
    """Trainings that die of SIGKILL at a random moment and go on: the same tables as without."""
    command = [sys.executable, "-m", "unetscope", "run", *RUN.split(), "--out"]
    begun = time.monotonic()
    subprocess.run([*command, str(folder / "expected")], check=True, stdout=subprocess.DEVNULL)
    seconds, expected, failures, died = time.monotonic() - begun, numbers(folder / "expected"), 0, 0
    for attempt in count():
        if died == n:
            break
        out = folder / f"killed-{attempt}"
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
    yield "a training that is killed at any moment goes on to the same numbers", n, failures


def ended_verbs(folder: Path, n: int) -> Iterable[Row]:
    """Verbs that get a signal, find no room on the disk, or may not write: never other numbers."""
    with _whole_run_for("verbs", folder) as (whole, beside):
        outcomes = {
            f"a verb that {name} ends at a random moment {'' if name == 'SIGKILL' else 'says how to go on, and '}loses nothing": outcome
            for name, outcome in try_signals(whole, beside, n).items()
        }
        full = "a verb without room for its files is refused in one line, and goes on to the same numbers with room"
        outcomes[full] = try_full_disks(whole, beside, n)
        outcomes["a verb on a folder that may not be written reads it, or is refused in one line"] = try_read_only(
            whole, beside
        )
    yield from _rows(outcomes)


def paired_verbs(folder: Path, n: int) -> Iterable[Row]:
    """Two processes of each verb that writes, on one folder in the same instant."""
    with _whole_run_for("pairs", folder) as (whole, beside):
        tried = try_pairs(whole, beside, n)
    yield from _rows(
        {
            f"of two `{verb}` on one folder in one instant both work, or one is refused ({outcome.refused} were)": outcome
            for verb, outcome in tried.items()
        }
    )


@contextmanager
def _whole_run_for(part: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """A run that has ended, and a folder for its copies."""
    beside = folder / f"copies-for-{part}"
    beside.mkdir()
    with sketched():
        yield whole_run(folder / f"whole-for-{part}"), beside


def _rows(outcomes: Mapping[str, Outcome]) -> Iterator[Row]:
    for promise, outcome in outcomes.items():
        sys.stderr.write("".join(f"{promise}: {failure}\n" for failure in outcome.failures))
        yield promise, outcome.attempts, len(outcome.failures)


PARTS: Final[dict[str, Tries]] = {
    "files": mutated_files,
    "damages": damaged_runs,
    "kills": killed_trainings,
    "verbs": ended_verbs,
    "pairs": paired_verbs,
}
READING: Final = {"files", "damages"}  # in this process


if __name__ == "__main__":
    main()
