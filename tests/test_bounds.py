"""Counts of retraining and fine-tuning: whole numbers within their bounds, refused before anything is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import unetscope as us
from unetscope.base import InvalidArgument
from unetscope.base.plain_numbers import whole_fields
from unetscope.cli.main import app
from unetscope.runs.engines import checked_counts, engine_named
from unetscope.runs.folder import RunFolder
from unetscope.runs.own_loops import name_loop
from unetscope.runs.slimming import slim
from unetscope.runs.verification import chosen_seeds, planned_trials, verify
from unetscope.table import named_variants


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of one epoch."""
    out = tmp_path_factory.mktemp("bounds") / "run"
    values = {"synthetic-images": 12, "image-size": 16, "width": 2, "depth": 2, "epochs": 1, "clusters": 2}
    done = CliRunner().invoke(
        app, ["run", "-q", f"--out={out}", *(f"--{name}={value}" for name, value in values.items())]
    )
    assert done.exit_code == 0, done.output
    return RunFolder.open(out)


def files_of(run: RunFolder) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(run.path.rglob("*")) if path.is_file()}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no variants": ({"variants": []}, "variants must be a list of names, such as ['no-skips'], got []"),
    "a text": ({"variants": "no-skips"}, "variants must be a list of names, such as ['no-skips'], got 'no-skips'"),
    "nothing": ({"variants": None}, "variants must be a list of names, such as ['no-skips'], got None"),
    "a number": ({"variants": [1]}, "variants must be a list of names, such as ['no-skips'], got [1]"),
    "no seeds": ({"seeds": 0}, "seeds must be one or more, and none negative, got 0"),
    "an empty list": ({"seeds": []}, "seeds must be one or more, and none negative, got []"),
    "half a seed": ({"seeds": 1.5}, "seeds must be a whole number from 1 to 1000, got 1.5"),
    "many seeds": ({"seeds": 30_000_000}, "seeds must be a whole number from 1 to 1000, got 30000000"),
    "more than can be": ({"seeds": 10**30}, f"seeds must be a whole number from 1 to 1000, got {10**30}"),
    "a long list": ({"seeds": range(10**9)}, "seeds must be at most 1000, got more"),
    "a large seed": ({"seeds": [2**53]}, f"a seed must be a whole number from 0 to {2**53 - 1}, got {2**53}"),
    "a seed that is none": ({"seeds": [0, 0.5]}, f"a seed must be a whole number from 0 to {2**53 - 1}, got 0.5"),
    "true": ({"seeds": True}, "seeds must be a number of seeds, or a list of them, got True"),
    "a word": ({"seeds": "many"}, "seeds must be a number of seeds, or a list of them, got 'many'"),
    "no threads": ({"threads": 0}, "threads must be 1 or more, got 0"),
    "many threads": ({"threads": 10**12}, "threads must be at most 512, got 1000000000000"),
    "half a thread": ({"threads": 1.5}, "threads must be a whole number from 1 to 512, got 1.5"),
    "no number of trainings": ({"seeds": "auto", "trainings": "9"}, "trainings must be a whole number, got '9'"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("kind", REFUSED)
def test_a_comparison_that_cannot_be_is_refused_and_writes_nothing(folder: RunFolder, kind: str) -> None:
    values, text = REFUSED[kind]
    before = files_of(folder)
    with pytest.raises(InvalidArgument) as wrong:
        verify(folder.path, **{"variants": ["no-skips"], "seeds": 1, **values})
    assert str(wrong.value) == text
    assert files_of(folder) == before


@pytest.mark.long
@pytest.mark.parametrize(
    "seeds", [3, np.int64(3), 3.0, [0, 1, 2], np.arange(3), range(3), iter([0, 1, 2]), (0, 1.0, np.uint8(2))]
)
def test_seeds_of_any_library_are_those_seeds(folder: RunFolder, seeds: Any) -> None:
    chosen = chosen_seeds(folder, seeds)
    assert chosen == (0, 1, 2)
    assert {type(seed) for seed in chosen} == {int}


@pytest.mark.long
@given(count=st.integers(1, 1000))
def test_as_many_seeds_as_there_may_be(folder: RunFolder, count: int) -> None:
    assert chosen_seeds(folder, count) == tuple(range(count))


@pytest.mark.long
def test_trainings_of_numpy_are_a_number(folder: RunFolder) -> None:
    variants = named_variants(["no-skips"], depth=2)
    assert len(planned_trials(folder, variants, "auto", np.int64(6))) == 6  # type: ignore[arg-type]


@pytest.mark.long
@pytest.mark.parametrize(
    ("fine_tune", "text"), [(-1, "-1"), (1.5, "1.5"), (True, "True"), (None, "None"), ("1", "'1'"), (10**12, "1000000000000")]
)  # fmt: skip
def test_fine_tuning_that_cannot_be_is_refused_and_writes_nothing(folder: RunFolder, fine_tune: Any, text: str) -> None:
    before = files_of(folder)
    with pytest.raises(InvalidArgument) as wrong:
        slim(folder.path, "no-skips", fine_tune=fine_tune)
    assert str(wrong.value) == f"fine_tune must be a whole number from 0 to 1000000, got {text}"
    assert files_of(folder) == before


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, "2", 10**12])
def test_epochs_of_a_loop_that_cannot_be_are_refused(tmp_path: Path, epochs: Any) -> None:
    run = RunFolder.create(tmp_path / "run", {"configuration": {}, "facts": {}})
    with pytest.raises(InvalidArgument, match=r"^epochs must be a whole number from 1 to 1000000, got ") as wrong:
        name_loop(run, "loop.py:build", "loop.py:train", epochs=epochs)
    assert str(wrong.value).endswith(repr(epochs))


COMMANDS = {
    "seeds": (["verify", "--seeds", "3000000"], "seeds must be a whole number from 1 to 1000, got 3000000"),
    "seeds beyond memory": (["verify", "--seeds", "9" * 30], f"seeds must be a whole number from 1 to 1000, got {'9' * 30}"),
    "seeds of 5,000 digits": (["verify", "--seeds", "9" * 5000], f"--seeds {'9' * 60}: expected a number of seeds"),
    "1,001 seeds": (["verify", "--seeds", ",".join(map(str, range(1001)))], "seeds must be at most 1000, got more"),
    "a large seed": (["verify", "--seeds", f"0,{2**53}"], f"a seed must be a whole number from 0 to {2**53 - 1}, got {2**53}"),
    "workers": (["verify", "--seeds", "1", "--workers", "513"], "workers must be at most 512, got 513"),
    "threads": (["verify", "--seeds", "1", "--threads", "1000000000000"], "threads must be at most 512, got 1000000000000"),
    "fine-tuning": (["slim", "--design", "no-skips", "--fine-tune", "1000001"], "--fine-tune must be a whole number from 0"),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("kind", COMMANDS)
def test_the_command_refuses_what_is_beyond_its_bounds(folder: RunFolder, kind: str) -> None:
    (verb, *words), text = COMMANDS[kind]
    dry = ["--variants", "no-skips", "--dry-run"] if verb == "verify" else []
    done = CliRunner().invoke(app, [verb, str(folder.path), *words, *dry])
    assert isinstance(done.exception, InvalidArgument)
    assert text in str(done.exception)


@given(count=st.integers(1, 512))
@pytest.mark.parametrize("kind", [int, np.int64, float])
def test_counts_of_any_library_are_ints(kind: type, count: int) -> None:
    assert checked_counts(kind(count), kind(count)) == (count, count)
    assert (
        repr(engine_named("local", workers=kind(count), threads=kind(count)))
        == f"Local(workers={count}, threads={count})"
    )


# Parameters of records.


RECORDS = {
    "us.KMeansLabels(k=2.5)": "k must be a whole number, got 2.5",
    "us.KMeansLabels(k=True)": "k must be a whole number, got True",
    "us.KMeansLabels(k='4')": "k must be a whole number, got '4'",
    "us.KMeansLabels(k=float('nan'))": "k must be a whole number, got nan",
    "us.KMeansLabels(n_init=0)": "n_init must be 1 or more, got 0",
    "us.KMeansLabels(seed=-1)": "seed must be 0 to 4294967295, got -1",
    "us.KMeansLabels(seed=2**32)": "seed must be 0 to 4294967295, got 4294967296",
    "us.BlockLabels(blocks=2.5)": "blocks must be a whole number, got 2.5",
    "us.BlockLabels(blocks=float('inf'))": "blocks must be a whole number, got inf",
    "us.BlockLabels(threshold=1.5)": "threshold must be a whole number, got 1.5",
    "us.KMeansLabels(k=numpy.int64(4))": "KMeansLabels(k=4, n_init=10, seed=0)",
    "us.KMeansLabels(k=4.0)": "KMeansLabels(k=4, n_init=10, seed=0)",
    "us.BlockLabels(blocks=numpy.uint8(2))": "BlockLabels(blocks=2, threshold=None)",
    "estimators.Binning(permutations=5.5)": "permutations must be a whole number, got 5.5",
    "estimators.KDE(permutations=5.5)": "permutations must be a whole number, got 5.5",
    "estimators.Renyi(permutations=5.5)": "permutations must be a whole number, got 5.5",
    "estimators.Mixture(permutations=5.5)": "permutations must be a whole number, got 5.5",
    "estimators.Mixture(draws=5.5)": "draws must be a whole number, got 5.5",
    "estimators.KSG(neighbours=5.5)": "neighbours must be a whole number, got 5.5",
    "estimators.KSG(components=5.5)": "components must be a whole number, got 5.5",
    "estimators.KSG(seed=5.5)": "seed must be a whole number, got 5.5",
    "estimators.Convolutional(units=5.5)": "units must be a whole number, got 5.5",
    "type(estimators.KSG(neighbours=numpy.int64(5)).neighbours)": "<class 'int'>",
}


@pytest.mark.long
def test_records_of_numbers_that_cannot_be_are_refused() -> None:
    """In a process of its own, as types are checked at run time in this one."""
    code = f"""
import numpy
import unetscope as us
from unetscope import estimators
for text in {list(RECORDS)!r}:
    try:
        print(eval(text))
    except us.UnetscopeError as wrong:
        print(wrong)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == list(RECORDS.values())


def test_fields_become_ints() -> None:
    class Record:
        k = np.float64(3)

    record = Record()
    whole_fields(record, "k")
    assert (record.k, type(record.k)) == (3, int)
    assert us.KMeansLabels(k=4).name == "kmeans(k=4)"
