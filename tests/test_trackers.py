"""What trackers are given of a run folder, read back with what each of them reads its own files with."""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unetscope.base.errors import InvalidArgument, MissingDependency, RunFolderError
from unetscope.data import synthetic_nuclei
from unetscope.measure import Scope
from unetscope.networks import UNet
from unetscope.runs import experiment
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.folder import RunFolder
from unetscope.runs.recorder import Recorder
from unetscope.runs.trackers import TRACKERS, Follower, Point, Session, TrackedRun, Tracker, interface, track
from unetscope.runs.trackers._mlflow import is_permitted
from unetscope.runs.trackers.interface import is_plain, scalars, spelled
from unetscope.table.quantities import Quantity
from unetscope.table.records import EpochRecord, Estimate, Layer
from unetscope.training.config import preset_config

pytestmark = [
    pytest.mark.filterwarnings(  # MLflow's own tables, with SQLAlchemy 2.1
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"
    ),
]
HOSTILE = (
    "decoder.block1:cat",
    "decoder.block1_cat",
    "<script>alert(1)</script>",
    "_x003C_script",
    "..",
    "a/b",
    "a_x002F_b",
)
LAYERS = tuple(Layer(label, f"module{place}") for place, label in enumerate(("1", "2", *HOSTILE)))
ROW = Estimate(0, "1", "I(X;M)", "kde_upper", 1.0, "", 1 / 3, 0.2, 0.4, 2.0, False, n=4, d=32)
USABLE = Estimate(
    0, "2", "I_V(M→Y)", "usable_linear", 0.0, "pixels", 0.25, 0.1, 0.4, 1.0, False, 4, 8, low=0.1, high=0.4
)
NAN = math.nan

Read = dict[tuple[str, int], list[float]]  # (tag, step): every value that the tracker holds there


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection to another machine, and no setting of the user's."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a tracker connected to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))


class JsonLines(Tracker):
    """A fourth tracker: one JSON object a line, in a file that is written anew at every opening."""

    title = "JSON lines"

    def open(self, session: Session) -> None:
        session.folder.mkdir(exist_ok=True)
        self._file = (session.folder / "run.jsonl").open("w", encoding="utf-8")

    def log_points(self, points: Sequence[Point]) -> None:
        for step, tag, value in points:
            self._write(step=step, tag=tag, value=value)
        self._file.flush()

    def log_figure(self, title: str, path: Path, step: int) -> None:
        self._write(step=step, figure=title, png=path.read_bytes().hex())

    def log_parameters(self, values: Mapping[str, str | int | float]) -> None:
        self._write(parameters=dict(values))

    def close(self) -> None:
        self._file.close()

    def _write(self, **record: Any) -> None:
        self._file.write(json.dumps(record) + "\n")


def test_a_fourth_tracker_is_thirty_lines() -> None:
    assert len(inspect.getsource(JsonLines).splitlines()) <= 30


@pytest.fixture(params=[*TRACKERS, "jsonl"])
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "jsonl":
        monkeypatch.setitem(TRACKERS, name, JsonLines)
    for module in TRACKERS[name].packages:
        pytest.importorskip(module, reason=f"{name} is an extra: its tests need {module}")
    return name


@pytest.fixture
def bare(tmp_path: Path) -> RunFolder:
    """A run folder that no tracker has seen."""
    run = RunFolder.create(
        tmp_path / "a run 100%",
        {"configuration": {"seed": 3, "training": {"epochs": 2, "rates": [0.1], "device": None}}},
    )
    run.describe(LAYERS, ())
    run.write_epoch(EpochRecord(0, NAN, NAN, 0.7, 0.1, 2.0))
    run.write_measurement(
        0, [*(replace(ROW, layer=layer.label, bits=place + 0.5) for place, layer in enumerate(LAYERS))]
    )
    run.write_measurement(
        0, [USABLE, replace(ROW, quantity="I(Y;M)", labels="kmeans(4)", bits=NAN, reason="one class")]
    )
    return run


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which it takes a second to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def run(bare: RunFolder, request: pytest.FixtureRequest) -> RunFolder:
    """The same; if it is for MLflow, with the tables of a database that has lost its run."""
    if "tracker" in request.fixturenames and request.getfixturevalue("tracker") == "mlflow":
        database = bare.path / "tracking/mlflow/mlflow.db"
        database.parent.mkdir(parents=True)
        shutil.copyfile(request.getfixturevalue("mlflow_tables"), database)
        identity = {"run": "0" * 32, "where": f"sqlite:///{database}"}
        (bare.path / "tracking/mlflow.json").write_text(json.dumps({"identity": identity, "figures": {}}))
    return bare


def go_on(run: RunFolder, epoch: int) -> None:
    run.write_epoch(EpochRecord(epoch, 0.5, 0.25, 0.75, 0.5 + epoch / 64, 1.5))
    run.write_measurement(epoch, [replace(ROW, epoch=epoch, bits=1.5)])


def read(run: RunFolder, tracker: str) -> Read:
    values: Read = {}
    for tag, step, value in READERS[tracker](run.path / "tracking"):
        values.setdefault((tag, step), []).append(value)
    return values


def read_tensorboard(tracking: Path) -> Iterator[tuple[str, int, float]]:
    events = accumulated(tracking)
    for tag in events.Tags()["scalars"]:
        yield from ((tag, event.step, event.value) for event in events.Scalars(tag))


def accumulated(tracking: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(tracking / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def mlflow_run(tracking: Path) -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(
        os.environ.get("MLFLOW_TRACKING_URI") or json.loads((tracking / "mlflow.json").read_text())["identity"]["where"]
    )
    (experiment,) = (each for each in client.search_experiments() if each.name == "unetscope")
    (tracked,) = client.search_runs([experiment.experiment_id])
    return client, tracked


def read_mlflow(tracking: Path) -> Iterator[tuple[str, int, float]]:
    client, tracked = mlflow_run(tracking)
    for tag in tracked.data.metrics:
        yield from ((tag, point.step, point.value) for point in client.get_metric_history(tracked.info.run_id, tag))


def wandb_records(tracking: Path) -> list[Any]:
    """The records of the one offline run, which its writer ends a moment after it was told to."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        records = list(_records(tracking))
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.01)
    raise AssertionError("the offline run has no end")


def _records(tracking: Path) -> Iterator[Any]:
    """Blocks of 32 KiB, in which each piece of a record has a checksum, a length and a kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = tracking.glob("wandb/offline-run-*/*.wandb")
    data, place, whole = path.read_bytes(), 7, b""
    assert data[:4] in {b"", b":W&B"}
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        if place + 7 + length > len(data):
            return
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in {1, 4}:  # whole, or the last piece
            yield Record.FromString(whole)
            whole = b""


def wandb_rows(tracking: Path) -> Iterator[dict[str, Any]]:
    """The history: of a figure, a dictionary."""
    for record in wandb_records(tracking):
        if record.HasField("history"):
            row: dict[str, Any] = {}
            for item in record.history.item:
                tag, *inside = item.nested_key or [item.key]
                value = json.loads(item.value_json)
                row[tag] = {**row.get(tag, {}), inside[0]: value} if inside else value
            yield row


def read_wandb(tracking: Path) -> Iterator[tuple[str, int, float]]:
    for row in wandb_rows(tracking):
        for tag, value in row.items():
            if not tag.startswith("_") and not isinstance(value, dict):
                yield tag, row["_step"], value


def json_records(tracking: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tracking / "jsonl/run.jsonl").read_text(encoding="utf-8").splitlines()]


def read_json_lines(tracking: Path) -> Iterator[tuple[str, int, float]]:
    for record in json_records(tracking):
        if "tag" in record:
            yield record["tag"], record["step"], record["value"]


READERS: dict[str, Callable[[Path], Iterator[tuple[str, int, float]]]] = {
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
    "wandb": read_wandb,
    "jsonl": read_json_lines,
}


def figures_of(run: RunFolder, tracker: str) -> list[bytes]:
    """The PNG files that the tracker shows."""
    tracking = run.path / "tracking"
    if tracker == "tensorboard":
        events = accumulated(tracking)
        return [image.encoded_image_string for tag in events.Tags()["images"] for image in events.Images(tag)]
    if tracker == "jsonl":
        return [bytes.fromhex(record["png"]) for record in json_records(tracking) if "png" in record]
    if tracker == "mlflow":
        client, tracked = mlflow_run(tracking)
        names = [about.path for about in client.list_artifacts(tracked.info.run_id, "figures")]
        return [Path(client.download_artifacts(tracked.info.run_id, name)).read_bytes() for name in names]
    files = next(tracking.glob("wandb/offline-run-*/files"))
    shown = [value for row in wandb_rows(tracking) for value in row.values() if isinstance(value, dict)]
    return [(files / value["path"]).read_bytes() for value in shown if value["_type"] == "image-file"]


def expected(run: RunFolder, tracker: str) -> Read:
    spell = TRACKERS[tracker].spell
    return {
        (spell(scalar.names), scalar.epoch): [pytest.approx(scalar.value)]
        for scalar in scalars(run.flow(), run.epochs())
    }


def png(path: Path, grey: int) -> Path:
    Image.fromarray(np.full((3, 5), grey, np.uint8)).save(path)
    return path


@pytest.mark.long
def test_a_whole_run_comes_back_once_and_as_it_is(bare: RunFolder, tracker: str) -> None:
    go_on(bare, 1)
    assert track(bare, tracker) == bare.path / "tracking" / tracker
    shown = read(bare, tracker)
    assert shown == expected(bare, tracker)
    assert shown["validation/Dice", 1] == [pytest.approx(0.5 + 1 / 64)]
    assert ("train/loss", 0) not in shown
    input_tag, usable = ("I X M", "I_V M to Y") if tracker == "mlflow" else ("I(X;M)", "I_V(M→Y)")
    assert shown[f"{input_tag}/kde_upper 1/1", 1] == [1.5]
    assert [shown[f"{usable}{end}/usable_linear/2", 0] for end in ("", " low", " high")] == [
        [0.25], [pytest.approx(0.1)], [pytest.approx(0.4)],
    ]  # fmt: skip
    assert f"{input_tag}/kde_upper 1/decoder.block1:cat" in {tag for tag, _ in shown}
    assert not any("I(Y;M)" in tag or "I Y M" in tag for tag, _ in shown), "an estimate that is no number"
    track(bare, tracker)
    assert read(bare, tracker) == shown
    go_on(bare, 2)
    track(bare, tracker)
    assert read(bare, tracker) == expected(bare, tracker)
    assert len(read(bare, tracker)) > len(shown)


@pytest.mark.long
def test_a_run_that_goes_on_is_followed(run: RunFolder, tracker: str) -> None:
    with TrackedRun(run, tracker) as tracked:
        for epoch in range(1, 4):
            run.write_epoch(EpochRecord(epoch, 0.5, 0.25, 0.75, 0.5 + epoch / 64, 1.5))
            tracked.update()
            go_on(run, epoch)
            tracked.update()
            tracked.update()
    assert read(run, tracker) == expected(run, tracker)
    assert len(read(run, tracker)) == 5 * 4 - 2 + len(LAYERS) + 3 + 3


def test_what_comes_late_or_changed_takes_its_place(run: RunFolder, tracker: str) -> None:
    go_on(run, 5)
    with TrackedRun(run, tracker) as tracked:
        run.write_measurement(2, [replace(ROW, epoch=2, bits=2.5)])
        tracked.update()
    assert read(run, tracker) == expected(run, tracker)
    with TrackedRun(run, tracker) as tracked:
        run.write_measurement(0, [replace(ROW, bits=0.125), replace(USABLE, bits=NAN)])
        tracked.update()
    assert read(run, tracker) == expected(run, tracker)
    run.write_measurement(5, [replace(ROW, epoch=5, bits=7.0)])
    track(run, tracker)
    shown = read(run, tracker)
    assert shown == expected(run, tracker)
    assert [7.0] in shown.values()


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_trackers import JsonLines, go_on
from unetscope.runs.trackers import TRACKERS, TrackedRun
from unetscope.runs.folder import RunFolder
TRACKERS["jsonl"] = JsonLines
run = RunFolder.open(sys.argv[1])
tracked = TrackedRun(run, sys.argv[2])
go_on(run, 1)
tracked.update()
tracked.figures()
go_on(run, 2)
os._exit(9)
"""


@pytest.mark.long
def test_a_killed_run_goes_on_in_the_same_run_without_doubles(run: RunFolder, tracker: str, tmp_path: Path) -> None:
    run.figures.mkdir()
    drawn = png(run.figures / "dice.png", 7).read_bytes()
    arguments = [sys.executable, "-c", KILLED, str(run.path), tracker, str(Path(__file__).parent)]
    killed = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    state = run.path / "tracking" / f"{tracker}.json"
    before = json.loads(state.read_text())
    run.write_epoch(EpochRecord(2, 0.5, 0.25, 0.75, 0.5 + 2 / 64, seconds=9.0))  # trained again, as fast as it may be
    with TrackedRun(run, tracker) as tracked:
        go_on(run, 3)
        tracked.update()
    assert json.loads(state.read_text()) == before
    assert read(run, tracker) == expected(run, tracker)
    assert figures_of(run, tracker) == [drawn]


@pytest.mark.parametrize("tracker", ["mlflow"], indirect=True)
def test_an_epoch_trained_again_in_other_time_keeps_the_run(run: RunFolder, tracker: str) -> None:
    tracking, runs = run.path / "tracking", []
    for dice in (0.1, 0.1, 0.2):
        run.write_epoch(EpochRecord(0, NAN, NAN, 0.7, dice, seconds=float(len(runs))))
        track(run, "mlflow")
        runs.append(mlflow_run(tracking)[1].info)
    first, again, replaced = runs
    assert first.run_id == again.run_id != replaced.run_id
    assert (again.status, replaced.run_name) == ("FINISHED", run.path.name)


def test_hostile_names_stay_apart_and_are_no_path(run: RunFolder, tracker: str) -> None:
    track(run, tracker)
    shown = {tag: values for (tag, _), values in read(run, tracker).items() if "kde_upper" in tag}
    assert sorted(value for (value,) in shown.values()) == [place + 0.5 for place in range(len(LAYERS))]
    assert all(len(tag.split("/")) == 3 for tag in shown)
    written = {path.resolve() for path in run.path.parent.rglob("*") if run.path not in path.parents}
    assert written <= {run.path, *(run.path.parent / "cache", *(run.path.parent / "cache").rglob("*"))}


def test_a_configuration_comes_back(run: RunFolder, tracker: str) -> None:
    track(run, tracker)
    parameters = {"seed": 3, "training/epochs": 2, "training/rates": "[0.1]", "training/device": "null"}
    tracking = run.path / "tracking"
    if tracker == "mlflow":
        assert mlflow_run(tracking)[1].data.params == {name: str(value) for name, value in parameters.items()}
    elif tracker == "wandb":
        updates = [update for record in wandb_records(tracking) for update in record.config.update]
        shown = {update.key or "/".join(update.nested_key): json.loads(update.value_json) for update in updates}
        assert {name: value for name, value in shown.items() if name != "_wandb"} == parameters
    elif tracker == "jsonl":
        assert [record["parameters"] for record in json_records(tracking) if "parameters" in record] == [parameters]
    else:
        from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

        metadata = accumulated(tracking).SummaryMetadata("_hparams_/session_start_info")
        about = parse_session_start_info_plugin_data(metadata.plugin_data.content).hparams
        assert {name: about[name].string_value or about[name].number_value for name in about} == parameters


def test_figures_are_shown_and_the_last_of_a_title_stays(run: RunFolder, tracker: str) -> None:
    run.figures.mkdir()
    own, further = png(run.figures / "u_plot.png", 1), png(run.figures / "<b> Dice: 100 %.png", 2)
    (run.figures / ".half.1.part.png").write_bytes(b"")
    with TrackedRun(run, tracker) as tracked:
        tracked.figures()
        tracked.figures()
    assert sorted(figures_of(run, tracker)) == sorted([own.read_bytes(), further.read_bytes()])
    png(own, 3)
    track(run, tracker)
    go_on(run, 1)
    with TrackedRun(run, tracker) as tracked:
        png(own, 4)
        tracked.figures()
        go_on(run, 2)
        tracked.update()
    assert sorted(figures_of(run, tracker)) == sorted([own.read_bytes(), further.read_bytes()])
    assert read(run, tracker) == expected(run, tracker)


def test_an_analysed_run_is_not_read_again(run: RunFolder, tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    analysed = AnalysedRun(run)
    assert analysed.flow.epochs
    assert analysed.epochs
    with monkeypatch.context() as patch:
        for table in ("flow", "epochs"):
            patch.setattr(RunFolder, table, lambda _: 1 / 0)
        track(analysed, tracker)
    assert read(run, tracker) == expected(run, tracker)


@pytest.mark.long
def test_a_copied_or_moved_run_goes_on_where_it_is(run: RunFolder, tracker: str, tmp_path: Path) -> None:
    run.figures.mkdir()
    png(run.figures / "dice.png", 1)
    track(run, tracker)
    held = read(run, tracker)
    copy = RunFolder(shutil.copytree(run.path, tmp_path / "copy"))
    for place in (copy, RunFolder(tmp_path / "moved")):
        if place is not copy:
            copy.path.rename(place.path)
        go_on(place, 1 + (place is not copy))
        track(place, tracker)
        assert read(place, tracker) == expected(place, tracker)
        assert len(figures_of(place, tracker)) == 1
    assert read(run, tracker) == held


@pytest.mark.long
def test_a_run_of_the_same_name_begins_anew(bare: RunFolder, tracker: str) -> None:
    """A process that has opened a database goes on in its file, though it was deleted."""
    track(bare, tracker)
    shutil.rmtree(bare.path / "tracking")
    track(bare, tracker)
    assert read(bare, tracker) == expected(bare, tracker)
    shutil.rmtree(bare.path / "tracking" / tracker)
    track(bare, tracker)
    assert read(bare, tracker) == expected(bare, tracker)


@pytest.mark.parametrize("tracker", ["tensorboard"], indirect=True)
def test_an_open_tensorboard_forgets_the_older_file(run: RunFolder, tracker: str) -> None:
    track(run, tracker)
    shown = accumulated(run.path / "tracking")
    run.write_epoch(EpochRecord(0, NAN, NAN, 0.7, 0.25, 2.0))
    track(run, tracker)
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("validation/Dice")] == [(0, 0.25)]


def test_who_opens_a_run_twice_ends_the_first(run: RunFolder, tracker: str) -> None:
    first = TrackedRun(run, tracker)
    go_on(run, 1)
    with TrackedRun(run, tracker):
        pass
    with pytest.raises(InvalidArgument, match=r"no more is written of .*: open it again"):
        first.update()
    first.close()
    assert read(run, tracker) == expected(run, tracker)


def test_an_absent_package_is_one_line(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}
    for name, title in titles.items():
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(MissingDependency) as raised:
            track(run, name)
        assert str(raised.value) == f'{title} needs its package: pip install "unetscope[{name}]"'
    with pytest.raises(
        InvalidArgument, match=r"tracker must be one of tensorboard, mlflow, wandb, got 'wand': .* 'wandb'"
    ):
        track(run, "wand")


def test_an_absent_package_is_refused_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    scope = Scope(UNet(2, depth=1), synthetic_nuclei(4, image_size=16), labels=[])
    for begin in (
        lambda: experiment.run(preset_config("demo", {}), tmp_path / "run", track="mlflow"),
        lambda: Recorder(scope, tmp_path / "run", track="mlflow"),
    ):
        with pytest.raises(MissingDependency, match=r'MLflow needs its package: pip install "unetscope\[mlflow\]"'):
            begin()
        assert not list(tmp_path.iterdir())


def test_a_store_without_its_tables_package_is_one_line(bare: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is an extra")
    monkeypatch.setitem(sys.modules, "alembic", None)
    with pytest.raises(MissingDependency, match=r'MLflow needs its package: pip install "unetscope\[mlflow\]"'):
        track(bare, "mlflow")


@pytest.mark.long
def test_the_users_own_places_are_respected(bare: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mlflow", "sqlalchemy", "alembic", "wandb"):
        pytest.importorskip(module, reason="mlflow and wandb are extras")
    where = f"sqlite:///{tmp_path}/mine.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", where)
    monkeypatch.setenv("MLFLOW_ARTIFACT_ROOT", str(tmp_path / "artifacts"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    track(bare, "mlflow")
    track(bare, "mlflow")
    track(bare, "wandb")
    assert where not in (bare.path / "tracking/mlflow.json").read_text(), "an address may hold a password"
    assert (tmp_path / "mine.db").is_file()
    assert not (bare.path / "tracking/mlflow").exists()
    assert read(bare, "mlflow") == expected(bare, "mlflow")
    assert not list((bare.path / "tracking").glob("wandb/*run-*"))


def test_a_damaged_note_and_a_place_that_cannot_be_written_are_named(run: RunFolder) -> None:
    (run.path / "tracking").mkdir()
    (run.path / "tracking/tensorboard.json").write_text('{"identity": 3}')
    with pytest.raises(RunFolderError, match=r"tensorboard.json cannot be read \(.*\): delete .*tracking"):
        track(run, "tensorboard")
    shutil.rmtree(run.path / "tracking")
    (run.path / "tracking").write_text("")
    with pytest.raises(RunFolderError, match=r"tracking cannot be written \(File exists\)"):
        track(run, "tensorboard")


@pytest.mark.parametrize("permitted", [str.isprintable, is_plain, is_permitted])
def test_no_two_names_are_spelled_alike(permitted: Callable[[str], bool]) -> None:
    from itertools import product

    pieces = ("", "_", "x", "0000", "003C", "_x003C_", "<", "/", ".", "\0", "\udc80")
    names = {"".join(parts) for parts in product(pieces, repeat=4)}
    texts = {spelled([name], permitted) for name in names}
    assert len(texts) == len(names)
    assert all(text and "/" not in text and text.isprintable() and text.strip(".") for text in texts)


def test_quantities_and_resolutions_have_tags_of_their_own() -> None:
    spell = TRACKERS["mlflow"].spell
    quantities = [*Quantity, "I_V(M→Y) low", "I_V(M→Y) high"]
    tags = {spell([quantity, "1"]) for quantity in quantities}
    assert len(tags) == len(quantities)
    assert "I_V S to Y given U and pooled S/1" in tags
    assert not any("_x" in tag for tag in tags)
    assert len(spell(["I(X;M)", "a" * 300])) == len(spell(["I(X;M)", "a" * 301])) == 250
    assert spell(["I(X;M)", "a" * 300]) != spell(["I(X;M)", "a" * 301])
    named = {interface._names(replace(ROW, resolution=size))[1] for size in (0.1, 0.10000000000100001, 1.0, 0.0)}
    assert named == {"kde_upper 0.1", "kde_upper 0.10000000000100001", "kde_upper 1", "kde_upper 0"}


def test_trackers_are_loaded_where_they_are_used() -> None:
    code = (
        "import sys, unetscope.runs.trackers; "
        "sys.exit(bool({'torch', 'tensorboard', 'mlflow', 'wandb'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_tracker_that_fails_ends_no_training(bare: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not here")
    run, warnings = bare, list[str]()
    follower = Follower(run, "tensorboard", warnings.append, seconds=0.0)
    monkeypatch.setattr(TrackedRun, "update", lambda _: 1 / 0)
    for _ in range(3):
        follower.update()
    follower.close()
    assert warnings == ["the tracker is given no more: division by zero"]


@pytest.mark.long
def test_a_command_is_tracked_by_one_argument(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not here")
    out = tmp_path / "run"
    words = ["run", "--out", out, "--preset", "demo", "--synthetic-images", 12, "--image-size", 16, "--width", 2,
             "--depth", 1, "--epochs", 2, "--clusters", 2, "--no-merge-probes", "--threads", 1, "--quiet",
             "--track", "tensorboard"]  # fmt: skip
    subprocess.run([sys.executable, "-m", "unetscope", *map(str, words)], check=True)
    run = RunFolder.open(out)
    assert read(run, "tensorboard") == expected(run, "tensorboard")
    done = subprocess.run(
        [sys.executable, "-m", "unetscope", *map(str, words[:-1]), "tensorbord"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "unetscope: tracker must be one of tensorboard, mlflow, wandb, got 'tensorbord': the nearest names are "
        "'tensorboard'\n"
    )
