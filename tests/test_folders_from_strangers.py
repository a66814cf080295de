"""A run folder that somebody sends: whatever its files say, every verb refuses it in one line, at once and within memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from runs import edited_config, made_run
from unetscope.base import RunFolderError
from unetscope.cli.main import main
from unetscope.cli.verbs_run import viewer_command
from unetscope.runs import AnalysedRun, RunFolder
from unetscope.runs.engines.local import job_command

VERBS = (
    "report RUN --to page.html",
    "report RUN",
    "view RUN --no-browser",
    "verdict RUN",
    "verdict RUN --json",
    "export RUN --to table.csv",
    "measure RUN --sweep",
    "slim RUN",
    "verify RUN",
    "verify RUN --dry-run",
    "run --out RUN --resume",
    "run --out RUN --resume --dry-run",
)
MOST_SECONDS = 10


def setting(*place: str | int, to: object) -> Callable[[Path], None]:
    """A value of the configuration or of the facts that is another."""

    def change(run: Path) -> None:
        with edited_config(run) as values:
            node: Any = values
            for name in place[:-1]:
                node = node[name]
            node[place[-1]] = to

    return change


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda run: void(
        (run / "config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    )


def void(_: object) -> None:
    """Nothing, from something."""


def sql(*statements: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        with closing(sqlite3.connect(run / "flow.sqlite")) as tables:
            for statement in statements:
                tables.executescript(statement)
            tables.commit()

    return change


def endless(table: str) -> Callable[[Path], None]:
    """A view that never ends in the place of a table."""

    def change(run: Path) -> None:
        with closing(sqlite3.connect(run / "flow.sqlite")) as tables:
            columns = [row[1] for row in tables.execute(f"PRAGMA table_info({table})")]
            tables.executescript(
                f"DROP TABLE {table}; CREATE VIEW {table} AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
                f"SELECT {', '.join(f'x AS {column}' for column in columns)} FROM n"
            )

    return change


def enlarged(name: str, n_bytes: int) -> Callable[[Path], None]:
    """A file that is a hole behind its content."""
    return lambda run: os.truncate(run / name, n_bytes)


def in_a_loop(*place: str, to: object) -> Callable[[Path], None]:
    """A run in a loop of its own, with a value of how its variants are trained that is another."""

    def change(run: Path) -> None:
        with edited_config(run) as values:
            values["configuration"] = {"network": {"class": "Net"}}
            values["facts"]["own loop"] = {
                "network": {"code": "nets.py:Net", "depth": 1, "trained_by": "nets.py:train"}
            }
            values["facts"]["own loop network"] = {}
        setting("facts", *place, to=to)(run)

    return change


CONFIGURATION = ("configuration", "training")
SHARES = ("facts", "data", "train", "class shares")
FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a thousand million epochs": (setting(*CONFIGURATION, "epochs", to=10**9), r"epochs: .*got 1000000000"),
    "more epochs than an integer has": (setting(*CONFIGURATION, "epochs", to=10**18), r"epochs: "),
    "epochs without end": (setting(*CONFIGURATION, "epochs", to=float("inf")), r"epochs: "),
    "epochs as text": (setting(*CONFIGURATION, "epochs", to="ten"), r"epochs: .*got 'ten'"),
    "true epochs": (setting(*CONFIGURATION, "epochs", to=True), r"epochs: .*got True"),
    "a number as text": (setting("configuration", "network", "width", to="8"), r"width: .*got '8'"),
    "a true rate": (setting(*CONFIGURATION, "learning_rate", to=True), r"learning_rate: .*got True"),
    "a true bin": (setting("configuration", "measuring", "bin_sizes", to=[True]), r"bin_sizes: .*got True"),
    "a number for yes": (setting(*CONFIGURATION, "channels_last", to=1), r"channels_last: .*got 1"),
    "depth as text": (setting("configuration", "network", "depth", to="deep"), r"depth: .*got 'deep'"),
    "no training": (setting(*CONFIGURATION, to=None), r"configuration\.training is None: expected an object"),
    "a list as training": (setting(*CONFIGURATION, to=[]), r"configuration\.training is \[\]: expected an object"),
    "a list as facts of data": (setting("facts", "data", to=[]), r"facts\.data: .*got \[\]"),
    "a text as facts of data": (setting("facts", "data", to="images"), r"facts\.data: .*got 'images'"),
    "a list as facts of images": (setting("facts", "data", "train", to=[]), r"facts\.data\.train: .*got \[\]"),
    "class shares as text": (setting(*SHARES, to="half"), r"facts\.data\.train\.class shares: .*got 'half'"),
    "class shares of nothing": (setting(*SHARES, to=[None, None]), r"class shares\.0: .*got None"),
    "class shares that are none": (setting(*SHARES, to=[0.5, 2.0]), r"class shares\.1: .*got 2\.0"),
    "too many class shares": (setting(*SHARES, to=[0.5, 0.25, 0.25]), r"facts\.data\.train: 3 class shares of 2 classes"),
    "classes that differ": (setting("facts", "data", "train", "classes", to=3), r"facts: the train and the validation images"),
    "a loop of text": (in_a_loop("own loop", to="mine"), r"facts\.own loop: .*got 'mine'"),
    "a loop of endless epochs": (in_a_loop("own loop", "training", to={"epochs": 10**9}), r"own loop: training\.epochs: "),
    "a loop with a name more": (in_a_loop("own loop", "a\x1b[31m\nb", to=1), r"facts\.own loop: 'a\\x1b\[31m\\nb': extra"),
    "a loop without code": (in_a_loop("own loop", "network", to={"depth": 1}), r"facts\.own loop\.network\.code: "),
    "a loop without a network": (in_a_loop("own loop network", to=None), r"facts\.own loop network: .*got None"),
    "no versions": (setting("facts", "versions", to=None), r"facts\.versions: .*got None"),
    "a number as facts": (setting("facts", to=7), r"expected a JSON object with 'facts'"),
    "a text as entropy": (setting("facts", "H(Y) bits", to={"kmeans": "much"}), r"H\(Y\) bits\.kmeans: .*got 'much'"),
    "a million threads": (setting("configuration", "threads", to=10**9), r"threads: .*got 1000000000"),
    "a width of a million": (setting("configuration", "network", "width", to=10**6), r"width: .*got 1000000"),
    "a width of a million million": (setting("configuration", "network", "width", to=10**12), r"width: "),
    "a depth of a million": (setting("configuration", "network", "depth", to=10**6), r"depth: "),
    "a million million images": (setting("configuration", "data", "synthetic_images", to=10**12), r"synthetic_images: "),
    "a batch of a million million": (setting(*CONFIGURATION, "batch_size", to=10**12), r"batch_size: "),
    "clusters beyond counting": (setting("configuration", "measuring", "clusters", to=10**15), r"clusters: "),
    "a control character": (setting(*CONFIGURATION, "optimizer", to="a\x1b[31mdam"), r"optimizer: .*a\\x1b\[31mdam"),
    "images of another size": (setting("facts", "data", "train", "image size", to=[32, 48]), r"image_size is \d+x\d+, and"),
    "images of more sides": (setting("facts", "data", "train", "image size", to=[16] * 3), r"began with images of 16x16x16"),
    "a list of a million lists": (text('{"configuration": [' + "[]," * 10**6), r"more than 250000 texts, lists and objects"),
    "a million names": (setting("facts", "more", to=dict.fromkeys(map(str, range(4 * 10**5)), 1)), r"more than 250000 texts"),
    "lists in lists": (text('{"configuration": ' + "[" * 100_000), r"nested more than 64 deep"),
    "half a surrogate pair": (text('{"configuration": {"preset": "\\ud800"}, "facts": {}}'), r"half of a surrogate pair"),
    "bytes that are no text": (text(b'{"configuration": "\xff"}'), r"not UTF-8 at byte 19"),
    "nothing": (text(""), r"config\.json cannot be read"),
    "a list": (text("[]"), r"expected a JSON object"),
    "300 MB of configuration": (enlarged("config.json", 3 * 10**8), r"larger than 8388608 bytes"),
    "2 TB of tables": (enlarged("flow.sqlite", 2 * 10**12), r"2000000000000 bytes, and at most 1073741824 are read"),
    "layers without end": (endless("layers"), r"it has a view 'layers'"),
    "epochs of a view": (endless("epochs"), r"it has a view 'epochs'"),
    "estimates without end": (endless("estimates"), r"it has a view 'estimates'"),
    "a trigger": (
        sql("CREATE TRIGGER later AFTER INSERT ON epochs BEGIN DELETE FROM estimates; END"), r"it has a trigger 'later'"
    ),
    "a schema of several lines that is none": (
        sql(
            "PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql = 'CREATE TABLE layers (`a,\n    b TEXT)' WHERE name = 'layers'"
        ),
        r"flow\.sqlite: malformed database schema",
    ),
    "a table more": (sql("CREATE TABLE more (x)"), r"it has a table 'more'"),
    "a column that is computed": (
        sql("ALTER TABLE epochs ADD COLUMN extra INT GENERATED ALWAYS AS (1) VIRTUAL"), r"has a column 'extra'"
    ),
    "an index that computes": (sql("CREATE INDEX slow ON epochs(abs(epoch))"), r"it has a index 'slow'"),
    "tables of a later format": (sql("PRAGMA user_version = 99"), r"tables of format 99, this version reads 1 to"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("stranger") / "run", (0, 1), labels=("kmeans(k=64)",), pictures_of=8).path


@pytest.mark.long
@pytest.mark.parametrize("place", range(len(FOLDERS)), ids=list(FOLDERS))
@pytest.mark.parametrize("verbs", [2, pytest.param(len(VERBS), marks=pytest.mark.slow)])
def test_verbs_refuse_it_in_a_line(
    place: int,
    verbs: int,
    whole_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Quickly, each folder with other ones of the verbs."""
    change, expected = list(FOLDERS.values())[place]
    run = shutil.copytree(whole_run, tmp_path / "run")
    change(run)
    monkeypatch.chdir(tmp_path)
    content = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    for verb in (VERBS * 2)[place % len(VERBS) :][:verbs]:
        monkeypatch.setattr(sys, "argv", ["unetscope", *(str(run) if word == "RUN" else word for word in verb.split())])
        capsys.readouterr()
        began = time.process_time()
        with pytest.raises(SystemExit) as ended:
            main()
        errors = capsys.readouterr().err
        assert ended.value.code == 2, (verb, errors)
        *before, last = errors.splitlines()
        assert re.search(expected, last), (verb, errors)
        assert last.startswith("unetscope: ")
        assert not [line for line in before if not line.startswith(("warning: ", "  ", "unetscope: "))], (verb, errors)
        assert "\x1b" not in errors
        assert time.process_time() - began < MOST_SECONDS
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == content


@pytest.mark.parametrize("place", [("facts", "data"), ("facts", "versions"), ("configuration", "network")])
@pytest.mark.parametrize("name", ["a\nb", "\x1b[31m", "\u202e", "x" * 5000])
def test_a_name_in_a_file_is_told_in_one_short_line(
    place: tuple[str, ...], name: str, whole_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whole_run, tmp_path / "run")
    setting(*place, name, to=7)(run)
    with pytest.raises(RunFolderError) as refused:
        RunFolder.open(run)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 500


DESIGN = {"name": "x", "depth": 1, "without": ["skip1"]}
SHOWN = {"design": DESIGN, "dice": 0.5, "loss": {"value": 0.1, "low": None, "high": None}, "silenced": 0.1}
EVIDENCE = {
    "epoch": 1,
    "epochs": 1,
    "dice": 0.5,
    "tried": [SHOWN],
    "designs": 1,
    "depth": 1,
    "without": [],
    "alone": [SHOWN],
}


@pytest.mark.parametrize(
    ("name", "values", "place"),
    [
        ("silenced.json", {"silenced": [{"epoch": 1, "design": DESIGN, "loss": 0.1}]}, "silenced.0.design"),
        ("evidence.json", EVIDENCE, "tried.0.design"),
        ("evidence.json", EVIDENCE, "alone.0.design"),
        ("evidence.json", EVIDENCE, ""),
    ],
)
@pytest.mark.parametrize("part", ["bottom", "skip0", "skip1\n", "../skip1"])
def test_a_part_that_is_none_is_told_with_its_file(
    name: str, values: dict[str, Any], place: str, part: str, whole_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whole_run, tmp_path / "run")
    changed = json.loads(json.dumps(values))
    node = changed
    for step in filter(None, place.split(".")):
        node = node[int(step) if step.isdigit() else step]
    node["without"] = [part]
    (run / name).write_text(json.dumps(changed))
    analysed = AnalysedRun.open(run)
    where = re.escape(f"{run / name}: {place}{'.' * bool(place)}without.0: part ")
    with pytest.raises(RunFolderError, match=rf"{where}'.*': expected a skip or a level, such as skip1 or level2"):
        _ = analysed.judgement


def test_the_whole_folder_is_not_refused(whole_run: Path) -> None:
    assert json.loads((whole_run / "config.json").read_text())["configuration"]
    assert AnalysedRun.open(whole_run).epochs


@pytest.mark.long
@pytest.mark.parametrize("command", [job_command, viewer_command], ids=["training", "view"])
@pytest.mark.parametrize("name", ["unetscope", "secrets", "numpy"])
def test_no_module_of_the_current_folder_is_run(
    name: str, command: Callable[[Path], list[str]], whole_run: Path, tmp_path: Path
) -> None:
    """Somebody's run folder or data folder is where people call the command."""
    ran = tmp_path / "ran"
    (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\n")
    folder = whole_run if command is viewer_command else tmp_path / "none"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(folder), cwd=tmp_path, env={**os.environ, "BROWSER": "true"}, **pipes) as process:
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        process.kill()
    assert str(folder) in said
    assert not ran.exists()
