"""A byte that changed on the disk is refused where it is read, in every file of a run: never other numbers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from runs import made_run
from unetscope.base import parse_json
from unetscope.base.errors import NetworkError, RunFolderError, TrainingError, UnetscopeError
from unetscope.base.files import whole_file
from unetscope.networks import inspect, load_parts, save_parts, without
from unetscope.networks.unet import UNet, load_model, save_model
from unetscope.runs import tables_file
from unetscope.runs.description import read_seed_plans, write_object
from unetscope.runs.engines.local import Local
from unetscope.runs.folder import RunFolder
from unetscope.runs.kept_costs import KeptCosts, kept_costs, write_costs
from unetscope.runs.kept_evidence import keep_evidence, kept_evidence
from unetscope.runs.kept_silenced import keep_silenced, kept_silenced
from unetscope.runs.retraining import existing_trials
from unetscope.table.costs import Cost, Savings
from unetscope.table.evidence import Evidence, TrainedOn
from unetscope.table.intervals import Interval
from unetscope.table.losses import Silenced
from unetscope.table.parts import Variant
from unetscope.training import checkpoints
from unetscope.training.checkpoints import STATE, WEIGHTS, Checkpoints

MODEL = UNet(2, depth=1)
SLIM, PARTS, SEEDS = "slim/depth1/model.safetensors", "slim/without-skip1", "verification/seeds.json"


def flipped(path: Path, place: int, bit: int = 0) -> None:
    """One bit of a file turned over."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    return keep_checkpoint(tmp_path / "checkpoints")


def keep_checkpoint(folder: Path) -> Checkpoints:
    """A checkpoint of epoch 3."""
    model = UNet(2, depth=1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    checkpoints = Checkpoints(folder)
    checkpoints.save(3, model, optimizer)
    return checkpoints


def restored(checkpoints: Checkpoints) -> None:
    model = UNet(2, depth=1)
    checkpoints.restore(3, model, torch.optim.Adam(model.parameters()))


@pytest.mark.parametrize("name", [WEIGHTS, STATE])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.999])
def test_a_checkpoint_with_one_other_bit_is_refused(kept: Checkpoints, name: str, share: float) -> None:
    restored(kept)
    path = kept.path(3) / name
    flipped(path, int(share * path.stat().st_size))
    with pytest.raises(
        TrainingError, match=rf"epoch-00003 cannot be read \({name} is not as it was written: .*\): remove"
    ):
        restored(kept)


@pytest.mark.parametrize("name", [WEIGHTS, STATE, "SHA256SUMS"])
@pytest.mark.parametrize("left", [0, 10, 100])
def test_a_checkpoint_that_is_cut_off_is_refused(kept: Checkpoints, name: str, left: int) -> None:
    path = kept.path(3) / name
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(
        TrainingError, match=r"epoch-00003 cannot be read .*: remove that folder to go on from the one before"
    ):
        restored(kept)


def test_a_checkpoint_of_an_older_version_has_no_digests_and_is_read(kept: Checkpoints) -> None:
    (kept.path(3) / "SHA256SUMS").unlink()
    restored(kept)


def test_a_checkpoint_without_end_is_refused_unread(kept: Checkpoints) -> None:
    with (kept.path(3) / WEIGHTS).open("rb+") as file:
        file.truncate(2**40)
    with pytest.raises(TrainingError, match=r"weights.safetensors has 1099511627776 bytes, too many for a network of"):
        restored(kept)


@pytest.mark.parametrize("name", [WEIGHTS, STATE, "SHA256SUMS"])
def test_a_pipe_or_a_device_in_a_checkpoint_is_not_read(kept: Checkpoints, name: str) -> None:
    path = kept.path(3) / name
    path.unlink()
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(path)
        with pytest.raises(TrainingError, match=rf"epoch-00003 cannot be read \({name} is not a file\)"):
            restored(kept)
        path.unlink()


WHOLE_NUMBERS = r"is of torch.int32, expected torch.float32"


def as_whole_numbers(path: Path, **header: str) -> None:
    """The file's first weights as whole numbers of 32 bits, which PyTorch would convert, and no digest of before."""
    weights = load_file(path)
    first = min(name for name, values in weights.items() if values.is_floating_point())
    save_file({**weights, first: weights[first].to(torch.int32)}, path, header)


def test_whole_numbers_are_no_weights(kept: Checkpoints, tmp_path: Path) -> None:
    as_whole_numbers(kept.path(3) / WEIGHTS)
    (kept.path(3) / "SHA256SUMS").unlink()
    with pytest.raises(TrainingError, match=rf"epoch-00003 cannot be read \(.*{WHOLE_NUMBERS}\): remove"):
        kept.load_weights(3, UNet(2, depth=1))
    path = save_model(MODEL, tmp_path / "model.safetensors")
    arguments = {"width": 2, "depth": 1, "without": [], "in_channels": 3, "out_channels": 1}
    as_whole_numbers(path, format="unetscope 1", network=json.dumps(arguments))
    with pytest.raises(NetworkError, match=rf"model.safetensors cannot be read as a network \(.*{WHOLE_NUMBERS}\)"):
        load_model(path)
    network, images = UNet(2, depth=1), torch.rand(2, 3, 8, 8)
    save_parts(without(network, inspect(network, images), "skip1"), tmp_path / "parts")
    as_whole_numbers(tmp_path / "parts" / "model.safetensors")
    description = parse_json((tmp_path / "parts" / "network.json").read_text())
    for digest in ("weights", "sha256"):
        description.pop(digest)
    (tmp_path / "parts" / "network.json").write_text(json.dumps(description))
    with pytest.raises(NetworkError, match=rf"does not fit the network that is built: .*{WHOLE_NUMBERS}"):
        load_parts(tmp_path / "parts", lambda: UNet(2, depth=1))


@pytest.mark.parametrize(
    ("setting", "value"), [("lr", "NaN"), ("lr", "Infinity"), ("eps", "-Infinity"), ("betas", "[NaN, 1]")]
)
def test_a_setting_of_an_optimizer_is_a_number(kept: Checkpoints, setting: str, value: str) -> None:
    path = kept.path(3) / STATE
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    settings = json.loads(header["optimizer"])
    settings["groups"][0][setting] = json.loads(value)
    save_file(load_file(path), path, {**header, "optimizer": json.dumps(settings)})
    (kept.path(3) / "SHA256SUMS").unlink()
    with pytest.raises(TrainingError, match=r"epoch-00003 cannot be read \(.*\): remove that folder"):
        restored(kept)


def test_a_network_file_with_one_other_bit_is_refused(tmp_path: Path) -> None:
    path = save_model(MODEL, tmp_path / "model.safetensors", {"validation Dice": 0.8})
    whole, ends = path.read_bytes(), [0, 3, 20, 200, 2000, -4]
    for place in ends:
        path.write_bytes(whole)
        flipped(path, place)
        with pytest.raises(NetworkError, match=r"model.safetensors (cannot be read as a network|has no network)"):
            load_model(path)
    path.write_bytes(whole.replace(b"0.8", b"0.9"))
    with pytest.raises(NetworkError, match=r"its weights or its header are not those that were written"):
        load_model(path)


def test_a_network_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = save_model(MODEL, tmp_path / "model.safetensors")
    arguments = {"width": 2, "depth": 1, "without": [], "in_channels": 3, "out_channels": 1}
    save_file(load_file(path), path, {"format": "unetscope 1", "network": json.dumps(arguments)})
    assert load_model(path).width == 2


def everything(path: Path) -> str:
    """All that is read of a run folder, as text."""
    run = RunFolder.open(path)
    kinds = ("image", "truth", "prediction", "kmeans(k=64)", "blocks(4x4)")
    pixels = [picture.pixels.tobytes() for kind in kinds for picture in run.pictures(kind)]
    kept = kept_costs(run), kept_evidence(run), kept_silenced(run), read_seed_plans(path / SEEDS)
    model = UNet(2, depth=1)
    optimizer = torch.optim.Adam(model.parameters())
    Checkpoints(run.checkpoints).restore(3, model, optimizer)
    smaller = load_model(path / SLIM), load_parts(path / PARTS, lambda: UNet(2, depth=1))
    tensors = [weights.tolist() for network in (model, *smaller) for weights in network.state_dict().values()]
    state = optimizer.state_dict(), [weights.surgery_record.steps for weights in smaller[1:]]
    described = run.configuration, run.facts, run.flow(), run.epochs(), run.ending, run.failure
    return repr((*described, pixels, kept, tensors, state))


def filled_run(path: Path) -> Path:
    """A run folder with every kind of file that is read again."""
    run = made_run(path, (0, 1), labels=("kmeans(k=64)",), pictures_of=8)
    run.end({"constant channels": {"1": 0.5}})
    run.failed("the loss is nan at epoch 7")
    design, loss = Variant("depth2", 2, ()), Interval(0.004, -0.01, 0.015)
    keep_silenced(run, [Silenced(1, design, 0.25)])
    keep_evidence(run, Evidence(1, 3, 0.75, (TrainedOn(design, 0.7, loss, 0.25),), 4, 4))
    cost = Cost(100, 200, 300, 0.001, 400)
    write_costs(run, KeptCosts().with_costs((3, 8, 8), design, Savings(cost, cost)))
    torch.manual_seed(0)
    keep_checkpoint(run.checkpoints)
    (run.path / SLIM).parent.mkdir(parents=True)
    save_model(MODEL, run.path / SLIM, {"validation Dice": 0.8})
    network, images = UNet(2, depth=1), torch.rand(2, 3, 8, 8)
    save_parts(without(network, inspect(network, images), "skip1"), run.path / PARTS)
    (run.path / SEEDS).parent.mkdir()
    write_object(run.path / SEEDS, {"depth2": {"compared": [[0, 1]], "auto": True}})
    return run.path


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled_run(tmp_path_factory.mktemp("damage") / "run")


def damages_that_pass(whole: Path, beside: Path, name: str, harm: Callable[[Path, random.Random], None], n: int) -> int:
    """How many of n damages to a file are read as other values."""
    expected, passed = everything(whole), 0
    for seed in range(n):
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(whole, beside)
        harm(beside / name, random.Random(seed))
        try:
            passed += everything(beside) != expected
        except UnetscopeError as refused:
            assert "\n" not in str(refused)
    return passed


def flip_one_bit(path: Path, chance: random.Random) -> None:
    flipped(path, chance.randrange(path.stat().st_size), chance.randrange(8))


def cut_off(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


FILES = (
    "config.json", "flow.sqlite", "ending.json", "failure.json", "costs.json", "evidence.json", "silenced.json", SEEDS,
    *(f"checkpoints/epoch-00003/{name}" for name in (WEIGHTS, STATE, "SHA256SUMS")),
    SLIM, f"{PARTS}/model.safetensors", f"{PARTS}/network.json",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [flip_one_bit, cut_off])
def test_a_damaged_file_of_a_run_is_refused(whole_run: Path, tmp_path: Path, name: str, harm: Any) -> None:
    assert damages_that_pass(whole_run, tmp_path / "run", name, harm, 8) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [flip_one_bit, cut_off])
def test_many_damaged_files_of_a_run_are_refused(whole_run: Path, tmp_path: Path, name: str, harm: Any) -> None:
    assert damages_that_pass(whole_run, tmp_path / "run", name, harm, 100) == 0


def test_damage_is_named_and_never_covered_up_by_writing(whole_run: Path, tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    run = RunFolder(shutil.copytree(whole_run, tmp_path / "run"))
    estimates = [row for row in run.flow().estimates if row.epoch == 1]
    with closing(sqlite3.connect(run.path / "flow.sqlite")) as tables, tables:
        tables.execute("UPDATE estimates SET bits = bits + 0.001 WHERE epoch = 1 AND layer = '7'")
    damaged = "flow.sqlite: the estimates of epoch 1 are not those that were written: restore flow.sqlite, or train"
    with pytest.raises(RunFolderError, match=damaged):
        run.flow()
    with pytest.raises(RunFolderError, match=damaged):
        run.write_measurement(1, estimates[:1])
    run.write_measurement(0, [])


def test_a_configuration_that_was_edited_is_read_without_its_digest(whole_run: Path, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(whole_run, tmp_path / "run"))
    text = (run.path / "config.json").read_text()
    (run.path / "config.json").write_text(text.replace('"images.zip"', '"moved/images.zip"'))
    with pytest.raises(RunFolderError, match='restore it, or remove its "sha256" if you changed it yourself'):
        _ = run.configuration
    values = json.loads((run.path / "config.json").read_text())
    del values["sha256"]
    (run.path / "config.json").write_text(json.dumps(values))
    assert run.configuration["data"]["path"] == "moved/images.zip"


@pytest.mark.long
@pytest.mark.parametrize("flips", [16, pytest.param(160, marks=pytest.mark.slow)])
def test_a_damaged_index_leaves_out_no_row(whole_run: Path, tmp_path: Path, flips: int) -> None:
    """No digest is of an index, so that nothing is read through one."""
    import sqlite3
    from contextlib import closing

    expected, path = everything(whole_run), whole_run / "flow.sqlite"
    with closing(sqlite3.connect(path)) as tables:
        (size,) = tables.execute("PRAGMA page_size").fetchone()
        pages = [row[0] for row in tables.execute("SELECT rootpage FROM sqlite_master WHERE type = 'index'")]
    chance = random.Random(0)
    for number in range(flips):
        run = Path(shutil.copytree(whole_run, tmp_path / str(number)))
        flipped(
            run / "flow.sqlite", size * (pages[number % len(pages)] - 1) + chance.randrange(size), chance.randrange(8)
        )
        with contextlib.suppress(UnetscopeError):
            assert everything(run) == expected


def test_a_journal_that_names_another_file_is_refused(whole_run: Path, tmp_path: Path) -> None:
    """SQLite deletes the file that a journal of several databases names, as it takes back what was not finished."""
    run, outside = Path(shutil.copytree(whole_run, tmp_path / "run")), tmp_path / "thesis.txt"
    outside.write_text("chapter 1")
    magic, name = bytes.fromhex("d9d505f920a163d7"), str(outside).encode()
    pages = (run / "flow.sqlite").stat().st_size // 4096
    header = (magic + struct.pack(">IIIII", 0, 1, pages, 512, 4096)).ljust(512, b"\0")
    of_several = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    (run / "flow.sqlite-journal").write_bytes(header + of_several)
    for read in (lambda: RunFolder.open(run).flow(), lambda: RunFolder.open(run).epochs()):
        with pytest.raises(RunFolderError, match=r"flow.sqlite-journal names a file outside, which would be deleted"):
            read()
    assert outside.read_text() == "chapter 1"


@pytest.mark.parametrize("kind", ["pipe", "link", "broken link", "folder"])
def test_a_journal_that_is_no_file_is_refused(kind: str, whole_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole_run, tmp_path / "run"))
    journal = run / "flow.sqlite-journal"
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(journal), "link": lambda: journal.symlink_to("/dev/zero"),
        "broken link": lambda: journal.symlink_to(tmp_path / "nothing"), "folder": journal.mkdir,
    }  # fmt: skip
    make[kind]()
    with pytest.raises(RunFolderError, match=r"flow.sqlite-journal is not a file: remove it"):
        RunFolder.open(run).flow()


def test_tables_of_another_run_are_not_written_through_a_link(whole_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole_run, tmp_path / "run"))
    (run / "flow.sqlite").unlink()
    (run / "flow.sqlite").symlink_to(whole_run / "flow.sqlite")
    with pytest.raises(RunFolderError, match="it is a link, and may be of another run"):
        RunFolder.open(run).flow()


@pytest.mark.parametrize(
    "place",
    [
        "checkpoints",
        "checkpoints/epoch-00001",
        "figures",
        "slim",
        "slim/without-skip1",
        "verification/depth2/seed-1",
        "training",
        "tracking",
        "tracking/tensorboard",
        "tracking/tensorboard/events.out.tfevents.1",
    ],
)
def test_a_link_in_the_place_of_a_folder_is_refused(place: str, whole_run: Path, tmp_path: Path) -> None:
    run, outside = Path(shutil.copytree(whole_run, tmp_path / "run")), tmp_path / "thesis"
    outside.mkdir()
    if (link := run / place).exists():
        shutil.rmtree(link)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    with pytest.raises(RunFolderError, match=f"{link} is a link: put the folder that it names in its place"):
        RunFolder.open(run)
    assert not list(outside.iterdir())


def test_a_link_among_the_files_of_a_tracker_is_not_refused(whole_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole_run, tmp_path / "run"))
    (run / "tracking" / "wandb" / "offline-run-1").mkdir(parents=True)
    (run / "tracking" / "wandb" / "latest-run").symlink_to("offline-run-1")
    assert RunFolder.open(run).epochs()


@pytest.mark.parametrize("kind", ["pipe", "link", "broken link", "device", "folder"])
def test_a_log_that_is_no_file_is_not_written(kind: str, tmp_path: Path) -> None:
    log, outside = tmp_path / "job" / "log.txt", tmp_path / "thesis"
    log.parent.mkdir()
    outside.write_text("mine")
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(log), "link": lambda: log.symlink_to(outside), "folder": log.mkdir,
        "broken link": lambda: log.symlink_to(tmp_path / "nothing"), "device": lambda: log.symlink_to("/dev/null"),
    }  # fmt: skip
    make[kind]()
    with pytest.raises(RunFolderError, match=rf"{log} is not a file: remove it"):
        Local(1).run([log.parent], lambda: None)
    assert outside.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    "name", ["config.json", "ending.json", "report.html", "figures/dice.png", "slim/depth1/slim.json"]
)
def test_a_link_in_the_place_of_a_temporary_file_is_not_written_through(name: str, tmp_path: Path) -> None:
    outside, path = tmp_path / "thesis", tmp_path / name
    outside.write_text("mine")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}").symlink_to(outside)
    with whole_file(path) as beside:
        beside.write_text("other")
    assert (outside.read_text(), path.read_text(), path.is_symlink()) == ("mine", "other", False)


def test_a_run_that_is_reached_by_a_link_is_opened(whole_run: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(whole_run)
    assert RunFolder.open(tmp_path / "here").last_epoch() == RunFolder.open(whole_run).last_epoch()


def _changed(run: Path, *statements: str) -> RunFolder:
    """A run whose tables were changed by somebody who removed the digests too."""
    with contextlib.closing(sqlite3.connect(run / "flow.sqlite")) as tables, tables:
        for statement in ("DELETE FROM digests", *statements):
            tables.execute(statement)
    return RunFolder.open(run)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("resolution = NULL", "a value of resolution is None: expected a number from 0"),
        ("resolution = -1", "a value of resolution is -1.0: expected a number from 0"),
        ("resolution = 9e999", "a value of resolution is inf: expected a number from 0"),
        ("per_image = zeroblob(60000000)", "its estimates have more than 40000000 numbers in per_image"),
    ],
)
def test_values_that_no_estimate_has_are_refused(change: str, expected: str, whole_run: Path, tmp_path: Path) -> None:
    chosen = "(SELECT rowid FROM estimates LIMIT 6)"
    run = _changed(
        Path(shutil.copytree(whole_run, tmp_path / "run")), f"UPDATE estimates SET {change} WHERE rowid IN {chosen}"
    )
    with pytest.raises(RunFolderError, match=expected):
        run.flow()


def test_an_endless_selection_is_ended_by_its_steps_and_slow_python_is_not(
    whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.open(shutil.copytree(whole_run, tmp_path / "run"))
    numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {}) SELECT max(x) FROM n"
    monkeypatch.setattr(tables_file, "LOOKS", 20)
    with run._reading() as connection:
        until = time.thread_time() + 0.5
        while time.thread_time() < until:  # longer than twenty looks take
            pass
        assert connection.execute(numbers.format(1000)).fetchone() == (1000,)
    with (
        pytest.raises(RunFolderError, match="reading it takes longer than tables of its size need"),
        run._reading() as connection,
    ):
        connection.execute(numbers.format(10**9))


@pytest.mark.parametrize(
    "text", ['{"a": "' + '\\"' * 100_000, '"' * 200_001, "[" * 60 + '"\\', '{"a": "' + "\\" * 200_001]
)
def test_text_without_an_end_is_refused_at_once(text: str, tmp_path: Path) -> None:
    began = time.process_time()
    with pytest.raises(ValueError):
        parse_json(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (lambda state: state["state"][0].update(exp_avg=torch.zeros(1)), r"exp_avg of parameter 0 has the shape \[1\]"),
        (lambda state: state["state"][1].pop("exp_avg_sq"), "there is no exp_avg_sq of parameter 1"),
        (lambda state: state["param_groups"][0].update(betas=[0.9]), r"betas is \[0.9\]"),
        (lambda state: state["param_groups"][0].update(weight_decay="x"), "weight_decay is 'x'"),
        (lambda state: state["param_groups"][0].update(amsgrad=True), "amsgrad is True"),
    ],
)
def test_a_state_that_is_not_of_the_optimizer_is_refused(
    changed: Callable[[dict[str, Any]], object], text: str, kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fused step of Adam writes beyond a state of another shape."""
    nested = checkpoints._nested

    def harmed(*arguments: Any) -> dict[str, Any]:
        state = nested(*arguments)
        changed(state)
        return state

    monkeypatch.setattr(checkpoints, "_nested", harmed)
    with pytest.raises(TrainingError, match=f"epoch-00003 cannot be read .*{text}"):
        restored(kept)


@pytest.mark.parametrize("setting", ["fused", "foreach", "capturable"])
@pytest.mark.parametrize("value", [None, False, True])
def test_how_another_machine_made_its_steps_refuses_nothing(
    setting: str, value: bool | None, kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a run that was begun with CUDA graphs and goes on with a CPU."""
    nested = checkpoints._nested

    def moved(*arguments: Any) -> dict[str, Any]:
        state = nested(*arguments)
        state["param_groups"][0][setting] = value
        return state

    monkeypatch.setattr(checkpoints, "_nested", moved)
    restored(kept)


def test_a_setting_that_an_older_version_did_not_write_is_that_of_the_run(
    kept: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested = checkpoints._nested

    def older(*arguments: Any) -> dict[str, Any]:
        state = nested(*arguments)
        del state["param_groups"][0]["eps"]
        return state

    monkeypatch.setattr(checkpoints, "_nested", older)
    restored(kept)


@pytest.mark.parametrize("name", ["network.json", "model.safetensors"])
def test_a_pipe_in_a_written_network_is_not_read(name: str, whole_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole_run / PARTS, tmp_path / "parts"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(NetworkError, match=f"{name} is not a file"):
        load_parts(folder, lambda: UNet(2, depth=1))


@pytest.mark.parametrize("kind", ["pipe", "link", "circle"])
def test_a_lock_that_is_no_file_is_refused(kind: str, whole_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole_run, tmp_path / "run"))
    lock = run / ".lock"
    lock.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(lock if kind == "circle" else tmp_path / "made")
    with pytest.raises(RunFolderError, match=r"\.lock is not a file: remove it"), RunFolder.open(run).locked():
        pass
    assert not (tmp_path / "made").exists()


def test_a_folder_of_countless_retrainings_is_refused_unopened(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", (0, 1))
    for seed in range(1001):
        (run.path / "verification" / "depth2" / f"seed-{seed}").mkdir(parents=True)
    with pytest.raises(RunFolderError, match="verification has 1001 retrainings, at most 1000 are read"):
        existing_trials(run)
    (run.path / "verification" / "depth2" / "seed-0").rmdir()
    assert existing_trials(run) == ()
