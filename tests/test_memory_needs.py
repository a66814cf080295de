"""The memory that a run will take, before it begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from runs import TINY
from unetscope.activations.memory import FEATURES_AT_ONCE
from unetscope.base import NoProgress
from unetscope.data import synthetic_nuclei
from unetscope.estimators import Convolutional
from unetscope.measure import Probes, Scope
from unetscope.networks import UNet, kept_bytes
from unetscope.runs import experiment, memory_needs
from unetscope.runs.experiment import Experiment, prepare
from unetscope.runs.memory_needs import MemoryNeeds, little_memory
from unetscope.training import preset_config

GIB = 2**30


def prepared(**values: object) -> Experiment:
    return prepare(preset_config("demo", {**TINY, "training.precision": "float32", **values}))


def test_the_needs_of_training_are_those_of_a_batch_and_of_the_optimizer() -> None:
    batches = [prepared(**{"training.batch_size": size}) for size in (2, 4, 8)]
    needs = [each.memory_needs().training for each in batches]
    model = batches[0].model
    an_image = kept_bytes(model.eval(), torch.rand(1, 3, 16, 16))
    weights = 4 * sum(weight.numel() for weight in model.parameters())
    evaluation = 32 * batches[0].scope.budget.forward_bytes
    assert needs == [3 * weights + max(size * an_image, evaluation) for size in (2, 4, 8)]
    plain = prepared(**{"training.batch_size": 2, "training.optimizer": "sgd"})
    assert needs[0] - plain.memory_needs().training == 2 * weights


def test_the_needs_of_measuring_are_the_budget_or_what_all_layers_fill() -> None:
    large = {"data.image_size": 32}  # whose layers fill more than one chunk
    much = prepared(**large, **{"measuring.memory_budget": 2**30})
    room, layers = much.scope.budget, sum(layer.size for layer in much.scope.layers if not layer.parts)
    for_matrices = room.total_bytes - room.activation_bytes
    of_layers, of_merges = much.scope.probe_bytes()
    assert of_layers > 0 == of_merges  # a tiny run has no probes of the merges
    expected = max(for_matrices + 4 * room.n * layers + of_layers, of_merges)
    assert much.memory_needs().measuring - beside(much) == expected
    least = for_matrices + 4 * room.n * FEATURES_AT_ONCE
    assert layers > FEATURES_AT_ONCE
    little = prepared(**large, **{"measuring.memory_budget": least})
    assert little.memory_needs().measuring - beside(little) == least + little.scope.probe_bytes()[0]


def test_what_probes_hold_grows_with_the_square_of_the_widest() -> None:
    def of_merges(units: int) -> int:
        probes = Probes(merges=(Convolutional(units),))
        nuclei = synthetic_nuclei(8, image_size=16)
        return Scope(UNet(2, depth=1), nuclei, held_out=nuclei, probes=probes, labels=()).probe_bytes()[1]

    assert of_merges(1024) / of_merges(512) == pytest.approx(4, rel=0.05)


def beside(each: Experiment) -> int:
    """The bytes of the network's batch, on top of the budget."""
    return each.scope.budget.batch_size * each.scope.budget.forward_bytes


def test_modes_and_gradients_are_left_as_they_were() -> None:
    each = prepared()
    each.model.train()
    next(each.model.children()).eval()
    before, drawn = [module.training for module in each.model.modules()], torch.get_rng_state()
    each.memory_needs()
    assert torch.equal(torch.get_rng_state(), drawn)  # or a run with dropout would differ from its retraining
    assert [module.training for module in each.model.modules()] == before
    assert all(weight.grad is None for weight in each.model.parameters())


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        (MemoryNeeds(3 * GIB, 5 * GIB), ""),
        (MemoryNeeds(9 * GIB, 5 * GIB), "training takes up to 9.0 GiB, and 8.0 are free: .* lower --batch-size, --image-size"),
        (MemoryNeeds(9 * GIB, 12 * GIB), "measuring takes up to 12.0 GiB, and 8.0 are free: .* lower --memory-budget"),
    ],
)  # fmt: skip
def test_a_machine_that_is_too_small_is_told(needs: MemoryNeeds, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    monkeypatch.setattr(memory_needs, "default_budget", lambda _: 2 * GIB)
    assert re.fullmatch(text, little_memory(needs, torch.device("cpu")))


def test_it_is_told_before_the_training(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    progress = NoProgress()
    progress.warn = told.append  # type: ignore[method-assign]

    def trained(*_: object) -> None:
        told.append("training begins")

    monkeypatch.setattr(memory_needs, "default_budget", lambda _: 2**10)
    monkeypatch.setattr(experiment, "_train_and_measure", trained)
    experiment.run(
        preset_config("demo", {**TINY, "measuring.memory_budget": 2**26}), f"{tmp_path}/run", progress=progress
    )
    assert "are free: the run may be ended on its way" in told[-2]
    assert told[-1] == "training begins"


def test_a_storage_counts_once_and_weights_do_not() -> None:
    layer = nn.Conv2d(1, 1, 1)
    both = nn.ModuleList([layer, layer])

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = both

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.both[0](image) + self.both[1](image)

    assert kept_bytes(Twice(), torch.rand(1, 1, 8, 8)) == 4 * 64


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is counted in KiB on Linux")
@pytest.mark.parametrize("more", [(), ("--memory-budget=256MiB",)])
def test_the_peak_of_a_run_is_within_a_tenth_of_the_forecast(more: tuple[str, ...], tmp_path: Path) -> None:
    """Probes of the merges among it, of which it was 20 to 30 % short."""
    words = ["--epochs=1", "--marked=1", "--synthetic-images=240", "--image-size=128", "--width=8", "--threads=1"]
    command = [sys.executable, "-m", "unetscope", "run", f"--out={tmp_path / 'run'}", *words, *more]
    dry = subprocess.run([*command, "--dry-run", "--json"], check=True, capture_output=True, text=True)
    ran = subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, ran.returncode, usage = os.wait4(ran.pid, 0)
    assert ran.returncode == 0
    assert 1024 * usage.ru_maxrss == pytest.approx(json.loads(dry.stdout)["memory_bytes"], rel=0.1)
