"""The benchmarks themselves, small: that they time what they say, and the bars that hold at any size."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from benchmarks.cases import GIB, batches, measured, passed_through, run_through, scope
from benchmarks.page import SECTIONS, write
from benchmarks.plain_loop import plain_training
from benchmarks.store_everything import estimate, store
from benchmarks.timing import exponent, machine, medians, peak_bytes
from benchmarks.training import a_quick_run

from unetscope.data.synthetic import synthetic_nuclei
from unetscope.estimators.binning import Binning
from unetscope.estimators.kde import KDE
from unetscope.networks.unet import UNet


@pytest.mark.long
def test_the_store_everything_protocol_comes_to_our_estimates(tmp_path: Path) -> None:
    """Two programs that share only the formulas' names: an independent reference for every layer, merges apart."""
    one = scope(synthetic_nuclei(14, image_size=16), 1.0, width=4, depth=2)
    ours = {(e.layer, e.estimator, e.resolution, e.labels): e.bits for e in one.measure(0)}
    layers = [layer for layer in one.layers if layer.role != "merge"]
    store(one.model, batches(one.probe_set), layers, tmp_path)
    classes = {name: labels.numpy() for name, labels in one.classes.items()}
    rows = list(estimate(layers, tmp_path, one.estimators, classes))
    assert len(rows) == len(layers) * (2 * 2 + 2) * 3
    for layer, name, resolution, labels, bits in rows:
        assert bits == pytest.approx(ours[layer, name, resolution, labels], abs=1e-3), (layer, name, resolution, labels)


def hundred_mebibytes(watch: Any, seconds: float) -> dict[str, int]:
    before = bytearray(50 * 2**20)
    with watch:
        during = bytearray(os.urandom(100)) * 2**20
        time.sleep(seconds)
    return {"held": len(before) + len(during)}


@pytest.mark.long
def test_a_watch_sees_what_is_added_while_it_watches() -> None:
    seen = peak_bytes(hundred_mebibytes, 0.2)
    assert seen["peak_bytes"] == pytest.approx(100 * 2**20, rel=0.05)
    assert 0.2 <= seen["seconds"] < 2
    assert seen["held"] == 150 * 2**20


def fails(watch: Any) -> None:
    raise MemoryError


@pytest.mark.long
def test_a_watched_process_that_fails_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"fails\(\) did not finish"):
        peak_bytes(fails)


def test_exponents_and_medians() -> None:
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    calls: list[str] = []
    assert set(medians({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)) == {"a", "b"}
    assert calls == ["a", "b"] * 3
    assert "torch" in machine()


@pytest.mark.long
@pytest.mark.parametrize(("image_size", "budget"), [(128, 0.125), pytest.param(256, 0.25, marks=pytest.mark.slow)])
def test_peak_memory_is_the_budget_a_quarter_more_and_the_network(image_size: int, budget: float) -> None:
    options = {"width": 16, "estimators": [KDE(1.0), Binning(0.2)]}
    peak = peak_bytes(measured, None, image_size, 40, budget, options)
    alone = peak_bytes(passed_through, None, image_size, 40, budget)
    assert peak["passes"] >= 3
    assert peak["peak_bytes"] <= 1.25 * budget * GIB + alone["peak_bytes"]


def test_forward_passes_alone_are_as_deep_as_they_have_to_be() -> None:
    one = scope(synthetic_nuclei(6, image_size=32), 1.0, width=4, depth=2)
    ran: list[str] = []
    for name, module in one.model.named_children():
        module.register_forward_hook(lambda module, inputs, output, name=name: ran.append(name))
    run_through(one.model, one.probe_set, one.budget.passes(one.layers[:2]))
    assert set(ran) <= {"layer1", "layer2"}


def test_the_plain_loop_learns_as_the_trainer_does() -> None:
    train, validation = synthetic_nuclei(24, image_size=32).split(0.25)
    records = list(plain_training(UNet(4, depth=2), train, validation, epochs=4, learning_rate=5e-3, seed=0))
    assert [record.epoch for record in records] == [1, 2, 3, 4]
    assert records[-1].train_loss_running < records[0].train_loss_running


def test_the_page_leaves_out_what_was_not_timed(tmp_path: Path) -> None:
    facts = {"repeats": 5, "machine": "a machine", "date": "a day", "data": "some images"}
    results = {"torch": 1.0, "help": 0.25, "package": 1.0, "names": 1.125}
    page = write({"start": json.loads(json.dumps({"facts": facts, "results": results}))}, tmp_path).read_text()
    assert "| `unetscope --help` | **0.25** |" in page
    assert page.count("## ") == 1
    assert "a machine" in page
    assert "start" in SECTIONS


def test_a_section_that_is_not_timed_again_stays(tmp_path: Path) -> None:
    facts = {"repeats": 1, "machine": "a machine", "date": "a day", "data": "some images"}
    start = {"torch": 1.0, "help": 0.25, "package": 1.0, "names": 1.125}
    quick = {"seconds": 200.0, "training": 80.0, "epochs": 100, "measured": 8, "dice": 0.9}
    write({"start": {"facts": facts, "results": start}, "quick": {"facts": facts, "results": quick}}, tmp_path)
    page = write({"quick": {"facts": facts, "results": quick | {"seconds": 100.0}}}, tmp_path).read_text()
    assert "| `unetscope --help` | **0.25** |" in page
    assert "| 100 | 8 epochs | **100** | 80 | 0.900 |" in page
    assert page.count("## ") == 2
    assert write({}, tmp_path).read_text() == page


@pytest.mark.long
def test_a_whole_run_is_timed() -> None:
    words = ["--epochs", "2", "--image-size", "16", "--width", "2", "--depth", "1", "--threads", "1"]
    taken = a_quick_run(None, None, lambda _: None, *words)
    assert taken["seconds"] > taken["training"] > 0
    assert taken["epochs"] == 2
